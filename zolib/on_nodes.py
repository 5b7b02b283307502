"""The experiments with noise on nodes: pre-activations are shaken, and the input of each is kept for its noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.modules.batchnorm import _BatchNorm

from zolib.axes import checked, declared
from zolib.errors import LossError, ParameterError
from zolib.estimates import Dense
from zolib.evaluation import State
from zolib.noise import fused, stream
from zolib.noise.preactivations import PreActivations
from zolib.noise.rounding import shifted
from zolib.subject import Subject
from zolib.tangent import along, forward_mode

_NODES = 0x6E6F  # node noise has keys of its own: it never meets a direction of the same seed
LAWS = {"gaussian": stream.NORMAL, "rademacher": stream.SIGN}
#: Noise of one site is drawn for as many samples at once as this many numbers hold.
CHUNK = 1 << 20


@dataclass(frozen=True)
class Site:
    """A pre-activation of one evaluation, and the way from it back to the parameters."""

    edge: GradientEdge
    index: int  # its place in the order of execution
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device
    axes: tuple[int, ...]  # those that a loss may have: of the replicas, of the examples

    @property
    def axis(self) -> int:
        """Of the examples."""
        return self.axes[-1]

    @property
    def wide(self) -> torch.dtype:
        return torch.promote_types(self.dtype, torch.float32)

    def spread(self, values: Tensor) -> Tensor:
        """One value, or one for each example (replica), in a shape that multiplies the pre-activation."""
        values = values.to(self.device, self.wide)
        shape = [1] * len(self.shape)
        for axis, size in zip(self.axes, values.shape, strict=False):
            shape[axis] = size
        return values.view(shape) if values.ndim else values

    def total(self, x: Tensor, kept: int) -> Tensor:
        """Sum over the pre-activation, or over that of each example (replica), ``kept`` axes: (), or as the loss."""
        over = [axis for axis in range(x.ndim) if axis not in self.axes[:kept]]
        return x.sum(dim=over) if over else x


class OnNodes:
    """Pre-activations of a closure's linear maps are shaken."""

    def __init__(self, probe: Any, subject: Subject, seed: int, step: int, samples: int, unused: str):
        self.probe, self.subject, self.step, self.samples, self.unused = probe, subject, step, samples, unused
        low, high = stream.fold(seed, _NODES)
        self.seed = low | high << 32
        self.axes = declared(probe, subject, ("example",))
        self.sites: dict[int, list[Site]] = {}  # for each sample, of its evaluation at +sigma
        self._leaves = [t.value.detach().requires_grad_() for t in subject.targets]
        self._noise: dict[tuple[int, int], tuple[range, Tensor]] = {}
        self._left_out: frozenset[int] = frozenset()
        self._before: State | None = None

    def state(self) -> State:
        self._before = self.subject.state()
        return self._before

    def evaluate(self, k: int | None, scale: float) -> Tensor:
        sites, loss = self._run(lambda site, a: a if k is None else self._shaken(site, a, k, scale))
        if k is not None and scale > 0:
            # The eligibility is the noise times this input, which noise below has moved by sigma J xi.  In the mean,
            # slope, noise and that shift make a third moment of xi, which is 0: so the bias is of order sigma^2
            self.sites[k] = sites
        return loss

    def evaluate_together(self, points: Sequence[tuple[int, float]]) -> Tensor:
        name = type(self.probe).__name__
        raise ValueError(
            f"chunk: {name} shakes one evaluation at a time, since each leaves inputs of its own; use chunk=1"
        )

    def slope(self, k: int) -> tuple[Tensor, Tensor]:
        """The loss and its exact slope along the noise of sample k, by forward mode; (), or (B,) each."""

        def run() -> Tensor:
            self.sites[k], loss = self._run(lambda site, a: along(a, self.noise(site, k)), detached=False)
            return loss

        loss, slope = forward_mode(run, "closure()")
        return checked(loss, type(self.probe).__name__, self.axes), slope

    def shaken(self) -> list[Tensor]:
        """The pre-activations of one evaluation."""
        seen: list[Tensor] = []

        def look(site: Site, a: Tensor) -> Tensor:
            seen.append(a.clone())  # what follows may write into it
            return a

        self._run(look)
        return seen

    def estimate(self, slopes: Tensor) -> Dense:
        """slopes: (K,), or (K, B), (K, S), (K, S, B).  Can be asked for once: the inputs are let go of.

        The mean over examples, and the sum over replicas: each has its own part of the parameters.
        """
        try:
            return self._estimate(slopes)
        except BaseException:
            if self._before:
                self._before.restore()
            raise

    def _estimate(self, slopes: Tensor) -> Dense:
        targets = self.subject.targets
        wanted = [j for j in range(len(targets)) if j not in self._left_out]
        sums: dict[int, Tensor] = {}
        sizes = zip(self.axes, slopes.shape[1:], strict=False)
        examples = math.prod(size for axis, size in sizes if axis == "example")
        for k, slope in enumerate(slopes):
            sites = self.sites.pop(k)
            credits = self.credits(k, sites, slope / (len(slopes) * examples))
            try:
                found = torch.autograd.grad(
                    [s.edge for s in sites],
                    [self._leaves[j] for j in wanted],
                    [credit.to(s.dtype) for s, credit in zip(sites, credits, strict=True)],
                    allow_unused=True,
                )
            except RuntimeError as error:
                if "inplace operation" not in str(error):
                    raise
                raise RuntimeError(
                    "the closure writes in place into what a linear map has read, and node noise needs that input "
                    "once more, as loss.backward() would. Write x = x + layer(x) in place of x += layer(x)"
                ) from error
            for j, g in zip(wanted, found, strict=True):
                if g is not None:
                    g = g.to(torch.promote_types(g.dtype, torch.float32))
                    sums[j] = sums[j].add_(g) if j in sums else g
        return Dense([(targets[j].value, g.to(targets[j].value.dtype)) for j, g in sorted(sums.items())])

    def credits(self, k: int, sites: Sequence[Site], slope: Tensor) -> list[Tensor]:
        """What goes back from each site: its noise times the slope, of each example its own."""
        return [self.noise(s, k).to(s.wide) * s.spread(slope) for s in sites]

    def noise(self, site: Site, k: int, second: int = 0) -> Tensor:
        """xi, float32, of the shape of a site; ``second`` = 1 for an independent one."""
        size = math.prod(site.shape)
        held = self._noise.get((site.index, second))
        sample = k + second * self.samples
        if held is None or sample not in held[0] or held[1].shape[1] != size or held[1].device != site.device:
            stop = min((1 + second) * self.samples, sample + max(1, CHUNK // max(1, size)))
            block = range(sample, stop)
            held = (block, self._draw(LAWS[self.probe.law], block, site))
            self._noise[site.index, second] = held
        return held[1][sample - held[0].start].view(site.shape)

    def _draw(self, law: int, samples: range, site: Site) -> Tensor:
        return stream.draw(law, self.seed, self.step, samples, [(site.index, math.prod(site.shape))], site.device)[0]

    def _shaken(self, site: Site, a: Tensor, k: int, scale: float, second: int = 0) -> Tensor:
        law, sample = LAWS[self.probe.law], k + second * self.samples
        if fused.redrawn(a, law):
            # in place: no linear map needs its output for its own backward pass, and nobody else has seen it
            fused.update_(a, law, [fused.Term(self.seed, self.step, sample, scale)], site.index)
            return a
        if a.dtype == torch.float32:
            return torch.add(a, self.noise(site, k, second), alpha=scale)  # in one pass over memory
        bits = lambda: self._draw(stream.ROUNDING, range(sample, sample + 1), site).view(site.shape)  # noqa: E731
        return shifted(a, self.noise(site, k, second), scale, bits)

    def _run(self, shake: Callable[[Site, Tensor], Tensor], detached: bool = True) -> tuple[list[Site], Tensor]:
        """One evaluation.  shake: what goes on in place of a site's output."""
        targets = self.subject.targets
        sites: list[Site] = []
        behind: list[frozenset[int]] = []

        def node(output: Tensor, axis: int | None, parameters: frozenset[int]) -> Tensor:
            edge = get_gradient_edge(output)
            sites.append(Site(edge, len(sites), output.shape, output.dtype, output.device, self._places(axis)))
            behind.append(parameters)
            return shake(sites[-1], output.detach() if detached else output)

        mode = PreActivations(
            [t.value for t in targets],
            self.subject.others,
            [t.name for t in targets],
            self._leaves,
            [b for module in self.subject.modules for b in module.buffers(recurse=False)],
            node,
            self.unused == "skip",
        )
        with mode:
            loss = self.subject.closure()
        name = type(self.probe).__name__
        loss = mode.finish(loss)
        if detached:
            loss = checked(loss, name, self.axes)
        self._refuse_missing(mode)
        if isinstance(loss, Tensor) and loss.ndim:
            self._refuse_coupled(loss, mode.couples)
            names = [", ".join(repr(targets[j].name) for j in sorted(js)) for js in behind]
            kinds = self.axes[: loss.ndim]
            sites[:] = [_with_axes(site, kinds, loss.shape, n) for site, n in zip(sites, names, strict=True)]
        self._left_out |= mode.unreached
        self.subject.consumed |= mode.reached - mode.unreached
        return sites, loss

    def _places(self, axis: int | None) -> tuple[int, ...]:
        """Where the declared axes lie in a pre-activation.  axis: of the examples, where the operation fixes it."""
        replicas = "replica" in self.axes
        if axis is None:
            axis = self.probe.batch_dim + (replicas and self.probe.batch_dim >= 0)
        return tuple(0 if name == "replica" else axis for name in self.axes)

    def _refuse_missing(self, mode: PreActivations) -> None:
        targets = self.subject.targets
        missing = [t.name for j, t in enumerate(targets) if j not in mode.reached | mode.unreached]
        if mode.unreached and not (missing or mode.reached - mode.unreached):
            raise ParameterError(
                "node noise reaches none of the parameters: each has a way to the loss that passes no linear map "
                f"({targets[min(mode.unreached)].name!r} among them); use a probe on parameters, such as Rademacher()"
            )
        if not mode.reached - mode.unreached or (missing and self.unused == "raise"):
            names = missing or [t.name for t in targets]
            raise ParameterError(
                f"no linear map consumed parameter {', '.join(map(repr, names[:3]))}"
                f"{f' and {len(names) - 3} more' if len(names) > 3 else ''} in an evaluation, so there is no "
                "pre-activation to shake: node noise needs Linear, convolutions, recurrent cells, attention or matrix "
                "products. Check that closure() runs this model; freeze an idle parameter or pass unused='skip'"
            )

    def _refuse_coupled(self, loss: Tensor, operation: str) -> None:
        norms = [type(m).__name__ for m in self.subject.modules if isinstance(m, _BatchNorm) and m.training]
        if operation or norms:
            raise LossError(
                f"closure() returned one loss per example, shape {tuple(loss.shape)}, but {(norms or [operation])[0]} "
                "in training mode makes each example's loss depend on all of them, so their noise cannot be credited "
                "one by one; call eval() on it, use LayerNorm or GroupNorm, or return a scalar"
            )


class OnActivities(OnNodes):
    """As :class:`OnNodes`, but what goes back is the change of the activities, whatever caused it."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._first: dict[int, list[Tensor]] = {}
        self._other: dict[int | None, list[Tensor]] = {}  # of the second noisy passes, or under None of the clean one
        self._sigma = 0.0

    def evaluate(self, k: int | None, scale: float) -> Tensor:
        activities: list[Tensor] = []

        def shake(site: Site, a: Tensor) -> Tensor:
            # not -xi but noise of its own: two passes of a noisy network, neither of which is known
            out = a if k is None else self._shaken(site, a, k, abs(scale), second=int(scale < 0))
            activities.append(out.clone())  # what follows may write into it
            return out

        sites, loss = self._run(shake)
        if k is not None and scale > 0:
            self.sites[k], self._first[k], self._sigma = sites, activities, scale
        else:
            self._other[k] = activities
        return loss

    def slope(self, k: int) -> tuple[Tensor, Tensor]:
        raise TypeError("Activities compares two evaluations and has no exact slope; use Nodes with an exact feedback")

    def credits(self, k: int, sites: Sequence[Site], slope: Tensor) -> list[Tensor]:
        if not self._other:
            raise ValueError(
                "feedback: Activities compares a noisy pass with a clean one or with another noisy one; use "
                "'one-sided' or 'two-point'"
            )
        two = k in self._other
        other = self._other.pop(k) if two else self._other[None]
        change = slope * (2 * self._sigma if two else self._sigma)  # the slope is this change of the loss over 2 sigma
        pairs = zip(sites, self._first.pop(k), other, strict=True)
        deltas = [a.to(s.wide) - b.to(s.wide) for s, a, b in pairs]
        norms = [s.total(d.square(), slope.ndim).cpu().double() for s, d in zip(sites, deltas, strict=True)]
        counts = [math.prod(s.shape) / slope.numel() for s in sites]
        if self.probe.scaling == "global":
            norms, counts = [torch.stack(norms).sum(dim=0)] * len(norms), [sum(counts)] * len(counts)
        factors = [
            torch.where(norm > 0, count * change.cpu() / norm, 0.0) for norm, count in zip(norms, counts, strict=True)
        ]
        return [d * s.spread(f) for s, d, f in zip(sites, deltas, factors, strict=True)]


def _with_axes(site: Site, kinds: Sequence[str], sizes: torch.Size, name: str) -> Site:
    """The site, once it is certain that its axes are those of the loss."""
    dims = len(site.shape)
    for kind, axis, size in zip(kinds, site.axes, sizes, strict=False):
        if not -dims <= axis < dims or site.shape[axis] != size:
            where = f"batch_dim={axis}" if kind == "example" else f"axis {axis}"
            raise LossError(
                f"closure() returned {size} losses, one per {kind}, but the pre-activation number {site.index} (of "
                f"parameter {name}) has shape {tuple(site.shape)}, which has no {size} {kind}s along "
                f"{where}; name the axis of the examples, as Nodes(batch_dim=...), or return a scalar"
            )
    return replace(site, axes=tuple(axis % dims for axis in site.axes))
