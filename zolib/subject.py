"""What is probed: the parameters of a module, or the tensors of a tree, and the closure that consumes them."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from zolib.errors import ParameterError
from zolib.evaluation import State, checked_loss
from zolib.noise.point_of_use import PointOfUse, refuse_unreachable
from zolib.probes import Target


class Subject:
    """A closure and the parameters it consumes.  Evaluates the one with other values of the other.

    model: a module, its parameters, or pairs (name, parameter).  consumed: positions of the targets that any evaluation
    asked for.  repeated: of those that one asked for more than once, None before the first evaluation.  source: what
    returns the loss, for messages.
    """

    source = "closure()"

    def __init__(
        self, closure: Callable[[], Any], model: nn.Module | Iterable[Tensor | tuple[str, Tensor]], probe: str
    ):
        if isinstance(closure, nn.Module) or not callable(closure):
            order = " (the order is closure, model)" if isinstance(closure, nn.Module) else ""
            found = type(closure).__name__
            raise TypeError(f"closure must be a function without arguments that returns the loss, got {found}{order}")
        self.closure, self.probe = closure, probe
        self.modules: Sequence[nn.Module] = []
        if isinstance(model, nn.Module):
            refuse_unreachable(model)
            self.modules = list(model.modules())
            tensors: list[tuple[str, Tensor]] = list(model.named_parameters())
        elif isinstance(model, Tensor) or not isinstance(model, Iterable):
            raise TypeError(f"model must be a module or an iterable of parameters, got {type(model).__name__}")
        else:
            tensors = [t if isinstance(t, tuple) else (f"model[{i}]", t) for i, t in enumerate(model)]
        # a frozen parameter keeps its number, so freezing one leaves the noise of the others alone
        first = {id(t): i for i, (_, t) in reversed(list(enumerate(tensors)))}  # twice in a list is one parameter
        trainable = [(i, name, t) for i, (name, t) in enumerate(tensors) if not _frozen(t) and first[id(t)] == i]
        if tensors and not trainable:
            raise ParameterError(
                f"model: all {len(tensors)} parameters are frozen; call requires_grad_(True) on those to be trained"
            )
        self.targets = as_targets([(name, t) for _, name, t in trainable], "model", [i for i, _, _ in trainable])
        chosen = {id(t.value) for t in self.targets}
        self.others = [t for _, t in tensors if id(t) not in chosen]
        self.consumed: set[int] = set()
        self.repeated: set[int] | None = None

    def state(self) -> State:
        return State(self.modules, {t.value.device for t in self.targets})

    def evaluate(
        self, value: Callable[[int], Tensor] | None, unused: str, seam: Callable[..., PointOfUse] = PointOfUse
    ) -> Tensor:
        """The loss with ``value(j)`` in place of target j, or with all as they are."""
        values = [t.value for t in self.targets]
        if value is None:  # copies, so that this pass too can write nothing and takes the same way through torch
            value = lambda j: as_trainable(values[j].detach().clone(), values[j])  # noqa: E731
        mode = seam(values, self.others, [t.name for t in self.targets], value, self.repeated)
        with mode:
            loss = self.closure()
        missing = [t.name for j, t in enumerate(self.targets) if j not in mode.consumed]
        if missing and (unused == "raise" or not mode.consumed):
            raise ParameterError(
                f"an evaluation never consumed parameter {', '.join(map(repr, missing[:3]))}"
                f"{f' and {len(missing) - 3} more' if len(missing) > 3 else ''}: the loss does not depend on it, or it "
                "is consumed out of sight (a copy made before the evaluation, TorchScript, another thread). Check that "
                f"{self.source} runs this model; for a parameter that is rightly idle, freeze it or pass unused='skip'"
            )
        self.consumed |= mode.consumed
        self.repeated = mode.repeated | (self.repeated or set())
        return checked_loss(loss, self.source, self.probe)


def as_trainable(value: Tensor, parameter: Tensor) -> Tensor:
    """The value, on the way through torch that the parameter would take.

    matmul copies a weight for each batch entry unless the weight requires grad.  Autocast would keep such a weight's
    casts, one for each evaluation.
    """
    if parameter.requires_grad and not torch.is_autocast_enabled(value.device.type):
        with contextlib.suppress(RuntimeError):  # inside a transform of torch.func it cannot be set
            value.requires_grad_()
    return value


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """No graph is built, and torch.compile steps aside: a compiled graph would not ask for its parameters again.

    Not inference mode, even if the caller is in it: its tensors could not be used in training later.
    """
    with torch.inference_mode(False), torch.no_grad(), _EAGER:
        yield


class _Eager:
    """torch.compile steps aside while any thread is inside.  Its stance is one for all threads, so the first to come
    sets it and the last to go sets it back."""

    def __init__(self) -> None:
        self._inside, self._stance = 0, contextlib.ExitStack()
        self.unlock()

    def unlock(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._stance.enter_context(torch.compiler.set_stance("force_eager"))
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._stance.close()


_EAGER = _Eager()
if hasattr(os, "register_at_fork"):  # whoever held the lock does not live on in the child
    os.register_at_fork(after_in_child=_EAGER.unlock)


def as_targets(
    named_tensors: Sequence[tuple[str, Any]], argument: str, indices: Sequence[int] | None = None
) -> list[Target]:
    """Checked targets, numbered by their place or by ``indices``."""
    if not named_tensors:
        raise ParameterError(f"{argument}: there is no parameter to probe; pass at least one tensor")
    targets: list[Target] = []
    offset = 0
    for index, (name, t) in zip(indices or range(len(named_tensors)), named_tensors, strict=True):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name} is {type(t).__name__}, not a tensor; convert it with torch.as_tensor")
        if is_lazy(t):
            raise ParameterError(f"parameter {name!r} has no shape yet (a lazy module); run one forward pass first")
        if any(c.__name__ == "DTensor" for c in type(t).__mro__):
            raise ParameterError(
                f"parameter {name!r} is a DTensor, sharded over processes; zolib needs whole parameters"
            )
        if not t.is_floating_point():
            raise ParameterError(
                f"parameter {name!r} has dtype {str(t.dtype).removeprefix('torch.')}: only real floating-point numbers "
                "can be shaken a little. Convert it with .float(), or leave it out"
            )
        if t.layout != torch.strided:
            raise ParameterError(f"parameter {name!r} is sparse; convert it with .to_dense()")
        targets.append(Target(index, offset, name, t))
        offset += t.numel()
    if not offset:
        raise ParameterError(f"{argument}: the parameters hold no element; there is nothing to probe")
    return targets


def _frozen(t: Any) -> bool:
    return isinstance(t, nn.Parameter) and not t.requires_grad
