"""Probes: where the noise enters, and of what law.

A parameter probe draws a direction ``z`` in the space of all trainable parameters, d numbers in all.  Feedback turns
the values at theta + sigma z into a coefficient c, and the estimate of the gradient is the mean over K samples of
``weight * c * z``.  Each probe here has E[weight z z^T] = I, so that the estimate tends to the gradient as sigma goes
to 0.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor

from zolib.noise import stream

if TYPE_CHECKING:
    from zolib.experiment import Experiment
    from zolib.subject import Subject

T = TypeVar("T")


class Target(NamedTuple):
    """One tensor to probe."""

    number: int  # its place in the traversal of all parameters, frozen ones included: what the stream knows it by
    offset: int  # how many probed numbers come before it
    name: str
    value: Tensor


class Probe:
    """What a parameter probe answers.  Subclasses give the law.

    ``scale`` says what the estimate's mean is as sigma goes to 0, with a feedback that gives slopes: the
    ``"gradient"``, or only its ``"direction"``.  ``where`` says what the noise sits on.  Samples are drawn in blocks of
    ``block`` that belong together.

    ``axes`` says what the axes of a vector loss are.  With ``("replica",)`` there are learners side by side, parameters
    of shape (S, ...) and losses (S,), and each gets its own gradient.  None: what the model says, as a deployed one
    does, or that there are none.
    """

    axes: tuple[str, ...] | None = None
    scale: ClassVar[str] = "gradient"
    where: ClassVar[str] = "weights"
    block: int = 1

    def draw(self, targets: Sequence[Target], d: int, seed: int, step: int, samples: range) -> list[Tensor]:
        """Raw values of several samples, one float32 tensor of shape (len(samples), numel) for each target.

        targets: any of those that are probed, d numbers in all.  What is drawn for one does not depend on the others.
        """
        raise NotImplementedError

    def factor(self, raw: Iterable[Tensor], d: int) -> Tensor | None:
        """A factor for each sample that depends on all its values together, (len(samples),); None where it is 1."""
        return None

    def together(self, raw: list[Tensor], d: int) -> list[Tensor]:
        """What depends on all values of a block of samples; raw as from draw, whole blocks of all targets."""
        return raw

    def weight(self, d: int) -> float:
        """The factor that makes E[weight z z^T] the identity."""
        return 1.0

    def validate(self, d: int, samples: int) -> None:
        """Raise ValueError if ``samples`` directions cannot be drawn in ``d`` dimensions."""

    def experiment(self, subject: Subject, seed: int, step: int, samples: int, unused: str) -> Experiment | None:
        """For a probe that shakes something other than parameters: what is evaluated instead.  None otherwise."""
        return None


def _axes() -> Any:
    """The field of a law that says what the axes of a loss are: by keyword, and seldom of interest in a repr."""
    return field(default=None, kw_only=True, repr=False)


def _draw(
    law: int, targets: Sequence[Target], seed: int, step: int, samples: range, counts: Sequence[int] = ()
) -> list[Tensor]:
    """One law of the stream over several targets, each on its own device: ``counts`` values, or one per element."""
    counts = counts or [t.value.numel() for t in targets]
    drawn: dict[int, Tensor] = {}
    for device in {t.value.device for t in targets}:
        here = [(t.number, count) for t, count in zip(targets, counts, strict=True) if t.value.device == device]
        drawn |= zip((number for number, _ in here), stream.draw(law, seed, step, samples, here, device), strict=True)
    return [drawn[t.number] for t in targets]


@dataclass(frozen=True)
class Gaussian(Probe):
    """Independent standard normal directions: z ~ N(0, I).

    E|g_hat|^2 = (d + K + 1)/K |g|^2 for K samples as sigma goes to 0.  At any sigma its expectation is exactly the
    gradient of the objective smoothed by a Gaussian of width sigma (Stein's lemma; Nesterov and Spokoiny 2017, sec. 2).
    """

    axes: tuple[str, ...] | None = _axes()

    def draw(self, targets: Sequence[Target], d: int, seed: int, step: int, samples: range) -> list[Tensor]:
        return _draw(stream.NORMAL, targets, seed, step, samples)


@dataclass(frozen=True)
class Rademacher(Probe):
    """Independent fair signs: each z_i is +1 or -1, as in SPSA (Spall 1992).

    E|g_hat|^2 = (d + K - 1)/K |g|^2 for K samples as sigma goes to 0: the least that independent directions allow.  One
    random bit per parameter.
    """

    axes: tuple[str, ...] | None = _axes()

    def draw(self, targets: Sequence[Target], d: int, seed: int, step: int, samples: range) -> list[Tensor]:
        return _draw(stream.SIGN, targets, seed, step, samples)


@dataclass(frozen=True)
class Sphere(Probe):
    """Directions uniform on the sphere of radius sqrt(d), joint over all parameters: a normalised Gaussian.

    E|g_hat|^2 = (d + K - 1)/K |g|^2 for K samples as sigma goes to 0.  Every probe has the same length, sigma sqrt(d).
    """

    axes: tuple[str, ...] | None = _axes()

    def draw(self, targets: Sequence[Target], d: int, seed: int, step: int, samples: range) -> list[Tensor]:
        return _draw(stream.NORMAL, targets, seed, step, samples)

    def factor(self, raw: Iterable[Tensor], d: int) -> Tensor:
        # Squares are summed as multiples of 2^-24, in integers: exact, so the order of summation cannot show
        squares = sum((z * z * 2.0**24).round().to(torch.int64).sum(dim=1).cpu() for z in raw)
        return (d * 2.0**24 / torch.as_tensor(squares).double()).sqrt().float()


@dataclass(frozen=True)
class Coordinate(Probe):
    """One parameter at a time, drawn without replacement: z = e_i, weighted by d.

    ``samples=d`` is the full difference quotient, coordinate by coordinate, and has no variance; with fewer samples
    E|g_hat|^2 = d/K |g|^2.  Where a forward pass rounds its activations to half precision, one coordinate alone may
    move none of them and its slope is lost; the other probes shake everything, and cross those steps at random.
    """

    axes: tuple[str, ...] | None = _axes()

    def draw(self, targets: Sequence[Target], d: int, seed: int, step: int, samples: range) -> list[Tensor]:
        # asked for one chunk after another: drawing a power of two at a time lets the chunks share one draw
        chosen = _distinct(seed, step, min(d, 1 << (samples.stop - 1).bit_length()), d)
        where = torch.tensor(chosen[samples.start : samples.stop], device="cpu")
        directions = []
        for target in targets:
            size = target.value.numel()
            z = torch.zeros(len(samples), size, dtype=torch.float32, device="cpu")
            rows = torch.nonzero((where >= target.offset) & (where < target.offset + size)).flatten()
            z[rows, where[rows] - target.offset] = 1.0
            directions.append(z.to(target.value.device))
        return directions

    def weight(self, d: int) -> float:
        return float(d)

    def validate(self, d: int, samples: int) -> None:
        if samples > d:
            raise ValueError(
                f"samples={samples} is more than the {d} coordinates there are; Coordinate draws them without "
                f"replacement, so samples={d} is already the full difference quotient"
            )


@dataclass(frozen=True)
class LowRank(Probe):
    """Matrices of low rank: z = (a_1 b_1^T + ... + a_r b_r^T) / sqrt(r), all factors standard normal (EGGROLL).

    A parameter of shape (m, ...) counts as a matrix with m rows; a vector is drawn in full.  The entries of z are
    uncorrelated, so the estimate tends to the gradient, but they are not independent: for one matrix of m rows and n
    columns and rank 1, E|g_hat|^2 = (m + 2)(n + 2) |g|^2 with one sample, against m n + 2 for a Gaussian.  What it buys
    is a cheap forward pass.  Source: Sarkar et al., arXiv:2511.16652 (later than the review).
    """

    rank: int = 1
    axes: tuple[str, ...] | None = _axes()

    def __post_init__(self):
        if not isinstance(self.rank, int) or self.rank < 1:
            raise ValueError(f"rank must be a whole number of at least 1, got {self.rank!r}")

    def draw(self, targets: Sequence[Target], d: int, seed: int, step: int, samples: range) -> list[Tensor]:
        return [self.made(t, z) for t, z in zip(targets, self.raw(targets, seed, step, samples), strict=True)]

    def raw(self, targets: Sequence[Target], seed: int, step: int, samples: range) -> list[Tensor]:
        """The normals that directions are made of, (len(samples), n): a vector's elements, a matrix's factors."""
        return _draw(stream.NORMAL, targets, seed, step, samples, [self.size([t]) for t in targets])

    def size(self, targets: Sequence[Target]) -> int:
        """How many normals make one direction."""
        return sum(sum(_sides(t)) * self.rank if t.value.ndim > 1 else t.value.numel() for t in targets)

    def made(self, target: Target, raw: Tensor) -> Tensor:
        """The directions themselves, (samples, numel)."""
        if target.value.ndim < 2:
            return raw
        a, b = self.factors(target, raw)
        return (a @ b.mT / self.rank**0.5).flatten(1)

    def factors(self, target: Target, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Of a matrix with m rows and n columns: a (samples, m, r) and b (samples, n, r)."""
        (rows, columns), samples = _sides(target), raw.shape[0]
        a, b = raw[:, : rows * self.rank], raw[:, rows * self.rank :]
        return a.view(samples, rows, self.rank), b.view(samples, columns, self.rank)


def _sides(target: Target) -> tuple[int, int]:
    """Rows and columns of a parameter as a matrix."""
    return target.value.shape[0], target.value.shape[1:].numel()


@dataclass(frozen=True)
class Orthogonal(Probe):
    """Directions at right angles within each block of ``block`` samples, each of length sqrt(d), uniform otherwise.

    E|g_hat|^2 = d/K |g|^2 for K = block samples, and the squared cosine to the gradient is K/d on average: what
    coordinates give, with directions that shake everything.  Costs a QR decomposition of d x block numbers, kept in
    memory.  LAPACK's last bits differ between machines, and so do these directions.
    """

    block: int = 8
    axes: tuple[str, ...] | None = _axes()

    def __post_init__(self):
        if not isinstance(self.block, int) or self.block < 1:
            raise ValueError(f"block must be a whole number of at least 1, got {self.block!r}")

    def draw(self, targets: Sequence[Target], d: int, seed: int, step: int, samples: range) -> list[Tensor]:
        return _draw(stream.NORMAL, targets, seed, step, samples)

    def together(self, raw: list[Tensor], d: int) -> list[Tensor]:
        z = torch.cat([part.cpu() for part in raw], dim=1).double()  # (samples, d)
        blocks = z.view(-1, self.block, d)
        q, r = torch.linalg.qr(blocks.mT)  # the signs of r's diagonal make the law uniform
        z = (q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)).mT.reshape(z.shape) * d**0.5
        parts = z.float().split([part.shape[1] for part in raw], dim=1)
        return [part.to(original.device) for part, original in zip(parts, raw, strict=True)]

    def validate(self, d: int, samples: int) -> None:
        if self.block > d:
            raise ValueError(
                f"block={self.block} directions cannot be orthogonal in {d} dimensions; use block={d} or less"
            )


_distinct = lru_cache(maxsize=8)(stream.distinct)


def named(kind: str, given: object, known: dict[str, type[T]], base: type[T]) -> T:
    """An object from an argument that is one, or that names one; the nearest known name helps where none fits."""
    if isinstance(given, base):
        return given
    if isinstance(given, str):
        if given in known:
            return known[given]()
        near = difflib.get_close_matches(given, known, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{kind}={given!r} is not known.{hint} Known: {', '.join(sorted(known))}")
    if isinstance(given, type) and issubclass(given, base):
        raise TypeError(f"{kind}={given.__name__} is the class; pass an object, {given.__name__}()")
    raise TypeError(f"{kind} must be a {base.__name__} or the name of one ({', '.join(sorted(known))}), got {given!r}")


PROBES: dict[str, type[Probe]] = {
    "gaussian": Gaussian,
    "rademacher": Rademacher,
    "sphere": Sphere,
    "coordinate": Coordinate,
    "low-rank": LowRank,
    "orthogonal": Orthogonal,
}
