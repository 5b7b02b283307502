"""The Triton kernels against their reference, bit for bit, on the CPU: run by test_triton.py in a process of its own.

Alone: ``TRITON_INTERPRET=1 ZOLIB_NOISE=reference python -m pytest tests/core/triton_interpreted.py``.
"""

import json
import pathlib

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zolib.noise import fused, gpu, gpu_linear, perturbed_linear, stream
from zolib.noise.gpu import _noise, box_muller, philox, rounded
from zolib.noise.gpu_linear import Tiles
from zolib.noise.rounding import HALF, stochastic_round

GOLDEN = json.loads(pathlib.Path(__file__).with_name("stream-v1.json").read_text())
LAWS = {"sign": stream.SIGN, "normal": stream.NORMAL, "rounding": stream.ROUNDING}
INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16}
SMALL = Tiles(16, 16, 32, 4, 1)
WORD = st.integers(0, 2**32 - 1)
KEY = {"seed": st.integers(0, 2**64 - 1), "step": WORD, "sample": WORD, "parameter": WORD}
DTYPE = st.sampled_from([torch.float64, torch.float32, *HALF])
LINEAR = [torch.float32, *HALF]
few = settings(max_examples=10, deadline=None)


def same(x, y):
    """Equal to the bit, the sign of zero included."""
    assert (x.dtype, x.shape) == (y.dtype, y.shape)
    integers = INTEGERS[x.dtype.itemsize]
    return torch.equal(x.contiguous().view(integers), y.contiguous().view(integers))


def as_words(values):
    """Numbers in [0, 2**32) as the int32 tensor of the same bits."""
    return torch.as_tensor(values, dtype=torch.int64).to(torch.int32)


# The pieces


@triton.jit
def _philox(counter, key, out):
    c0, c1, c2, c3 = tl.load(counter), tl.load(counter + 1), tl.load(counter + 2), tl.load(counter + 3)
    w0, w1, w2, w3 = philox(c0, c1, c2, c3, tl.load(key), tl.load(key + 1))
    tl.store(out, w0.to(tl.int64))
    tl.store(out + 1, w1.to(tl.int64))
    tl.store(out + 2, w2.to(tl.int64))
    tl.store(out + 3, w3.to(tl.int64))


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123's known answers
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_published_answers(counter, key, expected):
    out = torch.zeros(4, dtype=torch.int64)
    _philox[(1,)](*(as_words([int(w, 16) for w in text.split()]) for text in (counter, key)), out)
    assert " ".join(f"{w:08x}" for w in out.tolist()) == expected


@triton.jit
def _box_muller(first, second, x, y, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    a, b = tl.load(first + i).to(tl.uint32, bitcast=True), tl.load(second + i).to(tl.uint32, bitcast=True)
    z0, z1 = box_muller(a, b)
    tl.store(x + i, z0)
    tl.store(y + i, z1)


def test_normals_of_the_extreme_words(generator):
    """Radius 0 and the largest one, angles of 0 and of every quarter turn: signs of zero included."""
    edges = [e + d for e in (0, 1 << 29, 1 << 30, 3 << 29, 1 << 31, 5 << 29, 3 << 30, 7 << 29) for d in (-1, 0, 1)]
    edges = torch.tensor([e % 2**32 for e in edges])
    grid = torch.cartesian_prod(edges, edges)
    words = torch.cat([grid, torch.randint(2**32, (4096 - len(grid), 2), generator=generator)])
    expected = stream._normal(torch.cat([words, words], dim=1))[:, :2]
    x, y = torch.empty(4096), torch.empty(4096)
    _box_muller[(1,)](as_words(words[:, 0]), as_words(words[:, 1]), x, y, SIZE=4096)
    assert same(torch.stack([x, y], dim=1), expected)


@triton.jit
def _round(x, bits, out, SIZE: tl.constexpr):
    i = tl.arange(0, SIZE)
    tl.store(out + i, rounded(tl.load(x + i), tl.load(bits + i), out.dtype.element_ty))


@pytest.mark.parametrize("dtype", HALF)
def test_stochastic_rounding(dtype, generator):
    some = torch.randint(-(2**31), 2**31, (3000,), generator=generator).to(torch.int32).view(torch.float32)
    near = torch.randn(1072, generator=generator) * 2.0 ** torch.randint(-28, 17, (1072,), generator=generator)
    edges = torch.tensor([0.0, -0.0, 65504, 65519, 1e38, torch.inf, -torch.inf, 2.0**-14, -(2.0**-24), 1e-45, 3e-39, 1])
    edges = torch.cat([edges, torch.nextafter(edges, torch.tensor(0.0))])
    x = torch.cat([some.nan_to_num(), near, edges])
    bits = torch.randint(2**16, x.shape, generator=generator, dtype=torch.int32)
    out = torch.empty(4096, dtype=dtype)
    _round[(1,)](x, bits, out, SIZE=4096)
    assert same(out, stochastic_round(x, bits, dtype))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("nan", [0x7FC00000, 0x7FFFFFFF], ids=["a processor's", "a GPU's"])
def test_not_a_number_stays_one(dtype, nan):
    out = torch.zeros(8, dtype=dtype)
    _round[(1,)](as_words([nan] * 8).view(torch.float32), torch.arange(8, dtype=torch.int32) * 9362, out, SIZE=8)
    assert out.isnan().all()


@triton.jit
def _from(out, first, LAW: tl.constexpr, ROWS: tl.constexpr):
    at = tl.arange(0, ROWS)[:, None] * 32 + tl.arange(0, 32)[None, :]
    parameter, sample, step = tl.full((), 3, tl.int32), tl.full((), 2, tl.int32), tl.full((), 1, tl.int32)
    k0, k1 = tl.full((), 17, tl.int32), tl.full((), -5, tl.int32)
    tl.store(out + at, _noise(first, parameter, sample, step, k0, k1, LAW, ROWS))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("first", [2**31 - 128, 2**32, 2**33 + 384])
def test_an_index_has_more_than_32_bits(law, first):
    per, transform, dtype = stream._LAWS[LAWS[law]]
    out = torch.empty(256, dtype=dtype)
    _from[(1,)](out, first, LAW=LAWS[law], ROWS=8)
    block = torch.arange(first // per, (first + 256) // per)
    words = stream.philox((block, 3, 2, 1), (17, 2**32 - 5))
    assert same(out, transform(torch.stack(words, dim=-1)).flatten())


# The stream's operations


@pytest.mark.parametrize("name", [name for name in GOLDEN if name.split()[0] in LAWS])
def test_the_committed_numbers(name):
    law, *rest = name.split()
    seed, step, sample, parameter, count = map(int, rest)
    drawn = gpu.draw(LAWS[law], seed, step, range(sample, sample + 1), [(parameter, count)], "cpu")
    bits = drawn[0][0, -9:].view(torch.int32).tolist()
    assert [f"{b & 0xFFFFFFFF:08x}" for b in bits] == GOLDEN[name]


@few
@given(
    law=st.sampled_from(sorted(LAWS.values())),
    seed=KEY["seed"],
    step=WORD,
    start=st.integers(0, 2**32 - 10),
    count=st.integers(0, 3),
    stride=st.integers(1, 3),
    parts=st.lists(st.tuples(WORD, st.integers(0, 500)), min_size=1, max_size=3),
)
@example(stream.NORMAL, 2**64 - 1, 2**32 - 1, 0, 2, 1, [(2**32 - 1, 4096), (0, 4097), (5, 1)])
def test_draw(law, seed, step, start, count, stride, parts):
    samples = range(start, start + count * stride, stride)
    drawn = gpu.draw(law, seed, step, samples, parts, "cpu")
    for x, y in zip(drawn, stream.draw(law, seed, step, samples, parts), strict=True):
        assert same(x, y)


def weights(shape, dtype, layout, generator):
    """Weights of many sizes, with some zeros of both signs, some of them strided."""
    full = [2 * n for n in shape] if layout == "every other" else list(shape)[:: -1 if layout == "transposed" else 1]
    value = torch.randn(full, generator=generator, dtype=torch.float64) * 10.0 ** torch.randint(
        -9, 5, full, generator=generator
    )
    value = value.masked_fill(torch.rand(full, generator=generator) < 0.1, -0.0).to(dtype)
    if layout == "every other":
        value = value[tuple(slice(None, None, 2) for _ in shape)]
    return value.permute(tuple(reversed(range(value.dim())))) if layout == "transposed" else value


WEIGHTS = {
    "dtype": DTYPE,
    "law": st.sampled_from([stream.SIGN, stream.NORMAL]),
    "shape": st.lists(st.integers(0, 9), min_size=0, max_size=3).map(tuple),
    "layout": st.sampled_from(["plain", "transposed", "every other"]),
}
NUMBER = st.sampled_from([0.0, 1.0, -1e-3, 0.37, 3e-8, -2.5e4])


@few
@given(**WEIGHTS, **KEY, scale=NUMBER)
@example(torch.bfloat16, stream.NORMAL, (67, 67), "transposed", 0, 0, 0, 0, 1e-3)
@example(torch.float16, stream.SIGN, (4097,), "plain", 2**64 - 1, 2**32 - 1, 2**32 - 1, 2**32 - 1, 1e-3)
def test_perturbed(dtype, law, shape, layout, seed, step, sample, parameter, scale):
    value = weights(shape, dtype, layout, torch.Generator().manual_seed(seed))
    before = value.clone()
    moved = gpu.perturbed(value, law, seed, step, sample, parameter, scale)
    expected = fused.perturbed(value, law, seed, step, sample, parameter, scale)
    assert same(moved, expected) and same(value, before)
    assert moved.stride() == expected.stride() or value.numel() < 2


@few
@given(**WEIGHTS, parameter=WORD, decay=st.sampled_from([1.0, 0.9, 0.0]), data=st.data())
def test_update(dtype, law, shape, layout, parameter, decay, data):
    terms = [
        fused.Term(*data.draw(st.tuples(KEY["seed"], WORD, WORD, NUMBER))) for _ in range(data.draw(st.integers(1, 4)))
    ]
    given_value, expected = (
        weights(shape, dtype, layout, torch.Generator().manual_seed(terms[0].seed)) for _ in range(2)
    )
    fused.update_(expected, law, terms, parameter, decay)
    if any(t.coefficient for t in terms) or decay != 1:  # otherwise nothing is called
        gpu.update_(given_value, law, terms, parameter, decay)
    assert same(given_value, expected)


@pytest.mark.parametrize("layout", ["plain", "every other"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_many_terms_take_one_launch_and_autograd_learns_of_it(dtype, layout, generator, monkeypatch):
    launches = []
    run = gpu._update.run
    monkeypatch.setattr(gpu._update, "run", lambda *a, **k: launches.append(1) or run(*a, **k))
    value = torch.nn.Parameter(weights((9, 500), dtype, layout, generator))
    expected, before = value.detach().clone(), value._version
    terms = [fused.Term(5, 1, k, 1e-3 * (k - 7)) for k in range(20)]
    gpu.update_(value, stream.SIGN, terms, 3, 0.99)
    fused.update_(expected, stream.SIGN, terms, 3, 0.99)
    assert same(value.detach(), expected)
    assert launches == [1] and value._version > before


# Linear layers


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
    ("members", "rows", "outs", "ins"),
    [(3, 5, 20, 33), (6, 16, 10, 64), (20, 1, 17, 20), (1, 1, 1, 1), (2, 40, 17, 16), (0, 3, 4, 5)],
    ids=["odd", "aligned", "a row each", "one", "many rows", "nobody"],
)
@pytest.mark.parametrize("bias", ["none", "shared", "of each"])
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
    with pytest.raises(TypeError, match=r"weight is torch.float32, but .* torch.float16"):
        gpu_linear.pair(x.half(), x.half(), w, None, 0.1, **PLACE)
    with pytest.raises(ValueError, match="weight must be a"):
        gpu_linear.pair(x.double(), x.double(), w.double(), None, 0.1, **PLACE)
    with pytest.raises(ValueError, match="b must be float32 of shape"):
        gpu_linear.rank_one(x[None], w, torch.ones(1, 4), torch.ones(1, 4), 0.1)
    with pytest.raises(ValueError, match="bias must have shape"):
        gpu_linear.rank_one(x[None], w, torch.ones(1, 4), torch.ones(1, 3), 0.1, torch.ones(3))
