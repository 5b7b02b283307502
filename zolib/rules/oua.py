r"""Ornstein-Uhlenbeck adaptation: weights that never stop moving, and means that follow those of their moves that paid.

.. math:: d\theta = \lambda(\mu - \theta)\,dt + \sigma\,dW, \qquad d\mu = \eta\,(r - \bar r)(\theta - \mu)\,dt, \qquad
          d\bar r = \rho\,(r - \bar r)\,dt

No phases, no clean pass, no gradient: the weights in use are the noisy ones, all the time.  For slow :math:`\mu`

.. math:: \mathbb E[\dot\mu] = \eta\,\frac{\sigma^2}{2(\lambda + \rho)}\,\mathbb E[\nabla r(\theta)], \qquad
          \theta \sim \mathcal N(\mu, \sigma^2/2\lambda),

gradient ascent on the reward smoothed by the noise itself: an evolution strategy in continuous time.  The expectation
:math:`\bar r` follows the reward at rate :math:`\rho` and so takes a part :math:`\rho/(\lambda + \rho)` of the signal
with it.

Source: García Fernández, Ahmad and van Gerven, Entropy 26(12):1125, 2024.  The rate is derived here by Stein's lemma.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from zolib.errors import ParameterError
from zolib.noise import stream
from zolib.noise.seeds import as_seed, own
from zolib.rules.rewards import along, checked

_OUA = 0x6F75  # keys of its own: never the noise of a probe with the same seed


def wander(theta: Tensor, mean: Tensor, sigma: Tensor | float, decay: float, dt: float, z: Tensor) -> Tensor:
    r"""Where an Ornstein-Uhlenbeck process is after dt, exactly, whatever dt.

    .. math:: \theta' = \mu + (\theta - \mu)e^{-\lambda dt} + \sigma\sqrt{\frac{1 - e^{-2\lambda dt}}{2\lambda}}\,z

    z: standard normal, of theta's shape.  With decay 0 it is a Brownian motion.
    """
    spread = math.sqrt(-math.expm1(-2 * decay * dt) / (2 * decay)) if decay else math.sqrt(dt)
    return mean + (theta - mean) * math.exp(-decay * dt) + sigma * spread * z


class OUA(torch.optim.Optimizer):
    r"""Ornstein-Uhlenbeck adaptation, stepped by rewards: ``oua.step(reward)``.

    The parameters hold :math:`\theta(t)`, with which the reward was earned; :meth:`mean` gives :math:`\mu`.  One step
    is dt of time: first :math:`\mu` and :math:`\bar r` move by what the reward says, then :math:`\theta` wanders on, by
    the exact solution of its equation (:func:`~zolib.rules.wander`).  The error of :math:`\mu` is of first order in dt.

    To learn the exploration itself, give a tensor as ``sigma`` and let a second OUA, stepped with the same reward,
    adapt that tensor.  It is read at each step, and below 0 it counts as 0.

    Args:
        params: Parameters or parameter groups, float32 or float64.
        lr: :math:`\eta`, per unit of reward and time.
        sigma: :math:`\sigma`, parameter units per square root of time; a number, or a tensor that broadcasts.
        decay: :math:`\lambda`, 1 / time.  0: nothing pulls theta back.
        baseline_rate: :math:`\rho`, 1 / time.  0: the expectation stays where it is.
        dt: Length of a step, at most 1/decay and 1/baseline_rate.
        baseline: :math:`\bar r` at the start; None takes the first reward.
        seed: As everywhere; None draws the next of the library's counter.

    A reward of shape (S,), with parameters of shape (S, ...), runs S independent replicas, each with an expectation of
    its own.

    Raises:
        ValueError, TypeError: A rate is negative, dt too long, a reward of another shape.
        LossError: The reward is not finite.  The step is refused, and all is as before.
        ParameterError: A parameter is not float32 or float64.

    >>> import torch, zolib as zo
    >>> theta = torch.zeros(200, 1, requires_grad=True)  # 200 replicas of one weight
    >>> oua = zo.rules.OUA([theta], sigma=0.3, dt=0.1, seed=0)
    >>> for _ in range(2000):
    ...     oua.step(-(theta[:, 0] - 1) ** 2)
    >>> round(oua.mean(theta).mean().item(), 1)
    1.0
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        sigma: float | Tensor = 0.3,
        decay: float = 1.0,
        baseline_rate: float = 1.0,
        dt: float = 0.05,
        baseline: float | None = None,
        seed: int | None = None,
    ):
        self._seed = as_seed(seed)
        self._steps = 0
        self._expected: Tensor | None = None if baseline is None else torch.tensor(float(baseline))
        defaults = {"lr": lr, "sigma": sigma, "decay": decay, "baseline_rate": baseline_rate, "dt": dt}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        group = {**self.defaults, **param_group}
        for name in ("lr", "decay", "baseline_rate"):
            _rate(name, group[name])
        if not isinstance(group["sigma"], Tensor):
            _rate("sigma", group["sigma"])
        dt = group["dt"]
        if not (isinstance(dt, numbers.Real) and math.isfinite(dt) and dt > 0):
            raise ValueError(f"dt must be a positive length of time, got {dt!r}")
        for name in ("decay", "baseline_rate"):
            if dt * group[name] > 1:
                raise ValueError(
                    f"dt={dt!r} is longer than 1/{name} = {1 / group[name]:.3g}, the time that {name} sets, and a step "
                    f"would pass over it; take dt={0.1 / group[name]:.2g} or shorter"
                )
        if self.param_groups:
            for name in ("baseline_rate", "dt"):
                if group[name] != self.param_groups[0][name]:
                    raise ValueError(f"{name} is one for all groups: there is one reward and one time")
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if p.dtype not in (torch.float32, torch.float64):
                raise ParameterError(f"a parameter has dtype {p.dtype}; OUA adds up small moves and needs .float()")

    @property
    def expected(self) -> Tensor | None:
        """What is expected of the reward; one number, or one for each replica.  None before the first reward."""
        return self._expected

    def mean(self, p: Tensor) -> Tensor:
        """mu of a parameter, in its shape."""
        if not any(p is q for group in self.param_groups for q in group["params"]):
            raise ValueError("mean() takes one of the parameters that this OUA adapts")
        return self.state[p]["mean"] if "mean" in self.state[p] else p.detach().clone()

    @torch.no_grad()
    def step(self, reward: Any) -> None:  # type: ignore[override]
        """One dt.  reward: a number, or a tensor of shape () or (S,), earned with the parameters as they are."""
        parameters = (p for group in self.param_groups for p in group["params"])
        reward = checked(reward, parameters, self._expected)
        expected = reward if self._expected is None else self._expected.to(reward)
        error = reward - expected
        seed, numbered = own(self._seed, _OUA), 0
        for group in self.param_groups:
            dt = group["dt"]
            sigma = group["sigma"].detach().clamp(min=0) if isinstance(group["sigma"], Tensor) else group["sigma"]
            for p in group["params"]:
                mean = self.state[p].setdefault("mean", p.detach().clone())
                part = [(numbered, p.numel())]
                z = stream.draw(stream.NORMAL, seed, self._steps, range(1), part, p.device)[0].view(p.shape).to(p)
                numbered += 1
                mean.add_((p - mean) * along(error, p), alpha=group["lr"] * dt)
                p.copy_(wander(p, mean, sigma, group["decay"], dt, z))
        rate = self.param_groups[0]["baseline_rate"] * self.param_groups[0]["dt"]
        self._expected = expected - error * math.expm1(-rate)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """Means, expectation, time and seed: a run that loads it goes on as if it had not stopped."""
        return {**super().state_dict(), "oua": {"seed": self._seed, "steps": self._steps, "expected": self._expected}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if "oua" not in state_dict:
            raise ValueError("state_dict has no 'oua' entry: it was not written by OUA")
        own = state_dict["oua"]
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "oua"})
        self._seed, self._steps, self._expected = own["seed"], own["steps"], own["expected"]


def _rate(name: str, value: Any) -> None:
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must not be negative, got {value!r}")
