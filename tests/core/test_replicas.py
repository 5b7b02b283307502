"""Learners side by side: each is credited with its own loss, and gets its own gradient."""

import pytest
import torch
from torch import nn

import zolib as zo

S, B, IN, OUT = 3, 4, 5, 2
FAMILY = 2 * 4 * S


class Replicas(nn.Module):
    """S linear layers at once, and what the axes of its losses are."""

    axes = ("replica", "example")

    def __init__(self, generator):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(S, OUT, IN, generator=generator, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(S, OUT, generator=generator, dtype=torch.float64))
        self.x = torch.randn(B, IN, generator=generator, dtype=torch.float64)

    def losses(self):
        """(S, B), of different sizes from replica to replica."""
        a = torch.baddbmm(self.bias.unsqueeze(1), self.x.expand(S, B, IN), self.weight.mT)
        return a.square().mul(torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64).view(S, 1, 1)).sum(dim=2)


@pytest.fixture
def model(generator):
    return Replicas(generator)


def gradients(model):
    """Each replica's own gradient of its mean over examples."""
    return torch.autograd.grad(model.losses().mean(dim=1).sum(), list(model.parameters()))


def test_all_coordinates_give_each_replica_its_gradient(model):
    """No chance in it: a coordinate of one replica moves the loss of that replica alone."""
    true = gradients(model)
    size = sum(p.numel() for p in model.parameters())
    zo.backward(lambda: model.losses().mean(dim=1), model, probe=zo.Coordinate(), samples=size, sigma=1e-4)
    for p, g in zip(model.parameters(), true, strict=True):
        assert torch.allclose(p.grad, g, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("probe", [zo.Rademacher(), zo.Gaussian(), zo.Nodes(), zo.Nodes("rademacher")], ids=repr)
def test_slope_one_for_each_replica(model, probe, seed, half_width):
    true, nodes = gradients(model), isinstance(probe, zo.Nodes)
    rows = []
    for step in range(300):
        model.zero_grad()
        closure = model.losses if nodes else lambda: model.losses().mean(dim=1)
        zo.backward(closure, model, probe=probe, seed=seed, step=step, samples=2)
        rows.append(
            torch.stack(
                [
                    (p.grad * g).flatten(1).sum(1) / g.square().flatten(1).sum(1)
                    for p, g in zip(model.parameters(), true)
                ]
            )
        )
    rows = torch.stack(rows)  # (steps, parameters, S)
    assert ((rows.mean(dim=0) - 1).abs() <= half_width(rows, FAMILY)).all()


def test_one_replica_does_not_feel_the_others_losses(model, seed):
    """With the loss of the second replica zero, its gradient is zero and the others' are bit for bit what they were."""
    zo.backward(lambda: model.losses().mean(dim=1), model, seed=seed)
    before = model.weight.grad.clone()
    model.zero_grad()
    keep = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    zo.backward(lambda: model.losses().mean(dim=1) * keep, model, seed=seed)
    assert not model.weight.grad[1].any() and before[1].any()
    assert torch.equal(model.weight.grad[[0, 2]], before[[0, 2]])


def test_a_scalar_loss_is_one_for_all(model, seed):
    """The same estimate as of a model that declares nothing."""
    found = zo.estimate(lambda: model.losses().sum(), model, seed=seed).gradients()
    plain = zo.estimate(lambda: model.losses().sum(), list(model.parameters()), seed=seed).gradients()
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(found, plain, strict=True))


def test_axes_can_be_named_on_the_probe(model, seed):
    """For parameters that no module holds, and against what a module says."""
    parameters = list(model.parameters())
    zo.backward(lambda: model.losses().mean(dim=1), parameters, probe=zo.Rademacher(axes=("replica",)), seed=seed)
    named = model.weight.grad.clone()
    model.zero_grad()
    zo.backward(lambda: model.losses().mean(dim=1), model, seed=seed)
    assert torch.equal(named, model.weight.grad)
    with pytest.raises(zo.LossError, match=r"shape \(3,\)"):
        zo.backward(lambda: model.losses().mean(dim=1), model, probe=zo.Rademacher(axes=()), seed=seed)


@pytest.mark.parametrize(
    ("closure", "error", "match"),
    [
        (lambda m: m.losses(), zo.LossError, r"shape \(3, 4\).*mean\(dim=1\)"),
        (lambda m: m.losses().mean(dim=0), zo.ParameterError, r"4 losses.*'weight' has shape \(3, 2, 5\)"),
        (lambda m: m.losses().mean(dim=1).half(), zo.LossError, "float16"),
    ],
    ids=["replica and example", "examples alone", "half"],
)
def test_what_a_parameter_probe_refuses(model, closure, error, match):
    with pytest.raises(error, match=match):
        zo.backward(lambda: closure(model), model, seed=0)
    assert model.weight.grad is None


def test_what_node_noise_refuses(model):
    with pytest.raises(zo.LossError, match=r"shape \(3, 4, 1\).*\(S, B\)"):
        zo.backward(lambda: model.losses().unsqueeze(2), model, probe=zo.Nodes(), seed=0)
    with pytest.raises(zo.LossError, match="4 losses, one per replica"):
        zo.backward(lambda: model.losses().mean(dim=0), model, probe=zo.Nodes(), seed=0)
    with pytest.raises(ValueError, match="axes must be one of"):
        zo.backward(model.losses, model, probe=zo.Nodes(axes=("chip",)), seed=0)


def test_chunks_are_refused(model):
    with pytest.raises(ValueError, match="chunk"):
        zo.backward(lambda: model.losses().mean(dim=1), model, chunk=2, seed=0)


def test_device_state_is_not_set_back_between_evaluations():
    """A module that calls itself physical keeps what happened to it; any other is set back."""

    class Counting(nn.Linear):
        def __init__(self, physical):
            super().__init__(2, 1)
            self.physical = physical
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count += 1
            return super().forward(x)

    for physical, counted in ((True, 4), (False, 1)):
        layer = Counting(physical)
        zo.backward(lambda: layer(torch.ones(2)).sum(), layer, samples=2, seed=0)  # noqa: B023
        assert layer.count == counted
