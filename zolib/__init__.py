"""zolib: learning from function values alone.  Probe, evaluate, reinforce.

Gradients of any function or module from its values (:func:`grad`, :func:`backward`), a check before training
(:func:`check`), and noise that is a function of its seed (:mod:`zolib.noise.stream`).
"""

from zolib import hardware, noise, rules
from zolib.accounting import Oracle
from zolib.backpropagation import Backpropagation
from zolib.check import Report, check
from zolib.decorrelation import Decorrelation
from zolib.errors import JournalError, LossError, ParameterError
from zolib.estimates import Estimate, Replay
from zolib.feedback import Feedback, Fitness, OneSided, Ranks, RewardPredictionError, TwoPoint, Utilities, ZScores
from zolib.gradient import backward, estimate, grad
from zolib.hardware import Intrinsic
from zolib.journal import Journal
from zolib.methods import catalogue
from zolib.mezo import MeZO
from zolib.minimize import minimize
from zolib.minimizers import Minimizer
from zolib.nodes import Activities, Nodes
from zolib.noise import manual_seed
from zolib.population import Population
from zolib.probes import Coordinate, Gaussian, LowRank, Orthogonal, Probe, Rademacher, Sphere
from zolib.tangent import Exact
from zolib.updates import SignSGD

__all__ = [
    "Activities",
    "Backpropagation",
    "Coordinate",
    "Decorrelation",
    "Estimate",
    "Exact",
    "Feedback",
    "Fitness",
    "Gaussian",
    "Intrinsic",
    "Journal",
    "JournalError",
    "LossError",
    "LowRank",
    "MeZO",
    "Minimizer",
    "Nodes",
    "OneSided",
    "Oracle",
    "Orthogonal",
    "ParameterError",
    "Population",
    "Probe",
    "Rademacher",
    "Ranks",
    "Replay",
    "Report",
    "RewardPredictionError",
    "SignSGD",
    "Sphere",
    "TwoPoint",
    "Utilities",
    "ZScores",
    "backward",
    "catalogue",
    "check",
    "estimate",
    "grad",
    "hardware",
    "manual_seed",
    "minimize",
    "noise",
    "rules",
]
