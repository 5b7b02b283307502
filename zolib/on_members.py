"""Evaluating the members of a population: together in one batched pass, or one after another where that cannot be."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from zolib.directions import CHUNK, Directions
from zolib.errors import LossError, ParameterError
from zolib.evaluation import State
from zolib.noise import stream
from zolib.noise.members import Members, level_of
from zolib.noise.rounding import shifted
from zolib.probes import LowRank
from zolib.subject import Subject, as_trainable


class Given(NamedTuple):
    """What is evaluated: ``run(leaves)`` is the loss.  split: which leaves have a leading axis of members."""

    run: Callable[[Sequence[Any]], Any]
    leaves: Sequence[Any]
    split: Sequence[int]

    def closure(self, mine: Sequence[Tensor]) -> Callable[[], Any]:
        """A closure, with these in place of the leaves that are split."""
        leaves = list(self.leaves)
        for i, leaf in zip(self.split, mine, strict=True):
            leaves[i] = leaf
        return partial(self.run, leaves)


class OnMembers:
    """Evaluates the members of a step: of each draw one for each sign, theta + sign sigma z, which are neighbours.

    ``alone`` says that they could not be batched.
    """

    def __init__(self, subject: Subject, unused: str):
        self.subject, self.unused, self.alone = subject, unused, False
        subject.source = "f(model, ...)"

    def losses(self, given: Given, directions: Directions, signed: Sequence[float], chunk: int) -> Tensor:
        """The loss of every member, (members,), ``chunk`` at a time, a multiple of the signs.

        signed: sign sigma for each sign.  State is left as after one evaluation; after an error, as before.
        """
        state = self.subject.state()
        members = directions.samples * len(signed)
        try:
            if not self.alone:
                try:
                    return self._together(given, directions, signed, range(0, members, chunk), state)
                except (LossError, ParameterError, torch.OutOfMemoryError):
                    raise
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
                state.restore()
                losses = self._one_by_one(given, directions, signed, range(members), state)  # or what is wrong with f
                self.alone = True
                warnings.warn(
                    f"Population evaluates its members one after another, since they cannot be batched: {reason}",
                    RuntimeWarning,
                    stacklevel=3,
                )
                return losses
            return self._one_by_one(given, directions, signed, range(members), state)
        except BaseException:
            state.restore()
            raise

    def _together(
        self, given: Given, directions: Directions, signed: Sequence[float], starts: range, state: State
    ) -> Tensor:
        losses: list[Tensor] = []
        for start in starts:
            if losses:
                state.restore()
            stop = min(start + starts.step, starts.stop)
            drawn = Drawn(directions, range(start // len(signed), stop // len(signed)), signed)

            def one(index: Tensor, *mine: Tensor, drawn: Drawn = drawn) -> Tensor:
                seam = partial(
                    Members, factors=drawn.factors, scales=drawn.scales, count=drawn.count, level=level_of(index)
                )
                self.subject.closure = given.closure(mine)
                return self.subject.evaluate(drawn.written, self.unused, seam)

            mine = [given.leaves[i][start:stop] for i in given.split]
            losses.append(vmap(one, randomness="same")(torch.arange(stop - start), *mine))
        return torch.cat(losses)

    def _one_by_one(
        self, given: Given, directions: Directions, signed: Sequence[float], members: range, state: State
    ) -> Tensor:
        losses: list[Tensor] = []
        for member in members:
            if losses:
                state.restore()
            self.subject.closure = given.closure([given.leaves[i][member] for i in given.split])
            k, sign = divmod(member, len(signed))

            def value(j: int, k: int = k, scale: float = signed[sign]) -> Tensor:
                return as_trainable(directions.perturbed(k, j, scale), directions.targets[j].value)

            losses.append(self.subject.evaluate(value, self.unused))
        return torch.stack(losses)


class Drawn:
    """The perturbations of some members: of some draws, each with every sign."""

    def __init__(self, directions: Directions, draws: range, signed: Sequence[float]):
        self._of, self._draws, self._signed = directions, draws, signed
        self.count = len(draws) * len(signed)
        self._law = law = directions.probe if isinstance(directions.probe, LowRank) else None
        self._raw: list[Tensor] = []
        if law and law.size(directions.targets) * len(draws) <= CHUNK:  # one call draws for all targets
            self._raw = law.raw(directions.targets, directions.seed, directions.step, draws)
        self.scales = [s / law.rank**0.5 for s in signed] if law else signed
        self._signs: dict[tuple[torch.dtype, torch.device], Tensor] = {}

    def factors(self, j: int) -> tuple[Tensor, Tensor] | None:
        """a (draws, rows, r) and b (draws, columns, r) of a matrix, in its own precision."""
        target = self._of.targets[j]
        if self._law is None or target.value.ndim < 2:
            return None
        return self._law.factors(target, self._normals(j).to(target.value.dtype))

    def written(self, j: int) -> Tensor:
        """Target j of every member, (members, *shape)."""
        of, target = self._of, self._of.targets[j]
        value = target.value.detach()
        shape = (len(self._draws), 1, *value.shape)
        if self._law is None:
            z = torch.stack([of(k, j) for k in self._draws])
        else:  # of this target alone: all together would be matrices, written out
            z = self._law.made(target, self._normals(j))

        def bits() -> Tensor:
            part = [(target.number, value.numel())]
            return stream.draw(stream.ROUNDING, of.seed, of.step, self._draws, part, value.device)[0].view(shape)

        return shifted(value, z.view(shape), self._scale(value), bits).flatten(0, 1)

    def _normals(self, j: int) -> Tensor:
        assert self._law is not None
        of = self._of
        return self._raw[j] if self._raw else self._law.raw([of.targets[j]], of.seed, of.step, self._draws)[0]

    def _scale(self, like: Tensor) -> Tensor:
        """sign sigma, (signs, 1, ...), in float32 at least."""
        key = torch.promote_types(like.dtype, torch.float32), like.device
        if key not in self._signs:
            self._signs[key] = torch.tensor(self._signed, dtype=key[0], device=key[1])
        return self._signs[key].view(-1, *[1] * like.ndim)


class FactoredDirections(Directions):
    """Directions of low rank, summed as products of their factors: none is written out."""

    def sums(self, coefficients: Sequence[float]) -> list[Tensor]:
        assert isinstance(self.probe, LowRank)
        totals = []
        for target in self.targets:
            value, total = target.value, None
            step = max(1, 8 * CHUNK // max(1, self.probe.size([target])))  # samples at a time
            for first in range(0, len(coefficients), step):
                some = range(first, min(first + step, len(coefficients)))
                z = self.probe.raw([target], self.seed, self.step, some)[0]
                c = torch.tensor(coefficients[first : some.stop], dtype=torch.float32, device=value.device)
                if value.ndim > 1:
                    a, b = self.probe.factors(target, z)  # (samples, rows, r), (samples, columns, r)
                    a = a * (c / self.probe.rank**0.5).view(-1, 1, 1)
                    part = a.transpose(0, 1).flatten(1) @ b.transpose(0, 1).flatten(1).mT
                else:
                    part = c @ z
                total = part if total is None else total.add_(part)
            assert total is not None
            totals.append(total.view(value.shape).to(torch.promote_types(value.dtype, torch.float32)))
        return totals
