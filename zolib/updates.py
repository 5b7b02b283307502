"""Updates: what the estimate does to the weights.  Any ``torch.optim`` optimizer is one; here is what torch lacks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class SignSGD(torch.optim.Optimizer):
    """theta <- theta - lr sign(m), with m <- momentum m + (1 - momentum) g, or m = g without momentum.

    Every weight moves by the same amount, whatever the length of the estimate.  Sources: Bernstein et al., "signSGD",
    ICML 2018; with values only, Liu et al., "signSGD via zeroth-order oracle", ICLR 2019.

    Args:
        params: Parameters or parameter groups.
        lr: Step of each weight, positive.
        momentum: In [0, 1); above 0 it keeps one more number per weight.
    """

    def __init__(self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.0):
        if not lr > 0:
            raise ValueError(f"lr must be positive, got {lr!r}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum!r}")
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                direction: Tensor = p.grad
                if group["momentum"]:
                    m = self.state[p].setdefault("momentum", torch.zeros_like(p))
                    direction = m.mul_(group["momentum"]).add_(p.grad, alpha=1 - group["momentum"])
                p.sub_(direction.sign(), alpha=group["lr"])
        return loss
