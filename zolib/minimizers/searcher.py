"""What a method of search answers: where to evaluate next, and what it makes of the values."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from zolib.noise import stream

Array = np.ndarray


class Searcher:
    """One method in plain coordinates: no bounds, one step size.  :class:`zolib.Minimizer` puts those around it.

    A subclass proposes points, :meth:`ask`, learns from their values, :meth:`tell`, and lists in ``state`` the names of
    the attributes that change, so that a run can be stopped and resumed.  Draws are functions of (seed, generation).

    Args:
        x0: Where the search begins, (d,).
        sigma: The standard deviation of the first probes.
        seed: 64 bits.
        popsize: Points in one generation; None: the method's own.
        budget: Evaluations that the whole run may take, where a schedule needs it; None: not known.
    """

    #: Attributes that a resumed run must get back.
    state: ClassVar[tuple[str, ...]] = ("mean", "generation", "stopped")
    #: Whether the method can tell that it has converged; without, only the budget ends it.
    converges: ClassVar[bool] = True
    #: By what the population grows from one restart to the next.
    growth: ClassVar[int] = 1

    def __init__(self, x0: Array, sigma: float, seed: int, popsize: int | None, budget: int | None):
        self.mean, self.sigma, self.seed = np.array(x0, dtype=float), float(sigma), seed
        self.popsize = popsize if popsize is not None else self.usual_popsize(len(x0))
        self.budget = budget
        self.generation = 0
        self.stopped = ""  # why the search is over; "": it is not

    @staticmethod
    def usual_popsize(d: int) -> int:
        """4 + 3 ln d, rounded down: Hansen, arXiv:1604.00772, table 1."""
        return 4 + int(3 * np.log(d))

    def ask(self) -> Array:
        """The points of this generation, (S, d)."""
        raise NotImplementedError

    def tell(self, values: Array) -> None:
        """Learn from the values, (S,), of the points last asked for; NaN and infinities count as worse than any."""
        raise NotImplementedError

    def normals(self, count: int) -> Array:
        """Standard normal numbers of this generation, (count, d)."""
        return self._drawn(stream.NORMAL, count)

    def signs(self, count: int) -> Array:
        """Random signs of this generation, (count, d)."""
        return self._drawn(stream.SIGN, count)

    def _drawn(self, law: int, count: int) -> Array:
        parts = [(0, len(self.mean))]
        return stream.draw(law, self.seed, self.generation, range(count), parts)[0].numpy().astype(float)

    def state_dict(self) -> dict[str, Any]:
        return {name: np.copy(getattr(self, name)) for name in self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in self.state:
            value, old = np.copy(state[name]), getattr(self, name)
            setattr(self, name, value if isinstance(old, np.ndarray) else type(old)(value))


def ordered(values: Array) -> Array:
    """The values with all that is not a number, or infinite, as +inf: worse than any."""
    return np.where(np.isfinite(values), values, np.inf)


def by_rank(values: Array, weights: Array) -> Array:
    """One weight for each value, (S,): the best gets the first of ``weights``, (S,), and values that tie share."""
    values = ordered(values)
    order = np.argsort(values, kind="stable")
    given = np.empty(len(values))
    given[order] = weights
    ranked = values[order]
    if (ranked[1:] == ranked[:-1]).any():
        _, group, size = np.unique(values, return_inverse=True, return_counts=True)
        given = (np.bincount(group, given) / size)[group]
    return given
