"""Every optimizer and every rule of the library trains a chip, written or pulsed, with no special case."""

import pytest
import torch
from torch import nn

import zolib as zo
from zolib import hardware as H

S, B = 3, 4


def net():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def data():
    x, y = torch.randn(B, 5, dtype=torch.float64), torch.randn(B, 2, dtype=torch.float64)
    return x, y.clamp(-1, 1) / 2


def losses(hw, x, y):
    """([S,] B)."""
    return (hw(x) - y).square().sum(dim=-1)


OPTIMIZERS = {
    "SGD": lambda ps: torch.optim.SGD(ps, lr=0.02, momentum=0.5),
    "Adam": lambda ps: torch.optim.Adam(ps, lr=0.02),
    "AdamW": lambda ps: torch.optim.AdamW(ps, lr=0.02),
    "RMSprop": lambda ps: torch.optim.RMSprop(ps, lr=0.005),
    "SignSGD": lambda ps: zo.SignSGD(ps, lr=0.01),
}
CHIPS = {
    "written": [H.Programming(0.002), H.Mismatch(0.2), H.OutputNoise(0.02)],
    "pulsed": [H.SoftBounds(step=0.002, d2d=0.1, bound_d2d=0.1), H.OutputNoise(0.02)],
}


RULES = [*(("intrinsic", name) for name in OPTIMIZERS), ("backpropagation", "Adam"), ("nodes", "SGD")]


@pytest.mark.parametrize("kind", CHIPS)
@pytest.mark.parametrize(("rule", "name"), RULES)
def test_every_optimizer_trains_a_chip(rule, name, kind, seed):
    hw = H.deploy(net(), H.Chip(CHIPS[kind], n_chips=4, seed=seed), w_max=1.5)
    x, y = data()
    optimizer = OPTIMIZERS[name](hw.parameters())
    with torch.no_grad():
        before = losses(hw, x, y).mean()
    for step in range(100):
        optimizer.zero_grad()
        if rule == "backpropagation":
            losses(hw, x, y).mean(dim=1).sum().backward()
        else:
            probe = zo.Nodes() if rule == "nodes" else zo.Intrinsic()
            zo.backward(lambda: losses(hw, x, y), hw, probe=probe, samples=2, sigma=0.05, seed=seed, step=step)
        optimizer.step()
    with torch.no_grad():
        assert losses(hw, x, y).mean() < 0.6 * before


@pytest.mark.parametrize("kind", CHIPS)
def test_mezo_trains_a_chip(kind, seed):
    """In place, from replayed seeds: the kernels' writes reach the cells too."""
    hw = H.deploy(net().float(), H.Chip(CHIPS[kind], seed=seed), w_max=1.5)
    x, y = (t.float() for t in data())
    optimizer = zo.MeZO(hw, lr=0.03, sigma=0.01, seed=seed, samples=8)
    with torch.no_grad():
        before = losses(hw, x, y).mean()
    for _ in range(60):
        optimizer.step(lambda: losses(hw, x, y).mean())
    with torch.no_grad():
        assert losses(hw, x, y).mean() < 0.7 * before
    assert hw.counters.writes + hw.counters.pulses > 0


def test_ornstein_uhlenbeck_adaptation_moves_cells(seed):
    """A rule in time, stepped by one reward for each chip."""
    hw = H.deploy(net(), H.Chip([H.Mismatch(0.2)], n_chips=S, seed=seed), w_max=3.0)
    x, y = data()
    oua = zo.rules.OUA(hw.parameters(), sigma=0.1, dt=0.1, seed=seed)
    writes = hw.counters.writes
    with torch.no_grad():
        for _ in range(5):
            oua.step(-losses(hw, x, y).mean(dim=1))
    assert oua.expected.shape == (S,) and hw.counters.writes > writes
