"""Accounting: what a comparison costs, so that it can be made at equal cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

#: A backward pass is charged as this many forward passes: it multiplies by each weight matrix twice, once for the
#: gradient of its input and once for its own.
BACKWARD = 2


class Oracle:
    """A function or closure that counts what is asked of it.

    Put it where the function stood; it returns what the function returns.

    Args:
        f: The function.  One call is one evaluation, and one forward pass.
        macs: Also count multiply-accumulates of matrix products, convolutions and attention: ``"first"`` measures the
            first call and charges every other the same, ``"every"`` measures each (slow), None does not count.

    Attributes:
        forwards: Calls so far.
        backwards: Times that backpropagation went through a result.
        macs: Multiply-accumulates, a backward pass charged as two forward passes.

    >>> import torch, zolib as zo
    >>> model = torch.nn.Linear(3, 2)
    >>> oracle = zo.Oracle(lambda: model(torch.ones(5, 3)).square().mean())
    >>> loss = zo.backward(oracle, model, samples=4)
    >>> oracle.forwards, oracle.macs
    (8, 240)
    """

    def __init__(self, f: Callable[..., Any], macs: str | None = "first"):
        if not callable(f):
            raise TypeError(f"f must be callable, got {f!r}")
        if macs not in ("first", "every", None):
            raise ValueError(f"macs must be 'first', 'every' or None, got {macs!r}")
        self.f, self._measure = f, macs
        self._last = 0
        self.reset()

    def reset(self) -> None:
        """Count from zero again."""
        self.forwards = self.backwards = self.macs = 0

    @property
    def forward_equivalents(self) -> int:
        """Forward passes, a backward pass counted as two."""
        return self.forwards + BACKWARD * self.backwards

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._measure == "every" or (self._measure == "first" and not self._last):
            with FlopCounterMode(display=False) as counter:
                result = self.f(*args, **kwargs)
            self._last = counter.get_total_flops() // 2
        else:
            result = self.f(*args, **kwargs)
        self.forwards += 1
        self.macs += self._last
        if isinstance(result, Tensor) and result.requires_grad:
            cost = self._last

            def charge(_: Tensor) -> None:
                self.backwards += 1
                self.macs += BACKWARD * cost

            result.register_hook(charge)
        return result

    def __repr__(self) -> str:
        return f"Oracle(forwards={self.forwards}, backwards={self.backwards}, macs={self.macs})"
