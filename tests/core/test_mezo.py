"""MeZO is zolib.backward and SGD without the gradient."""

import copy

import pytest
import torch
from small import bits, build, train
from torch import nn
from zoo import HOSTILE

import zolib as zo

law = pytest.mark.parametrize("probe", ["rademacher", "gaussian"])


@pytest.fixture
def problem(generator):
    return build(generator)


def assert_equal(one, other, **tolerance):
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.allclose(a, b, **tolerance)


@law
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_is_backward_and_sgd(problem, probe, dtype, seed):
    net, loss = problem
    net, x = net.to(dtype), torch.ones(3, 4, dtype=dtype)
    twin = copy.deepcopy(net)
    opt = zo.MeZO(net.parameters(), lr=0.1, sigma=1e-2, seed=seed, samples=3, probe=probe)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step in range(10):
        twin.load_state_dict(net.state_dict())
        one = opt.step(lambda: net(x).square().mean())
        sgd.zero_grad()
        other = zo.backward(
            lambda: twin(x).square().mean(), twin, probe=probe, samples=3, sigma=1e-2, seed=seed, step=step
        )
        sgd.step()
        assert torch.equal(one, other)  # the same weights at the same places
        few = 8 * torch.finfo(dtype).eps  # the sums round in another order
        assert all(
            torch.allclose(p, q, rtol=few, atol=few) for p, q in zip(net.parameters(), twin.parameters(), strict=True)
        )
    assert opt.steps == 10
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("build", HOSTILE.values(), ids=HOSTILE.keys())
def test_it_is_backward_and_sgd_on_hostile_modules(build, seed, generator):
    net, closure = build(generator)
    start = copy.deepcopy(net.state_dict())
    torch.manual_seed(5)
    zo.MeZO(net, lr=0.01, seed=seed).step(closure)
    ends = [p.detach().clone() for p in net.parameters()]
    buffers = {name: b.clone() for name, b in net.named_buffers()}
    net.load_state_dict(start)
    torch.manual_seed(5)
    zo.backward(closure, net, seed=seed)
    torch.optim.SGD(net.parameters(), lr=0.01).step()
    for end, p in zip(ends, net.parameters(), strict=True):
        assert torch.allclose(end, p, rtol=1e-6, atol=1e-6)
    assert all(torch.equal(b, buffers[name]) for name, b in net.named_buffers())


def test_groups_have_their_own_settings(problem, seed):
    """lr, sigma and weight decay by group; a group's sigma scales its noise and leaves its gradient alone."""
    net, loss = problem
    twin = copy.deepcopy(net.double())
    groups = [
        {"params": net[0].parameters(), "lr": 0.1, "weight_decay": 0.5},
        {"params": net[2].parameters(), "sigma": 4e-3},
    ]
    opt = zo.MeZO(groups, lr=0.02, sigma=1e-3, seed=seed)
    opt.step(lambda: loss(net, 0))
    with torch.no_grad():
        z = zo.estimate(lambda: loss(twin, 0), twin, seed=seed).terms[0][0]
        sizes = [1e-3, 1e-3, 4e-3, 4e-3]
        values = []
        for sign in (1, -1):
            shaken = copy.deepcopy(twin)
            for j, (p, size) in enumerate(zip(shaken.parameters(), sizes, strict=True)):
                p += sign * size * z(0, j).double()
            values.append(loss(shaken, 0))
        for j, (p, size) in enumerate(zip(twin.parameters(), sizes, strict=True)):
            lr, decay = (0.1, 0.5) if j < 2 else (0.02, 0.0)
            p.copy_((1 - lr * decay) * p - lr * (values[0] - values[1]) / (2 * size) * z(0, j).double())
    assert_equal(net, twin, rtol=0, atol=1e-9)


def test_frozen_parameters_stay_and_keep_their_number(problem, seed):
    net, loss = problem
    twin = copy.deepcopy(net.double())
    for n in (net, twin):
        n[0].bias.requires_grad_(False)
    train(net, loss, 3, seed=seed, lr=0.1)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step in range(3):
        sgd.zero_grad()
        zo.backward(lambda step=step: loss(twin, step), twin, seed=seed, step=step)
        sgd.step()
    assert torch.equal(net[0].bias, twin[0].bias)
    assert_equal(net, twin, rtol=0, atol=1e-9)


def test_a_group_may_come_later(problem, seed):
    net, loss = problem
    opt = zo.MeZO(net[0].named_parameters(), seed=seed, lr=0.1, unused="skip")
    before = copy.deepcopy(net)
    opt.step(lambda: loss(net, 0))
    assert torch.equal(net[2].weight, before[2].weight) and not torch.equal(net[0].weight, before[0].weight)
    opt.add_param_group({"params": list(net[2].named_parameters()), "lr": 0.2})
    opt.step(lambda: loss(net, 0))
    assert not torch.equal(net[2].weight, before[2].weight)
    with pytest.raises(ValueError, match="momentum must be at least 0 and below 1, got 1"):
        opt.add_param_group({"params": [("w", nn.Parameter(torch.zeros(2)))], "momentum": 1})
    assert len(opt.param_groups) == 2
    opt.zero_grad()


@pytest.mark.parametrize("unused", ["raise", "skip"])
def test_a_parameter_that_is_not_consumed(problem, unused):
    net, loss = problem
    net.spare = nn.Linear(2, 2)
    net.forward = lambda x: net[2](net[1](net[0](x)))
    before = copy.deepcopy(net)
    if unused == "raise":
        with pytest.raises(zo.ParameterError, match="never consumed parameter 'spare.weight'"):
            train(net, loss, 1)
        assert bits(net) == bits(before)
    else:
        train(net, loss, 2, unused="skip", momentum=0.5, weight_decay=0.1)
        assert torch.equal(net.spare.weight, before.spare.weight)
        assert not torch.equal(net[0].weight, before[0].weight)


# Momentum, normalisation, clipping


def test_momentum_is_that_of_sgd_until_it_forgets(problem, seed):
    net, loss = problem
    twin = copy.deepcopy(net.double())
    opt = train(net, loss, 20, seed=seed, momentum=0.9, samples=2)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=0.9)
    for step in range(20):
        sgd.zero_grad()
        zo.backward(lambda step=step: loss(twin, step), twin, seed=seed, step=step, samples=2)
        sgd.step()
    assert_equal(net, twin, rtol=0, atol=1e-9)
    assert not opt.state  # no tensor is kept


def test_momentum_forgets_what_weighs_less_than_a_hundredth(problem, seed):
    net, loss = problem
    opt = zo.MeZO(net.double(), lr=0.05, seed=seed, momentum=0.5)
    slopes = []
    for step in range(12):
        twin = copy.deepcopy(net)
        found = zo.estimate(lambda twin=twin, step=step: loss(twin, step), twin, seed=seed, step=step)
        slopes.append(found)
        opt.step(lambda step=step: loss(net, step))
        expected = [p.detach().clone() for p in twin.parameters()]
        for age, old in enumerate(reversed(slopes[-7:])):  # 0.5^6 > 0.01 > 0.5^7
            for p, g in zip(expected, old.dense(), strict=True):
                p -= 0.05 * 0.5**age * g
        for p, e in zip(net.parameters(), expected, strict=True):
            assert torch.allclose(p, e, rtol=0, atol=1e-9)


def test_normalising_makes_steps_independent_of_the_unit_of_the_loss(problem):
    net, loss = problem
    nets = [copy.deepcopy(net) for _ in range(3)]
    for scale, n in zip((1.0, 2.0**20, 2.0**-20), nets, strict=True):
        train(n, lambda n, step, scale=scale: loss(n, step) * scale, 10, normalize=0.9)
    assert bits(nets[0]) == bits(nets[1]) == bits(nets[2]) != bits(net)


def test_normalising_is_what_it_says(problem, seed):
    net, loss = problem
    opt = zo.MeZO(net.double(), lr=0.05, seed=seed, normalize=0.9, samples=2, clip=0.7)
    square = 0.0
    for step in range(6):
        twin = copy.deepcopy(net)
        found = zo.estimate(lambda twin=twin, step=step: loss(twin, step), twin, seed=seed, step=step, samples=2)
        opt.step(lambda step=step: loss(net, step))
        directions, weighted = found.terms[0]
        c = [2 * w for w in weighted]
        square = 0.9 * square + 0.1 * (c[0] ** 2 + c[1] ** 2) / 2
        root = (square / (1 - 0.9 ** (step + 1))) ** 0.5
        for j, (p, q) in enumerate(zip(net.parameters(), twin.parameters(), strict=True)):
            move = sum(max(-0.7, min(0.7, c[k] / root)) * directions(k, j).double() for k in range(2)) / 2
            assert torch.allclose(p, q - 0.05 * move, rtol=0, atol=1e-9)


def test_a_flat_loss_does_not_divide_by_zero():
    p = nn.Parameter(torch.ones(3))
    zo.MeZO([p], normalize=0.9).step(lambda: (p * 0).sum())
    assert p.tolist() == [1.0, 1.0, 1.0]


def test_clipping_limits_the_slope():
    p = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    zo.MeZO([p], lr=1.0, clip=0.25).step(lambda: 1e6 * p[0] + 0 * p.sum())
    assert p.abs().tolist() == [0.25] * 3
