"""Torch's own threads, for the kernels of the stream.

Between two operations of torch the threads of its OpenMP wait by turning round and round, which costs other threads
their cores.  A pool of our own then gains nothing, but the team that is waiting starts at once.  So where torch has
brought GNU's OpenMP (its wheels for Linux do), kernels are handed to that, by the call that compilers make of
``#pragma omp parallel``.  Elsewhere, and after a fork, whose child has no team, :func:`openmp` is None.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import carray, cfunc, types
from numba.core import cgutils
from numba.extending import intrinsic

from zolib.noise.compiled import CHUNK

_openmp: ctypes.CDLL | None = None
for _path in Path(torch.__file__).parent.glob("lib/libgomp*.so*"):
    _openmp = ctypes.CDLL(str(_path))
    _openmp.GOMP_parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    _openmp.GOMP_parallel.restype = None
    for _name in ("omp_get_thread_num", "omp_get_num_threads"):
        getattr(_openmp, _name).argtypes = []
        getattr(_openmp, _name).restype = ctypes.c_int


def openmp() -> ctypes.CDLL | None:
    """The library as torch has loaded it, or None."""
    return _openmp


def _forget() -> None:
    global _openmp
    _openmp = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@intrinsic
def _pointer(typing, address):
    """An address as a pointer."""
    return types.voidptr(types.int64), lambda context, builder, signature, args: builder.inttoptr(
        args[0], cgutils.voidptr_t
    )


def _start(share: Any, given: np.ndarray, threads: int) -> None:
    """``share(given)`` by each thread of a team."""
    _openmp.GOMP_parallel(share.address, given.ctypes.data, threads, 0)  # type: ignore[union-attr]


def _addresses(*arrays: np.ndarray) -> list[int]:
    return [x.ctypes.data for x in arrays]


def run(
    kernel: Callable[..., None],
    threads: int,
    source: np.ndarray,
    target: np.ndarray,
    base: int,
    rows: np.ndarray,
    c: np.ndarray,
    decay: float,
    zero: float,
) -> None:
    """``kernel(source, target, base, rows, c, decay, zero)`` by a team of threads, each its share of whole chunks."""
    factors = np.array([decay, zero], np.float64)
    addresses = _addresses(source, target, rows, c, factors)
    given = np.array([*addresses, len(source), base, len(rows), len(c)], np.int64)
    _start(_share(kernel, source.dtype.type), given, threads)


@cache
def _share(kernel: Callable[..., None], kind: type) -> Any:
    """What one thread of the team does, as a function that C can call.  given: as in :func:`run`."""
    own, all_ = _openmp.omp_get_thread_num, _openmp.omp_get_num_threads  # type: ignore[union-attr]

    @cfunc(types.void(types.voidptr))
    def share(given):
        g = carray(given, (9,), np.int64)
        size = g[5]
        each = -(-size // (CHUNK * all_())) * CHUNK
        start = min(own() * each, size)
        stop = min(start + each, size)
        if start < stop:
            source, target = carray(_pointer(g[0]), (size,), kind), carray(_pointer(g[1]), (size,), kind)
            rows, c = carray(_pointer(g[2]), (g[7], 5), np.uint32), carray(_pointer(g[3]), (g[8],), np.float64)
            factors = carray(_pointer(g[4]), (2,), np.float64)
            kernel(source[start:stop], target[start:stop], g[6] + start, rows, c, factors[0], factors[1])

    return share


Piece = tuple[np.ndarray, int, np.ndarray, int]  # (rows, columns), its first element's number, the stream, a skip


def fill(kernel: Callable[..., None], threads: int, pieces: Sequence[Piece], by: int) -> None:
    """``kernel(out, base, row, skip, by)`` for each (out, base, row, skip), by a team that shares them by size."""
    table = np.array([(out.ctypes.data, *out.shape, base, skip) for out, base, _, skip in pieces], np.int64)
    rows, size = np.stack([row for _, _, row, _ in pieces]), table[:, 1] * table[:, 2]
    begins = np.cumsum(size) - size
    given = np.array([*_addresses(table, rows, begins), len(table), size.sum(), by], np.int64)
    _start(_fill_share(kernel, pieces[0][0].dtype.type), given, threads)


@cache
def _fill_share(kernel: Callable[..., None], kind: type) -> Any:
    own, all_ = _openmp.omp_get_thread_num, _openmp.omp_get_num_threads  # type: ignore[union-attr]

    @cfunc(types.void(types.voidptr))
    def share(given):
        g = carray(given, (6,), np.int64)
        count, size = g[3], g[4]
        table, rows = carray(_pointer(g[0]), (count, 5), np.int64), carray(_pointer(g[1]), (count, 5), np.uint32)
        begins = carray(_pointer(g[2]), (count,), np.int64)
        low, high = size * own() // all_(), size * (own() + 1) // all_()
        for i in range(count):
            if low <= begins[i] < high:
                out = carray(_pointer(table[i, 0]), (table[i, 1], table[i, 2]), kind)
                kernel(out, table[i, 3], rows[i], table[i, 4], g[5])

    return share
