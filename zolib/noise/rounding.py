"""Adding noise to a weight of any precision, right on average."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

HALF = (torch.float16, torch.bfloat16)


def stochastic_round(x: Tensor, bits: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float32 to one of its two neighbours in float16 or bfloat16, so that the mean is ``x``.

    The neighbour farther from zero is taken with probability (x - nearer) / (farther - nearer), to a resolution of
    2**-16 (bfloat16) or 2**-13 (float16).  Values beyond the largest finite one become infinite.

    x: float32.  bits: int32 in ``[0, 2**16)``, same shape.  dtype: torch.bfloat16 or torch.float16.
    """
    if dtype == torch.bfloat16:  # float32 less its 16 low bits: add the dither, cut
        return ((x.view(torch.int32) + bits) & -0x10000).view(torch.float32).to(dtype)
    fine = bits >> 3
    normal = ((x.view(torch.int32) + fine) & -0x2000).view(torch.float32)  # float32 less its 13 low bits
    spacing = 2.0**-24  # below 2**-14 float16 has a fixed spacing
    subnormal = torch.copysign(torch.floor(x.abs() / spacing + fine.to(torch.float32) * 2.0**-13) * spacing, x)
    return torch.where(x.abs() < 2.0**-14, subnormal, normal).to(dtype)


def shifted(value: Tensor, z: Tensor, scale: float | Tensor, bits: Callable[[], Tensor]) -> Tensor:
    """``value + scale * z`` in the precision of ``value``; value is left as it is.

    float64 and float32 round to nearest.  float16 and bfloat16 are formed in float32 and rounded stochastically: to
    nearest, a probe of 1e-3 on a bfloat16 weight of 1 would vanish, for the spacing there is 2**-7.

    value: the weight.  z: float32, same shape.  bits: called for the rounding bits, only if they are needed.
    """
    if value.dtype in HALF:
        return stochastic_round(value.to(torch.float32) + z * scale, bits(), value.dtype)
    return value + z.to(value.dtype) * scale
