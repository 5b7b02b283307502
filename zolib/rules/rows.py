"""Rows of the catalogue for rules that live in time, and for errors that come down by fixed wires.

A rule in time hears a reward, not a loss: its runs give it the negative loss, step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD

from zolib.catalogue import Learner, Method
from zolib.methods import catalogue
from zolib.rules.alignment import DirectFeedbackAlignment, FeedbackAlignment
from zolib.rules.oua import OUA
from zolib.rules.release import Release
from zolib.rules.three_factor import Cubed, Fluctuation, ThreeFactor
from zolib.tangent import Exact


@dataclass(frozen=True)
class InTime:
    """A rule that is stepped by rewards.

    Attributes:
        name, title, reference, scale, memory: As for :class:`zolib.catalogue.Method`.
        learner: A function ``(closure, model, lr, **settings)`` that puts it to work.
        probe, feedback, update: In words.
    """

    name: str
    title: str
    learner: Callable[..., Learner]
    probe: str
    feedback: str
    update: str
    reference: str
    scale: str
    memory: str

    def start(self, closure: Callable[[], Any], model: nn.Module, lr: float, **settings: Any) -> Learner:
        """A run of the rule on a model.  settings: sigma, seed.

        The closure returns a scalar loss; each ``step()`` evaluates it once, with the noise of the moment.
        """
        return self.learner(closure, model, lr, **settings)

    def cells(self) -> tuple[str, ...]:
        """The row in words."""
        told = (self.name, f"{self.title}; {self.reference}", "0", self.probe, self.feedback, self.update)
        return (*told, "1", self.scale, self.memory)


class _Wandering:
    """OUA: the weights in use are the noisy ones, all the time."""

    def __init__(self, closure: Callable[[], Any], model: nn.Module, lr: float, sigma: float = 0.05, seed: int = 0):
        trainable = [p for p in model.parameters() if p.requires_grad]
        self.rule, self.closure = OUA(trainable, lr=lr, sigma=sigma, dt=0.1, seed=seed), closure

    @torch.no_grad()
    def step(self) -> Tensor:
        loss = torch.as_tensor(self.closure())
        self.rule.step(-loss)
        return loss


class _Releasing:
    """Synapses that release by chance; the weights in use are those that did.  It needs no sigma: chance is in p."""

    def __init__(self, closure: Callable[[], Any], model: nn.Module, lr: float, sigma: float = 0.0, seed: int = 0):
        self.rule = Release([p for p in model.parameters() if p.requires_grad], lr=lr, seed=seed)
        self.closure = closure

    @torch.no_grad()
    def step(self) -> Tensor:
        loss = torch.as_tensor(self.closure())
        self.rule.step(-loss)
        return loss


class _Acting:
    """A three-factor rule: act, then hear."""

    def __init__(self, rule: ThreeFactor, closure: Callable[[], Any]):
        self.rule, self.closure = rule, closure

    def step(self) -> Tensor:
        loss = torch.as_tensor(self.rule.act(self.closure))
        self.rule.reinforce(-loss)
        return loss


def _three_factor(kind: type[ThreeFactor]) -> Callable[..., Learner]:
    def start(closure: Callable[[], Any], model: nn.Module, lr: float, sigma: float = 0.1, seed: int = 0) -> Learner:
        trainable = [p for p in model.parameters() if p.requires_grad]
        return _Acting(kind(model, SGD(trainable, lr=lr), sigma, seed=seed), closure)

    return start


_TRACES = "one trace; the linear maps' inputs"
_RPE = "reward-prediction-error"

for _row in (
    InTime(
        "oua",
        "Ornstein-Uhlenbeck adaptation",
        _Wandering,
        "Ornstein-Uhlenbeck on weights",
        _RPE,
        "in place",
        "García Fernández, Ahmad and van Gerven 2024",
        "gradient",
        "one mean; no gradient",
    ),
    InTime(
        "hedonistic-synapse",
        "synapses that release by chance, and learn how often",
        _Releasing,
        "release (0 or 1) on weights",
        _RPE,
        "in place, on logits",
        "Seung 2003",
        "direction",
        "strength, logit and release",
    ),
    InTime(
        "rmhl",
        "reward-modulated Hebbian learning, the noise known",
        _three_factor(ThreeFactor),
        "gaussian on nodes",
        _RPE,
        "SGD",
        "Williams 1992; Legenstein et al. 2010",
        "gradient",
        _TRACES,
    ),
    InTime(
        "exploratory-hebb",
        "reward-modulated Hebbian learning from fluctuations of activity",
        _three_factor(Fluctuation),
        "gaussian on nodes, unseen",
        _RPE,
        "SGD",
        "Legenstein et al. 2010",
        "direction",
        f"{_TRACES}; mean activities",
    ),
    InTime(
        "miconi",
        "the same, fluctuations cubed",
        _three_factor(Cubed),
        "gaussian on nodes, unseen",
        _RPE,
        "SGD",
        "Miconi 2017",
        "direction",
        f"{_TRACES}; mean activities",
    ),
    Method(
        "feedback-alignment",
        "feedback alignment",
        FeedbackAlignment(),
        Exact,
        SGD,
        "Lillicrap et al. 2016",
        order=1,
        memory="all activations; a fixed weight per layer",
    ),
    Method(
        "direct-feedback-alignment",
        "direct feedback alignment",
        DirectFeedbackAlignment(),
        Exact,
        SGD,
        "Nøkland 2016",
        order=1,
        memory="all activations; a fixed weight per layer",
    ),
):
    catalogue.add(_row)
