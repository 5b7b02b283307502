r"""Three-factor rules: what the synapse saw, remembered for a while, times a reward that everybody hears.

.. math:: e \leftarrow \gamma e + \underbrace{p_i\,x_j}_{\text{post times pre}}, \qquad
          \Delta w_{ij} = \eta\,(R - \bar R)\,e_{ij}

The rules differ in what a synapse takes for p, the part of its node's activity that was exploration.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zolib.errors import LossError
from zolib.rules.synapses import Node, Synapses


class ThreeFactor:
    r"""Reward-modulated Hebbian learning: ``act`` lets the nodes explore, ``reinforce`` keeps what paid.

    .. math:: e \leftarrow \gamma e + \frac{z}{\sigma}\,x^\top, \qquad g = -(R - \bar R)\,e

    with z the noise on the pre-activations, in units of sigma, x the input, and g handed to the optimizer as
    ``.grad``.  Since :math:`\mathbb E[(R - \bar R)\,z\,x^\top]/\sigma` tends to the gradient of R, the scale is
    ``"gradient"`` with a trace of 1 (:math:`\gamma = 1`).  It is REINFORCE for units with Gaussian noise (Williams
    1992), and node perturbation whose clean pass is replaced by an expectation (Legenstein et al. 2010).

    Args:
        model: The module; its linear maps are found as by :class:`zolib.Nodes`.
        optimizer: Any ``torch.optim`` optimizer of its parameters.
        sigma: Size of the noise, in the units of the pre-activations.
        trace: gamma, what remains of the eligibility after each ``act``, in [0, 1].
        rate: Of the expectation, :math:`\bar R \leftarrow \bar R + \text{rate}\,(R - \bar R)`; it starts as the first
            reward.  0 keeps it there.
        replicas: Several learners' experience at once, along ``batch_dim`` of the pre-activations, each with a trace
            and a reward of its own; the step is the mean of theirs.  Memory: as many times the parameters.
        batch_dim, seed: As for :class:`zolib.Nodes`.

    >>> import torch, zolib as zo
    >>> net = torch.nn.Linear(3, 1)
    >>> _ = [torch.nn.init.zeros_(p) for p in net.parameters()]
    >>> rule = zo.rules.ThreeFactor(net, torch.optim.SGD(net.parameters(), lr=0.01), sigma=0.1, seed=0)
    >>> for _ in range(300):
    ...     action = rule.act(lambda: net(torch.ones(1, 3)))
    ...     error = rule.reinforce(-(action - 2).square().sum())
    >>> abs(net(torch.ones(1, 3)).item() - 2) < 0.5
    True
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        sigma: float,
        *,
        trace: float = 1.0,
        rate: float = 0.1,
        replicas: int | None = None,
        batch_dim: int = 0,
        seed: int | None = None,
    ):
        if not isinstance(sigma, numbers.Real) or not (math.isfinite(sigma) and sigma > 0):
            raise ValueError(f"sigma must be a positive, finite size of noise, got {sigma!r}")
        for name, value in (("trace", trace), ("rate", rate)):
            if not isinstance(value, numbers.Real) or not 0 <= value <= 1:
                raise ValueError(f"{name} must lie in [0, 1], got {value!r}")
        self.synapses = Synapses(model, float(sigma), batch_dim, seed)
        self.optimizer, self.sigma, self.trace, self.rate, self.replicas = optimizer, sigma, trace, rate, replicas
        self.expected: float | None = None
        self.eligibility: list[Tensor] | None = None

    def act(self, f: Callable[[], Any]) -> Any:
        """f(), a forward pass of the model, with noise on its nodes; what it did is added to the eligibility."""
        out = self.synapses.run(f)
        self._remember([self.post(i, node) for i, node in enumerate(self.synapses.nodes)])
        return out

    def post(self, index: int, node: Node) -> Tensor:
        """What the synapses of a node take for its exploration; here its noise, which they know."""
        assert node.noise is not None
        return node.noise / self.sigma

    @torch.no_grad()
    def _remember(self, posts: list[Tensor]) -> None:
        found = self.synapses.local(posts, self.replicas)
        if self.eligibility is None:
            self.eligibility = found
        else:
            for e, new in zip(self.eligibility, found, strict=True):
                e.mul_(self.trace).add_(new)

    @torch.no_grad()
    def reinforce(self, reward: Any, where: Tensor | None = None, keep: bool = False) -> Tensor:
        """One step of the optimizer along (R - expected) times the eligibility, which is then forgotten.

        Args:
            reward: A number; or (replicas,).
            where: Which replicas are told, (replicas,), bool; the others keep their traces and do not count.
            keep: Keep the traces, where rewards come at every moment.

        Returns:
            The reward prediction error, R less what was expected, as the weights heard it.

        Raises:
            RuntimeError: Nothing was done since the last reward.
            ValueError: The reward has another shape than the replicas.
            LossError: The reward is not finite; nothing is changed.
        """
        if self.eligibility is None:
            raise RuntimeError("reinforce() needs an act() before it: there is no eligibility to reward")
        reward = self._checked(reward)
        told = torch.ones_like(reward, dtype=torch.bool) if where is None else self._mask(where, reward)
        if not told.any():
            return torch.zeros_like(reward)
        heard = reward[told].mean().item()
        expected = heard if self.expected is None else self.expected
        error = torch.where(told, self.modulation(reward, expected), 0.0)
        self.expected = expected + self.rate * (heard - expected)
        for p, e in zip(self.synapses.parameters, self.eligibility, strict=True):
            signal = error.to(p)
            p.grad = -(torch.tensordot(signal, e, dims=1) / told.sum() if error.ndim else signal * e)
        self.optimizer.step()
        if not keep:
            self._forget(told)
        return error

    def modulation(self, reward: Tensor, expected: float) -> Tensor:
        """The third factor: what is broadcast."""
        return reward - expected

    def _forget(self, told: Tensor) -> None:
        if bool(told.all()):
            self.eligibility = None
            return
        assert self.eligibility is not None
        for e in self.eligibility:
            e[told] = 0

    def _checked(self, reward: Any) -> Tensor:
        reward = torch.as_tensor(reward, dtype=torch.float64).detach()
        wanted = () if self.replicas is None else (self.replicas,)
        if reward.shape != wanted:
            raise ValueError(
                f"reward has shape {tuple(reward.shape)}, but this rule hears {wanted or 'one number'}; "
                f"{'set replicas= for one reward each' if self.replicas is None else 'give each replica its own'}"
            )
        if not reward.isfinite().all():
            raise LossError("the reward is not finite; the step is refused, and weights and traces are as before")
        return reward

    def _mask(self, where: Tensor, reward: Tensor) -> Tensor:
        where = torch.as_tensor(where)
        if where.shape != reward.shape or where.dtype != torch.bool:
            raise ValueError(
                f"where must be a bool of shape {tuple(reward.shape)}, one for each replica, got "
                f"{str(where.dtype).removeprefix('torch.')} of shape {tuple(where.shape)}"
            )
        return where


class Fluctuation(ThreeFactor):
    r"""As :class:`ThreeFactor`, with no knowledge of the noise: activity less its own running mean.

    .. math:: p = \frac{a - \bar a}{\sigma^2}, \qquad \bar a \leftarrow \bar a + \text{rate}_a\,(a - \bar a)

    Right as far as :math:`\bar a` follows what the node would do without noise.  What the input does to a faster than
    that is taken for exploration.  In a deep network a holds the noise of the layers below too, so the scale is
    ``"direction"``: the gradient of each layer times the covariance of its activity, as for
    :class:`zolib.Activities`; in a single layer it is the gradient.

    Source: Legenstein, Chase, Schwartz and Maass, J. Neurosci. 30:8400, 2010.

    Args:
        activity_rate: Of the running mean, in (0, 1].  Others: as for :class:`ThreeFactor`.
    """

    def __init__(self, *args: Any, activity_rate: float = 0.2, **settings: Any):
        super().__init__(*args, **settings)
        if not 0 < activity_rate <= 1:
            raise ValueError(f"activity_rate must lie in (0, 1], got {activity_rate!r}")
        self.activity_rate = activity_rate
        self._means: list[Tensor] = []

    def fluctuation(self, index: int, node: Node) -> Tensor:
        """Activity less its running mean, which then moves."""
        if index == len(self._means):
            self._means.append(node.value.clone())
        mean = self._means[index]
        if mean.shape != node.value.shape:
            raise ValueError(
                f"pre-activation {index} has shape {tuple(node.value.shape)}, before it was {tuple(mean.shape)}; a "
                "running mean of activity needs the same nodes at each act()"
            )
        change = node.value - mean
        mean.add_(change, alpha=self.activity_rate)
        return change

    def post(self, index: int, node: Node) -> Tensor:
        return self.fluctuation(index, node) / self.sigma**2


class Cubed(Fluctuation):
    r"""Miconi's rule: the fluctuation to the third power, so that large, short ones count and slow relaxations do not.

    .. math:: p = \Big(\frac{a - \bar a}{\sigma}\Big)^3 \frac1\sigma

    Made for recurrent nets, where noise at one moment is followed by its relaxation at the next, which would cancel a
    linear eligibility.  Scale: ``"direction"``.  Source: Miconi, eLife 6:e20899, 2017; there the noise is sparse, the
    reward is modulated per trial type, and steps are clipped, all of which is left to the caller.
    """

    def post(self, index: int, node: Node) -> Tensor:
        return (self.fluctuation(index, node) / self.sigma) ** 3 / self.sigma
