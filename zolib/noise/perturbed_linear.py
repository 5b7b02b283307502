"""Linear layers under noise: what the fused kernels of :mod:`zolib.noise.gpu_linear` compute, in plain torch.

Two layers.  :func:`pair` is the two evaluations of a two-point difference along signs.  :func:`rank_one` is a
population whose members differ from one another by a matrix of rank one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zolib.noise import fused, stream


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
) -> tuple[Tensor, Tensor]:
    """``x_plus (W + scale S)^T + b_plus`` and ``x_minus (W - scale S)^T + b_minus``, S the signs of the stream.

    The weights are those of :func:`zolib.noise.fused.perturbed`, bit for bit: formed in float32, and in half precision
    rounded stochastically, plus and minus with the same rounding bits.  So a layer gives the same loss, to the
    accuracy of a matrix product, whether its noise is made inside the product or before it.  Products are summed in
    float32 and rounded once.

    x_plus, x_minus: (..., in), of the same shape; they differ wherever a layer before this one was perturbed too.
    weight: (out, in).  bias: (out,) or None.  All of one dtype: float32, float16 or bfloat16.  parameter: the number of
    the weight in the stream.  bias_parameter: that of the bias; None leaves the bias as it is.

    Returns (..., out) twice.
    """

    def side(x: Tensor, signed: float) -> Tensor:
        w = fused.perturbed(weight, stream.SIGN, seed, step, sample, parameter, signed)
        b = bias
        if b is not None and bias_parameter is not None:
            b = fused.perturbed(b, stream.SIGN, seed, step, sample, bias_parameter, signed)
        return _linear(x, w, b).to(x.dtype)

    return side(x_plus, scale), side(x_minus, -scale)


def rank_one(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float, bias: Tensor | None = None) -> Tensor:
    """``x_i W^T + scale (x_i b_i) a_i^T + bias`` for each member i: a layer with weights ``W + scale a_i b_i^T``.

    The perturbed weights are never formed, in no precision: the noise is a side branch, summed in float32 with the
    rest and rounded once.

    x: (members, rows, in).  weight: (out, in).  x and weight of one dtype: float32, float16 or bfloat16.  a: (members,
    out) and b: (members, in), float32; for :class:`zolib.LowRank` with rank 1, the first ``out`` and the following
    ``in`` normals of the weight's stream.  bias: (out,), or (members, out) where it is perturbed as well.

    Returns (members, rows, out).
    """
    along = torch.matmul(x.float(), b.unsqueeze(-1))  # (members, rows, 1)
    shared = None if bias is None else bias.unsqueeze(-2)  # (1, out) or (members, 1, out)
    return (_linear(x, weight, shared) + scale * along * a.unsqueeze(-2)).to(x.dtype)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    y = torch.matmul(x.float(), weight.float().mT)
    return y if bias is None else y + bias.float()
