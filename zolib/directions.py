"""The directions of one step: noise that can be drawn again, at any size of parameter and any precision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from zolib.noise import fused, stream
from zolib.noise.rounding import shifted
from zolib.probes import Gaussian, Probe, Rademacher, Target

#: Directions are drawn for as many samples at once as this many numbers hold; above it, one parameter at a time.
CHUNK = 1 << 21
#: Probes whose directions are nothing but a law of the stream.
LAWS: dict[type[Probe], int] = {Rademacher: stream.SIGN, Gaussian: stream.NORMAL}


class Directions:
    """The directions of one step, ``z(k, j)`` for sample ``k`` and the ``j``-th target: a function, not a store.

    Raises ValueError if the probe cannot draw that many samples.
    """

    def __init__(self, probe: Probe, targets: Sequence[Target], seed: int, step: int, samples: int):
        self.probe, self.targets, self.seed, self.step, self.samples = probe, targets, seed, step, samples
        self.d = sum(t.value.numel() for t in targets)
        probe.validate(self.d, samples)
        self.law = LAWS.get(type(probe))
        alone = [self.law is not None and fused.redrawn(t.value, self.law) for t in targets]
        self._group = [t for t, one in zip(targets, alone, strict=True) if not one]  # drawn for many samples at once
        self._place = {j: i for i, j in enumerate(j for j, one in enumerate(alone) if not one)}
        self._size = sum(t.value.numel() for t in self._group)
        if self._size > CHUNK and probe.block == 1:
            self._place, self._group, self._size = {}, [], 0
        self._drawn: list[Tensor] = []
        self._range = range(0)
        self._factor: tuple[int, Tensor | None] = (-1, None)
        self._bits: dict[int, Tensor] = {}

    def __call__(self, k: int, j: int) -> Tensor:
        """float32, of the target's shape, on its device."""
        shape = self.targets[j].value.shape
        if j not in self._place:
            return self._alone(k, j).view(shape)
        if k not in self._range:
            block = self.probe.block
            first, blocks = k // block, max(1, CHUNK // max(1, self._size * block))
            self._range = range(first * block, min(-(-self.samples // block), first + blocks) * block)
            self._bits.clear()
            raw = self.probe.draw(self._group, self.d, self.seed, self.step, self._range)
            raw = self.probe.together(raw, self.d)
            factor = self.probe.factor(raw, self.d)
            self._drawn = raw if factor is None else [z * factor.to(z.device).unsqueeze(1) for z in raw]
        return self._drawn[self._place[j]][k - self._range.start].view(shape)

    def _alone(self, k: int, j: int) -> Tensor:
        """One parameter's part of one direction, without drawing the rest at once."""
        one = range(k, k + 1)
        if self._factor[0] != k:
            raw = (self.probe.draw([t], self.d, self.seed, self.step, one)[0] for t in self.targets)
            self._factor = (k, self.probe.factor(raw, self.d))
        z = self.probe.draw([self.targets[j]], self.d, self.seed, self.step, one)[0][0]
        factor = self._factor[1]
        return z if factor is None else z * factor.to(z.device)

    def perturbed(self, k: int, j: int, scale: float) -> Tensor:
        """``theta + scale z(k)`` for one target, in its own precision.  A pair +scale, -scale shares rounding bits."""
        target = self.targets[j]
        if self.law is not None and j not in self._place:
            return fused.perturbed(target.value, self.law, self.seed, self.step, k, target.number, scale)
        return shifted(target.value, self(k, j), scale, partial(self._rounding_bits, k, j))

    def sums(self, coefficients: Sequence[float]) -> list[Tensor]:
        """``sum_k c_k z(k)`` for each target, added in the order of the samples; float32, float64 for float64."""
        values = [t.value for t in self.targets]
        totals = [
            torch.zeros(v.shape, dtype=torch.promote_types(v.dtype, torch.float32), device=v.device) for v in values
        ]
        one_by_one = list(range(len(values)))
        if self.law is not None:
            one_by_one = list(self._place)
            terms = [fused.Term(self.seed, self.step, k, c) for k, c in enumerate(coefficients)]
            for j in set(range(len(values))).difference(one_by_one):
                fused.update_(totals[j], self.law, terms, self.targets[j].number)
        for k, c in enumerate(coefficients):
            for j in one_by_one:
                totals[j].add_(self(k, j).to(totals[j].dtype) * c)
        return totals

    def _rounding_bits(self, k: int, j: int) -> Tensor:
        """int32 in [0, 2**16), of the target's shape, from a stream of their own.  Called after z(k, j)."""
        target = self.targets[j]
        samples = self._range if j in self._place else range(k, k + 1)
        bits = self._bits.get(j)
        if bits is None:
            part = [(target.number, target.value.numel())]
            bits = stream.draw(stream.ROUNDING, self.seed, self.step, samples, part, target.value.device)[0]
            if j in self._place:
                self._bits[j] = bits
        return bits[k - samples.start].view(target.value.shape)
