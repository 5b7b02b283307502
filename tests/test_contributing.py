"""The example of a new method in CONTRIBUTING runs, is short, and is right."""

import pathlib
import re
import textwrap

import pytest
import torch

import zolib as zo

PAGE = (pathlib.Path(__file__).parents[1] / "CONTRIBUTING.md").read_text()


@pytest.fixture
def sparse():
    (example,) = (b for b in re.findall(r"  ```python\n(.*?)  ```", PAGE, flags=re.DOTALL) if "Method(" in b)
    source = textwrap.dedent(example)
    assert len([line for line in source.splitlines() if line.strip()]) < 30
    names = {"__name__": "example"}
    exec(compile(source, "CONTRIBUTING.md", "exec"), names)
    return names["sparse"]


def test_its_estimate_has_slope_one(sparse):
    gradient = torch.linspace(-1, 2, 8, dtype=torch.float64)
    g = zo.grad(lambda x: (gradient * x).sum(), probe=sparse.probe, samples=40_000, sigma=0.1, seed=0)
    estimate = g(torch.zeros(8, dtype=torch.float64))
    # one sample has a second moment below 4 (d + 2) |g|^2, so the mean of 40,000 scatters by 3 %; four times that
    assert ((estimate - gradient).norm() / gradient.norm()) < 4 * (4 * 10 / 40_000) ** 0.5


def test_it_trains(sparse):
    model = torch.nn.Linear(4, 1)
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    run = sparse.start(lambda: (model(x) - x.sum(dim=1, keepdim=True)).square().mean(), model, lr=0.05)
    losses = [run.step().item() for _ in range(200)]
    assert losses[-1] < 0.2 * losses[0]
