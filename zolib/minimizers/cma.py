"""Covariance matrix adaptation: full and separable.

Both learn a mean, a step size and a covariance from the ranks of the values alone.  The equations are those of Hansen,
"The CMA evolution strategy: a tutorial", arXiv:1604.00772, with the default parameters of its table 1 and negative
weights for the worse half of a generation.
"""

from __future__ import annotations

import numpy as np

from zolib.minimizers.searcher import Array, Searcher, by_rank, ordered


class _CMA(Searcher):
    """What the two share: weights, mean, the two evolution paths, the step size, and when to stop."""

    growth = 2  # Auger and Hansen, "A restart CMA evolution strategy with increasing population size", CEC 2005
    state = (*Searcher.state, "step", "path_sigma", "path_c", "history")

    def __init__(self, x0, sigma, seed, popsize, budget, ftol=1e-11, xtol=1e-11):
        super().__init__(x0, sigma, seed, popsize, budget)
        if self.popsize < 3:
            raise ValueError(f"popsize={self.popsize}: CMA-ES compares points with one another; give 3 or more")
        self.ftol, self.xtol = ftol, xtol
        d, size = len(x0), self.popsize
        raw = np.log((size + 1) / 2) - np.log(np.arange(1, size + 1))
        positive, negative = np.maximum(raw, 0), np.minimum(raw, 0)
        mu_eff = positive.sum() ** 2 / (positive**2).sum()
        mu_eff_minus = negative.sum() ** 2 / max((negative**2).sum(), 1e-300)
        self.c_sigma = (mu_eff + 2) / (d + mu_eff + 5)
        self.damping = 1 + 2 * max(0, np.sqrt((mu_eff - 1) / (d + 1)) - 1) + self.c_sigma
        self.c_c = (4 + mu_eff / d) / (d + 4 + 2 * mu_eff / d)
        c_1 = 2 / ((d + 1.3) ** 2 + mu_eff)
        c_mu = min(1 - c_1, 2 * (0.25 + mu_eff + 1 / mu_eff - 2) / ((d + 2) ** 2 + mu_eff))
        self.c_1, self.c_mu = self.rates(c_1, c_mu)
        least = min(1 + self.c_1 / self.c_mu, 1 + 2 * mu_eff_minus / (mu_eff + 2))
        least = min(least, max(0.0, (1 - self.c_1 - self.c_mu) / (d * self.c_mu)))
        self.mean_weights = positive / positive.sum()
        self.weights = self.mean_weights + least * negative / max(-negative.sum(), 1e-300)
        self.mu_eff = mu_eff
        self.expected = np.sqrt(d) * (1 - 1 / (4 * d) + 1 / (21 * d * d))  # of the length of a normal vector
        self.step = self.sigma
        self.path_sigma, self.path_c = np.zeros(d), np.zeros(d)
        self.history: Array = np.full(10 + -(-30 * d // size), np.inf)  # the best value of each of the last generations

    def rates(self, c_1: float, c_mu: float) -> tuple[float, float]:
        return c_1, c_mu

    def tell(self, values):
        if (ordered(values) == ordered(values)[0]).all():  # says nothing of where to go: draw again
            self.generation += 1
            return self._watch(values)
        weights = by_rank(values, self.weights)
        toward = by_rank(values, self.mean_weights)
        white = toward @ self._z
        moved = self.moved(white)
        self.mean = self.mean + self.step * moved
        gain = np.sqrt(self.c_sigma * (2 - self.c_sigma) * self.mu_eff)
        self.path_sigma = (1 - self.c_sigma) * self.path_sigma + gain * white
        length = np.linalg.norm(self.path_sigma)
        self.generation += 1
        usual = length / np.sqrt(1 - (1 - self.c_sigma) ** (2 * self.generation))
        moving = usual < (1.4 + 2 / (len(self.mean) + 1)) * self.expected
        self.path_c = (1 - self.c_c) * self.path_c
        if moving:
            self.path_c = self.path_c + np.sqrt(self.c_c * (2 - self.c_c) * self.mu_eff) * moved
        kept = 0.0 if moving else self.c_c * (2 - self.c_c)
        # a point's weight, if negative, is taken per squared length, so that one long step cannot undo the matrix
        lengths = np.einsum("kd,kd->k", self._z, self._z)
        scaled = np.where(weights < 0, weights * len(self.mean) / lengths, weights)
        self.adapt(scaled, 1 + self.c_1 * kept - self.c_1 - self.c_mu * weights.sum())
        self.step *= np.exp(min(1.0, self.c_sigma / self.damping * (length / self.expected - 1)))
        self._watch(values)

    def moved(self, z: Array) -> Array:
        """C^(1/2) z, the step that the normal numbers z, (d,), make, in units of the step size."""
        raise NotImplementedError

    def adapt(self, weights: Array, keep: float) -> None:
        """C <- keep C + c_1 p_c p_c' + c_mu sum_k weights_k y_k y_k'."""
        raise NotImplementedError

    def axes(self) -> Array:
        """The standard deviations along the principal axes, without the step size."""
        raise NotImplementedError

    def _watch(self, values: Array) -> None:
        values = ordered(values)
        self.history = np.append(self.history[1:], values.min())
        low, high = self.history.min(), self.history.max()
        axes = self.axes()
        if np.isfinite(high) and max(high, values.max()) - low <= self.ftol:
            self.stopped = f"the values differ by less than ftol={self.ftol:g}"
        elif np.isfinite(high) and high == low:
            self.stopped = "the best value has not changed: the objective is flat here, or rounded"
        elif self.step * max(axes.max(), abs(self.path_c).max()) < self.xtol * self.sigma:
            self.stopped = f"the steps are smaller than xtol={self.xtol:g} of the first"
        elif axes.max() > 1e7 * axes.min():
            self.stopped = "the covariance has a condition number above 1e14"
        elif (self.mean == self.mean + 0.1 * self.step * axes.min()).all():
            self.stopped = "the steps are below rounding"
        elif self.step * axes.max() > 1e4 * self.sigma * max(1.0, axes.min()) and self.step > 1e20:
            self.stopped = "the steps grow without end: is the objective bounded below?"


class CMAES(_CMA):
    """The full matrix: d (d + 1) / 2 numbers learned; its law is invariant under any affine change of coordinates.

    A point is the mean plus the step size times R z, with the symmetric root R of C and normal numbers z.  The tutorial
    has B D z, from C = B D^2 B', which is the same law; but eigenvectors have no sign and, where eigenvalues are equal,
    no direction, so one seed would give other points on each make of processor.  R is a continuous function of C.
    """

    state = (*_CMA.state, "C", "root", "D", "decomposed")

    def __init__(self, x0, sigma, seed, popsize, budget, **options):
        super().__init__(x0, sigma, seed, popsize, budget, **options)
        d = len(x0)
        self.C, self.root, self.D = np.eye(d), np.eye(d), np.ones(d)
        self.every, self.decomposed = max(1, int(1 / (10 * d * (self.c_1 + self.c_mu)))), 0

    def ask(self):
        self._z = self.normals(self.popsize)
        self._y = self._z @ self.root.T
        return self.mean + self.step * self._y

    def moved(self, z):
        return self.root @ z

    def adapt(self, weights, keep):
        self.C *= keep
        self.C += self.c_1 * np.outer(self.path_c, self.path_c) + (self._y.T * (self.c_mu * weights)) @ self._y
        if self.generation - self.decomposed >= self.every:  # O(d^3), so not at each generation
            self.C = (self.C + self.C.T) / 2
            squares, basis = np.linalg.eigh(self.C)
            self.D = np.sqrt(np.maximum(squares, 1e-300))
            self.root = (basis * self.D) @ basis.T
            self.decomposed = self.generation

    def axes(self):
        return self.D


class SeparableCMAES(_CMA):
    """The diagonal only: d numbers learned, and (d + 2) / 3 times as fast.  Memory and time are linear in d.

    Source: Ros and Hansen, "A simple modification in CMA-ES achieving linear time and space complexity", PPSN X, 2008.
    """

    state = (*_CMA.state, "D")

    def __init__(self, x0, sigma, seed, popsize, budget, **options):
        super().__init__(x0, sigma, seed, popsize, budget, **options)
        self.D = np.ones(len(x0))

    def rates(self, c_1, c_mu):
        faster = (len(self.mean) + 2) / 3
        c_1 = min(1.0, c_1 * faster)
        return c_1, min(1 - c_1, c_mu * faster)

    def ask(self):
        self._z = self.normals(self.popsize)
        return self.mean + self._z * (self.step * self.D)

    def moved(self, z):
        return self.D * z

    def adapt(self, weights, keep):
        square = self.D**2 * (keep + self.c_mu * (weights @ self._z**2)) + self.c_1 * self.path_c**2
        self.D = np.sqrt(np.maximum(square, 1e-300))

    def axes(self):
        return self.D
