"""Gradients from values: ``grad`` for functions, ``backward`` for modules."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zolib.axes import declared
from zolib.directions import Directions
from zolib.estimates import Estimate
from zolib.experiment import OnInputs, OnParameters
from zolib.feedback import FEEDBACKS, Feedback
from zolib.loop import slopes
from zolib.noise.seeds import as_seed, natural
from zolib.probes import PROBES, Probe, named
from zolib.replicas import OnReplicas
from zolib.subject import Subject, as_targets, quiet_torch

_UINT32 = 1 << 32


def grad(
    f: Callable[..., Any],
    *,
    probe: Probe | str = "gaussian",
    feedback: Feedback | str = "two-point",
    samples: int = 64,
    sigma: float = 1e-3,
    seed: int | None = None,
    chunk: int = 1,
) -> Callable[..., Any]:
    r"""Like :func:`torch.func.grad`, but ``f`` is only ever evaluated.

    .. math:: \hat g = \frac1K \sum_{k=1}^K w\, c_k z_k, \qquad
              c_k = \frac{f(x + \sigma z_k) - f(x - \sigma z_k)}{2\sigma}

    with K = ``samples`` directions z of the probe, its weight w, and the slope c of the feedback (two-point above).

    Args:
        f: Called as ``f(x, *args, **kwargs)``; returns a scalar tensor or a real number.
        probe: Where the noise enters and of what law: an object or its name.
        feedback: How values become slopes: an object or its name.
        samples: Directions averaged, K.
        sigma: Probe size, in the units of x.
        seed: The same seed gives the same noise; None draws the next one of the library's counter
            (:func:`zolib.manual_seed`).
        chunk: Evaluations made in one batched pass (:func:`torch.func.vmap`), at the memory of as many.

    Returns:
        A function ``g(x, *args, step=0, **kwargs)`` that gives a tensor, or the same dict, tuple or list of tensors as
        ``x``, with dtype and shape of x.  ``step`` numbers calls that share a seed.  x is never written; f runs under
        ``torch.no_grad`` and, if it draws from global generators, sees the same draw in every evaluation.

    Raises:
        ValueError, TypeError: An argument is out of range or of the wrong kind.
        LossError: f's value is not finite, not scalar, or of half precision.
        ParameterError: x holds anything but real floating-point tensors.

    >>> import torch, zolib as zo
    >>> g = zo.grad(lambda x: (x**2).sum(), probe=zo.Coordinate(), samples=3, seed=0)
    >>> g(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    tensor([2.0000, 4.0000, 6.0000], dtype=torch.float64)
    """
    if not callable(f):
        raise TypeError(f"f must be callable, got {f!r}")
    chosen_probe = named("probe", probe, PROBES, Probe)
    chosen_feedback = named("feedback", feedback, FEEDBACKS, Feedback)
    samples, chunk, sigma = whole("samples", samples), whole("chunk", chunk), probe_size(sigma)
    if seed is not None:
        seed = as_seed(seed)

    def gradient(x: Any, *args: Any, step: int = 0, **kwargs: Any) -> Any:
        paths, tree = pytree.tree_flatten_with_path(x)
        targets = as_targets([("x" + pytree.keystr(path), leaf) for path, leaf in paths], "x")
        directions = Directions(chosen_probe, targets, as_seed(seed), natural("step", step, _UINT32), samples)
        experiment = OnInputs(lambda leaves: f(pytree.tree_unflatten(leaves, tree), *args, **kwargs), directions)
        with quiet_torch():
            found, _ = slopes(experiment, chosen_feedback, sigma, chunk)
            return pytree.tree_unflatten(experiment.estimate(found).dense(), tree)

    return gradient


def backward(
    closure: Callable[[], Any],
    model: nn.Module | Iterable[Tensor],
    *,
    probe: Probe | str = "rademacher",
    feedback: Feedback | str = "two-point",
    samples: int = 1,
    sigma: float = 1e-3,
    seed: int | None = None,
    step: int = 0,
    chunk: int = 1,
    unused: str = "raise",
) -> Tensor:
    """Instead of ``loss.backward()``: fills ``.grad`` of the trainable parameters from values of the loss alone.

    The estimate is that of :func:`grad`, over all parameters with ``requires_grad`` together.  As after
    ``loss.backward()``, ``.grad`` accumulates and any ``torch.optim`` optimizer can step.

    Nothing but ``.grad`` is written.  The perturbed values exist only where they are consumed, so the parameters stay
    bit for bit what they were.  Buffers and the global generators (torch, NumPy, Python) are set back between
    evaluations: all see the same dropout masks, and afterwards the state is as after one evaluation (one-sided: the
    clean one).

    Args:
        closure: Called without arguments; returns the loss, a scalar tensor of float32 or float64, or a number.  It is
            evaluated ``2 * samples`` times (``samples + 1`` one-sided, ``samples`` exact) under ``torch.no_grad`` and
            must not call backward().  Draw the batch outside, so that all evaluations see the same one.  Where the
            noise is drawn for each example (:class:`~zolib.Nodes`) it may return one loss per example, shape (B,): each
            then credits its own noise alone, and the estimate is the gradient of their mean.  Of many learners side by
            side (``axes`` of the probe) it may return one for each, (S,), or with noise on nodes (S, B): each gets its
            own gradient.
        model: A module, or its parameters.
        probe, feedback, samples, sigma, seed, chunk: As for :func:`grad`.
        step: Numbers the calls that share a seed.
        unused: What to do about a parameter that an evaluation never consumes: ``"raise"``, or ``"skip"`` (its
            ``.grad`` stays as it is).

    Returns:
        The loss as a scalar tensor, the mean of the evaluations (two-point) or the clean one (one-sided, exact).

    Raises:
        ValueError, TypeError: An argument is out of range or of the wrong kind.
        LossError: The loss is not finite, not scalar (nor one per example, where the probe can credit that), or of half
            precision.
        ParameterError: No parameter is trainable, or one is no real floating-point tensor, out of reach, never
            consumed, or written by the closure.
        RuntimeError: The closure calls backward().

    After an error everything is as before the call.

    >>> import torch, zolib as zo
    >>> model = torch.nn.Linear(3, 1)
    >>> x, y = torch.ones(8, 3), torch.zeros(8, 1)
    >>> loss = zo.backward(lambda: ((model(x) - y) ** 2).mean(), model, samples=8, seed=0)
    >>> model.weight.grad.shape
    torch.Size([1, 3])
    """
    found = estimate(
        closure,
        model,
        probe=probe,
        feedback=feedback,
        samples=samples,
        sigma=sigma,
        seed=seed,
        step=step,
        chunk=chunk,
        unused=unused,
    )
    with quiet_torch():
        found.accumulate()
    assert found.loss is not None
    return found.loss


def estimate(
    closure: Callable[[], Any],
    model: nn.Module | Iterable[Tensor],
    *,
    probe: Probe | str = "rademacher",
    feedback: Feedback | str = "two-point",
    samples: int = 1,
    sigma: float = 1e-3,
    seed: int | None = None,
    step: int = 0,
    chunk: int = 1,
    unused: str = "raise",
) -> Estimate:
    """What :func:`backward` adds to ``.grad``, before it becomes tensors.

    Arguments and errors are those of :func:`backward`; nothing is written.

    Returns:
        An estimate.  A :class:`~zolib.Replay`, a list of seeds and coefficients, where directions can be drawn
        again: add, scale, average and store it; ``accumulate()`` makes it dense and adds it to ``.grad``.

    >>> import torch, zolib as zo
    >>> model = torch.nn.Linear(3, 1)
    >>> found = zo.estimate(lambda: model(torch.ones(8, 3)).square().mean(), model, samples=4, seed=0)
    >>> len(found.to_dict()["terms"][0]["coefficients"])
    4
    """
    chosen_probe = named("probe", probe, PROBES, Probe)
    chosen_feedback = named("feedback", feedback, FEEDBACKS, Feedback)
    samples, chunk, sigma = whole("samples", samples), whole("chunk", chunk), probe_size(sigma)
    if chosen_feedback.memory and chosen_feedback is not feedback:
        name = type(chosen_feedback).__name__
        raise ValueError(
            f"feedback={feedback!r} remembers earlier steps, and a name makes a new one each time; make one object "
            f"before the loop, feedback = zo.{name}(), and pass it at every step"
        )
    if unused not in ("raise", "skip"):
        raise ValueError(f"unused must be 'raise' or 'skip', got {unused!r}")
    subject = Subject(closure, model, type(chosen_probe).__name__)
    key, number = as_seed(seed), natural("step", step, _UINT32)
    experiment = chosen_probe.experiment(subject, key, number, samples, unused)
    if experiment is None:
        side_by_side = "replica" in declared(chosen_probe, subject)
        directions = Directions(chosen_probe, subject.targets, key, number, samples)
        experiment = (OnReplicas if side_by_side else OnParameters)(subject, directions, unused)
    with quiet_torch():
        rates, loss = slopes(experiment, chosen_feedback, sigma, chunk)
        found = experiment.estimate(rates)
    found.loss = loss
    return found


def whole(name: str, value: int) -> int:
    """An argument that counts something: a whole number of at least 1."""
    number = natural(name, value, _UINT32)
    if not number:
        raise ValueError(f"{name} must be at least 1, got 0: an estimate needs an evaluation")
    return number


def probe_size(sigma: float) -> float:
    """sigma as a checked float."""
    if not isinstance(sigma, numbers.Real) or isinstance(sigma, bool):
        raise TypeError(f"sigma must be a number, got {sigma!r}")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ValueError(f"sigma must be a positive, finite probe size, got {sigma!r}; zolib.check suggests one")
    return float(sigma)
