"""Feedback alignment: its errors by hand, its fixed wires, the alignment that grows, what is refused."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import zolib as zo
from zolib import problems
from zolib.rules import DirectFeedbackAlignment, FeedbackAlignment

PROBES = [FeedbackAlignment(), DirectFeedbackAlignment()]
names = dict(ids=lambda p: type(p).__name__)


@pytest.fixture
def task(generator):
    net = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    x = torch.randn(16, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(3, (16,), generator=generator)
    return net, x, y


def down(net, closure, probe):
    net.zero_grad()
    loss = zo.backward(closure, net, probe=probe, feedback="exact")
    return loss, [p.grad for p in net.parameters()]


def test_errors_come_down_by_the_wires(task):
    """Layer by layer: delta_l = (delta_{l+1} B) phi'(a), with B of the shape of the weight above."""
    net, x, y = task
    probe = FeedbackAlignment(wires=7)
    loss, found = down(net, lambda: F.cross_entropy(net(x), y), probe)
    h1 = torch.tanh(net[0](x))
    h2 = torch.tanh(net[2](h1))
    delta = (torch.softmax(net[4](h2), dim=1) - F.one_hot(y, 3)) / 16
    mode = probe.mode()
    middle, top = mode.wire((5, 6), x), mode.wire((3, 5), x)
    assert abs(top.std().item() * math.sqrt(5) - 1) < 0.6
    expected = [(delta.T @ h2, delta.sum(0))]
    delta = (delta @ top) * (1 - h2**2)
    expected.append((delta.T @ h1, delta.sum(0)))
    delta = (delta @ middle) * (1 - h1**2)
    expected.append((delta.T @ x, delta.sum(0)))
    for g, e in zip(found, [t for pair in reversed(expected) for t in pair], strict=True):
        assert torch.allclose(g, e)
    assert torch.allclose(loss, F.cross_entropy(net(x), y))


def test_the_output_s_error_goes_to_each_layer(task):
    net, x, y = task
    probe = DirectFeedbackAlignment(wires=7)
    _, found = down(net, lambda: F.cross_entropy(net(x), y), probe)
    h1 = torch.tanh(net[0](x))
    h2 = torch.tanh(net[2](h1))
    error = (torch.softmax(net[4](h2), dim=1) - F.one_hot(y, 3)) / 16
    mode = probe.mode()
    first, second = (error @ mode.wire((n, 3), x).T * (1 - h**2) for n, h in ((6, h1), (5, h2)))
    expected = [first.T @ x, first.sum(0), second.T @ h1, second.sum(0), error.T @ h2, error.sum(0)]
    for g, e in zip(found, expected, strict=True):
        assert torch.allclose(g, e)


@pytest.mark.parametrize("probe", PROBES, **names)
def test_the_updates_come_to_align_with_the_gradient(probe, generator):
    """On the digits: at the start at a right angle, later within 70 degrees (Lillicrap et al. 2016)."""
    data, net = problems.digits(), problems.mlp(seed=0)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)

    def cosine(loss):
        true = torch.autograd.grad(loss, [net[0].weight, net[2].weight])
        pairs = zip((net[0].weight.grad, net[2].weight.grad), true, strict=True)
        return [F.cosine_similarity(g.flatten(), t.flatten(), dim=0).item() for g, t in pairs]

    cosines = []
    for _ in range(300):
        pick = torch.randint(len(data.x), (64,), generator=generator)
        closure = lambda pick=pick: F.cross_entropy(net(data.x[pick]), data.y[pick])  # noqa: E731
        optimizer.zero_grad()
        zo.backward(closure, net, probe=probe, feedback="exact")
        cosines.append(cosine(closure()))
        optimizer.step()
    assert max(map(abs, cosines[0])) < 0.3
    assert min(torch.tensor(cosines[-20:]).mean(dim=0).tolist()) > math.cos(math.radians(70))
    assert (net(data.x_test).argmax(dim=1) == data.y_test).double().mean() > 0.9


def test_convolutions_and_the_same_wires_at_every_step(generator):
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Tanh(), nn.Conv1d(4, 3, 2, stride=2), nn.Flatten(), nn.Linear(6, 2))
    x = torch.randn(8, 2, 7, generator=generator)
    first, second = (down(net, lambda: net(x).square().mean(), FeedbackAlignment())[1] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    other = down(net, lambda: net(x).square().mean(), FeedbackAlignment(wires=1))[1]
    assert torch.equal(other[-1], first[-1]) and not torch.equal(other[0], first[0])


def test_wrong_use_is_refused(task):
    net, x, y = task
    closure = lambda: F.cross_entropy(net(x), y)  # noqa: E731
    for probe in PROBES:
        with pytest.raises(TypeError, match="takes no difference"):
            zo.backward(closure, net, probe=probe)
        with pytest.raises(ValueError, match="no noise to average"):
            zo.backward(closure, net, probe=probe, feedback="exact", samples=2)
        with pytest.raises(TypeError, match="of a module"):
            zo.grad(torch.sum, probe=probe, feedback="exact")(x)
        with pytest.raises(zo.LossError, match="without a way back"):
            zo.backward(lambda: closure().item(), net, probe=probe, feedback="exact")
        assert probe.scale == "none"
    conv = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(20, 2))
    with pytest.raises(zo.ParameterError, match="linear layers only"):
        zo.backward(lambda: conv(torch.ones(3, 2, 7)).sum(), conv, probe=PROBES[1], feedback="exact")
