"""Noise as a function: version 1 of the stream, and the plain torch code that defines its numbers.

Value ``i`` of a stream is a pure function of (seed, law, step, sample, parameter, i).  Nothing else enters: not the
device, the chunking, the strides or the dtype of the target, the number of workers, or what was drawn before.  So noise
need not be stored: whoever knows the six numbers can have it again.

Specification
-------------

*Generator.*  Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a
bijection of a 128-bit counter ``(c0, c1, c2, c3)`` under a 64-bit key ``(k0, k1)``, four 32-bit words out.

*Key.*  ``fold(seed, law)``: the first two output words for the counter ``(law, 0, 0, VERSION)`` under the key
``(seed mod 2**32, seed div 2**32)``.  Folding hashes; seeds that follow one another have unrelated keys.

*Counter.*  ``(block, parameter, sample, step)``, each below ``2**32``.  ``parameter`` counts the parameters in
traversal order, frozen ones included.  ``i`` is the logical row-major index of an element.

*Laws*, with the number of values that one block of four words ``w0..w3`` yields:

========  ===  =====  ====================================================================================
name      law  block  value
========  ===  =====  ====================================================================================
sign      1    128    element ``i``: bit ``i % 32`` of word ``i // 32 % 4``; set is +1, clear is -1
normal    2    4      Box-Muller of ``(w0, w1)`` gives elements 0 and 1, of ``(w2, w3)`` elements 2 and 3
rounding  3    8      element ``i``: the low (``i`` even) or high half of word ``i // 2 % 4``
index     4    2      64-bit integers ``w0 + w1 * 2**32`` and ``w2 + w3 * 2**32``
========  ===  =====  ====================================================================================

*Box-Muller* in float32, each operation rounded on its own, no fused multiply-add.  ``u = float32(w0) * 2**-32 +
2**-33``, ``r = sqrt(-2 log u)``; the angle ``2 pi w1 / 2**32`` is split into the nearest quarter turn and a rest ``a``
in ``[-pi/4, pi/4]``; the pair is ``(r cos, r sin)``.  The root is correctly rounded; log, sin and
cos are the polynomials below, in Horner order.  The largest value is 6.76.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zolib.noise import backend

VERSION = 1
SIGN, NORMAL, ROUNDING, INDEX = 1, 2, 3, 4

_MASK = 0xFFFFFFFF
_CHUNK = 1 << 16  # blocks worked on at a time: keeps the scratch in cache, cannot change a value

# log(1 + f) = f - f^2/2 + f^3 P(f) on [sqrt(1/2) - 1, sqrt(2) - 1]; relative error 6e-9 before rounding
_LOG = (0.33333316, -0.25000808, 0.20002286, -0.16624597, 0.14181215, -0.13128404, 0.12881404, -0.078602076)
_LN2 = 0.6931472
# sin a = a + a^3 P(a^2), cos a = 1 - a^2/2 + a^4 P(a^2) on [-pi/4, pi/4]; errors 4e-9 and 1e-10 before rounding
_SIN = (-0.16666655, 0.008332181, -0.00019517593)
_COS = (0.041666646, -0.0013887378, 2.4439483e-05)
_TURN = 3.6572952e-10  # (pi/2) / 2^32


def philox(counter: Sequence[Any], key: tuple[int, int]) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-10: four 32-bit words for each counter.

    counter: four int64 tensors that broadcast, or ints, values in ``[0, 2**32)``.  key: two ints, likewise.
    Returns four int64 tensors of the broadcast shape, or four ints if all are.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap modulo 2**64; shift and mask recover the exact high word all the same
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) & _MASK ^ c1 ^ k0, p1 & _MASK, (p0 >> 32) & _MASK ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    return c0, c1, c2, c3


@lru_cache(maxsize=64)
def fold(seed: int, law: int) -> tuple[int, int]:
    """The key of one law: two 32-bit words hashed from a 64-bit seed."""
    return philox((law, 0, 0, VERSION), (seed & _MASK, seed >> 32))[:2]


def _normal(words: Tensor) -> Tensor:
    """Box-Muller: (..., 4) words to (..., 4) float32 normals."""
    first, second = words[..., 0::2], words[..., 1::2]  # (..., 2)
    u = first.to(torch.float32) * 2.0**-32 + 2.0**-33
    bits = u.view(torch.int32)
    exponent = (bits - 0x3F3504F3) >> 23  # u = m 2^exponent with m in [sqrt(1/2), sqrt(2))
    f = (bits - (exponent << 23)).view(torch.float32) - 1.0
    square = f * f
    log = exponent.to(torch.float32) * _LN2 + (f + (square * f * _horner(_LOG, f) - square * 0.5))
    # torch.sqrt of float32 may be off by one unit in the last place; by way of float64 it is correctly rounded
    radius = torch.sqrt((log * -2.0).to(torch.float64)).to(torch.float32)

    quarter = ((second + (1 << 29)) >> 30) & 3
    rest = ((second << 2) + (1 << 31)) & _MASK  # offset by half, to sign without branches
    a = (rest - (1 << 31)).to(torch.float32) * _TURN
    aa = a * a
    sin = a + aa * a * _horner(_SIN, aa)
    cos = (1.0 - aa * 0.5) + aa * aa * _horner(_COS, aa)
    odd = (quarter & 1).bool()
    x, y = torch.where(odd, sin, cos), torch.where(odd, cos, sin)
    x = torch.where((quarter == 1) | (quarter == 2), -x, x)
    y = torch.where(quarter >= 2, -y, y)
    return torch.stack((radius * x, radius * y), dim=-1).flatten(-2)


def _horner(coefficients: Sequence[float], x: Tensor) -> Tensor:
    value = torch.full_like(x, coefficients[-1])
    for c in reversed(coefficients[:-1]):
        value = value * x + c
    return value


def _sign(words: Tensor) -> Tensor:
    """(..., 4) words to (..., 128) float32 signs."""
    octets = words.to(torch.int32).contiguous().view(torch.uint8)  # (..., 16), the low octet of a word first
    every, place = (torch.arange(n, device=words.device) for n in (256, 8))
    table = (every.unsqueeze(1) >> place & 1).to(torch.float32) * 2.0 - 1.0  # (256, 8): a look-up beats eight shifts
    return functional.embedding(octets.to(torch.int32), table).flatten(-2)


def _halves(words: Tensor) -> Tensor:
    """(..., 4) words to (..., 8) int32 values in [0, 2**16)."""
    return torch.stack((words & 0xFFFF, words >> 16), dim=-1).flatten(-2).to(torch.int32)


_LAWS = {SIGN: (128, _sign, torch.float32), NORMAL: (4, _normal, torch.float32), ROUNDING: (8, _halves, torch.int32)}


def draw(
    law: int, seed: int, step: int, samples: range, parts: Sequence[tuple[int, int]], device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Values of one law for several samples and parameters.

    parts: (parameter, number of elements) of each.  Returns one tensor of shape ``(len(samples), elements)`` for each
    part, float32 (int32 for ROUNDING).  Kernels draw where there are any (:mod:`~zolib.noise.backend`); what follows
    here says what they draw.
    """
    per, transform, dtype = _LAWS[law]
    key = fold(seed, law)
    blocks = [-(-numel // per) for _, numel in parts]
    if any(b > _MASK for b in blocks):
        raise ValueError(f"a parameter has more than {per << 32} elements, the most that one stream numbers")
    kernels = backend.kernels(torch.device(device))
    if kernels is not None:
        return kernels.draw(law, seed, step, samples, parts, device)
    result = [torch.empty((len(samples), numel), dtype=dtype, device=device) for _, numel in parts]
    if sum(blocks) <= _CHUNK:  # small parameters go together, as many samples at a time as fit
        parameter = torch.cat([torch.full((b,), p, device=device) for (p, _), b in zip(parts, blocks, strict=True)])
        block = torch.cat([torch.arange(b, device=device) for b in blocks])
        rows = _CHUNK // max(1, sum(blocks))
        for row in range(0, len(samples), rows):
            sample = torch.tensor(samples[row : row + rows], device=device).unsqueeze(1)
            values = transform(torch.stack(philox((block, parameter, sample, step), key), dim=-1)).flatten(1)
            for out, end, b in zip(result, accumulate(blocks), blocks, strict=True):
                out[row : row + rows] = values[:, (end - b) * per :][:, : out.shape[1]]
        return result
    for out, (parameter_index, numel), count in zip(result, parts, blocks, strict=True):
        for row, sample_index in enumerate(samples):
            for start in range(0, count, _CHUNK):
                block = torch.arange(start, min(start + _CHUNK, count), device=device)
                words = philox((block, parameter_index, sample_index, step), key)
                values = transform(torch.stack(words, dim=-1)).flatten()
                out[row, start * per : (start + len(block)) * per] = values[: numel - start * per]
    return result


def distinct(seed: int, step: int, count: int, below: int) -> list[int]:
    """``count`` different integers below ``below``, in random order: the start of a uniform random permutation.

    Durstenfeld's shuffle, with a table of the places it has moved.  Entry ``k`` does not depend on ``count``.
    """
    moved: dict[int, int] = {}
    chosen = []
    for k, word in zip(range(count), _integers(seed, step, count), strict=True):
        place = k + word % (below - k)  # bias below 2^-64 * below
        chosen.append(moved.get(place, place))
        moved[place] = moved.pop(k, k)
    return chosen


def _integers(seed: int, step: int, count: int) -> Iterator[int]:
    words = philox((torch.arange((count + 1) // 2, device="cpu"), 0, 0, step), fold(seed, INDEX))
    pairs = zip(*(w.tolist() for w in (words[0], words[1], words[2], words[3])), strict=True)
    flat = (low | high << 32 for a, b, c, d in pairs for low, high in ((a, b), (c, d)))
    return (word for word, _ in zip(flat, range(count), strict=False))
