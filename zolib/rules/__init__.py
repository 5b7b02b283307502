"""Learning rules that live in time: a local factor, times a global one, with a memory between them."""

from zolib.rules.oua import OUA

__all__ = ["OUA"]
