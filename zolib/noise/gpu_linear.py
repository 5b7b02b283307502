"""Linear layers that make noise inside the matrix product: Triton kernels for :mod:`zolib.noise.perturbed_linear`.

Each is one launch, for any number of rows and features.

``pair`` shares each tile of the weight between the two evaluations: it is read once, the signs and the rounding bits
are drawn once, in registers, and the two perturbed tiles go to the matrix units.  The perturbed weights are never in
memory.  A tile is formed again for each tile of rows, so this pays while there are few rows, where reading the weights
is what costs; with many, two copies from :func:`zolib.noise.gpu.perturbed` and two plain products are faster.

``rank_one`` is a plain matrix product with one more column, ``x b``, and an epilogue that adds ``(x b) a``.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zolib.noise import stream
from zolib.noise.gpu import keys, philox, rounded, sign, signed, tl, triton, widened


class Tiles(NamedTuple):
    """How a product is cut up: rows, outputs and inputs of a tile, warps of a program, and depth of its pipeline."""

    rows: int
    outs: int
    ins: int
    warps: int
    stages: int


GROUP = 8  # tiles of rows that go together, so that the cache holds what they share
_WORDS = ["scale", "parameter", "bias_parameter", "sample", "step", "k0", "k1", "r0", "r1"]


@triton.jit
def _pick(w0, w1, w2, w3, i):
    """Word ``i % 4``."""
    late = (i & 2) != 0
    return tl.where((i & 1) != 0, tl.where(late, w3, w1), tl.where(late, w2, w0))


@triton.jit
def _place(program, row_tiles, out_tiles, GROUP: tl.constexpr):
    """The tile of rows and the tile of outputs of a program."""
    width = GROUP * out_tiles
    first = program // width * GROUP
    size = tl.minimum(row_tiles - first, GROUP)
    return first + program % width % size, program % width // size


@triton.jit
def _vector_noise(at, parameter, sample, step, k0, k1, r0, r1):
    """Signs and rounding bits of elements ``at``, one call of the generator for each."""
    w0, w1, w2, w3 = philox(at >> 7, parameter, sample, step, k0, k1)
    s = sign(_pick(w0, w1, w2, w3, at >> 5) << (31 - (at & 31)).to(tl.uint32))
    h0, h1, h2, h3 = philox(at >> 3, parameter, sample, step, r0, r1)
    return s, ((_pick(h0, h1, h2, h3, at >> 1) >> ((at & 1) * 16).to(tl.uint32)) & 0xFFFF).to(tl.int32)


@triton.jit
def _pair_of(v, shift, bits, dtype: tl.constexpr):
    """``v + shift`` and ``v - shift`` in float32, rounded to ``dtype``."""
    if dtype == tl.float32:
        plus, minus = v + shift, v - shift
    else:
        plus, minus = rounded(v + shift, bits, dtype), rounded(v - shift, bits, dtype)
    return plus, minus


@triton.jit(do_not_specialize=_WORDS)
def _pair(
    x_plus, x_minus, weight, bias, y_plus, y_minus, rows, outs, ins, row_tiles, out_tiles,
    scale, parameter, bias_parameter, sample, step, k0, k1, r0, r1,
    GRAIN: tl.constexpr, OCTET: tl.constexpr,
    BIAS: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    GROUP: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """GRAIN: how many weights in a row share a word of signs; OCTET: how many, a block of rounding bits."""
    dtype: tl.constexpr = weight.dtype.element_ty
    m, n = _place(tl.program_id(0).to(tl.int64), row_tiles, out_tiles, GROUP)
    rm, rn = m * M + tl.arange(0, M), n * N + tl.arange(0, N)
    x_row, w_row = (rm % rows) * ins, (rn % outs) * ins  # past the end: any row, it is not stored
    word, octet, k = tl.arange(0, K // GRAIN) * GRAIN, tl.arange(0, K // OCTET) * OCTET, tl.arange(0, K)
    inner = tl.arange(0, OCTET)[None, None, :]
    place = (31 - octet % GRAIN)[None, :, None] - inner
    plus, minus = tl.zeros((M, N), tl.float32), tl.zeros((M, N), tl.float32)
    for start in range(0, ins, K):
        at = w_row[:, None] + (start + octet)[None, :]  # (N, K / OCTET)
        at_word = w_row[:, None] + (start + word)[None, :]  # (N, K / GRAIN)
        if EVEN:
            v = tl.load(weight + (at[:, :, None] + inner))
            x1, x2 = tl.load(x_plus + (x_row[:, None] + (start + k))), tl.load(x_minus + (x_row[:, None] + (start + k)))
        else:
            v = tl.load(weight + (at[:, :, None] + inner), mask=(start + octet)[None, :, None] + inner < ins, other=0.0)
            inside = (start + k < ins)[None, :]
            x1 = tl.load(x_plus + (x_row[:, None] + (start + k)), mask=inside, other=0.0)
            x2 = tl.load(x_minus + (x_row[:, None] + (start + k)), mask=inside, other=0.0)
        w0, w1, w2, w3 = philox(at_word >> 7, parameter, sample, step, k0, k1)
        words = _pick(w0, w1, w2, w3, at_word >> 5) >> (at_word & 31).to(tl.uint32)
        words = tl.broadcast_to(words[:, :, None], (N, K // GRAIN, GRAIN // OCTET)).reshape(N, K // OCTET, 1)
        shift = sign(words << place.to(tl.uint32)) * scale
        bits = 0
        if dtype != tl.float32:
            h0, h1, h2, h3 = philox(at >> 3, parameter, sample, step, r0, r1)
            i = inner if OCTET == 8 else (at & 7).to(tl.int32)[:, :, None] + inner
            half = _pick(h0[:, :, None], h1[:, :, None], h2[:, :, None], h3[:, :, None], i >> 1)
            bits = ((half >> ((i & 1) * 16).to(tl.uint32)) & 0xFFFF).to(tl.int32)
        w_plus, w_minus = _pair_of(widened(v), shift, bits, dtype)
        w_plus, w_minus = w_plus.reshape(N, K), w_minus.reshape(N, K)
        if WIDE:  # the interpreter multiplies no bfloat16
            x1, x2, w_plus, w_minus = widened(x1), widened(x2), widened(w_plus), widened(w_minus)
        plus = tl.dot(x1, w_plus.T, plus, input_precision=PRECISION)
        minus = tl.dot(x2, w_minus.T, minus, input_precision=PRECISION)
    inside = rn < outs
    if BIAS != 0:
        b = widened(tl.load(bias + rn, mask=inside, other=0.0))
        if BIAS == 2:
            s, bits = _vector_noise(rn, bias_parameter, sample, step, k0, k1, r0, r1)
            b_plus, b_minus = _pair_of(b, s * scale, bits, dtype)
            plus, minus = plus + widened(b_plus)[None, :], minus + widened(b_minus)[None, :]
        else:
            plus, minus = plus + b[None, :], minus + b[None, :]
    inside, to = (rm < rows)[:, None] & inside[None, :], rm[:, None] * outs + rn[None, :]
    tl.store(y_plus + to, plus.to(y_plus.dtype.element_ty), mask=inside)
    tl.store(y_minus + to, minus.to(y_minus.dtype.element_ty), mask=inside)


@triton.jit
def _rank_one(
    x, weight, a, b, bias, y, all_rows, rows, outs, ins, row_tiles, out_tiles, bias_stride, scale,
    COLUMNS: tl.constexpr, EACH: tl.constexpr,
    BIAS: tl.constexpr, EVEN: tl.constexpr, WIDE: tl.constexpr, PRECISION: tl.constexpr,
    GROUP: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """b: (members EACH, ins), EACH rows that sum to a member's factor.  COLUMNS: of the side branch ``x b``."""
    m, n = _place(tl.program_id(0).to(tl.int64), row_tiles, out_tiles, GROUP)
    rm, rn, k = m * M + tl.arange(0, M), n * N + tl.arange(0, N), tl.arange(0, K)
    x_row, w_row = (rm % all_rows) * ins, (rn % outs) * ins
    member, column = rm // rows, m * M // rows * EACH + tl.arange(0, COLUMNS)
    b_row = column % (all_rows // rows * EACH) * ins
    total, along = tl.zeros((M, N), tl.float32), tl.zeros((M, COLUMNS), tl.float32)
    for start in range(0, ins, K):
        if EVEN:
            x_tile = tl.load(x + (x_row[:, None] + (start + k)[None, :]))
            w_tile = tl.load(weight + (w_row[None, :] + (start + k)[:, None]))
            b_tile = tl.load(b + (b_row[None, :] + (start + k)[:, None]))
        else:
            inside = start + k < ins
            x_tile = tl.load(x + (x_row[:, None] + (start + k)[None, :]), mask=inside[None, :], other=0.0)
            w_tile = tl.load(weight + (w_row[None, :] + (start + k)[:, None]), mask=inside[:, None], other=0.0)
            b_tile = tl.load(b + (b_row[None, :] + (start + k)[:, None]), mask=inside[:, None], other=0.0)
        if WIDE:
            x_tile, w_tile, b_tile = widened(x_tile), widened(w_tile), widened(b_tile)
        total = tl.dot(x_tile, w_tile, total, input_precision=PRECISION)
        along = tl.dot(x_tile, b_tile, along, input_precision=PRECISION)
    inside = (rm < all_rows)[:, None] & (rn < outs)[None, :]
    along = tl.sum(tl.where((column // EACH)[None, :] == member[:, None], along, 0.0), axis=1) * scale
    total += along[:, None] * tl.load(a + (member[:, None] * outs + rn[None, :]), mask=inside, other=0.0)
    if BIAS:
        total += widened(tl.load(bias + (member[:, None] * bias_stride + rn[None, :]), mask=inside, other=0.0))
    tl.store(y + (rm[:, None] * outs + rn[None, :]), total.to(y.dtype.element_ty), mask=inside)


def pair(
    x_plus: Tensor,
    x_minus: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scale: float,
    *,
    seed: int,
    step: int,
    sample: int,
    parameter: int,
    bias_parameter: int | None = None,
    tiles: Tiles | None = None,
) -> tuple[Tensor, Tensor]:
    """:func:`zolib.noise.perturbed_linear.pair` in one launch.  tiles: how the product is cut up, for tuning."""
    if x_minus.shape != x_plus.shape:
        raise ValueError(f"x_minus has shape {tuple(x_minus.shape)}, but x_plus has {tuple(x_plus.shape)}")
    _check(weight, x_plus, x_minus)
    if bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != weight.dtype):
        raise ValueError(
            f"bias must be {weight.dtype} of shape ({len(weight)},), got {bias.dtype} of {tuple(bias.shape)}"
        )
    x_plus, x_minus, weight = x_plus.contiguous(), x_minus.contiguous(), weight.detach().contiguous()
    outs, ins = weight.shape
    rows = x_plus.numel() // ins
    y_plus, y_minus = (_output(x_plus, (*x_plus.shape[:-1], outs)) for _ in range(2))
    tiles = tiles or pair_tiles(rows, weight.dtype)
    row_tiles, out_tiles = -(-rows // tiles.rows), -(-outs // tiles.outs)
    use = 0 if bias is None else 1 if bias_parameter is None else 2
    words = signed(parameter), signed(bias_parameter or 0), signed(sample), signed(step)
    if rows and outs:
        with torch.cuda.device_of(weight):
            _pair[(row_tiles * out_tiles,)](
                x_plus, x_minus, weight, weight if bias is None else bias.detach().contiguous(), y_plus, y_minus,
                rows, outs, ins, row_tiles, out_tiles, float(scale), *words, *keys(seed, stream.SIGN, stream.ROUNDING),
                GRAIN=math.gcd(ins, 32, tiles.ins), OCTET=math.gcd(ins, 8), BIAS=use, **_options(weight, tiles),
            )  # fmt: skip
    return y_plus.to(x_plus.dtype), y_minus.to(x_plus.dtype)


def rank_one(
    x: Tensor,
    weight: Tensor,
    a: Tensor,
    b: Tensor,
    scale: float,
    bias: Tensor | None = None,
    tiles: Tiles | None = None,
) -> Tensor:
    """:func:`zolib.noise.perturbed_linear.rank_one` in one launch.  tiles: how the product is cut up, for tuning."""
    _check(weight, x)
    members, rows, ins = x.shape
    outs = weight.shape[0]
    for name, given, shape in (("a", a, (members, outs)), ("b", b, (members, ins))):
        if given.shape != shape or given.dtype != torch.float32:
            raise ValueError(f"{name} must be float32 of shape {shape}, got {given.dtype} of {tuple(given.shape)}")
    if bias is not None and bias.shape not in ((outs,), (members, outs)):
        raise ValueError(f"bias must have shape ({outs},) or ({members}, {outs}), got {tuple(bias.shape)}")
    x, weight, a, b = x.contiguous(), weight.detach().contiguous(), a.contiguous(), b.contiguous()
    each = 1
    if x.dtype != torch.float32:  # a half-precision factor would be another direction: split it into two that sum to it
        top = b.to(x.dtype)
        each, b = 2, torch.stack((top, (b - top).to(x.dtype)), dim=1)
    y = _output(x, (members, rows, outs))
    tiles = tiles or rank_one_tiles(members * rows, weight.dtype)
    row_tiles, out_tiles = -(-members * rows // tiles.rows), -(-outs // tiles.outs)
    if y.numel():
        spanned = min(members, (tiles.rows - 2) // rows + 2)  # members that one tile of rows can meet
        columns = triton.next_power_of_2(max(16, spanned * each))
        with torch.cuda.device_of(weight):
            _rank_one[(row_tiles * out_tiles,)](
                x, weight, a, b, x if bias is None else bias.detach().contiguous(), y, members * rows, rows, outs, ins,
                row_tiles, out_tiles, outs if bias is not None and bias.dim() == 2 else 0, float(scale),
                COLUMNS=columns, EACH=each, BIAS=bias is not None, **_options(weight, tiles),
            )  # fmt: skip
    return y.to(x.dtype)


def pair_tiles(rows: int, dtype: torch.dtype) -> Tiles:
    """Few rows: small tiles of outputs, so that all processors read weights.  Many: as many sums as registers hold."""
    if dtype == torch.float32:
        if rows <= 16:
            return Tiles(16, 32, 32, 4, 3)
        return Tiles(64, 64, 16, 8, 3) if _full_precision() else Tiles(128, 128, 32, 8, 3)
    if rows <= 64:
        return Tiles(16 if rows <= 16 else 64, 32, 128, 4, 3)
    return Tiles(128, 128, 64, 8, 3)


def rank_one_tiles(rows: int, dtype: torch.dtype) -> Tiles:
    """The same for one product: there are registers for twice as many sums."""
    tiles = pair_tiles(rows, dtype)
    return tiles._replace(outs=256) if rows > 2048 and dtype != torch.float32 else tiles


def _full_precision() -> bool:
    """What torch would do in a plain float32 product."""
    return torch.get_float32_matmul_precision() == "highest"


def _options(weight: Tensor, tiles: Tiles) -> dict:
    return {
        "EVEN": weight.shape[1] % tiles.ins == 0,
        "WIDE": triton.knobs.runtime.interpret,
        "PRECISION": "ieee" if _full_precision() else "tf32",
        "GROUP": GROUP,
        "M": tiles.rows,
        "N": tiles.outs,
        "K": tiles.ins,
        "num_warps": tiles.warps,
        "num_stages": tiles.stages,
    }


def _output(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The interpreter's own rounding to bfloat16 is wrong, so it writes float32, and torch rounds."""
    return torch.empty(shape, dtype=torch.float32 if triton.knobs.runtime.interpret else x.dtype, device=x.device)


def _check(weight: Tensor, *inputs: Tensor) -> None:
    if weight.dim() != 2 or weight.dtype not in (torch.float32, torch.float16, torch.bfloat16) or not weight.shape[1]:
        raise ValueError(
            f"weight must be a (out, in) matrix of float32, float16 or bfloat16, got {weight.dtype} of "
            f"{tuple(weight.shape)}"
        )
    for x in inputs:
        if x.dtype != weight.dtype or x.shape[-1] != weight.shape[1]:
            raise ValueError(
                f"x must be {weight.dtype} with {weight.shape[1]} features, as weight is, got {x.dtype} of "
                f"{tuple(x.shape)}"
            )
