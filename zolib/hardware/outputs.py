"""What is read at the outputs of a layer on a chip, or of any other module."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zolib.hardware.converters import ADC
from zolib.hardware.stage import GaussianStage, OutputStage

if TYPE_CHECKING:
    from zolib.hardware.chip import Chip
    from zolib.hardware.tile import Tile


class Read:
    """One read of a tile, as its stages see it.

    Attributes:
        tile: Of which.
        x: The inputs as applied.
        x_max: The input that stands for the full voltage, a number or one for each row.
    """

    def __init__(self, tile: Tile | Outputs, x: Tensor | None):
        self.tile, self.x = tile, x
        self.x_max: Tensor | float = 1.0

    @property
    def unit(self) -> Tensor | float:
        """The current of one full cell at full voltage, in the units of the outputs."""
        return self.tile.w_max * self.x_max


class Outputs(nn.Module):
    """A module whose output is read through the output stages of a chip.  Shapes: ``([S *] B, ...)`` in and out."""

    physical = True
    w_max = 1.0

    def __init__(self, chip: Chip, number: int, inner: nn.Module | None):
        super().__init__()
        self._chip, self.number = [chip], number
        self.inner = inner  # None: a tile, whose product is its own
        stages = [s for s in chip.copies() if isinstance(s, OutputStage)]
        self.outputs = nn.ModuleList(s for s in stages if inner is None or not s.needs)

    @property
    def chip(self) -> Chip:
        return self._chip[0]

    @property
    def lead(self) -> int:
        """How many axes come before the batch's."""
        return len(self.chip.lead)

    unit_axis = -1

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():  # a graph could not know what is kept, counted and drawn
            return torch.compiler.disable(self.read)(*args, **kwargs)
        return self.read(*args, **kwargs)

    def read(self, *args: Any, **kwargs: Any) -> Any:
        """One read."""
        y = self.inner(*args, **kwargs)
        if not isinstance(y, Tensor):
            raise TypeError(
                f"{type(self.inner).__name__} returned {type(y).__name__}, and output stages need one tensor; leave it "
                "out of outputs="
            )
        y = self.unfolded(y)
        self._count(0, 0, y.numel())
        return self.folded(self._through(y.clone(), Read(self, None)))

    def unfolded(self, x: Tensor) -> Tensor:
        """(S * B, ...) to (S, B, ...), if there is a chip axis."""
        return x.unflatten(0, (self.chip.n_chips, -1)) if self.lead else x

    def folded(self, y: Tensor) -> Tensor:
        return y.flatten(0, 1) if self.lead else y

    def _through(self, y: Tensor, read: Read) -> Tensor:
        """The output stages.  The variances of neighbouring normal ones add up to one draw."""
        variance: Tensor | float | None = None
        for stage in self.outputs:
            if isinstance(stage, GaussianStage):
                more = stage.variance(read)
                variance = more if variance is None else variance + more
                continue
            y, variance = self._noisy(y, variance), None
            y = stage(y, read)
        return self._noisy(y, variance)

    def _noisy(self, y: Tensor, variance: Tensor | float | None) -> Tensor:
        if variance is None or (isinstance(variance, float) and not variance):
            return y
        z = torch.randn(y.shape, generator=self.chip.generator(y.device), dtype=y.dtype, device=y.device)
        z = z.mul_(variance.detach().sqrt() if isinstance(variance, Tensor) else math.sqrt(variance))
        return y + z if y.requires_grad else y.add_(z)

    def _count(self, rows: int, weights: int, outputs: int) -> None:
        """rows: vectors read, on all chips together.  Time passes by their number on each chip."""
        counts = self.chip.counts
        counts.reads += rows
        counts.macs += rows * weights
        if any(isinstance(s, ADC) for s in self.outputs):
            counts.outputs += outputs
