"""Every row of the catalogue runs, costs what it says, and has the scale that it declares."""

import math

import pytest
import torch
from scipy.integrate import quad
from torch import nn

import zolib as zo
from zolib.catalogue import COLUMNS, Catalogue, Method

#: Triples; rules that are stepped by rewards are tested in tests/rules.
TRIPLES = [name for name in zo.catalogue if isinstance(zo.catalogue[name], Method)]
rows = pytest.mark.parametrize("name", TRIPLES)
#: Steps of the updates: 0.1, but what has a length of its own (signs, Adam, ranks) or much noise takes another.
LR = {"openai-es": 0.03, "zo-adam": 0.03, "zo-signsgd": 0.01, "es-z-scores": 2e-3, "eggroll": 2e-3, "nes": 0.02}
LR |= {"weight-perturbation": 0.02}
#: Where each example has noise of its own, and may credit its own loss.
PER_EXAMPLE = ("nodes", "activities", "outputs")


def named(*words):
    return [name for name in TRIPLES if any(word in name for word in words)]


@pytest.fixture
def make_task(generator):
    """The reference task: two classes that no straight line separates.  One loss per example for noise on nodes."""

    def make(method):
        inner, outer = nn.Linear(2, 8), nn.Linear(8, 2)
        with torch.no_grad():
            for p in (*inner.parameters(), *outer.parameters()):
                p.copy_(torch.randn(p.shape, generator=generator) * 0.7)
        layers = [inner, nn.Tanh(), outer]
        if method.local:
            layers = [zo.Decorrelation(2), inner, nn.Tanh(), zo.Decorrelation(8), outer]
        net = nn.Sequential(*layers)
        if method.probe.where == "outputs":
            net = zo.hardware.deploy(net, zo.hardware.Chip([zo.hardware.OutputNoise(0.01)], seed=0), w_max=4.0)
        x = torch.randn(64, 2, generator=generator)
        y = (x[:, 0] * x[:, 1] > 0).long()
        each = "none" if method.probe.where in PER_EXAMPLE else "mean"
        return net, lambda: nn.functional.cross_entropy(net(x), y, reduction=each)

    return make


@pytest.fixture
def task(make_task):
    return make_task(zo.catalogue["spsa"])


def flat(tensors):
    return torch.cat([t.flatten() for t in tensors]).double()


@rows
def test_it_lowers_the_loss_at_the_cost_it_declares(name, make_task):
    method = zo.catalogue[name]
    net, closure = make_task(method)
    before = closure().mean().item()
    oracle = zo.Oracle(closure, macs=None)
    run = method.start(oracle, net, lr=LR.get(name, 0.1), seed=1)
    steps = 20 if method.samples is None else 100
    for _ in range(steps):
        loss = run.step()
    assert loss.ndim == 0
    assert closure().mean().item() < 0.9 * before
    assert oracle.forwards == steps * method.evaluations(run.samples)
    assert oracle.backwards == (steps if method.probe.where == "nothing" else 0)


def estimates(method, net, closure, samples, sigma, steps=24):
    """(steps, d) estimates through the front door, with one feedback."""
    feedback, found = method.feedback(), []
    for step in range(steps):
        net.zero_grad()
        settings = {"samples": samples, "sigma": sigma, "seed": 7, "step": step}
        zo.backward(closure, net, probe=method.probe, feedback=feedback, **settings)
        found.append(flat(p.grad for p in net.parameters()))
    return torch.stack(found)


def gradient(net, closure):
    net.zero_grad()
    closure().mean().backward()
    return flat(p.grad for p in net.parameters())


@rows
def test_its_mean_has_the_scale_it_declares(name, make_task, half_width):
    """The gradient: slope 1 onto the true one, for all parameters together and each alone.  A direction: uphill."""
    method = zo.catalogue[name]
    net, closure = make_task(method)
    true = gradient(net, closure)
    zero = closure().detach()  # each loss counted from here: a constant has no gradient, and rewards scatter less
    samples = 8 if method.probe.where in PER_EXAMPLE else 32
    samples = len(true) if name == "coordinate-differences" else 1 if method.probe.where == "nothing" else samples
    found = estimates(method, net, lambda: closure() - zero, samples, 1e-2)
    sizes = [p.numel() for p in net.parameters()]
    family = (1 + len(sizes)) * len(zo.catalogue)
    if method.scale == "gradient":
        parts = zip((found, *found.split(sizes, dim=1)), (true, *true.split(sizes)), strict=True)
        for part, g in parts:
            slopes = part @ g / g.square().sum()
            assert abs(slopes.mean().item() - 1) <= half_width(slopes, family).item() + 0.01
    elif method.scale == "none":
        assert torch.equal(found[0], found[-1]), "no noise"
        assert not torch.allclose(found[0], true, rtol=0.1), "and no gradient"
    else:
        slopes = found @ true
        assert slopes.mean().item() > half_width(slopes, family).item(), "it points uphill"


@pytest.mark.parametrize("name", [name for name in TRIPLES if zo.catalogue[name].feedback().scale == "direction"])
def test_a_normalised_estimate_is_no_gradient(name, make_task):
    """Three times the loss has three times the gradient, and the same ranks."""
    method = zo.catalogue[name]
    net, closure = make_task(method)
    one, three = (estimates(method, net, f, 16, 1e-2, steps=1) for f in (closure, lambda: 3 * closure()))
    assert torch.allclose(one, three, rtol=1e-3, atol=1e-3 * one.abs().max())
    assert method.scale == "direction"


@pytest.mark.parametrize("name", named("anp"))
def test_published_activity_perturbation_estimates_a_mix_of_slopes(name, make_task, half_width):
    """N E[v v^T / |v|^2] e for changes v ~ N(0, J J^T) of the activities, as sigma goes to 0.

    J takes the injected noise to the change, and e is the slope at each activity with all others held: the loss's at
    the output, 0 elsewhere.  ("layer": each layer by itself, where e is its whole slope.)
    """
    method = zo.catalogue[name]
    net, closure = make_task(method)
    inner, outer = net[0], net[2]
    true = gradient(net, closure)
    found = estimates(method, net, closure, 64, 1e-3)
    x = inputs(net, closure)
    h = torch.tanh(inner(x).detach()).double()
    w, b = outer.weight.detach().double(), outer.bias.detach().double()
    a = (h @ w.T + b).requires_grad_()
    labels = (x[:, 0] * x[:, 1] > 0).long()
    (e,) = torch.autograd.grad(nn.functional.cross_entropy(a, labels, reduction="sum"), a)
    forward = w * (1 - h.square()).unsqueeze(1)  # (B, 2, 8)
    expected = [torch.zeros_like(h), torch.zeros_like(e)]
    for i in range(len(x)):
        if method.probe.scaling == "layer":
            expected[0][i] = forward[i].T @ e[i]  # the first layer's change is its noise
            expected[1][i] = mixed(torch.eye(2) + forward[i] @ forward[i].T, e[i])
        else:
            j = torch.eye(10, dtype=torch.float64)
            j[8:, :8] = forward[i]
            both = mixed(j @ j.T, torch.cat([torch.zeros(8), e[i]]))
            expected[0][i], expected[1][i] = both[:8], both[8:]
    first, second = (c / len(x) for c in expected)
    prediction = flat([first.T @ x.double(), first.sum(0), second.T @ h, second.sum(0)])
    tests = 3 * (1 + len(true))
    error = half_width(found, tests) + 1e-3 * prediction.abs().max()  # of order sigma
    assert (abs(found.mean(dim=0) - prediction) <= error).all()
    off = prediction - true
    share = (found - true) @ off / off.square().sum()  # 1 if the mean is this prediction, 0 if it is the gradient
    assert share.mean().item() > half_width(share, tests).item()
    assert abs(share.mean().item() - 1) <= half_width(share, tests).item() + 0.02  # of order sigma, over |off|


def inputs(net, closure):
    seen = []
    handle = net.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    closure()
    handle.remove()
    return seen[0]


def mixed(covariance, e):
    """N E[v v^T / |v|^2] e for v ~ N(0, covariance); by E[1/s] = integral of E[exp(-t s)] over t."""
    values, axes = torch.linalg.eigh(covariance.double())
    scales = values.tolist()

    def share(v):
        return quad(
            lambda t: v / (1 + 2 * t * v) / math.sqrt(math.prod(1 + 2 * t * other for other in scales)), 0, math.inf
        )[0]

    shares = torch.tensor([share(v) for v in scales], dtype=torch.float64)
    assert shares.sum() == pytest.approx(1, abs=1e-6)
    return len(values) * axes @ (shares * (axes.T @ e.double()))


def test_backpropagation_is_all_coordinates_at_once(task):
    net, closure = task
    true = gradient(net, closure)
    net.zero_grad()
    loss = zo.backward(closure, net, probe="backpropagation", feedback="exact")
    assert torch.equal(flat(p.grad for p in net.parameters()), true) and torch.equal(loss, closure())
    net.zero_grad()
    zo.backward(closure, net, probe="coordinate", feedback="exact", samples=len(true))
    assert torch.allclose(flat(p.grad for p in net.parameters()), true, atol=1e-6)


def test_backpropagation_refuses_what_it_cannot_do(task):
    net, closure = task

    def refused(error, message, closure=closure, model=net, **settings):
        with pytest.raises(error, match=message):
            zo.backward(closure, model, probe="backpropagation", **{"feedback": "exact", **settings})
        assert all(p.grad is None for p in net.parameters())

    refused(TypeError, "use 'exact'", feedback="two-point")
    refused(TypeError, "use 'exact'", feedback="two-point", chunk=2)
    refused(ValueError, "samples=2: .* use samples=1", samples=2)
    refused(zo.LossError, "without a way back", lambda: closure().item())
    refused(zo.LossError, "without a way back", lambda: closure().detach())
    refused(zo.LossError, "shape", lambda: closure().expand(2, 2))
    refused(zo.LossError, "not finite", lambda: closure() * float("nan"))
    refused(RuntimeError, "delete the backward", lambda: closure().backward())
    idle = nn.Parameter(torch.zeros(2))
    refused(zo.ParameterError, r"back to parameter 'model\[4\]'", model=[*net.parameters(), idle])
    zo.backward(closure, [*net.parameters(), idle], probe="backpropagation", feedback="exact", unused="skip")
    assert idle.grad is None and net[0].weight.grad is not None
    with pytest.raises(TypeError, match=r"torch\.func\.grad"):
        zo.grad(torch.sum, probe="backpropagation", feedback="exact")(torch.ones(2))


def test_gradients_of_backpropagation_are_tensors_of_their_own():
    a, b = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    zo.backward(lambda: (a + b).sum(), [a, b], probe="backpropagation", feedback="exact")
    a.grad.mul_(2)
    assert torch.equal(b.grad, torch.ones(3))


def test_decorrelated_node_perturbation_learns_its_matrices(make_task):
    method = zo.catalogue["decorrelated-node-perturbation"]
    net, closure = make_task(method)
    run = method.start(closure, net, lr=0.1)
    for _ in range(3):
        run.step()
    assert not torch.equal(net[3].D, torch.eye(8)) and not any("D" in name for name, _ in net.named_parameters())
    plain, other = make_task(zo.catalogue["node-perturbation"])
    with pytest.raises(ValueError, match=r"no zo.Decorrelation in the model.*'node-perturbation'"):
        method.start(other, plain, lr=0.1)
    before = flat(net.parameters())
    net.eval()
    with pytest.raises(RuntimeError, match="training mode"):
        run.step()
    assert torch.equal(flat(net.parameters()), before), "after an error the weights are as before"


def test_the_table_says_it_in_words():
    table = zo.catalogue.table()
    assert len(table.rows) == len(zo.catalogue) and all(len(row) == len(COLUMNS) for row in table.rows)
    assert "simultaneous perturbation" in str(table)
    cells = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in table.rows}
    evaluations = {name: row["evaluations"] for name, row in cells.items()}
    assert evaluations["spsa"] == "2K" and evaluations["gaussian-smoothing"] == "K + 1"
    assert evaluations["coordinate-differences"] == "2d" and evaluations["reinforce"] == "K"
    assert evaluations["forward-gradient"] == "K, forward mode"
    assert evaluations["backpropagation"] == "1, and back"
    assert cells["openai-es"]["scale"] == "direction" and cells["mezo"]["scale"] == "gradient"
    assert cells["anp-dalm"]["scale"] == "direction" and cells["anp-dalm"]["probe"] == "gaussian on activities"
    assert cells["spsa"]["probe"] == "rademacher on weights" and cells["spsa"]["memory"] == "nothing"
    assert cells["node-perturbation"]["memory"] == "layer inputs per sample"
    assert cells["backpropagation"]["probe"] == "every coordinate"
    assert cells["decorrelated-node-perturbation"]["update"] == "SGD, decorrelate"
    assert {name for name, row in cells.items() if row["order"] == "1"} == set(
        named("forward-gradient", "backpropagation", "alignment")
    )
    assert all("exact" == cells[name]["feedback"] for name in named("forward-gradient", "backpropagation"))


def test_a_run_refuses_what_its_door_refuses(task):
    net, closure = task
    with pytest.raises(ValueError, match="samples must be"):
        zo.catalogue["spsa"].start(closure, net, lr=0.1, samples=0).step()
    with pytest.raises(ValueError, match="sigma must be"):
        zo.catalogue["spsa"].start(closure, net, lr=0.1, sigma=0).step()


def test_names_are_unique_and_unknown_ones_get_a_hint():
    with pytest.raises(KeyError, match="Did you mean 'zo-adam'"):
        zo.catalogue["zoadam"]
    fresh = Catalogue()
    row = Method("own", "my rule", zo.Gaussian(), zo.TwoPoint, zo.SignSGD, "here")
    fresh.add(row)
    with pytest.raises(ValueError, match="'own' is in the catalogue already"):
        fresh.add(row)
    assert list(fresh) == ["own"]
