"""What the hardware tests share, beside the seeds of all tests."""

import math

import pytest
import torch
from torch import nn

from zolib import hardware as H

DRAWS = 200_000


def within_five(values, mean=None, variance=None):
    """Sampled mean and variance lie within five standard errors of what they should be."""
    x = values.double().flatten()
    centred = x - x.mean()
    if mean is not None:
        error = (x.mean() - mean).abs().item()
        rounding = 1e-12 * abs(mean)  # of values that are all alike
        assert error <= 5 * x.std().item() / math.sqrt(len(x)) + rounding, (
            f"mean {x.mean().item():.6g}, should be {mean:.6g}"
        )
    if variance is not None:
        spread = (centred.pow(4).mean() - centred.square().mean() ** 2).clamp(min=0).sqrt().item()
        error = (x.var() - variance).abs().item()
        assert error <= 5 * spread / math.sqrt(len(x)), f"variance {x.var().item():.6g}, should be {variance:.6g}"


@pytest.fixture(autouse=True)
def weights(seed):
    """Layers that a test makes start from weights of its own seed, and the global generator is given back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@pytest.fixture(name="within_five")
def within_five_fixture():
    return within_five


@pytest.fixture
def cells(seed):
    """A function: stages to an array of cells, programmed to one target (microsiemens)."""

    def make(*stages, target=10.0, shape=(DRAWS,), **settings):
        array = H.Chip(stages, seed=seed, **settings).cells(*shape)
        array.program(torch.tensor(target))
        return array

    return make


@pytest.fixture
def outputs(seed):
    """A function: stages and inputs to what a layer with given weights (out, in) reads, and the layer."""

    def make(x, w, *stages, **settings):
        layer = nn.Linear(w.shape[1], w.shape[0], bias=False)
        layer.weight.data.copy_(w)
        hw = H.deploy(layer, H.Chip(stages, seed=seed, **settings))
        with torch.no_grad():
            return hw(x), hw

    return make


@pytest.fixture
def stage_kinds():
    """Every stage class that users can name."""
    return {k for k in vars(H).values() if isinstance(k, type) and issubclass(k, H.Stage) and k is not H.Stage}
