"""The stream's Triton kernels against their reference, bit for bit, in Triton's interpreter.

test_triton.py runs this file in a process of its own; alone, it needs TRITON_INTERPRET=1 and ZOLIB_NOISE=reference.
"""

import json
import pathlib

import pytest
import torch
import triton
import triton.language as tl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from zolib.noise import fused, gpu, stream
from zolib.noise.gpu import _noise, box_muller, philox, rounded
from zolib.noise.rounding import HALF, stochastic_round

GOLDEN = json.loads(pathlib.Path(__file__).with_name("stream-v1.json").read_text())
LAWS = {"sign": stream.SIGN, "normal": stream.NORMAL, "rounding": stream.ROUNDING}
INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16}
WORD = st.integers(0, 2**32 - 1)
KEY = {"seed": st.integers(0, 2**64 - 1), "step": WORD, "sample": WORD, "parameter": WORD}
DTYPE = st.sampled_from([torch.float64, torch.float32, *HALF])
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


def test_the_committed_rounding_and_strides():
    x = torch.tensor([1.0, -0.1, 3e-5, 2e-6, 1000.0, -1e-3, 0, 0]) * 1.0001
    bits = torch.tensor([40000, 1, 65535, 30000, 12345, 54321, 0, 0], dtype=torch.int32)
    for dtype in HALF:
        out = torch.empty(8, dtype=dtype)
        _round[(1,)](x, bits, out, SIZE=8)
        assert [f"{b & 0xFFFF:04x}" for b in out[:6].view(torch.int16).tolist()] == GOLDEN[str(dtype)]
    moved = gpu.perturbed(torch.ones(4, 3).t(), stream.NORMAL, 0, 0, 0, 0, 0.5).flatten()
    assert [f"{b & 0xFFFFFFFF:08x}" for b in moved.view(torch.int32).tolist()] == GOLDEN["strided"]


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


def layout_of(x):
    """The strides that say where elements lie: of an axis with one entry, or of nothing, a stride says nothing."""
    return [stride for size, stride in zip(x.shape, x.stride(), strict=True) if size > 1] if x.numel() else []


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
    assert layout_of(moved) == layout_of(expected)


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
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("law", ["sign", "normal"])
def test_many_terms_take_one_launch_and_autograd_learns_of_it(law, dtype, layout, generator, monkeypatch):
    launches = []
    run = gpu._update.run
    monkeypatch.setattr(gpu._update, "run", lambda *a, **k: launches.append(1) or run(*a, **k))
    value = torch.nn.Parameter(weights((9, 500), dtype, layout, generator))
    expected, before = value.detach().clone(), value._version
    terms = [fused.Term(5, 1, k, 1e-3 * (k - 7)) for k in range(9)]
    gpu.update_(value, LAWS[law], terms, 3, 0.99)
    fused.update_(expected, LAWS[law], terms, 3, 0.99)
    assert same(value.detach(), expected)
    assert launches == [1] and value._version > before
