"""Every rule of the catalogue trains a deployed chip, with nothing said to it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zolib as zo
from zolib import rules
from zolib.catalogue import Method

H = zo.hardware


@pytest.fixture
def deployed(generator):
    """(chip model, inputs, labels): mismatch, noisy reads, converters."""
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    chip = H.Chip([H.Mismatch(0.2), H.OutputNoise(0.02), H.ADC(8)], seed=0)
    x = torch.randn(16, 4, generator=generator)
    return H.deploy(net, chip), x, (x[:, 0] > 0).long()


@pytest.mark.parametrize("kind", [rules.ThreeFactor, rules.Fluctuation, rules.Cubed, rules.NRL])
def test_a_three_factor_rule(kind, deployed):
    hw, x, y = deployed
    before = [p.detach().clone() for p in hw.parameters()]
    rule = kind(hw, torch.optim.SGD(hw.parameters(), lr=0.01), sigma=0.1, replicas=16, seed=0)
    for _ in range(3):
        out = rule.act(lambda: hw(x))
        rule.reinforce((out == y).float() if kind is rules.NRL else -F.cross_entropy(out, y, reduction="none"))
    assert all(not torch.equal(p, b) for p, b in zip(hw.parameters(), before, strict=True))


def test_oua(deployed):
    hw, x, y = deployed
    oua = rules.OUA(hw.parameters(), lr=20.0, sigma=0.1, dt=0.1, seed=0)
    losses = []
    for _ in range(400):
        with torch.no_grad():
            losses.append(F.cross_entropy(hw(x), y))
        oua.step(-losses[-1])
    assert sum(losses[-50:]) < 0.8 * sum(losses[:50])


@pytest.mark.parametrize("probe", [rules.FeedbackAlignment(), rules.DirectFeedbackAlignment()])
def test_fixed_wires(probe, deployed):
    hw, x, y = deployed
    optimizer = torch.optim.Adam(hw.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(zo.backward(lambda: F.cross_entropy(hw(x), y), hw, probe=probe, feedback="exact").item())
        optimizer.step()
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


#: Steps of the updates: 0.1, but what has a length of its own (signs, Adam, ranks) or hears a reward takes another.
LR = {"openai-es": 0.03, "zo-adam": 0.03, "zo-signsgd": 0.01, "es-z-scores": 2e-3, "eggroll": 2e-3, "nes": 0.02}
LR |= {"weight-perturbation": 0.02, "oua": 20.0, "hedonistic-synapse": 1.0, "rmhl": 3e-3, "exploratory-hebb": 1e-3}
LR |= {"miconi": 1e-4}


@pytest.mark.parametrize("name", list(zo.catalogue))
def test_every_row_of_the_catalogue_lowers_the_loss_of_a_chip(name, generator):
    """Two classes that no straight line separates, on one chip with wrong, noisy cells and converters."""
    method = zo.catalogue[name]
    inner, outer = nn.Linear(2, 8), nn.Linear(8, 2)
    with torch.no_grad():
        for p in (*inner.parameters(), *outer.parameters()):
            p.copy_(torch.randn(p.shape, generator=generator) * 0.7)
    layers = [inner, nn.Tanh(), outer]
    if getattr(method, "local", None):
        layers = [zo.Decorrelation(2), inner, nn.Tanh(), zo.Decorrelation(8), outer]
    stages = [H.Mismatch(0.2), H.StuckAt(0.05), H.DAC(8), H.OutputNoise(0.002), H.ADC(10)]
    hw = H.deploy(nn.Sequential(*layers), H.Chip(stages, seed=0), w_max=4.0)
    x = torch.randn(64, 2, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    where = method.probe.where if isinstance(method, Method) else "time"
    each = "none" if where in ("nodes", "activities", "outputs") else "mean"

    def closure():
        return F.cross_entropy(hw(x), y, reduction=each)

    def loss():
        with torch.no_grad():
            return sum(closure().mean().item() for _ in range(8)) / 8

    before, writes = loss(), hw.counters.writes
    shake = {} if where == "time" else {"sigma": 0.1}  # well above what the chip's noise hides
    run = method.start(closure, hw, lr=LR.get(name, 0.1), seed=1, **shake)
    steps = 500 if where == "time" else 20 if (method.samples or 8) >= 8 else 100
    losses = [run.step().item() for _ in range(steps)]
    if name == "hedonistic-synapse":  # it never acts at its mean: before, it releases by the toss of a coin
        before = sum(losses[:20]) / 20
    assert loss() < 0.9 * before
    assert hw.counters.writes > writes


def test_many_chips_learn_side_by_side_with_a_reward_each(generator):
    net = nn.Linear(4, 1)
    hw = H.deploy(net, H.Chip([H.Mismatch(0.2), H.OutputNoise(0.02)], n_chips=6, seed=0), w_max=2.0)
    x = torch.randn(16, 4, generator=generator)
    oua = rules.OUA(hw.parameters(), lr=5.0, sigma=0.1, dt=0.1, seed=0)
    first = last = None
    for step in range(600):
        with torch.no_grad():
            loss = (hw(x)[..., 0] - x.sum(dim=1)).square().mean(dim=1)  # (6,)
        first = loss if step == 0 else first
        last = loss
        oua.step(-loss)
    assert oua.expected.shape == (6,)
    assert (last < 0.5 * first).all()


def test_wires_are_refused_where_they_would_be_the_weights(generator):
    hw = H.deploy(nn.Linear(4, 1), H.Chip([H.OutputNoise(0.02)], n_chips=3, seed=0))
    x = torch.randn(16, 4, generator=generator)
    for probe in (rules.FeedbackAlignment(), rules.DirectFeedbackAlignment()):
        with pytest.raises(zo.ParameterError, match="saw no linear layer"):
            zo.backward(lambda: hw(x).square().mean(), hw, probe=probe, feedback="exact")
