"""Minimizing a plain function from its values: the methods behind :func:`zolib.minimize`, one concept to a file.

The methods share :class:`~zolib.minimizers.searcher.Searcher`; :class:`~zolib.minimizers.space.Space` puts bounds and
units around them, :class:`~zolib.minimizers.minimizer.Minimizer` remembers the best and restarts.
"""

from zolib.minimizers.minimizer import SEARCHERS, Minimizer

__all__ = ["SEARCHERS", "Minimizer"]
