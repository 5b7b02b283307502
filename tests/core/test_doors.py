"""Noise on nodes, exact slopes and wrong use, by way of the front doors: zo.grad, zo.backward, zo.estimate."""

import copy
import itertools

import pytest
import torch
from node_nets import build
from node_nets import estimate as by_hand
from torch import nn
from torch.nn import functional as F

import zolib as zo

X = torch.linspace(-1, 1, 24).view(8, 3)
WEIGHT_PROBES = ["gaussian", "rademacher", "sphere", "coordinate", "low-rank", zo.Orthogonal(2)]


@pytest.fixture
def net():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    return model


def refused(net, closure, error, match, model=None, **settings):
    """zo.backward and zo.estimate raise, and nothing has changed."""
    state, rng = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    grads = [p.grad.clone() for p in net.parameters()]
    for door in (zo.backward, zo.estimate):
        with pytest.raises(error, match=match) as caught:
            door(closure, net if model is None else model, seed=0, **settings)
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert all(torch.equal(g, p.grad) for g, p in zip(grads, net.parameters(), strict=True))
    return str(caught.value)


# --- modules as they are ----------------------------------------------------------------------------------------------

NETS = ["mlp", "cnn", "lstm", "attention"]
PARTS = [
    ("nodes", "two-point", zo.Nodes(), zo.TwoPoint()),
    ("nodes", "one-sided", zo.Nodes("gaussian"), zo.OneSided()),
    ("nodes", "exact", zo.Nodes(), zo.Exact()),
    ("nodes", "z-scores", zo.Nodes(), zo.ZScores()),
    ("activities", "two-point", zo.Activities(), zo.TwoPoint()),
    ("activities", "one-sided", zo.Activities("global"), zo.OneSided()),
]


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "-".join(parts[:2]))
@pytest.mark.parametrize("one_each", [False, True], ids=["scalar", "per-example"])
@pytest.mark.parametrize("name", NETS)
def test_noise_on_nodes_by_name_and_by_object(name, one_each, parts, seed, generator):
    """An unchanged module; the estimate is the one that the tests of node noise hold against the chain rule."""
    model, closure, _ = build(name, generator, one_each)
    settings = {"samples": 3, "sigma": 1e-3, "seed": seed, "step": 5}
    found = []
    for probe, feedback in (parts[:2], parts[2:]):
        model.zero_grad()
        loss = zo.backward(closure, model, probe=probe, feedback=feedback, **settings)
        found.append([p.grad for p in model.parameters()])
        assert loss.shape == () and loss.item() == pytest.approx(closure().mean().item(), abs=0.05)
    model.zero_grad()
    zo.estimate(closure, model, probe=parts[0], feedback=parts[1], **settings).accumulate()
    found.append([p.grad for p in model.parameters()])
    pairs = by_hand(closure, model, parts[2], parts[3], sigma=1e-3, seed=seed, step=5, samples=3).pairs
    assert [p is q for (p, _), q in zip(pairs, model.parameters(), strict=True)] == [True] * len(pairs)
    found.append([g for _, g in pairs])
    for grads in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], grads, strict=True))
    assert all(g.isfinite().all() and g.any() for g in found[0])


@pytest.mark.parametrize("name", NETS)
def test_a_reward_prediction_error_is_an_object_kept_over_the_run(name, generator):
    model, closure, _ = build(name, generator, one_each=True)
    feedback = zo.RewardPredictionError()
    for step in range(2):
        zo.backward(closure, model, probe="nodes", feedback=feedback, sigma=0.1, seed=0, step=step)
    assert feedback.expected.ndim == 0 and all(p.grad.any() for p in model.parameters())
    with pytest.raises(ValueError, match="make one object"):
        zo.backward(closure, model, probe="nodes", feedback="reward-prediction-error")


# --- wrong use --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", ["nodes", "activities", zo.Nodes(), zo.Activities("layer")], ids=str)
def test_node_noise_needs_a_module(probe, net):
    x = torch.ones(3)
    with pytest.raises(TypeError, match=r"only bare tensors; use zolib.backward.*or shake the tensors.*Gaussian\(\)"):
        zo.grad(torch.sum, probe=probe)(x)
    message = r"does not reach parameter 'model\[0\]'"
    refused(net, lambda: x.square().sum(), zo.ParameterError, message, [x], probe=probe)


def test_tensors_that_a_linear_map_consumes_are_enough():
    """Noise on nodes asks for pre-activations, not for classes of modules."""
    w = torch.ones(3, 2)
    zo.backward(lambda: (X @ w).square().sum(dim=1), [w], probe="nodes", seed=0)
    assert w.grad.shape == (3, 2) and w.grad.any()


@pytest.mark.parametrize("probe", ["gaussian", "nodes"])
@pytest.mark.parametrize("kind", [zo.Ranks, zo.ZScores, zo.Utilities])
def test_ranks_of_one_value(kind, probe, net):
    message = f"samples=1: {kind.__name__} compares evaluations with one another and needs at least 2"
    refused(net, lambda: net(X).square().mean(), ValueError, message, probe=probe, feedback=kind(antithetic=False))
    zo.backward(lambda: net(X).square().mean(), net, probe=probe, feedback=kind(antithetic=True), samples=1, seed=0)
    if probe == "gaussian":
        with pytest.raises(ValueError, match=message):
            zo.grad(torch.sum, feedback=kind(antithetic=False), samples=1, seed=0)(torch.ones(2))


class Doubled(torch.autograd.Function):
    """A function with values and a backward pass, and no forward derivative."""

    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2


@pytest.mark.parametrize("probe", ["gaussian", "nodes"])
def test_an_operation_without_a_forward_derivative(probe, net):
    """Torch names it, or its message does not and the line that asked for it is quoted."""
    doubled = lambda: Doubled.apply(net(X)).mean()  # noqa: E731
    through_numpy = lambda: torch.from_numpy(net(X).numpy()).mean()  # noqa: E731
    for name, closure in {"Doubled": doubled, "numpy": through_numpy}.items():
        refused(net, closure, NotImplementedError, f"{name}.*'two-point'", probe=probe, feedback="exact")
        zo.backward(closure, net, probe=probe, seed=0)  # asks for values only
    with pytest.raises(NotImplementedError, match="Doubled.*'two-point'"):
        zo.grad(lambda x: Doubled.apply(x).sum(), feedback="exact", samples=1)(torch.ones(2))
    refused(net, lambda: net(X).mean().item(), zo.LossError, "returned float", probe=probe, feedback="exact")


class Residual(nn.Module):
    """Two layers with one output tensor between them, or with one each."""

    def __init__(self, share):
        super().__init__()
        self.inner, self.outer, self.share = nn.Linear(3, 4), nn.Linear(3, 4), share

    def forward(self, x):
        if not self.share:
            return torch.tanh(self.inner(x) + self.outer(x.cos()))
        place = nn.Sequential(nn.Sequential(self.inner), nn.Identity())(x)  # one tensor from three modules
        place += self.outer(x.cos())
        return place.tanh_()


@pytest.mark.parametrize("probe", ["nodes", "activities"])
def test_modules_that_share_an_output(probe):
    """A pre-activation is the output of an operation, so a wrapper's output is its layer's, shaken once; and a tensor
    that two layers write to has got the noise of both when it is read."""
    plain, shared = Residual(share=False), Residual(share=True)
    shared.load_state_dict(plain.state_dict())
    for reduce in (lambda out: out.square().sum(dim=1), lambda out: out.square().mean()):
        for model in (plain, shared):
            model.zero_grad()
            zo.backward(lambda model=model, reduce=reduce: reduce(model(X)), model, probe=probe, samples=2, seed=3)
        for p, q in zip(plain.parameters(), shared.parameters(), strict=True):
            assert torch.allclose(p.grad, q.grad, rtol=1e-3, atol=1e-5)


def test_outputs_shared_too_late_or_too_soon_are_refused(net):
    weights, place = [nn.Parameter(torch.ones(3, 2)) for _ in range(2)], torch.zeros(8, 2)
    message = r"out=, a tensor that other operations share.*Leave out= away"
    closure = lambda: sum(torch.mm(X, w, out=place).sum() for w in weights)  # noqa: E731
    refused(net, closure, zo.ParameterError, message, weights, probe="nodes")
    assert all(w.grad is None for w in weights)
    square = nn.Linear(3, 3)

    def written():
        x = F.dropout(X.clone(), 0.5)  # draws: after an error the generator is as before
        x += square(x)
        return x.square().mean()

    message = r"writes in place into what a linear map has read.*x \+ layer"
    refused(net, written, RuntimeError, message, square, probe="nodes")
    assert square.weight.grad is None


def test_an_unknown_name_suggests_the_nearest(net):
    closure = lambda: net(X).mean()  # noqa: E731
    for given, meant in [("node", "nodes"), ("activity", "activities"), ("backprop", "backpropagation")]:
        refused(net, closure, ValueError, f"probe='{given}' is not known. Did you mean '{meant}'", probe=given)
        with pytest.raises(ValueError, match=f"Did you mean '{meant}'"):
            zo.grad(torch.sum, probe=given)
        with pytest.raises(ValueError, match=f"Did you mean '{meant}'"):
            zo.check(closure, net, probe=given)
    for given, meant in [("exakt", "exact"), ("utility", "utilities"), ("onesided", "one-sided")]:
        refused(net, closure, ValueError, f"feedback='{given}' is not known. Did you mean '{meant}'", feedback=given)
    for given, meant in [("anp_dalm", "anp-dalm"), ("nodeperturbation", "node-perturbation"), ("MeZO", "mezo")]:
        with pytest.raises(KeyError, match=f"no method '{given}' in the catalogue. Did you mean '{meant}'"):
            zo.catalogue[given]
    refused(net, closure, TypeError, r"probe=Nodes is the class; pass an object, Nodes\(\)", probe=zo.Nodes)
    refused(net, closure, TypeError, r"feedback=Exact is the class; pass an object", feedback=zo.Exact)


@pytest.mark.parametrize("feedback", ["two-point", "one-sided", "exact"])
@pytest.mark.parametrize("probe", WEIGHT_PROBES, ids=str)
def test_one_loss_per_example_and_noise_on_weights(probe, feedback, net):
    settings = {"probe": probe, "feedback": feedback, "samples": 2}
    message = refused(net, lambda: net(X).square().sum(dim=1), zo.LossError, r"shape \(8,\)", **settings)
    assert "cannot credit them one by one" in message and "loss.mean()" in message


@pytest.mark.parametrize("feedback", ["two-point", "one-sided", "exact", "ranks"])
@pytest.mark.parametrize("probe", ["nodes", "activities"])
def test_losses_whose_shape_changes(probe, feedback, net):
    if probe == "activities" and feedback in ("exact", "ranks"):
        return
    settings = {"probe": probe, "feedback": feedback, "samples": 2}
    for second in (lambda: net(X[:5]).square().sum(dim=1), lambda: net(X).square().mean()):
        calls = itertools.count()

        def closure(second=second, calls=calls):
            return second() if next(calls) % 2 else net(X).square().sum(dim=1)

        message = refused(net, closure, zo.LossError, r"of shape \(.*\) and then of shape \(", **settings)
        assert "Draw the batch outside the closure" in message


def test_what_node_noise_cannot_do_by_the_doors(net):
    losses = lambda: net(X).square().sum(dim=1)  # noqa: E731
    refused(net, losses, ValueError, "chunk: Nodes .* use chunk=1", probe="nodes", samples=2, chunk=2)
    refused(net, losses, TypeError, "use Nodes with an exact feedback", probe="activities", feedback="exact")
    message = "use 'one-sided' or 'two-point'"
    refused(net, losses, ValueError, message, probe="activities", feedback="utilities", samples=2)
    refused(net, lambda: net(X), zo.LossError, r"shape \(8, 2\); Nodes credits a scalar, or one loss", probe="nodes")
    refused(net, lambda: losses() * float("nan"), zo.LossError, "not finite", probe="nodes")
    refused(net, lambda: losses()[:3], zo.LossError, "batch_dim=0", probe="nodes")
    norm = nn.Sequential(net[0], nn.LayerNorm(4), net[2])
    closure = lambda: norm(X).square().sum(dim=1)  # noqa: E731
    refused(net, closure, zo.ParameterError, "'1.weight'.*layer_norm.*unused='skip'", norm, probe="nodes")
    zo.backward(closure, norm, probe="nodes", unused="skip", seed=0)
    assert norm[1].weight.grad is None and F.mse_loss(net[0].weight.grad, torch.full((4, 3), 7.0)) > 0
