"""Plain functions, NumPy in, SciPy's result out: the loop around :class:`zolib.Minimizer`."""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from zolib.minimizers.direct import DIRECT, direct
from zolib.minimizers.minimizer import SEARCHERS, Minimizer
from zolib.minimizers.space import Space
from zolib.noise.seeds import as_seed, natural

CONVERGED, SPENT, INTERRUPTED, NOTHING, CALLBACK = 0, 1, 2, 3, 99
REEVALUATIONS = 16  # of the mean, at the end of a noisy run, if the budget has room


class _Stop(Exception):
    """Ends a run from within an evaluation."""

    def __init__(self, status: int, message: str):
        self.status, self.message = status, message


def minimize(
    fun: Callable[..., Any],
    x0: Any,
    args: tuple = (),
    *,
    method: str = "auto",
    budget: int | None = None,
    bounds: Any = None,
    sigma: Any = None,
    popsize: int | None = None,
    seed: int | None = None,
    vectorized: bool = False,
    noisy: bool = False,
    restarts: int | None = None,
    target: float | None = None,
    tol: float | None = None,
    callback: Callable[..., Any] | None = None,
    progress: bool = False,
    checkpoint: str | os.PathLike | None = None,
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    constraints: Any = (),
    **options: Any,
):
    """Minimize a function of d numbers from its values alone.

    Args:
        fun: ``fun(x, *args)`` with x of shape (d,) returns a number.  With ``vectorized=True``, x of shape (d, S) gives
            S numbers, as in SciPy: one column for each point.
        x0: Where the search begins, (d,).  It is evaluated first, so the result is never worse.
        args: Further arguments of fun.
        method: ``"random-search"``, ``"nelder-mead"``, ``"powell"`` (both SciPy's), ``"spsa"``,
            ``"gaussian-smoothing"``, ``"openai-es"``, ``"snes"``, ``"xnes"``, ``"sep-cma-es"``, ``"cma-es"``; or
            ``"auto"``, which chooses by dimension and budget, and says why in the result.
        budget: Evaluations at most.  A generation that does not fit is not begun.  None: 1000 (d + 1).
        bounds: Pairs (low, high), None for no bound, or ``scipy.optimize.Bounds``.  Equal bounds fix a coordinate.
            fun is never evaluated outside.
        sigma: The standard deviation of the first probes, one number or (d,): about as far from x0 as the minimum may
            be.  None: a quarter of the width between bounds, 0.5 elsewhere.
        popsize: Evaluations in one generation.  None: the method's own.
        seed: The same seed gives the same run; None draws the next one of the library's counter.
        noisy: The values are random.  Then the result is the mean of the search distribution, not the luckiest
            point, its value the average of up to 16 evaluations there, and ``fun_error`` the standard error of that.
        restarts: After convergence begin again elsewhere, with twice the population where that is the method's custom,
            so many times at most.  None: never, but with ``"auto"`` while the budget lasts.
        target: End once a value is this low.
        tol: For the methods that notice convergence by the values: the spread below which they have.
        callback: Called after each generation, as SciPy does it: with ``intermediate_result=`` an OptimizeResult, if
            that is the name of its parameter, else with the best x.  ``StopIteration`` ends the run.
        progress: Show a bar on the standard error; needs ``tqdm``.
        checkpoint: A file (``.npz``) that keeps the state after each generation.  If it exists, the run goes on from
            it, and asks for the same points as if it had never stopped; evaluations before count towards the budget.
        jac, hess, hessp: Not used; here so that ``scipy.optimize.minimize(..., method=zolib.minimize)`` works.  The
            method is then named by ``options={"method": ...}``.
        constraints: Must be empty: only bounds are respected.
        options: The method's own: ``learning_rate``; ``probe`` of SPSA and Gaussian smoothing, in units of sigma (1 if
            ``noisy``); ``anneal`` of OpenAI's;
            ``ftol`` and ``xtol`` of CMA-ES; any of SciPy's for its two.

    Returns:
        A ``scipy.optimize.OptimizeResult``: x and fun, the best found (see ``noisy``), nfev, nit (generations),
        success, status, message, mean (the centre of the search distribution), method, why, restarts, seed.
        status 0: converged, or the target was reached; 1: the budget is spent (a success if a run had converged before,
        and for the methods that cannot notice convergence); 2: KeyboardInterrupt, with the best so far; 3: no finite
        value was found; 99: ended by the callback.

    Raises:
        ValueError, TypeError: An argument makes no sense; the message names it.  Whatever fun raises comes through.

    NaN and infinite values count as worse than any other.

    >>> import numpy as np, zolib as zo
    >>> result = zo.minimize(lambda x: ((x - 3) ** 2).sum(), np.zeros(4), method="cma-es", budget=2000, seed=0)
    >>> result.success, bool(abs(result.x - 3).max() < 1e-4)
    (True, True)
    """
    from scipy.optimize import OptimizeResult

    if not callable(fun):
        raise TypeError(f"fun={fun!r}: give a function of an array of shape (d,)")
    if np.size(constraints):
        raise ValueError("constraints= are not supported: use bounds, or add a penalty to fun")
    if jac not in (None, False) or hess is not None or hessp is not None:
        warnings.warn("zolib.minimize uses values only: jac, hess and hessp are ignored", RuntimeWarning, stacklevel=2)
    if method not in (*SEARCHERS, *DIRECT, "auto"):
        raise ValueError(f"method={method!r}: choose one of auto, {', '.join((*DIRECT, *SEARCHERS))}")
    space, seed = Space(x0, bounds, sigma), as_seed(seed)
    budget = 1000 * (len(space.x0) + 1) if budget is None else natural("budget", budget, 1 << 53)
    if budget < 1:
        raise ValueError("budget=0: the value at x0 alone takes one evaluation")
    why = f"method={method!r} was asked for"
    if method == "auto":
        method, why = choose(int(space.free.sum()), budget)
        restarts = 1 << 10 if restarts is None and method not in ("spsa", "openai-es") else restarts
    restarts = natural("restarts", restarts or 0, 1 << 16)
    if noisy and method in ("spsa", "gaussian-smoothing"):
        options.setdefault("probe", 1.0)  # a difference as large as can be: Spall's advice is c near the noise
    if tol is not None and method in ("cma-es", "sep-cma-es"):
        options.setdefault("ftol", tol)
    elif tol is not None and method in DIRECT:
        options |= {("fatol" if method == "nelder-mead" else "ftol"): tol}
    run = _Run(fun, tuple(args), space, budget, vectorized, target, callback, noisy)
    with _bar(progress, budget, method) as run.advance:
        try:
            status, message = run.begin()
            if not status and not message:
                common = {"popsize": popsize, "checkpoint": checkpoint}
                status, message = (run.direct if method in DIRECT else run.search)(
                    method, seed, restarts, options, **common
                )
        except _Stop as stop:
            status, message = stop.status, stop.message
        except KeyboardInterrupt:
            status, message = INTERRUPTED, "interrupted; this is the best so far"
        x, value, error = run.best, run.value, np.nan
        if noisy and status != INTERRUPTED:
            try:
                x, value, error = run.mean_again()
            except KeyboardInterrupt:
                status, message = INTERRUPTED, "interrupted; this is the best so far"
    if not np.isfinite(value) and status in (CONVERGED, SPENT) and value != -np.inf:
        status, message = NOTHING, f"none of {run.nfev} values was finite; {message}"
    enough = run.restarts > 0 or (method in SEARCHERS and not SEARCHERS[method].converges)
    result = OptimizeResult(
        x=x, fun=value, nfev=run.nfev, nit=run.nit, status=status, message=message, mean=run.mean, method=method,
        why=why, restarts=run.restarts, seed=seed if run.seed is None else run.seed,
        success=status == CONVERGED or (status == SPENT and enough),
    )  # fmt: skip
    if noisy:
        result.fun_error = error
    return result


def choose(d: int, budget: int) -> tuple[str, str]:
    """The method that ``"auto"`` takes for d free coordinates and a budget, and the reason, in words."""
    if d > 200 and budget < d:
        return "spsa", f"{budget} evaluations are fewer than {d} coordinates: only a random slope can be afforded"
    if d > 200:
        return "sep-cma-es", f"a full covariance of {d} coordinates costs too much time; its diagonal does not"
    if budget < 10 * d * d:  # a matrix of d (d + 1) / 2 numbers, learned from a few values each
        return "sep-cma-es", f"{budget} evaluations are too few to learn a full covariance of {d} coordinates"
    return "cma-es", f"{budget} evaluations suffice to learn a full covariance of {d} coordinates"


class _Run:
    """One call of :func:`minimize`: counts, limits and remembers."""

    def __init__(self, fun, args, space, budget, vectorized, target, callback, noisy):
        self._fun, self._args, self.space, self.vectorized, self.target = fun, args, space, vectorized, target
        self._spare = min(REEVALUATIONS, budget // 20) or 1 if noisy else 0
        self.budget, self.seed = budget, None
        self.nfev = self.nit = self.restarts = 0
        self.best, self.value, self.mean = space.x0, np.inf, space.x0
        self.advance: Callable[[int, float], None] = lambda count, value: None
        self._callback, self._by_name = callback, False
        if callback is not None:
            self._by_name = list(inspect.signature(callback).parameters) == ["intermediate_result"]

    @property
    def left(self) -> int:
        return self.budget - self._spare - self.nfev

    def _spent(self) -> tuple[int, str]:
        before = f", after {self.restarts} converged run{'s' * (self.restarts > 1)}" if self.restarts else ""
        return SPENT, f"the budget of {self.budget} evaluations is spent{before}"

    def begin(self) -> tuple[int, str]:
        """Evaluate x0; a status and message if that ends the run."""
        self.evaluate(self.space.x0[None])
        if not self.space.free.any():
            return CONVERGED, "bounds fix every coordinate"
        return self._reached()

    def _reached(self) -> tuple[int, str]:
        if self.target is not None and self.value <= self.target:
            return CONVERGED, f"the target {self.target:g} is reached"
        if self.value == -np.inf:
            return CONVERGED, "the objective is minus infinity there"
        return 0, ""

    def evaluate(self, points: np.ndarray, copy: np.ndarray | None = None) -> np.ndarray:
        """The values at points of shape (S, d), all counted and the best remembered, an interrupted row included.

        fun is handed ``copy``, which it may write to.
        """
        copy = points.copy() if copy is None else copy
        if self.vectorized:
            values = _numbers(self._fun(copy.T, *self._args), len(points))
            self._account(points, values)
            return values
        values = np.empty(len(points))
        for i, point in enumerate(copy):
            values[i] = _numbers(self._fun(point, *self._args), None)
            self._account(points[i : i + 1], values[i : i + 1])
        return values

    def _account(self, points, values):
        self.nfev += len(values)
        values = np.where(np.isnan(values), np.inf, values)
        i = int(np.argmin(values))
        if values[i] < self.value:
            self.best, self.value = points[i].copy(), float(values[i])
        self.advance(len(values), self.value)

    def search(self, method, seed, restarts, options, popsize, checkpoint) -> tuple[int, str]:
        where = {"bounds": self.space.bounds, "sigma": self.space.sigmas}
        search = Minimizer(
            self.space.x0, method, popsize=popsize, seed=seed, restarts=restarts, budget=self.budget, **where, **options
        )
        if checkpoint is not None and Path(checkpoint).exists():
            self._resume(search, Path(checkpoint))
        self.seed = search.seed  # of the file, if there was one
        while True:
            self.restarts, self.mean = search.restart, search.mean
            if search.stopped:
                return CONVERGED, search.stopped
            points = search.ask()
            if len(points) > self.left:
                if not search.generation and not search.restart:
                    raise ValueError(
                        f"budget={self.budget} does not hold x0 and one generation of {len(points)} evaluations: "
                        "raise the budget or lower popsize"
                    )
                return self._spent()
            search.tell(self.evaluate(search.asked, points))
            self.nit += 1
            self.mean = search.mean
            if checkpoint is not None:
                self._save(search, Path(checkpoint))
            self._call_back()
            status, message = self._reached()
            if message:
                return status, message

    def direct(self, method, seed, restarts, options, popsize, checkpoint) -> tuple[int, str]:
        if popsize is not None or checkpoint is not None:
            name = "popsize" if popsize is not None else "checkpoint"
            raise ValueError(f"{name}= has no meaning for method={method!r}, which SciPy runs from start to end")

        def value(y):
            if self.left < 1:
                raise _Stop(*self._spent())
            self.mean = self.space.points(y)
            found = self.evaluate(self.mean[None])[0]
            status, message = self._reached()
            if message:
                raise _Stop(status, message)
            return found if np.isfinite(found) else 1e300  # SciPy's searches compare and subtract

        def once(start):
            message = direct(method, value, self.space, start, max(1, self.left), options)
            self.nit += 1
            self.mean = self.best
            self._call_back()
            return message

        message = once(self.space.start)
        for self.restarts in range(1, restarts + 1):
            if self.left < 1:
                return self._spent()
            message = once(self.space.restart(seed, self.restarts))
        return CONVERGED, message

    def mean_again(self) -> tuple[np.ndarray, float, float]:
        """The mean, the average of what is left of the budget for it, and the standard error of that."""
        count = min(self._spare, self.budget - self.nfev)
        if not count:
            return self.best, self.value, np.nan
        again = self.evaluate(np.repeat(self.mean[None], count, axis=0))
        error = again.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        return self.mean, float(again.mean()), float(error)

    def _call_back(self) -> None:
        if self._callback is None:
            return
        from scipy.optimize import OptimizeResult

        try:
            if self._by_name:
                shown = {"x": self.best.copy(), "fun": self.value, "nfev": self.nfev, "nit": self.nit}
                self._callback(intermediate_result=OptimizeResult(**shown, mean=self.mean.copy()))
            else:
                self._callback(self.best.copy())
        except StopIteration:
            raise _Stop(CALLBACK, "the callback raised StopIteration") from None

    def _save(self, search: Minimizer, file: Path) -> None:
        state = search.state_dict() | {"run.nit": self.nit, "run.nfev": self.nfev, "run.best": self.best}
        beside = file.with_name(file.name + ".new")
        with beside.open("wb") as handle:
            np.savez(handle, **state, **{"run.value": self.value})
        os.replace(beside, file)  # a killed process leaves the old state or the new one

    def _resume(self, search: Minimizer, file: Path) -> None:
        try:
            with np.load(file, allow_pickle=False) as saved:
                state = dict(saved)
            self.nit, nfev = int(state["run.nit"]), int(state["run.nfev"])
        except (OSError, KeyError, EOFError, ValueError, AttributeError, TypeError) as error:
            raise ValueError(
                f"checkpoint={str(file)!r} is not a state of this library: name another file ({error})"
            ) from None
        search.load_state_dict({k: v for k, v in state.items() if not k.startswith("run.")})
        self.advance(nfev - self.nfev, self.value)
        self.nfev = nfev
        if state["run.value"] <= self.value:
            self.best, self.value = state["run.best"], float(state["run.value"])


def _numbers(value: Any, count: int | None) -> np.ndarray:
    """What fun returned, as one number or as ``count`` of them."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    try:
        numbers = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise TypeError(f"fun returned {value!r}: it must return real numbers") from None
    if count is None:
        if numbers.size != 1:
            raise ValueError(f"fun returned shape {numbers.shape}: it must return one number; see vectorized=")
        return numbers.reshape(())
    if numbers.shape != (count,):
        raise ValueError(
            f"fun returned shape {numbers.shape} for {count} points, x of shape (d, {count}): return ({count},)"
        )
    return numbers


@contextmanager
def _bar(wanted: bool, budget: int, method: str) -> Iterator[Callable[[int, float], None]]:
    if not wanted:
        yield lambda count, value: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise ImportError("progress=True needs the package tqdm: pip install tqdm") from None
    with tqdm(total=budget, unit=" evaluations", desc=method, file=sys.stderr) as bar:

        def advance(count, value):
            bar.set_postfix_str(f"best {value:.6g}", refresh=False)
            bar.update(count)

        yield advance
