"""The suite of correctness: every estimator against its known mean and second moment.

No Sphinx in here: the page and a test compute the same rows, of the cases in :mod:`zobook.correctness_cases`.
"""

import hashlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

LEVEL = 0.001  # of a false alarm anywhere in the table
ROUNDING = 1e-6  # allowed to means, relative: directions are float32
SAME = 1e-12  # allowed between two ways to the same float64 number, relative


@dataclass(frozen=True)
class Case:
    """One estimator of a gradient g, and what is known of it.

    Attributes:
        group, label: Its name, in words.
        samples: K, directions in one estimate.
        replicates: How many estimates.
        slope: <E g_hat, g> / |g|^2, predicted.
        moment: E|g_hat|^2 / |g|^2, predicted.
        formula: Of the moment, TeX.
        estimates: A function of (replicates, seed) that gives the estimates, (replicates, d), the gradient, (d,), and
            the largest relative difference between some of them and what the library gives by another door.
    """

    group: str
    label: str
    samples: int
    replicates: int
    slope: float
    moment: float
    formula: str
    estimates: Callable[[int, int], tuple[Tensor, Tensor, float]]

    @property
    def name(self) -> str:
        return f"{self.group}, {self.label}"

    @property
    def seed(self) -> int:
        """From the name, so that nobody picks it."""
        return int(hashlib.sha256(self.name.encode()).hexdigest()[:12], 16)


@dataclass(frozen=True)
class Row:
    """What was measured of a case: mean and half width of its interval, for slope and moment.

    tails: for each of the two, the factor by which skewness changes the tail beyond its interval.
    """

    case: Case
    slope: tuple[float, float]
    moment: tuple[float, float]
    difference: float
    tails: tuple[float, float]

    @property
    def faults(self) -> list[str]:
        """What does not agree, in sentences; none is the verdict that the case holds."""
        found = []
        for what, (mean, half), known in (
            ("the slope", self.slope, self.case.slope),
            ("the second moment", self.moment, self.case.moment),
        ):
            if not abs(mean - known) <= half + ROUNDING * known:
                found.append(f"{what} is {mean:.4f} ± {half:.4f}, predicted {known:.4f}")
        if not self.difference <= SAME:
            found.append(f"the same estimate by two ways differs by {self.difference:.1e} of its size")
        return found


def measure(cases: Iterable[Case]) -> list[Row]:
    """The rows of the table.  All intervals, two a case, hold together with probability 1 - LEVEL."""
    cases, threads = list(cases), torch.get_num_threads()
    torch.set_num_threads(1)  # many small operations
    try:
        return [row(case, family=2 * len(cases)) for case in cases]
    finally:
        torch.set_num_threads(threads)


def true_level(rows: list[Row]) -> float:
    """The level at which all intervals hold together, skewness included: one tail gains what the other loses."""
    tails = [tail for each in rows for tail in each.tails]
    return LEVEL * sum((tail + 1 / tail) / 2 for tail in tails) / len(tails)


def row(case: Case, family: int) -> Row:
    """Measure one case; family: how many intervals the table has."""
    estimates, gradient, difference = case.estimates(case.replicates, case.seed)
    size = gradient.square().sum()
    both = estimates @ gradient / size, estimates.square().sum(dim=1) / size
    quantile = stats.t.ppf(1 - LEVEL / (2 * family), len(estimates) - 1)
    (slope, first), (moment, second) = (_summary(values, quantile) for values in both)
    return Row(case, slope, moment, difference, (first, second))


def _summary(values: Tensor, quantile: float) -> tuple[tuple[float, float], float]:
    """Mean and half width of the t-interval, and the factor by which skewness changes the tail beyond it.

    By the first term of Edgeworth's expansion of Student's statistic, which is (2 q^2 + 1) gamma phi(q) / (6 sqrt(n))
    for the tail beyond q; against the normal tail phi(q)/q, and as the leading term of an exponent.
    """
    mean, deviation, n = values.mean(), values.std().item(), len(values)
    half = quantile * deviation / math.sqrt(n)
    if deviation <= ROUNDING * abs(mean):  # no chance in it
        return (mean.item(), half), 1.0
    gamma = ((values - mean) ** 3).mean().item() / deviation**3
    return (mean.item(), half), math.exp(abs(gamma) * quantile * (2 * quantile**2 + 1) / (6 * math.sqrt(n)))
