"""SLOW: what is a function of time.  It cancels in the difference of two reads, as far as they are close in time."""

from __future__ import annotations

import torch
from torch import Tensor

from zolib.hardware.processes import Process
from zolib.hardware.stage import SCALINGS, CellStage, OutputStage, When, number, one_of, scaled


class Drift(CellStage):
    r"""Conductance drift: a power law of the time since a cell was written.

    .. math:: g(t) = g\left(\frac{t + t_0}{t_0}\right)^{-\nu}, \qquad \nu = |\mu + \delta\,\xi|
              \text{ drawn at each write}

    Args:
        nu: :math:`\mu`, the mean exponent.
        spread: :math:`\delta`, its standard deviation from write to write and cell to cell.
        t0: Seconds after the write at which it was verified.
    """

    when = When.SLOW
    nu_of: Tensor

    def __init__(self, nu: float = 0.05, spread: float = 0.0, t0: float = 1.0):
        super().__init__()
        self.nu, self.spread = number("nu", nu), number("spread", spread)
        self.t0 = number("t0", t0, above=True)

    def exponent(self, x: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """Mean and standard deviation of nu for targets x = g / g_max."""
        return self.nu, self.spread

    def build(self, cells) -> None:
        self.register_buffer("nu_of", torch.zeros_like(cells.g))

    def wrote(self, where: Tensor, cells) -> None:
        mean, sd = self.exponent(cells.target / cells.chip.g_max)
        drawn = (mean + sd * cells.normal(self)).abs()
        self.nu_of.copy_(torch.where(where, drawn, self.nu_of))

    def forward(self, g: Tensor, cells) -> Tensor:
        return g * ((cells.age() + self.t0) / self.t0) ** -self.nu_of


class CellNoise(CellStage):
    r"""Each cell fluctuates along a trajectory of its own: a random process times a scaling.

    .. math:: g(t) = g + S(g)\,x(t), \qquad S = g_{max},\ g \text{ or } g_{max}^2/g

    Within one call of a layer, the cells are held; between calls, time passes (:meth:`Deployed.age`, and the reads
    themselves, see ``read_time`` of :class:`Chip`).

    Args:
        process: x(t), for example ``Telegraph(0.02, rate=1e3)``.
        scaling: ``"independent"``, ``"proportional"`` or ``"inverse"``.
    """

    when = When.SLOW

    def __init__(self, process: Process, scaling: str = "proportional"):
        super().__init__()
        self.process, self.scaling = _process(process), one_of("scaling", scaling, SCALINGS)

    def build(self, cells) -> None:
        self.process.start(cells.shape, cells.g, cells.chip.generator(cells.g.device))

    def advance(self, seconds: float, cells) -> None:
        self.process.advance(seconds, cells.chip.generator(cells.g.device))

    def forward(self, g: Tensor, cells) -> Tensor:
        return g + scaled(self.scaling, g, cells.chip.g_max) * self.process.value()


class NodeNoise(OutputStage):
    """Each output fluctuates along a trajectory of its own.

    The rows of a batch are read one after the other, ``read_time`` of the chip apart, so a batch sees a piece of the
    trajectory, in its order (of a convolution: example by example, position by position).

    Args:
        process: x(t), in units of one cell's full current (see :class:`~zolib.hardware.OutputNoise`).
    """

    when = When.SLOW

    def __init__(self, process: Process):
        super().__init__()
        self.process = _process(process)
        self._last: int | None = None

    def forward(self, y: Tensor, read) -> Tensor:
        """y: ([S,] B, ...), with the outputs of one row along ``tile.unit_axis``."""
        chip, tile = read.tile.chip, read.tile
        ordered = y.detach().movedim(tile.unit_axis, -1)  # ([S,] B, ..., outputs)
        lead = ordered.shape[:1] if chip.n_chips else ordered.shape[:0]
        shape = (*lead, ordered.shape[-1])
        generator = chip.generator(y.device)
        if self._last is None or self.process.value().shape != shape:
            self.process.start(shape, y, generator)
        elif chip.now > self._last:
            self.process.advance((chip.now - self._last) * 1e-9, generator)
        rows = ordered.shape[:-1].numel() // (lead.numel() or 1)
        path = self.process.path(rows, chip.read_time, generator)  # (rows, [S,] outputs)
        self._last = chip.now + round((rows - 1) * chip.read_time * 1e9)
        noise = path.movedim(0, -2).reshape(ordered.shape).movedim(-1, tile.unit_axis)
        noise = noise.mul_(read.unit)  # a path is a new tensor
        return y + noise if y.requires_grad else y.add_(noise)

    def get_extra_state(self):
        return {"last": self._last, "shape": None if self._last is None else tuple(self.process.value().shape)}

    def set_extra_state(self, state) -> None:
        self._last = state["last"]

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        shape = state_dict.get(prefix + "_extra_state", {}).get("shape")
        if shape is not None:  # the state is made at the first read; make room for it
            generator = torch.Generator()
            self.process.start(shape, torch.zeros(()), generator)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _process(process: Process) -> Process:
    if not isinstance(process, Process):
        raise TypeError(
            f"process must be an OrnsteinUhlenbeck, Telegraph or Flicker, got {process!r}; white noise is OutputNoise "
            "(outputs) or ReadNoise (cells)"
        )
    return process
