"""A chip one can train: simulated analog hardware whose weights are ordinary parameters.

Effects are stages, sorted by when their error is drawn (:class:`Stage`); a :class:`Chip` is a list of
them; :func:`deploy` puts a model on it.  Every optimizer and every rule of the library then trains it as any other.
"""

from zolib.hardware.across import Across, across
from zolib.hardware.cells import Cells
from zolib.hardware.chip import Chip, Counters
from zolib.hardware.converters import ADC, DAC, IRDrop
from zolib.hardware.deploy import Deployed, deploy
from zolib.hardware.energy import DIGITAL_45NM, PCM_14NM, PCM_14NM_PRECISE, Energy, Price, energy
from zolib.hardware.fast import OutputNoise, ReadNoise, Shot, Thermal
from zolib.hardware.frozen import Mismatch, ReadoutMismatch, StuckAt
from zolib.hardware.intrinsic import Intrinsic
from zolib.hardware.layers import Conv2d, Linear
from zolib.hardware.mapping import Pair, Reference
from zolib.hardware.pcm import HermesDrift, HermesProgramming, HermesReadNoise, PCMDrift, PCMProgramming, PCMReadNoise
from zolib.hardware.physics import pulse_energy, shot_noise, thermal_noise
from zolib.hardware.presets import cross_point, ecram, hermes, pcm, reram, reram_cmo, reram_pulsed, smtj
from zolib.hardware.processes import Flicker, OrnsteinUhlenbeck, Telegraph
from zolib.hardware.pulses import ConstantStep, ExponentialStep, LinearStep, SoftBounds
from zolib.hardware.reram import CMOProgramming, CMOReadNoise, CMORelaxation, WanRelaxation
from zolib.hardware.slow import CellNoise, Drift, NodeNoise
from zolib.hardware.stage import Stage, When
from zolib.hardware.write import FittedProgramming, Programming

__all__ = [
    "ADC",
    "Across",
    "CMOProgramming",
    "CMOReadNoise",
    "CMORelaxation",
    "CellNoise",
    "Cells",
    "Chip",
    "ConstantStep",
    "Conv2d",
    "Counters",
    "DAC",
    "DIGITAL_45NM",
    "Deployed",
    "Drift",
    "Energy",
    "ExponentialStep",
    "FittedProgramming",
    "Flicker",
    "HermesDrift",
    "HermesProgramming",
    "HermesReadNoise",
    "IRDrop",
    "Intrinsic",
    "Linear",
    "LinearStep",
    "Mismatch",
    "NodeNoise",
    "OrnsteinUhlenbeck",
    "OutputNoise",
    "PCM_14NM",
    "PCM_14NM_PRECISE",
    "PCMDrift",
    "PCMProgramming",
    "PCMReadNoise",
    "Pair",
    "Price",
    "Programming",
    "ReadNoise",
    "ReadoutMismatch",
    "Reference",
    "Shot",
    "SoftBounds",
    "Stage",
    "StuckAt",
    "Telegraph",
    "Thermal",
    "WanRelaxation",
    "When",
    "across",
    "cross_point",
    "deploy",
    "ecram",
    "energy",
    "hermes",
    "pcm",
    "pulse_energy",
    "reram",
    "reram_cmo",
    "reram_pulsed",
    "shot_noise",
    "smtj",
    "thermal_noise",
]
