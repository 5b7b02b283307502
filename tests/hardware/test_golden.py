"""Numbers that a correct implementation must give, from the publications and from closed forms."""

import math

import pytest
import torch

from zolib import hardware as H

HOUR, DAY = 3600.0, 86400.0
TIMES = {1.0: 0.9976, HOUR: 0.7751, DAY: 0.6635, 30 * DAY: 0.5617, 365 * DAY: 0.4969}


@pytest.mark.parametrize(
    ("x", "sigma"), [(0.0, 0.2635), (0.25, 0.6814), (0.5, 0.9527), (0.8375, 1.0863), (1.0, 1.0554)]
)
def test_pcm_programming(x, sigma):
    """Microsiemens at g_max = 25."""
    stage = H.PCMProgramming()
    assert stage.deviation(torch.tensor(25 * x, dtype=torch.float64), 25.0).item() == pytest.approx(sigma, abs=1e-4)
    assert stage.deviation(torch.tensor(0.8375 * 25), 25.0) >= stage.deviation(torch.linspace(0, 25, 201), 25.0).max()


def _alone(stage, x, g_max=25.0, dtype=torch.float64):
    """One cell at x, with every random number of its writes zero."""
    chip = H.Chip([stage] if isinstance(stage, H.Drift) else [], g_max=g_max)
    chip.normal = lambda like, *which: torch.zeros_like(like)
    cells = H.Cells(chip, (1,), 0, torch.zeros((), dtype=dtype))
    cells.program(torch.tensor(x * g_max))
    return cells


@pytest.mark.parametrize(("seconds", "ratio"), TIMES.items())
def test_pcm_drift(seconds, ratio):
    cells = _alone(H.PCMDrift(), 1.0)
    cells.chip.age(seconds)
    assert cells.read().item() / 25 == pytest.approx(ratio, abs=1e-4)


@pytest.mark.parametrize(
    ("x", "seconds", "relative"),
    [
        (1.0, 1.0, 0.0369),
        (1.0, HOUR, 0.0419),
        (1.0, DAY, 0.0448),
        (1.0, 30 * DAY, 0.0476),
        (1.0, 365 * DAY, 0.0496),
        (0.1, 1.0, 0.1647),
        (0.1, 365 * DAY, 0.2216),
    ],
)
def test_pcm_read_noise(x, seconds, relative):
    cells = _alone(H.PCMReadNoise(), x)
    cells.chip.age(seconds)
    g = cells.read()
    sigma = H.PCMReadNoise().deviation(g, cells)
    assert (sigma / g).item() == pytest.approx(relative, abs=1e-4)


def test_pcm_read_noise_is_bounded():
    assert H.PCMReadNoise().q(torch.tensor([0.0, 1e-4])).tolist() == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize(
    ("devices", "g_max", "sigma", "mean", "sd", "q"),
    [(1, 10.35, 0.865313, 0.0564, 0.012075, 0.0217), (2, 20.7, 0.991013, 0.0564, 0.009, 0.0167125)],
)
def test_hermes_at_half_conductance(devices, g_max, sigma, mean, sd, q):
    """The published polynomials at x = 1/2, worked out by hand."""
    half = torch.tensor(0.5, dtype=torch.float64)
    assert H.HermesProgramming(devices).deviation(half * g_max, g_max).item() == pytest.approx(sigma, abs=1e-6)
    drawn = [v.item() for v in H.HermesDrift(devices).exponent(half)]
    assert drawn == pytest.approx([mean, sd], abs=1e-6)
    assert H.HermesReadNoise(devices).q(half).item() == pytest.approx(q, abs=1e-6)


@pytest.mark.parametrize("devices", [1, 2])
def test_hermes_below_the_knee(devices):
    x = torch.tensor([0.01, 0.09], dtype=torch.float64)
    mean, sd = H.HermesDrift(devices).exponent(x)
    assert mean.tolist() == pytest.approx([0.13, -0.0387 * math.log(0.09) - 0.0182])
    slope, shift = {1: (0.0120, 0.0023), 2: (0.0117, 0.0057)}[devices]
    assert sd.tolist() == pytest.approx([0.04, -slope * math.log(0.09) - shift])
    q = H.HermesReadNoise(devices).q(x)
    slope, shift = {1: (0.0078, -0.0038), 2: (0.0117, 0.0069)}[devices]
    assert q.tolist() == pytest.approx([min(0.04, -slope * math.log(v) - shift) for v in (0.01, 0.09)])
    assert H.HermesDrift(devices).t0 == {1: 200.0, 2: 300.0}[devices]


@pytest.mark.parametrize(
    ("seconds", "percent"), [(0.0, 5.06), (1.0, 5.06), (DAY, 9.77), (2 * DAY, 9.82), (9 * DAY, 9.82)]
)
def test_reram_wan(seconds, percent):
    """Relative to g_max = 40 microsiemens, at half conductance."""
    stage, g = H.WanRelaxation(), torch.tensor(20.0, dtype=torch.float64)
    sigma = stage.deviation(g, torch.tensor(seconds, dtype=torch.float64), 40.0)
    assert sigma.item() / 40 * 100 == pytest.approx(percent, abs=5e-3)


def test_reram_wan_grows_between_the_measured_times():
    seconds = torch.logspace(-1, 6, 50, dtype=torch.float64)
    sigma = H.WanRelaxation().deviation(torch.tensor(20.0, dtype=torch.float64), seconds, 40.0)
    assert (sigma.diff() >= 0).all() and sigma[25] > sigma[0]


def test_reram_cmo_after_a_day():
    chip = H.Chip([H.CMORelaxation()], g_max=88.2, g_min=9.0)
    found = []
    for xi in (0.0, 1.0):
        chip.normal = lambda like, *which, xi=xi: torch.full_like(like, xi)
        cells = H.Cells(chip, (1,), 0, torch.zeros((), dtype=torch.float64))
        cells.program(torch.tensor(40.0))
        cells.written -= round(DAY * 1e9)
        found.append(cells.read().item() - 40.0)
    assert found[0] == pytest.approx(-1.0116, abs=1e-4)
    assert found[1] - found[0] == pytest.approx(0.8894, abs=1e-4)


def test_reram_cmo_stays_in_its_range():
    cells = H.Chip([H.CMORelaxation()], g_max=88.2, g_min=9.0).cells(1000)
    cells.program(torch.linspace(9.0, 88.2, 1000))
    assert cells.read().min() >= 9.0 and cells.read().max() <= 88.2 + 1e-4


def test_thermal_and_shot_noise():
    """25 microsiemens, 0.2 V, 1 MHz, 300 K: parts in ten thousand of the current, far below PCM's 1/f noise."""
    current = 25e-6 * 0.2
    assert H.thermal_noise(25.0, 1e6) == pytest.approx(0.64e-9, abs=0.005e-9)
    assert H.shot_noise(current, 1e6) == pytest.approx(1.27e-9, abs=0.005e-9)
    assert H.thermal_noise(25.0, 1e6) / current == pytest.approx(1.3e-4, abs=0.05e-4)
    assert H.pulse_energy(2.0, 1e-4, 1e-7) == pytest.approx(2e-11)


# --- update laws ------------------------------------------------------------------------------------------------------

QUIET = {"d2d": 0.0, "c2c": 0.0, "up_down_d2d": 0.0, "bound_d2d": 0.0}


def _run(law, counts, start=0.0):
    """u of one cell after trains of pulses, each up (+) or down (-)."""
    cells = H.Cells(H.Chip([law], seed=0), (2, 1), 0, torch.zeros((), dtype=torch.float64))
    cells.program(cells.mapping.split(torch.tensor([start], dtype=torch.float64), 0))
    u = cells.mapping.join(cells.g, 0)
    for n in counts:
        u = law_of(cells).pulsed(u, torch.tensor([n]), cells)
    return u.item()


def law_of(cells):
    assert cells.law is not None
    return cells.law


@pytest.mark.parametrize("n", [1, 10, 300])
def test_soft_bounds_in_closed_form(n):
    law = H.SoftBounds(step=0.01, high=0.8, low=-0.5, **QUIET)
    assert _run(law, [n]) == pytest.approx(0.8 * (1 - (1 - 0.01 / 0.8) ** n), rel=1e-9)
    assert _run(law, [-n]) == pytest.approx(-0.5 * (1 - (1 - 0.01 / 0.5) ** n), rel=1e-9)


def test_the_symmetry_point_of_soft_bounds():
    """Alternating pulses lead to u* = (s+ - s-) / (s+/b+ - s-/b-)."""
    law = H.SoftBounds(step=0.002, up_down=0.2, high=0.9, low=-0.6, **QUIET)
    up, down = 0.002 * 1.2, 0.002 * 0.8
    assert _run(law, [1, -1] * 3000) == pytest.approx((up - down) / (up / 0.9 + down / 0.6), abs=2e-3)


def test_constant_steps_add_up_to_the_bound():
    law = H.ConstantStep(step=0.1, **QUIET)
    assert _run(law, [3]) == pytest.approx(0.3)
    assert _run(law, [30]) == pytest.approx(1.0) and _run(law, [-30]) == pytest.approx(-1.0)


def test_linear_steps_shrink_towards_the_bounds():
    law = H.LinearStep(gamma_up=0.1153, gamma_down=0.5085, gamma_d2d=0.0, step=0.002, low=-0.8276, high=1.1724, **QUIET)
    assert _run(law, [1], start=1.0) - 1.0 == pytest.approx(0.002 * (1 - 0.1153 / 1.1724), rel=1e-6)
    assert _run(law, [-1], start=-0.5) + 0.5 == pytest.approx(-0.002 * (1 - 0.5085 * 0.5 / 0.8276), rel=1e-6)


def test_exponential_steps_in_closed_form():
    """dw = 1 - A exp(+-gamma z), z = 2 a u / (b+ - b-) + b, with the constants of the ReRAM fit."""
    law = H.ExponentialStep(step=0.00135, **QUIET)
    z = 2 * -0.5 * 0.4 / 2 - 0.5
    assert _run(law, [1], start=0.4) - 0.4 == pytest.approx(0.00135 * (1 + 1.18445 * math.exp(5 * z)), rel=1e-6)
    assert _run(law, [-1], start=0.4) - 0.4 == pytest.approx(-0.00135 * (1 + 0.081404 * math.exp(-5 * z)), rel=1e-6)


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "g_max", "kinds"),
    [
        (H.pcm, 25.0, [H.DAC, H.PCMProgramming, H.PCMDrift, H.PCMReadNoise, H.OutputNoise, H.ADC]),
        (H.hermes, 20.7, [H.DAC, H.HermesProgramming, H.HermesDrift, H.HermesReadNoise, H.ADC]),
        (H.reram, 40.0, [H.WanRelaxation, H.ReadNoise]),
        (H.reram_cmo, 88.2, [H.CMOProgramming, H.CMORelaxation, H.CMOReadNoise]),
        (H.cross_point, 25.0, [H.ConstantStep, H.OutputNoise]),
        (H.ecram, 25.0, [H.LinearStep]),
        (H.reram_pulsed, 25.0, [H.ExponentialStep]),
        (H.smtj, 25.0, [H.NodeNoise, H.OutputNoise]),
    ],
)
def test_presets_are_made_of(preset, g_max, kinds):
    chip = preset(n_chips=3, seed=5)
    assert (chip.n_chips, chip.seed, chip.g_max) == (3, 5, g_max)
    assert [type(stage) for stage in chip.stages] == kinds
    assert preset().n_chips is None
    assert preset.__doc__ and "Source" in preset.__doc__


def test_hermes_with_one_device():
    chip = H.hermes(devices=1)
    assert chip.g_max == 10.35 and [s.devices for s in chip.stages if hasattr(s, "devices")] == [1, 1, 1]


def test_cmo_acceptance_passes_on():
    assert H.reram_cmo(acceptance=0.2).stages[0].acceptance == 0.2


def test_the_cross_point_specification():
    """0.001 per pulse of a range of 1.2: 1,200 steps, all spreads 30 %."""
    law = H.cross_point().stages[0]
    assert (law.high - law.low) / law.step == pytest.approx(1200)
    assert (law.d2d, law.c2c, law.bound_d2d, law.up_down_d2d) == (0.3, 0.3, 0.3, 0.01)


def test_the_ecram_range_has_its_symmetry_point_near_zero():
    law = H.ecram().stages[0]
    assert (law.step, law.low, law.high, law.gamma_up, law.gamma_down) == (0.002, -0.8276, 1.1724, 0.1153, 0.5085)


def test_the_tunnel_junction():
    """6.001 mV in all, correlated over 5.7 reads, 0.819 from one read to the next."""
    telegraph, white = 0.0059316154, 0.00090841466
    total = math.hypot(telegraph, white)
    assert total == pytest.approx(6.001e-3, abs=1e-6)
    node, output = H.smtj(scale=total, read_time=1e-6).stages
    process = node.process
    assert (process.amplitude, output.sd) == pytest.approx((telegraph, white))
    assert process.autocovariance(1e-6) / total**2 == pytest.approx(0.819, abs=5e-4)
    assert -1 / math.log(process.autocovariance(1e-6) / telegraph**2) == pytest.approx(5.7, abs=0.05)
