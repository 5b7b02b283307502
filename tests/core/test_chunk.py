"""Many evaluations in one batched pass: the same numbers."""

import pytest
import torch
from torch import nn
from zoo import HOSTILE

import zolib as zo

BATCHABLE = ["mlp", "convolutions", "tied_embedding", "attention", "dropout_in_training", "group_and_layer_norm"]


@pytest.mark.parametrize("feedback", ["two-point", "one-sided", "ranks"])
@pytest.mark.parametrize("name", BATCHABLE)
def test_a_module_gives_the_same_gradient(name, feedback, seed, generator):
    module, closure = HOSTILE[name](generator)
    calls = []

    def counted():
        calls.append(1)
        return closure()

    results = []
    for chunk in (1, 5):
        torch.manual_seed(3)
        module.zero_grad()
        calls.clear()
        loss = zo.backward(counted, module, feedback=feedback, samples=6, sigma=0.1, seed=seed, chunk=chunk)
        results.append((loss, [p.grad for p in module.parameters()], len(calls), torch.get_rng_state()))
    (loss, grads, _, state), (other_loss, other_grads, passes, other_state) = results
    assert torch.allclose(loss, other_loss, rtol=1e-5)
    for a, b in zip(grads, other_grads, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=2e-5)
    assert torch.equal(state, other_state)
    assert passes == {"two-point": 3, "one-sided": 3, "ranks": 3}[feedback]  # 12 in 3 passes; 6 in 2, and a clean one


@pytest.mark.parametrize("chunk", [2, 7, 1000])
def test_a_function_of_a_tree_gives_the_same_gradient(chunk, seed):
    x = {"a": torch.linspace(-1, 1, 6, dtype=torch.float64).view(2, 3), "b": torch.tensor(0.5, dtype=torch.float64)}

    def f(t):
        return (t["a"].sin() * t["b"]).sum()

    one, many = (zo.grad(f, samples=10, sigma=0.1, seed=seed, chunk=c)(x) for c in (1, chunk))
    assert torch.allclose(one["a"], many["a"], rtol=1e-10) and torch.allclose(one["b"], many["b"], rtol=1e-10)


def test_what_cannot_be_batched_is_refused_with_the_cure(generator):
    module, closure = HOSTILE["batch_norm_in_training"](generator)
    before = {n: b.clone() for n, b in module.named_buffers()}
    with pytest.raises(RuntimeError, match="(?s)chunk=4: these evaluations cannot be batched .* Use chunk=1"):
        zo.backward(closure, module, samples=4, chunk=4, seed=0)
    with pytest.raises(RuntimeError, match="Use chunk=1"):
        zo.grad(lambda x: x.sum().item(), samples=4, chunk=4, seed=0)(torch.ones(3))
    assert all(torch.equal(before[n], b) for n, b in module.named_buffers())
    with pytest.raises(ValueError, match="chunk must be at least 1"):
        zo.backward(closure, module, chunk=0)


def test_a_loss_of_the_wrong_kind_is_still_named(generator):
    net = nn.Linear(3, 2)
    with pytest.raises(zo.LossError, match=r"shape \(5, 2\)"):
        zo.backward(lambda: net(torch.ones(5, 3)), net, samples=4, chunk=4, seed=0)
    with pytest.raises(zo.LossError, match="not finite"):
        zo.backward(lambda: net(torch.ones(5, 3)).sum() * float("inf"), net, samples=4, chunk=4, seed=0)
