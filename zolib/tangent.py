"""Exact slopes: the derivative of the objective along a direction by forward mode, without a difference.

One pass carries, with each value, how fast it changes along the direction (Wengert 1964).  With the slope known exactly
there is no sigma and no bias of the difference; what remains is the variance of the directions.  This is the forward
gradient (Baydin et al., arXiv:2202.08587), and with noise on nodes its activity-perturbed kind (Ren et al.,
arXiv:2210.03310).
"""

from __future__ import annotations

import copy
import os
import traceback
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from zolib.directions import Directions
from zolib.errors import LossError
from zolib.evaluation import checked_loss
from zolib.feedback import FEEDBACKS, Feedback
from zolib.subject import Subject


class Exact(Feedback):
    """Exact directional derivative: c = grad f(theta) . z, by forward mode.

    One evaluation per sample, at theta itself, which carries its derivative along z; it costs about two to three plain
    ones.  There is no bias and sigma is not used.  The loss reported is f(theta).

    f must be made of operations that forward mode knows, which values alone do not ask for.  Attention runs in its
    plain form (SDPBackend.MATH), fused kernels have no forward derivative.  An operation without one is refused by
    name.  A ``detach()`` of what depends on the parameters is passed over, as it is by a difference of values.
    """

    signs = ()
    exact: ClassVar[bool] = True

    def coefficients(self, losses: Tensor, clean: Tensor | None, sigma: float) -> Tensor:
        raise NotImplementedError("an exact feedback has slopes, no differences")

    def __repr__(self) -> str:
        return "Exact()"


def along(value: Tensor, z: Tensor) -> Tensor:
    """``value``, changing at the rate ``z`` more than it did; cut from any graph.  Within :func:`forward_mode`."""
    primal, tangent = forward_ad.unpack_dual(value)
    z = z.to(primal.dtype)
    return forward_ad.make_dual(primal.detach(), z if tangent is None else z + tangent.detach())


def forward_mode(f: Callable[[], Any], source: str) -> tuple[Tensor, Tensor]:
    """The value of f and its rate of change.  f makes dual tensors with :func:`along`.

    source: what returned the loss, for messages.

    Raises:
        NotImplementedError: An operation has no forward derivative; the message has its name.
        LossError: The result is no tensor, or depends on nothing that was made to change.
    """
    try:
        with forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH), _Through():
            loss = f()
            if not isinstance(loss, Tensor):
                raise LossError(
                    f"{source} returned {type(loss).__name__}, which carries no derivative; with an exact feedback "
                    "return the loss as a tensor, without .item() or float()"
                )
            primal, tangent = forward_ad.unpack_dual(loss)
            primal = primal.detach()
            if tangent is None:
                raise LossError(
                    f"{source} returned a loss that does not change with what is probed: forward mode lost track of "
                    "it (a copy by way of NumPy, a value read out with .item()). Use 'two-point', which asks for values"
                )
            return primal, tangent.detach().to(primal.dtype)
    except (NotImplementedError, RuntimeError) as error:
        if isinstance(error, NotImplementedError) or any(word in str(error) for word in _COMPLAINTS):
            raise NotImplementedError(
                "the exact slope needs a forward derivative of every operation, and one has none: "
                f"{_first(error)} (at {_place(error)}). Write that operation in plain ones, or use the feedback "
                "'two-point', which asks for values only"
            ) from error
        raise


_COMPLAINTS = ("forward AD", "forward-mode", "forward mode", "jvp")


def _first(error: BaseException) -> str:
    return str(error).split(". ")[0].splitlines()[0].rstrip(".")


def _place(error: BaseException) -> str:
    """The line that asked for it: some of torch's messages do not name the operation."""
    inside = (os.path.dirname(torch.__file__), os.path.dirname(__file__))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(inside)]
    frame = (frames or traceback.extract_tb(error.__traceback__))[-1]
    return f"{os.path.basename(frame.filename)}:{frame.lineno}: {frame.line}"


class _Through(TorchFunctionMode):
    """Lets derivatives pass where a value passes: detach() and .data keep values, so they keep slopes."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name == "detach" or (name == "__get__" and getattr(func.__self__, "__name__", "") == "data"):
            if forward_ad.unpack_dual(args[0]).tangent is not None:
                return args[0].view_as(args[0])
        if name in ("numpy", "__array__") and forward_ad.unpack_dual(args[0]).tangent is not None:
            raise NotImplementedError(f"{name} leaves torch and takes no derivative along")
        return func(*args, **(kwargs or {}))


def slope_of_function(f: Callable[[list[Tensor]], Any], directions: Directions, k: int) -> tuple[Tensor, Tensor]:
    """The value of a function of a list of leaves, and its slope along sample k: (), () each."""

    def run() -> Any:
        return f([along(t.value, directions(k, j)) for j, t in enumerate(directions.targets)])

    return _scalar(forward_mode(run, "f"), "f", directions)


def slope_of_module(subject: Subject, directions: Directions, k: int, unused: str) -> tuple[Tensor, Tensor]:
    """The loss of a closure, and its slope along sample k where parameters are consumed: (), () each."""
    values = [t.value for t in subject.targets]

    def run() -> Any:
        losses: list[Any] = []  # as the closure returns it; the subject hands on the value alone

        def closure() -> Any:
            losses.append(subject.closure())
            return losses[0]

        watched = copy.copy(subject)
        watched.closure = closure
        watched.evaluate(lambda j: along(values[j].clone(), directions(k, j)), unused)
        return losses[0]

    return _scalar(forward_mode(run, "closure()"), "closure()", directions)


def _scalar(pair: tuple[Tensor, Tensor], source: str, directions: Directions) -> tuple[Tensor, Tensor]:
    return checked_loss(pair[0], source, type(directions.probe).__name__), pair[1]


FEEDBACKS["exact"] = Exact
