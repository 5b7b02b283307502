"""SciPy's own searches without derivatives, under the same roof: Nelder and Mead's simplex, Powell's directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from zolib.minimizers.searcher import Array
from zolib.minimizers.space import Space

DIRECT = ("nelder-mead", "powell")


def direct(method: str, value: Callable[[Array], float], space: Space, start: Array, left: int, options: dict) -> str:
    """Run one of SciPy's searches in the method's coordinates from ``start``; says why it ended.

    value: the objective, from the method's coordinates, (free,); whatever it raises comes through, so that the caller's
    count of evaluations ends the search exactly.  left: evaluations at most.
    """
    from scipy.optimize import minimize

    d = len(start)
    given: dict[str, Any] = {"maxfev": left, "maxiter": left}
    if method == "nelder-mead":
        given |= {"initial_simplex": start + np.vstack((np.zeros(d), space.sigma * np.eye(d))), "adaptive": d > 5}
        given |= {"xatol": 1e-10 * space.sigma, "fatol": 1e-10}
    else:
        given |= {"direc": space.sigma * np.eye(d), "xtol": 1e-10, "ftol": 1e-12}
    result = minimize(value, start, method=method, options=given | options)
    return f"SciPy's {method}: {result.message}".rstrip(".")
