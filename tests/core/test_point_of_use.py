"""Noise at the point of use does what perturbed weights would do, and leaves the weights alone."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call
from zoo import HOSTILE

import zolib as zo
from zolib.directions import Directions
from zolib.probes import PROBES
from zolib.subject import Subject, quiet_torch

hostile = pytest.mark.parametrize("build", HOSTILE.values(), ids=HOSTILE.keys())


def written(module, closure, values):
    """The loss with the values really written into a copy's parameters: what every probe has to equal."""
    saved = {name: p.detach().clone() for name, p in module.named_parameters()}
    buffers = copy.deepcopy(dict(module.named_buffers()))
    state = torch.get_rng_state()
    try:
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(values[name])
            return closure().item()
    finally:
        torch.set_rng_state(state)
        with torch.no_grad():
            for name, p in module.named_parameters():
                p.copy_(saved[name])
            for name, b in module.named_buffers():
                b.copy_(buffers[name])


@hostile
@pytest.mark.parametrize("sigma", [0.3, -1e-3])
def test_an_evaluation_equals_one_with_the_weights_written(build, sigma, seed, generator):
    module, closure = build(generator)
    subject = Subject(closure, module, "Gaussian")
    directions = Directions(zo.Gaussian(), subject.targets, seed, 0, 1)
    values = {t.name: directions.perturbed(0, j, sigma) for j, t in enumerate(subject.targets)}
    expected = written(module, closure, values)
    state = torch.get_rng_state()
    with quiet_torch():
        loss = subject.evaluate(lambda j: directions.perturbed(0, j, sigma), "raise").item()
    torch.set_rng_state(state)
    assert loss == pytest.approx(expected, rel=1e-6, abs=5e-7)
    assert abs(loss - closure().item()) > 1e-6, "the probe makes no difference: this case shows nothing"


@pytest.mark.parametrize("name", ["attention", "lstm", "convolutions", "tied_embedding", "transformer_layer"])
def test_an_evaluation_equals_functional_call(name, seed, generator):
    module, _ = HOSTILE[name](generator)
    shape = {"attention": (2, 5, 8), "transformer_layer": (2, 5, 8), "convolutions": (2, 2, 6), "lstm": (2, 5, 4)}
    x = torch.randn(shape.get(name, (2, 5)), generator=generator)

    def first(out):
        return (out[0] if isinstance(out, tuple) else out).sum()

    subject = Subject(lambda: first(module(x)), module, "Gaussian")
    directions = Directions(zo.Gaussian(), subject.targets, seed, 0, 1)
    values = {t.name: directions.perturbed(0, j, 0.1) for j, t in enumerate(subject.targets)}
    with torch.no_grad():
        expected = first(functional_call(module, values, (x,))).item()
    with quiet_torch():
        loss = subject.evaluate(lambda j: directions.perturbed(0, j, 0.1), "raise").item()
    assert loss == pytest.approx(expected, rel=1e-6, abs=5e-7)


@hostile
@pytest.mark.parametrize("feedback", ["two-point", "one-sided"])
def test_weights_buffers_and_random_state_are_as_after_one_evaluation(build, feedback, seed, generator):
    module, closure = build(generator)
    twin = copy.deepcopy(module.state_dict())
    torch.manual_seed(5)
    closure()
    expected_buffers = {n: b.clone() for n, b in module.named_buffers()}
    state = torch.get_rng_state()
    module.load_state_dict(twin)  # max_norm: a plain pass clips the weights, a probe must not
    torch.manual_seed(5)
    pointers = {n: p.data_ptr() for n, p in module.named_parameters()}
    zo.backward(closure, module, feedback=feedback, samples=3, sigma=1e-3, seed=seed)
    for name, p in module.named_parameters():
        assert torch.equal(p, twin[name]), name
        assert p.data_ptr() == pointers[name]
        assert p.grad is not None and p.grad.isfinite().all()
    assert torch.equal(torch.get_rng_state(), state)
    tolerance = 0 if feedback == "one-sided" else 1e-2  # two-point: buffers of a pass 1e-3 away
    for name, b in module.named_buffers():
        assert torch.allclose(b.double(), expected_buffers[name].double(), rtol=tolerance, atol=tolerance), name


def test_half_precision_weights_are_bit_identical_after_a_thousand_probes(generator):
    module, _ = HOSTILE["mlp"](generator)
    x = torch.randn(3, 4, generator=generator)
    for dtype in (torch.bfloat16, torch.float16):
        module.to(dtype)
        before = copy.deepcopy(module.state_dict())
        inputs = x.to(dtype)
        zo.backward(lambda inputs=inputs: module(inputs).float().square().mean(), module, samples=500, seed=0)
        assert all(torch.equal(before[n], p) for n, p in module.named_parameters())


def test_a_compiled_module_steps_aside(generator, seed):
    module, _ = HOSTILE["mlp"](generator)
    x = torch.randn(3, 4, generator=generator)
    compiled = torch.compile(module, backend="eager")
    compiled(x)  # compiled before it is probed
    zo.backward(lambda: compiled(x).square().mean(), module, samples=20, seed=seed)
    through = [p.grad for p in module.parameters()]
    module.zero_grad()
    zo.backward(lambda: module(x).square().mean(), module, samples=20, seed=seed)
    assert all(torch.equal(a, p.grad) for a, p in zip(through, module.parameters(), strict=True))


def test_a_weight_used_many_times_is_perturbed_once(generator, monkeypatch):
    module, closure = HOSTILE["recurrent_cell_used_many_times"](generator)
    calls = []
    original = Directions.perturbed
    monkeypatch.setattr(Directions, "perturbed", lambda self, k, j, s: calls.append(j) or original(self, k, j, s))
    zo.backward(closure, module, samples=1, seed=0)
    assert sorted(calls) == sorted([0, 1, 2, 3] * 2)
    first = [p.grad for p in module.parameters()]
    module.zero_grad()
    for budget in ("MEMO_BYTES", "FIRST_MEMO_BYTES"):  # none: made again at each use, the same
        monkeypatch.setattr(f"zolib.noise.point_of_use.{budget}", 0)
    zo.backward(closure, module, samples=1, seed=0)
    assert len(calls) > 8 + 8
    assert all(torch.equal(a, p.grad) for a, p in zip(first, module.parameters(), strict=True))


def test_frozen_parameters_keep_their_place_in_the_stream(generator):
    module, closure = HOSTILE["mlp"](generator)
    zo.backward(closure, module, probe="rademacher", samples=1, seed=0)
    free = [p.grad for p in module.parameters()]
    module.zero_grad()
    module[0].requires_grad_(False)
    zo.backward(closure, module, probe="rademacher", samples=1, seed=0)
    assert module[0].weight.grad is None
    for a, p in zip(free[2:], list(module.parameters())[2:], strict=True):  # the same signs, another slope
        assert torch.equal(a.sign() * a.flatten()[0].sign(), p.grad.sign() * p.grad.flatten()[0].sign())


def test_gradients_accumulate_and_reports_are_the_losses(generator, seed):
    module, closure = HOSTILE["mlp"](generator)
    clean = closure().item()
    assert zo.backward(closure, module, feedback="one-sided", seed=seed).item() == pytest.approx(clean, abs=1e-7)
    once = [p.grad.clone() for p in module.parameters()]
    two = zo.backward(closure, module, feedback="one-sided", seed=seed)
    assert not two.requires_grad and two.ndim == 0
    for g, p in zip(once, module.parameters(), strict=True):
        assert torch.equal(p.grad, g + g)
    assert zo.backward(closure, module, sigma=1e-4, seed=seed).item() == pytest.approx(clean, abs=1e-4)


def test_a_list_of_parameters_and_a_module_give_the_same(generator, seed):
    module, closure = HOSTILE["mlp"](generator)
    zo.backward(closure, module, samples=4, seed=seed)
    expected = [p.grad for p in module.parameters()]
    module.zero_grad()
    zo.backward(closure, list(module.parameters()), samples=4, seed=seed)
    assert all(torch.equal(a, p.grad) for a, p in zip(expected, module.parameters(), strict=True))


@pytest.mark.parametrize(("optimizer", "lr"), [(torch.optim.Adam, 0.05), (torch.optim.SGD, 0.2)])
def test_training_lowers_the_loss_with_any_optimizer(optimizer, lr, generator):
    module, _ = HOSTILE["mlp"](generator)
    x = torch.randn(64, 4, generator=generator)
    y = (x[:, 0] * x[:, 1] > 0).long()
    steps = optimizer(module.parameters(), lr=lr)
    losses = []
    for step in range(400):
        steps.zero_grad()
        losses.append(
            zo.backward(lambda: nn.functional.cross_entropy(module(x), y), module, samples=8, seed=step).item()
        )
        steps.step()
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("probe", ["gaussian", "rademacher"])
def test_a_closure_may_differentiate_with_respect_to_its_inputs(probe, seed, generator):
    """As a physics-informed loss does: noise is drawn inside a transform of torch.func, and is no part of it."""
    net, x = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1)), torch.randn(6, 1, generator=generator)

    def loss(f):
        slopes = torch.func.vmap(torch.func.grad(lambda t: f(t).squeeze()))(x)
        return (slopes + f(x)).square().mean()

    subject = Subject(lambda: loss(net), net, "Gaussian")
    directions = Directions(PROBES[probe](), subject.targets, seed, 0, 1)
    values = {t.name: directions.perturbed(0, j, 0.1) for j, t in enumerate(subject.targets)}
    expected = loss(lambda t: functional_call(net, values, (t,)))
    with quiet_torch():
        found = subject.evaluate(lambda j: directions.perturbed(0, j, 0.1), "raise")
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
