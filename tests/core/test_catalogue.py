"""Every row of the catalogue runs, costs what it says, and has the scale that it declares."""

import pytest
import torch
from torch import nn

import zolib as zo
from zolib.catalogue import COLUMNS, Catalogue, Method

rows = pytest.mark.parametrize("name", list(zo.catalogue))
LR = {"openai-es": 0.03, "zo-adam": 0.03, "zo-signsgd": 0.01, "es-z-scores": 2e-3, "eggroll": 2e-3}


@pytest.fixture
def task(generator):
    """The reference task: two classes that no straight line separates."""
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.7)
    x = torch.randn(64, 2, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    return net, lambda: nn.functional.cross_entropy(net(x), y)


@rows
def test_it_lowers_the_loss_at_the_cost_it_declares(name, task):
    net, closure = task
    method = zo.catalogue[name]
    before = closure().item()
    oracle = zo.Oracle(closure, macs=None)
    run = method.start(oracle, net, lr=LR.get(name, 0.02), seed=1)
    steps = 30 if method.samples is None else 300
    for _ in range(steps):
        loss = run.step()
    assert loss.ndim == 0
    assert closure().item() < 0.9 * before
    assert oracle.forwards == steps * method.evaluations(run.samples)


@rows
def test_its_mean_has_the_scale_it_declares(name, task, half_width):
    net, closure = task
    method = zo.catalogue[name]
    closure().backward()
    true = torch.cat([p.grad.flatten() for p in net.parameters()]).double()
    feedback, rows = method.feedback(), []
    for step in range(32):
        net.zero_grad()
        samples = 64 if method.samples else len(true)
        settings = {"samples": samples, "sigma": 1e-2, "seed": 7, "step": step}
        zo.backward(closure, net, probe=method.probe, feedback=feedback, **settings)
        rows.append(torch.cat([p.grad.flatten() for p in net.parameters()]).double())
    slopes = torch.stack(rows) @ true / true.square().sum()
    error = half_width(slopes, 2 * len(zo.catalogue)).item()
    if method.scale == "gradient":
        assert abs(slopes.mean().item() - 1) <= error + 0.01
    else:
        assert slopes.mean().item() > error, "it points uphill"
        assert abs(slopes.mean().item() - 1) > error, "its length is not the gradient's"


def test_the_table_says_it_in_words():
    table = zo.catalogue.table()
    assert len(table.rows) == len(zo.catalogue) and all(len(row) == len(COLUMNS) for row in table.rows)
    assert "simultaneous perturbation" in str(table)
    cells = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in table.rows}
    assert cells["spsa"]["evaluations"] == "2K" and cells["gaussian-smoothing"]["evaluations"] == "K + 1"
    assert cells["coordinate-differences"]["evaluations"] == "2d"
    assert cells["openai-es"]["scale"] == "direction" and cells["mezo"]["scale"] == "gradient"


def test_a_run_refuses_what_its_door_refuses(task):
    net, closure = task
    with pytest.raises(ValueError, match="samples must be"):
        zo.catalogue["spsa"].start(closure, net, lr=0.1, samples=0).step()
    with pytest.raises(ValueError, match="sigma must be"):
        zo.catalogue["spsa"].start(closure, net, lr=0.1, sigma=0).step()


def test_names_are_unique_and_unknown_ones_get_a_hint():
    with pytest.raises(KeyError, match="Did you mean 'zo-adam'"):
        zo.catalogue["zoadam"]
    fresh = Catalogue()
    row = Method("own", "my rule", zo.Gaussian(), zo.TwoPoint, zo.SignSGD, "here")
    fresh.add(row)
    with pytest.raises(ValueError, match="'own' is in the catalogue already"):
        fresh.add(row)
    assert list(fresh) == ["own"]
