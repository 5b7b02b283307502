"""Who makes the noise: compiled kernels where there are any, otherwise the plain torch that defines it.

All give the same bits, so the choice is of speed alone.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

#: Kernels by the kind of device: our module, and the compiler that it needs.
_MODULES = {"cpu": ("zolib.noise.cpu", "numba"), "cuda": ("zolib.noise.gpu", "triton")}
_reference = os.environ.get("ZOLIB_NOISE", "") == "reference"


@contextmanager
def reference() -> Iterator[None]:
    """Within it the plain torch reference makes all noise, in every thread; ``ZOLIB_NOISE=reference`` sets it for good.

    For comparison: the numbers are the same.
    """
    global _reference
    before, _reference = _reference, True
    try:
        yield
    finally:
        _reference = before


def kernels(place: Tensor | torch.device) -> ModuleType | None:
    """The module with kernels for a tensor or a device, or None: use the reference."""
    if _reference:
        return None
    if isinstance(place, Tensor):
        if not _plain(place):
            return None
        place = place.device
    return _module(place.type) if place.type in _MODULES else None


def _plain(x: Tensor) -> bool:
    """Numbers in memory of its own that may be read and written behind torch's back."""
    return (
        type(x) in (Tensor, torch.nn.Parameter)
        and x.layout == torch.strided
        and not (x.is_inference() or x.is_neg() or torch._C._functorch.is_functorch_wrapped_tensor(x))
    )


@cache
def _module(device: str) -> ModuleType | None:
    name, compiler = _MODULES[device]
    try:
        return importlib.import_module(name)
    except ImportError as error:
        warnings.warn(
            f"noise on {device} is made by plain torch, which gives the same numbers but takes several times as long: "
            f"its kernels need {compiler} ({error})",
            RuntimeWarning,
            stacklevel=4,
        )
        return None
