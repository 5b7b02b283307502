"""Where a search may go: which coordinates are free, between which bounds, and in which unit each is measured."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from zolib.minimizers.searcher import Array
from zolib.noise import stream
from zolib.noise.seeds import own

SIGMA = 0.5  # the first probes' standard deviation along a coordinate without bounds, if none is given
_RESTART = 0x7265 << 16  # a use of the seed


class Space:
    """The coordinates that a method sees, and the way from there to the points where the objective is evaluated.

    A method's coordinate is x / sigma along each free coordinate if sigma differs between them, and x itself if not.
    Equal bounds fix a coordinate.  At a finite bound the line is folded: a point beyond it is evaluated at its mirror
    image, which keeps the objective continuous, distorts nothing inside, and asks the method for nothing.

    Raises ValueError or TypeError, naming the argument and the cure, if x0, bounds or sigma make no sense.
    """

    def __init__(self, x0: Any, bounds: Any = None, sigma: Any = None):
        self.x0 = _vector(x0)
        d = len(self.x0)
        self.low, self.high = _limits(bounds, d)
        for name, where, what in (
            ("reversed", self.low > self.high, "give (low, high)"),
            ("nowhere finite", (self.low == np.inf) | (self.high == -np.inf), "give a lower bound below infinity"),
        ):
            if where.any():
                i = int(np.argmax(where))
                raise ValueError(f"bounds[{i}]=({self.low[i]:g}, {self.high[i]:g}) is {name}: {what}")
        outside = (self.x0 < self.low) | (self.x0 > self.high)
        if outside.any():
            i = int(np.argmax(outside))
            raise ValueError(
                f"x0[{i}]={self.x0[i]:g} is outside bounds[{i}]=({self.low[i]:g}, {self.high[i]:g}): begin inside, "
                "for instance at numpy.clip(x0, low, high)"
            )
        self.free = self.low < self.high
        self._low, self._high = self.low[self.free], self.high[self.free]
        self._width = self._high - self._low
        self.sigmas = self._spread(sigma, d)
        self.spread = self.sigmas[self.free]
        self._bounded = bool(np.isfinite(self._low).any() or np.isfinite(self._high).any())
        alike = (self.spread == self.spread[:1]).all()
        self._plain = bool(alike and self.free.any())
        self.scale, self.sigma = (1.0, float(self.spread[0])) if self._plain else (self.spread, 1.0)

    def _spread(self, sigma: Any, d: int) -> Array:
        if sigma is None:
            width = np.where(self.free, self.high - self.low, np.inf)
            return np.where(np.isfinite(width), width / 4, SIGMA)
        try:
            spread = np.broadcast_to(np.asarray(sigma, dtype=float), (d,))
        except (TypeError, ValueError):
            raise ValueError(
                f"sigma={sigma!r}: give one positive number, or one for each of the {d} coordinates"
            ) from None
        if not (np.isfinite(spread) & (spread > 0)).all():
            raise ValueError(f"sigma={sigma!r}: standard deviations must be positive and finite")
        return spread

    @property
    def start(self) -> Array:
        """x0 in the method's coordinates, (free,)."""
        return self.x0[self.free] / self.scale

    @property
    def bounds(self) -> Array:
        """The limits as pairs, (d, 2)."""
        return np.stack((self.low, self.high), axis=1)

    def restart(self, seed: int, number: int) -> Array:
        """Where restart ``number`` begins, (free,): uniform between finite bounds, else around x0, 2 sigma wide."""
        d, boxed = len(self.spread), np.isfinite(self._width)
        seed = own(seed, _RESTART + number)
        normal = stream.draw(stream.NORMAL, seed, 0, range(1), [(0, d)])[0][0].numpy().astype(float)
        uniform = (stream.draw(stream.ROUNDING, seed, 0, range(1), [(0, d)])[0][0].numpy() + 0.5) / 65536
        inside = np.where(boxed, self._low, 0.0) + uniform * np.where(boxed, self._width, 0.0)
        return np.where(boxed, inside, self._fold(self.x0[self.free] + 2 * self.spread * normal)) / self.scale

    def points(self, y: Array) -> Array:
        """Where the objective is evaluated: (..., free) to (..., d), always within the bounds; may be y itself."""
        x = y if self._plain else y * self.scale
        if self._bounded:
            x = self._fold(x)
        if self.free.all():
            return x
        whole = np.empty((*x.shape[:-1], len(self.x0)))
        whole[...] = self.low
        whole[..., self.free] = x
        return whole

    def _fold(self, x: Array) -> Array:
        """The mirror images, within the bounds, of points anywhere."""
        outside = (x < self._low) | (x > self._high)
        if not outside.any():
            return x
        with np.errstate(invalid="ignore", over="ignore"):
            above = np.where(np.isfinite(self._low), self._low + abs(x - self._low), x)
            below = np.where(np.isfinite(self._high), self._high - abs(x - self._high), x)
            turn = np.mod(x - self._low, 2 * self._width)  # nan where a bound is infinite, and not used there
            both = self._low + np.minimum(turn, 2 * self._width - turn)
        folded = np.where(np.isfinite(self._width), both, np.where(np.isfinite(self._low), above, below))
        return np.where(outside, np.clip(folded, self._low, self._high), x)

    def mark(self) -> str:
        """A short name for all that makes this space: two runs with the same mark search the same one."""
        parts = (self.x0, self.low, self.high, self.spread)
        return hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in parts)).hexdigest()[:16]


def _vector(x0: Any) -> Array:
    if hasattr(x0, "detach"):
        x0 = x0.detach().cpu().numpy()
    try:
        x = np.atleast_1d(np.array(x0, dtype=float))
    except (TypeError, ValueError):
        raise TypeError(f"x0={x0!r}: give real numbers, an array of shape (d,)") from None
    if x.ndim != 1 or not len(x):
        raise ValueError(f"x0 has shape {x.shape}: give an array of shape (d,) with d of at least 1; x0.ravel() is one")
    if not np.isfinite(x).all():
        raise ValueError(f"x0[{int(np.argmin(np.isfinite(x)))}] is not finite: begin where the objective is defined")
    return x


def _limits(bounds: Any, d: int) -> tuple[Array, Array]:
    """Lower and upper limits, (d,) each, of SciPy's ``Bounds`` or of a sequence of (low, high), None for no limit."""
    if bounds is None:
        return np.full(d, -np.inf), np.full(d, np.inf)
    if hasattr(bounds, "lb"):
        pair = bounds.lb, bounds.ub
    else:
        rows = list(bounds)
        if len(rows) != d or any(np.size(row) != 2 for row in rows):
            raise ValueError(f"bounds must be {d} pairs (low, high), one for each coordinate, or scipy.optimize.Bounds")
        pair = [-np.inf if a is None else a for a, _ in rows], [np.inf if b is None else b for _, b in rows]
    low, high = (np.array(np.broadcast_to(np.asarray(side, dtype=float), (d,))) for side in pair)
    if np.isnan(low).any() or np.isnan(high).any():
        raise ValueError("bounds hold a number that is not a number: use None or an infinity for no bound")
    return low, high
