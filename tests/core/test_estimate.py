"""An estimate is a list of seeds and coefficients: it adds, scales, travels, and becomes dense only when asked."""

import json

import pytest
import torch
from torch import nn

import zolib as zo
from zolib.estimates import Dense


@pytest.fixture
def problem(generator):
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    x = torch.randn(8, 3, generator=generator)
    return net, lambda: net(x).square().mean()


PROBES = ["gaussian", "rademacher", "sphere", "coordinate", zo.LowRank(2), zo.Orthogonal(3)]


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_it_is_what_backward_adds(problem, probe, seed):
    net, closure = problem
    estimate = zo.estimate(closure, net, probe=probe, samples=5, seed=seed)
    assert all(p.grad is None for p in net.parameters())
    loss = zo.backward(closure, net, probe=probe, samples=5, seed=seed)
    assert torch.equal(estimate.loss, loss)
    for (parameter, g), p in zip(estimate.gradients(), net.parameters(), strict=True):
        assert parameter is p and torch.equal(g, p.grad)


@pytest.mark.parametrize("probe", PROBES, ids=str)
def test_it_survives_json(problem, probe, seed):
    net, closure = problem
    estimate = zo.estimate(closure, net, probe=probe, samples=5, seed=seed, step=3)
    text = json.dumps(estimate.to_dict())
    again = zo.Replay.from_dict(json.loads(text), estimate.targets)
    assert all(torch.equal(a, b) for a, b in zip(estimate.dense(), again.dense(), strict=True))


def test_its_size_does_not_grow_with_the_model():
    sizes = []
    for width in (4, 400):
        x = torch.zeros(width)
        sizes.append(len(json.dumps(zo.estimate(lambda x=x: x.mean(), [x], samples=4, seed=0).to_dict())))
    assert abs(sizes[0] - sizes[1]) < 100


def test_sums_multiples_and_means(problem):
    net, closure = problem
    one, two = (zo.estimate(closure, net, samples=3, seed=seed) for seed in (1, 2))
    mean = 0.5 * (one + two)
    for g, a, b in zip(mean.dense(), one.dense(), two.dense(), strict=True):
        assert torch.allclose(g, (a + b) / 2, atol=1e-6)
    assert len(mean.terms) == 2
    both = zo.Replay.from_dict(mean.to_dict(), mean.targets)
    assert all(torch.equal(a, b) for a, b in zip(both.dense(), mean.dense(), strict=True))


def test_many_workers_that_share_the_samples_add_up(problem):
    """The terms of one step in two halves: what two processes would exchange."""
    net, closure = problem
    whole = zo.estimate(closure, net, samples=4, seed=0)
    directions, coefficients = whole.terms[0]
    halves = [
        zo.Replay([(directions, [c if k % 2 == rank else 0.0 for k, c in enumerate(coefficients)])]) for rank in (0, 1)
    ]
    for g, expected in zip((halves[0] + halves[1]).dense(), whole.dense(), strict=True):
        assert torch.allclose(g, expected, atol=1e-7)


def test_what_does_not_fit_is_refused(problem):
    net, closure = problem
    estimate = zo.estimate(closure, net, samples=2, seed=0)
    x = torch.zeros(3)
    other = zo.estimate(lambda: x.sum(), [x], samples=2, seed=0)
    with pytest.raises(ValueError, match="different parameters"):
        estimate + other
    with pytest.raises(TypeError):
        estimate + 1
    record = estimate.to_dict()
    with pytest.raises(ValueError, match="other places or shapes"):
        zo.Replay.from_dict(record, other.targets)
    with pytest.raises(ValueError, match="stream version 0"):
        zo.Replay.from_dict({**record, "stream": 0}, estimate.targets)
    record["terms"][0]["probe"] = ["Laplace", {}]
    with pytest.raises(ValueError, match="'Laplace' is not known"):
        zo.Replay.from_dict(record, estimate.targets)


def test_a_dense_estimate_accumulates_too():
    p = nn.Parameter(torch.zeros(2))
    Dense([(p, torch.ones(2))]).accumulate()
    Dense([(p, torch.ones(2))]).accumulate()
    assert p.grad.tolist() == [2.0, 2.0]
