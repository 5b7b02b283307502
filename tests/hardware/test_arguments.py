"""Every argument of every constructor does something: with another value, the same chip behaves otherwise."""

import inspect

import pytest
import torch
from torch import nn

from zolib import hardware as H

pytestmark = pytest.mark.filterwarnings("ignore:.*beyond w_max")  # where it does not matter

LAW = {"step": 0.02, "d2d": 0.1, "c2c": 0.1, "up_down": 0.1, "up_down_d2d": 0.05, "low": -1.0, "high": 1.0}
LAW |= {"bound_d2d": 0.1}
OTHER_LAW = {"step": 0.03, "d2d": 0.3, "c2c": 0.4, "up_down": -0.2, "up_down_d2d": 0.2, "low": -0.4, "high": 0.3}
OTHER_LAW |= {"bound_d2d": 0.3}
LINEAR = {"gamma_up": 0.3, "gamma_down": 0.3, "gamma_d2d": 0.05}
EXPONENTIAL = {"A_up": -1.0, "A_down": -0.1, "gamma_up": 3.0, "gamma_down": 3.0, "a": -0.5, "b": -0.5}

#: For each class: arguments, and for each of them another value.
TABLE = [
    (H.Mismatch, {"spread": 0.1}, {"spread": 0.2}),
    (H.StuckAt, {"fraction": 0.2, "on": 0.5}, {"fraction": 0.4, "on": 0.0}),
    (H.ReadoutMismatch, {"gain": 0.1, "offset": 0.1}, {"gain": 0.2, "offset": 0.2}),
    (
        H.Programming,
        {"spread": 0.1, "law": "normal", "scaling": "independent"},
        {"spread": 0.2, "law": "uniform", "scaling": "proportional"},
    ),
    (
        H.FittedProgramming,
        {"coefficients": (0.1, 0.2), "reference": 25.0, "scale": 1.0},
        {"coefficients": (0.1, 0.4), "reference": 50.0, "scale": 2.0},
    ),
    (H.PCMProgramming, {"scale": 1.0}, {"scale": 2.0}),
    (H.HermesProgramming, {"devices": 2, "scale": 1.0}, {"devices": 1, "scale": 2.0}),
    (H.CMOProgramming, {"acceptance": 2.0}, {"acceptance": 0.2}),
    (H.Drift, {"nu": 0.1, "spread": 0.02, "t0": 1.0}, {"nu": 0.2, "spread": 0.05, "t0": 9.0}),
    (H.PCMDrift, {"scale": 1.0}, {"scale": 2.0}),
    (H.HermesDrift, {"devices": 2, "scale": 1.0}, {"devices": 1, "scale": 2.0}),
    (H.WanRelaxation, {"scale": 1.0}, {"scale": 2.0}),
    (H.CMORelaxation, {}, {}),
    (
        H.CellNoise,
        {"process": H.Telegraph(0.1, 1.0), "scaling": "proportional"},
        {"process": H.Telegraph(0.2, 1.0), "scaling": "independent"},
    ),
    (H.NodeNoise, {"process": H.Telegraph(0.1, 1e5)}, {"process": H.Telegraph(0.2, 1e5)}),
    (H.OutputNoise, {"sd": 0.1}, {"sd": 0.2}),
    (H.ReadNoise, {"spread": 0.1, "scaling": "proportional"}, {"spread": 0.2, "scaling": "inverse"}),
    (H.PCMReadNoise, {"scale": 1.0}, {"scale": 2.0}),
    (H.HermesReadNoise, {"devices": 2, "scale": 1.0}, {"devices": 1, "scale": 2.0}),
    (H.CMOReadNoise, {}, {}),
    (
        H.Thermal,
        {"bandwidth": 1e12, "voltage": 0.2, "temperature": 300.0},
        {"bandwidth": 2e12, "voltage": 0.1, "temperature": 400.0},
    ),
    (H.Shot, {"bandwidth": 1e12, "voltage": 0.2}, {"bandwidth": 2e12, "voltage": 0.1}),
    (H.DAC, {"bits": 4, "bound": 2.0}, {"bits": 5, "bound": None}),
    (H.ADC, {"bits": 4, "bound": 2.0, "stochastic": False}, {"bits": 5, "bound": 1.0, "stochastic": True}),
    (H.IRDrop, {"resistance": 500.0}, {"resistance": 900.0}),
    (H.ConstantStep, LAW, OTHER_LAW),
    (H.SoftBounds, LAW, OTHER_LAW),
    (H.LinearStep, LAW | LINEAR, OTHER_LAW | {"gamma_up": 0.6, "gamma_down": 0.6, "gamma_d2d": 0.2}),
    (
        H.ExponentialStep,
        LAW | EXPONENTIAL,
        OTHER_LAW | {"A_up": -2.0, "A_down": -0.2, "gamma_up": 4.0, "gamma_down": 4.0, "a": -0.3, "b": -0.3},
    ),
]
PROCESSES = [
    (H.OrnsteinUhlenbeck, {"sd": 0.1, "tau": 1.0}, {"sd": 0.2, "tau": 2.0}),
    (H.Telegraph, {"amplitude": 0.1, "rate": 1.0}, {"amplitude": 0.2, "rate": 9.0}),
    (
        H.Flicker,
        {"q": 0.1, "fastest": 0.1, "slowest": 100.0, "per_decade": 1},
        {"q": 0.2, "fastest": 0.01, "slowest": 1000.0, "per_decade": 2},
    ),
]


def arguments(kind):
    """Of a constructor, those that it hands on included."""
    own = inspect.signature(kind.__init__).parameters if "__init__" in vars(kind) else {}
    names = {name for name in own if name not in ("self", "others")}
    return names | arguments(kind.__mro__[1]) if "others" in own else names


def fixed(kind):
    """What SoftBounds has decided of the law that it is a case of."""
    return {"gamma_up", "gamma_down", "gamma_d2d"} if kind is H.SoftBounds else set()


def behaviour(stage):
    """What a model does with it: written, read, trained a little, aged, and read again."""
    torch.manual_seed(0)
    hw = H.deploy(nn.Linear(8, 30), H.Chip([stage], seed=1, read_time=1e-6), w_max=1.0)
    seen = []
    x = torch.linspace(-1.5, 1.5, 40).view(5, 8)
    with torch.no_grad():
        for change in (0.0, 0.4, -0.9, 0.2):
            hw.weight.add_(change)
            seen.append(hw(x))
            hw.age(2.0)
            seen.append(hw(x))
    return torch.stack(seen)


@pytest.mark.parametrize(("kind", "first", "other"), TABLE, ids=lambda v: getattr(v, "__name__", None))
def test_every_argument_of_a_stage_matters(kind, first, other):
    assert set(first) == set(other) == arguments(kind) - fixed(kind)
    base = behaviour(kind(**first))
    assert torch.equal(base, behaviour(kind(**first)))
    for name, value in other.items():
        assert not torch.equal(base, behaviour(kind(**{**first, name: value}))), name


@pytest.mark.parametrize(("kind", "first", "other"), PROCESSES, ids=lambda v: getattr(v, "__name__", None))
def test_every_argument_of_a_process_matters(kind, first, other):
    assert set(first) == set(other) == arguments(kind)
    base = behaviour(H.CellNoise(kind(**first)))
    for name, value in other.items():
        assert not torch.equal(base, behaviour(H.CellNoise(kind(**{**first, name: value})))), name


def test_no_stage_is_missing(stage_kinds):
    assert stage_kinds == {kind for kind, *_ in TABLE}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stages", [H.Mismatch(0.2)]),
        ("n_chips", 2),
        ("seed", 4),
        ("g_max", 10.0),
        ("g_min", 5.0),
        ("read_time", 1e-3),
    ],
)
def test_every_argument_of_a_chip_matters(name, value):
    assert len(inspect.signature(H.Chip.__init__).parameters) == 7
    first = {"stages": [H.CMORelaxation(), H.CellNoise(H.OrnsteinUhlenbeck(0.1, 1.0))], "seed": 3, "read_time": 1e-6}

    def read(**settings):
        hw = H.deploy(nn.Linear(4, 3), H.Chip(**settings))
        with torch.no_grad():
            hw.weight.fill_(0.2)
            hw(torch.ones(2, 4))
            return hw(torch.ones(2, 4))

    a, b = read(**first), read(**{**first, name: value})
    assert a.shape != b.shape or not torch.equal(a, b)


@pytest.mark.parametrize("kind", [kind for kind, *_ in TABLE], ids=lambda k: k.__name__)
def test_a_stage_says_what_it_is(kind):
    first = next(first for k, first, _ in TABLE if k is kind)
    stage = kind(**first)
    assert isinstance(stage.when, H.When)
    assert repr(stage).startswith(kind.__name__)
    assert kind.__doc__ and ("Args:" in kind.__doc__ or not first)
