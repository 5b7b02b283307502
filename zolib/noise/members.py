"""Many members in one evaluation: each operation is given the weights of all of them, and writes out as few as it can.

The evaluation runs under :func:`torch.func.vmap`, which gives every activation a hidden axis for the members.  Member k
has its own weights, and a matrix of low rank away from the common one is W_k = W + s_k a_k b_k^T.  An operation that is
linear in W need not form it:

    x W_k^T = x W^T + s_k (x b_k) a_k^T

is one product with the W that all members share, and a thin one beside it.  So it goes for linear maps, matrix
products, embeddings, convolutions, and for the attention and recurrent modules that are made of them.  Any other
operation is given the weights of all members, written out for this one operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._C import _functorch
from torch.nn import functional as F

from zolib.errors import ParameterError
from zolib.noise.factored import Factors, Unable, Weight, cut, transposed, turned, weight
from zolib.noise.opened import OPENED
from zolib.noise.point_of_use import PointOfUse

_CONVOLUTION = "input weight bias stride padding dilation groups".split()
_TRANSPOSED = "input weight bias stride padding output_padding groups dilation".split()
_WIDE = (torch.float32, torch.float64)  # where products can be rounded before they are summed
_ATTENTION = "query key value attn_mask dropout_p is_causal".split()


def level_of(x: Tensor) -> int:
    """The level of the vmap that hides an axis of x."""
    return _functorch.maybe_get_level(x)


class Members(PointOfUse):
    """One evaluation of several members, inside vmap.

    targets, others, names, keep: as for :class:`~zolib.noise.point_of_use.PointOfUse`.  written: ``written(j)`` is
    target j of every member, (members, *shape).  factors: ``factors(j)`` is a (draws, rows, r) and b (draws, columns,
    r) of a matrix, or None for what has none.  scales: what a member multiplies its draw with; as many members as
    there are scales share a draw, and are neighbours.  count: members.  level: that of their vmap.
    """

    def __init__(
        self,
        targets: Sequence[Tensor],
        others: Iterable[Tensor],
        names: Sequence[str],
        written: Callable[[int], Tensor],
        keep: set[int] | None,
        *,
        factors: Callable[[int], tuple[Tensor, Tensor] | None],
        scales: Sequence[float],
        count: int,
        level: int,
    ):
        owner = object()

        def value(j: int) -> Tensor:  # no method: the mode would keep itself alive, and its factors
            pair = factors(j)
            return written(j) if pair is None else weight(targets[j], Factors(*pair, j, lambda full: full, owner))

        super().__init__(targets, others, names, value, keep)
        self._every, self._count, self._level, self._mine, self._met = written, count, level, owner, False
        self._scales = scales
        self._scaled: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    # --- What an operation is given ----------------------------------------------------------------------------------

    def _perturbed(self, j: int) -> Tensor:
        value = super()._perturbed(j)
        if not isinstance(value, Weight):
            return self._batched(value)
        self._met = True
        return value

    def _refuse_stale(self, x: Tensor) -> None:
        if isinstance(x, Weight) and x.low_rank.owner is self._mine:
            self._met = True  # a view made in this evaluation
        else:
            super()._refuse_stale(x)

    def _refuse_write(self, x: Any, name: str) -> None:
        super()._refuse_write(self._targets[x.low_rank.place] if isinstance(x, Weight) else x, name)

    def _run(self, func: Callable[..., Any], name: str, args: tuple, kwargs: dict) -> Any:
        met, self._met = self._met, False
        name = func.__self__.__name__ if name == "__get__" else name  # a property, such as T
        try:
            if name in OPENED:
                with self:  # its parts come back here
                    return OPENED[name][0](lambda output, batch_dim: output, *args, **kwargs)
            if name == "scaled_dot_product_attention" and _functorch.maybe_current_level() == self._level:
                return self._attention(func, _bound(_ATTENTION, args, kwargs))
            if met and name in _RULES and _functorch.maybe_current_level() == self._level:
                return _RULES[name](self, func, args, kwargs)
        except (Unable, ParameterError):
            pass
        if name == "data":  # which vmap refuses
            func, args = Tensor.detach, args[:1]
        return func(*self._full(args), **self._full(kwargs)) if met else func(*args, **kwargs)

    def _full(self, x: Any) -> Any:
        """The same nest with every Weight written out."""
        if isinstance(x, Weight):
            with torch._C._DisableFuncTorch():  # the closure may have transforms of its own
                every = self._every(x.low_rank.place)
            return x.low_rank.view(self._batched(every))
        if isinstance(x, (list, tuple)):
            items = [self._full(item) for item in x]
            return type(x)(*items) if hasattr(x, "_fields") else type(x)(items)
        return {key: self._full(item) for key, item in x.items()} if type(x) is dict else x

    # --- The axis that vmap hides ------------------------------------------------------------------------------------

    def _batched(self, x: Tensor) -> Tensor:
        """(members, ...) as vmap shows it."""
        return _functorch._add_batch_dim(x, 0, self._level)

    def _bare(self, x: Tensor) -> tuple[Tensor, bool]:
        """With the axis of the members in front, if it has one, and whether it has."""
        if not _functorch.is_functorch_wrapped_tensor(x):
            return x, False
        inner = _functorch.get_unwrapped(x)
        if _functorch.maybe_get_level(x) != self._level or _functorch.is_functorch_wrapped_tensor(inner):
            raise Unable  # the closure has a vmap of its own
        axis = _functorch.maybe_get_bdim(x)
        return inner.movedim(axis, 0) if axis else inner, True

    def _each(self, w: Weight) -> tuple[Tensor, Tensor]:
        """The factors of each member, as vmap shows them: s a (rows, r) and b (columns, r)."""
        a = (w.low_rank.a.unsqueeze(1) * self._scale(w)).flatten(0, 1).to(w.dtype)
        return self._batched(a), self._batched(w.low_rank.b.repeat_interleave(len(self._scales), dim=0))

    def _scale(self, like: Tensor) -> Tensor:
        """(signs, 1, 1), in float32 at least: half precision would round the size of all perturbations."""
        key = torch.promote_types(like.dtype, torch.float32), like.device
        if key not in self._scaled:
            self._scaled[key] = torch.tensor(self._scales, dtype=key[0], device=key[1]).view(-1, 1, 1)
        return self._scaled[key]

    # --- Operations on a common weight with factors ------------------------------------------------------------------

    def _linear(self, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not isinstance(weight, Weight) or weight.ndim != 2:
            raise Unable
        x, each = self._bare(self._full(input))
        bias, own = (bias, False) if bias is None else self._bare(bias)
        if bias is not None and bias.shape[own:] != weight.shape[:1]:
            raise Unable
        with torch._C._DisableFuncTorch():  # past vmap, which has nothing to do with bare tensors, and takes its time
            return self._batched(self._product_beside(x, each, weight, bias, own))

    def _product_beside(self, x: Tensor, each: bool, weight: Weight, bias: Tensor | None, own: bool) -> Tensor:
        """x W_k^T + bias_k: the thin product and the bias first, and the one with W added to them in place."""
        (out, columns), (a, b) = weight.shape, weight.low_rank[:2]
        common: Tensor = weight
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, common, a, b, bias = (t if t is None else t.to(dtype) for t in (x, common, a, b, bias))
        lead, (draws, _, rank) = x.shape[each:-1], b.shape
        rows, share = prod(lead), self._count // draws  # neighbours have the same b, and are one matrix to it
        x = x.reshape(rows * self._count if each else rows, columns)
        grouped = x.view(draws, share * rows, columns) if each else x
        thin = torch.linalg.vecdot(grouped, b.mT)[..., None] if rank == 1 and x.dtype in _WIDE else grouped @ b
        u = thin.reshape(draws, share if each else 1, rows, rank)
        u, v = (u * self._scale(x)).to(x.dtype), a.mT.unsqueeze(1)  # (draws, share, rows, r), (draws, 1, r, out)
        bias = bias.view(draws, share, 1, out) if own else bias
        if rank == 1:  # in one pass over the result
            y = u * v if bias is None else torch.addcmul(bias, u, v)
        else:
            y = u @ v if bias is None else (u @ v).add_(bias)
        if each:
            y.view(x.shape[0], out).addmm_(x, common.mT)
        else:
            y += F.linear(x, common)
        return y.view(self._count, *lead, out)

    def _product(self, x: Tensor, y: Tensor) -> Tensor:
        if isinstance(y, Weight):
            return self._linear(x, turned(y))
        return self._linear(y, x) if y.ndim == 1 else self._linear(y.mT, x).mT

    def _embedding(self, x: Tensor, w: Weight) -> Tensor:
        if not isinstance(w, Weight):
            raise Unable
        a, b = self._each(w)
        return F.embedding(x, w) + F.embedding(x, a) @ b.mT

    def _convolution(self, func: Callable[..., Tensor], given: dict[str, Any], transposed: bool) -> Tensor:
        """One convolution with the common filters, and one with r filters that a mixes: after it, or before it."""
        x, w, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        if not isinstance(w, Weight) or isinstance(x, Weight):
            raise Unable
        a, b = self._each(w)
        rank, space, groups = a.shape[1], w.ndim - 2, given.get("groups", 1)
        a = a.view(groups, -1, rank)
        filters = b.mT.reshape(rank, *w.shape[1:]).repeat(groups, *[1] * (space + 1))

        def mixed(by: Tensor, x: Tensor) -> Tensor:  # (groups, p, q) by (..., groups q, *space)
            flat = x.unflatten(-space - 1, (groups, -1)).flatten(-space)
            return (by @ flat).unflatten(-1, x.shape[-space:]).flatten(-space - 2, -space - 1)

        beside = func(mixed(a.mT, x), filters, **given) if transposed else mixed(a, func(x, filters, **given))
        return func(x, w, bias, **given) + beside

    def _attention(self, func: Callable[..., Tensor], given: dict[str, Any]) -> Tensor:
        """vmap has no rule for the fused kernels on the CPU; members are examples like others to them."""
        qkv = [given.pop(name) for name in _ATTENTION[:3]]
        mask = given.pop("attn_mask", None)
        bare = [self._bare(x) for x in qkv]
        if (
            given.get("dropout_p")
            or not any(each for _, each in bare)
            or any(x.ndim != 4 or len(x) != len(qkv[0]) for x in qkv)
        ):
            raise Unable

        def folded(x: Tensor, each: bool) -> Tensor:
            return (x if each else x.expand(self._count, *x.shape)).flatten(0, 1)

        if mask is not None:
            mask, each = self._bare(mask)
            if each:  # (members, examples, heads, queries, keys), as far as it goes
                mask = mask.reshape(self._count, *[1] * (5 - mask.ndim), *mask.shape[1:])
                mask = mask.expand(-1, len(qkv[0]), -1, -1, -1)
            mask = folded(mask, each) if each or (mask.ndim == 4 and len(mask) > 1) else mask
        y = func(*(folded(*x) for x in bare), attn_mask=mask, **given)
        return self._batched(y.unflatten(0, (self._count, -1)))


def _bound(names: Sequence[str], args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    return dict(zip(names, args, strict=False)) | kwargs


def _only(count: int, args: tuple, kwargs: dict[str, Any]) -> tuple:
    """The arguments, if they are the first ones alone."""
    if len(args) != count or kwargs:
        raise Unable
    return args


def _looked_up(members: Members, func: Any, args: tuple, kwargs: dict[str, Any]) -> Tensor:
    given = _bound(("input", "weight", "padding_idx", "max_norm"), args, kwargs)
    if func is not F.embedding or given.get("max_norm") is not None:  # torch.embedding has another order
        raise Unable
    return members._embedding(given["input"], given["weight"])


def _rows(how: str) -> Callable[..., tuple[Weight, ...]]:
    def rule(members: Members, func: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[Weight, ...]:
        w, size, dim = (*args, 0)[:3] if len(args) > 1 else _only(3, args, kwargs)
        if kwargs or dim != 0:
            raise Unable
        return cut(w, lambda rows: getattr(rows, how)(size))

    return rule


def _map(names: Sequence[str], transposed: bool) -> Callable[..., Tensor]:
    return lambda members, func, args, kwargs: members._convolution(func, _bound(names, args, kwargs), transposed)


#: Name of an operation, or of a property that gives a view: rule(members, func, args, kwargs).
_RULES: dict[str, Callable[[Members, Any, tuple, dict[str, Any]], Any]] = {
    "linear": lambda m, _, args, kwargs: m._linear(*args, **kwargs),
    "addmm": lambda m, _, args, kwargs: m._linear(_only(3, args, kwargs)[1], turned(args[2]), args[0]),
    "__rmatmul__": lambda m, _, args, kwargs: m._product(*reversed(_only(2, args, kwargs))),
    **dict.fromkeys(
        ("matmul", "mm", "mv", "__matmul__"), lambda m, _, args, kwargs: m._product(*_only(2, args, kwargs))
    ),
    "embedding": _looked_up,
    **{f"conv{d}d": _map(_CONVOLUTION, False) for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": _map(_TRANSPOSED, True) for d in (1, 2, 3)},
    **dict.fromkeys(("detach", "data"), lambda m, _, args, kwargs: _only(1, args[:1], kwargs)[0]),
    **dict.fromkeys(("T", "mT", "t"), lambda m, _, args, kwargs: turned(*_only(1, args[:1], kwargs))),
    "transpose": lambda m, _, args, kwargs: transposed(*_only(3, args, kwargs)),
    "chunk": _rows("chunk"),
    "split": _rows("split"),
}
