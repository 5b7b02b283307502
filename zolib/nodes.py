r"""Noise on nodes: the pre-activations are shaken instead of the weights, and each layer learns from its own noise.

A linear map :math:`a = W x + b` has :math:`\partial L/\partial W = (\partial L/\partial a)\, x^\top`.  So the slope of
the loss along noise on ``a``, times that noise and the input x, estimates the gradient of W.  The space that is
searched has one dimension for each unit, not for each weight.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zolib.on_nodes import LAWS, OnActivities, OnNodes
from zolib.probes import PROBES, Probe
from zolib.subject import Subject


@dataclass(frozen=True)
class Nodes(Probe):
    r"""Node perturbation: noise :math:`\sigma\xi` on the pre-activations (Williams 1992; Werfel, Xie and Seung 2005).

    .. math:: \hat g_W = \frac1K \sum_k c_k\, \xi_k x_k^\top, \qquad \hat g_b = \frac1K \sum_k c_k\, \xi_k

    and likewise, the local vector-Jacobian product at ``c xi``, for every linear map that consumes a trainable
    parameter: Linear, convolutions, recurrent cells, attention's projections, matrix products.  x is the input of the
    map in the evaluation at +sigma.  For one example and a linear layer with M outputs the second moment is M + 2
    times the gradient's with Gaussian noise, M times with signs; noise on its d weights makes that d + 2 and d.

    With one loss per example, shape (B,), each example's noise is credited with its own loss alone, and the result is
    the gradient of the mean over examples.  Use it where you can: with a scalar loss the noise of all B examples is
    credited with one number, at about B times the variance.

    Memory: the inputs of the linear maps, for each sample.  sigma is in the units of the pre-activations.

    Args:
        law: ``"gaussian"`` or ``"rademacher"``, fair signs.
        batch_dim: The axis of the pre-activations that runs over examples, where losses are one per example.  (Opened
            recurrent and attention modules know theirs.)
        axes: What the axes of a vector loss are: ``("example",)``, ``("replica",)``, ``("replica", "example")``.  None:
            what the model says (a deployed one does), or examples.  Replicas lie along the first axis of parameters and
            pre-activations, and ``batch_dim`` counts behind it; each gets its own gradient.
    """

    law: str = "gaussian"
    batch_dim: int = 0
    axes: tuple[str, ...] | None = None
    where: ClassVar[str] = "nodes"

    def __post_init__(self):
        _check(self)

    def validate(self, d: int, samples: int) -> None:
        _refuse_tensors(self)

    def experiment(self, subject: Subject, seed: int, step: int, samples: int, unused: str) -> OnNodes:
        """What :func:`zolib.backward` runs."""
        return OnNodes(self, subject, seed, step, samples, unused)


@dataclass(frozen=True)
class Activities(Probe):
    r"""Activity-based node perturbation, as published: the noise need not be known, only what it did.

    .. math:: \hat g_{W_l} = N\,\delta L\,\frac{\delta a_l}{\|\delta a\|^2}\, x_{l-1}^\top

    With one-sided feedback, delta is a noisy pass less the clean one; with two-point feedback it is one noisy pass less
    another with noise of its own, and there is no clean pass.  N counts units of one example; with one loss per
    example, N and the norm are of that example alone, with a scalar loss they are of the whole batch.

    Its scale is ``"direction"``.  The noise of the layers below is part of delta a, so as sigma goes to 0

    .. math:: \mathbb E[\delta L\,\delta a_l] = \mathrm{Cov}(\delta a_l)\, \partial L/\partial a_l

    in a network whose layers form a chain: a positive semidefinite matrix times the gradient, and no slope of 1.

    Sources: Dalm, van Gerven and Ahmad, arXiv:2310.00965; two noisy passes: Koenders et al., arXiv:2412.12783; through
    time, per layer: Fernandez, Keemink and van Gerven 2024, whose code has another power of N, a rescaled step.

    Args:
        scaling: ``"global"``, N and the norm over all layers; ``"layer"``, of each layer (call) by itself.
        law, batch_dim, axes: As for :class:`Nodes`.
    """

    scaling: str = "global"
    law: str = "gaussian"
    batch_dim: int = 0
    axes: tuple[str, ...] | None = None
    scale: ClassVar[str] = "direction"
    where: ClassVar[str] = "activities"

    def __post_init__(self):
        _check(self)
        if self.scaling not in ("global", "layer"):
            raise ValueError(f"scaling must be 'global' or 'layer', got {self.scaling!r}")

    def validate(self, d: int, samples: int) -> None:
        _refuse_tensors(self)

    def experiment(self, subject: Subject, seed: int, step: int, samples: int, unused: str) -> OnActivities:
        """What :func:`zolib.backward` runs."""
        return OnActivities(self, subject, seed, step, samples, unused)


def _check(probe: Nodes | Activities) -> None:
    if probe.law not in LAWS:
        raise ValueError(f"law must be {' or '.join(map(repr, sorted(LAWS)))}, got {probe.law!r}")
    if not isinstance(probe.batch_dim, int) or isinstance(probe.batch_dim, bool):
        raise TypeError(f"batch_dim must be an axis, a whole number, got {probe.batch_dim!r}")


def _refuse_tensors(probe: Probe) -> None:
    raise TypeError(
        f"probe={type(probe).__name__}() shakes the pre-activations of a module, and here are only bare tensors; use "
        "zolib.backward(closure, model, probe=...), or shake the tensors themselves, with Gaussian()"
    )


PROBES |= {"nodes": Nodes, "activities": Activities}
