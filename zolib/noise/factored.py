"""A weight that every member of a population has its own of, away from a common one by a matrix of low rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Unable(Exception):
    """An operation that cannot do with factors: it is given the weights written out."""


class Factors(NamedTuple):
    """What a :class:`Weight` is made of.

    a: (draws, rows, r), b: (draws, columns, r), of this view.  place: of the parameter among the targets.  view: what
    makes the view of the parameter.  owner: of the evaluation that it belongs to.
    """

    a: Tensor
    b: Tensor
    place: int
    view: Callable[[Tensor], Tensor]
    owner: object


class Weight(Tensor):
    """A matrix of which every member has its own, or a view of one: the common W, with the factors beside it."""

    low_rank: Factors
    __torch_function__ = torch._C._disabled_torch_function_impl


def weight(w: Tensor, low_rank: Factors) -> Weight:
    made = w.detach().as_subclass(Weight)
    made.low_rank = low_rank
    return made


def _seen(w: Weight, view: Callable[[Tensor], Tensor], a: Tensor, b: Tensor) -> Weight:
    """A view of a weight, with the factors that the view has."""
    before = w.low_rank.view
    return weight(view(w), w.low_rank._replace(a=a, b=b, view=lambda full: view(before(full))))


def turned(w: Tensor) -> Weight:
    if not isinstance(w, Weight) or w.ndim != 2:
        raise Unable
    return _seen(w, lambda x: x.mT, w.low_rank.b, w.low_rank.a)


def transposed(w: Tensor, *dims: int) -> Weight:
    if sorted(d % 2 for d in dims) != [0, 1]:
        raise Unable
    return turned(w)


def cut(w: Weight, pieces: Callable[[Tensor], Sequence[Tensor]]) -> tuple[Weight, ...]:
    """Pieces along the rows, as chunk and split make them."""
    factors = [a.movedim(1, 0) for a in pieces(w.low_rank.a.movedim(1, 0))]
    return tuple(_seen(w, lambda x, i=i: pieces(x)[i], a, w.low_rank.b) for i, a in enumerate(factors))
