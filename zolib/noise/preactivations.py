"""Where node noise enters: the pre-activations, outputs of the linear maps that consume trainable parameters.

A function mode sees every operation, whatever module or plain function asked for it.  (Forward hooks would see modules
only: not functional code, not what happens inside a module, and a module twice whose output is its child's.)

Parameters are replaced by leaves of their own, and what is computed from parameters alone (a transpose, a masked or a
normalised weight) keeps its graph back to them.  Where it meets an activation in a linear map, that is a *site*: the
output is cut from the graph and gets noise.  The piece of graph from the leaves to the site, which holds the input of
that one operation and nothing else, is all that is ever differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

from zolib.errors import ParameterError
from zolib.noise.opened import OPENED
from zolib.noise.point_of_use import _AUGMENTED, PointOfUse

# Maps that name their weights: positions of weight and bias.  Everything else they get is input.
_NAMED_WEIGHTS = {"linear": (1, 2), "bilinear": (2, 3)}
_NAMED_WEIGHTS |= {
    name: (1, 2) for d in (1, 2, 3) for name in (f"conv{d}d", f"conv_transpose{d}d", "convolution", "_convolution")
}
# Products that take weight and input in either order.
_PRODUCTS = frozenset(
    "matmul mm bmm mv dot inner outer addmm addmv addbmm baddbmm einsum tensordot __matmul__ __rmatmul__".split()
)
# A parameter added on its own: a bias after a product.
_SUMS = frozenset("add sub __add__ __radd__ __sub__ __rsub__ subtract".split())
_SUMS_IN_PLACE = {"add_": torch.add, "__iadd__": torch.add, "sub_": torch.sub, "__isub__": torch.sub}
# These scale, look up or normalise with their parameters: no linear map whose output could carry the noise.
_NO_MAP = frozenset(
    """layer_norm group_norm instance_norm batch_norm rms_norm native_layer_norm native_batch_norm native_group_norm
    embedding embedding_bag prelu _prelu_kernel""".split()
)
_BATCH_NORM = frozenset({"batch_norm", "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"})
# One opaque call with several layers inside, and not in the table of zolib.noise.opened.
_CLOSED = frozenset({"_native_multi_head_attention", "_transformer_encoder_layer_fwd", "flex_attention"})

#: Called for each site with the output (still on the graph), its batch axis if the operation fixes one, and the
#: positions of the targets behind it.  Returns the output cut from the graph, with noise.
Node = Callable[[Tensor, int | None, frozenset[int]], Tensor]


class _Kind(NamedTuple):
    """What is known of a tensor that depends on parameters."""

    behind: frozenset[int]  # positions of the targets it depends on
    pure: bool  # computed from parameters alone


_PLAIN = _Kind(frozenset(), False)


class PreActivations(PointOfUse):
    """One evaluation in which sites get noise.

    targets, others, names: as for :class:`~zolib.noise.point_of_use.PointOfUse`.  leaves: what stands in for the
    targets, leaves that require grad.  constants: buffers of the model.  node: what happens at a site.  skip: leave
    out parameters that noise cannot reach, instead of raising.

    ``reached`` holds the positions of targets with a site, ``unreached`` those with a way to the loss that passes
    none, ``couples`` the name of an operation in which examples see each other, if there was one.
    """

    def __init__(
        self,
        targets: Sequence[Tensor],
        others: Iterable[Tensor],
        names: Sequence[str],
        leaves: Sequence[Tensor],
        constants: Iterable[Tensor],
        node: Node,
        skip: bool,
    ):
        others = list(others)
        super().__init__(targets, others, names, lambda j: leaves[j])
        self._node, self._skip = node, skip
        constants = list(constants)
        self._constant = {id(t) for t in [*others, *constants]}
        self._buffers = {t.untyped_storage().data_ptr() for t in constants if t.layout == torch.strided and t.numel()}
        self._kinds = WeakTensorKeyDictionary()
        self._leaf = {id(leaf): j for j, leaf in enumerate(leaves)}
        for j, leaf in enumerate(leaves):
            self._kinds[leaf] = _Kind(frozenset({j}), True)
        self.reached: frozenset[int] = frozenset()
        self.unreached: frozenset[int] = frozenset()
        self.couples = ""

    def finish(self, loss: Any) -> Any:
        """The loss, cut from the graph, once it is certain that every way to it leads through a site."""
        return self._cut(loss, "the loss itself")

    def _run(self, func: Any, name: str, args: tuple, kwargs: dict) -> Any:
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        kinds = [self._kind(t) for t in tensors]
        if name in _BATCH_NORM and _training(name, args, kwargs):
            self.couples = name
        if not any(kind.behind for kind in kinds):
            return func(*args, **kwargs)
        if name in _CLOSED:
            raise ParameterError(
                f"Nodes cannot open {name}, which holds parameter {self._list(kinds)}: its pre-activations stay "
                "inside one fused call. Freeze that module, or write it with Linear layers"
            )
        if kwargs.get("out") is not None:
            raise ParameterError(
                f"{name} writes the pre-activations of parameter {self._list(kinds)} into out=, a tensor that other "
                "operations share; node noise needs an output of its own. Leave out= away"
            )
        if name in ("numpy", "__array__"):
            raise ParameterError(
                f"parameter {self._list(kinds)} leaves torch ({name}); node noise must follow it to a linear map"
            )
        if name == "detach" or (name == "__get__" and getattr(func.__self__, "__name__", "") == "data"):
            func, args, kwargs = torch.Tensor.view_as, (args[0], args[0]), {}  # a value like any other
        if self._buffers and not (
            name in _AUGMENTED or name in ("__setitem__", "__set__") or name.strip("_") + "_" == name
        ):
            # buffers are set back between evaluations; autograd would find what it saved written to
            args, kwargs = pytree.tree_map(self._kept, (args, kwargs))
        if name in OPENED:
            opened, count, _ = OPENED[name]
            args = (*self._cut(args[:count], name), *args[count:])
            with torch.enable_grad():
                return opened(self._site, *args, **kwargs)
        if name in _NO_MAP:
            return func(*self._cut(args, name), **self._cut(kwargs, name))
        if name in _NAMED_WEIGHTS:
            weights = _NAMED_WEIGHTS[name]
            inputs = [a for i, a in enumerate(args) if i not in weights]
            inputs += [v for key, v in kwargs.items() if key not in ("weight", "bias")]
            if all(self._kind(t).pure for t in pytree.tree_leaves(inputs) if isinstance(t, Tensor)):
                return self._followed(func, args, kwargs)  # a weight made of weights
            args = tuple(a if i in weights else self._cut(a, name) for i, a in enumerate(args))
            kwargs = {key: v if key in ("weight", "bias") else self._cut(v, name) for key, v in kwargs.items()}
            return self._at_site(func, args, kwargs)
        if name in _PRODUCTS:
            pure = [kind.pure for kind in kinds]
            if all(pure):
                return self._followed(func, args, kwargs)
            if any(pure):  # the others are input
                keep = lambda x: x if not isinstance(x, Tensor) or self._kind(x).pure else self._cut(x, name)  # noqa: E731
                args, kwargs = pytree.tree_map(keep, (args, kwargs))
            return self._at_site(func, args, kwargs)
        if name in _SUMS or name in _SUMS_IN_PLACE:
            derived = [kind.pure for kind in kinds if kind.behind]
            data = [t for t, kind in zip(tensors, kinds, strict=True) if not kind.behind]
            # a penalty on the weights, a number, is no bias: noise on the loss itself would drown everything
            bias = all(t.ndim for t, kind in zip(tensors, kinds, strict=True) if kind.behind)
            if bias and all(derived) and any(id(t) not in self._constant for t in data):
                if name in _SUMS:
                    return self._at_site(func, args, kwargs)
                return args[0].copy_(self._at_site(_SUMS_IN_PLACE[name], args, kwargs))
        return self._followed(func, args, kwargs)

    def stands_for(self, result: Tensor, source: Tensor) -> None:
        """A result that was made out of sight of this mode depends on parameters as ``source`` does."""
        self._kinds[result] = self._kind(source)

    def _followed(self, func: Any, args: tuple, kwargs: dict) -> Any:
        """Run an operation that is no site, and remember what its result depends on."""
        with torch.enable_grad():
            result = func(*args, **kwargs)
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        behind = frozenset().union(*(self._kind(t).behind for t in tensors))
        pure = all(self._kind(t).pure or id(t) in self._constant for t in tensors)
        for t in pytree.tree_leaves(result):
            if isinstance(t, Tensor) and t.requires_grad:
                self._kinds[t] = _Kind(behind, pure)
        return result

    def _at_site(self, func: Any, args: tuple, kwargs: dict) -> Tensor:
        with torch.enable_grad():
            return self._site(func(*args, **kwargs))

    def _kept(self, x: Any) -> Any:
        if isinstance(x, Tensor) and not x.requires_grad and x.layout == torch.strided:
            return x.clone() if x.numel() and _storage(x) in self._buffers else x
        return x

    def _site(self, output: Tensor, batch_dim: int | None = None) -> Tensor:
        behind = self._walked(output)
        if torch._C._functorch.is_functorch_wrapped_tensor(output):
            raise ParameterError(
                "a linear map with trainable weights runs inside a transform of torch.func (vmap, grad), where node "
                "noise would be the same for every row. Call the layer on the whole batch"
            )
        if not behind:  # every weight of an opened module that matters here is frozen
            return output.detach()
        self.reached |= behind
        return self._node(output, batch_dim, behind)

    def _cut(self, x: Any, name: str) -> Any:
        """The same nest without what it owes to parameters, if that may be left out."""
        if not isinstance(x, Tensor):
            return pytree.tree_map_only(Tensor, lambda t: self._cut(t, name), x)
        kind = self._kind(x)
        if not kind.behind:
            return x
        if not self._skip:
            raise ParameterError(
                f"node noise does not reach parameter {self._list([kind])}: it comes to {name} without passing through "
                "a linear map (Linear, convolution, recurrent cell, matrix product) whose output could be shaken. "
                "Pass unused='skip' to leave it as it is, or freeze it; a penalty on weights belongs to the optimizer"
            )
        self.unreached |= kind.behind
        return x.detach()

    def _kind(self, t: Tensor) -> _Kind:
        if not t.requires_grad:
            return _PLAIN
        kind = self._kinds.get(t)
        if kind is None:  # written in place by way of a view, or the caller's own graph
            kind = self._kinds[t] = _Kind(self._walked(t), False)
        return kind

    def _walked(self, t: Tensor) -> frozenset[int]:
        """Positions of the targets on the graph behind a tensor."""
        found, seen, stack = set(), set(), [t.grad_fn]
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if leaf is not None and id(leaf) in self._leaf:
                found.add(self._leaf[id(leaf)])
            stack.extend(before for before, _ in node.next_functions)
        return frozenset(found)

    def _list(self, kinds: Iterable[_Kind]) -> str:
        names = [repr(self._names[j]) for j in sorted(frozenset().union(*(kind.behind for kind in kinds)))]
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

    def _refuse_stale(self, x: Tensor) -> None:
        if not self._kind(x).behind:  # a view of a leaf lies where the parameter lies, and is no side door
            super()._refuse_stale(x)


def _storage(x: Tensor) -> int:
    try:
        return x.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # wrapped by vmap
        return 0


def _training(name: str, args: tuple, kwargs: dict) -> bool:
    return bool(kwargs.get("training", args[5] if len(args) > 5 else False))
