"""Low-rank and orthogonal probes; rewards against an expectation, ranks, z-scores and utilities."""

import math

import pytest
import torch
from torch import nn

import zolib as zo
from zolib.directions import Directions
from zolib.probes import Target

GRADIENT = torch.linspace(-1, 2, 12, dtype=torch.float64).view(3, 4)
LOW_RANK = [(1, (3 + 2) * (4 + 2)), (1000, 3 * 4 + 2)]  # rank, second moment; of high rank it is that of a Gaussian


def linear(x):
    """Gradient GRADIENT; the value at zero is not zero."""
    return (GRADIENT * x).sum() + 0.7


def draws(probe, samples, seed, shape=(3, 4)):
    """(samples, numel) directions of one parameter."""
    directions = Directions(probe, [Target(0, 0, "x", torch.zeros(shape))], seed, 0, samples)
    return torch.stack([directions(k, 0) for k in range(samples)]).flatten(1).double()


@pytest.mark.parametrize(("rank", "moment"), LOW_RANK)
def test_low_rank_directions_have_the_identity_for_covariance_and_their_second_moment(rank, moment, seed, half_width):
    z = draws(zo.LowRank(rank), 40_000 if rank == 1 else 4000, seed)
    outer = z.unsqueeze(2) * z.unsqueeze(1)
    assert ((outer.mean(dim=0) - torch.eye(12)).abs() <= half_width(outer, 288)).all()
    g = GRADIENT.flatten() / GRADIENT.norm()
    squares = (z @ g).square() * z.square().sum(dim=1)
    assert abs(squares.mean() - moment) <= half_width(squares, 2)


def test_low_rank_directions_have_that_rank_and_vectors_are_full(seed):
    for rank in (1, 2):
        z = draws(zo.LowRank(rank), 5, seed, shape=(6, 5)).view(5, 6, 5)
        assert torch.linalg.matrix_rank(z, rtol=1e-5).tolist() == [rank] * 5
    kernels = draws(zo.LowRank(1), 5, seed, shape=(6, 2, 2)).view(5, 6, 4)
    assert torch.linalg.matrix_rank(kernels, rtol=1e-5).tolist() == [1] * 5
    assert torch.equal(draws(zo.LowRank(2), 5, seed, shape=(30,)), draws(zo.Gaussian(), 5, seed, shape=(30,)))


@pytest.mark.parametrize("block", [1, 4, 12])
def test_orthogonal_directions_are_orthogonal_and_uniform(block, seed, half_width):
    z = draws(zo.Orthogonal(block), 4800, seed)
    gram = z.view(-1, block, 12) @ z.view(-1, block, 12).mT
    assert torch.allclose(gram, 12 * torch.eye(block, dtype=torch.float64).expand_as(gram), atol=1e-4)
    outer = z.unsqueeze(2) * z.unsqueeze(1)
    assert ((outer.mean(dim=0) - torch.eye(12)).abs() <= half_width(outer, 3 * 144) + 1e-6).all()
    g = GRADIENT.flatten()
    estimates = ((z @ g).unsqueeze(1) * z).view(-1, block, 12).mean(dim=1)
    ratio = estimates.square().sum(dim=1) / g.square().sum()
    assert abs(ratio.mean() - 12 / block) <= half_width(ratio, 3) + 1e-6


def test_a_whole_block_of_orthogonal_directions_is_the_gradient():
    estimate = zo.grad(linear, probe=zo.Orthogonal(12), samples=12, sigma=0.1, seed=0)(torch.zeros_like(GRADIENT))
    assert torch.allclose(estimate, GRADIENT, atol=1e-6)


def test_orthogonal_values_do_not_depend_on_how_many_are_drawn(monkeypatch):
    some = draws(zo.Orthogonal(4), 6, 0)
    assert torch.equal(draws(zo.Orthogonal(4), 9, 0)[:6], some)
    monkeypatch.setattr("zolib.directions.CHUNK", 5)
    assert torch.allclose(draws(zo.Orthogonal(4), 6, 0), some, atol=1e-6)


@pytest.mark.parametrize("probe", [zo.Gaussian(), zo.LowRank(), zo.Orthogonal(4)], ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("feedback", [zo.TwoPoint, zo.OneSided, zo.RewardPredictionError], ids=lambda f: f.__name__)
def test_slope_one(probe, feedback, seed, half_width):
    feedback = feedback()
    g = zo.grad(linear, probe=probe, feedback=feedback, samples=64, sigma=0.5, seed=seed)
    estimates = torch.stack([g(torch.zeros_like(GRADIENT), step=step) for step in range(64)])
    slopes = (estimates * GRADIENT).sum(dim=(1, 2)) / GRADIENT.square().sum()
    assert abs(slopes.mean() - 1) <= half_width(slopes, 9)


def test_a_reward_prediction_error_is_what_it_says():
    feedback = zo.RewardPredictionError(rate=0.25)
    losses = torch.tensor([[1.0], [2.0], [6.0]], dtype=torch.float64)
    first = feedback.coefficients(losses, None, sigma=0.5)
    assert torch.allclose(first, torch.tensor([1 - 4.0, 2 - 3.5, 6 - 1.5]).double() / 0.5), "against the others' mean"
    second = feedback.coefficients(losses + 4, None, sigma=0.5)
    assert torch.allclose(second, (losses[:, 0] + 4 - 3) / 0.5)
    assert feedback.expected == 3 + 0.25 * 4


def test_with_a_loss_per_example_the_expectation_is_one_number():
    feedback = zo.RewardPredictionError(rate=0.5)
    losses = torch.tensor([[1.0, 2.0, 3.0], [2.0, 4.0, 12.0]], dtype=torch.float64).unsqueeze(1)  # (K, 1, B)
    first = feedback.coefficients(losses, None, sigma=0.5)
    total = losses.sum()
    assert torch.allclose(first, (losses[:, 0] - (total - losses[:, 0]) / 5) / 0.5), "against all the others"
    assert feedback.expected == 4 and feedback.expected.ndim == 0
    other = torch.full((1, 1, 7), 5.0, dtype=torch.float64)  # a batch of another size
    assert torch.allclose(feedback.coefficients(other, None, sigma=0.5), torch.full((1, 7), 2.0).double())
    assert feedback.expected == 4.5
    alone = zo.RewardPredictionError()
    assert alone.coefficients(torch.full((1, 1), 3.0), None, sigma=0.5).tolist() == [0.0] and alone.expected == 3


def test_an_expectation_over_changing_batches_costs_no_bias(seed, generator, half_width):
    """Node noise, one evaluation a step, batches whose size and losses change: slope 1 onto each step's gradient."""
    layer = nn.Linear(3, 2)
    feedback, slopes = zo.RewardPredictionError(), []
    for step in range(400):
        x = torch.randn(2 + step % 5, 3, generator=generator) + (step % 3)
        layer.zero_grad()
        zo.backward(
            lambda x=x: layer(x).square().sum(dim=1),
            layer,
            probe="nodes",
            feedback=feedback,
            sigma=0.3,
            seed=seed,
            step=step,
        )
        found = layer.weight.grad.clone()
        layer.zero_grad()
        layer(x).square().sum(dim=1).mean().backward()
        slopes.append((found * layer.weight.grad).sum() / layer.weight.grad.square().sum())
    slopes = torch.stack(slopes)
    assert half_width(slopes, 1) < 1 and abs(slopes.mean() - 1) <= half_width(slopes, 1)


def test_a_refused_step_leaves_the_expectation_alone():
    feedback = zo.RewardPredictionError()
    zo.grad(linear, feedback=feedback, samples=4, seed=0)(torch.zeros_like(GRADIENT))
    expected = feedback.expected.clone()
    with pytest.raises(zo.LossError):
        zo.grad(lambda x: linear(x) * float("nan"), feedback=feedback, seed=0)(torch.zeros_like(GRADIENT))
    assert torch.equal(feedback.expected, expected)


@pytest.mark.parametrize("antithetic", [True, False])
def test_ranks_are_unmoved_by_increasing_maps_and_z_scores_by_units(antithetic, seed):
    x = torch.zeros_like(GRADIENT)
    increasing = [zo.Ranks(antithetic), zo.Utilities(antithetic)]
    for feedback, change in [*((f, torch.exp) for f in increasing), (zo.ZScores(antithetic), lambda v: 5 * v - 3)]:
        plain, changed = (
            zo.grad(f, feedback=feedback, samples=20, sigma=0.1, seed=seed)(x)
            for f in (linear, lambda v, change=change: change(linear(v)))
        )
        assert torch.allclose(plain, changed, rtol=1e-6)
        many = zo.grad(linear, feedback=feedback, samples=4000, sigma=0.1, seed=seed)(x)
        assert torch.cosine_similarity(many.flatten(), GRADIENT.flatten(), dim=0) > 0.99
        assert abs(many.norm() / GRADIENT.norm() - 1) > 0.05, "a direction, not a gradient"
        assert feedback.scale == "direction"


def test_ranks_of_known_losses_and_ties():
    assert zo.Ranks().shaped(torch.tensor([3.0, 1.0, 2.0])).tolist() == [0.5, -0.5, 0.0]
    assert zo.Ranks().shaped(torch.tensor([1.0, 1.0, 5.0])).tolist() == [-0.25, -0.25, 0.5]
    assert zo.ZScores().shaped(torch.ones(4)).tolist() == [0.0] * 4


def test_utilities_are_those_of_natural_evolution_strategies():
    losses = torch.tensor([3.0, 1.0, 7.0, 2.0, 5.0, 4.0], dtype=torch.float64)
    raw = [max(0.0, math.log(6 / 2 + 1) - math.log(k)) for k in range(1, 7)]  # best first
    u = [r / sum(raw) - 1 / 6 for r in raw]
    assert sum(u) == pytest.approx(0) and u[3:] == pytest.approx([-1 / 6] * 3), "only the better half counts"
    places = [3, 1, 6, 2, 5, 4]
    found = zo.Utilities().shaped(losses)
    assert found.tolist() == pytest.approx([-6 * u[k - 1] for k in places])
    assert zo.Utilities().coefficients(losses.view(6, 1), None, 0.5).tolist() == pytest.approx((found / 0.5).tolist())
    assert zo.Utilities().shaped(torch.ones(4)).tolist() == pytest.approx([0.0] * 4)
    each = torch.stack([losses, -losses], dim=1)
    assert torch.allclose(zo.Utilities().shaped(each)[:, 0], found), "each example by itself"


def test_wrong_use_is_refused():
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="samples=1: Ranks compares evaluations"):
        zo.grad(torch.sum, feedback=zo.Ranks(antithetic=False), samples=1, seed=0)(x)
    with pytest.raises(ValueError, match="remembers earlier steps"):
        zo.backward(lambda: x.sum(), [x], feedback="reward-prediction-error")
    with pytest.raises(ValueError, match="rank must be"):
        zo.LowRank(0)
    with pytest.raises(ValueError, match="block=8 directions cannot be orthogonal in 6"):
        zo.grad(torch.sum, probe="orthogonal", seed=0)(x)
    with pytest.raises(ValueError, match=r"rate must lie in \(0, 1\]"):
        zo.RewardPredictionError(0)
    with pytest.raises(ValueError, match="Did you mean 'z-scores'"):
        zo.grad(torch.sum, feedback="z-score")


@pytest.mark.parametrize("probe", ["low-rank", zo.Orthogonal(4)])
@pytest.mark.parametrize("feedback", ["ranks", "z-scores", "utilities", "reward-prediction-error"])
def test_backward_trains_with_every_part(probe, feedback, generator):
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    x = torch.randn(64, 4, generator=generator)
    y = (x[:, 0] > 0).long()
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    made = zo.RewardPredictionError() if feedback == "reward-prediction-error" else feedback
    losses = []
    for step in range(150):
        optimizer.zero_grad()
        loss = zo.backward(
            lambda: nn.functional.cross_entropy(net(x), y),
            net,
            probe=probe,
            feedback=made,
            samples=8,
            sigma=0.02,
            seed=step,
        )
        losses.append(loss.item())
        optimizer.step()
    assert losses[-1] < 0.7 * losses[0]
