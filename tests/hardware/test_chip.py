"""What a chip is: the same for the same seed, many at once, saved and copied with all its state."""

import copy
import io
import pickle
import random

import numpy as np
import pytest
import torch
from torch import nn

import zolib as zo
from zolib import hardware as H

pytestmark = pytest.mark.filterwarnings("ignore:.*beyond w_max")  # where it does not matter

ALL = [
    H.DAC(6),
    H.StuckAt(0.05, on=0.2),
    H.Mismatch(0.1),
    H.PCMProgramming(),
    H.PCMDrift(),
    H.CellNoise(H.Flicker(0.01)),
    H.PCMReadNoise(),
    H.ReadoutMismatch(0.02, 0.02),
    H.NodeNoise(H.Telegraph(0.02, 1e5)),
    H.OutputNoise(0.03),
    H.ADC(8),
]
PULSED = [H.SoftBounds(), H.Mismatch(0.1), H.NodeNoise(H.OrnsteinUhlenbeck(0.02, 1e-5)), H.OutputNoise(0.03)]
KINDS = {"written": ALL, "pulsed": PULSED}


def net():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def live(hw, x, steps=3):
    """Reads, writes and time."""
    seen = []
    with torch.no_grad():
        for _ in range(steps):
            seen.append(hw(x))
            for p in hw.parameters():
                p.add_(0.05)
            hw.age(100.0)
    return torch.stack(seen)


# --- an empty chip ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 4, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_an_empty_chip_is_nn_linear_bit_for_bit(shape, bias, dtype):
    layer = nn.Linear(6, 5, bias=bias, dtype=dtype)
    hw = H.deploy(layer, H.Chip())
    x = torch.randn(shape, dtype=dtype)
    assert torch.equal(hw(x), layer(x))
    for a, b in zip(hw.parameters(), layer.parameters(), strict=True):
        assert torch.equal(a, b) and a is not b
    hw(x).square().sum().backward()
    layer(x).square().sum().backward()
    assert torch.equal(hw.weight.grad, layer.weight.grad)


@pytest.mark.parametrize("settings", [{}, {"padding": 1, "stride": 2}, {"padding": "same", "padding_mode": "circular"}])
def test_an_empty_chip_is_nn_conv2d_bit_for_bit(settings):
    layer = nn.Conv2d(3, 4, 3, **settings)
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(H.deploy(layer, H.Chip())(x), layer(x))


@pytest.mark.parametrize(
    "settings",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (5, 2), "stride": (2, 1), "dilation": (1, 2)},
        {"kernel_size": 1, "bias": False},
        {"kernel_size": 3, "padding": (2, 0), "groups": 2},
        {"kernel_size": 4, "padding": "same", "padding_mode": "reflect"},
    ],
    ids=str,
)
def test_convolutions_on_many_chips(settings):
    """With cells that err in nothing, each of three chips gives what nn.Conv2d gives."""
    layer, x = nn.Conv2d(4, 6, **settings).double(), torch.randn(2, 4, 9, 8, dtype=torch.float64)
    for n_chips in (None, 3):
        y = H.deploy(layer, H.Chip([H.Mismatch(0.0)], n_chips))(x)
        assert torch.allclose(y, layer(x).expand_as(y), atol=1e-12)


# --- seeds ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_chip(kind, seed):
    model, x = net(), torch.randn(4, 6)
    chip = H.Chip(KINDS[kind], n_chips=2, seed=seed, read_time=1e-6)
    first, again = (live(H.deploy(model, chip), x) for _ in range(2))
    other = live(H.deploy(model, H.Chip(KINDS[kind], n_chips=2, seed=seed + 1, read_time=1e-6)), x)
    assert torch.equal(first, again) and not torch.isclose(first, other).any()


def test_seeds_that_differ_only_in_their_high_bits_differ():
    chips = [H.Chip([H.Mismatch(0.1)], seed=s).cells(4) for s in (1, 1 + 2**32)]
    assert not torch.equal(chips[0].stages[0].gain, chips[1].stages[0].gain)


def test_an_unnamed_seed_is_the_next_one():
    zo.manual_seed(3)
    first = [H.Chip(seed=None).seed for _ in range(2)]
    zo.manual_seed(3)
    assert first == [H.Chip(seed=None).seed for _ in range(2)] and first[0] != first[1]


@pytest.mark.parametrize("stages", [[H.StuckAt(0.2), H.Mismatch(0.2)], [H.PCMProgramming(), H.PCMDrift()], PULSED[:2]])
def test_a_chip_is_the_same_however_many_are_made(stages, seed):
    """What is FROZEN or drawn at a WRITE: chip s of 5 is chip s of 2, and chip 0 is the chip without an axis."""
    model, x = net(), torch.randn(4, 6)
    found = {n: live(H.deploy(model, H.Chip(stages, n_chips=n, seed=seed)), x) for n in (None, 2, 5)}
    assert torch.allclose(found[5][:, :2], found[2], atol=1e-6)
    assert torch.allclose(found[2][:, 0], found[None], atol=1e-6)
    assert not torch.isclose(found[5][:, 0], found[5][:, 1]).any()


def test_arrays_of_one_chip_differ(seed):
    hw = H.deploy(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), H.Chip([H.Mismatch(0.1)], seed=seed))
    first, second = (tile.cells.stages[0].gain for tile in hw.tiles())
    assert not torch.isclose(first, second).any()


def test_deploying_leaves_chip_and_model_alone(seed):
    model, chip = net(), H.Chip(ALL, seed=seed)
    before = copy.deepcopy(model.state_dict())
    hw = H.deploy(model, chip)
    live(hw, torch.randn(4, 6))
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert chip.now == 0 and chip.counts == H.Counters() and not chip._generators
    assert not list(chip.buffers())


@pytest.mark.parametrize("kind", KINDS)
def test_global_generators_are_left_alone(kind, seed):
    torch_state, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    model, x = nn.Linear(3, 2), torch.ones(4, 3)
    torch.set_rng_state(torch_state)
    hw = H.deploy(model, H.Chip(KINDS[kind], n_chips=2, seed=seed, read_time=1e-6))
    live(hw, x)
    hw.compensate()
    for probe in (zo.Intrinsic(), zo.Nodes()):
        zo.backward(lambda: hw(x).square().mean(dim=2), hw, probe=probe, seed=seed)
    H.Chip(KINDS[kind], seed=None).cells(10).program(torch.tensor(10.0))
    assert torch.equal(torch_state, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, np.random.get_state(), strict=True))
    assert python_state == random.getstate()


# --- saved and copied -------------------------------------------------------------------------------------------------


def by_state_dict(hw, model, chip):
    file = io.BytesIO()
    torch.save(hw.state_dict(), file)
    file.seek(0)
    other = H.deploy(model, chip)
    other.load_state_dict(torch.load(file, weights_only=False))
    return other


WAYS = {
    "state_dict": by_state_dict,
    "deepcopy": lambda hw, model, chip: copy.deepcopy(hw),
    "pickle": lambda hw, model, chip: pickle.loads(pickle.dumps(hw)),
    "to": lambda hw, model, chip: copy.deepcopy(hw).to("cpu", torch.float32),
}


@pytest.mark.parametrize("n_chips", [None, 2])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_copy_goes_on_as_the_original_does(way, kind, n_chips, seed):
    """Cells, clock, counters and the state of the noise."""
    model, x = net(), torch.randn(4, 6)
    chip = H.Chip(KINDS[kind], n_chips, seed=seed, read_time=1e-6)
    hw = H.deploy(model, chip)
    live(hw, x)
    other = WAYS[way](hw, model, chip)
    assert other.counters == hw.counters and other.chip.now == hw.chip.now
    assert torch.equal(live(other, x), live(hw, x))
    assert other.counters == hw.counters and other.chip is not hw.chip


def test_what_is_copied_is_apart(seed):
    hw = H.deploy(net(), H.Chip(ALL, seed=seed))
    other = copy.deepcopy(hw)
    live(other, torch.randn(4, 6))
    assert hw.chip.now == 0 and hw.counters.reads == 0
    assert all(tile.chip is other.chip for tile in other.tiles())


def test_a_cast_writes_nothing(seed):
    hw = H.deploy(net(), H.Chip([H.PCMProgramming(), H.PCMDrift()], seed=seed))
    x, before = torch.randn(4, 6), hw.counters
    with torch.no_grad():
        single = hw(x)
        double = hw.double()(x.double())
    assert double.dtype == torch.float64 and torch.allclose(double.float(), single, atol=1e-5)
    assert (hw.counters - before).writes == 0
    assert hw.tiles()[0].cells.written.dtype == torch.int64


# --- units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "preset", [H.pcm, H.hermes, H.reram, H.reram_cmo, H.cross_point, H.ecram], ids=lambda p: p.__name__
)
def test_results_do_not_depend_on_the_unit_of_conductance(preset, seed):
    """The same chip in nanosiemens."""
    model, x, found = net().double(), torch.randn(4, 6, dtype=torch.float64), []
    for unit in (1.0, 1e3):
        chip = preset(seed=seed)
        chip = preset(seed=seed, g_max=chip.g_max * unit, g_min=chip.g_min * unit)
        found.append(live(H.deploy(model, chip), x))
    assert torch.allclose(*found, rtol=1e-6, atol=1e-9)


def test_noise_belongs_to_the_hardware(seed):
    """A model with all weights doubled has outputs, and errors, twice as large."""
    layer, x = nn.Linear(6, 3, bias=False), torch.randn(50, 6)
    double = copy.deepcopy(layer)
    double.weight.data.mul_(2)
    stages = [H.PCMProgramming(), H.ReadNoise(0.02), H.OutputNoise(0.04), H.ADC(8)]
    one, two = (H.deploy(m, H.Chip(stages, seed=seed))(x) for m in (layer, double))
    assert torch.allclose(2 * one, two, rtol=1e-5)


# --- many chips -------------------------------------------------------------------------------------------------------


def test_shapes_with_a_chip_axis():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 10))
    hw = H.deploy(model, H.pcm(n_chips=8, seed=0))
    assert hw(torch.randn(5, 1, 8, 8)).shape == (8, 5, 10)
    assert [tuple(p.shape) for p in hw.parameters()] == [(8, 3, 1, 3, 3), (8, 3), (8, 10, 27), (8, 10)]
    assert all(isinstance(p, nn.Parameter) for p in hw.parameters())


def test_each_chip_can_have_inputs_of_its_own(seed):
    hw = H.deploy(net(), H.Chip([H.Mismatch(0.2)], n_chips=3, seed=seed))
    x = torch.randn(4, 6)
    assert torch.equal(hw.each(x.expand(3, 4, 6)), hw(x))
    own = torch.randn(3, 4, 6)
    y = hw.each(own)
    for s in range(3):
        assert torch.allclose(y[s], hw(own[s])[s], atol=1e-6)
    with pytest.raises(ValueError, match=r"\(3, B, \.\.\.\), got \(4, 6\)"):
        hw.each(x)
    with pytest.raises(ValueError, match="n_chips is None"):
        H.deploy(net(), H.Chip()).each(x)


def test_across_chips():
    found = H.across(torch.tensor([0.9, 0.8, 1.0, 0.7]), least=0.8)
    assert found == pytest.approx((0.85, 0.1290994, 0.7, 1.0, 0.75))
    assert H.across(torch.tensor([0.5])).sd == 0.0 and np.isnan(H.across(torch.tensor([0.5])).passing)
    with pytest.raises(ValueError, match="no chip"):
        H.across(torch.tensor([]))
