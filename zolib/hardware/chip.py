"""A chip: a list of stages, how many copies of it were made, and what all of its arrays share: time and chance."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Generator, Tensor, nn

from zolib.hardware.pulses import ConstantStep
from zolib.hardware.stage import Stage, number
from zolib.noise import stream
from zolib.noise.seeds import as_seed, natural

_HARDWARE, _FAST = 0x6877, 0x6661  # keys of their own: a chip never meets a probe's noise of the same seed


@dataclass
class Counters:
    """What has been done, on all chips together.  Subtract an earlier copy to count from there.

    Attributes:
        reads: Vectors that an array was read with.
        macs: Multiply-accumulates in the arrays.
        inputs: Digital-to-analog conversions, where there is a DAC.
        outputs: Analog-to-digital conversions, where there is an ADC.
        writes: Cells programmed.
        pulses: Update pulses.
        probes: Weights that a probe has shaken, once for each evaluation.  On a chip that is a write as well, or
            another way in that the chip must have; the simulation shakes them without one.
    """

    reads: int = 0
    macs: int = 0
    inputs: int = 0
    outputs: int = 0
    writes: int = 0
    pulses: int = 0
    probes: int = 0

    def __sub__(self, earlier: Counters) -> Counters:
        before = asdict(earlier)
        return Counters(**{name: count - before[name] for name, count in asdict(self).items()})


class Chip(nn.Module):
    """A kind of chip, and a number of copies that differ in what is drawn for each.

    Inputs pass the input stages; then cells conduct, as the cell stages say; then the output stages act; each in the
    order of the list.  (Among stages of the cells, what is FROZEN comes last: no write and no time changes a stuck
    cell.)  ``deploy(model, chip)`` copies the chip; ``chip`` itself stays as it is, and can be used again.

    The same seed makes the same chips: chip number s of 8 is chip number s of 100, and a chip without a chip axis is
    number 0.  FROZEN and WRITE errors are functions of (seed, array, stage, write); SLOW and FAST ones come from a
    generator of the chip's own, which is part of ``state_dict``, is never set back between the evaluations of a
    probe, and leaves the global generators alone.

    Args:
        stages: Objects such as ``OutputNoise(0.04)``.
        n_chips: S, the length of the chip axis; None: one chip and no chip axis.
        seed: None draws the next of the library's counter.
        g_max, g_min: Conductance range of a cell, microsiemens.
        read_time: Seconds that one vector takes to be read.  The chip's clock runs by it at each read, one array after
            another.

    Raises:
        ValueError, TypeError: An argument is out of range or of the wrong kind.

    >>> from zolib import hardware as H
    >>> chip = H.Chip([H.StuckAt(0.1), H.Mismatch(0.3), H.OutputNoise(0.04), H.ADC(8)], n_chips=8, seed=0)
    >>> [stage.when.name for stage in chip.stages]
    ['FROZEN', 'FROZEN', 'FAST', 'FAST']
    """

    physical = True

    def __init__(
        self,
        stages: Iterable[Stage] = (),
        n_chips: int | None = None,
        seed: int | None = 0,
        *,
        g_max: float = 25.0,
        g_min: float = 0.0,
        read_time: float = 0.0,
    ):
        super().__init__()
        self.stages = tuple(stages)
        for i, stage in enumerate(self.stages):
            if not isinstance(stage, Stage):
                is_class = isinstance(stage, type) and issubclass(stage, Stage)
                cure = f"pass an object, {stage.__name__}(...)" if is_class else "pass stages such as OutputNoise(0.04)"
                raise TypeError(f"stages[{i}] is {stage!r}; {cure}")
        laws = [type(s).__name__ for s in self.stages if isinstance(s, ConstantStep)]
        if len(laws) > 1:
            raise ValueError(f"stages: {' and '.join(laws)} are both update laws; a cell has one")
        self.n_chips = None if n_chips is None else natural("n_chips", n_chips, 1 << 32)
        if self.n_chips == 0:
            raise ValueError("n_chips must be at least 1, or None for one chip without a chip axis")
        self.seed = as_seed(seed)
        self.g_max, self.g_min = number("g_max", g_max, above=True), number("g_min", g_min)
        if self.g_min >= self.g_max:
            raise ValueError(f"g_min={g_min:g} must be below g_max={g_max:g} microsiemens")
        self.read_time = number("read_time", read_time)
        if 0 < self.read_time < 1e-9:
            raise ValueError(f"read_time={read_time:g} seconds is shorter than a tick of the chip's clock, 1e-9 s")
        self.now = 0  # nanoseconds: whole numbers, so that ageing twice is ageing by the sum
        self.counts = Counters()
        self._generators: dict[str, Generator] = {}

    @property
    def lead(self) -> tuple[int, ...]:
        """The chip axis, or nothing."""
        return () if self.n_chips is None else (self.n_chips,)

    def copies(self) -> list[Stage]:
        """The stages, without state, for a new array."""
        made = [copy.deepcopy(stage) for stage in self.stages]
        for i, stage in enumerate(made):
            stage.number = i
        return made

    def cells(self, *shape: int) -> Any:
        r"""An array of cells outside any model, of a chip of its own: program it, let it age, look at it.

        Its shape is ([S,] \*shape); with an update law ([S,] 2, \*shape), each cell with its reference.

        >>> from zolib import hardware as H
        >>> cells = H.Chip([H.PCMProgramming(), H.PCMDrift()]).cells(1000)
        >>> cells.program(20.0)
        >>> cells.chip.age(3600.0)
        >>> bool(cells.read().mean() < 20.0)
        True
        """
        from zolib.hardware.cells import Cells

        chip = copy.deepcopy(self)
        pulsed = any(isinstance(stage, ConstantStep) for stage in self.stages)
        return Cells(chip, (2, *shape) if pulsed else shape, 0, torch.zeros(()))

    def age(self, seconds: float) -> None:
        """Let time pass.  Raises ValueError for a time that runs backwards."""
        if not number("seconds", seconds, low=-float("inf")) >= 0:
            raise ValueError(f"seconds={seconds!r}: time runs forwards; to start again, deploy the model again")
        self.now += round(seconds * 1e9)

    def generator(self, device: torch.device) -> Generator:
        """Where SLOW and FAST noise comes from, on a device."""
        name = str(device)
        if name not in self._generators:
            low, high = stream.fold(self.seed, _FAST)
            self._generators[name] = Generator(device).manual_seed(low | (high & 0x7FFFFFFF) << 32)
        return self._generators[name]

    def normal(self, like: Tensor, array: int, stage: int, which: int = 0, event: int = 0) -> Tensor:
        """Standard normal numbers of the shape, dtype and device of ``like``, whose first axis is the chip axis."""
        low, high = stream.fold(self.seed, _HARDWARE)
        low, high = stream.fold(low | high << 32, (stage << 22) + which + 8)
        samples = range(self.n_chips or 1)
        part = [(array, like.numel() // len(samples))]
        drawn = stream.draw(stream.NORMAL, low | high << 32, event, samples, part, like.device)[0]
        return drawn.view(like.shape).to(like.dtype)

    def get_extra_state(self) -> dict[str, Any]:
        generators = {name: g.get_state() for name, g in self._generators.items()}
        return {"seed": self.seed, "now": self.now, "counters": asdict(self.counts), "generators": generators}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.seed, self.now, self.counts = state["seed"], state["now"], Counters(**state["counters"])
        self._generators = {}
        for name, saved in state["generators"].items():
            self.generator(torch.device(name)).set_state(saved)

    def extra_repr(self) -> str:
        head = f"n_chips={self.n_chips}, seed={self.seed}, g_max={self.g_max:g}, g_min={self.g_min:g}"
        return "\n".join([head, *(f"{stage.when.name:6s} {stage}" for stage in self.stages)])
