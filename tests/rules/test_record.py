"""The program behind the record of chapter 13: what its learners remember, beside the gradient and the theory."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    yield pytest.importorskip("reward_modulated")
    sys.modules.pop("reward_modulated", None)


def remembered(program, row, seed, learners, sigma):
    """(nets, observation, actions, eligibility of each layer): identical learners, each with its own chance."""
    random = np.random.default_rng(seed)
    nets = program.Nets(row.sizes, 1, random)
    nets.weights = [np.repeat(w, learners, axis=0) for w in nets.weights]
    x = np.repeat(random.standard_normal((1, row.sizes[0]), dtype=np.float32), learners, axis=0)
    action, posts, inputs = program.act(row, nets, x, np.full((learners, 1), sigma, np.float32), random)
    return nets, x, action, [p[:, :, None] * i[:, None, :] for p, i in zip(posts, inputs, strict=True)]


def scores(nets, x):
    """Gradient of the log-probability of each action, by torch: one flat vector for each."""
    weights = [torch.tensor(w[0], dtype=torch.float64, requires_grad=True) for w in nets.weights]
    h = torch.tensor(x[0], dtype=torch.float64)
    for k, w in enumerate(weights):
        h = w @ (torch.nn.functional.leaky_relu(h, 0.1) if k else h)
    return [
        torch.cat([g.flatten() for g in torch.autograd.grad(v, weights, retain_graph=True)])
        for v in torch.log_softmax(h, 0)
    ]


def flat(eligibility):
    return torch.from_numpy(np.concatenate([e.reshape(len(e), -1) for e in eligibility], axis=1)).double()


@pytest.mark.parametrize("sizes", [(4, 6, 2), (6, 5, 4, 3)])
def test_backpropagation_is_torchs(program, sizes, seed):
    nets, x, action, found = remembered(program, program.Row("bp", [], sizes=sizes), seed, 8, 0.0)
    for e, a in zip(flat(found), action, strict=True):
        assert torch.allclose(e, scores(nets, x)[a], atol=1e-5)


def test_nrl_estimates_the_score_of_the_action(program, seed, half_width):
    nets, x, action, found = remembered(program, program.Row("nrl", [], sizes=(4, 6, 2)), seed, 40_000, 0.01)
    exact = torch.stack(scores(nets, x))[torch.from_numpy(action)]
    rows = (flat(found) * exact).sum(1) / exact.square().sum(1)
    assert abs(rows.mean() - 1) <= half_width(rows, 2) + 0.01


def test_noise_that_acts_is_remembered_in_units_of_a_gradient(program, seed, half_width):
    """Rewarded by a linear function of the last sums, the mean is its derivative by the weights."""
    sigma, row = 0.05, program.Row("rmhl", [], sizes=(4, 3), greedy=True)
    nets, x, action, found = remembered(program, row, seed, 40_000, sigma)
    noise = found[0][:, :, 0] / x[0, 0] * sigma  # z
    assert (action == ((nets.weights[0] @ x[:, :, None])[:, :, 0] + sigma * noise).argmax(1)).mean() > 0.999
    told = torch.from_numpy(sigma * noise[:, 0]).double()  # the reward is the first sum
    exact = torch.zeros(3, 4, dtype=torch.float64)
    exact[0] = torch.from_numpy(x[0])
    rows = (told[:, None] * flat(found)) @ exact.flatten() / exact.square().sum()
    assert abs(rows.mean() - 1) <= half_width(rows, 2)
