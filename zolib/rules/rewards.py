"""One reward for a learner, or one for each of many that learn side by side, along the first axis of parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zolib.errors import LossError


def checked(reward: Any, parameters: Iterable[Tensor], expected: Tensor | None) -> Tensor:
    """A reward as a tensor, () or (S,).  expected: what was expected of it, in its shape or a number; None at first.

    Raises:
        ValueError: It does not fit the parameters, or what came before.
        LossError: It is not finite.
    """
    reward = torch.as_tensor(reward).detach()
    reward = reward if reward.is_floating_point() else reward.double()
    if reward.ndim > 1:
        raise ValueError(f"reward has shape {tuple(reward.shape)}; give one number, or one for each replica, (S,)")
    if reward.ndim:
        for p in parameters:
            if not p.ndim or p.shape[0] != len(reward):
                raise ValueError(
                    f"reward has {len(reward)} entries, one for each replica, but a parameter has shape "
                    f"{tuple(p.shape)}, whose first axis is not {len(reward)}; give a scalar for a single learner"
                )
    if expected is not None and expected.ndim and expected.shape != reward.shape:
        raise ValueError(f"reward has shape {tuple(reward.shape)}, before it was {tuple(expected.shape)}")
    if not reward.isfinite().all():
        raise LossError("the reward is not finite; the step is refused, and all is as before")
    return reward


def along(error: Tensor, p: Tensor) -> Tensor:
    """The error, () or (S,), in the shape that multiplies a parameter of (S, ...)."""
    return error.to(p).view(-1, *[1] * (p.ndim - 1)) if error.ndim else error.to(p)
