"""Ask and tell: a search that its caller drives."""

from __future__ import annotations

from typing import Any

import numpy as np

from zolib.minimizers.cma import CMAES, SeparableCMAES
from zolib.minimizers.gradients import SPSA, GaussianSmoothing, OpenAIES
from zolib.minimizers.natural import SNES, XNES
from zolib.minimizers.random_search import RandomSearch
from zolib.minimizers.searcher import Array, Searcher
from zolib.minimizers.space import Space
from zolib.noise.seeds import as_seed, natural, own

SEARCHERS: dict[str, type[Searcher]] = {
    "random-search": RandomSearch,
    "spsa": SPSA,
    "gaussian-smoothing": GaussianSmoothing,
    "openai-es": OpenAIES,
    "snes": SNES,
    "xnes": XNES,
    "sep-cma-es": SeparableCMAES,
    "cma-es": CMAES,
}
_SEARCH = 0x6D69 << 16  # a use of the seed, and with each restart the next


class Minimizer:
    """Where to evaluate next, and what is best so far: :func:`zolib.minimize` with the loop in your hands.

    Args:
        x0: Where the search begins, (d,).
        method: One of ``"random-search"``, ``"spsa"``, ``"gaussian-smoothing"``, ``"openai-es"``, ``"snes"``,
            ``"xnes"``, ``"sep-cma-es"``, ``"cma-es"``.
        bounds, sigma, popsize, seed, restarts: As of :func:`zolib.minimize`.
        budget: Evaluations planned, for the methods whose gains follow a schedule (SPSA, OpenAI's).  It does not end
            the search.
        options: The method's own, such as ``learning_rate``.

    The state is a function of the seed and of the values told, so :meth:`state_dict` is small, and a resumed search
    asks for exactly the points that an uninterrupted one would.

    >>> import numpy as np, zolib as zo
    >>> search = zo.Minimizer(np.ones(5), "cma-es", seed=0)
    >>> while search.best_value > 1e-6:
    ...     x = search.ask()
    ...     search.tell((x**2).sum(axis=1))
    >>> bool((abs(search.best) < 1e-3).all())
    True
    """

    def __init__(
        self,
        x0: Any,
        method: str = "cma-es",
        *,
        bounds: Any = None,
        sigma: Any = None,
        popsize: int | None = None,
        seed: int | None = None,
        restarts: int = 0,
        budget: int | None = None,
        **options: Any,
    ):
        if method not in SEARCHERS:
            hint = (
                "; it cannot be driven from outside: call zolib.minimize" if method in ("nelder-mead", "powell") else ""
            )
            raise ValueError(f"method={method!r}{hint}; choose one of {', '.join(SEARCHERS)}")
        self.method, self.space, self.seed = method, Space(x0, bounds, sigma), as_seed(seed)
        if not self.space.free.any():
            raise ValueError("bounds fix every coordinate: there is nothing to search")
        self.restarts = natural("restarts", restarts, 1 << 16)
        self.restart = 0  # how many there were
        self._popsize, self._budget, self._options = popsize, budget, options
        if popsize is not None:
            natural("popsize", popsize, 1 << 31)
            if popsize < 1:
                raise ValueError("popsize=0: a generation needs a point")
        self.evaluations, self.best, self.best_value = 0, self.space.x0, np.inf
        self._searcher = self._begin()
        self._points: Array | None = None

    def _begin(self) -> Searcher:
        """The method at the start of a restart, with twice the points of the one before where that is its custom."""
        kind, start, popsize = SEARCHERS[self.method], self.space.start, self._popsize
        if self.restart:
            start = self.space.restart(self.seed, self.restart)
            popsize = (popsize or kind.usual_popsize(len(start))) * kind.growth**self.restart
        seed = own(self.seed, _SEARCH + self.restart)
        try:
            return kind(start, self.space.sigma, seed, popsize, self._budget, **self._options)
        except TypeError as error:
            raise TypeError(f"method {self.method!r}: {error}; see zolib.minimizers for the options it takes") from None

    @property
    def mean(self) -> Array:
        """The centre of the search distribution, within the bounds, (d,)."""
        return self.space.points(self._searcher.mean).copy()

    @property
    def generation(self) -> int:
        return self._searcher.generation

    @property
    def popsize(self) -> int:
        """Points in the next generation, as far as is known before they are asked for."""
        return self._searcher.popsize

    @property
    def stopped(self) -> str:
        """Why the search is over; empty while it goes on."""
        return self._searcher.stopped if self.restart >= self.restarts else ""

    @property
    def asked(self) -> Array | None:
        """The points last asked for whose values are awaited; not to be written to."""
        return self._points

    def ask(self) -> Array:
        """The points of the next generation, (S, d), within the bounds; asking again gives the same ones."""
        if self._searcher.stopped:
            if self.stopped:
                raise RuntimeError(f"the search is over: {self.stopped}; begin another, or allow restarts=")
            self.restart += 1
            self._searcher = self._begin()
        self._points = self.space.points(self._searcher.ask())
        return self._points.copy()

    def tell(self, values: Any) -> None:
        """Learn from the objective's values, (S,), at the points last asked for.  NaN counts as worst."""
        if self._points is None:
            raise RuntimeError("tell() without ask(): ask for points first, and tell their values once")
        values = np.asarray(values, dtype=float)
        if values.shape != self._points.shape[:1]:
            raise ValueError(f"values of shape {values.shape} for {len(self._points)} points: give one number for each")
        self.evaluations += len(values)
        worst_last = np.where(np.isnan(values), np.inf, values)
        i = int(np.argmin(worst_last))
        if worst_last[i] < self.best_value:
            self.best, self.best_value = self._points[i].copy(), float(values[i])
        self._points = None
        self._searcher.tell(values)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed search needs beside its arguments: arrays and numbers."""
        own_state = {f"searcher.{name}": value for name, value in self._searcher.state_dict().items()}
        ours = {name: np.copy(getattr(self, name)) for name in ("evaluations", "best", "best_value", "restart", "seed")}
        return {"method": self.method, "space": self.space.mark(), "popsize": str(self._popsize), **ours, **own_state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken.  Raises ValueError if that was another search."""
        mine = {"method": self.method, "space": self.space.mark(), "popsize": str(self._popsize)}
        for name, what in (("method", "method"), ("space", "x0, bounds or sigma"), ("popsize", "popsize")):
            if str(state[name]) != mine[name]:
                raise ValueError(f"the state is of a search with another {what}: give the arguments that it had")
        self.seed, self.restart = int(state["seed"]), int(state["restart"])
        self.evaluations, self.best_value = int(state["evaluations"]), float(state["best_value"])
        self.best, self._points = np.copy(state["best"]), None
        self._searcher = self._begin()
        self._searcher.load_state_dict({k.removeprefix("searcher."): v for k, v in state.items() if "." in k})
