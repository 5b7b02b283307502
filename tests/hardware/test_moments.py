"""Every stage draws what its formula says: sampled moments within five standard errors at 200,000 draws."""

import math

import pytest
import torch

from zolib import hardware as H

DRAWS = 200_000
HOUR, DAY = 3600.0, 86400.0
TESTED = set()


def named(value):
    """Names for tests: of a stage or a process, its repr; pytest's own for the rest."""
    return repr(value) if isinstance(value, torch.nn.Module) else None


def of(*kinds):
    """Marks the stages that a test samples, so that none is forgotten."""
    TESTED.update(kinds)
    return lambda test: test


# --- cells ------------------------------------------------------------------------------------------------------------


@of(H.Mismatch)
def test_mismatch(cells, within_five):
    g = cells(H.Mismatch(0.1), target=10.0).read()
    within_five(g, 10.0, 1.0)


@of(H.StuckAt)
def test_stuck_cells(cells, within_five):
    g = cells(H.StuckAt(0.1, on=0.25), target=10.0, g_min=1.0).read()
    within_five((g != 10.0).float(), 0.1)
    within_five((g == 25.0).float(), 0.025)
    within_five((g == 1.0).float(), 0.075)


@of(H.Programming)
@pytest.mark.parametrize(
    ("law", "scaling", "sd"),
    [
        ("normal", "independent", 0.02 * 25),
        ("normal", "proportional", 0.02 * 10),
        ("normal", "inverse", 0.02 * 25 * 2.5),
        ("uniform", "independent", 0.02 * 25),
    ],
)
def test_generic_programming(cells, within_five, law, scaling, sd):
    g = cells(H.Programming(0.02, law, scaling), target=10.0).read()
    within_five(g, 10.0, sd**2)
    kurtosis = ((g - g.mean()) / g.std()).pow(4)
    within_five(kurtosis, 1.8 if law == "uniform" else 3.0)


def test_lognormal_programming(cells, within_five):
    g = cells(H.Programming(0.2, "lognormal"), target=10.0).read()
    within_five(g.log(), math.log(10.0), 0.04)


@of(H.FittedProgramming, H.PCMProgramming, H.HermesProgramming, H.CMOProgramming)
@pytest.mark.parametrize(
    ("stage", "g_max", "sd"),
    [
        (H.FittedProgramming((0.1, 0.2, 0.4), reference=10.0), 25.0, 2.5 * (0.1 + 0.2 * 0.4 + 0.4 * 0.16)),
        (H.PCMProgramming(), 25.0, 0.26348 + 1.9650 * 0.4 - 1.1731 * 0.16),
        (H.PCMProgramming(scale=2.0), 25.0, 2 * (0.26348 + 1.9650 * 0.4 - 1.1731 * 0.16)),
        (H.HermesProgramming(2), 20.7, 0.16603222 + 4.71806468 * 0.4 - 8.48101252 * 0.16 + 4.68961419 * 0.064),
        (H.HermesProgramming(1), 10.35, 0.15781817 + 2.32443916 * 0.4 - 2.16310839 * 0.16 + 0.68841818 * 0.064),
        (H.CMOProgramming(2.0), 88.2, 0.0112185391 + 0.01129027418 * 0.4 * 88.2),
        (H.CMOProgramming(0.2), 88.2, 0.00081107 + 0.00106879 * 0.4 * 88.2),
    ],
    ids=named,
)
def test_fitted_programming(cells, within_five, stage, g_max, sd):
    g = cells(stage, target=0.4 * g_max, g_max=g_max).read()
    within_five(g.double() - 0.4 * g_max, 0.0, sd**2)


@of(H.Drift, H.PCMDrift, H.HermesDrift)
@pytest.mark.parametrize(
    ("stage", "x", "mean", "sd"),
    [
        (H.Drift(0.06, 0.01, t0=2.0), 0.5, 0.06, 0.01),
        (H.PCMDrift(), 0.1, -0.0155 * math.log(0.1) + 0.0244, -0.0125 * math.log(0.1) - 0.0059),
        (H.HermesDrift(2), 0.5, -0.0436 * 0.25 - 0.0126 * 0.5 + 0.0736, -0.0118 * 0.25 + 0.0093 * 0.5 + 0.0073),
        (H.HermesDrift(1), 0.5, -0.0436 * 0.25 - 0.0126 * 0.5 + 0.0736, -0.0165 * 0.25 + 0.0116 * 0.5 + 0.0104),
    ],
    ids=named,
)
def test_drift_exponents(cells, within_five, stage, x, mean, sd):
    array = cells(stage, target=x * 25.0)
    array.chip.age(DAY)
    nu = -(array.read().double() / (x * 25.0)).log() / math.log((DAY + stage.t0) / stage.t0)
    folded = sd * math.sqrt(2 / math.pi) * math.exp(-0.5 * (mean / sd) ** 2) + mean * math.erf(mean / sd / math.sqrt(2))
    within_five(nu, folded, mean**2 + sd**2 - folded**2)  # of |nu|


@of(H.WanRelaxation, H.CMORelaxation)
@pytest.mark.parametrize(
    ("stage", "g_max", "age", "mean", "sd"),
    [
        (H.WanRelaxation(), 40.0, 0.0, 0.0, 2.024),
        (H.WanRelaxation(scale=0.5), 40.0, 1.0, 0.0, 1.012),
        (H.WanRelaxation(), 40.0, DAY, 0.0, 3.909),
        (H.WanRelaxation(), 40.0, 3 * DAY, 0.0, 3.92675),
        (H.CMORelaxation(), 88.2, 0.0, 0.0, 0.41183342),
        (H.CMORelaxation(), 88.2, DAY, -0.08900206 * math.log(DAY), 0.04201137 * math.log(DAY) + 0.41183342),
    ],
    ids=named,
)
def test_relaxation(cells, within_five, stage, g_max, age, mean, sd):
    array = cells(stage, target=0.5 * g_max, g_max=g_max)
    array.chip.age(age)
    within_five(array.read().double() - 0.5 * g_max, mean, sd**2)


@of(H.CellNoise)
@pytest.mark.parametrize(
    ("process", "variance"),
    [
        (H.OrnsteinUhlenbeck(0.03, tau=1.0), 0.03**2),
        (H.Telegraph(0.03, rate=1.0), 0.03**2),
        (H.Flicker(0.01, 1e-3, 1e3), 0.01**2 * math.log(1e6)),
    ],
    ids=named,
)
def test_fluctuating_cells(cells, within_five, process, variance):
    for age in (0.0, 0.7):
        array = cells(H.CellNoise(process), target=10.0)
        array.chip.age(age)
        within_five(array.read(), 10.0, 100 * variance)


# --- outputs ----------------------------------------------------------------------------------------------------------

X = torch.tensor([0.5, -1.0, 0.25])
W = torch.tensor([[0.4, -0.2, 0.1]])  # w_max 0.4
ROWS = X.repeat(DRAWS, 1)


@of(H.OutputNoise)
def test_output_noise(outputs, within_five):
    y, _ = outputs(ROWS, W, H.OutputNoise(0.05))
    within_five(y - W @ X, 0.0, (0.05 * 0.4) ** 2)


def test_output_noises_add_their_variances_in_one_draw(outputs, within_five):
    y, hw = outputs(ROWS, W, H.OutputNoise(0.03), H.OutputNoise(0.04))
    within_five(y - W @ X, 0.0, (0.05 * 0.4) ** 2)


@of(H.ReadoutMismatch)
def test_readout_mismatch(outputs, within_five):
    w = torch.full((DRAWS, 3), 0.4)
    y, _ = outputs(torch.stack((X, 2 * X, 0 * X)), w, H.ReadoutMismatch(gain=0.1, offset=0.2))
    gain, offset = (y[1] - y[0]) / (w @ X), y[2]
    within_five(gain, 1.0, 0.01)
    within_five(offset, 0.0, (0.2 * 0.4) ** 2)


@of(H.ReadNoise)
@pytest.mark.parametrize("scaling", ["independent", "proportional", "inverse"])
def test_read_noise_at_the_output_is_that_of_cells_drawn_one_by_one(outputs, within_five, generator, scaling):
    spread, g_max = 0.05, 25.0
    y, hw = outputs(ROWS, W, H.ReadNoise(spread, scaling))
    g = torch.stack((W.clamp(min=0), (-W).clamp(min=0))) / 0.4 * g_max  # (2, 1, 3)
    size = {
        "independent": torch.full_like(g, g_max),
        "proportional": g,
        "inverse": g_max**2 / g.clamp(min=0.01 * g_max),
    }
    variance = (spread * size[scaling] / g_max * 0.4).square().sum(0) @ X.square()
    within_five(y - W @ X, 0.0, variance.item())
    z = torch.randn(DRAWS, *g.shape, generator=generator)
    plus, minus = (g + spread * size[scaling] * z).unbind(1)
    one_by_one = ((plus - minus) / g_max * 0.4) @ X
    within_five(one_by_one - W @ X, 0.0, variance.item())
    kurtosis = ((y - W @ X) / variance.sqrt()).pow(4)
    within_five(kurtosis, 3.0)


@of(H.PCMReadNoise, H.HermesReadNoise, H.CMOReadNoise)
@pytest.mark.parametrize(
    ("stage", "g_max", "deviation"),
    [
        (H.PCMReadNoise(), 25.0, lambda g, t: g * 0.0088 / (g / 25) ** 0.65 * _built_up(t + 20, 250e-9)),
        (H.PCMReadNoise(scale=0.5), 25.0, lambda g, t: 0.5 * g * 0.0088 / (g / 25) ** 0.65 * _built_up(t + 20, 250e-9)),
        (
            H.HermesReadNoise(2),
            20.7,
            lambda g, t: g * _cubic(g / 20.7, 0.0069, -0.0280, 0.0211, 0.0123) * _built_up(t + 300, 512e-9),
        ),
        (
            H.HermesReadNoise(1),
            10.35,
            lambda g, t: g * _cubic(g / 10.35, 0.0664, -0.1352, 0.0768, 0.0088) * _built_up(t + 200, 512e-9),
        ),
        (H.CMOReadNoise(), 88.2, lambda g, t: 0.0277316483 * math.log10(g) * _built_up(t, 1e-6)),
    ],
    ids=named,
)
def test_published_read_noise(outputs, within_five, stage, g_max, deviation):
    _, hw = outputs(ROWS[:1], W, stage, g_max=g_max)
    hw.age(HOUR)
    with torch.no_grad():
        y = hw(ROWS)
    sigma = [deviation(abs(w) / 0.4 * g_max, HOUR) * 0.4 / g_max for w in W[0].tolist()]
    within_five(y - W @ X, 0.0, sum((s * x) ** 2 for s, x in zip(sigma, X.tolist(), strict=True)))


def _built_up(t, t_read):
    return math.sqrt(math.log((t + t_read) / (2 * t_read)))


def _cubic(x, a, b, c, d):
    return ((a * x + b) * x + c) * x + d


@of(H.Thermal)
def test_thermal_noise(outputs, within_five):
    y, _ = outputs(ROWS, W, H.Thermal(1e9, voltage=0.1, temperature=350.0))
    total = W.abs().sum().item() / 0.4 * 25.0
    current = H.thermal_noise(total, 1e9, 350.0)  # amperes
    within_five(y - W @ X, 0.0, (current / (25e-6 * 0.1) * 0.4) ** 2)


@of(H.Shot)
def test_shot_noise(outputs, within_five):
    y, _ = outputs(ROWS, W, H.Shot(1e9, voltage=0.1))
    current = (W.abs() @ X.abs()).item() / 0.4 * 25e-6 * 0.1
    within_five(y - W @ X, 0.0, (H.shot_noise(current, 1e9) / (25e-6 * 0.1) * 0.4) ** 2)


@of(H.NodeNoise)
@pytest.mark.parametrize("process", [H.OrnsteinUhlenbeck(0.05, 1e-6), H.Telegraph(0.05, 1e6)], ids=named)
def test_fluctuating_outputs(seed, within_five, process):
    """One read of many outputs: each has a trajectory of its own."""
    layer = torch.nn.Linear(3, DRAWS // 10, bias=False)
    layer.weight.data.fill_(0.4)
    hw = H.deploy(layer, H.Chip([H.NodeNoise(process)], seed=seed, read_time=1e-3))
    with torch.no_grad():
        y = hw(ROWS[:10])  # rows so far apart that all are independent
    within_five(y - layer.weight @ X, 0.0, (0.05 * 0.4) ** 2)


@of(H.ADC, H.DAC)
def test_stochastic_rounding_is_right_on_average(outputs, within_five):
    y, _ = outputs(ROWS, W, H.ADC(4, bound=2.0, stochastic=True))
    step = 2.0 * 0.4 / 7
    assert torch.allclose(y, (y / step).round() * step, atol=1e-6)
    low = math.floor((W @ X).item() / step) * step
    p = ((W @ X).item() - low) / step
    within_five(y, (W @ X).item(), p * (1 - p) * step**2)


# --- pulses -----------------------------------------------------------------------------------------------------------


def _cells_at_zero(law, seed, pulses, up=True):
    """u after so many pulses, of many cells that start at 0."""
    array = H.Chip([law], seed=seed).cells(DRAWS)
    array.program(12.5)
    array.pulse(torch.full((DRAWS,), pulses * law.step * (1.0 if up else -1.0)))
    return array.mapping.join(array.g, 0)


@of(H.ConstantStep, H.LinearStep, H.SoftBounds, H.ExponentialStep)
@pytest.mark.parametrize(
    ("kind", "first", "up"),
    [
        (H.ConstantStep, 1.0, True),
        (H.ConstantStep, 1.0, False),
        (H.LinearStep, 1.0, True),
        (H.SoftBounds, 1.0, False),
        (H.ExponentialStep, 1 + 1.18445 * math.exp(-2.5), True),
        (H.ExponentialStep, 1 + 0.081404 * math.exp(2.5), False),
    ],
)
def test_the_first_pulse(kind, first, up, seed, within_five):
    """Mean and variance of one step, from cell to cell and from pulse to pulse."""
    law = kind(step=0.002, d2d=0.2, c2c=0.25, up_down=0.1, up_down_d2d=0.05, bound_d2d=0.0)
    u = _cells_at_zero(law, seed, 1, up).double()
    mean = 0.002 * first * (1.1 if up else 0.9)
    device = 0.2**2 + 0.05**2
    square = (mean**2 + (0.002 * first) ** 2 * device) * (1 + 0.25**2)
    within_five(u.abs(), mean, square - mean**2)


def test_bounds_differ_from_cell_to_cell(seed, within_five):
    law = H.ConstantStep(step=0.05, d2d=0.0, c2c=0.0, bound_d2d=0.1, up_down_d2d=0.0)
    u = _cells_at_zero(law, seed, 40).double()  # 2: beyond any bound
    within_five(u, 1.0, 0.01)


def test_pulses_are_right_on_average(seed, within_five):
    """A change of a third of a step is a pulse in a third of the cells."""
    law = H.ConstantStep(step=0.01, d2d=0.0, c2c=0.0, bound_d2d=0.0, up_down_d2d=0.0)
    u = _cells_at_zero(law, seed, 1 / 3).double()
    within_five(u / 0.01, 1 / 3, 2 / 9)


def test_every_stage_was_sampled(stage_kinds):
    deterministic = {H.IRDrop}
    assert stage_kinds == TESTED | deterministic
