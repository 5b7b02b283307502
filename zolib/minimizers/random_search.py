"""Random search that keeps what is better."""

from __future__ import annotations

import numpy as np

from zolib.minimizers.searcher import Searcher, ordered


class RandomSearch(Searcher):
    r"""Gaussian steps from the best point so far, kept if no worse; their size by the one-fifth success rule.

    .. math:: \sigma \leftarrow \sigma\, e^{0.8 / \sqrt{d + 1}} \text{ after a success}, \qquad
              \sigma \leftarrow \sigma\, e^{-0.2 / \sqrt{d + 1}} \text{ after a failure}

    so that the size stands still when one step in five succeeds.  With a popsize S > 1 the best of S steps competes.
    Known as the (1+1) evolution strategy.  Sources: Rastrigin, Automation and Remote Control 24:1337, 1963; Schumer and
    Steiglitz, IEEE Trans. Automatic Control 13:270, 1968; the rule: Rechenberg, Evolutionsstrategie, 1973.
    """

    state = (*Searcher.state, "sigma", "value")

    def __init__(self, x0, sigma, seed, popsize, budget):
        super().__init__(x0, sigma, seed, popsize, budget)
        self.value, self._least = np.inf, 1e-14 * sigma

    @staticmethod
    def usual_popsize(d):
        return 1

    def ask(self):
        self._x = self.mean + self.sigma * self.normals(self.popsize)
        return self._x

    def tell(self, values):
        values = ordered(values)
        best = int(np.argmin(values))
        success = values[best] < self.value
        if success or values[best] == self.value < np.inf:
            self.mean, self.value = self._x[best], values[best]
        self.sigma *= np.exp((0.8 if success else -0.2) / np.sqrt(len(self.mean) + 1))
        self.generation += 1
        if self.sigma < max(self._least, 1e-16 * abs(self.mean).max()):
            self.stopped = "the steps are below rounding"
