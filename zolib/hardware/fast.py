r"""FAST: what is drawn anew at each read.

The unit of all outputs is :math:`I_1`, the current of one cell at full conductance and full input voltage.  In the
units of the model it is :math:`w_{max}\,x_{max}`: the weight that g_max stands for, times the input that stands for the
full voltage (1, unless a :class:`~zolib.hardware.DAC` sets it).  So noise belongs to the hardware: it is the same
whatever the scale of the model.  At the output of a module without weights :math:`I_1 = 1`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zolib.hardware.physics import BOLTZMANN, CHARGE
from zolib.hardware.stage import SCALINGS, GaussianStage, number, one_of, scaled


class OutputNoise(GaussianStage):
    r"""White noise on each output, at each read.

    .. math:: y_i \leftarrow y_i + \sigma I_1\,\xi_i

    Args:
        sd: :math:`\sigma`, in units of one cell's full current.  0.04 to 0.1 is what studies of analog hardware assume
            (Rasch et al., Nat. Commun. 14, 5282, 2023: 0.04).
    """

    def __init__(self, sd: float):
        super().__init__()
        self.sd = number("sd", sd)

    def variance(self, read) -> Tensor | float:
        return (self.sd * read.unit) ** 2


class CellReadNoise(GaussianStage):
    r"""Fresh noise on each conductance at each read, drawn where it arrives: at the output.

    Noise of standard deviation :math:`\sigma_{ij}` on independent cells makes the output of a row of inputs normal, of

    .. math:: \mathrm{Var}[y_i] = \Big(\frac{w_{max}}{\Delta g}\Big)^2 \sum_j
              \big(\sigma^2_{ij+} + \sigma^2_{ij-}\big)\, x_j^2

    the same law as that of noise drawn cell by cell for each row of a batch, at the price of one more product.
    Subclasses give sigma.
    """

    needs = "cells"
    power: Tensor

    def deviation(self, g: Tensor, cells) -> Tensor:
        """Standard deviation of each cell, microsiemens, for conductances g (now) of ``cells``."""
        raise NotImplementedError

    def build(self, tile) -> None:
        self.register_buffer("power", tile.per_weight(), persistent=False)

    def refresh(self, g: Tensor, tile) -> None:
        arms = self.deviation(g, tile.cells).square().sum(dim=tile.cells.arms)
        self.power.copy_(arms * tile.gain**2)

    def variance(self, read) -> Tensor:
        return read.tile.product(read.x.detach().square(), self.power)


class ReadNoise(CellReadNoise):
    """Read noise of the cells as a relative deviation times a scaling; see :class:`CellReadNoise`.

    Args:
        spread: Relative standard deviation.
        scaling: ``"independent"`` (times g_max), ``"proportional"`` (g) or ``"inverse"`` (g_max^2 / g).
    """

    def __init__(self, spread: float, scaling: str = "proportional"):
        super().__init__()
        self.spread, self.scaling = number("spread", spread), one_of("scaling", scaling, SCALINGS)

    def deviation(self, g: Tensor, cells) -> Tensor:
        return self.spread * scaled(self.scaling, g, cells.chip.g_max) * torch.ones_like(g)


class Thermal(GaussianStage):
    r"""Johnson-Nyquist noise of the cells: :math:`\mathrm{Var}[I_i] = 4 k_B T B \sum_j (g_{ij+} + g_{ij-})`.

    Args:
        bandwidth: B, hertz.
        voltage: Full read voltage, volts.
        temperature: T, kelvin.
    """

    needs = "cells"
    power: Tensor

    def __init__(self, bandwidth: float, voltage: float = 0.2, temperature: float = 300.0):
        super().__init__()
        self.bandwidth, self.voltage = number("bandwidth", bandwidth), number("voltage", voltage, above=True)
        self.temperature = number("temperature", temperature)

    def build(self, tile) -> None:
        self.register_buffer("power", torch.zeros_like(tile.per_output()), persistent=False)

    def refresh(self, g: Tensor, tile) -> None:
        total = g.sum(dim=tile.cells.arms).flatten(tile.lead + 1).sum(dim=-1) * 1e-6  # siemens, ([S,] outputs)
        self.power.copy_(4 * BOLTZMANN * self.temperature * self.bandwidth * total / _full(self, tile) ** 2)

    def variance(self, read) -> Tensor:
        return read.tile.spread(self.power, read.x.ndim) * read.unit**2


class Shot(GaussianStage):
    r"""Shot noise of the currents: :math:`\mathrm{Var}[I_i] = 2 q B \sum_j (g_{ij+} + g_{ij-}) |V_j|`.

    Full shot noise is an upper bound: a diffusive, ohmic conductor has a third of it or less (Nagaev 1992).

    Args:
        bandwidth: B, hertz.
        voltage: Full read voltage, volts.
    """

    needs = "cells"
    power: Tensor

    def __init__(self, bandwidth: float, voltage: float = 0.2):
        super().__init__()
        self.bandwidth, self.voltage = number("bandwidth", bandwidth), number("voltage", voltage, above=True)

    def build(self, tile) -> None:
        self.register_buffer("power", tile.per_weight(), persistent=False)

    def refresh(self, g: Tensor, tile) -> None:
        current = g.sum(dim=tile.cells.arms) * 1e-6 * self.voltage  # amperes at full input
        self.power.copy_(2 * CHARGE * self.bandwidth * current / _full(self, tile) ** 2)

    def variance(self, read) -> Tensor:
        return read.tile.product(read.x.detach().abs(), self.power) / read.x_max * read.unit**2


def _full(stage: Thermal | Shot, tile) -> float:
    """Amperes that stand for w_max at full input."""
    return tile.cells.mapping.range * 1e-6 * stage.voltage
