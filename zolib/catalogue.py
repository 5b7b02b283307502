"""Named learning rules as triples of probe, feedback and update.

One row is one method of the literature; the taxonomy page of the book is printed from here, and a test runs every row.
The rows themselves are in ``zolib/methods.py``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zolib.feedback import FEEDBACKS, Feedback
from zolib.gradient import backward
from zolib.probes import PROBES, Probe

#: What the mean of an estimate can be: the gradient; right up to a positive factor or matrix; neither.
SCALES = ("gradient", "direction", "none")


class Learner(Protocol):
    """A learning rule at work: ``step()`` makes one step and returns the loss."""

    def step(self) -> Tensor: ...


class Row(Protocol):
    """What the catalogue asks of a row: :class:`Method`, or a rule in time (``zolib/rules/rows.py``)."""

    name: str
    scale: str

    def start(self, closure: Callable[[], Any], model: nn.Module, lr: float, **settings: Any) -> Learner: ...

    def cells(self) -> tuple[str, ...]:
        """The row in words, under ``COLUMNS``."""


@dataclass(frozen=True)
class Method:
    """A learning rule: where noise enters, how values become a signal, what the signal does to the weights.

    Attributes:
        name: Its key in the catalogue.
        title: What the literature calls it.
        probe: The probe.
        feedback: A function of no argument that makes the feedback (some have a memory: one object for one run).
        update: A function ``(parameters, lr)`` that makes the optimizer.
        reference: Where it comes from.
        order: Order of the derivatives it is given: 0, values only.
        samples: Directions per step when none are named; None means one for each parameter.
        sigma: Probe size when none is named.
        memory: What it keeps besides the weights and one gradient, in words.
        local: What else learns, without the loss: a function of the model that makes a function called at each step.
    """

    name: str
    title: str
    probe: Probe
    feedback: Callable[[], Feedback]
    update: Callable[[Iterable[Any], float], torch.optim.Optimizer]
    reference: str
    order: int = 0
    samples: int | None = 1
    sigma: float = 1e-3
    memory: str = "nothing"
    local: Callable[[nn.Module], Callable[[], Any]] | None = None

    @property
    def scale(self) -> str:
        """What its estimate tends to as sigma goes to 0, one of ``SCALES``."""
        return max(self.probe.scale, self.feedback().scale, key=SCALES.index)

    def evaluations(self, samples: int) -> int:
        """Evaluations of the loss in a step of that many samples; exact ones carry derivatives and cost more."""
        feedback = self.feedback()
        return samples * (1 if feedback.exact else len(feedback.signs)) + feedback.clean

    def start(self, closure: Callable[[], Any], model: nn.Module, lr: float, **settings: Any) -> Run:
        """A run of the rule on a model.  settings: samples, sigma, seed.

        The closure returns a scalar, or one loss per example, (B,), where the noise sits on nodes.
        """
        return Run(self, closure, model, lr, **settings)

    def cells(self) -> tuple[str, ...]:
        """The row in words, under ``COLUMNS``."""
        feedback = self.feedback()
        probe, signal = getattr(self.probe, "law", _name_of(self.probe, PROBES)), _name_of(feedback, FEEDBACKS)
        if self.probe.where != "nothing":
            probe += f" on {self.probe.where}"
        update = self.update.__name__ + (f", {self.local.__name__}" if self.local else "")
        cells = (self.name, f"{self.title}; {self.reference}", str(self.order), probe, signal, update)
        return (*cells, _evaluations(self, feedback), self.scale, self.memory)


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
        self.local = method.local(model) if method.local else None
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
        if self.local:
            self.local()
        self.optimizer.step()
        self.steps += 1
        return loss


COLUMNS = ("name", "method", "order", "probe", "feedback", "update", "evaluations", "scale", "memory")


@dataclass
class Catalogue:
    """Learning rules by name.  ``catalogue["spsa"]``, ``catalogue.table()``, ``catalogue.add(method)``."""

    rows: dict[str, Any] = field(default_factory=dict)  # of Row

    def add(self, method: Row) -> None:
        """Add a row.  Raises ValueError if the name is taken."""
        if method.name in self.rows:
            raise ValueError(f"method {method.name!r} is in the catalogue already; choose another name")
        self.rows[method.name] = method

    def __getitem__(self, name: str) -> Any:
        if name not in self.rows:
            near = difflib.get_close_matches(str(name).lower(), self.rows, n=1, cutoff=0.4)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise KeyError(f"no method {name!r} in the catalogue.{hint} Known: {', '.join(self.rows)}")
        return self.rows[name]

    def __iter__(self):
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def table(self) -> Table:
        """The taxonomy: one row a method, in words.  Print it, or read its ``rows``."""
        return Table([method.cells() for method in self.rows.values()])

    def __repr__(self) -> str:
        return f"Catalogue({', '.join(self.rows)})"


@dataclass(frozen=True)
class Table:
    """Rows of words under ``COLUMNS``."""

    rows: list[tuple[str, ...]]

    def __str__(self) -> str:
        lines = [COLUMNS, *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
        return "\n".join(
            "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
        )

    __repr__ = __str__


def _evaluations(method: Method, feedback: Feedback) -> str:
    """K samples, d parameters."""
    if method.probe.where == "nothing":  # no noise, no samples: errors are sent back
        return "1, and back"
    count = "d" if method.samples is None else "K"
    if feedback.exact:
        return f"{count}, forward mode"
    each = "" if len(feedback.signs) == 1 else str(len(feedback.signs))
    return f"{each}{count}{' + 1' if feedback.clean else ''}"


def _name_of(thing: Any, known: dict[str, Any]) -> str:
    """The name that strings give it, or its class's."""
    return next((name for name, kind in known.items() if kind is type(thing)), type(thing).__name__)


#: Every named learning rule of the library.
catalogue = Catalogue()
