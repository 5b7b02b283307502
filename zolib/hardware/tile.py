"""A layer on a chip: its weights are parameters, what is multiplied with its inputs is what has become of them."""

from __future__ import annotations

import ctypes
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import _get_current_function_mode_stack

from zolib.hardware.cells import Cells
from zolib.hardware.outputs import Outputs, Read
from zolib.hardware.stage import CellStage, InputStage, OutputStage, When
from zolib.noise.point_of_use import PointOfUse
from zolib.noise.preactivations import PreActivations

if TYPE_CHECKING:
    from zolib.hardware.chip import Chip


class Tile(Outputs):
    """A linear layer whose weights are cells of a chip.

    ``weight`` and ``bias`` are parameters, ([S,] ...).  Each read first brings the cells up to date: where the weight
    is not what was last sent, they are written, or get pulses for the change.  What is multiplied with the inputs is
    kept in ``effective`` until the next write, or until time passes.  The bias is digital, added after the converters.

    Gradients take the straight way: that of ``weight`` is that of ``effective``.  A probe on the parameters shakes what
    is stored, so that it reaches the output as a write would, through gains and stuck cells, but without an error and
    without a pulse.
    """

    effective: Tensor
    synced: Tensor
    input_axes: tuple[int, ...] = (-1,)

    def __init__(self, chip: Chip, number: int, layer: nn.Linear | nn.Conv2d, w_max: float | None):
        super().__init__(chip, number, None)
        self.w_max = w_max or layer.weight.detach().abs().max().item() or 1.0
        self.weight = _replicated(layer.weight, chip)
        self.bias = None if layer.bias is None else _replicated(layer.bias, chip)
        self.inputs = nn.ModuleList(s for s in chip.copies() if isinstance(s, InputStage))
        self.cells: Cells | None = None
        simulated = [s for s in chip.stages if isinstance(s, CellStage) or getattr(s, "needs", "") == "cells"]
        w = self.weight.detach()
        self.corrected = False
        self.register_buffer("correction", w.new_ones(chip.lead))
        if simulated:
            self.cells = Cells(chip, (2, *w.shape[self.lead :]), number, w)
            self.gain = self.w_max / self.cells.mapping.range  # weight per microsiemens
            self.register_buffer("synced", w.clone())
            self.register_buffer("effective", w.clone(), persistent=False)
            #: Whether what is kept changes with time.
            self._timed = any(s.when is When.SLOW for s in self.cells.stages) or any(s.timed for s in self.outputs)
            self.cells.program(self._targets(w))
        for stage in self.outputs:
            stage.build(self)

    def read(self, x: Tensor) -> Tensor:
        if torch._C._functorch.maybe_current_level() is not None:
            raise RuntimeError(
                "a chip has one state and cannot be evaluated inside a transform of torch.func, such as vmap; for many "
                "evaluations at once make many chips, n_chips=..."
            )
        x = self.unfolded(x)
        read = Read(self, x)
        for stage in self.inputs:
            read.x = stage(read.x, read)
        w = self.weight if self.cells is None else self._weight()
        chip, rows = self.chip, self._rows(x)
        shape = self.weight.shape[self.lead :]
        self._count(rows, shape.numel(), rows * shape[0])
        if self.inputs:
            chip.counts.inputs += rows * self._fan_in()
        if not (self.outputs or self.corrected):
            y = self.product(read.x, w, self.bias)
        else:
            y, bias = self._before_bias(read.x, w)
            y = self._through(y, read)
            if self.corrected:
                y = y * self.correction.view(*chip.lead, *[1] * (y.ndim - self.lead))
            y = y if bias is None else y + self.spread(bias, y.ndim)
        chip.now += round(rows // (chip.n_chips or 1) * chip.read_time * 1e9)
        return self.folded(y)

    def _before_bias(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor | None]:
        """The product, and the bias that is still to be added.

        Noise on nodes meets weight and bias together, once; then the bias is taken off again for the analog part.
        """
        if self.bias is None or not _modes(self.bias, PreActivations):
            return self.product(x, w), self.bias
        with torch._C.DisableTorchFunction():
            bias = self.bias.detach().clone()
        y = self.product(x, w, self.bias)
        return y - self.spread(bias, y.ndim), bias

    @torch.no_grad()
    def compensate(self) -> None:
        """Multiply the outputs by one number, which brings the mean size of the weights back to what was written."""
        if self.cells is None:
            return
        self._synchronise(self.weight.detach())
        self._refresh()
        meant, found = (w.abs().flatten(self.lead).mean(dim=-1) for w in (self.synced, self.effective))
        self.correction.copy_(torch.where(found > 0, meant / found, 1.0))
        self.corrected = True
        self.chip.counts.reads += self._fan_in() * (self.chip.n_chips or 1)

    def get_extra_state(self) -> dict[str, Any]:
        return {"corrected": self.corrected, "w_max": self.w_max}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.corrected, self.w_max = state["corrected"], state["w_max"]
        if self.cells is not None:
            self.gain = self.w_max / self.cells.mapping.range

    # --- what subclasses say ------------------------------------------------------------------------------------------

    def product(self, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        """The linear map of inputs ([S,] B, ...) with weights of the parameter's shape."""
        raise NotImplementedError

    def _rows(self, x: Tensor) -> int:
        """Vectors that are read for these inputs, on all chips together."""
        raise NotImplementedError

    def _fan_in(self) -> int:
        """Inputs of one vector that is read."""
        return self.weight.shape[self.lead + 1 :].numel()

    # --- for stages ---------------------------------------------------------------------------------------------------

    def per_weight(self) -> Tensor:
        """Zeros of the shape of the weights, for what a stage gives to :meth:`product`."""
        return torch.zeros_like(self.weight.detach())

    def per_output(self) -> Tensor:
        """Zeros, one for each output: ([S,] outputs)."""
        w = self.weight.detach()
        return w.new_zeros(w.shape[: self.lead + 1])

    def spread(self, values: Tensor, dims: int) -> Tensor:
        """([S,] outputs) in a shape that broadcasts to outputs of so many axes."""
        after = -1 - self.unit_axis
        between = dims - values.ndim - after
        return values.view(*values.shape[:-1], *(1,) * between, values.shape[-1], *(1,) * after)

    def normal(self, stage: OutputStage, which: int) -> Tensor:
        """FROZEN normal numbers, one for each output: ([S,] outputs)."""
        return self.chip.normal(self.per_output(), self.number, stage.number, which)

    # --- the cells ----------------------------------------------------------------------------------------------------

    def _targets(self, w: Tensor) -> Tensor:
        """Conductances for weights; those beyond w_max saturate."""
        return self.cells.mapping.split((w / self.w_max).clamp(-1, 1), self.cells.arms)

    def _weight(self) -> Tensor:
        """What is multiplied with the inputs, as a function of the parameter."""
        p = self.weight
        with torch._C.DisableTorchFunction(), torch.no_grad():
            if isinstance(p, nn.Parameter):  # and not a value that stands in for it
                self._synchronise(p.detach())
            self._refresh()
        followed = _modes(p, PreActivations)
        if isinstance(p, nn.Parameter) and (followed or not _modes(p, PointOfUse)):
            if not (followed or torch.is_grad_enabled()):
                return self.effective
            with torch.enable_grad():
                seen = p.view_as(p)  # by a mode, which does not see the next line
                w = _Straight.apply(seen, self.effective)
            for mode in followed:
                mode.stands_for(w, seen)
            return w
        self.chip.counts.probes += p.numel()
        shift = self._targets(p) - self._targets(self.synced)
        return self.cells.mapping.join(self.cells.read(shift), self.cells.arms) * self.w_max

    def _synchronise(self, w: Tensor) -> None:
        """Send the cells what has changed since the last time."""
        if _same(w, self.synced):
            return
        if not bool(w.isfinite().all()):
            raise ValueError("a weight is not finite; the cells were left as they are. Look at the last update")
        beyond = int((w.abs() > self.w_max * (1 + 1e-6)).sum())
        if beyond and not self._warned:
            warnings.warn(
                f"{beyond} of {w.numel()} weights of a layer are beyond w_max={self.w_max:.4g} and saturate there; if "
                "they are to grow, deploy with a larger w_max",
                RuntimeWarning,
                stacklevel=2,
            )
            self._warned = True
        if self.cells.law is None:
            target = self._targets(w)
            self.cells.program(target, target != self._targets(self.synced))
        else:
            self.cells.pulse((w - self.synced) / self.w_max)
        self.synced.copy_(w)
        self._stale = True

    def _refresh(self) -> None:
        if not self._stale and (self._seen == self.chip.now or not self._timed):
            return
        g = self.cells.read()
        self.effective.copy_(self.cells.mapping.join(g, self.cells.arms) * self.w_max)
        for stage in self.outputs:
            stage.refresh(g, self)
        self._stale, self._seen = False, self.chip.now

    def _apply(self, fn: Any, recurse: bool = True) -> Tile:
        self._stale = True  # moved or cast: what is kept is made again
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._stale = True

    _stale, _seen, _warned = True, -1, False


def _modes(p: Tensor, kind: type[PointOfUse]) -> list[Any]:
    """The modes of that kind that put something in the place of a parameter."""
    return [m for m in _get_current_function_mode_stack() if isinstance(m, kind) and id(p) in m._position]


def _replicated(parameter: Tensor, chip: Chip) -> nn.Parameter:
    value = parameter.detach().clone()
    value = value.expand(*chip.lead, *value.shape).clone()
    return nn.Parameter(value, requires_grad=parameter.requires_grad)


def _same(a: Tensor, b: Tensor) -> bool:
    """Whether all values are equal, bit for bit.

    All of them are looked at, at each read: versions of tensors do not count what is written through ``.data``.
    """
    if not (a.is_contiguous() and b.is_contiguous() and a.dtype == b.dtype and a.shape == b.shape):
        return torch.equal(a, b)
    if _memcmp is not None and a.is_cpu and b.is_cpu:  # less than half the time of torch.equal
        return _memcmp(a.data_ptr(), b.data_ptr(), a.nbytes) == 0
    if a.nbytes % 8 == 0:
        a, b = a.view(-1).view(torch.int64), b.view(-1).view(torch.int64)
    return torch.equal(a, b)


try:
    _memcmp = ctypes.CDLL(None).memcmp
    _memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
except (TypeError, OSError, AttributeError):  # Windows has no C library under no name
    _memcmp = None


class _Straight(torch.autograd.Function):
    """The second argument, with the gradient of the first."""

    @staticmethod
    def forward(parameter: Tensor, value: Tensor) -> Tensor:
        return value.clone()  # what is kept may be made again before a backward pass

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
