"""Before training: can this closure be probed, how noisy is it, and how hard should it be shaken?"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zolib.directions import Directions
from zolib.evaluation import as_double
from zolib.experiment import OnParameters
from zolib.noise.seeds import as_seed
from zolib.probes import PROBES, Probe, named
from zolib.subject import Subject, quiet_torch

_DIRECTIONS = 4
_LADDER = [10.0 ** (e / 2) for e in range(-14, 1)]  # probe sizes tried, 1e-7 to 1
_FINE, _ORDER = 12, 6  # intervals and order of the difference table that measures the noise
_UNCHECKED = {  # by where the noise sits
    "activities": "draws noise anew for each pass; check probe=zo.Nodes(), which shakes the same place by the same law",
    "nothing": "shakes nothing; check the probe on weights or on nodes that you compare it with",
}


@dataclass(frozen=True)
class Report:
    """What :func:`check` found.  Print it, or read its fields.

    Attributes:
        consumed: Names of the trainable parameters that an evaluation asked for; with noise on nodes, those that it
            reaches.
        unused: Names of the others.
        dimension: How many numbers are shaken: weights, or units (of one example, where each has its own loss).
        deterministic: Whether the closure gave the same loss each time from the same state.
        dtype: Of the loss.
        loss: Its value, the mean over examples.
        noise: Standard deviation s of one evaluation about a smooth function, from rounding and sampling.
        slope: Root mean square slope along a direction.
        curvature: The cubic term B of the bias B sigma^2 of a two-point slope, root mean square over directions;
            nan where it was lost in the noise.
        sigma: The probe size to start with.
        signal_to_noise: Slope over the deviation of its noise, s / (sqrt(2) sigma), at that sigma.
    """

    consumed: list[str]
    unused: list[str]
    dimension: int
    deterministic: bool
    dtype: torch.dtype
    loss: float
    noise: float
    slope: float
    curvature: float
    sigma: float
    signal_to_noise: float

    def __str__(self) -> str:
        lines = [
            f"parameters   {len(self.consumed)} consumed, {self.dimension} numbers shaken",
            f"loss         {self.loss:.4g} ({str(self.dtype).removeprefix('torch.')})",
            f"repeatable   {'yes' if self.deterministic else 'no: the same state gave two losses'}",
            f"noise        {self.noise:.1e} per evaluation",
            f"slope        {self.slope:.2g} along a direction",
            f"sigma        {self.sigma:.0e} to start with, signal to noise {self.signal_to_noise:.2g}",
        ]
        if self.unused:
            lines.insert(1, f"unused       {', '.join(self.unused)}: freeze them or pass unused='skip'")
        if not self.deterministic:
            lines.append("advice       draw the batch outside the closure, and seed any generator that it owns")
        elif self.signal_to_noise < 10:
            lines.append("advice       the slope is close to the noise: more precision in the loss, or more samples")
        return "\n".join(lines)


def check(
    closure: Callable[[], Any],
    model: nn.Module | Iterable[Tensor],
    *,
    probe: Probe | str = "rademacher",
    seed: int | None = None,
) -> Report:
    """Try a closure before training on it.  About 180 evaluations; nothing is changed.

    The noise s of one evaluation comes from a table of differences at closely spaced points, in which a smooth function
    vanishes and independent errors do not (Moré and Wild, "Estimating computational noise", SIAM J. Sci. Comput. 33,
    2011).  A two-point slope at probe size sigma has the bias B sigma^2 and the noise s / (sqrt(2) sigma); B comes from
    slopes at neighbouring sizes, and the sum of squares is least at

        sigma* = (s^2 / 4 B^2)^(1/6).

    Args:
        closure, model, probe, seed: As for :func:`zolib.backward`.  One loss per example is averaged.

    Returns:
        A :class:`Report`.  Parameters that are not consumed are reported, not refused.

    Raises:
        ValueError, TypeError, LossError, ParameterError: As :func:`zolib.backward`; and TypeError for a probe that
            cannot go back and forth along one direction.

    >>> import torch, zolib as zo
    >>> model = torch.nn.Linear(3, 1)
    >>> report = zo.check(lambda: model(torch.ones(8, 3)).square().mean(), model, seed=0)
    >>> report.consumed, report.deterministic
    (['weight', 'bias'], True)
    """
    chosen = named("probe", probe, PROBES, Probe)
    name = type(chosen).__name__
    if chosen.where in _UNCHECKED:
        raise TypeError(f"probe={name}() cannot be checked: it {_UNCHECKED[chosen.where]}")
    subject, key = Subject(closure, model, name), as_seed(seed)
    samples = min(_DIRECTIONS, sum(t.value.numel() for t in subject.targets))
    experiment = chosen.experiment(subject, key, 0, samples, "skip")
    if experiment is None:
        experiment = OnParameters(subject, Directions(chosen, subject.targets, key, 0, samples), "skip")
    state = experiment.state()

    def at(k: int | None, scale: float) -> Tensor:
        """The loss at theta + scale z(k), or at theta: (), or (B,)."""
        state.restore()
        return experiment.evaluate(k, scale)

    def along(k: int, scales: Iterable[float]) -> Tensor:
        """Losses at theta + scale z(k), (len(scales),) float64."""
        return _means([at(k, scale) for scale in scales])

    try:
        with quiet_torch():
            plain = [at(None, 0.0) for _ in range(3)]
            table = torch.stack([along(k, [s * sign for s in _LADDER for sign in (1, -1)]) for k in range(samples)])
            slopes = (table[:, 0::2] - table[:, 1::2]) / 2 / torch.tensor(_LADDER, dtype=torch.float64, device="cpu")
            state.restore()
            shaken = experiment.shaken()
            fine = _spacing(shaken)
            noise = _difference_noise(
                torch.stack([along(k, [i * fine for i in range(_FINE + 1)]) for k in range(samples)])
            )
    finally:
        state.restore()
    values, examples = _means(plain), plain[0].numel()
    place = torch.finfo(plain[0].dtype).eps / math.sqrt(examples)  # examples round independently
    noise = max(noise, place * abs(values[0].item()) / math.sqrt(12))
    rounding = place * table.abs().amax(dim=0)[0::2]  # larger losses round more
    curvature, sigma = _best_sigma(slopes, noise, rounding.clamp(min=noise), fine)
    near = min(range(len(_LADDER)), key=lambda i: abs(math.log(_LADDER[i] / sigma)))
    slope = slopes[:, near].square().mean().sqrt().item()
    names = [t.name for t in subject.targets]
    return Report(
        consumed=[n for j, n in enumerate(names) if j in subject.consumed],
        unused=[n for j, n in enumerate(names) if j not in subject.consumed],
        dimension=sum(t.numel() for t in shaken) // examples,
        deterministic=len(set(values.tolist())) == 1,
        dtype=plain[0].dtype,
        loss=values[0].item(),
        noise=noise,
        slope=slope,
        curvature=curvature,
        sigma=sigma,
        signal_to_noise=slope * math.sqrt(2) * sigma / noise if noise else math.inf,
    )


def _means(losses: list[Tensor]) -> Tensor:
    """Each loss, or its mean over examples: (len(losses),) float64."""
    return as_double(losses).view(len(losses), -1).mean(dim=1)


def _spacing(shaken: list[Tensor]) -> float:
    """A few units in the last place of a typical weight or unit: far enough for rounding errors to differ."""
    widths = [torch.finfo(t.dtype).eps * t.double().square().mean().sqrt().item() for t in shaken if t.numel()]
    return 8 * (max(widths) or torch.finfo(shaken[0].dtype).eps)


def _difference_noise(values: Tensor) -> float:
    """Standard deviation of independent errors in values at equally spaced points, (samples, points).

    The k-th difference of independent errors of deviation s has variance s^2 (2k)!/(k!)^2; of a smooth function it is
    of order spacing^k.
    """
    k = _ORDER
    gamma = math.factorial(k) ** 2 / math.factorial(2 * k)
    return (gamma * values.diff(n=k, dim=1).square().mean()).sqrt().item()


def _best_sigma(slopes: Tensor, noise: float, errors: Tensor, least: float) -> tuple[float, float]:
    """The cubic term B and the probe size of least error, from slopes (samples, ladder) with errors (ladder,).

    Between neighbours of the ladder, a factor 10^(1/2), the bias grows by 9 B sigma^2, and so do these changes from one
    pair to the next, by a factor 10.  The first place is used where two changes in a row are ten times what the noise
    explains and grow by a factor from 4 to 25: before it noise rules, far behind it higher terms do.
    """
    ladder = torch.tensor(_LADDER, dtype=torch.float64, device="cpu")
    change = slopes.diff(dim=1).square().mean(dim=0).sqrt()  # (ladder - 1,)
    clear = change > 10 * errors[:-1] / (math.sqrt(2) * ladder[:-1])
    growth = change[1:] / change[:-1]
    found = torch.nonzero(clear[:-1] & clear[1:] & (growth > 4) & (growth < 25)).flatten()
    if not len(found) or not noise:  # no cubic term to be seen: weigh what changes against what errors explain
        total = change.square() + (errors[:-1] / (math.sqrt(2) * ladder[:-1])).square()
        total[ladder[:-1] < least] = math.inf  # smaller probes do not reach the weights
        good = torch.nonzero(total <= 4 * total.nan_to_num(math.inf).min()).flatten()
        return math.nan, ladder[good[-1]].item() if len(good) else _LADDER[0]
    i = int(found[0])
    b = (change[i] / (9 * ladder[i] ** 2)).item()
    return b, (noise**2 / (4 * b**2)) ** (1 / 6)
