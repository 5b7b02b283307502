"""The stream on a GPU, by Triton kernels: draws, perturbed copies and updates, with the bits of the plain torch code.

Noise is made in registers, so each operation costs one pass over the memory that it must touch.  The integers of the
generator are the same everywhere.  What float32 computes is the same as well, because each operation is rounded on its
own: the kernels run with ``enable_fp_fusion=False``, so that no product and sum become one, and the root is the
correctly rounded one.

Only what Triton 3.6 and 3.7 both have is used.  With ``TRITON_INTERPRET=1`` the kernels run on the CPU.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from zolib.noise import stream
from zolib.noise.rounding import HALF

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError(
        "zolib.noise.gpu needs Triton, which PyTorch's CUDA builds for Linux bring along; here there is none. Install "
        "triton 3.6 or newer, or leave the tensors to the torch reference in zolib.noise.stream and zolib.noise.fused"
    ) from error

if TYPE_CHECKING:
    from zolib.noise.fused import Term

_SIGN = tl.constexpr(stream.SIGN)
_NORMAL = tl.constexpr(stream.NORMAL)
_LOG = tl.constexpr(stream._LOG)
_LN2 = tl.constexpr(stream._LN2)
_SIN = tl.constexpr(stream._SIN)
_COS = tl.constexpr(stream._COS)
_TURN = tl.constexpr(stream._TURN)

ROWS = 128  # a program works on a tile of ROWS x 32 consecutive elements: whole blocks of every law


@triton.jit
def philox(c0, c1, c2, c3, k0, k1):
    """Philox4x32-10: four uint32 words.  Counter and key: any integers, taken modulo 2**32; they broadcast."""
    c0, c1, c2, c3 = c0.to(tl.uint32), c1.to(tl.uint32), c2.to(tl.uint32), c3.to(tl.uint32)
    k0, k1 = k0.to(tl.uint32), k1.to(tl.uint32)
    for _ in tl.static_range(10):
        high0, high2 = tl.umulhi(c0, 0xD2511F53), tl.umulhi(c2, 0xCD9E8D57)
        low0 = tl.mul(c0, 0xD2511F53, sanitize_overflow=False)
        low2 = tl.mul(c2, 0xCD9E8D57, sanitize_overflow=False)
        c0, c1, c2, c3 = high2 ^ c1 ^ k0, low2, high0 ^ c3 ^ k1, low0
        k0 = tl.add(k0, 0x9E3779B9, sanitize_overflow=False)
        k1 = tl.add(k1, 0xBB67AE85, sanitize_overflow=False)
    return c0, c1, c2, c3


@triton.jit
def sign(bits):
    """uint32, of which the top bit counts: float32 +1 where it is set, -1 where it is clear."""
    return ((bits & 0x80000000) ^ 0xBF800000).to(tl.float32, bitcast=True)


@triton.jit
def flipped(x, bits):
    """float32, its sign changed where the top bit of ``bits`` is set.  (``-x`` would be ``0 - x``: wrong for zeros.)"""
    return (x.to(tl.uint32, bitcast=True) ^ (bits & 0x80000000)).to(tl.float32, bitcast=True)


@triton.jit
def box_muller(first, second):
    """Two uint32 words: two float32 normals, by the operations of ``stream._normal`` in their order."""
    u = first.to(tl.float32) * 2.0**-32 + 2.0**-33
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23
    f = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    square = f * f
    p = tl.full(f.shape, _LOG[7], tl.float32)
    for i in tl.static_range(7):
        p = p * f + _LOG[6 - i]
    log = exponent.to(tl.float32) * _LN2 + (f + (square * f * p - square * 0.5))
    radius = tl.sqrt_rn(log * -2.0)

    turned = tl.add(second, 1 << 29, sanitize_overflow=False)  # its two top bits: the nearest quarter turn
    a = (second << 2).to(tl.int32, bitcast=True).to(tl.float32) * _TURN
    aa = a * a
    s = (tl.full(f.shape, _SIN[2], tl.float32) * aa + _SIN[1]) * aa + _SIN[0]
    c = (tl.full(f.shape, _COS[2], tl.float32) * aa + _COS[1]) * aa + _COS[0]
    sin = a + aa * a * s
    cos = (1.0 - aa * 0.5) + aa * aa * c
    odd = (turned & (1 << 30)) != 0
    x = flipped(tl.where(odd, sin, cos), tl.add(turned, 1 << 30, sanitize_overflow=False))
    y = flipped(tl.where(odd, cos, sin), turned)
    return radius * x, radius * y


@triton.jit
def _signs(first, parameter, sample, step, k0, k1, ROWS: tl.constexpr):
    block = first // 128 + tl.arange(0, ROWS // 4)
    w0, w1, w2, w3 = philox(block, parameter, sample, step, k0, k1)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3)).reshape(ROWS, 1)  # word r has the signs of row r
    return sign(words << (31 - tl.arange(0, 32))[None, :])


@triton.jit
def _normals(first, parameter, sample, step, k0, k1, ROWS: tl.constexpr):
    block = first // 4 + tl.arange(0, ROWS * 8)
    w0, w1, w2, w3 = philox(block, parameter, sample, step, k0, k1)
    z0, z1 = box_muller(w0, w1)
    z2, z3 = box_muller(w2, w3)
    return tl.join(tl.join(z0, z2), tl.join(z1, z3)).reshape(ROWS, 32)


@triton.jit
def _halves(first, parameter, sample, step, k0, k1, ROWS: tl.constexpr):
    block = first // 8 + tl.arange(0, ROWS * 4)
    w0, w1, w2, w3 = philox(block, parameter, sample, step, k0, k1)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))
    return tl.join(words & 0xFFFF, words >> 16).reshape(ROWS, 32).to(tl.int32)


@triton.jit
def _noise(first, parameter, sample, step, k0, k1, LAW: tl.constexpr, ROWS: tl.constexpr):
    """Elements first, first + 1, ... of a law, (ROWS, 32).  ``first`` is a multiple of 128."""
    if LAW == _SIGN:
        z = _signs(first, parameter, sample, step, k0, k1, ROWS)
    elif LAW == _NORMAL:
        z = _normals(first, parameter, sample, step, k0, k1, ROWS)
    else:
        z = _halves(first, parameter, sample, step, k0, k1, ROWS)
    return z


@triton.jit
def widened(x):
    """Half precision as float32; float32 and float64 as they are."""
    if x.dtype == tl.bfloat16:  # by its bits: the interpreter's own conversion is wrong for subnormal numbers
        x = (x.to(tl.int16, bitcast=True).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    elif x.dtype == tl.float16:
        x = x.to(tl.float32)
    return x


@triton.jit
def rounded(x, bits, dtype: tl.constexpr):
    """``rounding.stochastic_round``: float32 to one of its two neighbours in float16 or bfloat16."""
    i = tl.minimum(x.to(tl.int32, bitcast=True), 0x7FFF0000)  # a GPU's NaN is all ones: the dither would carry it to 0
    if dtype == tl.bfloat16:
        y = ((i + bits) >> 16).to(tl.int16).to(tl.bfloat16, bitcast=True)
    else:
        fine = bits >> 3
        normal = ((i + fine) & -0x2000).to(tl.float32, bitcast=True)
        size = (i & 0x7FFFFFFF).to(tl.float32, bitcast=True)
        small = tl.floor(size * 2.0**24 + fine.to(tl.float32) * 2.0**-13) * 2.0**-24
        small = (small.to(tl.int32, bitcast=True) | (i & -0x80000000)).to(tl.float32, bitcast=True)
        y = tl.where(size < 2.0**-14, small, normal).to(tl.float16)
    return y


@triton.jit
def _tile(first, ROWS: tl.constexpr):
    return first + (tl.arange(0, ROWS)[:, None] * 32 + tl.arange(0, 32)[None, :])


@triton.jit(do_not_specialize=["tiles", "parameter", "sample", "stride", "step", "k0", "k1"])
def _draw(out, numel, tiles, parameter, sample, stride, step, k0, k1, LAW: tl.constexpr, ROWS: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    row, first = program // tiles, program % tiles * (ROWS * 32)
    z = _noise(first, parameter, sample + row * stride, step, k0, k1, LAW, ROWS)
    at = _tile(first, ROWS)
    tl.store(out + row * numel + at, z, mask=at < numel)


@triton.jit(do_not_specialize=["scale", "parameter", "sample", "step", "k0", "k1", "r0", "r1"])
def _perturb(value, out, numel, scale, parameter, sample, step, k0, k1, r0, r1, LAW: tl.constexpr, ROWS: tl.constexpr):
    dtype: tl.constexpr = value.dtype.element_ty
    first = tl.program_id(0).to(tl.int64) * (ROWS * 32)
    at = _tile(first, ROWS)
    x = widened(tl.load(value + at, mask=at < numel, other=0.0))
    z = _noise(first, parameter, sample, step, k0, k1, LAW, ROWS)
    y = x + z.to(x.dtype) * scale.to(tl.int64).to(tl.float64, bitcast=True).to(x.dtype)
    if dtype == tl.float16 or dtype == tl.bfloat16:
        y = rounded(y, _halves(first, parameter, sample, step, r0, r1, ROWS), dtype)
    tl.store(out + at, y, mask=at < numel)


@triton.jit(do_not_specialize=["count", "parameter"])
def _update(value, numel, terms, count, parameter, LAW: tl.constexpr, ROWS: tl.constexpr):
    """terms: (count + 1, 5), each row a key, a sample, a step and the bits of a float64.

    The rows are the terms with their coefficients; the last one is the rounding's, with the decay.
    """
    dtype: tl.constexpr = value.dtype.element_ty
    wide: tl.constexpr = tl.float64 if dtype == tl.float64 else tl.float32
    first = tl.program_id(0).to(tl.int64) * (ROWS * 32)
    at = _tile(first, ROWS)
    x = widened(tl.load(value + at, mask=at < numel, other=0.0))
    total = tl.full((ROWS, 32), 0.0, wide)
    for _ in range(count):
        k0, k1, sample, step = tl.load(terms), tl.load(terms + 1), tl.load(terms + 2), tl.load(terms + 3)
        z = _noise(first, parameter, sample, step, k0, k1, LAW, ROWS)
        total += z.to(wide) * tl.load(terms + 4).to(tl.float64, bitcast=True).to(wide)
        terms += 5
    y = x * tl.load(terms + 4).to(tl.float64, bitcast=True).to(wide) + total
    if dtype == tl.float16 or dtype == tl.bfloat16:
        k0, k1, sample, step = tl.load(terms), tl.load(terms + 1), tl.load(terms + 2), tl.load(terms + 3)
        y = rounded(y, _halves(first, parameter, sample, step, k0, k1, ROWS), dtype)
    tl.store(value + at, y, mask=at < numel)


def draw(
    law: int, seed: int, step: int, samples: range, parts: Sequence[tuple[int, int]], device: torch.device | str
) -> list[Tensor]:
    """:func:`zolib.noise.stream.draw`: one launch for each part, all samples together."""
    dtype, result = stream._LAWS[law][2], []
    for parameter, numel in parts:
        out, tiles = torch.empty((len(samples), numel), dtype=dtype, device=device), _tiles(numel)
        where = signed(parameter), signed(samples.start), samples.step, signed(step)
        if out.numel():
            with torch.cuda.device_of(out):
                _draw[(tiles * len(samples),)](
                    out, numel, tiles, *where, *keys(seed, law), LAW=law, ROWS=ROWS, **UNFUSED
                )
        result.append(out)
    return result


def perturbed(value: Tensor, law: int, seed: int, step: int, sample: int, parameter: int, scale: float) -> Tensor:
    """:func:`zolib.noise.fused.perturbed`: reads the value once, writes the copy once.

    Elements count in logical row-major order; a value that is not contiguous is copied to be so, and back.
    """
    flat = value.detach().contiguous()
    _refuse_size(law, flat)
    out = torch.empty_like(flat)
    where = signed(parameter), signed(sample), signed(step)
    if flat.numel():
        with torch.cuda.device_of(flat):
            _perturb[(_tiles(flat.numel()),)](
                flat, out, flat.numel(), _bits(scale), *where, *keys(seed, law, stream.ROUNDING),
                LAW=law, ROWS=ROWS, **UNFUSED,
            )  # fmt: skip
    return out if value.is_contiguous() else torch.empty_like(value, requires_grad=False).copy_(out)


@torch.no_grad()
def update_(value: Tensor, law: int, terms: Sequence[Term], parameter: int, decay: float) -> None:
    """:func:`zolib.noise.fused.update_`, for at least one term: one pass over the value, however many there are.

    A value that is not contiguous is copied to be so, and back.
    """
    flat = value.detach().contiguous()
    _refuse_size(law, flat)
    rows = [[*keys(seed, law), sample, step, _bits(coefficient)] for seed, step, sample, coefficient in terms]
    seed, step, sample, _ = terms[-1]
    rows.append([*keys(seed, stream.ROUNDING), sample, step, _bits(decay)])
    table = torch.tensor(rows, dtype=torch.int64, device="cpu").to(flat.device, non_blocking=True)
    if flat.numel():
        with torch.cuda.device_of(flat):
            _update[(_tiles(flat.numel()),)](
                flat, flat.numel(), table, len(terms), signed(parameter), LAW=law, ROWS=ROWS, **UNFUSED
            )
    if value.is_contiguous():
        torch.autograd.graph.increment_version(value)
    else:
        value.copy_(flat)


UNFUSED = {"enable_fp_fusion": False}


def signed(word: int) -> int:
    """A 32-bit word as the int32 of the same bits, so that a kernel has one signature for all words."""
    return word - (word >> 31 << 32)


def keys(seed: int, *laws: int) -> list[int]:
    """The keys of several laws, one after another."""
    return [signed(word) for law in laws for word in stream.fold(seed, law)]


def _bits(x: float) -> int:
    """The bits of a float64, as int64; the kernel rounds it to the precision it works in."""
    return struct.unpack("<q", struct.pack("<d", x))[0]


def _tiles(numel: int) -> int:
    return -(-numel // (ROWS * 32))


def _refuse_size(law: int, value: Tensor) -> None:
    per = min(stream._LAWS[k][0] for k in (law, *([stream.ROUNDING] if value.dtype in HALF else [])))
    if value.numel() > per * stream._MASK:
        raise ValueError(f"a parameter has more than {per << 32} elements, the most that one stream numbers")
