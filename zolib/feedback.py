"""Feedback: how the values of the objective become one learning signal.

A feedback says where the objective is evaluated along a direction z, and makes of the values one coefficient for each
sample: an estimate of the slope of the objective along z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


class Feedback:
    """What a feedback answers.

    signs: the evaluations along each direction, at theta + sign sigma z.  clean: whether theta itself is evaluated,
    once for all samples.  scale: ``"gradient"`` if the coefficients are slopes, ``"direction"`` if they are right up to
    a positive factor.  least: the fewest evaluations along probes that make sense of a step.
    memory: whether one step's values serve the next, so that one object has to be kept for a run.
    exact: whether the slopes come from forward mode, and there is no difference to take.
    """

    signs: tuple[float, ...]
    clean: ClassVar[bool] = False
    scale: ClassVar[str] = "gradient"
    least: ClassVar[int] = 1
    memory: ClassVar[bool] = False
    exact: ClassVar[bool] = False

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

    signs = (1.0, -1.0)

    def coefficients(self, losses: Tensor, clean: Tensor | None, sigma: float) -> Tensor:
        return _difference(losses, sigma)


@dataclass(frozen=True)
class OneSided(Feedback):
    """Forward difference against one clean pass: c = (f(theta + sigma z) - f(theta)) / sigma.

    One evaluation per sample and one more.  The curvature z^T H z stays in the coefficient: it adds sigma/2 z^T H z to
    each, which is odd in z once multiplied by z, so it costs variance with every symmetric law and bias only with
    Coordinate.  The loss reported is the clean one.
    """

    signs = (1.0,)
    clean: ClassVar[bool] = True

    def coefficients(self, losses: Tensor, clean: Tensor | None, sigma: float) -> Tensor:
        assert clean is not None
        return (losses[:, 0] - clean) / sigma

    def value(self, losses: Tensor, clean: Tensor | None) -> Tensor:
        assert clean is not None
        return clean.mean()


class RewardPredictionError(Feedback):
    """What came, less what was expected: c = (f(theta + sigma z) - b) / sigma, with b the running mean of f.

    One evaluation per sample and no clean pass.  The expectation b does not know this step's noise, so it costs no
    bias; the closer it is to f(theta), the less variance (Williams 1992).  It is one number, the mean over samples and,
    where there is one loss per example, over examples, so that batches may change and differ in size.  On the first
    step each value is compared with the mean of all the others; then b moves by ``rate`` of the error at each step.
    A rule with memory, so use one object for one run.

    Attributes:
        expected: b, a float64 scalar; None before the first step.
    """

    signs = (1.0,)
    memory: ClassVar[bool] = True

    def __init__(self, rate: float = 0.1):
        if not 0 < rate <= 1:
            raise ValueError(f"rate must lie in (0, 1], got {rate!r}")
        self.rate = rate
        self.expected: Tensor | None = None

    def __repr__(self) -> str:
        return f"RewardPredictionError(rate={self.rate})"

    def coefficients(self, losses: Tensor, clean: Tensor | None, sigma: float) -> Tensor:
        values = losses[:, 0]
        mean, count = values.mean(), values.numel()
        if self.expected is None:  # v less the mean of the others; a value alone has nothing to be compared with
            error, self.expected = (values - mean) * (count / max(1, count - 1)), mean
        else:
            error = values - self.expected
            self.expected = self.expected + self.rate * (mean - self.expected)
        return error / sigma


@dataclass(frozen=True)
class Ranks(Feedback):
    """Centred ranks: the losses of a step, in order, become numbers from -1/2 to 1/2 (Salimans et al. 2017).

    c = u / sigma, or ``(u+ - u-) / (2 sigma)`` for mirrored pairs (``antithetic``).  Unmoved by any increasing change
    of the loss and by outliers; right in direction, not in length.  Ties share their mean rank.
    """

    antithetic: bool = True
    scale: ClassVar[str] = "direction"
    least: ClassVar[int] = 2

    @property
    def signs(self) -> tuple[float, ...]:  # type: ignore[override]
        return (1.0, -1.0) if self.antithetic else (1.0,)

    def coefficients(self, losses: Tensor, clean: Tensor | None, sigma: float) -> Tensor:
        return _difference(self.shaped(losses.flatten(0, 1)).view_as(losses), sigma)

    def shaped(self, losses: Tensor) -> Tensor:
        """(n, ...) to centred ranks along the first axis."""
        below = (losses.unsqueeze(0) < losses.unsqueeze(1)).sum(dim=1)
        equal = (losses.unsqueeze(0) == losses.unsqueeze(1)).sum(dim=1)
        return (below + (equal - 1) / 2) / (len(losses) - 1) - 0.5


@dataclass(frozen=True)
class ZScores(Ranks):
    """Losses of a step less their mean, over their standard deviation; otherwise as :class:`Ranks`.

    Unmoved by a change of the loss's zero or unit.  If all losses are equal the coefficients are 0.
    """

    def shaped(self, losses: Tensor) -> Tensor:
        centred = losses - losses.mean(dim=0)
        deviation = centred.square().mean(dim=0).sqrt()
        return centred / deviation.where(deviation > 0, 1.0)


@dataclass(frozen=True)
class Utilities(Ranks):
    """Rank-based utilities: the better half of a step's losses counts, the best most; otherwise as :class:`Ranks`.

    c = -n u / sigma, with u_k = max(0, log(n/2 + 1) - log k) / S - 1/n for the k-th best of n losses, and S the sum of
    the maxima.  Losses that tie share their mean rank.  Source: natural evolution strategies (Wierstra et al., JMLR 15,
    949-980, 2014), whose samples are not mirrored.
    """

    antithetic: bool = False

    def shaped(self, losses: Tensor) -> Tensor:
        n = len(losses)
        place = (super().shaped(losses) + 0.5) * (n - 1) + 1  # 1 for the least loss
        u = (math.log(n / 2 + 1) - place.log()).clamp(min=0)
        return 1 - n * u / u.sum(dim=0)


@dataclass(frozen=True)
class Fitness(Feedback):
    r"""Members of a population leave offspring in proportion to their fitness, exp(-loss).

    .. math:: c_k = -\frac{K}{K - 1}\,\frac{1}{\sigma}\Big(\frac{w_k}{\bar w} - 1\Big), \qquad
              w_k = e^{-f(\theta + \sigma z_k)}

    With Gaussian directions a step of sigma^2 down the estimate moves the mean by Price's covariance of relative
    fitness and trait, that is, by Lande's equation, :math:`\Delta\bar z = \sigma^2\,\nabla\ln\bar W(\bar z)` with
    :math:`\bar W = \mathbb E\,e^{-f}`.  To fall by one unit of loss is to have e times the offspring.  A ratio of K
    members is off by O(1/K).  As sigma tends to 0, -ln W tends to the loss, and the estimate to its gradient.

    Sources: Price, Nature 227:520, 1970; Lande, Evolution 30:314, 1976.
    """

    signs = (1.0,)
    least: ClassVar[int] = 2

    def coefficients(self, losses: Tensor, clean: Tensor | None, sigma: float) -> Tensor:
        values = losses[:, 0]
        w = (values.amin(dim=0) - values).exp()  # relative to the fittest: nothing overflows
        return (1 - w / w.mean(dim=0)) * (len(values) / (len(values) - 1) / sigma)


def _difference(losses: Tensor, sigma: float) -> Tensor:
    if losses.shape[1] == 1:
        return losses[:, 0] / sigma
    return (losses[:, 0] - losses[:, 1]) / (2 * sigma)


FEEDBACKS: dict[str, type[Feedback]] = {
    "two-point": TwoPoint,
    "one-sided": OneSided,
    "reward-prediction-error": RewardPredictionError,
    "ranks": Ranks,
    "z-scores": ZScores,
    "utilities": Utilities,
    "fitness": Fitness,
}
