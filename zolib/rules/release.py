r"""A synapse that releases by chance and learns how often: the dice that it throws are its exploration.

.. math:: \theta = w\,r, \qquad r \sim \mathrm{Bernoulli}(p), \qquad p = \frac1{1 + e^{-q}}, \qquad
          \Delta q = \eta\,(R - \bar R)\,(r - p)

r - p is the score of the logit q, and every synapse knows it.  So the mean step is exactly a gradient,

.. math:: \mathbb E[\Delta q] = \eta\,\frac{\partial\,\mathbb E R}{\partial q}
          = \eta\,p\,(1 - p)\,\frac{\partial\,\mathbb E R}{\partial p} ,

however large the jump from 0 to w: no noise is small here.  A synapse that always releases, or never, learns nothing.

Source: Seung, Neuron 40:1063-1073, 2003 (there in continuous time, with spikes); the rule is Williams's (1992) for
Bernoulli-logistic units.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zolib.noise import stream
from zolib.noise.seeds import as_seed, own
from zolib.rules.rewards import along, checked

_RELEASE = 0x726C  # keys of its own


class Release:
    """Weights that are there or not at each moment, stepped by rewards: ``release.step(reward)``.

    The parameters hold the weights that were released, w or 0, with which the reward was earned; :meth:`mean` gives
    p w.  The strength w is the parameter as given over ``probability``, so that the mean starts there, and it stays:
    what is learned is the probability, between 0 and w.  A weight never changes its sign.

    Args:
        params: Parameters, float32 or float64.
        lr: eta, of the logits, per unit of reward.
        probability: p at the start, in (0, 1); a number, or a tensor that broadcasts to each parameter.
        rate: Of the expectation, as for :class:`ThreeFactor`; it starts as the first reward.
        seed: As everywhere; None draws the next of the library's counter.

    A reward of shape (S,), with parameters of shape (S, ...), runs S independent learners.

    Raises:
        ValueError, TypeError: A number is out of range; a reward of another shape.
        LossError: The reward is not finite.  The step is refused, and all is as before.

    >>> import torch, zolib as zo
    >>> theta = torch.full((100, 1), 0.5)  # 100 synapses of strength 1, each its own learner
    >>> release = zo.rules.Release([theta], lr=0.5, seed=0)
    >>> for _ in range(400):
    ...     release.step(theta[:, 0])  # release pays
    >>> round(release.probability(theta).mean().item(), 1)
    1.0
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        probability: float | Tensor = 0.5,
        rate: float = 0.1,
        seed: int | None = None,
    ):
        self.parameters = list(params)
        if not isinstance(lr, numbers.Real) or not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr must be a step of at least 0, got {lr!r}")
        if not isinstance(rate, numbers.Real) or not 0 <= rate <= 1:
            raise ValueError(f"rate must lie in [0, 1], got {rate!r}")
        start = torch.as_tensor(probability)
        if not bool(((start > 0) & (start < 1)).all()):
            raise ValueError(f"probability must lie between 0 and 1, without the ends, got {probability!r}")
        if not self.parameters or not all(p.dtype in (torch.float32, torch.float64) for p in self.parameters):
            raise TypeError("params must be tensors of float32 or float64, at least one")
        self.lr, self.rate = float(lr), float(rate)
        self.expected: Tensor | None = None
        self._seed, self._steps = own(as_seed(seed), _RELEASE), 0
        odds = [start.to(p.detach()).expand_as(p).clone() for p in self.parameters]
        self._strengths = [p.detach() / o for p, o in zip(self.parameters, odds, strict=True)]
        self._logits = [o.logit() for o in odds]
        self._released: list[Tensor] = []
        self._draw()

    def probability(self, p: Tensor) -> Tensor:
        """How often the synapses of a parameter release now, in its shape."""
        return self._logits[self._place(p)].sigmoid()

    def mean(self, p: Tensor) -> Tensor:
        """What a parameter is on average, probability times strength."""
        return self.probability(p) * self._strengths[self._place(p)]

    @torch.no_grad()
    def step(self, reward: Any) -> None:
        """Learn from a reward, () or (S,), that was earned with the parameters as they are; then release anew."""
        reward = checked(reward, self.parameters, self.expected)
        expected = reward if self.expected is None else self.expected.to(reward)
        error = reward - expected
        for q, r in zip(self._logits, self._released, strict=True):
            q.add_(along(error, q) * (r - q.sigmoid()), alpha=self.lr)
        self.expected = expected + self.rate * error
        self._steps += 1
        self._draw()

    def _place(self, p: Tensor) -> int:
        for place, known in enumerate(self.parameters):
            if p is known:
                return place
        raise ValueError("probability() and mean() take one of the parameters that this rule adapts")

    @torch.no_grad()
    def _draw(self) -> None:
        self._released = []
        for j, (p, w, q) in enumerate(zip(self.parameters, self._strengths, self._logits, strict=True)):
            z = stream.draw(stream.NORMAL, self._seed, self._steps, range(1), [(j, p.numel())], p.device)[0]
            r = (torch.special.ndtr(z.view(p.shape).to(p.dtype)) < q.sigmoid()).to(p.dtype)
            self._released.append(r)
            p.copy_(w * r)
