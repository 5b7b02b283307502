"""The numba kernels of the stream: what runs in one thread, on pieces of one parameter, in :mod:`zolib.noise.cpu`.

They give the bits of the torch reference.  Without ``fastmath``, LLVM neither reorders nor contracts floating-point
operations: the polynomials run in the order of the reference, and the square root is IEEE's.  No kernel holds Python's
lock, and each is compiled when it is first called, in about half a second.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numba import config, njit

from zolib.noise import stream
from zolib.noise.stream import NORMAL, ROUNDING, SIGN

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

CHUNK = 4096  # elements worked on at a time, in scratch that fits the first cache; a multiple of every block

_U16, _U32, _U64, _I32, _F32 = np.uint16, np.uint32, np.uint64, np.int32, np.float32
_compiled = njit(nogil=True)

# The words.  A stream is a row of five: two of the key, the parameter, the sample, the step

_M0, _M1, _W0, _W1 = _U64(0xD2511F53), _U64(0xCD9E8D57), _U32(0x9E3779B9), _U32(0xBB67AE85)
_32 = _U64(32)


@_compiled
def _words(words, first, count, row):
    """Philox of ``count`` blocks from ``first`` on, four words each.  Whole vectors of blocks at a time, by LLVM."""
    k0, k1, parameter, sample, step = row[0], row[1], row[2], row[3], row[4]
    for block in range(count):
        c0, c1, c2, c3 = _U32(first + block), parameter, sample, step
        a0, a1 = k0, k1
        for _ in range(10):
            p0, p1 = _U64(c0) * _M0, _U64(c2) * _M1
            c0, c1, c2, c3 = _U32(p1 >> _32) ^ c1 ^ a0, _U32(p1), _U32(p0 >> _32) ^ c3 ^ a1, _U32(p0)
            a0, a1 = _U32(a0 + _W0), _U32(a1 + _W1)
        words[4 * block], words[4 * block + 1], words[4 * block + 2], words[4 * block + 3] = c0, c1, c2, c3


# The laws: total += c z

_BITS = _U32(1) << np.arange(32, dtype=np.uint32)


@_compiled
def _add_signs(words, c, total):
    for j in range(len(words)):
        word = words[j]
        for i in range(32):  # against a table of bits, not by shifts: so LLVM sees vectors
            total[32 * j + i] += c if word & _BITS[i] else -c


_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = (_F32(c) for c in stream._LOG)
_S0, _S1, _S2 = (_F32(c) for c in stream._SIN)
_C0, _C1, _C2 = (_F32(c) for c in stream._COS)
_LN2, _TURN, _ONE_HALF, _ONE, _MINUS_TWO = _F32(stream._LN2), _F32(stream._TURN), _F32(0.5), _F32(1), _F32(-2)
_UNIT, _HALF_UNIT, _ROOT = _F32(2.0**-32), _F32(2.0**-33), _I32(0x3F3504F3)


@_compiled
def _box_muller(first, second):
    """Two words to two normals: :func:`zolib.noise.stream._normal`, operation by operation."""
    bits = _F32(_F32(first) * _UNIT + _HALF_UNIT).view(np.int32)
    exponent = _I32(_I32(bits - _ROOT) >> _I32(23))
    f = _I32(bits - _I32(exponent << _I32(23))).view(np.float32) - _ONE
    square = f * f
    p = ((((((_L7 * f + _L6) * f + _L5) * f + _L4) * f + _L3) * f + _L2) * f + _L1) * f + _L0
    log = _F32(exponent) * _LN2 + (f + (square * f * p - square * _ONE_HALF))
    radius = np.sqrt(_F32(log * _MINUS_TWO))

    quarter = _U32(_U32(second + _U32(1 << 29)) >> _U32(30))
    a = _F32(_I32(_U32(second << _U32(2)))) * _TURN
    aa = a * a
    sin = a + aa * a * ((_S2 * aa + _S1) * aa + _S0)
    cos = (_ONE - aa * _ONE_HALF) + aa * aa * ((_C2 * aa + _C1) * aa + _C0)
    odd = quarter & _U32(1)
    x, y = sin if odd else cos, cos if odd else sin
    x = -x if (quarter == _U32(1)) | (quarter == _U32(2)) else x
    y = -y if quarter >= _U32(2) else y
    return radius * x, radius * y


@_compiled
def _add_normals(words, c, total):
    for j in range(len(words) // 2):
        x, y = _box_muller(words[2 * j], words[2 * j + 1])
        total[2 * j] += x * c
        total[2 * j + 1] += y * c


_ADD = {SIGN: _add_signs, NORMAL: _add_normals}
_PER = {law: stream._LAWS[law][0] for law in (SIGN, NORMAL, ROUNDING)}  # values of a block

# Precisions: how a weight is read, and how a sum is written


@_compiled
def _read(x):
    return x


@_compiled
def _read_bfloat16(h):
    return _U32(_U32(h) << _U32(16)).view(np.float32)


@_compiled
def _read_float16(h):
    """Exact: the exponent is shifted to its place and set right by a product; infinity and NaN keep theirs."""
    magnitude = _U32(_U32(h & _U16(0x7FFF)) << _U32(13))
    sign = _U32(_U32(h & _U16(0x8000)) << _U32(16))
    finite = _F32(magnitude.view(np.float32) * _F32(2.0**112)).view(np.uint32)
    bits = _U32(magnitude | _U32(0x7F800000)) if magnitude >= _U32(0x0F800000) else finite
    return _U32(bits | sign).view(np.float32)


@_compiled
def _round_bfloat16(x, dither):
    """:func:`zolib.noise.rounding.stochastic_round`, in integers."""
    return _U16(_U32(_F32(x).view(np.uint32) + _U32(dither)) >> _U32(16))


@_compiled
def _round_float16(x, dither):
    bits, fine = _F32(x).view(np.uint32), _U32(_U32(dither) >> _U32(3))
    sign, magnitude = _U32(_U32(bits >> _U32(16)) & _U32(0x8000)), _U32(bits & _U32(0x7FFFFFFF))
    up = _U32(magnitude + fine)
    normal = _U32(_U32(up >> _U32(13)) - _U32(112 << 10))
    normal = _U32(0x7C00) if up >= _U32(0x47800000) else normal  # 2**16 and beyond
    normal = _U32(0x7E00) if magnitude > _U32(0x7F800000) else normal
    small = magnitude < _U32(0x38800000)  # below 2**-14 the spacing is fixed
    units = (_U32(magnitude).view(np.float32) if small else _F32(0)) * _F32(2.0**24) + _F32(fine) * _F32(2.0**-13)
    return _U16((_U32(_I32(units)) if small else normal) | sign)


# the precision of sums, how to read, how to round; half precision, which NumPy and numba lack, comes as its 16 bits
_FORMATS: dict[torch.dtype, tuple[type, Any, Any]] = {
    torch.float32: (np.float32, _read, None),
    torch.float64: (np.float64, _read, None),
    torch.bfloat16: (np.float32, _read_bfloat16, _round_bfloat16),
    torch.float16: (np.float32, _read_float16, _round_float16),
}


# The kernels, compiled one by one when first called


@cache
def combination(law: int, dtype: torch.dtype) -> Callable[..., None]:
    """out <- decay value + (zero + sum of c z), for elements ``base`` and after; out may be value.

    rows: a stream for each c, and in half precision one of rounding bits.  zero: 0.0, or -0.0, which added to anything
    changes nothing.
    """
    per, add = _PER[law], _ADD[law]
    wide, read, round_ = _FORMATS[dtype]
    half = round_ is not None
    per_rounding = _PER[ROUNDING]

    @_compiled
    def combine(value, out, base, rows, c, decay, zero):
        words = np.empty(CHUNK, np.uint32)
        dither = words.view(np.uint16)  # the low half of a word first
        total = np.empty(CHUNK, wide)
        for start in range(0, value.size, CHUNK):
            before, after = value[start : start + CHUNK], out[start : start + CHUNK]
            n = len(before)
            blocks = -(-n // per)
            total[:] = wide(zero)
            for k in range(c.size):
                _words(words, (base + start) // per, blocks, rows[k])
                add(words[: 4 * blocks], wide(c[k]), total)
            # value and out never meet in one loop: they may be the same memory, which would cost the vectors
            for i in range(n):
                total[i] = wide(decay) * read(before[i]) + total[i]
            if half:
                _words(words, (base + start) // per_rounding, -(-n // per_rounding), rows[c.size])
                for i in range(n):
                    after[i] = round_(total[i], dither[i])
            else:
                for i in range(n):
                    after[i] = total[i]

    return combine


@cache
def filling(law: int) -> Callable[..., None]:
    """out[s, i] <- z of sample ``skip + s stride``, counted from that of ``row``, for elements ``base`` and after."""
    per, rounding = _PER[law], law == ROUNDING
    add = _add_signs if rounding else _ADD[law]

    @_compiled
    def fill(out, base, row, skip, stride):
        words = np.empty(CHUNK, np.uint32)
        dither = words.view(np.uint16)
        total = np.empty(CHUNK, np.float32)
        row = row.copy()
        row[3] = _U32(row[3] + skip)
        for s in range(out.shape[0]):
            for start in range(0, out.shape[1], CHUNK):
                piece = out[s, start : start + CHUNK]
                n = len(piece)
                blocks = -(-n // per)
                _words(words, (base + start) // per, blocks, row)
                if rounding:
                    for i in range(n):
                        piece[i] = dither[i]
                else:
                    total[: per * blocks] = -0.0
                    add(words[: 4 * blocks], _ONE, total)
                    for i in range(n):
                        piece[i] = total[i]
            row[3] = _U32(row[3] + stride)

    return fill
