"""Methods that follow an estimate of the gradient: SPSA, Gaussian smoothing, OpenAI's evolution strategy."""

from __future__ import annotations

import numpy as np

from zolib.minimizers.searcher import Searcher, by_rank


def first_length(sigma: float, d: int, samples: int) -> float:
    """How far a first step should go along a mean of n random directions in d dimensions, if sigma is right.

    On a sphere with the minimum about sigma away in each coordinate, |theta - theta*| = sigma sqrt(d), the best step
    along such an estimate has this length: sigma sqrt(d n / (d + n)).  (The estimate's squared cosine with the
    gradient is about n / (d + n).)
    """
    return sigma * (d * samples / (d + samples)) ** 0.5


class SPSA(Searcher):
    r"""Simultaneous perturbation: two evaluations tell a slope along random signs, whatever the dimension.

    .. math:: \theta_{k+1} = \theta_k - \frac{a}{(A + k + 1)^{0.602}}\, \hat g_k, \qquad
              \hat g_k = \frac1n \sum_{i=1}^n \frac{f(\theta_k + c_k z_i) - f(\theta_k - c_k z_i)}{2 c_k}\, z_i, \qquad
              c_k = \frac{c}{(k + 1)^{0.101}}

    with 2n = popsize, c = ``probe`` sigma (probe: a tenth), and A a tenth of the steps in the budget.  a is
    ``learning_rate``, or what makes the first step as long as :func:`first_length` says, by the mean size of ten slopes
    at the start.  No step is longer than that length, since one long step up a steep wall is followed by a longer one.
    A pair with a value that is not finite counts for nothing.

    Sources: Spall, IEEE Trans. Automatic Control 37:332, 1992; the gains: Spall, IEEE Trans. Aerospace and Electronic
    Systems 34:817, 1998.
    """

    state = (*Searcher.state, "rate", "calibrated")
    converges = False

    def __init__(self, x0, sigma, seed, popsize, budget, learning_rate=None, probe=0.1):
        super().__init__(x0, sigma, seed, popsize, budget)
        self.samples = max(1, self.popsize // 2)
        self.popsize = 2 * self.samples
        self.probe = sigma * probe
        self.delay = 0.1 * (budget or 1000 * self.popsize) / self.popsize
        self.rate, self.calibrated = learning_rate or 0.0, learning_rate is not None

    @staticmethod
    def usual_popsize(d):
        return 2

    def ask(self):
        self._count = self.samples if self.calibrated else max(self.samples, 10)
        self._c = self.probe / (self.generation + 1) ** 0.101
        self._z = self.signs(self._count)
        shift = self._c * self._z
        return np.concatenate((self.mean + shift, self.mean - shift))

    def tell(self, values):
        with np.errstate(invalid="ignore"):
            slopes = (values[: self._count] - values[self._count :]) / (2 * self._c)
        slopes = np.where(np.isfinite(slopes), slopes, 0.0)
        if not self.calibrated:
            size = np.sqrt(len(self.mean) / self.samples) * np.abs(slopes).mean()  # of an estimate by n samples
            if size == 0:  # nothing learned: ask again, elsewhere
                self.generation += 1
                return
            self.rate = first_length(self.sigma, len(self.mean), self.samples) / size * (self.delay + 1) ** 0.602
            self.calibrated = True
        gain = self.rate / (self.delay + self.generation + 1) ** 0.602
        move = gain / self._count * (slopes @ self._z)
        length, longest = np.linalg.norm(move), first_length(self.sigma, len(self.mean), self._count)
        self.mean = self.mean - move * min(1.0, longest / max(length, 1e-300))
        self.generation += 1


class GaussianSmoothing(Searcher):
    r"""The random gradient method: forward differences along Gaussian directions, against one value at the centre.

    .. math:: \theta_{k+1} = \theta_k - h\, \hat g_k, \qquad
              \hat g_k = \frac1n \sum_{i=1}^n \frac{f(\theta_k + \mu u_i) - f(\theta_k)}{\mu}\, u_i

    with normal u, n + 1 = popsize and mu = ``probe`` sigma (probe: a thousandth).  The theory's step is
    1 / (4 (d + 4) L) for one direction and a gradient with Lipschitz constant L.  L is rarely known, so without a
    ``learning_rate`` the step is found: the first has the length that :func:`first_length` says; a step that made the
    centre worse is taken back and h halved; after any other h grows by a fifth.  The centre is evaluated anyway, so
    this costs no evaluation.  On a noisy objective give the rate.

    Source: Nesterov and Spokoiny, Foundations of Computational Mathematics 17:527, 2017.
    """

    state = (*Searcher.state, "rate", "before", "value_before", "begun")
    converges = True

    def __init__(self, x0, sigma, seed, popsize, budget, learning_rate=None, probe=1e-3):
        super().__init__(x0, sigma, seed, popsize, budget)
        self.popsize = max(2, self.popsize)
        self.probe = sigma * probe
        self.fixed = learning_rate is not None
        self.rate, self.begun = learning_rate or 0.0, self.fixed
        self.before, self.value_before = self.mean, np.inf

    @staticmethod
    def usual_popsize(d):
        return 2

    def ask(self):
        self._u = self.normals(self.popsize - 1)
        return np.concatenate((self.mean[None], self.mean + self.probe * self._u))

    def tell(self, values):
        here = values[0] if np.isfinite(values[0]) else np.inf
        if not self.fixed:
            if here > self.value_before or (not np.isfinite(here) and self.generation):
                self.mean, self.rate = self.before, self.rate / 2
                self.generation += 1
                return
            self.rate *= 1.2
        self.before, self.value_before = self.mean, here
        with np.errstate(invalid="ignore"):
            slopes = (values[1:] - here) / self.probe
        slopes = np.where(np.isfinite(slopes), slopes, 0.0)
        estimate = slopes @ self._u / len(slopes)
        length = np.linalg.norm(estimate)
        if length > 0 and not self.begun:
            self.rate, self.begun = first_length(self.sigma, len(self.mean), len(slopes)) / length, True
        self.mean = self.mean - self.rate * estimate
        self.generation += 1
        if self.begun and not self.fixed and length > 0 and self.rate * length < 1e-14 * max(1.0, abs(self.mean).max()):
            self.stopped = "the steps are below rounding"


class OpenAIES(Searcher):
    r"""OpenAI's evolution strategy: mirrored Gaussian samples, centred ranks, Adam.

    .. math:: \hat g = \frac{1}{S \sigma} \sum_{k=1}^{S} r_k z_k, \qquad
              r_k = \frac{\mathrm{rank}_k}{S - 1} - \frac12

    where rank 0 is the least value and z of the second half of a generation is minus that of the first.  The spread
    sigma does not adapt.  With a known budget, sigma and ``learning_rate`` (a tenth of sigma at first) fall linearly to
    a thousandth of their first values (``anneal=False``: they stay, as in the paper).

    Sources: Salimans, Ho, Chen, Sidor and Sutskever, arXiv:1703.03864; Adam: Kingma and Ba, arXiv:1412.6980.
    """

    state = (*Searcher.state, "first", "second", "spent")
    converges = False

    def __init__(self, x0, sigma, seed, popsize, budget, learning_rate=None, anneal=True):
        super().__init__(x0, sigma, seed, popsize, budget)
        self.popsize += self.popsize % 2
        self.rate = sigma / 10 if learning_rate is None else learning_rate
        self.anneal = anneal and budget is not None
        self.first, self.second = np.zeros(len(x0)), np.zeros(len(x0))
        self.spent = 0

    @property
    def left(self) -> float:
        """What annealing leaves of sigma and of the rate, 1 to 0.001."""
        return max(1e-3, 1 - self.spent / self.budget) if self.anneal else 1.0

    def ask(self):
        z = self.normals(self.popsize // 2)
        self._z = np.concatenate((z, -z))
        return self.mean + self.sigma * self.left * self._z

    def tell(self, values):
        ranks = by_rank(values, np.arange(len(values)) / (len(values) - 1) - 0.5)
        estimate = ranks @ self._z / (len(values) * self.sigma * self.left)
        self.generation += 1
        self.first = 0.9 * self.first + 0.1 * estimate
        self.second = 0.999 * self.second + 0.001 * estimate**2
        first, second = self.first / (1 - 0.9**self.generation), self.second / (1 - 0.999**self.generation)
        self.mean = self.mean - self.rate * self.left * first / (np.sqrt(second) + 1e-8)
        self.spent += len(values)
