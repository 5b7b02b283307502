"""What a device's imperfections are made of: stages, sorted by when their error is drawn.

=======  ==========================  =====================================  ===========================================
when     drawn                       examples                               what learning can do
=======  ==========================  =====================================  ===========================================
FROZEN   once, when a chip is made   mismatch, stuck cells                  learn around it
WRITE    at each write of a cell     programming noise, cycle to cycle      bear it, as noise on the weights
SLOW     a function of time          drift, 1/f, telegraph noise            it cancels between two reads close in time
FAST     at each read                output noise, converters               use it: it explores
=======  ==========================  =====================================  ===========================================

A stage belongs to one of three places: the inputs of an array of cells, the cells, or the outputs.  What a user writes,
``OutputNoise(0.04)``, is a template; each array of a chip has its own copy, with its own state in buffers.
"""

from __future__ import annotations

import inspect
import math
import numbers
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from zolib.hardware.cells import Cells
    from zolib.hardware.tile import Read, Tile


class When(Enum):
    """When the error of a stage is drawn."""

    FROZEN = "once per chip"
    WRITE = "at each write"
    SLOW = "in time"
    FAST = "at each read"


class Stage(nn.Module):
    """One effect.  ``number`` is its place on its chip, and part of what its random numbers are a function of."""

    when: ClassVar[When]
    physical: ClassVar[bool] = True  # what happened to a device cannot be set back between two evaluations
    number: int = 0

    def extra_repr(self) -> str:
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        values = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return ", ".join(f"{k}={v!r}" for k, v in values.items() if not isinstance(v, nn.Module))


class CellStage(Stage):
    """An effect on the conductances of cells, all in microsiemens, of shape ``cells.shape``."""

    def build(self, cells: Cells) -> None:
        """Make the state, in buffers, for a new array; here FROZEN errors are drawn."""

    def program(self, g: Tensor, cells: Cells) -> Tensor:
        """What a write to the targets g leaves in the cells."""
        return g

    def wrote(self, where: Tensor, cells: Cells) -> None:
        """Cells ``where`` were just written, ``cells.target`` holds to what: renew the state that a write renews."""

    def advance(self, seconds: float, cells: Cells) -> None:
        """Time passes."""

    def forward(self, g: Tensor, cells: Cells) -> Tensor:
        """The conductances now, from those that were stored; differentiable."""
        return g


class InputStage(Stage):
    """An effect on what is applied to the rows of an array."""

    def forward(self, x: Tensor, read: Read) -> Tensor:
        """The inputs as they are applied.  May set ``read.x_max``, the input that stands for the full voltage."""
        raise NotImplementedError


class OutputStage(Stage):
    """An effect on what is read at the columns of an array, or on the output of any other module.

    needs: ``"cells"`` if it depends on conductances, which then have to be simulated, ``"columns"`` if only on how many
    outputs an array has.  ``timed`` if what :meth:`refresh` keeps depends on the time.
    """

    needs: ClassVar[str] = ""
    timed: ClassVar[bool] = False

    def build(self, tile: Tile) -> None:
        """Make the state for a new array."""

    def refresh(self, g: Tensor, tile: Tile) -> None:
        """The conductances have changed: keep what depends on them.  g: as ``tile.cells.shape``, microsiemens."""

    def forward(self, y: Tensor, read: Read) -> Tensor:
        """The outputs after this effect.  y may be written to."""
        raise NotImplementedError


class GaussianStage(OutputStage):
    """Independent normal noise on each output.  Neighbouring ones are drawn together, as their variances add."""

    when = When.FAST

    def variance(self, read: Read) -> Tensor | float:
        """In the units of the output, squared; broadcasts to it."""
        raise NotImplementedError


def number(name: str, value: Any, low: float = 0.0, high: float = math.inf, above: bool = False) -> float:
    """An argument that must be a finite number in [low, high], or in (low, high] with ``above``."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not math.isfinite(value) or not low <= value <= high or (above and value == low):
        least = f"above {low:g}" if above else f"at least {low:g}"
        raise ValueError(f"{name} must be {least}{'' if math.isinf(high) else f' and at most {high:g}'}, got {value!r}")
    return float(value)


def one_of(name: str, value: Any, known: Any) -> Any:
    """An argument that must be one of a few names."""
    if value not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, got {value!r}")
    return value


def scaled(scaling: str, g: Tensor, g_max: float) -> Tensor | float:
    """What a relative error is multiplied with, in microsiemens.

    ``"independent"``: g_max.  ``"proportional"``: g.  ``"inverse"``: g_max^2 / g, at most 100 g_max.
    """
    if scaling == "independent":
        return g_max
    if scaling == "proportional":
        return g
    return g_max * (g_max / g.clamp(min=0.01 * g_max))


SCALINGS = ("independent", "proportional", "inverse")
