"""Wrong gradients and wrong noise that were found in other zeroth-order code, each as a test of ours."""

import copy

import pytest
import torch
from torch import nn

import zolib as zo
from zolib.noise import stream


def draw(law, seed, parameter=0, sample=0, step=0, count=64):
    return stream.draw(law, seed, step, range(sample, sample + 1), [(parameter, count)])[0][0]


def test_one_sided_estimates_divide_by_sigma_once_and_keep_their_base_value():
    """One divided by 1/sigma (sigma^2 too small) and overwrote the base value in the sample loop."""
    x = torch.tensor([1.0, -2.0], dtype=torch.float64)
    for sigma in (0.1, 1e-3):
        g = zo.grad(
            lambda v: (v * v.new_tensor([3.0, 1.0])).sum(), feedback="one-sided", samples=2000, sigma=sigma, seed=0
        )(x)
        assert g.norm() == pytest.approx(10**0.5, rel=0.15)
    cosine = torch.nn.functional.cosine_similarity(g, g.new_tensor([3.0, 1.0]), dim=0)
    assert cosine > 0.99


@pytest.mark.parametrize("probe", ["gaussian", "rademacher", "sphere"])
def test_every_law_has_unit_variance(probe):
    """One passed the probe size where its sampler wanted a standard deviation: slope 115."""
    g = zo.grad(lambda v: v.sum(), probe=probe, samples=4000, sigma=0.01, seed=1)(torch.zeros(3, dtype=torch.float64))
    assert g.mean() == pytest.approx(1.0, rel=0.1)


def test_an_estimate_does_not_move_the_weights():
    """One kept its backup as an alias of the live weights; others restore by arithmetic and drift."""
    net = nn.Linear(4, 3)
    before, live = copy.deepcopy(net.state_dict()), dict(net.named_parameters())
    zo.backward(lambda: net(torch.ones(2, 4)).square().mean(), live.values(), samples=50, sigma=0.3, seed=0)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_layers_of_the_same_shape_get_their_own_noise():
    """Reseeding inside the parameter loop gave same-shaped layers identical noise."""
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    zo.backward(lambda: net(torch.ones(1, 4)).sum(), net, seed=0)
    a, b = (p.grad.sign() for p in net.parameters())
    assert not torch.equal(a, b) and not torch.equal(a, -b)


@pytest.mark.parametrize("law", [stream.SIGN, stream.NORMAL])
def test_consecutive_seeds_share_no_noise(law):
    """Seeds made by adding offsets let one step's noise return as another parameter's noise in the next."""
    drawn = {}
    for seed in range(8):
        for parameter in range(4):
            for sample in range(4):
                key = tuple(draw(law, seed, parameter, sample).tolist())
                assert key not in drawn, f"{(seed, parameter, sample)} repeats {drawn[key]}"
                drawn[key] = (seed, parameter, sample)


def test_the_direction_added_is_the_direction_probed():
    """Reseeding per parameter made the update's noise differ from the probe's from the second parameter on."""
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    seen = []
    x = torch.eye(3)

    def closure():
        seen.append([net[0](x).T.clone(), net[1](x).T.clone()])  # the perturbed weights themselves
        return net(x).sum()

    zo.backward(closure, net, samples=2, sigma=0.5, seed=3)
    losses = [(w[0].T @ w[1].T).sum() for w in seen]
    coefficients = [(losses[0] - losses[1]) / 1.0, (losses[2] - losses[3]) / 1.0]
    for j, p in enumerate(net.parameters()):
        expected = sum(c * (seen[2 * k][j] - seen[2 * k + 1][j]) for k, c in enumerate(coefficients)) / 2
        assert torch.allclose(p.grad, expected, atol=1e-5)


def test_every_direction_counts():
    """One kept only the last of its directions."""
    f = torch.Tensor.sum
    x = torch.zeros(5, dtype=torch.float64)
    one, two = (
        zo.grad(f, probe="rademacher", samples=1, sigma=0.1, seed=0),
        zo.grad(f, probe="rademacher", samples=2, sigma=0.1, seed=0),
    )
    z = torch.stack([draw(stream.SIGN, 0, sample=k, count=5) for k in range(2)]).double()
    assert torch.allclose(one(x), z[0] * z[0].sum())
    assert torch.allclose(two(x), (z * z.sum(dim=1, keepdim=True)).mean(dim=0))


def test_seed_zero_is_a_seed():
    """One read seed 0 as 'no seed'."""
    g = zo.grad(torch.Tensor.sum, samples=3, seed=0)
    assert torch.equal(g(torch.ones(4)), g(torch.ones(4)))
    fresh = zo.grad(torch.Tensor.sum, samples=3)
    assert not torch.equal(fresh(torch.ones(4)), fresh(torch.ones(4)))


def test_training_mode_is_left_as_it_is():
    """One called model.eval() for its passes and never undid it."""
    net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    seen = []
    zo.backward(lambda: seen.append(net.training) or net(torch.ones(2, 3)).mean(), net, samples=2, seed=0)
    assert seen == [True] * 4 and net.training


def test_a_pair_sees_the_same_dropout_mask():
    net = nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.5))
    masks = []

    def closure():
        out = net(torch.ones(1, 3))
        masks.append(out.eq(0))
        return out.mean()

    zo.backward(closure, net, samples=3, sigma=1e-4, seed=0)
    assert all(torch.equal(masks[0], m) for m in masks)
    assert 10 < masks[0].sum() < 54


def test_bfloat16_gains_are_probed():
    """In bfloat16 a probe of 1e-3 on a LayerNorm gain of 1 is rounded away: 97 % of perturbations vanished."""
    norm = nn.LayerNorm(64).bfloat16()
    x = torch.linspace(-2, 2, 64)

    def closure():
        return (x * norm.weight.float() + norm.bias.float()).sum()

    rows = []
    for step in range(200):
        zo.backward(closure, norm, samples=8, sigma=1e-3, seed=0, step=step)
        rows.append(norm.weight.grad.float())
        norm.zero_grad()
    slope = (torch.stack(rows) @ x / x.square().sum()).mean()
    assert slope == pytest.approx(1.0, abs=0.2)
