"""Chips named after what they model.  Each returns a :class:`Chip`; keywords of :class:`Chip` pass through."""

from __future__ import annotations

from typing import Any

from zolib.hardware.chip import Chip
from zolib.hardware.converters import ADC, DAC
from zolib.hardware.fast import OutputNoise, ReadNoise
from zolib.hardware.pcm import (
    HermesDrift,
    HermesProgramming,
    HermesReadNoise,
    PCMDrift,
    PCMProgramming,
    PCMReadNoise,
)
from zolib.hardware.processes import Telegraph
from zolib.hardware.pulses import ConstantStep, ExponentialStep, LinearStep
from zolib.hardware.reram import CMOProgramming, CMOReadNoise, CMORelaxation, WanRelaxation
from zolib.hardware.slow import NodeNoise


def pcm(n_chips: int | None = None, seed: int | None = 0, **settings: Any) -> Chip:
    """Phase-change memory, 25 microsiemens: programming, drift, read noise; output noise 0.04, 8-bit converters.

    Sources: cells, Nandakumar et al. (ICECS 2019) and Joshi et al. (Nat. Commun. 11:2473, 2020); periphery, the
    standard settings of Rasch et al. (Nat. Commun. 14:5282, 2023).
    """
    stages = [DAC(8), PCMProgramming(), PCMDrift(), PCMReadNoise(), OutputNoise(0.04), ADC(8, bound=10.0)]
    return Chip(stages, n_chips, seed, **{"g_max": 25.0, **settings})


def hermes(n_chips: int | None = None, seed: int | None = 0, devices: int = 2, **settings: Any) -> Chip:
    """The cells of the 14 nm Hermes chip, unit cells of one or two PCM devices (20.7 or 10.35 microsiemens).

    Source: Le Gallo et al. (Nat. Electron. 6:680, 2023).  8-bit converters; its output noise is not published as a
    number of its own, so there is none here.
    """
    stages = [DAC(8), HermesProgramming(devices), HermesDrift(devices), HermesReadNoise(devices), ADC(8)]
    return Chip(stages, n_chips, seed, **{"g_max": {1: 10.35, 2: 20.7}[devices], **settings})


def reram(n_chips: int | None = None, seed: int | None = 0, **settings: Any) -> Chip:
    """ReRAM as on the NeuRRAM chip, 40 microsiemens: relaxation of write-verified cells, 1 % read noise.

    Source: Wan et al. (Nature 608:504, 2022), see :class:`WanRelaxation`.
    """
    return Chip([WanRelaxation(), ReadNoise(0.01, "independent")], n_chips, seed, **{"g_max": 40.0, **settings})


def reram_cmo(n_chips: int | None = None, seed: int | None = 0, acceptance: float = 2.0, **settings: Any) -> Chip:
    """CMO/HfOx ReRAM, 9 to 88.2 microsiemens: write-verify error, relaxation, 1/f read noise.

    Source: see :class:`CMOProgramming`.
    """
    stages = [CMOProgramming(acceptance), CMORelaxation(), CMOReadNoise()]
    return Chip(stages, n_chips, seed, **{"g_max": 88.2, "g_min": 9.0, **settings})


def cross_point(n_chips: int | None = None, seed: int | None = 0, **settings: Any) -> Chip:
    """The resistive cross-point specification for training by pulses: 1,200 constant steps, 30 % spreads.

    Source: Gokmen and Vlasov (Front. Neurosci. 10:333, 2016); their read noise is OutputNoise(0.06).
    """
    return Chip([ConstantStep(), OutputNoise(0.06)], n_chips, seed, **settings)


def ecram(n_chips: int | None = None, seed: int | None = 0, **settings: Any) -> Chip:
    """Lithium ECRAM trained by pulses: nearly linear steps of 0.002, range -0.8276 to 1.1724 about the symmetry point.

    Source: Tang et al. (IEDM 2018), as fitted in the IBM analog hardware kit.
    """
    law = LinearStep(
        gamma_up=0.1153,
        gamma_down=0.5085,
        gamma_d2d=0.05,
        step=0.002,
        d2d=0.1,
        c2c=0.3,
        up_down_d2d=0.01,
        low=-0.8276,
        high=1.1724,
        bound_d2d=0.05,
    )
    return Chip([law], n_chips, seed, **settings)


def reram_pulsed(n_chips: int | None = None, seed: int | None = 0, **settings: Any) -> Chip:
    """Filamentary ReRAM trained by pulses: exponential steps, strongly asymmetric, noise of 5 steps at each pulse.

    Source: Gong et al. (Nat. Commun. 9:2102, 2018), as fitted in the IBM analog hardware kit (without its write noise).
    """
    law = ExponentialStep(step=0.00135, up_down=0.259359, up_down_d2d=0.05, d2d=0.2, c2c=5.0, bound_d2d=0.3)
    return Chip([law], n_chips, seed, **settings)


def smtj(
    n_chips: int | None = None, seed: int | None = 0, scale: float = 0.05, read_time: float = 1e-6, **settings: Any
) -> Chip:
    """Ideal weights, and a superparamagnetic tunnel junction at each output: telegraph noise with a little white noise.

    In volts the junction is +-5.9316 mV, flipping with probability 0.0809 from one read to the next, and 0.9084 mV of
    white noise: a standard deviation of 6.001 mV, here ``scale`` in units of one cell's full current.  (Its mean of
    42.1 mV, which a two-read difference cannot see, is left out.)

    Source: the simulated junction of Koenders et al. (Phys. Rev. Applied 23:054035, 2025).
    """
    telegraph, white = 0.0059316154, 0.00090841466
    unit = scale / (telegraph**2 + white**2) ** 0.5
    noise = NodeNoise(Telegraph.sampled(telegraph * unit, flip=0.0809, seconds=read_time))
    return Chip([noise, OutputNoise(white * unit)], n_chips, seed, read_time=read_time, **settings)
