"""Published activity perturbation: that it is the published rule, and what its mean really is."""

import pytest
import torch
from node_nets import estimate, run, start
from torch import nn

import zolib as zo
from zolib.nodes import Activities, Nodes
from zolib.tangent import Exact

FEEDBACKS = [zo.TwoPoint(), zo.OneSided()]
X = torch.linspace(-1, 1, 12).view(4, 3)


def tanh_net(generator):
    net = nn.Sequential(*(m for _ in range(3) for m in (nn.Linear(3, 3), nn.Tanh())), nn.Linear(3, 2)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    mix = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    return net, x, lambda h: (mix * h).sin().sum(dim=1)


def through(net, x, losses):
    """For each example: J, from injected noise to the change of all pre-activations, and the slope at each of them."""
    sizes = [m.out_features for m in net if isinstance(m, nn.Linear)]

    def activities(noise):
        h, seen = x, []
        for m in net:
            h = m(h)
            if isinstance(m, nn.Linear):
                h = h + noise[:, sum(s.shape[1] for s in seen) :][:, : m.out_features]
                seen.append(h)
        return torch.cat(seen, dim=1), h

    n = sum(sizes)
    zero = torch.zeros(len(x), n, dtype=torch.float64)
    full = torch.autograd.functional.jacobian(lambda z: activities(z)[0], zero)  # (B, n, B, n)
    j = torch.stack([full[b, :, b] for b in range(len(x))])
    slopes = torch.autograd.functional.jacobian(lambda z: losses(activities(z)[1]).sum(), zero)
    return j, slopes, sizes


@pytest.mark.parametrize("feedback", FEEDBACKS, ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("scaling", ["global", "layer"])
def test_activity_perturbation_is_the_published_rule(scaling, feedback, seed, generator):
    """To first order its change of activities is J xi, and its change of the loss the slope times that."""
    net, x, losses = tanh_net(generator)
    j, slopes, sizes = through(net, x, losses)
    experiment = start(lambda: losses(net(x)), net, Activities(scaling), seed=seed, samples=3)
    found = run(experiment, feedback, sigma=1e-6).pairs
    sites, _ = experiment._run(lambda site, a: a)
    total = [torch.zeros(s, dtype=torch.float64) for s in sizes]  # the biases' gradients
    for k in range(3):
        z = torch.cat([experiment.noise(s, k) for s in sites], dim=1).double()
        if isinstance(feedback, zo.TwoPoint):
            z = z - torch.cat([experiment.noise(s, k, 1) for s in sites], dim=1).double()
        change, rise = torch.einsum("bij,bj->bi", j, z), (slopes * z).sum(dim=1, keepdim=True)
        for part, t in zip(change.split(sizes, dim=1), total, strict=True):
            whole = change if scaling == "global" else part
            t += (whole.shape[1] * rise * part / whole.square().sum(dim=1, keepdim=True)).mean(dim=0) / 3
    for (_, bias), expected in zip(found[1::2], total, strict=True):
        assert torch.allclose(bias, expected, rtol=1e-3, atol=1e-4 * expected.abs().max())


def test_activity_perturbation_estimates_a_preconditioned_gradient(seed, generator, half_width):
    """E[dL da_l] = Cov(da_l) g_l: positive semidefinite times the gradient, and no slope of 1 (trap of the rule)."""
    net, x, losses = tanh_net(generator)
    j, slopes, sizes = through(net, x, losses)
    z = torch.randn(40_000, *slopes.shape, generator=generator, dtype=torch.float64)
    change = torch.einsum("bij,rbj->rbi", j, z)
    product = (slopes * z).sum(dim=2, keepdim=True) * change
    covariance = j @ j.transpose(1, 2)
    layers = [slice(sum(sizes[:i]), sum(sizes[: i + 1])) for i in range(len(sizes))]
    error = [
        product[:, :, s].mean(dim=0) - torch.einsum("bij,bj->bi", covariance[:, s, s], slopes[:, s]) for s in layers
    ]
    assert (torch.cat(error, dim=1).abs() <= half_width(product, product[0].numel())).all()
    ratios = [
        (torch.einsum("bij,bj->bi", covariance[:, s, s], slopes[:, s]) * slopes[:, s]).sum()
        / slopes[:, s].square().sum()
        for s in layers
    ]
    assert ratios[0].item() == pytest.approx(1), "no noise comes from below the first layer"
    assert max(ratios) > 1.5, "but above it the slope is not 1"
    assert min(ratios) > 0


def test_activity_perturbation_needs_something_to_compare_with():
    net = nn.Linear(3, 1)
    with pytest.raises(ValueError, match="one-sided"):
        estimate(lambda: net(X).sum(), net, Activities(), zo.RewardPredictionError())
    with pytest.raises(TypeError, match="exact"):
        estimate(lambda: net(X).sum(), net, Activities(), Exact())
    assert Activities().scale == "direction" and Nodes().scale == "gradient"
