"""An estimate of a gradient: directions that can be drawn again, and one coefficient for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from zolib.directions import Directions
from zolib.noise import stream
from zolib.probes import PROBES, Target


class Estimate:
    """An estimate of the gradient of a loss.  ``loss`` is the value reported with it, None where it has none."""

    loss: Tensor | None = None

    def gradients(self) -> list[tuple[Tensor, Tensor]]:
        """Pairs (parameter, gradient), in the parameter's shape and dtype."""
        raise NotImplementedError

    def accumulate(self) -> None:
        """Add the gradients to ``.grad``, as ``loss.backward()`` does."""
        for parameter, g in self.gradients():
            parameter.grad = g if parameter.grad is None else parameter.grad + g


@dataclass
class Dense(Estimate):
    """An estimate that is held as tensors: node noise has an eligibility, not a direction that a seed gives back."""

    pairs: list[tuple[Tensor, Tensor]]
    loss: Tensor | None = None

    def gradients(self) -> list[tuple[Tensor, Tensor]]:
        return self.pairs


@dataclass
class Replay(Estimate):
    """An estimate as a list of seeds and coefficients: g = sum over terms and samples of coefficient times direction.

    It takes memory for its coefficients however many parameters there are; the directions are drawn again when asked
    for.  Estimates of the same parameters can be added, scaled and averaged, and written as plain numbers.

    Attributes:
        terms: Directions, and one coefficient for each of their samples.
        skipped: Positions of targets that no evaluation consumed; they get no gradient.
    """

    terms: list[tuple[Directions, list[float]]]
    skipped: frozenset[int] = frozenset()
    loss: Tensor | None = None

    @classmethod
    def mean(cls, directions: Directions, slopes: Tensor, skipped: Iterable[int] = ()) -> Replay:
        """The mean over samples of weight times slope times direction.  slopes: (K,)."""
        weight = directions.probe.weight(directions.d) / directions.samples
        return cls([(directions, (slopes * weight).tolist())], frozenset(skipped))

    @property
    def targets(self) -> Sequence[Target]:
        return self.terms[0][0].targets

    def dense(self) -> list[Tensor]:
        """The gradient itself, for each target, in the target's dtype.

        Summed in float32 at least, over the samples of each term, then over the terms.
        """
        (first, coefficients), *rest = self.terms
        sums = first.sums(coefficients)
        for directions, coefficients in rest:
            for total, more in zip(sums, directions.sums(coefficients), strict=True):
                total.add_(more)
        return [total.to(t.value.dtype) for total, t in zip(sums, self.targets, strict=True)]

    def gradients(self) -> list[tuple[Tensor, Tensor]]:
        pairs = zip(self.targets, self.dense(), strict=True)
        return [(target.value, g) for j, (target, g) in enumerate(pairs) if j not in self.skipped]

    def __add__(self, other: Replay) -> Replay:
        if not isinstance(other, Replay):
            return NotImplemented
        if _form(self.targets) != _form(other.targets):
            raise ValueError("the two estimates are of different parameters: numbers and shapes must agree")
        return Replay(self.terms + other.terms, self.skipped & other.skipped)

    def __mul__(self, factor: float) -> Replay:
        terms = [(directions, [c * factor for c in coefficients]) for directions, coefficients in self.terms]
        return Replay(terms, self.skipped)

    __rmul__ = __mul__

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, for json: a few bytes for each coefficient."""
        return {
            "stream": stream.VERSION,
            "parameters": _form(self.targets),
            "skipped": sorted(self.skipped),
            "terms": [
                {
                    "probe": [type(d.probe).__name__, asdict(d.probe)],  # type: ignore[call-overload]
                    "seed": d.seed,
                    "step": d.step,
                    "coefficients": c,
                }
                for d, c in self.terms
            ],
        }

    @classmethod
    def from_dict(cls, record: dict[str, Any], targets: Sequence[Target]) -> Replay:
        """The estimate that :meth:`to_dict` wrote, of these targets.

        Raises:
            ValueError: The record belongs to another stream version, other parameters or an unknown probe.
        """
        if record["stream"] != stream.VERSION:
            raise ValueError(
                f"record: stream version {record['stream']}, but this zolib draws version {stream.VERSION}"
            )
        if [list(form) for form in record["parameters"]] != _form(targets):
            raise ValueError("record: its parameters have other places or shapes than these")
        known = {probe.__name__: probe for probe in PROBES.values()}
        terms = []
        for term in record["terms"]:
            name, settings = term["probe"]
            if name not in known:
                raise ValueError(f"record: probe {name!r} is not known; known are {', '.join(sorted(known))}")
            samples = len(term["coefficients"])
            terms.append(
                (
                    Directions(known[name](**settings), targets, term["seed"], term["step"], samples),
                    term["coefficients"],
                )
            )
        return cls(terms, frozenset(record["skipped"]))


def _form(targets: Sequence[Target]) -> list[list[Any]]:
    return [[t.number, list(t.value.shape)] for t in targets]
