"""The experiment with noise on the parameters of many learners at once, each credited with its own loss."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zolib.errors import LossError, ParameterError
from zolib.estimates import Dense
from zolib.experiment import OnParameters


class OnReplicas(OnParameters):
    """Parameters of shape (S, ...), losses of shape (S,): S learners side by side, each with its own noise and slope.

    A scalar loss is one slope for all, as in :class:`OnParameters`.
    """

    def evaluate(self, k: int | None, scale: float) -> Tensor:
        losses: list[Tensor] = []

        def closure() -> Any:
            loss = inner()
            if isinstance(loss, Tensor) and loss.ndim:
                losses.append(loss)
                self._refuse_misshapen(loss)
                loss = loss.sum()
            return loss

        subject, inner = self.subject, self.subject.closure
        self.subject = copy.copy(subject)
        self.subject.closure = closure
        try:
            value = super().evaluate(k, scale)
        finally:
            subject.consumed, subject.repeated = self.subject.consumed, self.subject.repeated
            self.subject = subject
        return value if not losses else losses[0].detach().to(value.dtype)

    def evaluate_together(self, points: Sequence[tuple[int, float]]) -> Tensor:
        raise ValueError("chunk: many learners are side by side already; use chunk=1")

    def _refuse_misshapen(self, loss: Tensor) -> None:
        probe = type(self.directions.probe).__name__
        if loss.ndim > 1:
            raise LossError(
                f"closure() returned losses of shape {tuple(loss.shape)}, but {probe} draws one direction for all "
                "examples of a replica; average over the examples, for example loss.mean(dim=1), or use zo.Nodes()"
            )
        for target in self.subject.targets:
            if not target.value.ndim or target.value.shape[0] != len(loss):
                raise ParameterError(
                    f"closure() returned {len(loss)} losses, one per replica, but parameter {target.name!r} has shape "
                    f"{tuple(target.value.shape)}, whose first axis is not {len(loss)}; return a scalar, or freeze it"
                )

    def estimate(self, slopes: Tensor) -> Any:
        """slopes: (K,) or (K, S).  Each replica's own gradient, not an average over replicas."""
        if slopes.ndim == 1:
            return super().estimate(slopes)
        directions = self.directions
        slopes = slopes * (directions.probe.weight(directions.d) / directions.samples)
        pairs = []
        for j, target in enumerate(directions.targets):
            if j not in self.subject.consumed:
                continue
            value = target.value
            total = torch.zeros(value.shape, dtype=torch.promote_types(value.dtype, torch.float32), device=value.device)
            for k, slope in enumerate(slopes):
                total.addcmul_(directions(k, j).to(total), slope.to(total).view(-1, *[1] * (value.ndim - 1)))
            pairs.append((value, total.to(value.dtype)))
        return Dense(pairs)
