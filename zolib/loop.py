"""The loop of the whole library: draw a direction (probe), evaluate the objective along it (feedback), and add the
direction times the slope (update).  Here is its middle: all evaluations of one step, and the slopes they give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zolib.errors import LossError
from zolib.evaluation import State, as_double
from zolib.experiment import Experiment
from zolib.feedback import Feedback

#: Where the objective is evaluated: (sample, scale along it), or (None, 0.0) for the unshaken place.
Point = tuple[int | None, float]


#: Makes the evaluations together with others (:mod:`zolib.parallel`): (points, how to evaluate some of them, what to
#: set back) to the losses at all points, (len(points),).
Share = Callable[[Sequence[Point], Callable[[Sequence[Point]], Tensor], State], Tensor]


def slopes(
    experiment: Experiment,
    feedback: Feedback,
    sigma: float,
    chunk: int = 1,
    share: Share | None = None,
    state: State | None = None,
) -> tuple[Tensor, Tensor]:
    """All evaluations of one step.  Returns the slopes (K, ...) and the loss to report, ().

    state: of the experiment, if the caller has it already.
    """
    if feedback.exact:
        return _exact_slopes(experiment)
    points: list[Point] = [(k, sign * sigma) for k in range(experiment.samples) for sign in feedback.signs]
    if len(points) < feedback.least:
        raise ValueError(
            f"samples={experiment.samples}: {type(feedback).__name__} compares evaluations with one another and needs "
            f"at least {feedback.least}"
        )
    if feedback.clean:  # last, so that buffers end as after a plain evaluation
        points.append((None, 0.0))
    state = experiment.state() if state is None else state
    kind = torch.empty(0)  # dtype and device of the losses

    def evaluate(some: Sequence[Point]) -> Tensor:
        nonlocal kind
        losses: list[Tensor] = []
        while len(losses) < len(some):
            if losses:
                state.restore()
            first = len(losses)
            shaken = [(k, scale) for k, scale in some[first : first + chunk] if k is not None]
            if chunk == 1 or not shaken:
                losses.append(experiment.evaluate(*some[first]))
            else:
                losses += _together(experiment, shaken, chunk)
        kind = losses[0]
        return as_double(losses)

    try:
        values = evaluate(points) if share is None else share(points, evaluate, state)
        _refuse_nonfinite(values, points)
    except BaseException:
        state.restore()
        raise
    clean = values[-1] if feedback.clean else None
    table = values[: experiment.samples * len(feedback.signs)]
    table = table.view(experiment.samples, len(feedback.signs), *table.shape[1:])
    return feedback.coefficients(table, clean, sigma), feedback.value(table, clean).to(kind)


def _exact_slopes(experiment: Experiment) -> tuple[Tensor, Tensor]:
    """The same by forward mode: each evaluation gives a loss and its slope."""
    state = experiment.state()
    losses: list[Tensor] = []
    rates: list[Tensor] = []
    try:
        for k in range(experiment.samples):
            if losses:
                state.restore()
            loss, rate = experiment.slope(k)
            losses.append(loss)
            rates.append(rate)
        points: list[Point] = [(k, 0.0) for k in range(experiment.samples)]
        values, found = as_double(losses), as_double(rates)
        _refuse_nonfinite(values, points)
        _refuse_nonfinite(found, points, "slope")
    except BaseException:
        state.restore()
        raise
    return found, values.mean().to(losses[0])


def _together(experiment: Experiment, points: Sequence[tuple[int, float]], chunk: int) -> list[Tensor]:
    try:
        return list(experiment.evaluate_together(points).unbind())
    except RuntimeError as error:
        raise RuntimeError(f"chunk={chunk}: these evaluations cannot be batched ({error}). Use chunk=1") from error


def _refuse_nonfinite(values: Tensor, points: Sequence[Point], what: str = "loss") -> None:
    bad = torch.nonzero(~values.isfinite().view(len(values), -1).all(dim=1)).flatten().tolist()
    if bad:
        k, scale = points[bad[0]]
        where = "at the parameters themselves" if k is None else f"at sample {k}, scale {scale:+.3g}"
        raise LossError(
            f"the {what} is {values[bad[0]].tolist()} {where} ({len(bad)} of {len(values)} evaluations are not "
            "finite); the step is refused, nothing was changed. Look at the loss without a probe, or make sigma smaller"
        )
