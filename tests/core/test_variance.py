"""Second moments against their formulas, and the estimate against a hand-made sum over the same directions."""

import pytest
import torch

import zolib as zo
from zolib.directions import Directions
from zolib.noise import stream
from zolib.probes import Target

D = 4


def second_moment(probe, d, k):
    """E|g_hat|^2 / |g|^2 for k samples as sigma goes to 0."""
    return {
        zo.Gaussian: (d + k + 1) / k,
        zo.Rademacher: (d + k - 1) / k,
        zo.Sphere: (d + k - 1) / k,
        zo.Coordinate: d / k,
    }[type(probe)]


PROBES = [zo.Gaussian(), zo.Rademacher(), zo.Sphere(), zo.Coordinate()]
FAMILY = 2 * 3 * len(PROBES)


def directions(probe, seed, step, samples, sizes=(3, 1)):
    targets, offset = [], 0
    for number, size in enumerate(sizes):
        targets.append(Target(number, offset, str(number), torch.zeros(size)))
        offset += size
    drawn = Directions(probe, targets, seed, step, samples)
    drawn(0, 0)
    rows = [torch.cat([drawn(k, j) for j in range(len(sizes))]) for k in range(samples)]
    return torch.stack(rows).double()  # (samples, d)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("probe", PROBES, ids=lambda p: type(p).__name__)
def test_second_moment_of_the_estimate(probe, k, seed, half_width):
    gradient = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    if isinstance(probe, zo.Coordinate):  # without replacement: only the samples of one step belong together
        z = torch.stack([directions(probe, seed, step, k) for step in range(4000)])
    else:
        z = directions(probe, seed, 0, 40_000 * k).view(-1, k, D)
    estimates = (probe.weight(D) * (z @ gradient).unsqueeze(-1) * z).mean(dim=1)
    ratio = estimates.square().sum(dim=1) / gradient.square().sum()
    assert abs(ratio.mean().item() - second_moment(probe, D, k)) <= half_width(ratio, FAMILY).item() + 1e-12
    mean = estimates.mean(dim=0)
    assert (mean - gradient).abs().le(half_width(estimates, FAMILY * D) + 1e-12).all()


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: type(p).__name__)
def test_directions_have_the_identity_for_covariance(probe, seed, half_width):
    if isinstance(probe, zo.Coordinate):
        z = torch.cat([directions(probe, seed, step, 1) for step in range(4000)])
    else:
        z = directions(probe, seed, 0, 40_000)
    outer = probe.weight(D) * z.unsqueeze(2) * z.unsqueeze(1)
    error = (outer.mean(dim=0) - torch.eye(D, dtype=torch.float64)).abs()
    assert (error <= half_width(outer, len(PROBES) * D * D) + 1e-12).all()


def test_sphere_directions_have_radius_sqrt_d_over_all_parameters_together():
    z = directions(zo.Sphere(), 1, 0, 200, sizes=(5, 2, 30))
    assert torch.allclose(z.square().sum(dim=1), torch.full((200,), 37.0, dtype=torch.float64), rtol=1e-6)
    assert z[:, :5].square().sum(dim=1).std() > 0.1, "no single parameter is normalised by itself"


@pytest.mark.parametrize("feedback", [zo.TwoPoint(), zo.OneSided()], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("probe", PROBES, ids=lambda p: type(p).__name__)
def test_the_estimate_is_the_sum_it_says_it_is(probe, feedback, seed):
    """Exactly: any constant in the estimator that changes is seen here."""
    d, k, sigma = 6, 4, 0.3
    x = torch.linspace(-1, 1, d, dtype=torch.float64)

    def f(v):
        return v.pow(3).sum() + (v[0] * v[1]).exp()

    z = directions(probe, seed, 2, k, sizes=(d,))
    if isinstance(feedback, zo.TwoPoint):
        slopes = torch.stack([(f(x + sigma * row) - f(x - sigma * row)) / (2 * sigma) for row in z])
    else:
        slopes = torch.stack([(f(x + sigma * row) - f(x)) / sigma for row in z])
    weight = d if isinstance(probe, zo.Coordinate) else 1
    expected = weight * (slopes.unsqueeze(1) * z).mean(dim=0)
    estimate = zo.grad(f, probe=probe, feedback=feedback, samples=k, sigma=sigma, seed=seed)(x, step=2)
    assert torch.allclose(estimate, expected, rtol=1e-12, atol=1e-14)


def test_gaussian_and_sign_directions_are_the_stream_itself():
    for probe, law in [(zo.Gaussian(), stream.NORMAL), (zo.Rademacher(), stream.SIGN)]:
        a, b = stream.draw(law, 9, 3, range(5), [(0, 3), (1, 1)])
        assert torch.equal(directions(probe, 9, 3, 5), torch.cat([a, b], dim=1).double())


@pytest.mark.parametrize("probe", PROBES, ids=lambda p: type(p).__name__)
def test_large_parameters_are_drawn_one_at_a_time_with_the_same_values(probe, monkeypatch):
    together = directions(probe, 4, 1, 5, sizes=(7, 1, 9))
    monkeypatch.setattr("zolib.directions.CHUNK", 3)
    assert torch.equal(directions(probe, 4, 1, 5, sizes=(7, 1, 9)), together)


def test_all_coordinates_give_the_full_difference_quotient():
    x = torch.linspace(-2, 2, 17, dtype=torch.float64)
    estimate = zo.grad(lambda v: v.pow(3).sum(), probe="coordinate", samples=17, sigma=0.01, seed=1)(x)
    assert torch.allclose(estimate, 3 * x**2 + 0.01**2, rtol=1e-9)  # the central difference of a cube, exactly
