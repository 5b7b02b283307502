"""The stream on the CPU, by numba kernels: draws, perturbed copies and updates, shared out over threads.

The kernels (:mod:`zolib.noise.compiled`) are serial.  Torch's threads (:mod:`zolib.noise.team`) share a large tensor
out, or a small pool of our own, since the thread layers of numba survive neither a fork (a DataLoader's worker) nor
callers in several threads.  Pieces begin at multiples of whole blocks, so nothing depends on how many threads there
are.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from zolib.noise import stream, team
from zolib.noise.compiled import CHUNK, combination, filling
from zolib.noise.rounding import HALF
from zolib.noise.stream import ROUNDING

PIECE = 16 * CHUNK  # elements that a thread takes at a time


def draw(
    law: int, seed: int, step: int, samples: range, parts: Sequence[tuple[int, int]], device: torch.device | str
) -> list[Tensor]:
    """:func:`zolib.noise.stream.draw`."""
    dtype, fill, by = stream._LAWS[law][2], filling(law), samples.step
    result = [_in_large_pages(torch.empty((len(samples), size), dtype=dtype, device=device)) for _, size in parts]
    pieces = [
        piece
        for out, (parameter, _) in zip(result, parts, strict=True)
        for piece in _pieces(out.numpy(), _rows([(law, seed, step, samples.start)], parameter)[0], by)
    ]

    def some(i: int, j: int) -> None:
        for out, base, row, skip in pieces[i:j]:
            fill(out, base, row, skip, by)

    size = sum(out.numel() for out in result)
    threads = _threads_for(size)
    if threads > 1 and team.openmp() is not None:
        team.fill(fill, threads, pieces, by)
    elif pieces:
        _shared(some, len(pieces), -(-PIECE * len(pieces) // size))
    return result


def _pieces(out: np.ndarray, row: np.ndarray, by: int) -> list[team.Piece]:
    """(samples, size) in pieces of a thread's length: of one row, or of whole ones if they are short."""
    samples, size = out.shape
    if size >= PIECE:
        return [(out[s : s + 1, i : i + PIECE], i, row, s * by) for s in range(samples) for i in range(0, size, PIECE)]
    rows = PIECE // max(size, 1)
    return [(out[s : s + rows], 0, row, s * by) for s in range(0, samples, rows)] if size else []


def perturbed(value: Tensor, law: int, seed: int, step: int, sample: int, parameter: int, scale: float) -> Tensor:
    """:func:`zolib.noise.fused.perturbed`."""
    out = _in_large_pages(torch.empty_like(value, memory_format=torch.contiguous_format, requires_grad=False))
    term = (seed, step, sample, scale)
    _run(value.detach().contiguous(), out, law, [term], parameter, 1.0, -0.0)
    return out if value.is_contiguous() else torch.empty_like(value, requires_grad=False).copy_(out)


def update_(
    value: Tensor, law: int, terms: Sequence[tuple[int, int, int, float]], parameter: int, decay: float
) -> None:
    """:func:`zolib.noise.fused.update_`, for at least one term."""
    inside = value.detach()
    flat = inside.contiguous()
    _run(flat, flat, law, terms, parameter, decay, 0.0)
    if inside.is_contiguous():
        torch.autograd.graph.increment_version(value)
    else:
        value.copy_(flat)


def _run(
    value: Tensor, out: Tensor, law: int, terms: Sequence, parameter: int, decay: float, zero: float, base: int = 0
) -> None:
    """The combination of contiguous tensors; ``base`` numbers their first element, a multiple of CHUNK."""
    source = _flat(value)
    target = source if out is value else _flat(out)
    streams = [(law, *term[:3]) for term in terms]
    if value.dtype in HALF:
        streams.append((ROUNDING, *terms[-1][:3]))
    rows, c = _rows(streams, parameter), np.array([term[3] for term in terms], np.float64)
    kernel = combination(law, value.dtype)
    threads = _threads_for(len(source))
    if threads < 2:
        kernel(source, target, base, rows, c, decay, zero)
    elif team.openmp() is not None:
        team.run(kernel, threads, source, target, base, rows, c, decay, zero)
    else:
        _shared(lambda i, j: kernel(source[i:j], target[i:j], base + i, rows, c, decay, zero), len(source), PIECE)


def _flat(x: Tensor) -> np.ndarray:
    return (x.view(torch.uint16) if x.dtype in HALF else x).numpy().reshape(-1)


def _rows(streams: Sequence[tuple[int, int, int, int]], parameter: int) -> np.ndarray:
    """(law, seed, step, sample) of each, as the rows that the kernels take."""
    rows = [(*stream.fold(seed, law), parameter, sample, step) for law, seed, step, sample in streams]
    return np.array(rows, np.uint32)


def _in_large_pages(fresh: Tensor) -> Tensor:
    """Ask Linux to back new memory by large pages.

    From 32 MiB on, glibc gets memory from the system each time, by default in pages of 4 KiB, and waiting for those
    takes longer than filling them with noise.
    """
    if fresh.nbytes >= 1 << 25 and hasattr(mmap, "MADV_HUGEPAGE"):
        start = -(-fresh.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        size = fresh.data_ptr() + fresh.nbytes - start
        ctypes.CDLL(None).madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), mmap.MADV_HUGEPAGE)
    return fresh


# Threads


def _threads_for(size: int) -> int:
    return min(torch.get_num_threads(), size // PIECE)


_pool: tuple[int, int, ThreadPoolExecutor | None] = (0, 0, None)


def _shared(work: Callable[[int, int], None], size: int, piece: int) -> None:
    """``work(start, stop)`` over all of [0, size), piece by piece, by as many threads as torch would use."""
    helpers = min(torch.get_num_threads(), size // piece) - 1
    if helpers < 1:
        if size:
            work(0, size)
        return
    starts = iter(range(0, size, piece))  # whoever is free takes the next

    def loop() -> None:
        for start in starts:
            work(start, min(start + piece, size))

    pool = _threads(helpers)
    futures = [pool.submit(loop) for _ in range(helpers)]
    try:
        loop()
    finally:
        for future in futures:
            if not future.cancel():  # one that no thread has come to: nothing is left for it
                future.result()


def _threads(count: int) -> ThreadPoolExecutor:
    """The pool; a process made by fork has none of its parent's threads and needs its own."""
    global _pool
    process, size, pool = _pool
    if pool is None or process != os.getpid() or size < count:
        pool = ThreadPoolExecutor(count, "zolib-noise")
        _pool = (os.getpid(), count, pool)
    return pool
