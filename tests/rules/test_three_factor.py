"""Three-factor rules: their mean against the gradient, their memory, and what they refuse."""

import copy

import pytest
import torch
from torch import nn

import zolib as zo
from zolib.rules import NRL, Cubed, Fluctuation, ThreeFactor

FAMILY = 16
S = 64


@pytest.fixture
def task(generator):
    """(net, x, reward, gradient of the reward): one hidden layer, one input, a reward that is curved."""
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.5)
    x = torch.randn(1, 4, generator=generator, dtype=torch.float64)
    target = torch.randn(3, generator=generator, dtype=torch.float64)

    def reward(y):
        return -(y - target).square().sum(dim=-1)

    true = torch.cat([g.flatten() for g in torch.autograd.grad(reward(net(x)).sum(), list(net.parameters()))])
    return net, x, reward, true


def ascent(net):
    return -torch.cat([p.grad.flatten() for p in net.parameters()])


def still(net):
    """An optimizer that moves nothing."""
    return torch.optim.SGD(net.parameters(), lr=0.0)


def slopes(rule, act, reward, true, steps, settle=0):
    """Slope of each step's estimate on the gradient."""
    rows = []
    for k in range(steps + settle):
        rule.reinforce(reward(act()))
        if k >= settle:
            rows.append(ascent(rule.synapses._subject.modules[0]) @ true / (true @ true))
    return torch.stack(rows)


def test_its_mean_is_the_gradient_of_the_reward(task, seed, half_width):
    net, x, reward, true = task
    rule = ThreeFactor(net, still(net), sigma=0.02, replicas=S, rate=0.0, seed=seed)
    rule.expected = reward(net(x)).item()
    found = slopes(rule, lambda: rule.act(lambda: net(x.expand(S, -1))), reward, true, 120)
    # smoothing by sigma: below a thousandth for a reward of curvature one
    assert abs(found.mean() - 1) <= half_width(found, FAMILY) + 1e-3


def test_it_is_node_perturbation_with_an_expectation_for_its_clean_pass(task, seed):
    """(R - R(0)) z x^T / sigma, weight by weight, from the noise that it drew."""
    net, x, reward, _ = task
    rule = ThreeFactor(net, still(net), sigma=0.1, seed=seed)
    seen = []
    remember = rule._remember
    rule._remember = lambda posts: (seen.extend(rule.synapses.nodes), remember(posts))
    action = rule.act(lambda: net(x))
    clean = reward(net(x)).item()
    rule.expected = clean
    rule.reinforce(reward(action).sum())
    error = reward(action).item() - clean
    inputs = [x, torch.tanh(seen[0].value)]
    for layer, node, given in zip((net[0], net[2]), seen, inputs, strict=True):
        assert torch.allclose(node.value, layer(given) + 0.1 * node.noise)
        assert torch.allclose(layer.weight.grad, -error / 0.1 * node.noise.T @ given)
        assert torch.allclose(layer.bias.grad, -error / 0.1 * node.noise[0])


@pytest.mark.parametrize("unknown", [0.0, 2.0])
def test_the_second_moment_with_reward_noise_that_nobody_credits(unknown, seed, half_width):
    """(d + 2 + d s^2 / sigma^2 |g|^2) |g|^2 for d nodes and reward noise s: what it says of any three-factor rule."""
    d, sigma = 12, 0.1
    net = nn.Linear(1, d, bias=False).double()
    x, slope = torch.ones(1, 1, dtype=torch.float64), torch.linspace(-1, 2, d, dtype=torch.float64)
    s = unknown * sigma * slope.norm()
    rule = ThreeFactor(net, still(net), sigma=sigma, rate=0.0, seed=seed)
    rule.expected = (net(x) @ slope).item()
    noise = torch.Generator().manual_seed(seed % 2**31)
    rows = []
    for _ in range(1500):
        action = rule.act(lambda: net(x))
        rule.reinforce((action @ slope).sum() + s * torch.randn((), generator=noise, dtype=torch.float64))
        rows.append(ascent(net).square().sum() / slope.square().sum())
    rows = torch.stack(rows)
    assert abs(rows.mean() - (d + 2 + d * unknown**2)) <= half_width(rows, FAMILY)


def test_a_running_mean_in_place_of_the_noise_gives_the_gradient_times_a_covariance(task, seed, half_width):
    """The change of activity holds the noise of the layer below: C_2 = I + W D D W^T, as for activity perturbation."""
    net, x, reward, true = task
    hidden = net[0](x).detach()
    passed = net[2].weight.detach() * (1 - torch.tanh(hidden) ** 2)
    covariance = torch.eye(3, dtype=torch.float64) + passed @ passed.T
    first = sum(p.numel() for p in net[0].parameters())
    above = torch.cat([true[first:-3].view(3, 6), true[-3:].view(3, 1)], dim=1)
    aimed = covariance @ above
    predicted = torch.cat([true[:first], aimed[:, :6].flatten(), aimed[:, 6]])
    rule = Fluctuation(net, still(net), sigma=0.02, replicas=S, rate=0.0, activity_rate=0.05, seed=seed)
    rule.expected = reward(net(x)).item()
    found = slopes(rule, lambda: rule.act(lambda: net(x.expand(S, -1))), reward, predicted, 150, settle=150)
    assert abs(found.mean() - 1) <= half_width(found, FAMILY) + 1e-3


def test_cubed_fluctuations_point_uphill(task, seed):
    net, x, reward, true = task
    rule = Cubed(net, still(net), sigma=0.02, replicas=S, rate=0.0, activity_rate=0.05, seed=seed)
    rule.expected = reward(net(x)).item()
    found = slopes(rule, lambda: rule.act(lambda: net(x.expand(S, -1))), reward, true, 200, settle=60)
    assert found.mean() > 1.5, "a fourth moment, 3, in place of a second, 1"


def test_the_trace_fades_by_its_factor(task, seed):
    net, x, _, _ = task
    alone = []
    for keep in (1.0, 0.0):
        rule = ThreeFactor(net, still(net), sigma=0.1, trace=keep, seed=seed)
        rule.act(lambda: net(x))
        first = copy.deepcopy(rule.eligibility)
        rule.act(lambda: net(2 * x))
        alone.append((first, rule.eligibility))
    (first, both), (_, second) = alone
    rule = ThreeFactor(net, still(net), sigma=0.1, trace=0.3, seed=seed)
    rule.act(lambda: net(x))
    rule.act(lambda: net(2 * x))
    for e, f, b, s in zip(rule.eligibility, first, both, second, strict=True):
        assert torch.allclose(b, f + s) and torch.allclose(e, 0.3 * f + s)


def test_replicas_are_told_one_by_one(task, seed):
    net, x, reward, _ = task
    rule = ThreeFactor(net, still(net), sigma=0.1, replicas=4, rate=0.5, seed=seed)
    rule.expected = 0.0
    rewards = reward(rule.act(lambda: net(x.expand(4, -1))))
    e = copy.deepcopy(rule.eligibility)
    told = torch.tensor([True, False, True, False])
    error = rule.reinforce(rewards, where=told)
    assert torch.equal(error, torch.where(told, rewards, 0.0))
    assert torch.allclose(net[0].weight.grad, -(rewards[0] * e[0][0] + rewards[2] * e[0][2]) / 2)
    assert rule.expected == pytest.approx(0.5 * (rewards[0] + rewards[2]).item() / 2)
    assert torch.equal(rule.eligibility[0][1], e[0][1]) and not rule.eligibility[0][2].any()


def test_nrl_estimates_the_policy_gradient(task, seed, half_width):
    net, x, _, _ = task
    values = torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    policy = torch.softmax(net(x), dim=-1)
    true = torch.cat([g.flatten() for g in torch.autograd.grad((policy @ values).sum(), list(net.parameters()))])
    rule = NRL(net, still(net), sigma=1e-3, replicas=256, rate=0.0, seed=seed)
    counts, rows = torch.zeros(3, dtype=torch.float64), []
    for _ in range(80):
        action = rule.act(lambda: net(x.expand(256, -1)))
        rule.expected = 0.0
        rule.reinforce(values[action])
        rows.append(ascent(net) @ true / (true @ true))
        counts += torch.bincount(action, minlength=3)
    rows, draws = torch.stack(rows), counts.sum()
    assert abs(rows.mean() - 1) <= half_width(rows, FAMILY) + 1e-3
    error = (policy * (1 - policy) / draws).sqrt()[0]
    assert ((counts / draws - policy[0]).abs() < 4.5 * error).all(), "actions follow the policy"


def test_dividing_by_the_reward_can_reverse_learning(seed):
    """Two arms: one pays 1 for sure, the better pays 0.1 or 3.9, 2 on average.  Over |R|, the better one loses."""
    net = nn.Linear(1, 2, bias=False).double()
    x = torch.ones(S, 1, dtype=torch.float64)
    coin = torch.Generator().manual_seed(seed % 2**31)
    better = {}
    for normalise in (False, True):
        nn.init.zeros_(net.weight)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.2)
        rule = NRL(net, optimizer, sigma=1e-2, replicas=S, rate=0.0, normalise=normalise, seed=seed)
        rule.expected = 1.5
        for _ in range(150):
            action = rule.act(lambda: net(x))
            risky = 2 + 1.9 * (2 * torch.randint(2, (S,), generator=coin) - 1)
            rule.reinforce(torch.where(action == 1, risky, 1.0))
        better[normalise] = torch.softmax(net.weight[:, 0], dim=0)[1].item()
    assert better[False] > 0.9 and better[True] < 0.1


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.body(x)[0][:, -1])


NETS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)), (8, 3)),
    "cnn": (lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(9, 2)), (8, 2, 4)),
    "lstm": (Recurrent, (8, 4, 3)),
}


@pytest.mark.parametrize("rule", [ThreeFactor, Fluctuation, Cubed, NRL])
@pytest.mark.parametrize("net", NETS)
def test_every_rule_runs_on_every_net_and_touches_no_generator(rule, net, generator):
    make, shape = NETS[net]
    model = make()
    x = torch.randn(shape, generator=generator)
    before = [p.detach().clone() for p in model.parameters()]
    state = torch.get_rng_state()
    learner = rule(model, torch.optim.SGD(model.parameters(), lr=0.1), sigma=0.1, replicas=8, seed=0)
    for k in range(3):
        learner.act(lambda: model(x))
        error = learner.reinforce(torch.arange(8.0) * (k + 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert error.shape == (8,)
    assert all(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))


def test_a_reward_that_is_not_finite_changes_nothing(task, seed):
    net, x, _, _ = task
    rule = ThreeFactor(net, torch.optim.SGD(net.parameters(), lr=0.1), sigma=0.1, seed=seed)
    rule.act(lambda: net(x))
    before = copy.deepcopy((net.state_dict(), rule.eligibility, rule.expected))
    with pytest.raises(zo.LossError, match="not finite"):
        rule.reinforce(float("inf"))
    after = (net.state_dict(), rule.eligibility, rule.expected)
    assert all(torch.equal(a, b) for a, b in zip(before[0].values(), after[0].values(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True)) and before[2] == after[2]


def test_wrong_use_is_refused(task):
    net, x, _, _ = task
    for settings, message in [
        ({"sigma": 0.0}, "sigma must be"),
        ({"sigma": 0.1, "trace": 1.5}, "trace must lie"),
        ({"sigma": 0.1, "rate": -1}, "rate must lie"),
    ]:
        with pytest.raises(ValueError, match=message):
            ThreeFactor(net, still(net), **settings)
    with pytest.raises(ValueError, match="activity_rate must lie"):
        Fluctuation(net, still(net), sigma=0.1, activity_rate=0)
    rule = ThreeFactor(net, still(net), sigma=0.1, replicas=3)
    with pytest.raises(RuntimeError, match="needs an act"):
        rule.reinforce(torch.zeros(3))
    with pytest.raises(ValueError, match="no 3 along batch_dim=0"):
        rule.act(lambda: net(x.expand(5, -1)))
    rule.act(lambda: net(x.expand(3, -1)))
    with pytest.raises(ValueError, match="give each replica its own"):
        rule.reinforce(1.0)
    with pytest.raises(ValueError, match="where must be a bool"):
        rule.reinforce(torch.zeros(3), where=torch.ones(3))
    single = ThreeFactor(net, still(net), sigma=0.1)
    single.act(lambda: net(x))
    with pytest.raises(ValueError, match="set replicas="):
        single.reinforce(torch.zeros(3))
