r"""Backpropagation as a probe: every direction at once, and no noise left.

The estimate of :class:`~zolib.Coordinate` with exact slopes, :math:`\sum_i c_i e_i` over all d coordinates, is the
gradient.  Forward mode gets its slopes in d passes; reverse mode gets all of them in one pass forward and one back,
because there is one loss.  This is the deterministic end of the library's loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zolib.errors import LossError, ParameterError
from zolib.estimates import Dense
from zolib.evaluation import State, checked_loss
from zolib.noise.point_of_use import PointOfUse
from zolib.probes import PROBES, Probe
from zolib.subject import Subject


@dataclass(frozen=True)
class Backpropagation(Probe):
    """All d coordinates, with their slopes by reverse mode: the gradient (Linnainmaa 1970; Rumelhart et al. 1986).

    Goes with the feedback ``"exact"`` and one sample.  It is ``loss.backward()`` by the door of all other rules, for
    comparisons with them.  One loss per example is averaged.  Memory: the activations of the whole pass.
    """

    where: ClassVar[str] = "nothing"
    law: ClassVar[str] = "every coordinate"

    def validate(self, d: int, samples: int) -> None:
        raise TypeError(
            "probe=Backpropagation() differentiates a closure, zolib.backward(closure, model, ...); for a function of "
            "tensors use torch.func.grad"
        )

    def experiment(self, subject: Subject, seed: int, step: int, samples: int, unused: str) -> AllAtOnce:
        """What :func:`zolib.backward` runs."""
        if samples != 1:
            raise ValueError(f"samples={samples}: Backpropagation knows every slope after one pass; use samples=1")
        return AllAtOnce(subject, unused)


class AllAtOnce:
    """One pass forward and one back."""

    samples = 1

    def __init__(self, subject: Subject, unused: str):
        self.subject, self.unused = subject, unused
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def state(self) -> State:
        return self.subject.state()

    def evaluate(self, k: int | None, scale: float) -> Tensor:
        raise TypeError("feedback: Backpropagation differentiates and takes no difference of values; use 'exact'")

    def evaluate_together(self, points: Sequence[tuple[int, float]]) -> Tensor:
        return self.evaluate(None, 0.0)

    def slope(self, k: int) -> tuple[Tensor, Tensor]:
        """The loss, and its slope along the gradient itself, in which any number that is not finite shows: (), ()."""
        targets = self.subject.targets
        with torch.enable_grad():
            with PointOfUse([], [], [], lambda j: targets[j].value):  # replaces nothing, refuses backward()
                loss = self.subject.closure()
            if not isinstance(loss, Tensor) or not loss.requires_grad:
                raise LossError(
                    "closure() returned a loss without a way back to the parameters; return the tensor, without "
                    ".item() or detach(), and give every tensor of model requires_grad_(True)"
                )
            mean = loss.mean() if loss.ndim == 1 else loss
            value = checked_loss(mean, "closure()", "Backpropagation")
            wanted = [j for j, t in enumerate(targets) if t.value.requires_grad]
            found = torch.autograd.grad(mean, [targets[j].value for j in wanted], allow_unused=True)
        gradients = {j: g.clone() for j, g in zip(wanted, found, strict=True) if g is not None}
        missing = [t.name for j, t in enumerate(targets) if j not in gradients]
        if missing and (self.unused == "raise" or not gradients):
            raise ParameterError(
                f"no derivative comes back to parameter {', '.join(map(repr, missing[:3]))}"
                f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}: the loss does not depend on it, or a "
                "detach() is in the way. Freeze it, or pass unused='skip'"
            )
        self.subject.consumed |= set(gradients)
        self._pairs = [(targets[j].value, g) for j, g in gradients.items()]
        norms = [torch.linalg.vector_norm(g, dtype=torch.float64).cpu() for g in gradients.values()]
        return value, torch.linalg.vector_norm(torch.stack(norms))

    def estimate(self, slopes: Tensor) -> Dense:
        return Dense(self._pairs)


PROBES["backpropagation"] = Backpropagation
