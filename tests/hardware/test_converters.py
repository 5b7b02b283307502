"""Converters and wires, against plain arithmetic."""

import pytest
import torch
from torch import nn

import zolib as zo
from zolib import hardware as H


def quantised(x, step, bound):
    return max(-bound, min(bound, round(x / step) * step))


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_dac_levels(bits, outputs):
    """2^bits - 1 levels, symmetric about 0, clipped at the bound."""
    x = torch.linspace(-3, 3, 4001).unsqueeze(1)
    y, _ = outputs(x, torch.ones(1, 1), H.DAC(bits, bound=2.0))
    step = 2.0 / (2 ** (bits - 1) - 1)
    assert len(y.unique()) == 2**bits - 1
    assert torch.allclose(y, (x.clamp(-2, 2) / step).round() * step, atol=1e-6)
    inside = x.abs() <= 2
    assert (y - x)[inside].abs().max() <= step / 2 + 1e-6


def test_dac_scales_to_each_example(outputs):
    x = torch.tensor([[0.01, -0.02, 0.0], [10.0, 5.0, 2.0], [0.0, 0.0, 0.0]])
    y, _ = outputs(x, torch.eye(3), H.DAC(4))
    largest = x.abs().amax(dim=1, keepdim=True)
    step = torch.where(largest > 0, largest / 7, 1.0)
    assert torch.allclose(y, (x / step).round() * step)


def test_dac_scales_images_as_a_whole(seed):
    x = torch.rand(3, 2, 4, 4) * torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1, 1)
    layer = nn.Conv2d(2, 2, 1, bias=False)
    y = H.deploy(layer, H.Chip([H.DAC(5)], seed=seed))(x)
    step = x.amax(dim=(1, 2, 3), keepdim=True) / 15
    assert torch.allclose(y, layer((x / step).round() * step), rtol=1e-5, atol=1e-5)


def test_adc_levels_in_units_of_a_cell(outputs):
    """Full scale 3 cells' current: 3 w_max x_max; x_max is 1, or what the DAC makes of it."""
    x = torch.linspace(-4, 4, 1001).unsqueeze(1)
    y, _ = outputs(x, torch.full((1, 1), 0.5), H.ADC(4, bound=3.0))
    step = 3.0 * 0.5 / 7
    assert torch.allclose(y, (0.5 * x / step).round().clamp(-7, 7) * step, atol=1e-6)
    y, _ = outputs(x, torch.full((1, 1), 0.5), H.DAC(12, bound=4.0), H.ADC(4, bound=3.0))
    assert len(y.unique()) == 5  # outputs up to one cell's current reach a third of the levels
    fixed, _ = outputs(x, torch.full((1, 1), 0.5), H.DAC(12, bound=4.0), H.OutputNoise(0.0), H.ADC(4, bound=3.0))
    assert torch.equal(y, fixed)


def test_output_noise_follows_the_input_range(outputs, within_five):
    x = torch.full((200_000, 1), 8.0)
    y, _ = outputs(x, torch.full((1, 1), 0.5), H.DAC(8), H.OutputNoise(0.05))
    within_five(y - 4.0, 0.0, (0.05 * 0.5 * 8.0) ** 2)


def test_bias_is_digital(seed):
    layer = nn.Linear(2, 3)
    hw = H.deploy(layer, H.Chip([H.ADC(2, bound=1.0)], seed=seed))
    y = hw(torch.zeros(1, 2))
    assert torch.equal(y[0], layer.bias)


@pytest.mark.parametrize("stages", [[H.DAC(3)], [H.ADC(3)], [H.DAC(3), H.ADC(3, stochastic=True)]])
def test_gradients_pass_straight_through(stages, seed):
    layer = nn.Linear(4, 3)
    hw = H.deploy(layer, H.Chip(stages, seed=seed))
    x = torch.randn(5, 4, requires_grad=True)
    slope = torch.randn(5, 3)
    (hw(x) * slope).sum().backward()
    applied = H.deploy(layer, H.Chip(stages[:1] if isinstance(stages[0], H.DAC) else [], seed=seed))
    assert torch.allclose(x.grad, slope @ layer.weight, atol=1e-6)
    seen = torch.autograd.functional.jacobian(lambda w: nn.functional.linear(x, w), layer.weight.detach())
    assert seen.shape and applied(x).shape == (5, 3)
    assert torch.allclose(hw.bias.grad, slope.sum(0))


@pytest.mark.parametrize("stages", [[H.DAC(12)], [H.ADC(14)]])
def test_tangents_pass_straight_through(stages, seed):
    """Node perturbation in forward mode, as without converters: the same noise, so nearly the same estimate."""
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))
    x, found = torch.randn(6, 4), []
    for extra in ([], stages):
        hw = H.deploy(net, H.Chip(extra, seed=seed))
        zo.backward(lambda: hw(x)[:, 0].square(), hw, probe=zo.Nodes(), feedback="exact", seed=seed, step=0)  # noqa: B023
        found.append(next(iter(hw.tiles())).weight.grad)
    assert found[0].norm() > 0 and (found[1] - found[0]).norm() < 0.02 * found[0].norm()


@pytest.mark.parametrize("n_chips", [None, 2])
def test_ir_drop_is_the_published_polynomial(n_chips, seed):
    """Cell by cell, in plain loops."""
    n, outs, r, g_max, w_max, x_max = 7, 3, 500.0, 25.0, 0.8, 1.0
    layer = nn.Linear(n, outs, bias=False).double()
    x = torch.randn(2, n, dtype=torch.float64).clamp(-1, 1)
    hw = H.deploy(layer, H.Chip([H.IRDrop(r)], n_chips, seed=seed, g_max=g_max), w_max=w_max)
    y = hw(x) if n_chips is None else hw(x)[1]
    for b in range(2):
        for i in range(outs):
            u = [layer.weight[i, j].item() / w_max * x[b, j].item() / x_max for j in range(n)]
            a = n * r * g_max * 1e-6 * sum(map(abs, u))
            c = a * (0.05 * a * a - 0.2 * a + 0.5)
            lost = c * sum(v * (1 - (1 - j / n) ** 2) for j, v in enumerate(u))
            assert y[b, i].item() == pytest.approx((sum(u) - lost) * w_max, rel=1e-9)


def test_ir_drop_of_a_convolution_is_that_of_its_columns(seed):
    conv, x = nn.Conv2d(2, 3, 2, bias=False).double(), torch.rand(1, 2, 4, 4, dtype=torch.float64)
    linear = nn.Linear(8, 3, bias=False).double()
    linear.weight.data.copy_(conv.weight.flatten(1))
    y = H.deploy(conv, H.Chip([H.IRDrop(300.0)], seed=seed))(x)
    patches = nn.functional.unfold(x, 2).transpose(1, 2)  # (1, 9, 8)
    again = H.deploy(linear, H.Chip([H.IRDrop(300.0)], seed=seed))(patches)
    assert torch.allclose(y.flatten(2), again.transpose(1, 2))


def test_wire_resistance_zero_drops_nothing(outputs):
    x, w = torch.randn(3, 5), torch.randn(2, 5)
    y, _ = outputs(x, w, H.IRDrop(0.0))
    assert torch.allclose(y, x @ w.T, atol=1e-6)
