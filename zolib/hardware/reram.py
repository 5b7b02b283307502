"""Resistive memory (ReRAM): two published characterisations, as trajectories.

Both sources give the spread of conductances at certain times after a write.  Here each cell draws its place in that
spread once, at the write, and keeps it: at every time the spread is the published one, and in between a cell moves
instead of being drawn again.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zolib.hardware.fast import CellReadNoise
from zolib.hardware.stage import CellStage, When, number, one_of
from zolib.hardware.write import FittedProgramming


class WanRelaxation(CellStage):
    r"""Error of write-verified cells, and its growth: :math:`g(t) = g + \sigma(x, t)\,\xi`.

    sigma is a polynomial of x = g / g_max at 1 s, 1 day and 2 days, microsiemens at g_max = 40, interpolated in ln t
    and held outside.  Golden values of sigma / g_max at x = 0.5: 5.06, 9.77, 9.82 %.

    Source: read off from the figures of Wan et al. (Nature 608:504, 2022) and fitted by the authors of the IBM analog
    hardware kit.  Read noise, of about 1 %, is not part of it: add ``ReadNoise(0.01, "independent")``.

    Args:
        scale: Multiplies sigma; 1 is as measured.
    """

    when = When.SLOW
    REFERENCE = 40.0
    TIMES = (1.0, 86400.0, 172800.0)
    FITS = (
        (0.348, 16.030, -43.853, 45.393, -16.815),
        (0.701, 22.086, -50.773, 47.095, -16.458),
        (0.782, 20.274, -43.507, 37.062, -11.934),
    )
    xi: Tensor

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = number("scale", scale)

    def deviation(self, g: Tensor, seconds: Tensor, g_max: float) -> Tensor:
        """sigma in microsiemens, for targets g in microsiemens."""
        sizes = [FittedProgramming(fit, self.REFERENCE).deviation(g, g_max) for fit in self.FITS]
        early, day, late = (math.log(t) for t in self.TIMES)
        log = seconds.clamp(*self.TIMES[:: len(self.TIMES) - 1]).log()
        first, second = (log / (day - early)).clamp(max=1.0), ((log - day) / (late - day)).clamp(min=0.0)
        return self.scale * (sizes[0] + (sizes[1] - sizes[0]) * first + (sizes[2] - sizes[1]) * second)

    def build(self, cells) -> None:
        self.register_buffer("xi", torch.zeros_like(cells.g))

    def wrote(self, where: Tensor, cells) -> None:
        self.xi.copy_(torch.where(where, cells.normal(self), self.xi))

    def forward(self, g: Tensor, cells) -> Tensor:
        return g + self.deviation(cells.target, cells.age(), cells.chip.g_max) * self.xi


class CMOProgramming(FittedProgramming):
    r"""Write-verify error of CMO/HfOx cells: linear in g, for the range in which a write is accepted.

    0.2 %: 0.00081107 + 0.00106879 g; 2 %: 0.0112185391 + 0.01129027418 g, microsiemens, g_max = 88.2.

    Source: characterisation by Falcone et al. (IBM Zurich), as given in the IBM analog hardware kit.

    Args:
        acceptance: 0.2 or 2, per cent of the target.
    """

    FITS = {0.2: (0.00081107, 0.00106879), 2.0: (0.0112185391, 0.01129027418)}

    def __init__(self, acceptance: float = 2.0):
        constant, slope = self.FITS[one_of("acceptance", acceptance, tuple(self.FITS))]
        super().__init__((constant, slope * 88.2), reference=88.2)
        self.acceptance = acceptance


class CMORelaxation(CellStage):
    r"""What time does to CMO/HfOx cells, whatever their target: a mean shift and a spread (microsiemens; g_max = 88.2).

    .. math:: g(t) = g - 0.08900206 \ln t + (0.04201137 \ln t + 0.41183342)\,\xi, \qquad t \ge 1 \text{ s}

    Before the first second a cell is where it will be then.  Golden values after a day: mean -1.0116, spread 0.8894.
    Source: as :class:`CMOProgramming`.
    """

    when = When.SLOW
    xi: Tensor

    def build(self, cells) -> None:
        self.register_buffer("xi", torch.zeros_like(cells.g))

    def wrote(self, where: Tensor, cells) -> None:
        self.xi.copy_(torch.where(where, cells.normal(self), self.xi))

    def forward(self, g: Tensor, cells) -> Tensor:
        log = cells.age().clamp(min=1.0).log()
        move = -0.08900206 * log + (0.04201137 * log + 0.41183342) * self.xi
        return (g + move * (cells.chip.g_max / 88.2)).clamp(cells.chip.g_min, cells.chip.g_max)


class CMOReadNoise(CellReadNoise):
    r"""1/f read noise of CMO/HfOx cells: :math:`\sigma = 0.0277316483\,\log_{10} g\,\sqrt{\ln((t + t_r)/2t_r)}`.

    In microsiemens at g_max = 88.2, with t_r = 1 microsecond; 0 for g below 1.  Source: as :class:`CMOProgramming`.
    """

    timed = True

    def deviation(self, g: Tensor, cells) -> Tensor:
        unit, t_read = cells.chip.g_max / 88.2, 1e-6
        built_up = ((cells.age().clamp(min=t_read) + t_read) / (2 * t_read)).log().sqrt()
        return unit * 0.0277316483 * (g / unit).clamp(min=1.0).log10() * built_up
