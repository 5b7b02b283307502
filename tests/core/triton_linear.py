"""The perturbed linear layers against their reference, in Triton's interpreter: their weights bit for bit, their
products to the accuracy of float32.

test_triton.py runs this file in a process of its own; alone, it needs TRITON_INTERPRET=1 and ZOLIB_NOISE=reference.
"""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from triton_stream import same

from zolib.noise import fused, gpu_linear, perturbed_linear, stream
from zolib.noise.gpu_linear import Tiles
from zolib.noise.rounding import HALF

SMALL = Tiles(16, 16, 32, 4, 1)
LINEAR = [torch.float32, *HALF]
few = settings(max_examples=6, deadline=None)


def random_layer(rows, outs, ins, dtype, generator):
    x, w, b = (torch.randn(s, generator=generator).to(dtype) for s in ((rows, ins), (outs, ins), (outs,)))
    return x, (x + 0.1 * torch.randn(rows, ins, generator=generator)).to(dtype), w, b


def close(y, expected, x, w, dtype):
    """float32 sums in any order, then one rounding: |error| <= 2 n 2^-24 sum |x| |w|, and one spacing of the dtype."""
    n = x.shape[-1] + 2
    size = x.abs().double() @ (w.abs().double() + 1).mT + 10
    spacing = {torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}[dtype]
    assert y.dtype == dtype and y.shape == expected.shape
    error = (y.double() - expected.double()).abs()
    assert (error <= n * 2.0**-23 * size + spacing * expected.abs().double() + 2.0**-24).all()


PLACE = dict(seed=2**64 - 5, step=4, sample=2**32 - 1, parameter=7)


@few
@given(dtype=st.sampled_from(LINEAR), outs=st.integers(1, 20), ins=st.integers(1, 70))
@example(torch.bfloat16, 17, 64)
@example(torch.float16, 3, 40)
@example(torch.bfloat16, 3, 36)
@example(torch.float32, 3, 37)
def test_the_pair_has_the_weights_of_the_stream_bit_for_bit(dtype, outs, ins):
    """A product with the identity shows the weights; one with zeros the bias."""
    _, _, w, b = random_layer(1, outs, ins, dtype, torch.Generator().manual_seed(outs))
    unit, nothing = torch.eye(ins).to(dtype), torch.zeros(1, ins).to(dtype)
    shown = gpu_linear.pair(unit, unit, w, None, 0.01, tiles=SMALL, **PLACE)
    only_bias = gpu_linear.pair(nothing, nothing, w, b, 0.01, bias_parameter=9, tiles=SMALL, **PLACE)
    place = PLACE["seed"], PLACE["step"], PLACE["sample"]
    for y, z, scale in zip(shown, only_bias, (0.01, -0.01), strict=True):
        assert same(y.mT, fused.perturbed(w, stream.SIGN, *place, 7, scale))
        assert same(z[0], fused.perturbed(b, stream.SIGN, *place, 9, scale))


@few
@given(
    dtype=st.sampled_from(LINEAR),
    noise_on_bias=st.sampled_from([None, False, True]),
    rows=st.integers(0, 40),
    outs=st.integers(1, 20),
    ins=st.integers(1, 100),
)
@example(torch.bfloat16, True, 33, 18, 96)
@example(torch.float32, None, 1, 1, 1)
def test_the_pair_is_two_perturbed_layers(dtype, noise_on_bias, rows, outs, ins):
    x1, x2, w, b = random_layer(rows, outs, ins, dtype, torch.Generator().manual_seed(ins))
    settings_ = dict(PLACE, bias_parameter=9 if noise_on_bias else None)
    bias = None if noise_on_bias is None else b
    got = gpu_linear.pair(x1, x2, w, bias, 0.05, tiles=SMALL, **settings_)
    for y, expected, x in zip(got, perturbed_linear.pair(x1, x2, w, bias, 0.05, **settings_), (x1, x2), strict=True):
        close(y, expected, x, w, dtype)


def test_features_beyond_4096_count(generator):
    """EvoX 1.4.0 leaves them out."""
    x1, x2, w, _ = random_layer(2, 3, 5001, torch.float32, generator)
    x1[:, :4096], x2[:, :4096] = 0, 0
    got = gpu_linear.pair(x1, x2, w, None, 0.05, tiles=Tiles(16, 16, 128, 4, 1), **PLACE)
    for y, expected, x in zip(got, perturbed_linear.pair(x1, x2, w, None, 0.05, **PLACE), (x1, x2), strict=True):
        close(y, expected, x, w, torch.float32)
        assert y.abs().min() > 0
    a, b = torch.randn(2, 3, generator=generator), torch.randn(2, 5001, generator=generator)
    x = x1.unsqueeze(1)  # two members of one row
    y = gpu_linear.rank_one(x, w, a, b, 0.05, tiles=Tiles(16, 16, 128, 4, 1))
    close(y[:, 0], perturbed_linear.rank_one(x, w, a, b, 0.05)[:, 0], x1, w, torch.float32)


def test_any_shape_of_input_and_any_strides(generator):
    x1, x2, w, b = random_layer(30, 8, 24, torch.bfloat16, generator)
    plain = gpu_linear.pair(x1, x2, w, b, 0.05, tiles=SMALL, **PLACE)
    strided = [t.mT.contiguous().mT for t in (x1, x2, w)]
    again = gpu_linear.pair(strided[0].view(2, 15, 24), strided[1].view(2, 15, 24), strided[2], b, 0.05, **PLACE)
    for y, z in zip(plain, again, strict=True):
        assert z.shape == (2, 15, 8)
        close(z.view(30, 8), y, x1, w, torch.bfloat16)


@pytest.mark.parametrize("dtype", LINEAR)
@pytest.mark.parametrize(
    ("members", "rows", "outs", "ins", "bias"),
    [
        (3, 5, 20, 33, "shared"),
        (6, 16, 10, 64, "of each"),
        (20, 1, 17, 20, "of each"),
        (1, 1, 1, 1, "none"),
        (2, 40, 17, 16, "none"),
        (0, 3, 4, 5, "shared"),
    ],
    ids=["odd", "aligned", "a row each", "one", "many rows", "nobody"],
)
def test_a_population_of_rank_one(dtype, members, rows, outs, ins, bias, generator):
    x, _, w, _ = random_layer(members * rows, outs, ins, dtype, generator)
    a, b, biases = (torch.randn(members, n, generator=generator) for n in (outs, ins, outs))
    chosen = {"none": None, "shared": torch.ones(outs).to(dtype), "of each": biases.to(dtype)}[bias]
    x = x.view(members, rows, ins)
    y = gpu_linear.rank_one(x, w, a, b, 0.5, chosen, tiles=SMALL)
    expected = perturbed_linear.rank_one(x, w, a, b, 0.5, chosen)
    n = ins + 2
    size = (
        x.abs().double() @ w.abs().double().mT
        + x.abs().double() @ b.abs().double().unsqueeze(-1) * a.abs().double()[:, None]
    )
    spacing = {torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}[dtype]
    split = 0 if dtype == torch.float32 else 2.0**-15  # what two parts of a factor leave out
    assert y.dtype == dtype and y.shape == (members, rows, outs)
    error = (y.double() - expected.double()).abs()
    assert (error <= (n * 2.0**-23 + split) * (size + 4) + spacing * expected.abs().double()).all()


@pytest.mark.parametrize("dtype", HALF)
def test_factors_keep_the_digits_of_float32(dtype):
    b = torch.tensor([[1 + 2.0**-12, 1.0]])  # in half precision both are 1, and the difference would be lost
    x, w = torch.tensor([[[1.0, -1.0]]], dtype=dtype), torch.zeros(1, 2, dtype=dtype)
    assert gpu_linear.rank_one(x, w, torch.ones(1, 1), b, 1.0).item() == 2.0**-12


@pytest.mark.parametrize("rows", [3, 40, 130])
@pytest.mark.parametrize("dtype", LINEAR)
def test_the_chosen_tiles(dtype, rows, generator):
    x1, x2, w, b = random_layer(rows, 5, 48, dtype, generator)
    for y, expected, x in zip(
        gpu_linear.pair(x1, x2, w, b, 0.05, **PLACE), perturbed_linear.pair(x1, x2, w, b, 0.05, **PLACE), (x1, x2),
        strict=True,
    ):  # fmt: skip
        close(y, expected, x, w, dtype)
    zero, one = torch.zeros(1, 5), torch.ones(1, 48)
    close(gpu_linear.rank_one(x1[None], w, zero, one, 1.0, b)[0], (x1.float() @ w.float().mT + b.float()), x1, w, dtype)


def test_bad_layers_are_refused_by_name():
    x, w = torch.ones(2, 3), torch.ones(4, 3)
    with pytest.raises(ValueError, match="x_minus has shape"):
        gpu_linear.pair(x, x[:1], w, None, 0.1, **PLACE)
    with pytest.raises(ValueError, match=r"x must be torch.float32 with 3 features.*torch.float16"):
        gpu_linear.pair(x.half(), x.half(), w, None, 0.1, **PLACE)
    with pytest.raises(ValueError, match=r"x must be torch.float32 with 3 features.*\(1, 2, 4\)"):
        gpu_linear.rank_one(torch.ones(1, 2, 4), w, torch.ones(1, 4), torch.ones(1, 3), 0.1)
    with pytest.raises(ValueError, match=r"bias must be torch.float32 of shape \(4,\)"):
        gpu_linear.pair(x, x, w, torch.ones(3), 0.1, **PLACE)
    with pytest.raises(ValueError, match="weight must be a"):
        gpu_linear.pair(x.double(), x.double(), w.double(), None, 0.1, **PLACE)
    with pytest.raises(ValueError, match="b must be float32 of shape"):
        gpu_linear.rank_one(x[None], w, torch.ones(1, 4), torch.ones(1, 4), 0.1)
    with pytest.raises(ValueError, match="bias must have shape"):
        gpu_linear.rank_one(x[None], w, torch.ones(1, 4), torch.ones(1, 3), 0.1, torch.ones(3))
