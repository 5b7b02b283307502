"""Natural evolution strategies: the natural gradient of the expected objective over the parameters of a Gaussian."""

from __future__ import annotations

import numpy as np

from zolib.minimizers.searcher import Array, Searcher, by_rank


def utilities(popsize: int) -> Array:
    """u_k = max(0, ln(S/2 + 1) - ln k) / sum - 1/S for the k-th best of S: Wierstra et al., JMLR 15:949, 2014."""
    u = np.maximum(0, np.log(popsize / 2 + 1) - np.log(np.arange(1, popsize + 1)))
    return u / u.sum() - 1 / popsize


class SNES(Searcher):
    r"""Separable natural evolution strategy: a Gaussian with a spread for each coordinate.

    .. math:: \mu \leftarrow \mu + \sigma \odot \sum_k u_k z_k, \qquad
              \sigma \leftarrow \sigma \odot \exp\Big(\tfrac{\eta_\sigma}{2} \sum_k u_k (z_k^2 - 1)\Big), \qquad
              \eta_\sigma = \frac{3 + \ln d}{5 \sqrt d}

    with :func:`utilities` u.  Source: Schaul, Glasmachers and Schmidhuber, "High dimensions and heavy tails for natural
    evolution strategies", GECCO 2011.
    """

    growth = 2
    state = (*Searcher.state, "spread")

    def __init__(self, x0, sigma, seed, popsize, budget, learning_rate=None):
        super().__init__(x0, sigma, seed, popsize, budget)
        d = len(x0)
        self.rate = (3 + np.log(d)) / (5 * np.sqrt(d)) if learning_rate is None else learning_rate
        self.spread = np.full(d, self.sigma)
        self.weights = utilities(self.popsize)

    def ask(self):
        self._z = self.normals(self.popsize)
        return self.mean + self.spread * self._z

    def tell(self, values):
        u = by_rank(values, self.weights)
        self.mean = self.mean + self.spread * (u @ self._z)
        self.spread = self.spread * np.exp(self.rate / 2 * (u @ self._z**2))  # the utilities sum to 0
        self.generation += 1
        if self.spread.max() < 1e-14 * max(self.sigma, abs(self.mean).max()):
            self.stopped = "the spread is below rounding"


class XNES(Searcher):
    r"""Exponential natural evolution strategy: the full covariance, as a step size and a matrix of determinant 1.

    .. math:: \mu \leftarrow \mu + \sigma B \sum_k u_k z_k, \qquad
              G = \sum_k u_k (z_k z_k^\top - I), \qquad
              \sigma \leftarrow \sigma\, e^{\eta_\sigma \mathrm{tr} G / 2 d}, \qquad
              B \leftarrow B \exp\big(\tfrac{\eta_B}{2} (G - \tfrac{\mathrm{tr} G}{d} I)\big), \qquad
              \eta_\sigma = \eta_B = \frac{9 + 3 \ln d}{5 d \sqrt d}

    Invariant under any affine change of coordinates.  Source: Glasmachers, Schaul, Sun, Wierstra and Schmidhuber,
    "Exponential natural evolution strategies", GECCO 2010.
    """

    growth = 2
    state = (*Searcher.state, "step", "shape")

    def __init__(self, x0, sigma, seed, popsize, budget, learning_rate=None):
        super().__init__(x0, sigma, seed, popsize, budget)
        d = len(x0)
        self.rate = (9 + 3 * np.log(d)) / (5 * d * np.sqrt(d)) if learning_rate is None else learning_rate
        self.step, self.shape = self.sigma, np.eye(d)
        self.weights = utilities(self.popsize)

    def ask(self):
        self._z = self.normals(self.popsize)
        return self.mean + self.step * self._z @ self.shape.T

    def tell(self, values):
        u, d = by_rank(values, self.weights), len(self.mean)
        self.mean = self.mean + self.step * self.shape @ (u @ self._z)
        g = (self._z.T * u) @ self._z  # the utilities sum to 0, so that the identity drops out
        trace = np.trace(g) / d
        lengths, axes = np.linalg.eigh(self.rate / 2 * (g - trace * np.eye(d)))
        self.step *= np.exp(self.rate / 2 * trace)
        self.shape = self.shape @ (axes * np.exp(lengths)) @ axes.T
        self.generation += 1
        if self.step * abs(self.shape).max() < 1e-14 * max(self.sigma, abs(self.mean).max()):
            self.stopped = "the spread is below rounding"
