"""Any tree, shape, stride and precision: the estimate has the form of its input, and the right values."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

import zolib as zo

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
shapes = st.lists(st.integers(0, 3), max_size=3).map(tuple)
leaves = st.tuples(shapes, st.sampled_from(DTYPES), st.booleans())
trees = st.recursive(
    leaves.map(lambda leaf: ("leaf", leaf)),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1),
        st.lists(inner, min_size=1, max_size=3).map(lambda items: ("tuple", items)),
    ),
    max_leaves=5,
)


def build(plan, generator):
    """A tree of tensors from a drawn plan."""
    if isinstance(plan, dict):
        return {key: build(item, generator) for key, item in plan.items()}
    if isinstance(plan, list):
        return [build(item, generator) for item in plan]
    kind, content = plan
    if kind == "tuple":
        return tuple(build(item, generator) for item in content)
    shape, dtype, strided = content
    x = torch.randn(shape, generator=generator, dtype=torch.float64).clamp(-2, 2).to(dtype)
    if strided and x.ndim > 1:  # the same logical values, laid out the other way round
        x = x.transpose(0, -1).contiguous().transpose(0, -1)
    return x


def quadratic(tree):
    """Sum of i x_i^2 / 2 over all leaves; the gradient is i x_i."""
    total, i = torch.zeros((), dtype=torch.float64), 1
    for leaf in pytree.tree_leaves(tree):
        total = (
            total + i * leaf.double().flatten().square().sum() / 2
        )  # flatten: one order of summation for all strides
        i += 1
    return total


@settings(max_examples=60, deadline=None)
@given(trees, st.integers(0, 2**32 - 1))
def test_all_coordinates_give_the_gradient_in_the_form_of_the_input(plan, seed):
    x = build(plan, torch.Generator().manual_seed(seed))
    before = pytree.tree_map(torch.clone, x)
    d = sum(leaf.numel() for leaf in pytree.tree_leaves(x))
    assume(d > 0)
    g = zo.grad(quadratic, probe="coordinate", samples=d, sigma=0.25, seed=seed)(x)
    flat, spec = pytree.tree_flatten(g)
    leaves, expected_spec = pytree.tree_flatten(x)
    assert spec == expected_spec
    for i, (estimate, leaf, original) in enumerate(zip(flat, leaves, pytree.tree_leaves(before), strict=True), 1):
        assert (estimate.shape, estimate.dtype, estimate.device) == (leaf.shape, leaf.dtype, leaf.device)
        assert torch.equal(leaf, original)
        # a half-precision x +- 0.25 is rounded by at most one unit in the last place of 2.25, out of 0.5 between them
        ulp = {torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9}.get(leaf.dtype, 1e-6)
        error = (estimate.double() - i * leaf.double()).abs()
        assert (error <= i * (2.5 * 2 * ulp / 0.5 + 0.02 * (ulp > 1e-6) * leaf.double().abs() + 1e-6)).all()


@settings(max_examples=40, deadline=None)
@given(trees, st.integers(0, 2**32 - 1), st.sampled_from(["gaussian", "rademacher", "sphere"]))
def test_the_layout_of_a_tensor_does_not_change_its_noise(plan, seed, probe):
    x = build(plan, torch.Generator().manual_seed(seed))
    assume(sum(leaf.numel() for leaf in pytree.tree_leaves(x)) > 0)
    contiguous = pytree.tree_map(lambda t: t.contiguous(), x)
    g = zo.grad(quadratic, probe=probe, samples=3, sigma=0.1, seed=seed)
    for a, b in zip(pytree.tree_leaves(g(x)), pytree.tree_leaves(g(contiguous)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_steps_number_the_calls_of_one_seed(dtype):
    g, x = zo.grad(lambda v: v.double().sum(), samples=2, sigma=0.25, seed=3), torch.ones(5, dtype=dtype)
    assert torch.equal(g(x, step=1), g(x, step=1))
    assert not torch.equal(g(x, step=1), g(x, step=2))
