"""zolib.check measures what it reports, and changes nothing."""

import copy
import itertools
import math
import weakref

import pytest
import torch
from torch import nn

import zolib as zo


def sphere_and_cube(x, cubic, noise=0.0):
    """A list with one parameter, and a closure: slope, cubic term and evaluation noise are known."""
    parameter = nn.Parameter(torch.zeros(x, dtype=torch.float64))
    errors = torch.Generator().manual_seed(0)

    def closure():
        t = parameter.sum() / x**0.5
        return t + cubic * t**3 + noise * torch.randn((), generator=errors, dtype=torch.float64)

    return [parameter], closure


def test_known_slope_cubic_term_and_noise():
    # one number: z = +-1, f = t + 5 t^3, so the slope is 1 and its bias 5 sigma^2
    model, closure = sphere_and_cube(1, 5.0, noise=1e-8)
    report = zo.check(closure, model, seed=0)
    assert report.noise == pytest.approx(1e-8, rel=0.8)
    assert report.slope == pytest.approx(1.0, rel=0.05)
    # the change that B is read from is ten times its noise, or more: three deviations are a third
    assert report.curvature == pytest.approx(5.0, rel=0.3)
    assert report.sigma == pytest.approx((report.noise**2 / (4 * report.curvature**2)) ** (1 / 6), rel=1e-6)
    assert report.signal_to_noise == pytest.approx(2**0.5 * report.sigma / report.noise, rel=0.05)
    assert not report.deterministic  # its errors come from a generator of its own


def test_a_straight_function_is_best_shaken_hard():
    model, closure = sphere_and_cube(1, 0.0)
    report = zo.check(closure, model, seed=0)
    assert report.sigma > 1e-3
    assert report.curvature != report.curvature  # nan: no cubic term to be seen


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_suggested_sigma_is_near_the_best(dtype, seed, generator):
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)
    x, y = torch.randn(32, 5, generator=generator).to(dtype), torch.randint(3, (32,), generator=generator)

    def closure():
        return nn.functional.cross_entropy(net(x), y)

    report = zo.check(closure, net, seed=seed)
    assert report.deterministic and report.dtype == dtype and report.dimension == 75
    exact = copy.deepcopy(net).double()
    nn.functional.cross_entropy(exact(x.double()), y).backward()
    true = torch.cat([p.grad.flatten() for p in exact.parameters()])

    def error(sigma):
        zo.backward(closure, net, probe="coordinate", samples=75, sigma=sigma, seed=0)
        estimate = torch.cat([p.grad.flatten() for p in net.parameters()]).double()
        net.zero_grad()
        return (estimate - true).norm() / true.norm()

    # one coordinate at a time the best sigma is larger than along a direction that shakes all 75
    assert error(report.sigma) < 0.01
    assert error(report.sigma) < error(report.sigma / 100)


def test_an_unrepeatable_closure_is_found():
    net, batches = nn.Linear(3, 1), itertools.count()
    data = torch.linspace(-1, 2, 300).view(100, 3)
    report = zo.check(lambda: net(data[next(batches) % 100]).square().mean(), net, seed=0)
    assert not report.deterministic
    assert "draw the batch outside" in str(report)


def test_idle_parameters_are_reported_not_refused():
    net = nn.ModuleDict({"used": nn.Linear(2, 1), "idle": nn.Linear(2, 1)})
    report = zo.check(lambda: net["used"](torch.ones(4, 2)).square().mean(), net, seed=0)
    assert report.unused == ["idle.weight", "idle.bias"]
    assert report.consumed == ["used.weight", "used.bias"]
    assert "idle.weight" in str(report)


def test_nothing_is_changed():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    report = zo.check(lambda: net(torch.linspace(-1, 1, 24).view(8, 3)).square().mean(), net, seed=0)
    assert report.deterministic, "dropout draws from a global generator: the same state gives the same loss"
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.grad is None for p in net.parameters())


def test_bfloat16_weights_are_shaken_hard_enough():
    net = nn.Linear(8, 4).bfloat16()
    x = torch.linspace(-1, 1, 80).view(10, 8).bfloat16()
    report = zo.check(lambda: net(x).float().square().mean(), net, seed=0)
    assert report.sigma >= 1e-2


# --- noise on nodes ---------------------------------------------------------------------------------------------------


def test_known_slope_and_cubic_term_of_a_unit():
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(layer.weight)
    errors = torch.Generator().manual_seed(0)

    def closure():
        a = layer(torch.ones(1, 1, dtype=torch.float64)).squeeze()
        return a + 5 * a**3 + 1e-8 * torch.randn((), generator=errors, dtype=torch.float64)

    report = zo.check(closure, layer, probe=zo.Nodes("rademacher"), seed=0)
    assert report.dimension == 1 and report.noise == pytest.approx(1e-8, rel=0.8)
    assert report.slope == pytest.approx(1.0, rel=0.05) and report.curvature == pytest.approx(5.0, rel=0.3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_units_are_counted_and_what_noise_does_not_reach_is_named(reduction, dtype, seed, generator):
    net = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3)).to(dtype)
    x, y = torch.randn(32, 5, generator=generator).to(dtype), torch.randint(3, (32,), generator=generator)

    def closure():
        return nn.functional.cross_entropy(net(x), y, reduction=reduction)

    report = zo.check(closure, net, probe="nodes", seed=seed)
    assert report.dimension == (11 if reduction == "none" else 32 * 11)
    assert report.deterministic and report.dtype == dtype
    assert report.loss == pytest.approx(closure().mean().item(), rel=1e-6)
    assert report.consumed == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert report.unused == ["2.weight", "2.bias"]

    def biases(**settings):
        """Slopes times noise: of a bias, whose input is 1 and does not move."""
        net.zero_grad()
        zo.backward(closure, net, probe="nodes", samples=4, seed=seed, unused="skip", **settings)
        return torch.cat([net[0].bias.grad, net[3].bias.grad]).double()

    exact = biases(feedback="exact")
    errors = [(biases(sigma=report.sigma * factor) - exact).norm() / exact.norm() for factor in (1, 0.01, 100)]
    assert errors[0] < min(1e-3, *errors[1:]), "rounding rules far below, and the cubic term far above"


def test_the_spacing_is_that_of_the_units_not_of_the_weights(generator):
    """Rounding of pre-activations near 1000 is the noise; steps in proportion to weights of 1e-3 would not show it."""
    layer = nn.Linear(1, 16, bias=False)
    with torch.no_grad():
        layer.weight.copy_(1e-3 * (1 + 0.01 * torch.randn(16, 1, generator=generator)))
    x = torch.full((1, 1), 1e6)
    still = layer(x).detach()
    report = zo.check(lambda: (layer(x) - still).sum(), layer, probe="nodes", seed=0)
    place = 1024 * torch.finfo(torch.float32).eps / 2  # above and below 1024 it differs by a factor 2
    assert place / 2 < report.noise / math.sqrt(16 / 12) < 4 * place


def test_what_a_check_of_nodes_kept_is_let_go():
    net, x = nn.Linear(3, 2), torch.ones(4, 3)
    kept = []

    def closure():
        inner = x.clone()  # what the gradient of the weight needs
        kept.append(weakref.ref(inner))
        return net(inner).square().mean()

    before = copy.deepcopy(net.state_dict())
    zo.check(closure, net, probe="nodes", seed=0)
    assert not any(ref() is not None for ref in kept)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_probes_without_a_direction_to_go_along_are_refused():
    net = nn.Linear(3, 1)
    closure = lambda: net(torch.ones(2, 3)).square().mean()  # noqa: E731
    with pytest.raises(TypeError, match=r"probe=Activities\(\) cannot be checked.*probe=zo.Nodes\(\)"):
        zo.check(closure, net, probe="activities")
    with pytest.raises(TypeError, match=r"probe=Backpropagation\(\) cannot be checked"):
        zo.check(closure, net, probe="backpropagation")
    with pytest.raises(zo.LossError, match="perturbs parameters that all its"):
        zo.check(lambda: net(torch.ones(2, 3)).square().sum(dim=1), net)
    with pytest.raises(zo.ParameterError, match="node noise reaches none|no linear map"):
        zo.check(lambda: net.weight.square().sum(), net, probe="nodes")
