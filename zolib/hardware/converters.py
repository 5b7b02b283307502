r"""FAST, but drawn only if asked to: converters between numbers and voltages or currents, and the wires between.

A converter of b bits has :math:`2^b - 1` levels, evenly spaced and symmetric about 0:
:math:`q(u) = \Delta\,\mathrm{round}(u/\Delta)` with :math:`\Delta = u_{max}/(2^{b-1} - 1)`, clipped at
:math:`\pm u_{max}`.  Its error is at most :math:`\Delta/2` inside the range.  Gradients, and tangents in
forward mode, pass straight through it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from zolib.hardware.stage import InputStage, OutputStage, When, number


class DAC(InputStage):
    """Digital-to-analog converters at the inputs.

    Args:
        bits: Resolution, at least 2.
        bound: The input that stands for the full voltage; larger ones are clipped.  None: the largest magnitude of
            each example, as a digital scaling of each vector achieves.
    """

    when = When.FAST

    def __init__(self, bits: int, bound: float | None = None):
        super().__init__()
        self.bits, self.bound = _bits(bits), None if bound is None else number("bound", bound, above=True)

    def forward(self, x: Tensor, read) -> Tensor:
        if self.bound is None:
            read.x_max = x.detach().abs().amax(dim=read.tile.input_axes, keepdim=True)
        else:
            read.x_max = self.bound
        step = read.x_max / (2 ** (self.bits - 1) - 1)
        if self.bound is None:  # nothing is beyond the bound; an example of zeros stays so
            step = step.masked_fill(step == 0, 1.0)
        return _straight(x, _quantised(x, step, self.bound))


class ADC(OutputStage):
    """Analog-to-digital converters at the outputs.

    Args:
        bits: Resolution, at least 2.
        bound: Full scale, in units of one cell's full current (:class:`~zolib.hardware.OutputNoise`); larger outputs
            are clipped.  10 to 12 is common for arrays of a few hundred rows (Rasch et al., Nat. Commun. 14, 5282,
            2023: 10).
        stochastic: Round up or down at random, right on average, instead of to the nearest level.
    """

    when = When.FAST

    def __init__(self, bits: int, bound: float = 12.0, stochastic: bool = False):
        super().__init__()
        self.bits, self.bound, self.stochastic = _bits(bits), number("bound", bound, above=True), bool(stochastic)

    def forward(self, y: Tensor, read) -> Tensor:
        full = self.bound * read.unit
        step = full / (2 ** (self.bits - 1) - 1)
        if isinstance(step, Tensor):
            step = step.masked_fill(step == 0, 1.0)
        dither = None
        if self.stochastic:
            dither = torch.rand(y.shape, generator=read.tile.chip.generator(y.device), dtype=y.dtype, device=y.device)
        return _straight(y, _quantised(y, step, full, dither))


class IRDrop(OutputStage):
    r"""Voltage lost along the column wires, by a polynomial fitted to a circuit solver.

    .. math:: y_i \leftarrow y_i - c_i \sum_j w_{ij} x_j \big(1 - (1 - j/n)^2\big), \quad
              c_i = a_i (0.05 a_i^2 - 0.2 a_i + 0.5), \quad a_i = n\,r\,g_{max} \sum_j |w_{ij} x_j|

    with w and x relative to their full scale, n rows, and j counted from 0 at the end that is read.  Deterministic.
    Source: the fit in the IBM analog hardware kit (``ir_drop``), for wires of 0.35 ohm per cell.

    Args:
        resistance: r, ohm of wire per cell.
    """

    when = When.FAST
    needs = "cells"

    def __init__(self, resistance: float = 0.35):
        super().__init__()
        self.resistance = number("resistance", resistance)

    def build(self, tile) -> None:
        w = tile.weight.detach()
        rows = w[(0,) * (tile.lead + 1)]
        n = rows.numel()
        profile = 1 - (1 - torch.arange(n, dtype=w.dtype, device=w.device) / n) ** 2
        self.register_buffer("profile", profile.view(rows.shape), persistent=False)
        self.register_buffer("far", tile.per_weight(), persistent=False)
        self.register_buffer("size", tile.per_weight(), persistent=False)

    def refresh(self, g: Tensor, tile) -> None:
        self.far.copy_(tile.effective * self.profile)
        self.size.copy_(tile.effective.abs() * (self.resistance * tile.chip.g_max * 1e-6 * self.profile.numel()))

    def forward(self, y: Tensor, read) -> Tensor:
        x = read.x.detach()
        a = read.tile.product(x.abs(), self.size) / _nonzero(read.unit)
        return y - a * (a * (0.05 * a - 0.2) + 0.5) * read.tile.product(x, self.far)


def _quantised(x: Tensor, step: Tensor | float, bound: Tensor | float | None, dither: Tensor | None = None) -> Tensor:
    q = x.detach() / step
    q = q.round_() if dither is None else q.add_(dither).floor_()
    q = q.mul_(step)
    if bound is None:
        return q
    return q.clamp_(-bound, bound) if not isinstance(bound, Tensor) else q.minimum(bound).maximum(-bound)


def _straight(x: Tensor, q: Tensor) -> Tensor:
    """q, with the gradient of x, and in forward mode its tangent."""
    tangent = forward_ad.unpack_dual(x).tangent
    if tangent is not None:
        return forward_ad.make_dual(forward_ad.unpack_dual(q).primal, tangent)
    return x + (q - x).detach() if x.requires_grad else q


def _nonzero(unit: Tensor | float) -> Tensor | float:
    return unit.masked_fill(unit == 0, 1.0) if isinstance(unit, Tensor) else unit


def _bits(bits: int) -> int:
    if isinstance(bits, bool) or not isinstance(bits, int):
        raise TypeError(f"bits must be a whole number, got {bits!r}")
    if not 2 <= bits <= 24:
        raise ValueError(f"bits must be from 2 (levels -1, 0, 1) to 24, got {bits}; an ideal converter is none at all")
    return bits
