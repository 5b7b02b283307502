r"""Errors that come down by fixed random wires: feedback alignment, layer by layer or straight from the output.

Backpropagation sends the error of layer l+1 down through the transpose of the very weights that sent the activity up.
Here it comes down through other weights, which never learn,

.. math:: \delta_l = (B_l\,\delta_{l+1}) \odot \phi'(a_l) \quad\text{(feedback alignment)}, \qquad
          \delta_l = (B_l\,e) \odot \phi'(a_l) \quad\text{(direct)},

with e the error at the output.  It is no estimate of a gradient: at the start the update of a hidden layer is as likely
to point uphill as down, and the forward weights come to align with the fixed ones.  Scale ``"none"``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from zolib.errors import LossError, ParameterError
from zolib.estimates import Dense
from zolib.evaluation import State, checked_loss
from zolib.noise import stream
from zolib.noise.seeds import own
from zolib.probes import PROBES, Probe
from zolib.subject import Subject

_WIRES = 0x6661  # keys of their own: the same seed gives the same wires at every step

#: Linear maps whose error comes down through another weight of the same shape, and where theirs stands.
_MAPS: dict[Any, int] = {F.linear: 1, F.conv1d: 1, F.conv2d: 1, F.conv3d: 1}


@dataclass(frozen=True)
class FeedbackAlignment(Probe):
    """Feedback alignment (Lillicrap, Cownden, Tweed and Akerman, Nature Communications 7:13276, 2016).

    Goes with the feedback ``"exact"`` and one sample, by the door of all other rules.  Linear layers and convolutions;
    other operations pass errors on as they are.

    Args:
        wires: Seed of the fixed weights, normal with deviation 1/sqrt(fan in).
    """

    wires: int = 0
    scale: ClassVar[str] = "none"
    where: ClassVar[str] = "nothing"
    law: ClassVar[str] = "fixed wires"

    def validate(self, d: int, samples: int) -> None:
        raise TypeError(
            f"probe={type(self).__name__}() sends errors down the layers of a module; use "
            "zolib.backward(closure, model, ...)"
        )

    def experiment(self, subject: Subject, seed: int, step: int, samples: int, unused: str) -> Aligned:
        """What :func:`zolib.backward` runs."""
        if samples != 1:
            raise ValueError(f"samples={samples}: {type(self).__name__} has no noise to average; use samples=1")
        return Aligned(subject, self, unused)

    def mode(self) -> _Wires:
        return _Wires(self.wires)


@dataclass(frozen=True)
class DirectFeedbackAlignment(FeedbackAlignment):
    """Direct feedback alignment: each layer hears the output's error by wires of its own (Nøkland, NeurIPS 2016).

    The last linear map that the closure runs is the output.  Linear layers only.
    """

    def mode(self) -> _Wires:
        return _DirectWires(self.wires)


class Aligned:
    """One pass forward, and errors down the wires."""

    samples = 1

    def __init__(self, subject: Subject, probe: FeedbackAlignment, unused: str):
        self.subject, self.probe, self.unused = subject, probe, unused
        self._pairs: list[tuple[Tensor, Tensor]] = []

    def state(self) -> State:
        return self.subject.state()

    def evaluate(self, k: int | None, scale: float) -> Tensor:
        name = type(self.probe).__name__
        raise TypeError(f"feedback: {name} sends errors down and takes no difference of values; use 'exact'")

    def evaluate_together(self, points: Sequence[tuple[int, float]]) -> Tensor:
        return self.evaluate(None, 0.0)

    def slope(self, k: int) -> tuple[Tensor, Tensor]:
        """The loss, and the length of the update, in which any number that is not finite shows: (), ()."""
        targets = self.subject.targets
        name = type(self.probe).__name__
        with torch.enable_grad():
            mode = self.probe.mode()
            with mode:
                loss = self.subject.closure()
            if not mode.maps:
                raise ParameterError(
                    f"{name} saw no linear layer or convolution in the closure, so there is nothing to wire: errors "
                    "would come down by the weights. Products of many chips or replicas at once are not opened"
                )
            if not isinstance(loss, Tensor) or not loss.requires_grad:
                raise LossError("closure() returned a loss without a way back; return the tensor, without .item()")
            mean = loss.mean() if loss.ndim == 1 else loss
            value = checked_loss(mean, "closure()", name)
            found = mode.errors(mean, [t.value for t in targets])
        missing = [t.name for t, g in zip(targets, found, strict=True) if g is None]
        if missing and (self.unused == "raise" or len(missing) == len(targets)):
            raise ParameterError(
                f"no error comes down to parameter {', '.join(map(repr, missing[:3]))}; freeze it or pass unused='skip'"
            )
        self._pairs = [(t.value, g.clone()) for t, g in zip(targets, found, strict=True) if g is not None]
        norms = [torch.linalg.vector_norm(g, dtype=torch.float64).cpu() for _, g in self._pairs]
        return value, torch.linalg.vector_norm(torch.stack(norms))

    def estimate(self, slopes: Tensor) -> Dense:
        return Dense(self._pairs)


class _Wires(TorchFunctionMode):
    """Linear maps give their own values, and hand errors down through fixed weights."""

    def __init__(self, seed: int):
        super().__init__()
        self.seed, self.calls, self.maps = own(seed, _WIRES), 0, 0

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        self.maps += func in _MAPS
        if func not in _MAPS or not args[0].requires_grad:
            return func(*args, **kwargs)
        x, weight = args[0], args[1] if len(args) > 1 else kwargs["weight"]
        with torch._C.DisableTorchFunction():
            up = func(x.detach(), *args[1:], **kwargs)
            rest = {k: v for k, v in kwargs.items() if k not in ("weight", "bias")}
            down = func(x, self.wire(weight.shape, weight), None, *args[3:], **rest)
            return up + (down - down.detach())  # the value of the one, the derivative of the other

    def wire(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """The next fixed weight, (out, in, ...): the order of execution numbers them."""
        z = stream.draw(stream.NORMAL, self.seed, 0, range(1), [(self.calls, math.prod(shape))], like.device)[0]
        self.calls += 1
        return z.view(*shape).to(like.dtype) / math.sqrt(math.prod(shape[1:]))

    def errors(self, loss: Tensor, parameters: list[Tensor]) -> Sequence[Tensor | None]:
        return torch.autograd.grad(loss, parameters, allow_unused=True)


class _DirectWires(_Wires):
    """Linear maps are cut from each other; the output's error goes to each by its own wire."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.handed: list[Tensor] = []  # what each layer makes of the one below: phi(a), still on its graph
        self.output: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in _MAPS and func is not F.linear:
            raise ParameterError(
                f"DirectFeedbackAlignment knows linear layers only, and the closure runs {func.__name__}"
            )
        if func is not F.linear:
            return func(*args, **kwargs)
        self.maps += 1
        if args[0].requires_grad:
            self.handed.append(args[0])
        self.output = func(args[0].detach(), *args[1:], **kwargs)
        return self.output

    def errors(self, loss: Tensor, parameters: list[Tensor]) -> Sequence[Tensor | None]:
        assert self.output is not None
        error, *sums = torch.autograd.grad(loss, [self.output, *parameters], allow_unused=True, retain_graph=True)
        for h in self.handed:
            wire = self.wire((h.shape[-1], error.shape[-1]), h)
            found = torch.autograd.grad(h, parameters, error @ wire.T, allow_unused=True, retain_graph=True)
            for j, g in enumerate(found):
                if g is not None:
                    sums[j] = g if sums[j] is None else sums[j] + g  # type: ignore[operator]
        return sums


PROBES |= {"feedback-alignment": FeedbackAlignment, "direct-feedback-alignment": DirectFeedbackAlignment}
