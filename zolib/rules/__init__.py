"""Learning rules that live in time: a local factor, times a global one, with a memory between them."""

from zolib.rules.alignment import DirectFeedbackAlignment, FeedbackAlignment
from zolib.rules.nrl import NRL
from zolib.rules.oua import OUA, wander
from zolib.rules.release import Release
from zolib.rules.rows import InTime
from zolib.rules.three_factor import Cubed, Fluctuation, ThreeFactor

__all__ = [
    "NRL",
    "OUA",
    "Cubed",
    "DirectFeedbackAlignment",
    "FeedbackAlignment",
    "Fluctuation",
    "InTime",
    "Release",
    "ThreeFactor",
    "wander",
]
