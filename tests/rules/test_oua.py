"""Ornstein-Uhlenbeck adaptation: its process, its rate, its optimum, and what it refuses."""

import copy
import math

import pytest
import torch

import zolib as zo
from zolib.rules import OUA

FAMILY = 12


def replicas(count, start=0.0):
    return torch.full((count,), start, dtype=torch.float64).requires_grad_()


def test_the_weights_are_a_stationary_ou_process(seed, half_width):
    """Variance sigma^2 / 2 lambda, autocorrelation exp(-lambda tau), exact at a coarse step."""
    theta = replicas(4000)
    oua = OUA([theta], lr=0.0, sigma=0.7, decay=2.0, baseline_rate=0.5, dt=0.3, seed=seed)
    for _ in range(25):  # exp(-2 * 2 * 7.5): forgotten
        oua.step(0.0)
    before = theta.detach().clone()
    for _ in range(2):
        oua.step(0.0)
    variance, product = theta.detach().square(), theta.detach() * before
    assert abs(variance.mean() - 0.49 / 4) <= half_width(variance, FAMILY)
    assert abs(product.mean() - 0.49 / 4 * math.exp(-2.0 * 0.6)) <= half_width(product, FAMILY)
    assert torch.equal(oua.mean(theta), torch.zeros(4000, dtype=torch.float64)), "without a rate the mean stays"


@pytest.mark.parametrize("rho", [0.1, 1.0, 4.0])
def test_the_mean_climbs_at_the_predicted_rate(rho, seed, half_width):
    """E d mu/dt = eta sigma^2 / 2(lambda + rho) grad r, in discrete time sigma^2/2lambda (1-b)/(1-ab) grad r."""
    lam, sigma, dt, slope = 1.5, 0.6, 0.05, 0.8
    theta = replicas(4000)
    oua = OUA([theta], lr=0.01, sigma=sigma, decay=lam, baseline_rate=rho, dt=dt, seed=seed)
    settle = int(4 / min(lam, rho) / dt)
    for _ in range(settle):
        oua.step(slope * theta)
    start, steps = oua.mean(theta).clone(), 400
    for _ in range(steps):
        oua.step(slope * theta)
    rates = (oua.mean(theta) - start) / (steps * dt * 0.01 * slope)
    a, b = math.exp(-rho * dt), math.exp(-lam * dt)
    predicted = sigma**2 / (2 * lam) * (1 - b) / (1 - a * b)
    # mu moves by less than 0.01 of its own rate during the run, and rho follows its mean: 1 % of the rate
    assert abs(rates.mean() - predicted) <= half_width(rates, FAMILY) + 0.01 * predicted
    assert abs(predicted / (sigma**2 / (2 * (lam + rho))) - 1) < 0.15, "close to continuous time"


@pytest.mark.parametrize("dt", [0.2, 0.1, 0.05])
def test_halving_the_step_halves_the_error_of_the_rate(dt):
    """The exact discrete rate over the continuous one: its departure from 1 is of first order."""
    lam, rho = 1.5, 1.0

    def departure(dt):
        a, b = math.exp(-rho * dt), math.exp(-lam * dt)
        return (1 - b) / (1 - a * b) / (lam / (lam + rho)) - 1

    assert 1.9 < departure(dt) / departure(dt / 2) < 2.1


def test_the_optimum_is_that_of_the_smoothed_reward(seed, half_width):
    """r = -(theta^2 - 1)^2 smoothed by N(mu, v) has its maximum at mu^2 = 1 - 3 v, not at 1."""
    theta = replicas(300, start=1.0)
    oua = OUA([theta], lr=0.2, sigma=0.4, decay=1.0, baseline_rate=1.0, dt=0.1, seed=seed)
    for _ in range(1500):
        oua.step(-((theta**2 - 1) ** 2))
    total = torch.zeros_like(theta)
    for _ in range(1500):
        oua.step(-((theta**2 - 1) ** 2))
        total += oua.mean(theta) / 1500
    predicted = math.sqrt(1 - 3 * 0.08)
    total = total.detach()
    # the mean itself scatters about its optimum, and is pushed by the asymmetry of the peak: of order eta v
    assert abs(total.mean() - predicted) < 0.02 + half_width(total, FAMILY)
    assert total.mean() < 0.93


def test_replicas_are_as_many_single_learners(seed):
    """Each its own noise, reward and expectation: the second cannot be told from outside."""

    def run(target):
        theta = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
        oua = OUA([theta], sigma=0.3, seed=seed)
        for _ in range(50):
            oua.step(-(theta.detach() - torch.tensor(target).view(2, 1)).square().sum(dim=1))
        return oua.mean(theta), oua.expected

    (first, expected), (second, _) = run([1.0, 1.0]), run([-5.0, 1.0])
    assert torch.equal(first[1], second[1]) and not torch.equal(first[0], second[0])
    assert expected.shape == (2,)
    assert not torch.equal(first[0], first[1])


def test_a_stored_run_goes_on_as_if_it_had_not_stopped(seed):
    theta = torch.zeros(5, requires_grad=True)
    oua = OUA([{"params": [theta], "sigma": 0.2}], seed=seed)
    reward = lambda p: -(p - 1).square().sum()  # noqa: E731
    for _ in range(10):
        oua.step(reward(theta))
    stored, weights = copy.deepcopy(oua.state_dict()), theta.detach().clone()
    for _ in range(10):
        oua.step(reward(theta))
    again = weights.clone().requires_grad_()
    other = OUA([{"params": [again], "sigma": 0.2}], seed=seed + 1)
    other.load_state_dict(stored)
    for _ in range(10):
        other.step(reward(again))
    assert torch.equal(again, theta) and torch.equal(other.mean(again), oua.mean(theta))
    with pytest.raises(ValueError, match="not written by OUA"):
        other.load_state_dict(torch.optim.SGD([again], lr=1).state_dict())


def test_a_sigma_that_is_a_tensor_is_read_at_each_step_and_can_itself_be_adapted(seed):
    """Reward for wandering far: the exploration of a second OUA grows.  Below 0 it counts as none."""
    theta, sigma = replicas(200), torch.full((200,), 0.5, dtype=torch.float64, requires_grad=True)
    oua = OUA([theta], lr=0.0, sigma=sigma, seed=seed)
    meta = OUA([sigma], lr=2.0, sigma=0.2, seed=seed + 1)
    for _ in range(400):
        reward = theta.detach().square()
        oua.step(reward)
        meta.step(reward)
    assert meta.mean(sigma).mean() > 0.6
    with torch.no_grad():
        sigma.fill_(-1.0)
    before = theta.detach().clone()
    oua.step(torch.zeros(200))
    assert torch.allclose(theta, before * math.exp(-0.05)), "no noise, only the pull of the mean"


def test_it_trains_a_module_and_global_generators_are_left_alone():
    net = torch.nn.Linear(3, 1)
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    y = x.sum(dim=1, keepdim=True)
    state = torch.get_rng_state()
    oua = zo.rules.OUA(net.parameters(), lr=2.0, sigma=0.1, seed=0)
    rewards = []
    for _ in range(3000):
        with torch.no_grad():
            rewards.append(-(net(x) - y).square().mean().item())
        oua.step(rewards[-1])
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(rewards[-100:]) > 0.2 * sum(rewards[:100])


def test_a_reward_that_is_not_finite_changes_nothing(seed):
    theta = torch.zeros(4, requires_grad=True)
    oua = OUA([theta], seed=seed)
    oua.step(1.0)
    before = copy.deepcopy((theta.detach(), oua.mean(theta), oua.expected))
    with pytest.raises(zo.LossError, match="not finite"):
        oua.step(float("nan"))
    after = (theta.detach(), oua.mean(theta), oua.expected)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "lr must not be negative"),
        ({"sigma": -0.1}, "sigma must not be negative"),
        ({"decay": float("inf")}, "decay must not be negative"),
        ({"baseline_rate": -1}, "baseline_rate must not be negative"),
        ({"dt": 0}, "dt must be a positive length"),
        ({"dt": 0.3, "decay": 4.0}, "longer than 1/decay"),
        ({"dt": 0.3, "baseline_rate": 4.0}, "longer than 1/baseline_rate"),
    ],
)
def test_rates_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        OUA([torch.zeros(2)], **settings)


def test_rewards_and_parameters_that_do_not_fit_are_refused():
    theta = torch.zeros(3, 2)
    oua = OUA([theta], seed=0)
    with pytest.raises(ValueError, match="whose first axis is not 4"):
        oua.step(torch.zeros(4))
    with pytest.raises(ValueError, match="give one number"):
        oua.step(torch.zeros(3, 2))
    oua.step(torch.zeros(3))
    with pytest.raises(ValueError, match="before it was"):
        oua.step(0.0)
    with pytest.raises(TypeError, match="lr must be a number"):
        OUA([theta], lr="fast")
    with pytest.raises(zo.ParameterError, match="float"):
        OUA([theta.bfloat16()])
    with pytest.raises(ValueError, match="one of the parameters"):
        oua.mean(torch.zeros(3, 2))
