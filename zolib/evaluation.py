"""Evaluating an objective many times as if once."""

from __future__ import annotations

import numbers
import pickle
import random
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zolib.errors import LossError


class State:
    """What an evaluation changes besides its result: the global random generators and a model's buffers.

    ``restore()`` sets both back, so that every evaluation of a step sees the same dropout masks and the same running
    statistics, and the last one leaves them as a single evaluation would.  Generators: torch's (CPU and the CUDA
    devices given), NumPy's and Python's.  A generator that a closure owns is beyond reach; ``zolib.check`` finds it.
    A module that calls itself ``physical`` is left alone: what happened to a device cannot be taken back.
    """

    def __init__(self, modules: Iterable[nn.Module], devices: Iterable[torch.device]):
        self._cuda = sorted({d.index or 0 for d in devices if d.type == "cuda"})
        self._buffers = [
            (module, name, buffer, buffer.clone())
            for module in modules
            for name, buffer in module._buffers.items()
            if buffer is not None and not getattr(module, "physical", False)
        ]
        self._torch = torch.get_rng_state()
        self._torch_cuda = [torch.cuda.get_rng_state(i) for i in self._cuda]
        self._numpy = np.random.get_state()
        self._python = random.getstate()

    def drawn(self) -> int:
        """A checksum of where the generators stood that an evaluation has drawn from; 0 if there are none."""
        now = State([], [torch.device("cuda", i) for i in self._cuda])._generators()
        moved = [was for was, is_ in zip(self._generators(), now, strict=True) if was != is_]
        return zlib.crc32(b"".join(moved)) if moved else 0

    def _generators(self) -> list[bytes]:
        states = [s.numpy().tobytes() for s in (self._torch, *self._torch_cuda)]
        return [*states, pickle.dumps(self._numpy), pickle.dumps(self._python)]

    def buffers(self) -> list[Tensor]:
        """The buffers, as they are now."""
        return [module._buffers[name] for module, name, *_ in self._buffers]  # type: ignore[misc]

    def changed(self) -> list[int]:
        """Positions of the buffers that are not as they were."""
        return [i for i, now in enumerate(self.buffers()) if not torch.equal(now, self._buffers[i][-1])]

    def restore(self) -> None:
        torch.set_rng_state(self._torch)
        for i, state in zip(self._cuda, self._torch_cuda, strict=True):
            torch.cuda.set_rng_state(state, i)
        np.random.set_state(self._numpy)
        random.setstate(self._python)
        with torch.no_grad():
            for module, name, buffer, saved in self._buffers:
                module._buffers[name] = buffer  # the module may have put another tensor in its place
                buffer.copy_(saved)  # always: batch norm writes its statistics without a new version number


def checked_loss(loss: Any, source: str, probe: str) -> Tensor:
    """The loss as a detached scalar tensor; LossError if it is none.

    source: what returned it, for messages.  probe: the probe's name, likewise.
    """
    if isinstance(loss, numbers.Real):  # Python's and NumPy's numbers: a simulator, an accuracy
        return torch.tensor(float(loss), dtype=torch.float64, device="cpu")
    if not isinstance(loss, Tensor):
        cure = "return the loss" if loss is None else "return a scalar tensor or a number"
        raise LossError(f"{source} returned {type(loss).__name__}; {cure}")
    if loss.ndim:
        raise LossError(
            f"{source} returned a loss of shape {tuple(loss.shape)}, but {probe} perturbs parameters that all its "
            "entries share, so it cannot credit them one by one; return a scalar, for example loss.mean()"
        )
    if loss.dtype in (torch.float16, torch.bfloat16):
        raise LossError(
            f"{source} returned a {str(loss.dtype).removeprefix('torch.')} loss: a probe changes it by less than its "
            "last digit. Compute the loss in float32, for example F.cross_entropy(logits.float(), y)"
        )
    if loss.is_complex():
        raise LossError(f"{source} returned a complex loss; return a real number")
    return loss.detach() if loss.is_floating_point() else loss.detach().double()


def as_double(losses: list[Tensor]) -> Tensor:
    """Losses of equal shape, gathered in one transfer: (len(losses), ...) float64 on the CPU.

    Raises LossError if their shapes differ.
    """
    shapes = list(dict.fromkeys(tuple(loss.shape) for loss in losses))
    if len(shapes) > 1:
        raise LossError(
            f"closure() returned losses of shape {shapes[0]} and then of shape {shapes[1]} in one step, and cannot be "
            "compared. Draw the batch outside the closure, so that all evaluations see the same one"
        )
    return torch.stack([loss.to(losses[0].dtype) for loss in losses]).cpu().double()
