"""Decorrelation: correlations fall, and nothing is lost that a linear layer could do."""

import pytest
import torch
from node_nets import OneHot, run, start
from torch import nn

import zolib as zo
from zolib.decorrelation import Decorrelation
from zolib.nodes import Nodes


def correlated(generator, n=512, size=6):
    mix = torch.randn(size, size, generator=generator) + 1.5
    return torch.randn(n, size, generator=generator) @ mix.T / size


def off_diagonal(x):
    moment = x.T @ x / len(x)
    return (moment - moment.diagonal().diag()).abs().max().item()


def trained(kappa, x, steps=4000):
    layer = Decorrelation(x.shape[1], alpha=0.02, kappa=kappa).double()
    for _ in range(steps):
        layer(x)
        layer.update()
    return layer


def test_off_diagonal_moments_fall_to_nothing(generator):
    x = correlated(generator).double()
    layer = trained(0.0, x)
    assert off_diagonal(layer(x)) < 1e-3 * off_diagonal(x)


def test_whitening_brings_the_second_moment_to_one(generator):
    x = correlated(generator).double()
    out = trained(0.5, x)(x)
    moment = out.T @ out / len(out)
    assert (moment - torch.eye(6, dtype=torch.float64)).abs().max() < 0.05


def test_one_update_is_the_rule(generator):
    x = correlated(generator).double()
    layer = Decorrelation(6, alpha=0.1, kappa=0.25).double()
    layer.D.copy_(torch.randn(6, 6, generator=generator))
    before = layer.D.clone()
    out = layer(x)
    assert torch.allclose(out, x @ before.T)
    layer.update()
    c = torch.einsum("bi,bj->ij", out, out) / len(out)
    v = c.diagonal() - 1
    c = c * (1 - torch.eye(6))
    expected = before - 0.1 * (0.75 * c @ before + 0.25 * torch.diag(v) @ before)
    assert torch.allclose(layer.D, expected, rtol=1e-12)


def test_a_layer_after_it_is_a_plain_layer(generator):
    x = correlated(generator).double()
    layer, linear = trained(0.0, x, steps=200), nn.Linear(6, 3).double()
    assert torch.allclose(linear(layer(x)), nn.functional.linear(x, layer.folded(linear.weight), linear.bias))
    # and the other way: D is invertible, so every plain layer can be represented
    wanted = torch.randn(3, 6, generator=generator).double()
    assert torch.allclose(layer.folded(wanted @ torch.linalg.inv(layer.D)), wanted)


def test_it_is_a_buffer_that_moves_only_when_asked(generator):
    layer = Decorrelation(6)
    x = correlated(generator)
    assert not list(layer.parameters()) and "D" in layer.state_dict()
    layer(x)
    assert torch.equal(layer.D, torch.eye(6))
    layer.update()
    with pytest.raises(RuntimeError, match="forward pass"):
        layer.update()
    layer.eval()(x)
    with pytest.raises(RuntimeError, match="training mode"):
        layer.update()


def test_node_noise_on_a_decorrelated_net_is_its_gradient(generator):
    """Decorrelated node perturbation: D is passed through, not shaken and not learned from the loss."""
    net = nn.Sequential(Decorrelation(3), nn.Linear(3, 4), nn.Tanh(), Decorrelation(4), nn.Linear(4, 2)).double()
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    for _ in range(20):
        net(x)
        net[0].update()
        net[3].update()
    before = [net[0].D.clone(), net[3].D.clone()]

    def closure():
        return net(x).sin().sum(dim=1)

    units = OneHot(start(closure, net, Nodes()), one_each=True)
    experiment = start(closure, net, Nodes(), samples=units.units)
    experiment.noise = units
    pairs = run(experiment, zo.TwoPoint(), 1e-5).pairs
    true = torch.autograd.grad(closure().mean(), list(net.parameters()))
    assert len(pairs) == len(true) == 4
    assert all(torch.allclose(g * units.units, t, atol=1e-8) for (_, g), t in zip(pairs, true, strict=True))
    assert torch.equal(net[0].D, before[0]) and torch.equal(net[3].D, before[1])


@pytest.mark.parametrize(
    ("settings", "message"), [({"alpha": 0.0}, "alpha"), ({"alpha": -1.0}, "alpha"), ({"kappa": 1.5}, "kappa")]
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ValueError, match=message):
        Decorrelation(3, **settings)


def test_another_width_is_refused():
    with pytest.raises(ValueError, match="length 3"):
        Decorrelation(3)(torch.ones(2, 4))
