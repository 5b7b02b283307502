"""Synapses that release by chance.  That their mean step is a gradient is tested in test_diagonal.py."""

import pytest
import torch

import zolib as zo
from zolib.rules import Release


def test_a_step_by_hand(seed):
    """q <- q + lr (R - expected) (r - p), with the release r read off the weights."""
    theta = torch.tensor([0.6, -0.3, 0.9], dtype=torch.float64)
    rule = Release([theta], lr=0.5, probability=0.3, rate=0.25, seed=seed)
    q, w, expected = torch.full((3,), 0.3, dtype=torch.float64).logit(), torch.tensor([2.0, -1.0, 3.0]), 1.0
    for reward in (1.0, 4.0, -2.0, 0.5):
        released = (theta != 0).double()
        assert torch.allclose(theta, w * released)
        q += 0.5 * (reward - expected) * (released - q.sigmoid())
        expected += 0.25 * (reward - expected)
        rule.step(reward)
        assert torch.allclose(rule.probability(theta), q.sigmoid())
        assert torch.allclose(rule.mean(theta), w * q.sigmoid())
        assert rule.expected.item() == pytest.approx(expected)


def test_releases_are_as_frequent_as_they_should_be_and_independent(seed, half_width):
    theta = torch.full((20_000, 2), 0.25, dtype=torch.float64)
    Release([theta], lr=0.0, probability=torch.tensor([0.25, 0.5]), seed=seed)
    released = (theta > 0).double()
    both = torch.cat([released, released.prod(1, keepdim=True)], dim=1)
    assert (abs(both.mean(0) - torch.tensor([0.25, 0.5, 0.125])) <= half_width(both, 3)).all()


def test_the_same_seed_releases_the_same(seed):
    found = [torch.ones(50) for _ in range(3)]
    for theta, s in zip(found, (seed, seed, seed + 1), strict=True):
        Release([theta], lr=0.1, seed=s).step(1.0)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"lr": -1.0}, ValueError, "lr must be a step of at least 0"),
        ({"lr": 1.0, "rate": 2}, ValueError, "rate must lie in"),
        ({"lr": 1.0, "probability": 1.0}, ValueError, "probability must lie between 0 and 1"),
    ],
)
def test_refusals(settings, error, words):
    theta = torch.ones(2)
    with pytest.raises(error, match=words):
        Release([theta], **settings)
    assert torch.equal(theta, torch.ones(2))


def test_integers_and_nothing_are_refused():
    for params in ([], [torch.ones(2, dtype=torch.int64)]):
        with pytest.raises(TypeError, match="params must be tensors of float32 or float64"):
            Release(params, lr=1.0)


def test_after_a_refused_reward_all_is_as_before(seed):
    theta = torch.ones(4, 3)
    rule = Release([theta], lr=0.5, seed=seed)
    rule.step(torch.arange(4.0))
    before = theta.clone(), rule.probability(theta), rule.expected.clone()
    with pytest.raises(zo.LossError, match="not finite"):
        rule.step(torch.tensor([1.0, 2.0, 3.0, float("nan")]))
    for wrong in (torch.ones(3), torch.ones(4, 3), 1.0):
        with pytest.raises(ValueError, match="reward has"):
            rule.step(wrong)
    with pytest.raises(ValueError, match="one of the parameters"):
        rule.mean(torch.ones(4, 3))
    assert torch.equal(theta, before[0]) and torch.equal(rule.probability(theta), before[1])
    assert torch.equal(rule.expected, before[2])


def test_fitness_is_prices_covariance_and_needs_two(generator):
    losses = torch.randn(7, 1, generator=generator, dtype=torch.float64)
    z = torch.randn(7, generator=generator, dtype=torch.float64)
    w = (-losses[:, 0]).exp()
    step = -(zo.Fitness().coefficients(losses, None, 0.3) * z).mean() * 0.3
    assert step.item() == pytest.approx((torch.cov(torch.stack([w, z]))[0, 1] / w.mean()).item())
    far = zo.Fitness().coefficients(losses + 5000, None, 0.3)
    assert torch.allclose(far, zo.Fitness().coefficients(losses, None, 0.3)), "no overflow, and only ratios count"
    with pytest.raises(ValueError, match="samples=1: Fitness compares evaluations"):
        zo.grad(torch.sum, feedback=zo.Fitness(), samples=1, seed=0)(torch.ones(2))
