"""Noise at the point of use: an evaluation sees perturbed parameters, and the parameters are never written.

A :class:`torch.overrides.TorchFunctionMode` stands between the closure and torch.  Every operation that is about to
consume a target parameter gets a perturbed value in its place.  So any module can be probed unchanged, at the memory of
one operation, and its weights are bit for bit what they were.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zolib.errors import ParameterError

#: Bytes of perturbed values kept for reuse within one evaluation (a recurrent cell consumes its weight many times).
#: Beyond them, or the largest parameter if that is more, the least recently used one is dropped, and made again from
#: its stream when needed.  The first evaluation does not know yet which will be used again.
MEMO_BYTES, FIRST_MEMO_BYTES = 1 << 26, 1 << 22

# Asking for these says nothing about the values of a tensor, so they see the parameter itself.
_METADATA = frozenset(
    """size dim ndimension numel nelement stride storage_offset is_contiguous is_floating_point is_complex is_signed
    element_size data_ptr storage untyped_storage get_device is_shared is_pinned is_set_to is_same_size has_names
    is_inference is_conj is_neg requires_grad_ retain_grad register_hook register_post_accumulate_grad_hook
    __len__ __hash__ __repr__ __format__ __dir__ __reduce_ex__""".split()
)
# Properties that give another tensor of the same values; all others (shape, dtype, grad, ...) are metadata.
_VALUE_PROPERTIES = frozenset({"T", "mT", "H", "mH", "data", "real", "imag"})
_PLAIN = frozenset({int, float, bool, str})
_SETTABLE = frozenset({"grad", "requires_grad", "names"})
_AUGMENTED = frozenset(
    f"__i{op}__" for op in "add sub mul truediv floordiv mod pow and or xor lshift rshift div".split()
)


class PointOfUse(TorchFunctionMode):
    """One evaluation in which ``targets`` have other values.

    targets: the parameters to replace.  others: parameters of the same model that stay (frozen ones).  names: of the
    targets, for messages.  value: ``value(j)`` is the replacement for ``targets[j]``, a pure function.  keep: positions
    that an earlier evaluation asked for more than once; only these are kept for reuse.  None: not known.

    ``consumed`` holds the positions of the targets that the evaluation asked for, ``repeated`` those that it asked for
    again.
    """

    def __init__(
        self,
        targets: Sequence[Tensor],
        others: Iterable[Tensor],
        names: Sequence[str],
        value: Callable[[int], Tensor],
        keep: set[int] | None = None,
    ):
        super().__init__()
        self._position = {id(t): j for j, t in enumerate(targets)}
        self._others = {id(t) for t in others}
        self._owner = {t.untyped_storage().data_ptr(): j for j, t in enumerate(targets) if t.numel()}
        self._targets, self._names, self._value = targets, names, value
        self._memo: OrderedDict[int, Tensor] = OrderedDict()
        self._memo_bytes, self._keep = 0, keep
        largest = max((t.nbytes for t in targets), default=0)
        self._budget = max(largest, FIRST_MEMO_BYTES if keep is None else MEMO_BYTES)
        self.consumed: set[int] = set()
        self.repeated: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs) if kwargs else {}
        name, asks_no_value, writes = _kind(func)
        if asks_no_value:
            return func(*args, **kwargs)
        if name == "backward":
            raise RuntimeError(
                "closure() called backward(); it must only return the loss. zolib evaluates it several times and "
                "fills .grad from the values: delete the backward() call"
            )
        if writes and args:
            self._refuse_write(args[0], name)
        if kwargs.get("out") is not None:
            self._refuse_write(kwargs["out"], name)
        for key, x in kwargs.items():
            kwargs[key] = self._replaced(x)
        return self._run(func, name, tuple([self._replaced(x) for x in args]), kwargs)

    def _run(self, func: Callable[..., Any], name: str, args: tuple, kwargs: dict) -> Any:
        """The operation itself, its arguments replaced.  name: of the function, without overload."""
        return func(*args, **kwargs)

    def _replaced(self, x: Any) -> Any:
        """The same nest of arguments with every target replaced."""
        if isinstance(x, Tensor):
            j = self._position.get(id(x))
            if j is not None:
                return self._perturbed(j)
            if id(x) not in self._others:
                self._refuse_stale(x)
            return x
        if x is None or type(x) in _PLAIN:  # most arguments, so the first to be asked for
            return x
        if type(x) in (list, tuple):
            return type(x)(self._replaced(item) for item in x)
        if type(x) is dict:
            return {key: self._replaced(item) for key, item in x.items()}
        if isinstance(x, tuple) and hasattr(x, "_fields"):  # a named tuple
            return type(x)(*(self._replaced(item) for item in x))
        return x

    def _perturbed(self, j: int) -> Tensor:
        if j in self.consumed:
            self.repeated.add(j)
        self.consumed.add(j)
        if j in self._memo:
            self._memo.move_to_end(j)
            return self._memo[j]
        if self._keep is not None and j not in self._keep:
            return self._made(j)
        while self._memo and self._memo_bytes + self._targets[j].nbytes > self._budget:  # before it is made
            self._memo_bytes -= self._memo.popitem(last=False)[1].nbytes
        value = self._memo[j] = self._made(j)
        self._memo_bytes += value.nbytes
        return value

    def _made(self, j: int) -> Tensor:
        if torch._C._functorch.maybe_current_level() is None:
            return self._value(j)
        with torch._C._DisableFuncTorch():  # the closure is inside a transform of torch.func, the noise is not
            return self._value(j)

    def _refuse_write(self, x: Any, name: str) -> None:
        if isinstance(x, (list, tuple)):  # torch._foreach_add_ and its kin
            for item in x:
                self._refuse_write(item, name)
        if not isinstance(x, Tensor):
            return
        j = self._position.get(id(x))
        if j is None:  # a view of a perturbed value: .data.mul_(mask), .detach().add_(1)
            place = _address(x)
            j = next((k for k, v in self._memo.items() if place and _address(v) == place), None)
        if j is not None:
            raise ParameterError(
                f"the closure writes in place to parameter {self._names[j]!r} ({name}); while it is probed the "
                "parameter cannot be written. Make a new tensor from it instead, or write outside the closure"
            )

    def _refuse_stale(self, x: Tensor) -> None:
        """A view made before the evaluation would bring unperturbed values in by a side door."""
        j = self._owner.get(_address(x))
        if j is not None:
            raise ParameterError(
                f"the closure uses a view of parameter {self._names[j]!r} that was made before the evaluation (a "
                "cached transpose, .data or detach()); it would not be perturbed. Make the view inside the forward pass"
            )


@lru_cache(1 << 12)
def _kind(func: Callable[..., Any]) -> tuple[str, bool, bool]:
    """A function of torch: its name, whether it asks for no tensor's values, and whether it writes to its first."""
    name = getattr(func, "__name__", "").partition(".")[0]  # torch.ops' overloads read 'add_.Tensor'
    owner = getattr(getattr(func, "__self__", None), "__name__", "")  # the property that __get__ or __set__ serves
    asks_no_value = (
        name in _METADATA
        or (name == "__get__" and owner not in _VALUE_PROPERTIES)
        or (name == "__set__" and owner in _SETTABLE)
    )
    in_place = name.endswith("_") and not name.endswith("__")
    return name, asks_no_value, in_place or name in _AUGMENTED or name in ("__setitem__", "__set__")


def _address(x: Tensor) -> int:
    while torch._C._functorch.is_functorch_wrapped_tensor(x):  # vmap
        x = torch._C._functorch.get_unwrapped(x)
    try:
        return x.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse: no storage of its own
        return 0


def refuse_unreachable(model: nn.Module) -> None:
    """Raise ParameterError for modules whose weights no function mode can reach."""
    for name, module in model.named_modules():
        where = f"module {name or '(the model itself)'!r}"
        if isinstance(module, torch.jit.ScriptModule):
            raise ParameterError(
                f"model: {where} is a ScriptModule; its weights are consumed inside TorchScript, out of reach. Pass "
                "the original nn.Module (torch.compile is fine)"
            )
        if any(c.__name__ in ("FullyShardedDataParallel", "FSDPModule") for c in type(module).__mro__):
            raise ParameterError(
                f"model: {where} is sharded (FSDP); zolib needs whole parameters on each process. Zeroth-order "
                "training needs no optimizer state or activations, so try it unsharded"
            )
