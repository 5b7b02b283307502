"""Time: ageing adds up, and what fluctuates has a trajectory."""

import copy
import math

import pytest
import torch
from torch import nn

from zolib import hardware as H

PROCESSES = [H.OrnsteinUhlenbeck(0.3, tau=2.0), H.Telegraph(0.3, rate=0.25), H.Flicker(0.1, 0.1, 1e3, per_decade=2)]


def named(value):
    return repr(value) if isinstance(value, nn.Module) else None


@pytest.mark.parametrize(
    "stage", [H.PCMDrift(), H.Drift(0.1, 0.02), H.HermesDrift(), H.WanRelaxation(), H.CMORelaxation()], ids=named
)
def test_ageing_twice_is_ageing_by_the_sum(stage, seed):
    """Exactly, reads in between or not; also where 0.1 + 0.2 is not 0.3."""
    make = lambda: H.Chip([stage], seed=seed, g_max=88.2).cells(100)  # noqa: E731
    first, second = make(), make()
    for cells in (first, second):
        cells.program(torch.linspace(0, 88.2, 100))
    for seconds in (0.1, 0.2, 3600.0, 86400.0):
        first.chip.age(seconds)
        first.read()
    second.chip.age(0.1 + 0.2 + 3600.0 + 86400.0)
    assert torch.equal(first.read(), second.read())


@pytest.mark.parametrize("process", PROCESSES, ids=named)
def test_without_a_read_in_between_even_random_ageing_adds_up_exactly(process, seed):
    found = []
    for steps in ((0.5, 0.75), (1.25,)):
        cells = H.Chip([H.CellNoise(process)], seed=seed).cells(50)
        cells.program(torch.tensor(10.0))
        for seconds in steps:
            cells.chip.age(seconds)
        found.append(cells.read())
    assert torch.equal(*found)


@pytest.mark.parametrize("split", [1, 2, 5])
@pytest.mark.parametrize("process", PROCESSES, ids=named)
def test_a_step_in_parts_has_the_law_of_the_whole(process, split, generator, within_five):
    """Autocovariance over a lag of 1.5 s in one, two or five steps, and the variance, at 200,000 draws."""
    process = copy.deepcopy(process)
    process.start((200_000,), torch.zeros((), dtype=torch.float64), generator)
    before = process.value().clone()
    for _ in range(split):
        process.advance(1.5 / split, generator)
    within_five(before * process.value(), process.autocovariance(1.5))
    within_five(process.value(), 0.0)
    within_five(process.value().square(), process.autocovariance(0.0))


@pytest.mark.parametrize("process", PROCESSES, ids=named)
def test_a_path_has_the_law_of_steps(process, generator, within_five):
    """All rows at once, blocks of many rows included."""
    process = copy.deepcopy(process)
    process.start((500,), torch.zeros((), dtype=torch.float64), generator)
    now = process.value().clone()
    path = process.path(600, 1.0, generator)
    assert torch.equal(path[0], now) and torch.equal(path[-1], process.value())
    for lag in (1, 3):
        means = (path[:-lag] * path[lag:]).mean(dim=0)  # independent from column to column
        within_five(means, process.autocovariance(lag))
    within_five(path.square().mean(dim=0), process.autocovariance(0.0))


def test_telegraph_noise_has_two_states_and_the_flip_probability_it_is_given(generator, within_five):
    process = H.Telegraph.sampled(0.5, flip=0.0809, seconds=1e-6)
    process.start((200_000,), torch.zeros(()), generator)
    before = process.value().clone()
    process.advance(1e-6, generator)
    assert set(process.value().unique().tolist()) == {-0.5, 0.5}
    within_five((process.value() != before).float(), 0.0809)


def test_flicker_noise_has_a_spectrum_of_one_over_f():
    """Within 4 % of q^2 / f over the decades inside, and the variance that the band should hold."""
    process = H.Flicker(0.2, fastest=1e-6, slowest=1e3)
    for f in (1.0, 3.0, 10.0, 100.0, 333.0):
        assert process.spectrum(f) * f == pytest.approx(0.2**2, rel=0.04)
    assert process.autocovariance(0.0) == pytest.approx(0.2**2 * math.log(1e9))
    finer = H.Flicker(0.2, 1e-6, 1e3, per_decade=4)
    assert len(list(finer.children())[0]) == 4 * len(list(process.children())[0])
    assert finer.spectrum(10.0) * 10 == pytest.approx(0.2**2, rel=1e-3)


def test_the_same_time_gives_the_same_weights(seed):
    """Time moves cells; looking at them does not."""
    stages = [H.PCMProgramming(), H.PCMDrift(), H.CellNoise(H.Flicker(0.01))]
    hw = H.deploy(nn.Linear(20, 10), H.Chip(stages, seed=seed))
    x = torch.ones(1, 20)
    hw.age(3600.0)
    with torch.no_grad():
        first, again = hw(x), hw(x)
        assert torch.equal(first, again)
        hw.age(1e-3)
        assert not torch.equal(first, hw(x))


def test_cells_written_at_different_times_drift_from_then(seed):
    cells = H.Chip([H.Drift(0.1)], seed=seed).cells(2)
    cells.program(torch.tensor([10.0, 10.0]))
    cells.chip.age(99.0)
    cells.program(torch.tensor([10.0, 20.0]), torch.tensor([False, True]))
    assert torch.allclose(cells.read(), torch.tensor([10.0 * 100**-0.1, 20.0]))
    cells.chip.age(99.0)
    assert torch.allclose(cells.read(), torch.tensor([10.0 * 199**-0.1, 20.0 * 100**-0.1]))


def test_reads_take_time(seed):
    """read_time for each vector, one array after the other: so a batch sees a piece of the trajectory."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    hw = H.deploy(model, H.Chip([H.CellNoise(H.OrnsteinUhlenbeck(0.2, 1e-5))], seed=seed, read_time=1e-6))
    hw(torch.ones(5, 3))
    assert hw.chip.now == 2 * 5 * 1000  # nanoseconds
    hw = H.deploy(model, H.Chip([H.CellNoise(H.OrnsteinUhlenbeck(0.2, 1e-5))], n_chips=3, seed=seed, read_time=1e-6))
    hw(torch.ones(5, 3))
    assert hw.chip.now == 2 * 5 * 1000
    conv = H.deploy(nn.Conv2d(1, 2, 3), H.Chip([H.OutputNoise(0.1)], seed=seed, read_time=1e-6))
    conv(torch.ones(2, 1, 5, 5))
    assert conv.chip.now == 2 * 9 * 1000  # nine positions


@pytest.mark.parametrize("n_chips", [None, 2])
def test_noise_on_nodes_is_one_trajectory_from_batch_to_batch(n_chips, seed, within_five):
    """Correlation between the last row of one batch and the first of the next, with a pause between them."""
    layer = nn.Linear(1, 20_000, bias=False)
    layer.weight.data.fill_(1.0)
    tau = 4e-6
    hw = H.deploy(layer, H.Chip([H.NodeNoise(H.OrnsteinUhlenbeck(0.5, tau))], n_chips, seed, read_time=1e-6))
    x = torch.zeros(3, 1)
    with torch.no_grad():
        first = hw(x)
        hw.age(2e-6)
        second = hw(x)
    assert first.shape == ((2,) if n_chips else ()) + (3, 20_000)
    within_five(first[..., 0, :] * first[..., 1, :], 0.25 * math.exp(-1e-6 / tau))
    within_five(first[..., 2, :] * second[..., 0, :], 0.25 * math.exp(-3e-6 / tau))


def test_noise_on_the_channels_of_a_convolution(seed):
    """One source for each channel, read position after position."""
    layer = nn.Conv2d(1, 3, 1, bias=False)
    hw = H.deploy(layer, H.Chip([H.NodeNoise(H.Telegraph(1.0, rate=1e-3))], seed=seed, read_time=1e-9))
    with torch.no_grad():
        y = hw(torch.zeros(2, 1, 4, 4)) / hw.model.w_max
    assert (y == y[:1, :, :1, :1]).all() and y.abs().allclose(torch.ones(()))


def test_slow_noise_cancels_between_two_reads_and_fast_noise_does_not(seed):
    x = torch.ones(1, 20)
    slow = H.deploy(nn.Linear(20, 10), H.Chip([H.CellNoise(H.Telegraph(0.1, 1.0))], seed=seed, read_time=1e-6))
    fast = H.deploy(nn.Linear(20, 10), H.Chip([H.CellNoise(H.Telegraph(0.1, 1e9))], seed=seed, read_time=1e-6))
    with torch.no_grad():
        assert torch.equal(slow(x), slow(x))
        assert not torch.equal(fast(x), fast(x))


def test_compensation_brings_the_size_back(seed):
    layer = nn.Linear(200, 50, bias=False)
    hw = H.deploy(layer, H.Chip([H.PCMDrift()], n_chips=2, seed=seed))
    x = torch.rand(30, 200)
    hw.age(30 * 86400.0)
    before = hw.counters
    with torch.no_grad():
        drifted = hw(x)
        hw.compensate()
        compensated, ideal = hw(x), layer(x)
    assert (drifted.norm() / (ideal.norm() * 2**0.5)).item() < 0.8
    ratio = (compensated * ideal).sum(dim=(1, 2)) / ideal.square().sum()
    # exponents differ by some 0.02 from cell to cell, which over ln(1.3e5) is 25 % a cell, and 2 % of an output's size
    assert (ratio - 1).abs().max() < 0.05
    assert (hw.counters - before).reads == 2 * (30 + 200 + 30)
    again = H.deploy(layer, H.Chip([H.PCMDrift()], n_chips=2, seed=seed))
    again.load_state_dict(hw.state_dict())
    assert torch.equal(again(x), hw(x))
    empty = H.deploy(layer, H.Chip())
    empty.compensate()
    assert torch.equal(empty(x), layer(x))


@pytest.mark.parametrize("seconds", [-1.0, -1e-9])
def test_time_runs_forwards(seconds):
    hw = H.deploy(nn.Linear(2, 2), H.Chip([H.PCMDrift()]))
    with pytest.raises(ValueError, match="time runs forwards"):
        hw.age(seconds)
    assert hw.chip.now == 0
