"""Phase-change memory: the published fits to measured cells.

The cells are those of Nandakumar et al. (ICECS 2019, doi 10.1109/ICECS46596.2019.8964852; used in Joshi et al., Nat.
Commun. 11:2473, 2020), and of the Hermes chip (Le Gallo et al., Nat. Electron. 6:680, 2023).  Numbers as given in the
documentation and code of the IBM analog hardware kit.  x = g_T / g_max is the target.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zolib.hardware.fast import CellReadNoise
from zolib.hardware.slow import Drift
from zolib.hardware.stage import number
from zolib.hardware.write import FittedProgramming


class PCMProgramming(FittedProgramming):
    r"""Programming noise: :math:`\sigma = 0.26348 + 1.9650x - 1.1731x^2` microsiemens at g_max = 25.

    Golden values: 0.2635, 0.953, 1.055 at x = 0, 0.5, 1, and the largest, 1.086, at 0.8375.

    Args:
        scale: Multiplies sigma; 1 is as measured.
    """

    def __init__(self, scale: float = 1.0):
        super().__init__((0.26348, 1.9650, -1.1731), reference=25.0, scale=scale)


class PCMDrift(Drift):
    r"""Drift from t0 = 20 s on, :math:`g(t) = g\,((t + t_0)/t_0)^{-\nu}` with t the time since the write, and

    .. math:: \mu_\nu = -0.0155\ln x + 0.0244 \text{ in } [0.049, 0.1], \quad
              \delta_\nu = -0.0125\ln x - 0.0059 \text{ in } [0.008, 0.045]

    Golden values at x = 1 for the mean exponent: 0.9976, 0.7751, 0.6635, 0.5617, 0.4969 of g after a second, an hour,
    a day, 30 days and a year.

    Args:
        scale: Multiplies nu; 1 is as measured.
    """

    def __init__(self, scale: float = 1.0):
        super().__init__(t0=20.0)
        self.scale = number("scale", scale)

    def exponent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log = x.clamp(min=1e-7).log()
        mean, sd = (-0.0155 * log + 0.0244).clamp(0.049, 0.1), (-0.0125 * log - 0.0059).clamp(0.008, 0.045)
        return self.scale * mean, self.scale * sd


class PCMReadNoise(CellReadNoise):
    r"""1/f read noise, as published: fresh at each read, with the variance that has built up since the write.

    .. math:: \sigma = g\,Q\sqrt{\ln\frac{t + t_0 + t_{read}}{2\,t_{read}}}, \qquad Q = \min(0.0088\,x^{-0.65},\ 0.2)

    with t the time since the write, t0 = 20 s, t_read = 250 ns.  Golden values of sigma / g at x = 1: 3.69, 4.19, 4.48,
    4.76, 4.96 % after a second, an hour, a day, 30 days and a year.

    Two reads that follow one another differ by less than this says: most of the noise is slower than that.  For
    trajectories use ``CellNoise(Flicker(0.0088))``, which has the same spectrum S = Q^2 / f at x = 1.

    Args:
        scale: Multiplies sigma; 1 is as measured.
    """

    timed = True
    t0, t_read = 20.0, 250e-9

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = number("scale", scale)

    def q(self, x: Tensor) -> Tensor:
        """Q for targets x."""
        return (0.0088 / (x.clamp(min=0.0) ** 0.65).clamp(min=1e-3)).clamp(max=0.2)

    def deviation(self, g: Tensor, cells) -> Tensor:
        t = cells.age() + self.t0
        built_up = ((t + self.t_read) / (2 * self.t_read)).log().sqrt()
        return self.scale * g * self.q(cells.target / cells.chip.g_max) * built_up


class HermesProgramming(FittedProgramming):
    r"""Programming noise of the Hermes chip: a cubic in x, microsiemens, for unit cells of one or two devices.

    Two devices, g_max = 20.7: 0.16603 + 4.71806 x - 8.48101 x^2 + 4.68961 x^3.  One, g_max = 10.35: 0.15782 + 2.32444 x
    - 2.16311 x^2 + 0.68842 x^3.

    Args:
        devices: 1 or 2 per unit cell.
        scale: Multiplies sigma; 1 is as measured.
    """

    FITS = {
        1: ((0.15781817, 2.32443916, -2.16310839, 0.68841818), 10.35),
        2: ((0.16603222, 4.71806468, -8.48101252, 4.68961419), 20.7),
    }

    def __init__(self, devices: int = 2, scale: float = 1.0):
        self_devices = _devices(devices)
        super().__init__(*self.FITS[self_devices], scale=scale)
        self.devices = self_devices


class HermesDrift(Drift):
    r"""Drift of the Hermes chip's cells, from t0 = 300 s (two devices) or 200 s (one) on; as :class:`PCMDrift`, but

    .. math:: \mu_\nu = -0.0387\ln x - 0.0182 \text{ in } [0.072, 0.13] \text{ for } x < 0.0945, \quad
              -0.0436x^2 - 0.0126x + 0.0736 \text{ above}

    and a spread of the same kind, whose constants depend on the devices.

    Args:
        devices: 1 or 2 per unit cell.
        scale: Multiplies nu; 1 is as measured.
    """

    def __init__(self, devices: int = 2, scale: float = 1.0):
        super().__init__(t0={1: 200.0, 2: 300.0}[_devices(devices)])
        self.devices, self.scale = devices, number("scale", scale)

    def exponent(self, x: Tensor) -> tuple[Tensor, Tensor]:
        log = x.clamp(min=1e-7).log()
        low = (-0.0387 * log - 0.0182).clamp(0.0720, 0.13)
        mean = torch.where(x < 0.0945, low, -0.0436 * x**2 - 0.0126 * x + 0.0736)
        if self.devices == 1:
            low = (-0.0120 * log - 0.0023).clamp(0.0124, 0.04)
            sd = torch.where(x < 0.3039, low, -0.0165 * x**2 + 0.0116 * x + 0.0104)
        else:
            low = (-0.0117 * log - 0.0057).clamp(0.0091, 0.04)
            sd = torch.where(x < 0.3055, low, -0.0118 * x**2 + 0.0093 * x + 0.0073)
        return self.scale * mean, self.scale * sd


class HermesReadNoise(PCMReadNoise):
    r"""1/f read noise of the Hermes chip's cells, as :class:`PCMReadNoise` with t_read = 512 ns and, for two devices,

    .. math:: Q = -0.0117\ln x - 0.0069 \text{ in } [0.015, 0.04] \text{ for } x < 0.16, \quad
              0.0069x^3 - 0.0280x^2 + 0.0211x + 0.0123 \text{ above}

    Args:
        devices: 1 or 2 per unit cell.
        scale: Multiplies sigma; 1 is as measured.
    """

    t_read = 512e-9

    def __init__(self, devices: int = 2, scale: float = 1.0):
        super().__init__(scale)
        self.devices = _devices(devices)
        self.t0 = {1: 200.0, 2: 300.0}[self.devices]

    def q(self, x: Tensor) -> Tensor:
        log = x.clamp(min=1e-7).log()
        if self.devices == 1:
            low = (-0.0078 * log + 0.0038).clamp(0.0179, 0.04)
            return torch.where(x < 0.1591, low, 0.0664 * x**3 - 0.1352 * x**2 + 0.0768 * x + 0.0088)
        low = (-0.0117 * log - 0.0069).clamp(0.015, 0.04)
        return torch.where(x < 0.16, low, 0.0069 * x**3 - 0.0280 * x**2 + 0.0211 * x + 0.0123)


def _devices(devices: int) -> int:
    if devices not in (1, 2) or isinstance(devices, bool):
        raise ValueError(f"devices must be 1 or 2 per unit cell, got {devices!r}")
    return devices
