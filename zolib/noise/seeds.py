"""The library's own counter of seeds, for callers who name none."""

from __future__ import annotations

import itertools
import operator

from zolib.noise.stream import fold

_UNNAMED = 0x7A6F  # a law of its own: seeds drawn here never meet those of the streams
_base, _count = 0, itertools.count()


def manual_seed(seed: int) -> None:
    """Restart the counter that gives a seed to every call with ``seed=None``.

    After ``manual_seed(s)`` the same sequence of calls draws the same noise again.  torch's own generators are not
    touched, and do not touch this one.  Before the first call the counter stands at ``manual_seed(0)``.
    """
    global _base, _count
    _base, _count = as_seed(seed), itertools.count()


def as_seed(seed: int | None) -> int:
    """A 64-bit seed from an argument: checked if given, the next one of the counter if None."""
    if seed is None:
        return own(_base, _UNNAMED + (next(_count) << 16))
    return natural("seed", seed, 1 << 64)


def own(seed: int, use: int) -> int:
    """The seed that one use makes of a common seed: two uses of it never meet."""
    low, high = fold(seed, use)
    return low | high << 32


def natural(name: str, value: int, below: int) -> int:
    """An argument that must be a whole number in ``[0, below)``, NumPy's and torch's integers included."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}") from None
    if isinstance(value, bool) or not 0 <= number < below:
        raise ValueError(f"{name} must be a whole number from 0 to {below - 1}, got {value!r}")
    return number
