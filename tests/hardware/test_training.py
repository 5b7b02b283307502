"""What a rule learns of a chip: slopes by every probe, and from the chip's own noise."""

import copy

import pytest
import torch
from torch import nn

import zolib as zo
from zolib import hardware as H

S, B = 3, 4
DEAD = [H.Mismatch(0.3), H.StuckAt(0.2)]
FAMILY = 64


def net():
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def data():
    return torch.randn(B, 5, dtype=torch.float64), torch.randn(B, 2, dtype=torch.float64)


def losses(hw, x, y):
    """([S,] B)."""
    return (hw(x) - y).square().sum(dim=-1)


def response(tile):
    """d effective / d weight, weight by weight: the gain of the cell that carries it, or none if that one is stuck."""
    mismatch, stuck = tile.cells.stages
    gain = mismatch.gain * ~stuck.stuck
    plus, minus = gain.unbind(tile.cells.arms)
    return torch.where(tile.weight >= 0, plus, minus).detach()


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_chips", [None, S])
def test_backpropagation_takes_the_straight_way(n_chips, seed):
    """The gradient of a weight is that of the effective weight, and what was kept is kept."""
    hw = H.deploy(net(), H.Chip(DEAD, n_chips, seed))
    x, y = data()
    losses(hw, x, y).sum().backward()
    tiles = hw.tiles()
    w = [t.effective.clone().requires_grad_() for t in tiles]
    h = x if n_chips is None else x.expand(S, B, 5)
    for tile, weight in zip(tiles, w, strict=True):
        h = h @ weight.mT + (tile.bias if n_chips is None else tile.bias.unsqueeze(1))
        h = torch.tanh(h) if tile is tiles[0] else h
    (h - y).square().sum().backward()
    for tile, weight in zip(tiles, w, strict=True):
        assert torch.allclose(tile.weight.grad, weight.grad)


@pytest.mark.parametrize("n_chips", [None, S])
def test_a_probe_on_parameters_shakes_what_they_reach(n_chips, seed):
    """All coordinates one by one, so without chance: each weight's gain, and nothing from a stuck cell."""
    hw = H.deploy(net(), H.Chip(DEAD, n_chips, seed), w_max=2.0)  # none saturates
    x, y = data()
    loss = losses(hw, x, y).mean(dim=-1)
    straight = torch.autograd.grad(loss.sum(), [t.weight for t in hw.tiles()])
    d = sum(p.numel() for p in hw.parameters())
    before = hw.counters
    zo.backward(lambda: losses(hw, x, y).mean(dim=-1), hw, probe=zo.Coordinate(), samples=d, sigma=1e-5)
    for tile, g in zip(hw.tiles(), straight, strict=True):
        assert torch.allclose(tile.weight.grad, g * response(tile), atol=1e-6)
    assert (response(hw.tiles()[0]) == 0).any()
    spent = hw.counters - before
    weights = sum(t.weight.numel() for t in hw.tiles())
    assert spent.writes == 0 and spent.probes == 2 * d * weights


@pytest.mark.parametrize(
    "probe", [zo.Gaussian(), zo.Rademacher(), zo.Sphere(), zo.LowRank(), zo.Orthogonal(4)], ids=repr
)
@pytest.mark.parametrize("n_chips", [None, S])
def test_every_parameter_probe_has_slope_one(probe, n_chips, seed, half_width):
    hw = H.deploy(net(), H.Chip([H.PCMProgramming(), *DEAD], n_chips, seed))
    x, y = data()
    true = zo.estimate(
        lambda: losses(hw, x, y).mean(dim=-1),
        hw,
        probe=zo.Coordinate(),
        samples=sum(p.numel() for p in hw.parameters()),
        sigma=1e-5,
    ).gradients()
    true = {id(p): g for p, g in true}
    rows = []
    for step in range(30):
        found = zo.estimate(
            lambda: losses(hw, x, y).mean(dim=-1), hw, probe=probe, samples=8, seed=seed, step=step
        ).gradients()
        dot = sum((g * true[id(p)]).flatten(1 if n_chips else 0).sum(-1) for p, g in found)
        rows.append(dot / sum(g.square().flatten(1 if n_chips else 0).sum(-1) for g in true.values()))
    rows = torch.stack(rows)
    assert ((rows.mean(dim=0) - 1).abs() <= half_width(rows, FAMILY)).all()


@pytest.mark.parametrize(
    ("stages", "sigma", "allowed"),
    [(DEAD, 1e-3, 0.0), ([H.DAC(8), *DEAD, H.OutputNoise(0.01)], 0.05, 0.02)],
    ids=["cells", "noise and converter"],
)
@pytest.mark.parametrize("n_chips", [None, S])
def test_node_noise_has_slope_one(n_chips, stages, sigma, allowed, seed, half_width):
    """Against backpropagation, the straight way both; with one loss for each chip and example.

    Node noise has to be larger than a step of the converter, and sigma^2 is its bias; the chip's noise moves the
    gradient itself by about its own size, 0.01.
    """
    hw = H.deploy(net(), H.Chip(stages, n_chips, seed))
    x, y = data()
    true = torch.autograd.grad(losses(hw, x, y).mean(dim=-1).sum(), list(hw.parameters()))
    rows = []
    for step in range(100):
        hw.zero_grad()
        zo.backward(lambda: losses(hw, x, y), hw, probe=zo.Nodes(), samples=2, seed=seed, step=step, sigma=sigma)
        each = [(p.grad * g).flatten(1 if n_chips else 0).sum(-1) for p, g in zip(hw.parameters(), true, strict=True)]
        size = sum(g.square().flatten(1 if n_chips else 0).sum(-1) for g in true)
        rows.append(sum(each) / size)
    rows = torch.stack(rows)
    assert ((rows.mean(dim=0) - 1).abs() <= half_width(rows, FAMILY) + allowed).all()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("n_chips", [None, 2])
def test_node_noise_on_convolutions(n_chips, groups, seed, half_width):
    model = nn.Sequential(nn.Conv2d(2, 4, 2, groups=groups), nn.Tanh(), nn.Flatten(), nn.Linear(16, 1)).double()
    hw = H.deploy(model, H.Chip([H.Mismatch(0.2)], n_chips, seed))
    x = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    losses = lambda: hw(x).square().sum(dim=-1)  # noqa: E731
    true = torch.autograd.grad(losses().mean(dim=-1).sum(), list(hw.parameters()))
    rows = []
    for step in range(80):
        hw.zero_grad()
        zo.backward(losses, hw, probe=zo.Nodes("rademacher"), seed=seed, step=step, samples=2)
        each = [(p.grad * g).flatten(1 if n_chips else 0).sum(-1) for p, g in zip(hw.parameters(), true, strict=True)]
        rows.append(sum(each) / sum(g.square().flatten(1 if n_chips else 0).sum(-1) for g in true))
    rows = torch.stack(rows)
    assert ((rows.mean(dim=0) - 1).abs() <= half_width(rows, FAMILY)).all()


# --- the chip's own noise ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaling", ["global", "layer"])
@pytest.mark.parametrize("n_chips", [None, S])
def test_intrinsic_noise_finds_the_gradient_of_a_linear_loss(n_chips, scaling, seed, half_width):
    """One layer, white noise: E[N d d^T / |d|^2] is the identity, so the mean is the gradient, each chip's own."""
    hw = H.deploy(nn.Linear(5, 4).double(), H.Chip([H.OutputNoise(0.05)], n_chips, seed))
    x, _ = data()
    slope = torch.randn(*hw.chip.lead, B, 4, dtype=torch.float64)
    true = torch.einsum("...bo,bi->...oi", slope, x) / B
    rows = []
    for _ in range(200):
        hw.zero_grad()
        zo.backward(lambda: (hw(x) * slope).sum(dim=-1), hw, probe=zo.Intrinsic(scaling), samples=2)
        g, b = hw.weight.grad, hw.bias.grad
        bias = (b * slope.mean(dim=-2)).sum(-1) / slope.mean(dim=-2).square().sum(-1)
        rows.append(torch.stack(((g * true).sum((-1, -2)) / true.square().sum((-1, -2)), bias)))
    rows = torch.stack(rows)
    assert ((rows.mean(dim=0) - 1).abs() <= half_width(rows, FAMILY)).all()


def test_the_estimate_is_the_published_one(seed):
    """N dL da x^T / |da|^2, with the activities that a copy of the chip shows in the same two reads."""
    stages = [H.Mismatch(0.2), H.OutputNoise(0.05)]
    hw = H.deploy(net(), H.Chip(stages, n_chips=2, seed=seed))
    twin = copy.deepcopy(hw)
    x, y = data()
    zo.backward(lambda: losses(hw, x, y), hw, probe=zo.Intrinsic())
    reads = []
    with torch.no_grad():
        for _ in range(2):
            first = twin.model[0](x.repeat(2, 1)).view(2, B, 4)
            second = twin.model[2](torch.tanh(first).flatten(0, 1)).view(2, B, 2)
            reads.append((first, second, (second - y).square().sum(dim=-1)))
    (a1, a2, loss), (b1, b2, other) = reads
    norm = (a1 - b1).square().sum(-1) + (a2 - b2).square().sum(-1)
    factor = ((loss - other) * 6 / norm / B).unsqueeze(-1)
    assert torch.allclose(hw.model[0].weight.grad, torch.einsum("sbo,bi->soi", factor * (a1 - b1), x))
    assert torch.allclose(hw.model[2].weight.grad, torch.einsum("sbo,sbi->soi", factor * (a2 - b2), torch.tanh(a1)))
    assert torch.allclose(hw.model[2].bias.grad, (factor * (a2 - b2)).sum(dim=1))
    assert hw.counters == twin.counters


def test_a_scalar_loss_is_credited_to_all_noise(seed):
    hw = H.deploy(net(), H.Chip([H.OutputNoise(0.05)], n_chips=2, seed=seed))
    x, y = data()
    loss = zo.backward(lambda: losses(hw, x, y).sum(), hw, probe="intrinsic")
    assert loss.ndim == 0 and all(p.grad.isfinite().all() for p in hw.parameters())
    loss = zo.backward(lambda: losses(hw, x, y).mean(dim=1), hw, probe="intrinsic")
    assert loss.ndim == 0


def test_two_reads_differ_in_fast_noise_alone(seed):
    """Weights, FROZEN errors and what was drawn at the write are the same in both; the write is made once."""
    hw = H.deploy(net(), H.Chip([H.PCMProgramming(), *DEAD, H.OutputNoise(0.05)], n_chips=2, seed=seed))
    x, _ = data()
    seen = []

    def closure():
        seen.append((hw.tiles()[0].effective.clone(), hw(x).clone(), hw.counters.writes))
        return seen[-1][1].square().mean(dim=-1)

    with torch.no_grad():
        for p in hw.parameters():
            p.add_(0.1)
    before = hw.counters.writes
    zo.backward(closure, hw, probe=zo.Intrinsic(), samples=2)
    written = [writes - before for *_, writes in seen]
    assert written[0] > 0 and len(set(written)) == 1
    outputs = [out for _, out, _ in seen]
    assert all(torch.equal(w, seen[1][0]) for w, *_ in seen[1:])
    assert not any(torch.equal(outputs[i], outputs[j]) for i in range(4) for j in range(i))


def test_telegraph_noise_explores(seed, half_width):
    """Noise with a memory serves as well, if it has moved from one read to the next."""
    hw = H.deploy(nn.Linear(5, 4).double(), H.smtj(n_chips=2, seed=seed))
    x, _ = data()
    slope = torch.randn(2, B, 4, dtype=torch.float64)
    true = torch.einsum("sbo,bi->soi", slope, x) / B
    rows = []
    for _ in range(250):
        hw.zero_grad()
        zo.backward(lambda: (hw(x) * slope).sum(dim=-1), hw, probe=zo.Intrinsic())
        rows.append((hw.weight.grad * true).sum((-1, -2)) / true.square().sum((-1, -2)))
    rows = torch.stack(rows)
    assert ((rows.mean(dim=0) - 1).abs() <= half_width(rows, FAMILY)).all()


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda hw, loss: zo.backward(loss, net(), probe=zo.Intrinsic()), TypeError, "no layer on one"),
        (
            lambda hw, loss: zo.backward(loss, hw.parameters(), probe=zo.Intrinsic()),
            TypeError,
            "hw = zolib.hardware.deploy",
        ),
        (lambda hw, loss: zo.backward(loss, hw, probe=zo.Intrinsic(), feedback="one-sided"), ValueError, "two-point"),
        (lambda hw, loss: zo.backward(loss, hw, probe=zo.Intrinsic(), feedback="exact"), TypeError, "no exact slope"),
        (lambda hw, loss: zo.grad(loss, probe=zo.Intrinsic())(torch.ones(2)), TypeError, "needs a model on a chip"),
        (lambda hw, loss: zo.backward(loss, hw, chunk=2, probe=zo.Intrinsic()), ValueError, "chunk"),
        (lambda hw, loss: zo.backward(loss, hw, chunk=2), RuntimeError, "n_chips"),
        (lambda hw, loss: zo.Intrinsic("all"), ValueError, "'global' or 'layer'"),
        (lambda hw, loss: zo.Intrinsic(batch_dim="first"), TypeError, "batch_dim"),
    ],
    ids=["no chip", "parameters", "one-sided", "exact", "tensors", "chunk", "vmap", "scaling", "batch_dim"],
)
def test_wrong_use_is_refused(call, error, match, seed):
    hw = H.deploy(net(), H.Chip([H.OutputNoise(0.05)], seed=seed))
    x, y = data()
    with pytest.raises(error, match=match):
        call(hw, lambda *_: losses(hw, x, y).mean())
    assert all(p.grad is None for p in hw.parameters())


@pytest.mark.parametrize("stages", [DEAD, [H.OutputNoise(1e-6), H.ADC(2)]], ids=["no noise", "hidden by the ADC"])
def test_a_chip_without_noise_cannot_explore(stages, seed):
    hw = H.deploy(net(), H.Chip(stages, seed=seed))
    x, y = data()
    with pytest.raises(ValueError, match="same outputs"):
        zo.backward(lambda: losses(hw, x, y), hw, probe=zo.Intrinsic())


@pytest.mark.parametrize("probe", [zo.Rademacher(), zo.Nodes(), zo.Intrinsic()], ids=repr)
def test_probing_leaves_weights_and_cells_alone(probe, seed):
    hw = H.deploy(net(), H.Chip([H.PCMProgramming(), H.OutputNoise(0.02)], seed=seed))
    x, y = data()
    before = {k: v.clone() for k, v in hw.state_dict().items() if isinstance(v, torch.Tensor)}
    zo.backward(lambda: losses(hw, x, y).mean(), hw, probe=probe)
    assert all(torch.equal(before[k], v) for k, v in hw.state_dict().items() if isinstance(v, torch.Tensor))
