"""Exact slopes by forward mode: against autograd, for functions and for modules, and what cannot be done by name."""

import numpy as np
import pytest
import torch
from node_nets import NETS, build
from torch import nn
from torch.nn import functional as F

import zolib as zo
from zolib.directions import Directions
from zolib.errors import LossError
from zolib.estimates import Replay
from zolib.subject import Subject, as_targets, quiet_torch
from zolib.tangent import Exact, slope_of_function, slope_of_module

PROBES = [zo.Gaussian(), zo.Rademacher(), zo.Sphere(), zo.Coordinate(), zo.LowRank(1), zo.Orthogonal(3)]


def directions(probe, named, samples=3, seed=5):
    return Directions(probe, as_targets(named, "model"), seed, 0, samples)


def module_slope(model, closure, probe=None, k=0, unused="raise"):
    subject = Subject(closure, model, "Gaussian")
    drawn = Directions(probe or zo.Gaussian(), subject.targets, 5, 0, 3)
    with quiet_torch():
        loss, slope = slope_of_module(subject, drawn, k, unused)
    return loss, slope, [drawn(k, j) for j in range(len(subject.targets))]


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: type(p).__name__)
def test_slope_of_a_function_is_the_gradient_along_z(probe, generator):
    a, b = torch.randn(4, 3, generator=generator).double(), torch.randn(3, generator=generator).double()

    def f(leaves):
        return (leaves[0] @ leaves[1]).sin().sum() + leaves[1].prod() / leaves[0].norm()

    true = torch.func.grad(lambda x, y: f([x, y]), argnums=(0, 1))(a, b)
    drawn = directions(probe, [("a", a), ("b", b)])
    for k in range(3):
        with quiet_torch():
            loss, slope = slope_of_function(f, drawn, k)
        expected = sum((g * drawn(k, j)).sum() for j, g in enumerate(true))
        assert torch.allclose(slope, expected, rtol=1e-6) and torch.equal(loss, f([a, b]))
        assert loss.grad_fn is None and not torch.autograd.forward_ad.unpack_dual(loss).tangent


@pytest.mark.parametrize("net", [net for net in NETS if net != "weight-norm"])
def test_slope_of_a_module_is_the_gradient_along_z(net, generator):
    """Every net that node noise is tested on: recurrent, convolutional, attention."""
    model, closure, true = build(net, generator, one_each=False)
    before = [p.detach().clone() for p in model.parameters()]
    loss, slope, z = module_slope(model, closure)
    expected = sum((g * d).sum() for g, d in zip(true, z, strict=True))
    assert slope.item() == pytest.approx(expected.item(), rel=1e-9)
    assert loss.item() == pytest.approx(closure().item(), rel=1e-12)
    assert all(torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("fast", [False, True])
def test_a_transformer_layer_enters_plain_attention_by_itself(fast, generator):
    net = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).double().train(not fast)
    x = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)

    def closure():
        return net(x).square().mean() + F.scaled_dot_product_attention(net(x), x, x, is_causal=True).mean()

    loss, slope, z = module_slope(net, closure)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        true = torch.autograd.grad(closure(), list(net.parameters()))
    assert slope.item() == pytest.approx(sum((g * d).sum() for g, d in zip(true, z, strict=True)).item(), rel=1e-9)


def test_all_coordinates_give_the_gradient_to_rounding(generator):
    """No sigma, no difference: to the last digits, where a difference quotient would have lost half of them."""
    x = torch.randn(6, generator=generator).double()
    f = lambda leaves: leaves[0].exp().prod().log1p()  # noqa: E731
    drawn = directions(zo.Coordinate(), [("x", x)], samples=6)
    with quiet_torch():
        slopes = torch.stack([slope_of_function(f, drawn, k)[1] for k in range(6)])
        estimate = Replay.mean(drawn, slopes).dense()[0]
    assert torch.allclose(estimate, torch.func.grad(lambda v: f([v]))(x), rtol=1e-13)


def test_the_mean_over_directions_has_slope_one(seed, generator, half_width):
    model, closure, true = build("mlp", generator, one_each=False)
    subject = Subject(closure, model, "Gaussian")
    drawn = Directions(zo.Gaussian(), subject.targets, seed, 0, 2000)
    flat = torch.cat([g.flatten() for g in true])
    with quiet_torch():
        slopes = torch.stack([slope_of_module(subject, drawn, k, "raise")[1] for k in range(2000)])
        z = torch.stack([torch.cat([drawn(k, j).flatten() for j in range(len(true))]) for k in range(2000)]).double()
    ratios = slopes * (z @ flat) / flat.square().sum()
    assert abs(ratios.mean().item() - 1) <= half_width(ratios, 2).item()
    moments = slopes**2 * z.square().sum(dim=1) / flat.square().sum()
    assert abs(moments.mean().item() - (len(flat) + 2)) <= half_width(moments, 2).item()


def test_detach_is_passed_over_as_by_values(generator):
    net = nn.Linear(3, 2, bias=False).double()
    x = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    for closure in (
        lambda: (x @ net.weight.detach().T).sin().sum(),
        lambda: (x @ net.weight.data.mT).sin().sum(),
        lambda: net(x).detach().sin().sum(),
    ):
        _, slope, z = module_slope(net, closure)
        expected = ((x @ net.weight.T).cos().T @ x * z[0]).sum()
        assert slope.item() == pytest.approx(expected.item(), rel=1e-9)


def test_batch_norm_statistics_move_as_in_one_evaluation(generator):
    import copy

    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    twin = copy.deepcopy(net)
    twin(x)
    module_slope(net, lambda: net(x).sin().sum())
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), twin.buffers(), strict=True))
    assert all(torch.autograd.forward_ad.unpack_dual(b.double()).tangent is None for b in net.buffers())


class NoDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


def refused(error, message, f):
    x = torch.ones(3, 3).double()
    with quiet_torch(), pytest.raises(error, match=message):
        slope_of_function(lambda leaves: f(leaves[0]), directions(zo.Gaussian(), [("x", x)]), 0)


def test_an_operation_without_a_forward_derivative_is_named():
    refused(NotImplementedError, "NoDerivative.*two-point", lambda x: NoDerivative.apply(x).sum())
    refused(NotImplementedError, "numpy.*two-point", lambda x: torch.from_numpy(np.sin(x.numpy())).sum())
    normed, closure, _ = build("weight-norm", torch.Generator(), one_each=False)
    with pytest.raises(NotImplementedError, match="_weight_norm_interface.*two-point"):
        module_slope(normed, closure)
    refused(
        NotImplementedError,
        "grid_sampler.*two-point",
        lambda x: F.grid_sample(torch.ones(1, 1, 4, 4).double(), x[None, None, :, :2]).sum(),
    )


def test_losses_without_a_slope():
    refused(LossError, "returned float", lambda x: x.sum().item())
    refused(LossError, "does not change", lambda x: (x.detach() > 0).double().sum())
    refused(LossError, "shape", lambda x: x)
    refused(ValueError, "my own", lambda x: (_ for _ in ()).throw(ValueError("my own")))
    refused(RuntimeError, "shapes cannot be multiplied", lambda x: x @ torch.ones(2, 2).double())


def test_it_says_what_it_is():
    assert Exact().exact and Exact().signs == () and repr(Exact()) == "Exact()" and Exact().scale == "gradient"
