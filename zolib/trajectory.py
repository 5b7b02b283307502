"""A run as numbers: what each step writes into the weights, from seeds and coefficients alone.

The same code moves the weights while they are trained and when a run is replayed, so that both give the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from zolib.gradient import probe_size
from zolib.noise import fused
from zolib.noise.rounding import HALF

#: Momentum forgets a step when its weight has fallen below this share.
TAIL = 0.01


class Group(NamedTuple):
    """What a step does to one group of parameters: theta <- decay theta - v, v <- momentum v + factor sum_k c_k z_k."""

    factor: float
    decay: float
    momentum: float


class Record(NamedTuple):
    """One step of a run."""

    step: int
    coefficients: tuple[float, ...]  # c_k, (samples,)
    groups: tuple[Group, ...]
    idle: frozenset[int] = frozenset()  # numbers of the parameters that the step leaves alone: frozen, or not consumed
    mean_square: float = 0.0  # the running mean square of the slopes after this step, where one is kept


class Past(NamedTuple):
    """A step that momentum remembers."""

    step: int
    weight: float
    coefficients: tuple[float, ...]  # minus factor times c_k
    idle: frozenset[int]


class Trajectory:
    """Moves weights along the records of a run.  Its memory is a few numbers for each step that momentum remembers.

    law: ``stream.SIGN`` or ``stream.NORMAL``.  seed: of the stream.
    """

    def __init__(self, law: int, seed: int):
        self.law, self.seed = law, seed
        self.past: list[list[Past]] = []  # for each group, the oldest first

    def remember(self, record: Record) -> None:
        """Take a step in, without its weights."""
        self.past += [[] for _ in record.groups[len(self.past) :]]
        for g, (factor, _, momentum) in enumerate(record.groups):
            older = (p._replace(weight=p.weight * momentum) for p in self.past[g])
            now = Past(record.step, 1.0, tuple(-factor * c for c in record.coefficients), record.idle)
            self.past[g] = [p for p in older if p.weight >= TAIL] + [now]

    def write(self, record: Record, groups: Sequence[Sequence[Tensor]]) -> None:
        """Update the weights with the step taken in last.  groups: all parameters, numbered as they come."""
        numbered = ((g, p) for g, parameters in enumerate(groups) for p in parameters)
        for number, (g, parameter) in enumerate(numbered):
            if number in record.idle:
                continue
            terms = [
                fused.Term(self.seed, past.step, k, past.weight * c)
                for past in self.past[g]
                if number not in past.idle
                for k, c in enumerate(past.coefficients)
            ]
            if parameter.dtype in HALF:
                # Rounded with the last term's bits.  A sample's own were used by its probe, so its coefficient knows
                # them and the update would not be right on average.  This sample is never probed.
                terms.append(fused.Term(self.seed, record.step, len(record.coefficients), 0.0))
            fused.update_(parameter, self.law, terms, number, record.groups[g].decay)

    def replay(self, records: Iterable[Record], groups: Sequence[Sequence[Tensor]], start: int = 0) -> None:
        """All records in turn; the weights already hold those before ``start``."""
        for record in records:
            self.remember(record)
            if record.step >= start:
                self.write(record, groups)

    def to_lists(self) -> list[Any]:
        """What momentum remembers, in plain lists."""
        return [[[p.step, p.weight, list(p.coefficients), sorted(p.idle)] for p in past] for past in self.past]

    def from_lists(self, lists: list[Any]) -> None:
        self.past = [[Past(step, w, tuple(c), frozenset(idle)) for step, w, c, idle in past] for past in lists]


def settings_of(group: dict[str, Any]) -> dict[str, float]:
    """lr, sigma, momentum and weight_decay of a group, checked."""
    found = {name: float(group[name]) for name in ("lr", "momentum", "weight_decay")}
    for name, value in found.items():
        if not 0 <= value < (1 if name == "momentum" else math.inf):
            raise ValueError(f"{name} must be at least 0{' and below 1' if name == 'momentum' else ''}, got {value!r}")
    return {**found, "sigma": probe_size(group["sigma"])}
