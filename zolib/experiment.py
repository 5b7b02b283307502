"""An experiment: what is shaken, and how the slopes become a gradient again.

The loop of :mod:`zolib.gradient` asks a few things of it and does not care where the noise enters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import vmap

from zolib.directions import Directions
from zolib.estimates import Estimate, Replay
from zolib.evaluation import State, checked_loss
from zolib.subject import Subject, as_trainable
from zolib.tangent import slope_of_function, slope_of_module


class Experiment(Protocol):
    samples: int

    def state(self) -> State:
        """What has to be set back between evaluations."""

    def evaluate(self, k: int | None, scale: float) -> Tensor:
        """The loss at ``scale`` along sample k; at the unshaken place if k is None.  (), or (B,) one per example."""

    def evaluate_together(self, points: Sequence[tuple[int, float]]) -> Tensor:
        """The losses at several (sample, scale), (len(points), ...), in one batched evaluation."""

    def slope(self, k: int) -> tuple[Tensor, Tensor]:
        """The loss at the unshaken place, and its exact slope along sample k: (), or (B,) each."""

    def shaken(self) -> list[Tensor]:
        """What is shaken, as it is without noise."""

    def estimate(self, slopes: Tensor) -> Estimate:
        """The mean over samples and examples of what the slopes, (K,) or (K, B), say."""


class OnParameters:
    """Parameters of a module are shaken where they are consumed.

    sizes: for each target, how hard it is shaken relative to sigma; None: all alike.
    """

    def __init__(self, subject: Subject, directions: Directions, unused: str, sizes: Sequence[float] | None = None):
        self.subject, self.directions, self.unused = subject, directions, unused
        self.samples, self._sizes = directions.samples, sizes or [1.0] * len(directions.targets)

    def state(self) -> State:
        return self.subject.state()

    def evaluate(self, k: int | None, scale: float) -> Tensor:
        if k is None:
            return self.subject.evaluate(None, self.unused)
        directions, sizes = self.directions, self._sizes
        return self.subject.evaluate(
            lambda j: as_trainable(directions.perturbed(k, j, scale * sizes[j]), directions.targets[j].value),
            self.unused,
        )

    def evaluate_together(self, points: Sequence[tuple[int, float]]) -> Tensor:
        def one(*values: Tensor) -> Tensor:
            return self.subject.evaluate(lambda j: values[j], self.unused)

        return vmap(one, randomness="same")(*_stacked(self.directions, points))

    def slope(self, k: int) -> tuple[Tensor, Tensor]:
        return slope_of_module(self.subject, self.directions, k, self.unused)

    def shaken(self) -> list[Tensor]:
        return [t.value for t in self.subject.targets]

    def estimate(self, slopes: Tensor) -> Replay:
        idle = set(range(len(self.subject.targets))) - self.subject.consumed
        return Replay.mean(self.directions, slopes, idle)


class OnInputs:
    """The tensors of a tree are shaken, and a function sees the shaken tree.

    f: a function of the list of leaves.
    """

    def __init__(self, f: Callable[[list[Tensor]], Any], directions: Directions):
        self.f, self.directions, self.samples = f, directions, directions.samples

    def state(self) -> State:
        return State([], {t.value.device for t in self.directions.targets})

    def evaluate(self, k: int | None, scale: float) -> Tensor:
        targets = self.directions.targets
        if k is None:
            leaves = [t.value.detach().clone() for t in targets]
        else:
            leaves = [self.directions.perturbed(k, j, scale) for j in range(len(targets))]
        return self._loss(*leaves)

    def _loss(self, *leaves: Tensor) -> Tensor:
        return checked_loss(self.f(list(leaves)), "f", type(self.directions.probe).__name__)

    def evaluate_together(self, points: Sequence[tuple[int, float]]) -> Tensor:
        return vmap(self._loss, randomness="same")(*_stacked(self.directions, points))

    def slope(self, k: int) -> tuple[Tensor, Tensor]:
        return slope_of_function(self.f, self.directions, k)

    def shaken(self) -> list[Tensor]:
        return [t.value for t in self.directions.targets]

    def estimate(self, slopes: Tensor) -> Replay:
        return Replay.mean(self.directions, slopes)


def _stacked(directions: Directions, points: Sequence[tuple[int, float]]) -> list[Tensor]:
    """For each target, its values at all points: (len(points), *shape)."""
    count = len(directions.targets)
    return [torch.stack([directions.perturbed(k, j, scale) for k, scale in points]) for j in range(count)]
