"""What the axes of a loss are: declared by the probe or the model, never guessed from shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from zolib.errors import LossError
from zolib.evaluation import checked_loss

if TYPE_CHECKING:
    from zolib.probes import Probe
    from zolib.subject import Subject

#: ``"replica"``: learners side by side, each with parameters of its own along their first axis (chips, say).
#: ``"example"``: rows of a batch.
KNOWN = ((), ("example",), ("replica",), ("replica", "example"))


def declared(probe: Probe, subject: Subject, otherwise: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of the axes that a loss may have, in order: the probe's, or the model's, or ``otherwise``.

    A loss may leave out the last ones.
    """
    axes = probe.axes
    if axes is None and subject.modules:
        axes = getattr(subject.modules[0], "axes", None)
    if axes is None:
        return otherwise
    if tuple(axes) not in KNOWN:
        raise ValueError(f"axes must be one of {', '.join(map(str, KNOWN))}, what the axes of a loss are; got {axes!r}")
    return tuple(axes)


def checked(loss: Any, probe: str, axes: tuple[str, ...]) -> Tensor:
    """The loss, detached, once it is certain that it is a scalar or has these axes, or the first of them.

    probe: its name, for messages.
    """
    if not isinstance(loss, Tensor) or not loss.ndim:
        return checked_loss(loss, "closure()", probe)
    if loss.ndim > len(axes) or not loss.numel():
        one = {"example": "one loss per example, shape (B,)", "replica": "one loss per replica, shape (S,)"}
        both = "one loss per replica, (S,), or per replica and example, (S, B)"
        allowed = ["a scalar", *([both] if len(axes) == 2 else map(one.get, axes))]
        raise LossError(
            f"closure() returned a loss of shape {tuple(loss.shape)}; {probe} credits {', or '.join(allowed)}: sum "
            "over the other axes"
        )
    checked_loss(loss.sum(), "closure()", probe)
    return loss.detach() if loss.is_floating_point() else loss.detach().double()
