"""The oracle counts what is asked of it, and changes nothing."""

import pytest
import torch
from torch import nn

import zolib as zo


@pytest.fixture
def problem(generator):
    net = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 2))
    x = torch.randn(11, 5, generator=generator)
    return net, lambda: net(x).square().mean()


ONE = 11 * (5 * 7 + 7 * 2)  # multiply-accumulates of a forward pass


@pytest.mark.parametrize("macs", ["first", "every"])
def test_values_cost_forward_passes(problem, macs):
    net, closure = problem
    oracle = zo.Oracle(closure, macs=macs)
    loss = zo.backward(oracle, net, samples=3, seed=0)
    assert (oracle.forwards, oracle.backwards, oracle.macs) == (6, 0, 6 * ONE)
    grads = [p.grad for p in net.parameters()]
    net.zero_grad()
    assert torch.equal(loss, zo.backward(closure, net, samples=3, seed=0))
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, net.parameters(), strict=True))
    zo.backward(oracle, net, feedback="one-sided", samples=3, seed=0)
    assert oracle.forwards == 6 + 4


def test_backpropagation_costs_one_forward_and_one_backward(problem):
    _, closure = problem
    oracle = zo.Oracle(closure)
    for _ in range(4):
        oracle().backward()
    assert (oracle.forwards, oracle.backwards, oracle.forward_equivalents) == (4, 4, 12)
    assert oracle.macs == 12 * ONE
    oracle.reset()
    assert (oracle.forwards, oracle.backwards, oracle.macs) == (0, 0, 0)


def test_functions_are_counted_too():
    oracle = zo.Oracle(lambda x: (x @ x).sum())
    zo.grad(oracle, probe="coordinate", samples=9, seed=0)(torch.ones(3, 3))
    assert oracle.forwards == 18 and oracle.macs == 18 * 27
    assert "forwards=18" in repr(oracle)


def test_wrong_use_is_refused():
    with pytest.raises(TypeError, match="f must be callable"):
        zo.Oracle(3)
    with pytest.raises(ValueError, match="macs must be"):
        zo.Oracle(torch.sum, macs="all")


def test_sign_steps():
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.tensor([5.0, -0.1, 0.0])
    zo.SignSGD([p], lr=0.5).step()
    assert p.tolist() == [-0.5, 0.5, 0.0]
    optimizer = zo.SignSGD([p], lr=1.0, momentum=0.9)
    optimizer.step()
    p.grad = torch.tensor([-1.0, 0.0, 0.0])
    optimizer.step()  # 0.9 * 0.5 - 0.1 > 0: the memory outvotes the new sign
    assert p.tolist() == [-2.5, 2.5, 0.0]
    with pytest.raises(ValueError, match="lr must be positive"):
        zo.SignSGD([p], lr=0)
    with pytest.raises(ValueError, match="momentum must lie"):
        zo.SignSGD([p], lr=1, momentum=1)
