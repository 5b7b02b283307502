"""WRITE: what goes wrong each time a cell is programmed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zolib.hardware.stage import SCALINGS, CellStage, When, number, one_of, scaled

LAWS = ("normal", "uniform", "lognormal")


class Programming(CellStage):
    r"""Programming error as a distribution times a scaling; a few lines that cover many devices.

    .. math:: g \leftarrow g + \delta\,S(g)\,\eta, \qquad S = g_{max},\ g \text{ or } g_{max}^2/g

    Args:
        spread: :math:`\delta`, relative standard deviation.
        law: Of :math:`\eta`, which has mean 0 and variance 1: ``"normal"``, ``"uniform"``, or ``"lognormal"``, where
            ln g is normal with standard deviation ``spread`` and the median is the target (scaling plays no part).
        scaling: ``"independent"`` of g, ``"proportional"`` or ``"inverse"`` to it (at most 100 g_max).
    """

    when = When.WRITE

    def __init__(self, spread: float, law: str = "normal", scaling: str = "independent"):
        super().__init__()
        self.spread = number("spread", spread)
        self.law, self.scaling = one_of("law", law, LAWS), one_of("scaling", scaling, SCALINGS)

    def program(self, g: Tensor, cells) -> Tensor:
        xi = cells.normal(self)
        if self.law == "lognormal":
            return g * torch.exp(self.spread * xi)
        if self.law == "uniform":
            xi = (torch.special.ndtr(xi.double()) * 2 - 1).to(g.dtype) * 3**0.5
        return g + self.spread * scaled(self.scaling, g, cells.chip.g_max) * xi


class FittedProgramming(CellStage):
    r"""Programming error whose standard deviation is a polynomial of the target, fitted to measured cells.

    .. math:: g \leftarrow g + \sigma(x)\,\xi, \qquad
              \sigma(x) = \frac{g_{max}}{g_{ref}} \sum_i c_i x^i, \qquad x = g / g_{max}

    Args:
        coefficients: :math:`c_0, c_1, \dots`, microsiemens.
        reference: :math:`g_{ref}`, microsiemens: the full conductance of the cells that were measured.
        scale: Multiplies :math:`\sigma`; 1 is as measured.
    """

    when = When.WRITE

    def __init__(self, coefficients: Sequence[float], reference: float, scale: float = 1.0):
        super().__init__()
        self.coefficients = tuple(number("coefficients", c, low=-float("inf")) for c in coefficients)
        self.reference, self.scale = number("reference", reference, above=True), number("scale", scale)

    def deviation(self, g: Tensor, g_max: float) -> Tensor:
        """sigma in microsiemens for targets g in microsiemens."""
        x, sigma = g / g_max, torch.zeros_like(g)
        for c in reversed(self.coefficients):
            sigma = sigma * x + c
        return (self.scale * g_max / self.reference) * sigma.clamp(min=0.0)

    def program(self, g: Tensor, cells) -> Tensor:
        return g + self.deviation(g, cells.chip.g_max) * cells.normal(self)
