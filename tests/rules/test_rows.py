"""Rules that are stepped by rewards, as rows of the catalogue."""

import pytest
import torch
from torch import nn

import zolib as zo
from zolib.catalogue import COLUMNS
from zolib.rules import InTime

ROWS = [name for name in zo.catalogue if isinstance(zo.catalogue[name], InTime)]
LR = {"oua": 40.0, "hedonistic-synapse": 1.0, "rmhl": 3e-3, "exploratory-hebb": 3e-3, "miconi": 1e-4}


@pytest.mark.parametrize("name", ROWS)
def test_it_lowers_the_loss_with_one_evaluation_a_step(name, generator):
    net = nn.Linear(4, 1)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    x = torch.randn(4, 4, generator=generator)
    y = (net(x) + 0.5).detach()  # not far: a rule that sees fluctuations only must stay slow beside its running mean
    oracle = zo.Oracle(lambda: (net(x) - y).square().mean(), macs=None)
    run = zo.catalogue[name].start(oracle, net, lr=LR[name], seed=0)
    losses = [run.step().item() for _ in range(1200)]
    assert oracle.forwards == 1200
    assert sum(losses[-50:]) < 0.6 * sum(losses[:5]) * 10


def test_rows_are_told_in_words():
    table = zo.catalogue.table()
    told = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in table.rows}
    assert set(ROWS) == {"oua", "hedonistic-synapse", "rmhl", "exploratory-hebb", "miconi"} <= set(told)
    assert told["oua"]["evaluations"] == "1" and told["feedback-alignment"]["scale"] == "none"
