"""FROZEN: what differs from device to device and stays.  Learning can compensate for it."""

from __future__ import annotations

import torch
from torch import Tensor

from zolib.hardware.stage import CellStage, OutputStage, When, number


class Mismatch(CellStage):
    r"""Device-to-device mismatch: each cell has a gain of its own.

    .. math:: g \leftarrow \max(0,\ g\,(1 + \delta\,\xi)), \qquad \xi \sim \mathcal N(0, 1) \text{ once for each cell}

    Args:
        spread: :math:`\delta`, relative standard deviation.
    """

    when = When.FROZEN

    def __init__(self, spread: float):
        super().__init__()
        self.spread = number("spread", spread)

    def build(self, cells):
        self.register_buffer("gain", (1 + self.spread * cells.normal(self)).clamp(min=0.0))

    def forward(self, g: Tensor, cells) -> Tensor:
        return g * self.gain


class StuckAt(CellStage):
    """Stuck cells: a part of the cells conducts what it conducts, whatever is written to it.

    Args:
        fraction: Of all cells, each independently, both members of a pair included.
        on: Which part of the stuck cells is stuck at g_max (a short); the others are stuck at g_min (never formed).
    """

    when = When.FROZEN

    def __init__(self, fraction: float, on: float = 0.0):
        super().__init__()
        self.fraction, self.on = number("fraction", fraction, high=1.0), number("on", on, high=1.0)

    def build(self, cells):
        u = torch.special.ndtr(cells.normal(self).double())  # uniform in (0, 1)
        self.register_buffer("stuck", u < self.fraction)
        level = torch.where(u < self.fraction * self.on, cells.chip.g_max, cells.chip.g_min)
        self.register_buffer("level", level.to(cells.g.dtype))

    def forward(self, g: Tensor, cells) -> Tensor:
        return torch.where(self.stuck, self.level, g)


class ReadoutMismatch(OutputStage):
    r"""Each output has a gain and an offset of its own, as amplifiers and converters do.

    .. math:: y_i \leftarrow (1 + \epsilon_i)\,y_i + o_i\,I_1

    Args:
        gain: Standard deviation of :math:`\epsilon`.
        offset: Standard deviation of o, in units of one cell's full current :math:`I_1` (see
            :class:`~zolib.hardware.OutputNoise`).
    """

    when = When.FROZEN
    needs = "columns"

    def __init__(self, gain: float = 0.0, offset: float = 0.0):
        super().__init__()
        self.gain, self.offset = number("gain", gain), number("offset", offset)

    def build(self, tile):
        self.register_buffer("gains", 1 + self.gain * tile.normal(self, 0))
        self.register_buffer("offsets", self.offset * tile.normal(self, 1))

    def forward(self, y: Tensor, read) -> Tensor:
        gains, offsets = (read.tile.spread(values, y.ndim) for values in (self.gains, self.offsets))
        return y * gains + offsets * read.unit
