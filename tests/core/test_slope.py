"""Slope 1: the mean of an estimate against the true gradient, for every probe, feedback, precision and kind of input.

Each case has 64 independent estimates.  The family-wise level is 99.9 % over all cases, so a false alarm in this file
would be seen once in a thousand choices of its seeds, and its seeds come from the tests' names.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zolib as zo

PROBES = [zo.Gaussian(), zo.Rademacher(), zo.Sphere(), zo.Coordinate()]
FEEDBACKS = [zo.TwoPoint(), zo.OneSided()]
DTYPES = [torch.float64, torch.float32, torch.bfloat16]
KINDS = ["flat", "tree", "module"]
FAMILY = len(PROBES) * len(FEEDBACKS) * len(DTYPES) * (1 + 1 + 6)  # a module has six parameters, each tested
REPLICATES, SAMPLES = 64, 128
SIGMA = {torch.float64: 1e-4, torch.float32: 1e-2, torch.bfloat16: 1e-2}

cases = pytest.mark.parametrize(
    ("probe", "feedback", "dtype"),
    [(p, f, t) for p in PROBES for f in FEEDBACKS for t in DTYPES],
    ids=lambda c: str(c).removeprefix("torch.").removesuffix("()"),
)


def objective(x):
    """Curved, not even, in float64 whatever the input."""
    x = x.double()
    weights = torch.linspace(-1, 2, x.numel(), dtype=torch.float64).view_as(x)
    return (weights * torch.sin(x + 0.3)).sum() + 0.25 * x.square().sum()


def assert_slope_one(estimates, true, half_width, bias):
    """estimates (replicates, d), true (d,).  Tests the slope of their mean against the true gradient."""
    slopes = (estimates.double() @ true.double()) / true.double().square().sum()
    error = abs(slopes.mean().item() - 1)
    assert error <= half_width(slopes, FAMILY).item() + bias, f"slope {slopes.mean().item():.4f}"


@cases
@pytest.mark.parametrize("kind", ["flat", "tree"])
def test_grad_has_slope_one(kind, probe, feedback, dtype, seed, generator, half_width):
    x = torch.randn(14, dtype=torch.float64, generator=generator).to(dtype)
    shapes = {"flat": lambda v: v, "tree": lambda v: {"a": (v[:4].view(2, 2), v[4:5].view(())), "b": [v[5:]]}}[kind]
    leaves = {"flat": lambda t: [t], "tree": lambda t: [t["a"][0], t["a"][1], t["b"][0]]}[kind]

    def f(tree):
        return objective(torch.cat([leaf.flatten() for leaf in leaves(tree)]))

    true = torch.func.grad(objective)(x.double())
    samples = 7 if isinstance(probe, zo.Coordinate) else SAMPLES
    g = zo.grad(f, probe=probe, feedback=feedback, samples=samples, sigma=SIGMA[dtype], seed=seed)
    rows = [torch.cat([leaf.flatten() for leaf in leaves(g(shapes(x), step=step))]) for step in range(REPLICATES)]
    assert all(row.dtype == dtype for row in rows)
    # what sigma itself costs: sigma/2 z'Hz with Coordinate one-sided (H of order 1), else of order d sigma^2
    bias = (
        SIGMA[dtype]
        if isinstance(feedback, zo.OneSided) and isinstance(probe, zo.Coordinate)
        else 14 * SIGMA[dtype] ** 2
    )
    assert_slope_one(torch.stack(rows), true, half_width, bias)


class Net(nn.Module):
    """wide: activations in float32 whatever the weights."""

    def __init__(self, wide=False):
        super().__init__()
        self.inner, self.norm, self.outer = nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3)
        self.wide = wide

    def forward(self, x):
        if not self.wide:
            return self.outer(torch.tanh(self.norm(self.inner(x))))
        a, n, b = ([p.float() for p in layer.parameters()] for layer in (self.inner, self.norm, self.outer))
        return F.linear(torch.tanh(F.layer_norm(F.linear(x.float(), *a), (6,), *n)), *b)


@cases
def test_backward_has_slope_one_for_each_parameter(probe, feedback, dtype, seed, generator, half_width):
    coordinate = isinstance(probe, zo.Coordinate)
    # A bfloat16 forward pass is a staircase. Directions that shake everything cross its steps at random; a single
    # coordinate may cross none, so there only the weights are in bfloat16
    net = Net(wide=dtype == torch.bfloat16 and coordinate)
    x = torch.randn(16, 5, generator=generator).to(dtype)
    y = torch.randint(3, (16,), generator=generator)
    for p in net.parameters():
        p.data = p.data.new_empty(p.shape).normal_(0, 0.4, generator=generator) + (p is net.norm.weight)
    net.to(dtype)
    reference = Net().double()
    reference.load_state_dict(net.state_dict())
    F.cross_entropy(reference(x.double()), y).backward()

    def closure():
        return F.cross_entropy(net(x).double(), y)

    samples = 36 if coordinate else SAMPLES  # of 69
    rows = []
    for step in range(REPLICATES):
        zo.backward(
            closure, net, probe=probe, feedback=feedback, samples=samples, sigma=SIGMA[dtype], seed=seed, step=step
        )
        rows.append([p.grad for p in net.parameters()])
        net.zero_grad()
    bias = (
        4 * SIGMA[dtype]
        if isinstance(feedback, zo.OneSided) and isinstance(probe, zo.Coordinate)
        else 69 * SIGMA[dtype] ** 2
    )
    if dtype == torch.bfloat16:
        bias += 0.02  # the forward pass itself rounds to 8 bits
    for row, p in zip(zip(*rows, strict=True), reference.parameters(), strict=True):
        assert_slope_one(torch.stack([r.flatten() for r in row]), p.grad.flatten(), half_width, bias)
