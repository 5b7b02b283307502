r"""WRITE, by pulses: how one pulse moves a cell, up or down, and how cells and pulses differ.

The state is u = w / w_max in about [-1, 1], the cell's distance from a reference in the middle of its range.  A pulse
in direction d = +1 or -1 moves it by

.. math:: u \leftarrow \mathrm{clip}\big(u + d\,s_{ij}^d\,f^d(u)\,(1 + \sigma\xi),\ b^-_{ij},\ b^+_{ij}\big), \qquad
          s_{ij}^d = s\,|1 + d\,\beta_{ij} + \delta\,\xi_{ij}|, \qquad b^\pm_{ij} = b^\pm\,|1 + \delta_b\,\xi^\pm_{ij}|

with a law f, cycle-to-cycle noise sigma drawn at each pulse (WRITE), and constants of each cell (FROZEN).  The form is
that of Gokmen and Vlasov (Front. Neurosci. 10:333, 2016) as extended in the IBM analog hardware kit.

A chip with such a law changes its weights by pulses alone.  What they should do is the change of the parameters since
they were last sent; what they do is their own affair, and the parameters do not hear of it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zolib.hardware.stage import CellStage, When, number


class ConstantStep(CellStage):
    r"""Every pulse does the same wherever the cell stands, up to its bounds: f = 1.

    Args:
        step: s, mean step of a pulse, relative to w_max.
        d2d: :math:`\delta`, relative spread of the step from cell to cell.
        c2c: :math:`\sigma`, relative noise of each pulse.
        up_down: Mean of :math:`\beta`: up steps are larger by it, down steps smaller.
        up_down_d2d: Its spread from cell to cell.
        low, high: :math:`b^-, b^+`, mean bounds, relative to w_max.
        bound_d2d: :math:`\delta_b`, their relative spread.

    The defaults are the specification of Gokmen and Vlasov: 1,200 steps of the whole range, 30 % spreads.
    """

    when = When.WRITE
    up: Tensor
    down: Tensor
    top: Tensor
    bottom: Tensor

    def __init__(
        self,
        step: float = 1 / 600,
        d2d: float = 0.3,
        c2c: float = 0.3,
        up_down: float = 0.0,
        up_down_d2d: float = 0.01,
        low: float = -1.0,
        high: float = 1.0,
        bound_d2d: float = 0.3,
    ):
        super().__init__()
        self.step, self.d2d, self.c2c = number("step", step, 0, 1, above=True), number("d2d", d2d), number("c2c", c2c)
        self.up_down, self.up_down_d2d = number("up_down", up_down, -1, 1), number("up_down_d2d", up_down_d2d)
        self.low, self.high = number("low", low, low=-math.inf, high=0.0), number("high", high, above=True)
        self.bound_d2d = number("bound_d2d", bound_d2d)
        # enough pulses to cross the range twice; a longer train ends there
        self.longest = math.ceil(2 * (self.high - self.low) / self.step)

    def build(self, cells) -> None:
        def draw(which: int) -> Tensor:
            return cells.normal(self, which).select(cells.arms, 0)

        beta, own = self.up_down + self.up_down_d2d * draw(2), self.d2d * draw(3)
        self.register_buffer("up", self.step * (1 + beta + own).abs())
        self.register_buffer("down", self.step * (1 - beta + own).abs())
        self.register_buffer("top", self.high * (1 + self.bound_d2d * draw(4)).abs())
        self.register_buffer("bottom", self.low * (1 + self.bound_d2d * draw(5)).abs())

    def program(self, g: Tensor, cells) -> Tensor:
        """A write of a whole array, verified: exact, within each cell's own bounds."""
        mapping = cells.mapping
        u = mapping.join(g, cells.arms)
        cell = mapping.middle + mapping.range * torch.maximum(torch.minimum(u, self.top), self.bottom)
        return torch.stack((cell, g.select(cells.arms, 1)), dim=cells.arms)

    def factor(self, u: Tensor, up: Tensor) -> Tensor | float:
        """f at u, for cells that get an up pulse (True) or a down pulse (False)."""
        return 1.0

    def pulsed(self, u: Tensor, counts: Tensor, cells) -> Tensor:
        """u after ``counts`` pulses, signed whole numbers."""
        up, left = counts > 0, counts.abs()
        move = torch.where(up, self.up, -self.down)
        for pulse in range(int(left.max()) if left.numel() else 0):
            moved = move * self.factor(u, up)
            if self.c2c:
                moved = moved * (1 + self.c2c * cells.normal(self, 6 + pulse).select(cells.arms, 0))
            moved = torch.maximum(torch.minimum(u + moved, self.top), self.bottom)
            u = torch.where(left > pulse, moved, u)
        return u


class LinearStep(ConstantStep):
    r"""The step falls linearly: :math:`f^\pm = 1 - |\gamma^\pm + \delta_\gamma\xi^\pm_{ij}|\,u/b^\pm_{ij}`.

    Args:
        gamma_up, gamma_down: :math:`\gamma^\pm`: by how much an up step is smaller at the upper bound than at 0, a down
            step at the lower.
        gamma_d2d: :math:`\delta_\gamma`.
        others: As for :class:`ConstantStep`.
    """

    slope_up: Tensor
    slope_down: Tensor

    def __init__(self, gamma_up: float = 0.0, gamma_down: float = 0.0, gamma_d2d: float = 0.05, **others: float):
        super().__init__(**others)
        self.gamma_up, self.gamma_down = number("gamma_up", gamma_up), number("gamma_down", gamma_down)
        self.gamma_d2d, self.others = number("gamma_d2d", gamma_d2d), others

    def build(self, cells) -> None:
        super().build(cells)
        # which = -1, -2: those from 6 on belong to pulses
        up, down = (cells.normal(self, which).select(cells.arms, 0) for which in (-1, -2))
        self.register_buffer("slope_up", (self.gamma_up + self.gamma_d2d * up).abs() / self.top)
        self.register_buffer("slope_down", (self.gamma_down + self.gamma_d2d * down).abs() / self.bottom)

    def factor(self, u: Tensor, up: Tensor) -> Tensor:
        return 1 - torch.where(up, self.slope_up, self.slope_down) * u


class SoftBounds(LinearStep):
    r"""The step vanishes at the bounds: :math:`f^\pm = 1 - u/b^\pm`.

    After n up pulses from 0 without noise, :math:`u = b^+(1 - (1 - s/b^+)^n)`.  Alternating pulses lead to the symmetry
    point :math:`u^* = (s^+ - s^-)/(s^+/b^+ - s^-/b^-)`.

    Args:
        step, others: As for :class:`ConstantStep`.
    """

    def __init__(self, step: float = 1 / 600, **others: float):
        super().__init__(gamma_up=1.0, gamma_down=1.0, gamma_d2d=0.0, step=step, **others)
        self.others = others


class ExponentialStep(ConstantStep):
    r"""The step falls exponentially.

    .. math:: f^\pm = \max(0,\ 1 - A^\pm e^{\pm\gamma^\pm z}), \qquad z = \frac{2au}{b^+ - b^-} + b

    Fits filamentary ReRAM.  The defaults are of Gong et al. (Nat. Commun. 9:2102, 2018), as fitted in the IBM analog
    hardware kit.

    Args:
        A_up, A_down, gamma_up, gamma_down, a, b: As above.
        others: As for :class:`ConstantStep`.
    """

    def __init__(
        self,
        A_up: float = -1.18445,
        A_down: float = -0.081404,
        gamma_up: float = 5.0,
        gamma_down: float = 5.0,
        a: float = -0.5,
        b: float = -0.5,
        **others: float,
    ):
        super().__init__(**others)
        self.A_up, self.A_down, self.a, self.b = (
            number(name, value, low=-math.inf)
            for name, value in {"A_up": A_up, "A_down": A_down, "a": a, "b": b}.items()
        )
        self.gamma_up, self.gamma_down = number("gamma_up", gamma_up), number("gamma_down", gamma_down)
        self.others = others

    def factor(self, u: Tensor, up: Tensor) -> Tensor:
        z = 2 * self.a * u / (self.top - self.bottom) + self.b
        rise = 1 - self.A_up * torch.exp(self.gamma_up * z)
        fall = 1 - self.A_down * torch.exp(-self.gamma_down * z)
        return torch.where(up, rise, fall).clamp(min=0.0)
