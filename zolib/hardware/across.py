"""Looking across chips: mean, spread and yield."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Across(NamedTuple):
    """A figure of merit over chips.

    Attributes:
        mean: Over chips.
        sd: Standard deviation from chip to chip (n - 1), 0 for one chip.
        low, high: Of the worst and the best chip by value.
        passing: Yield: the fraction of chips with at least ``least``; nan if none was asked for.
    """

    mean: float
    sd: float
    low: float
    high: float
    passing: float


def across(values: Tensor, least: float | None = None) -> Across:
    """Mean, spread and yield of one number for each chip, (S,).

    >>> import torch
    >>> across(torch.tensor([0.9, 0.8, 1.0]), least=0.85).passing
    0.6666666666666666
    """
    values = torch.as_tensor(values).detach().double().flatten()
    if not len(values):
        raise ValueError("values: there is no chip to look across")
    sd = values.std().item() if len(values) > 1 else 0.0
    passing = float("nan") if least is None else (values >= least).double().mean().item()
    return Across(values.mean().item(), sd, values.min().item(), values.max().item(), passing)
