"""Noise-based reward-modulated learning: what the noise did to the probability of the action, rewarded later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zolib.noise import stream
from zolib.rules.three_factor import ThreeFactor


class NRL(ThreeFactor):
    r"""Noise-based reward-modulated learning (NRL).

    .. math:: \Delta = \log\tilde\pi(a) - \log\pi(a), \qquad
              e \leftarrow \gamma e + \Delta\,\frac{n\,\xi}{\lVert\xi\rVert^2}\,x^\top, \qquad
              g = -\,\mathrm{RPE}\;e

    with pi from a clean pass, from which the action is drawn, and pi~ from a pass with noise xi on the nodes.  The
    noise estimates the gradient of log pi, so the rule is REINFORCE without backpropagation.  n and the norm count the
    units of a replica over the whole network.

    ``normalise=True`` divides the reward prediction error by \|R\|, as the published program does.  That can reverse
    learning: with R > 0 and a fixed expectation, the step then follows :math:`-\bar R\,\mathbb E[1/R]`.

    Source: García Fernández, Ahmad and van Gerven, arXiv:2503.23972, and its program; there the factor is the width of
    each layer in place of n, a step of its own for each layer.

    Args:
        normalise: See above.  Others: as for :class:`ThreeFactor`.
    """

    def __init__(self, *args: Any, normalise: bool = False, **settings: Any):
        super().__init__(*args, **settings)
        self.normalise = normalise

    def act(self, f: Callable[[], Tensor], draw: Callable[[Tensor], Tensor] | None = None) -> Tensor:  # type: ignore[override]
        """The action, (...,), drawn by ``draw`` from the clean log-probabilities, f()'s logits normalised, (..., n).

        draw: None takes the likeliest action less an own exponential clock's time, that is, a draw from the policy by
        the rule's own noise.
        """
        clean = torch.log_softmax(self.synapses.run(f, noisy=False), dim=-1)
        action = self._choose(clean) if draw is None else draw(clean)
        noisy = torch.log_softmax(self.synapses.run(f), dim=-1)
        gain = (noisy - clean).gather(-1, action.unsqueeze(-1)).squeeze(-1)  # (...,)
        if self.replicas is None:
            gain = gain.sum()
        nodes = self.synapses.nodes
        squares = [self._total(node.noise.square(), node.axis) for node in nodes]  # type: ignore[union-attr]
        count = sum(n.value.numel() for n in nodes) / (self.replicas or 1)
        share = gain * count / (self.sigma * torch.stack(squares).sum(dim=0))
        self._remember([node.noise * self._spread(share, node.noise, node.axis) for node in nodes])  # type: ignore[operator, arg-type]
        return action

    def _choose(self, log_probabilities: Tensor) -> Tensor:
        size = log_probabilities.numel()
        words = stream.draw(stream.NORMAL, self.synapses._seed, self.synapses.passes, range(1, 3), [(0, size)])[0]
        clocks = words.square().sum(dim=0).view(log_probabilities.shape) / 2  # exponential: half a chi-squared of two
        return (log_probabilities - clocks.log().to(log_probabilities)).argmax(dim=-1)

    def _total(self, x: Tensor, axis: int) -> Tensor:
        return x.sum() if self.replicas is None else x.transpose(0, axis).flatten(1).sum(dim=1)

    def _spread(self, share: Tensor, like: Tensor, axis: int) -> Tensor:
        if not share.ndim:
            return share
        shape = [1] * like.ndim
        shape[axis] = -1
        return share.view(shape)

    def modulation(self, reward: Tensor, expected: float) -> Tensor:
        error = reward - expected
        return error / reward.abs().clamp(min=torch.finfo(reward.dtype).tiny) if self.normalise else error
