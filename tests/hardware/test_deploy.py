"""Putting models on chips: what goes where, what is refused, what it counts and costs."""

import copy

import pytest
import torch
from torch import nn

import zolib as zo
from zolib import hardware as H


class Net(nn.Module):
    """A model with a method and an attribute of its own."""

    kind = "a net"

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 2)
        self.norm, self.calls = nn.LayerNorm(6), 0

    def encode(self, x):
        return self.norm(torch.tanh(self.body(x)))

    def forward(self, x, scale=1.0):
        self.calls += 1
        return {"out": self.head(self.encode(x)) * scale, "hidden": self.encode(x)}


def test_methods_and_children_are_found():
    hw = H.deploy(Net(), H.Chip([H.OutputNoise(0.1)]))
    assert hw.kind == "a net" and hw.encode(torch.ones(3, 4)).shape == (3, 6)
    assert isinstance(hw.body, H.Linear) and isinstance(hw.norm, nn.LayerNorm)
    with pytest.raises(AttributeError):
        hw.nothing  # noqa: B018
    assert not hasattr(copy.copy(hw), "__nothing__")


def test_nested_results_and_keywords():
    model = Net().requires_grad_(True)
    model.norm.requires_grad_(False)
    hw = H.deploy(model, H.Chip([H.Mismatch(0.1)], n_chips=3))
    out = hw(torch.ones(5, 4), scale=2.0)
    assert out["out"].shape == (3, 5, 2) and out["hidden"].shape == (3, 5, 6)


def test_a_layer_used_twice_is_one_array():
    layer = nn.Linear(4, 4)
    hw = H.deploy(nn.Sequential(layer, nn.Tanh(), layer), H.Chip([H.Mismatch(0.1)]))
    assert hw.model[0] is hw.model[2] and len(hw.tiles()) == 1
    recurrent = H.deploy(nn.ModuleDict({"a": layer, "b": layer}), H.Chip([H.Mismatch(0.1)]))
    assert recurrent.model["a"] is recurrent.model["b"]


def test_frozen_weights_and_modes_stay_so():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2)).eval()
    model[0].requires_grad_(False)
    hw = H.deploy(model, H.Chip([H.Mismatch(0.1)]))
    assert [p.requires_grad for p in hw.parameters()] == [False, False, True, True]
    assert not hw.model[0].training and not hw.model[1].training


def test_sequences():
    """(B, T, in) as nn.Linear takes it."""
    layer, x = nn.Linear(3, 2).double(), torch.randn(4, 7, 3, dtype=torch.float64)
    for n_chips in (None, 2):
        for stages in ([H.Mismatch(0.0)], [H.Mismatch(0.0), H.OutputNoise(0.0)], [H.DAC(24)]):
            y = H.deploy(layer, H.Chip(stages, n_chips))(x)
            assert torch.allclose(y, layer(x).expand_as(y), atol=1e-5)


def test_compiled_models_step_aside_for_a_chip(seed):
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)), torch.randn(3, 4)
    chip = H.Chip([H.PCMProgramming(), H.OutputNoise(0.1)], seed=seed)
    plain, hw = H.deploy(model, chip), H.deploy(model, chip)
    compiled = torch.compile(hw, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(x), plain(x))
        hw.model[0].weight.add_(0.1), plain.model[0].weight.add_(0.1)
        assert torch.equal(compiled(x), plain(x))


# --- digital parts and outputs ----------------------------------------------------------------------------------------


def test_what_stays_digital():
    model = nn.Sequential(nn.Embedding(9, 4), nn.LSTM(4, 4, batch_first=True))
    with pytest.raises(TypeError, match="module '1' is a LSTM.*'weight_ih_l0'.*digital=\\['1'\\]"):
        H.deploy(model, H.Chip())
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for entry in ("1", "0"):
        hw = H.deploy(net, H.Chip([H.OutputNoise(0.1)]), digital=[entry])
        assert type(hw.model[int(entry)]) is nn.Linear and len(hw.tiles()) == 1
    with pytest.raises(ValueError, match="nothing is on the chip"):
        H.deploy(net, H.Chip(), digital=[nn.Linear])


@pytest.mark.parametrize(
    "module",
    [
        nn.Conv1d(2, 2, 1),
        nn.ConvTranspose2d(2, 2, 1),
        nn.Bilinear(2, 2, 2),
        nn.GRU(2, 2),
        nn.MultiheadAttention(4, 2),
        nn.TransformerEncoderLayer(4, 2, 4),
        nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
        type("MyLinear", (nn.Linear,), {})(2, 2),
    ],
    ids=lambda m: type(m).__name__,
)
def test_unsupported_layers_are_named(module):
    model = nn.ModuleDict({"first": nn.Linear(2, 2), "odd": module})
    with pytest.raises(TypeError, match=f"module 'odd' is a {type(module).__name__}.*digital=\\['odd'\\]"):
        H.deploy(model, H.Chip())
    assert len(H.deploy(model, H.Chip(), digital=["odd"]).tiles()) == 1


def test_the_output_of_any_module(seed, within_five):
    """Read through the output stages, in units of 1; stages that need an array have no say."""
    model = nn.Sequential(nn.Linear(2, 3), nn.Tanh())
    stages = [H.DAC(2), H.ReadNoise(0.5), H.ReadoutMismatch(0.5), H.OutputNoise(0.05)]
    model[0].requires_grad_(False)
    hw = H.deploy(model, H.Chip(stages, n_chips=2, seed=seed), digital=["0"], outputs=[nn.Tanh])
    x = torch.randn(1, 2).expand(40_000, 2)
    within_five(hw(x) - model(x), 0.0, 0.05**2)
    quantised = H.deploy(model, H.Chip([H.ADC(2, bound=1.0)]), digital=["0"], outputs=["1"])
    assert set(quantised(torch.randn(50, 2)).unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert quantised.counters.outputs == 150


def test_node_noise_on_the_output_of_any_module_is_saved(seed):
    model = nn.Sequential(nn.Linear(2, 3), nn.Sigmoid())
    make = lambda: H.deploy(  # noqa: E731
        model, H.Chip([H.NodeNoise(H.Telegraph(0.1, 1e5))], seed=seed, read_time=1e-6), digital=["0"], outputs=["1"]
    )
    hw, x = make(), torch.ones(4, 2)
    hw(x)
    other = make()
    other.load_state_dict(hw.state_dict())
    assert torch.equal(other(x), hw(x))


def test_outputs_that_are_no_tensor(seed):
    model = nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2))
    hw = H.deploy(model, H.Chip([H.OutputNoise(0.1)]), digital=["1"], outputs=["1"])
    with pytest.raises(TypeError, match="LSTM returned tuple"):
        hw(torch.ones(3, 2))


# --- refusals ---------------------------------------------------------------------------------------------------------


def _tied():
    model = nn.ModuleDict({"embed": nn.Embedding(5, 4), "head": nn.Linear(4, 5, bias=False)})
    model["embed"].weight = model["head"].weight
    return model


def _hooked():
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda *args: None)
    return nn.Sequential(layer)


def _not_finite():
    layer = nn.Linear(2, 2)
    layer.weight.data[0, 0] = float("nan")
    return layer


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: H.deploy("net", H.Chip()), TypeError, "model must be an nn.Module"),
        (lambda: H.deploy(nn.Linear(2, 2), [H.ADC(8)]), TypeError, "chip must be a Chip"),
        (lambda: H.deploy(H.deploy(nn.Linear(2, 2), H.Chip()), H.Chip()), ValueError, "on a chip already"),
        (lambda: H.deploy(nn.Linear(2, 2), H.Chip(), w_max=0.0), ValueError, "w_max must be a positive"),
        (
            lambda: H.deploy(nn.Linear(2, 2), H.Chip(), w_max=1e-6),
            ValueError,
            r"layer '' has a weight.*g_max=25.*w_max=",
        ),
        (
            lambda: H.deploy(nn.Linear(2, 2), H.Chip(), digital=["head"]),
            ValueError,
            "digital: there is no module 'head'",
        ),
        (
            lambda: H.deploy(nn.Linear(2, 2), H.Chip(), outputs=["head"]),
            ValueError,
            "outputs: there is no module 'head'",
        ),
        (lambda: H.deploy(nn.Linear(2, 2), H.Chip(), outputs=[nn.Linear]), ValueError, "is on the chip"),
        (lambda: H.deploy(nn.Tanh(), H.Chip()), ValueError, "nothing is on the chip"),
        (lambda: H.deploy(_tied(), H.Chip()), ValueError, "'embed.weight' and 'head.weight' are one weight"),
        (lambda: H.deploy(_hooked(), H.Chip()), ValueError, "layer '0' has forward_hooks"),
        (lambda: H.deploy(_not_finite(), H.Chip()), ValueError, "not finite"),
        (lambda: H.deploy(Net(), H.Chip(n_chips=4)), ValueError, "'norm.weight', 'norm.bias' stays digital.*4 chips"),
        (lambda: H.Chip([H.ADC]), TypeError, r"stages\[0\].*pass an object, ADC"),
        (lambda: H.Chip(["noise"]), TypeError, r"stages\[0\] is 'noise'"),
        (lambda: H.Chip(n_chips=0), ValueError, "at least 1, or None"),
        (lambda: H.Chip(n_chips=2.5), TypeError, "n_chips must be a whole number"),
        (lambda: H.Chip(g_max=0), ValueError, "g_max must be above 0"),
        (lambda: H.Chip(g_min=30.0), ValueError, "g_min=30 must be below g_max=25"),
        (lambda: H.Chip(read_time=-1.0), ValueError, "read_time must be at least 0"),
        (lambda: H.Chip(read_time=1e-10), ValueError, "shorter than a tick"),
        (lambda: H.OutputNoise(-0.1), ValueError, "sd must be at least 0, got -0.1"),
        (lambda: H.OutputNoise("loud"), TypeError, "sd must be a number"),
        (lambda: H.Mismatch(float("nan")), ValueError, "spread must be at least 0"),
        (lambda: H.StuckAt(1.5), ValueError, "fraction must be at least 0 and at most 1, got 1.5"),
        (lambda: H.ADC(0), ValueError, "bits must be from 2 .*got 0"),
        (lambda: H.DAC(8.0), TypeError, "bits must be a whole number"),
        (lambda: H.ADC(8, bound=0.0), ValueError, "bound must be above 0"),
        (lambda: H.Programming(0.1, law="cauchy"), ValueError, "law must be one of 'normal'"),
        (lambda: H.ReadNoise(0.1, "square"), ValueError, "scaling must be one of"),
        (lambda: H.Telegraph(0.1, rate=-1.0), ValueError, "rate must be at least 0"),
        (lambda: H.Telegraph.sampled(0.1, 0.5, 1.0), ValueError, "flip must be"),
        (lambda: H.OrnsteinUhlenbeck(0.1, tau=0.0), ValueError, "tau must be above 0"),
        (lambda: H.Flicker(0.1, fastest=1.0, slowest=0.1), ValueError, "slowest must be above 1"),
        (lambda: H.CellNoise(0.1), TypeError, "process must be an OrnsteinUhlenbeck.*ReadNoise"),
        (lambda: H.NodeNoise(H.OutputNoise(0.1)), TypeError, "white noise is OutputNoise"),
        (lambda: H.CMOProgramming(0.02), ValueError, "acceptance must be one of 0.2, 2.0, got 0.02"),
        (lambda: H.HermesDrift(3), ValueError, "devices must be 1 or 2"),
        (lambda: H.ConstantStep(step=0.0), ValueError, "step must be above 0"),
        (lambda: H.SoftBounds(low=0.5), ValueError, "low must be"),
        (lambda: H.Chip().cells(3).program(26.0), ValueError, "26 microsiemens is not between g_min=0 and g_max=25"),
        (lambda: H.Chip().cells(3).program(-1.0), ValueError, "-1 microsiemens is not between"),
        (lambda: H.thermal_noise(-1.0, 1.0), ValueError, "g must be at least 0"),
        (lambda: H.energy(H.Counters(), {"erases": 1e-12}), ValueError, "'erases' is not counted"),
        (lambda: H.energy(H.Counters(), {"macs": -1.0}), ValueError, "macs"),
    ],
)
def test_wrong_use_is_refused(call, error, match):
    with pytest.raises(error, match=match):
        call()


def test_a_weight_that_is_not_finite_reaches_no_cell(seed):
    hw = H.deploy(nn.Linear(2, 2), H.Chip([H.PCMProgramming()], seed=seed))
    before = hw.tiles()[0].cells.g.clone()
    with torch.no_grad():
        hw.weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match="not finite; the cells were left as they are"):
        hw(torch.ones(1, 2))
    assert torch.equal(hw.tiles()[0].cells.g, before)


def test_weights_that_learning_moves_too_far_saturate_with_one_warning(seed, recwarn):
    hw = H.deploy(nn.Linear(2, 2, bias=False), H.Chip([H.Mismatch(0.0)], seed=seed), w_max=1.0)
    with torch.no_grad():
        hw.weight.fill_(1.0)
        hw(torch.ones(1, 2))
        assert not recwarn
        hw.weight[0].fill_(7.0)
        assert torch.allclose(hw(torch.ones(1, 2)), torch.tensor(2.0))
        hw.weight[0].fill_(9.0)
        hw(torch.ones(1, 2))
    (warning,) = recwarn
    assert "2 of 4 weights" in str(warning.message) and "larger w_max" in str(warning.message)


# --- keeping, counting, paying ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "write",
    [
        lambda p: p.add_(0.1),
        lambda p: p.data.add_(0.1),
        lambda p: setattr(p, "data", p.data + 0.1),
        lambda p: p.copy_(p + 0.1),
        lambda p: nn.utils.vector_to_parameters(p.flatten() + 0.1, [p]),
        lambda p: p.view(-1)[0].add_(0.1),
    ],
    ids=["add_", "data.add_", "data =", "copy_", "vector_to_parameters", "one entry"],
)
def test_any_way_of_writing_a_parameter_reaches_the_cells(write, seed):
    hw = H.deploy(nn.Linear(3, 3), H.Chip([H.PCMProgramming()], seed=seed), w_max=2.0)
    x = torch.ones(1, 3)
    with torch.no_grad():
        before = hw(x)
        write(hw.weight)
        assert not torch.equal(hw(x), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("by", ["memcmp", "torch"])
def test_one_bit_of_one_weight_reaches_the_cells(by, dtype, monkeypatch, seed):
    if by == "torch":
        monkeypatch.setattr(H.tile, "_memcmp", None)
    x = torch.ones(1, 3, dtype=dtype)
    for outputs in (3, 4):  # an odd and an even number of weights
        layer = nn.Linear(3, outputs).to(dtype)
        hw = H.deploy(layer, H.Chip([H.Mismatch(0.1)], seed=seed), w_max=2.0)
        for i in range(3 * outputs):
            with torch.no_grad():
                hw(x)
                bits = hw.weight.data.view(-1)[i : i + 1].view(torch.int16 if dtype is torch.bfloat16 else torch.int32)
                bits ^= 1
                hw(x)
            assert torch.equal(hw.tiles()[0].synced, hw.weight)


def test_what_is_kept_is_made_again_only_when_it_must(seed):
    hw = H.deploy(nn.Linear(3, 3), H.Chip([H.PCMProgramming(), H.PCMDrift()], seed=seed))
    tile, calls = hw.tiles()[0], []
    read = tile.cells.read
    tile.cells.read = lambda *args: calls.append(1) or read(*args)
    x = torch.ones(1, 3)
    with torch.no_grad():
        for _ in range(5):
            hw(x)
        assert len(calls) == 1
        hw.age(1.0)
        hw(x), hw(x)
        assert len(calls) == 2
        hw.weight.add_(0.1)
        hw(x), hw(x)
    assert len(calls) == 3


def test_only_cells_whose_target_changes_are_written(seed):
    hw = H.deploy(nn.Linear(4, 3), H.Chip([H.PCMProgramming()], seed=seed), w_max=2.0)
    cells, before = hw.tiles()[0].cells, hw.tiles()[0].cells.g.clone()
    hw.weight.data[0, 0] = 0.5
    hw.weight.data[1, 1] = 0.7
    counted = hw.counters
    hw(torch.ones(1, 4))
    changed = (cells.g != before).flatten(1).any(dim=0).nonzero().flatten().tolist()
    assert changed == [0, 5]
    assert 2 <= (hw.counters - counted).writes <= 4  # one or, where the sign changes, both of a pair


def test_counters(seed):
    """Two chips, a layer of 6 x 4 and one of 2 x 6, five examples."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    hw = H.deploy(model, H.Chip([H.DAC(8), H.PCMProgramming(), H.ADC(8)], n_chips=2, seed=seed))
    assert hw.counters == H.Counters(writes=2 * 2 * (24 + 12))
    hw(torch.ones(5, 4))
    assert hw.counters - H.Counters(writes=144) == H.Counters(
        reads=2 * 10, macs=2 * 5 * (24 + 12), inputs=2 * 5 * (4 + 6), outputs=2 * 5 * (6 + 2)
    )
    conv = H.deploy(nn.Conv2d(2, 4, 3, groups=2), H.Chip([H.DAC(8), H.ADC(8)], seed=seed))
    conv(torch.ones(3, 2, 5, 5))
    rows = 3 * 9
    assert conv.counters == H.Counters(reads=rows, macs=rows * 4 * 9, inputs=rows * 18, outputs=rows * 4)


def test_a_pair_of_reads_costs_a_pair_of_reads(seed):
    hw = H.deploy(nn.Linear(4, 6), H.Chip([H.OutputNoise(0.1)], seed=seed))
    zo.backward(lambda: hw(torch.ones(5, 4)).square().mean(dim=1), hw, probe=zo.Intrinsic(), samples=3)
    assert hw.counters == H.Counters(reads=2 * 3 * 5, macs=2 * 3 * 5 * 24)


def test_energy():
    counts = H.Counters(reads=10, macs=1_000_000, outputs=50, writes=7, pulses=3)
    found = H.energy(counts, H.PCM_14NM)
    assert found.joules == pytest.approx(1e6 * 0.205e-12, rel=1e-3)
    assert found.unpriced == {"writes": 7, "pulses": 3} and "7 writes" in str(found)
    assert H.energy(counts, H.PCM_14NM_PRECISE).joules == pytest.approx(1e6 * 0.806e-12, rel=1e-3)
    assert H.energy(counts, H.DIGITAL_45NM).joules == pytest.approx(4.6e-6)
    own = {"writes": H.pulse_energy(2.0, 1e-4, 1e-7), "pulses": H.Price(1e-12, "a guess", "for a test")}
    paid = H.energy(counts, {**H.PCM_14NM, **own})
    assert not paid.unpriced and paid.parts["writes"] == pytest.approx(7 * 2e-11)
    assert paid.joules == pytest.approx(sum(paid.parts.values()))


@pytest.mark.parametrize("table", [H.PCM_14NM, H.PCM_14NM_PRECISE, H.DIGITAL_45NM])
def test_every_price_has_a_source_and_a_caveat(table):
    assert all(price.source and price.caveat and price.joules >= 0 for price in table.values())


def test_energy_of_a_model(seed):
    hw = H.deploy(nn.Linear(100, 100), H.pcm(seed=seed))
    hw(torch.ones(8, 100))
    start = hw.counters
    hw(torch.ones(2, 100))
    assert hw.energy(H.PCM_14NM).joules == pytest.approx(10 * 1e4 * 2 / 9.76e12)
    assert hw.energy(H.PCM_14NM, since=start).joules == pytest.approx(2 * 1e4 * 2 / 9.76e12)
    assert hw.energy(H.PCM_14NM).unpriced == {"writes": 20_000}
