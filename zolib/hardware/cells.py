"""An array of memory cells: what was written to them, what time has made of it, and what they conduct now."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zolib.hardware.mapping import Pair, Reference
from zolib.hardware.pulses import ConstantStep
from zolib.hardware.stage import CellStage, When

if TYPE_CHECKING:
    from zolib.hardware.chip import Chip


class Cells(nn.Module):
    """Cells of one array, on each of the chips: conductances in microsiemens, of ``shape`` ([S,] ...).

    ``chip.cells(1000)`` makes some to look at; each layer of a deployed model has an array of them, in pairs.

    Attributes:
        g: What the last write left in them.
        target: What it was meant to leave.
        written: When, nanoseconds on the chip's clock.
        arms: The axis along which the members of a pair lie, in the arrays of layers.
    """

    physical = True
    g: Tensor
    target: Tensor
    written: Tensor

    def __init__(self, chip: Chip, shape: Sequence[int], number: int, like: Tensor):
        super().__init__()
        self._chip = [chip]  # in a list: the chip is not a part of each of its arrays
        self.number, self.shape = number, (*chip.lead, *shape)
        self.arms = len(chip.lead)
        self.events, self.moved = 0, chip.now  # writes so far; when the processes were last moved on
        self.register_buffer("g", torch.full(self.shape, chip.g_min, dtype=like.dtype, device=like.device))
        self.register_buffer("target", self.g.clone())
        self.register_buffer("written", torch.full(self.shape, chip.now, dtype=torch.int64, device=like.device))
        stages = [stage for stage in chip.copies() if isinstance(stage, CellStage)]
        # a write, then what time does to it, then what no write and no time can change
        self.stages = nn.ModuleList(sorted(stages, key=lambda s: s.when is When.FROZEN))
        for stage in self.stages:
            stage.build(self)

    @property
    def chip(self) -> Chip:
        return self._chip[0]

    @property
    def law(self) -> ConstantStep | None:
        """How pulses move these cells, if the chip has such a law."""
        return next((s for s in self.stages if isinstance(s, ConstantStep)), None)

    @property
    def mapping(self) -> Pair | Reference:
        """How these cells stand for weights."""
        kind = Pair if self.law is None else Reference
        return kind(self.chip.g_min, self.chip.g_max)

    def normal(self, stage: CellStage, which: int = 0) -> Tensor:
        """Standard normal numbers of a stage, of ``shape``: the same for the same chip, array and write."""
        return self.chip.normal(self.g, self.number, stage.number, which, self.events)

    def age(self) -> Tensor:
        """Seconds since each cell was written."""
        return ((self.chip.now - self.written).double() / 1e9).to(self.g.dtype)

    @torch.no_grad()
    def program(self, target: Tensor | float, where: Tensor | None = None) -> None:
        """Write cells ``where`` (all, unless told otherwise) to ``target``, microsiemens, broadcast to ``shape``.

        Raises ValueError for a target that no cell can have; nothing is written.
        """
        target = torch.as_tensor(target, dtype=self.g.dtype, device=self.g.device).expand(self.shape)
        low, high = self.chip.g_min, self.chip.g_max
        slack = 1e-6 * high  # rounding of a mapping
        bad = (target < low - slack) | (target > high + slack) | target.isnan()
        if bool(bad.any()):
            raise ValueError(
                f"target: a conductance of {target[bad][0].item():.6g} microsiemens is not between g_min={low:g} and "
                f"g_max={high:g}; clip the targets, or make the chip with a larger g_max"
            )
        if where is None:
            where = torch.ones(self.shape, dtype=torch.bool, device=self.g.device)
        self._move_on()
        self.events += 1
        self.target.copy_(torch.where(where, target, self.target))
        g = target
        for stage in self.stages:
            g = stage.program(g, self)
        self.g.copy_(torch.where(where, g.clamp(min=0.0), self.g))
        self._wrote(where)
        self.chip.counts.writes += int(where.sum())

    @torch.no_grad()
    def pulse(self, change: Tensor) -> None:
        """Send each pair the pulses that should change its u = w / w_max by ``change``, shape without the arms.

        How many: change over the mean step, rounded up or down at random so that it is right on average.
        """
        law, mapping = self.law, self.mapping
        if law is None:
            raise ValueError("pulse: this chip has no update law; add one, for example SoftBounds()")
        self._move_on()
        self.events += 1
        dither = torch.special.ndtr(self.chip.normal(change, self.number, law.number, 1, self.events).double())
        counts = (change.double() / law.step + dither).floor().clamp(-law.longest, law.longest).to(torch.int64)
        u = law.pulsed(mapping.join(self.g, self.arms), counts, self)
        g = torch.stack((mapping.middle + mapping.range * u, self.g.select(self.arms, 1)), dim=self.arms)
        where = torch.stack((counts != 0, torch.zeros_like(counts, dtype=torch.bool)), dim=self.arms)
        self.g.copy_(torch.where(where, g.clamp(min=0.0), self.g))
        self.target.copy_(torch.where(where, self.g, self.target))
        self._wrote(where)
        self.chip.counts.pulses += int(counts.abs().sum())

    def read(self, shift: Tensor | None = None) -> Tensor:
        """What they conduct now, microsiemens.  shift: added to what is stored, as a probe on the weights does."""
        self._move_on()
        g = self.g if shift is None else self.g + shift
        for stage in self.stages:
            g = stage(g, self)
        return g.clamp(min=0.0)

    def _move_on(self) -> None:
        """Bring the processes to the chip's time."""
        elapsed = (self.chip.now - self.moved) * 1e-9
        if elapsed > 0:
            for stage in self.stages:
                stage.advance(elapsed, self)
            self.moved = self.chip.now

    def _wrote(self, where: Tensor) -> None:
        self.written.copy_(torch.where(where, self.chip.now, self.written))
        for stage in self.stages:
            stage.wrote(where, self)

    def get_extra_state(self) -> dict[str, Any]:
        return {"events": self.events, "moved": self.moved}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.events, self.moved = state["events"], state["moved"]

    def extra_repr(self) -> str:
        return f"{math.prod(self.shape)} cells of shape {self.shape}"
