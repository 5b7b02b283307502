"""Noise: what its numbers are (:mod:`~zolib.noise.stream`), how it meets a low-precision weight
(:mod:`~zolib.noise.rounding`), and where it enters an evaluation (:mod:`~zolib.noise.point_of_use`)."""

from zolib.noise import stream
from zolib.noise.seeds import manual_seed

__all__ = ["manual_seed", "stream"]
