"""Feedback: how the values of the objective become one learning signal.

A feedback says where the objective is evaluated along a direction z, and makes of the values one coefficient for each
sample: an estimate of the slope of the objective along z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


class Feedback:
    """What a feedback answers.

    signs: the evaluations along each direction, at theta + sign sigma z.  clean: whether theta itself is evaluated,
    once for all samples.
    """

    signs: ClassVar[tuple[float, ...]]
    clean: ClassVar[bool] = False

    def coefficients(self, losses: Tensor, clean: Tensor | None, sigma: float) -> Tensor:
        """losses (K, len(signs), ...), clean (...), float64, where ... is () or one entry per example.

        Returns one slope for each sample and example, (K, ...).
        """
        raise NotImplementedError

    def value(self, losses: Tensor, clean: Tensor | None) -> Tensor:
        """The loss to report, ()."""
        return losses.mean()


@dataclass(frozen=True)
class TwoPoint(Feedback):
    """Central difference: c = (f(theta + sigma z) - f(theta - sigma z)) / (2 sigma).

    Two evaluations per sample.  Even terms of the Taylor expansion cancel, so the bias is of order sigma^2.  The loss
    reported is the mean of all evaluations; no extra one is made.
    """

    signs: ClassVar[tuple[float, ...]] = (1.0, -1.0)

    def coefficients(self, losses: Tensor, clean: Tensor | None, sigma: float) -> Tensor:
        return (losses[:, 0] - losses[:, 1]) / (2 * sigma)


@dataclass(frozen=True)
class OneSided(Feedback):
    """Forward difference against one clean pass: c = (f(theta + sigma z) - f(theta)) / sigma.

    One evaluation per sample and one more.  The curvature z^T H z stays in the coefficient: it adds sigma/2 z^T H z to
    each, which is odd in z once multiplied by z, so it costs variance with every symmetric law and bias only with
    Coordinate.  The loss reported is the clean one.
    """

    signs: ClassVar[tuple[float, ...]] = (1.0,)
    clean: ClassVar[bool] = True

    def coefficients(self, losses: Tensor, clean: Tensor | None, sigma: float) -> Tensor:
        assert clean is not None
        return (losses[:, 0] - clean) / sigma

    def value(self, losses: Tensor, clean: Tensor | None) -> Tensor:
        assert clean is not None
        return clean.mean()


FEEDBACKS: dict[str, type[Feedback]] = {"two-point": TwoPoint, "one-sided": OneSided}
