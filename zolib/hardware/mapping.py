"""From weights to conductances and back.  A weight has a sign; a conductance has none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pair:
    r"""A differential pair: one cell for the positive part of a weight, one for the negative.

    .. math:: g_\pm = g_{min} + (g_{max} - g_{min}) \max(0, \pm u), \qquad u = w/w_{max} =
              \frac{g_+ - g_-}{g_{max} - g_{min}}

    Conductances in microsiemens.
    """

    g_min: float
    g_max: float

    @property
    def range(self) -> float:
        """The difference of conductances that stands for w_max."""
        return self.g_max - self.g_min

    def split(self, u: Tensor, dim: int) -> Tensor:
        """Conductances of the two cells, stacked along ``dim``, for u in [-1, 1]."""
        return self.g_min + self.range * torch.stack((u.clamp(min=0), (-u).clamp(min=0)), dim=dim)

    def join(self, g: Tensor, dim: int) -> Tensor:
        """u from the conductances of both cells."""
        plus, minus = g.unbind(dim)
        return (plus - minus) / self.range


@dataclass(frozen=True)
class Reference:
    r"""One cell that pulses move both ways, read against a fixed reference in the middle of its range.

    .. math:: g = \bar g + \tfrac12 (g_{max} - g_{min})\,u, \qquad \bar g = \tfrac12(g_{max} + g_{min})

    Conductances in microsiemens; the reference is the second of the two.
    """

    g_min: float
    g_max: float

    @property
    def range(self) -> float:
        """The difference of conductances that stands for w_max."""
        return (self.g_max - self.g_min) / 2

    @property
    def middle(self) -> float:
        return (self.g_max + self.g_min) / 2

    def split(self, u: Tensor, dim: int) -> Tensor:
        """As :meth:`Pair.split`."""
        return torch.stack((self.middle + self.range * u, torch.full_like(u, self.middle)), dim=dim)

    def join(self, g: Tensor, dim: int) -> Tensor:
        """u from the conductances of both cells."""
        cell, reference = g.unbind(dim)
        return (cell - reference) / self.range
