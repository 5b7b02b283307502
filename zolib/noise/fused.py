"""The stream's fused operations: noise made and used in one pass over memory.  This file defines what they compute.

Two operations, of one parameter each: a perturbed copy, and an update in place from a list of (seed, coefficient).
Where there are kernels for the device (:mod:`~zolib.noise.backend`) they give the same bits in less time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zolib.noise import backend, stream
from zolib.noise.rounding import HALF, shifted, stochastic_round

_PRECISIONS = (torch.float64, torch.float32, *HALF)


class Term(NamedTuple):
    """One direction of the stream, and what it is multiplied with."""

    seed: int
    step: int
    sample: int
    coefficient: float


def perturbed(value: Tensor, law: int, seed: int, step: int, sample: int, parameter: int, scale: float) -> Tensor:
    """``value + scale z`` as a new tensor, in the precision of ``value``: :func:`zolib.noise.rounding.shifted`.

    z is the ``law`` of the stream (``stream.SIGN`` or ``stream.NORMAL``) at (seed, step, sample, parameter).  Half
    precision rounds stochastically, with the rounding bits of the same (seed, step, sample, parameter).
    """
    _refuse_precision(value)
    kernels = backend.kernels(value)
    if kernels is not None:
        return kernels.perturbed(value, law, seed, step, sample, parameter, scale)
    with torch.no_grad():
        bits = lambda: _draw(stream.ROUNDING, value, seed, step, sample, parameter)  # noqa: E731
        return shifted(value, _draw(law, value, seed, step, sample, parameter), scale, bits)


@torch.no_grad()
def update_(value: Tensor, law: int, terms: Sequence[Term], parameter: int, decay: float = 1.0) -> None:
    """``value <- decay value + sum_k c_k z_k`` in place, one pass however many terms there are.

    In float32 for values of at most 32 bits, in float64 for float64.  The sum starts at 0 and goes in the order of the
    terms, each product rounded before it is added; then ``decay value``, rounded, is added to it.  Half precision
    rounds once, stochastically, with the rounding bits of the last term; without a term it rounds to nearest.

    Coefficients of 0 with a decay of 1 write nothing: every bit stays, those of -0.0 and of NaN included.

    Raises:
        ValueError: Several elements of ``value`` share a place in memory, as in an expanded tensor.
        TypeError: ``value`` is not float64, float32, float16 or bfloat16.
    """
    _refuse_precision(value)
    _refuse_overlap(value)
    if not any(term.coefficient for term in terms):
        if decay == 1:
            return
        if not terms:
            value.mul_(decay)
            return
    kernels = backend.kernels(value)
    if kernels is not None:
        kernels.update_(value, law, terms, parameter, decay)
        return
    wide = torch.promote_types(value.dtype, torch.float32)
    total = torch.zeros(value.shape, dtype=wide, device=value.device)
    for seed, step, sample, coefficient in terms:
        total += _draw(law, value, seed, step, sample, parameter).to(wide) * coefficient
    total = value.to(wide) * decay + total
    if value.dtype in HALF:
        seed, step, sample, _ = terms[-1]
        total = stochastic_round(total, _draw(stream.ROUNDING, value, seed, step, sample, parameter), value.dtype)
    value.copy_(total)


def redrawn(value: Tensor, law: int) -> bool:
    """Whether to draw again, in a kernel, costs less than to keep z and read it: true of signs, and where it rounds."""
    return (law == stream.SIGN or value.dtype in HALF) and backend.kernels(value) is not None


def _draw(law: int, value: Tensor, seed: int, step: int, sample: int, parameter: int) -> Tensor:
    part = [(parameter, value.numel())]
    return stream.draw(law, seed, step, range(sample, sample + 1), part, value.device)[0].view(value.shape)


def _refuse_precision(value: Tensor) -> None:
    if value.dtype not in _PRECISIONS:
        raise TypeError(f"value has dtype {value.dtype}; the stream moves float64, float32, float16 and bfloat16")


def _refuse_overlap(value: Tensor) -> None:
    """An element written twice would be updated twice."""
    reach = 0  # the largest distance of two elements in the dimensions seen so far, smallest strides first
    for stride, size in sorted((s, n) for s, n in zip(value.stride(), value.shape, strict=True) if n > 1):
        if stride <= reach:
            raise ValueError(
                f"value has shape {tuple(value.shape)} and strides {value.stride()}: several of its elements share a "
                "place in memory (an expanded tensor?), so it cannot be updated in place. Pass value.clone()"
            )
        reach += stride * (size - 1)
