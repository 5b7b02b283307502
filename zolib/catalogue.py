"""Named learning rules as triples of probe, feedback and update.

One row is one method of the literature; the taxonomy page of the book is printed from here, and a test runs every row.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zolib import probes
from zolib.feedback import FEEDBACKS, Feedback, OneSided, Ranks, RewardPredictionError, TwoPoint, ZScores
from zolib.gradient import backward
from zolib.updates import SignSGD


@dataclass(frozen=True)
class Method:
    """A learning rule: where noise enters, how values become a signal, what the signal does to the weights.

    Attributes:
        name: Its key in the catalogue.
        title: What the literature calls it.
        probe: The probe.
        feedback: A function of no argument that makes the feedback (some have a memory: one object for one run).
        update: A function ``(parameters, lr)`` that makes the optimizer.
        order: Order of the derivatives it is given: 0, values only.
        samples: Directions per step when none are named; None means one for each parameter.
        sigma: Probe size when none is named.
        memory: What it keeps besides the weights, in words.
        reference: Where it comes from.
        where: What the noise sits on, in words.
    """

    name: str
    title: str
    probe: probes.Probe
    feedback: Callable[[], Feedback]
    update: Callable[[Iterable[Any], float], torch.optim.Optimizer]
    reference: str
    order: int = 0
    samples: int | None = 1
    sigma: float = 1e-3
    memory: str = "one gradient"
    where: str = "weights"

    @property
    def scale(self) -> str:
        """What its estimate tends to as sigma goes to 0: ``"gradient"``, or a ``"direction"``, right up to a factor."""
        direction = "direction" in (self.probe.scale, self.feedback().scale)
        return "direction" if direction else "gradient"

    def evaluations(self, samples: int) -> int:
        """Evaluations of the loss in a step of that many samples."""
        feedback = self.feedback()
        return samples * len(feedback.signs) + feedback.clean

    def start(self, closure: Callable[[], Any], model: nn.Module, lr: float, **settings: Any) -> Run:
        """A run of the rule on a model.  settings: samples, sigma, seed."""
        return Run(self, closure, model, lr, **settings)


class Run:
    """A learning rule at work: each ``step()`` probes, evaluates, reinforces, and returns the loss."""

    def __init__(
        self,
        method: Method,
        closure: Callable[[], Any],
        model: nn.Module,
        lr: float,
        samples: int | None = None,
        sigma: float | None = None,
        seed: int = 0,
    ):
        self.method, self.closure, self.model = method, closure, model
        self.optimizer = method.update(model.parameters(), lr)
        self.feedback = method.feedback()
        size = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.samples = (method.samples or size) if samples is None else samples
        self.sigma = method.sigma if sigma is None else sigma
        self.seed, self.steps = seed, 0

    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:
        """One step on ``closure``, or on the closure that the run was started with."""
        self.optimizer.zero_grad()
        loss = backward(
            closure or self.closure,
            self.model,
            probe=self.method.probe,
            feedback=self.feedback,
            samples=self.samples,
            sigma=self.sigma,
            seed=self.seed,
            step=self.steps,
        )
        self.optimizer.step()
        self.steps += 1
        return loss


COLUMNS = ("name", "method", "order", "noise on", "law", "feedback", "evaluations", "scale", "memory")


@dataclass
class Catalogue:
    """Learning rules by name.  ``catalogue["spsa"]``, ``catalogue.table()``, ``catalogue.add(method)``."""

    rows: dict[str, Method] = field(default_factory=dict)

    def add(self, method: Method) -> None:
        """Add a row.  Raises ValueError if the name is taken."""
        if method.name in self.rows:
            raise ValueError(f"method {method.name!r} is in the catalogue already; choose another name")
        self.rows[method.name] = method

    def __getitem__(self, name: str) -> Method:
        if name not in self.rows:
            near = difflib.get_close_matches(name, self.rows, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"no method {name!r} in the catalogue.{hint} Known: {', '.join(self.rows)}")
        return self.rows[name]

    def __iter__(self):
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def table(self) -> Table:
        """The taxonomy: one row a method, in words.  Print it, or read its ``rows``."""
        return Table([_in_words(method) for method in self.rows.values()])

    def __repr__(self) -> str:
        return f"Catalogue({', '.join(self.rows)})"


@dataclass(frozen=True)
class Table:
    """Rows of words under :data:`COLUMNS`."""

    rows: list[tuple[str, ...]]

    def __str__(self) -> str:
        lines = [COLUMNS, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    __repr__ = __str__


def _in_words(method: Method) -> tuple[str, ...]:
    feedback = method.feedback()
    count = "d" if method.samples is None else "K"
    each = "" if len(feedback.signs) == 1 else str(len(feedback.signs))
    evaluations = f"{each}{count}{' + 1' if feedback.clean else ''}"
    law, signal = _name_of(method.probe, probes.PROBES), _name_of(feedback, FEEDBACKS)
    cells = (method.name, f"{method.title}; {method.reference}", str(method.order), method.where, law, signal)
    return (*cells, evaluations, method.scale, method.memory)


def _name_of(thing: Any, known: dict[str, Any]) -> str:
    """The name that strings give it, or its class's."""
    return next((name for name, kind in known.items() if kind is type(thing)), type(thing).__name__)


def _sgd(parameters: Iterable[Any], lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr)


def _adam(parameters: Iterable[Any], lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr)


#: Every named learning rule of the library.
catalogue = Catalogue()

for _row in (
    Method(
        "coordinate-differences",
        "coordinate-wise finite differences",
        probes.Coordinate(),
        TwoPoint,
        _sgd,
        "Kiefer and Wolfowitz 1952",
        samples=None,
    ),
    Method(
        "rdsa", "random-direction stochastic approximation", probes.Sphere(), TwoPoint, _sgd, "Kushner and Clark 1978"
    ),
    Method("spsa", "simultaneous perturbation (SPSA)", probes.Rademacher(), TwoPoint, _sgd, "Spall 1992"),
    Method("gaussian-smoothing", "Gaussian smoothing", probes.Gaussian(), OneSided, _sgd, "Nesterov and Spokoiny 2017"),
    Method(
        "weight-perturbation",
        "weight perturbation, reward against its running mean",
        probes.Gaussian(),
        RewardPredictionError,
        _sgd,
        "Cauwenberghs 1992; Williams 1992",
        samples=4,
        sigma=1e-2,
        memory="one gradient, one number",
    ),
    Method(
        "openai-es",
        "evolution strategy with centred ranks (OpenAI-ES)",
        probes.Gaussian(),
        Ranks,
        _adam,
        "Salimans et al. 2017",
        samples=16,
        sigma=2e-2,
        memory="three gradients",
    ),
    Method(
        "es-z-scores",
        "evolution strategy with standardised rewards",
        probes.Gaussian(),
        ZScores,
        _sgd,
        "Salimans et al. 2017; Sarkar et al. 2025 (later)",
        samples=16,
        sigma=2e-2,
    ),
    Method(
        "eggroll",
        "low-rank evolution strategy (EGGROLL)",
        probes.LowRank(1),
        ZScores,
        _sgd,
        "Sarkar et al. 2025 (later)",
        samples=16,
        sigma=2e-2,
    ),
    Method("mezo", "memory-efficient zeroth order (MeZO)", probes.Gaussian(), TwoPoint, _sgd, "Malladi et al. 2023"),
    Method("zo-signsgd", "zeroth-order signSGD", probes.Gaussian(), TwoPoint, SignSGD, "Liu et al. 2019", samples=4),
    Method(
        "zo-adam",
        "zeroth-order Adam",
        probes.Gaussian(),
        TwoPoint,
        _adam,
        "compare ZO-AdaMM, Chen et al. 2019",
        samples=4,
        memory="three gradients",
    ),
    Method(
        "orthogonal-directions",
        "orthogonal random directions",
        probes.Orthogonal(8),
        TwoPoint,
        _sgd,
        "Choromanski et al. 2018",
        samples=8,
        memory="one gradient, eight directions",
    ),
):
    catalogue.add(_row)
