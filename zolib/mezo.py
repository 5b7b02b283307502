"""MeZO: training at the memory of inference.  The gradient is never a tensor, only seeds and coefficients."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zolib.directions import LAWS, Directions
from zolib.experiment import OnParameters
from zolib.feedback import TwoPoint
from zolib.gradient import whole
from zolib.journal import Journal
from zolib.loop import slopes
from zolib.noise.point_of_use import refuse_unreachable
from zolib.noise.seeds import as_seed
from zolib.parallel import Team
from zolib.probes import PROBES, Probe, named
from zolib.records import identity_of
from zolib.subject import Subject, quiet_torch
from zolib.trajectory import Group, Record, Trajectory, settings_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class MeZO(torch.optim.Optimizer):
    r"""Zeroth-order descent in place, as any ``torch.optim`` optimizer, with a closure that only returns the loss.

    .. math:: c_k = \frac{f(\theta + \sigma z_k) - f(\theta - \sigma z_k)}{2\sigma}, \qquad
              v \leftarrow \mu v + \frac{\eta}{K} \sum_{k=1}^K c_k z_k, \qquad
              \theta \leftarrow (1 - \eta\lambda)\, \theta - v

    with lr :math:`\eta`, ``samples`` K, ``momentum`` :math:`\mu` and ``weight_decay`` :math:`\lambda` (decoupled).  It
    is :func:`zolib.backward` with the same seed and step, followed by SGD, without the gradient: the weights are not
    written to probe them, and the update draws z again and adds it in one pass over each parameter.  A step takes 2 K
    evaluations and one pass over the weights, at the memory of inference, one layer's perturbed weights, and, if an
    evaluation uses some weights more than once, those too (up to 64 MiB, or the largest).

    ``momentum`` keeps no tensor: v is a sum over past steps, whose noise is drawn again.  Steps whose weight has
    fallen below 1 % are forgotten, so the update draws ln 0.01 / ln mu steps' noise, 7 at 0.5 and 44 at 0.9.

    ``normalize``, in (0, 1), divides the slopes by the root of their running mean square, s <- normalize s +
    (1 - normalize) mean_k c_k^2, corrected for its start.  This is Adam's second moment, which averaged over many
    weights is this one number, because all weights share the slope.  lr is then the size of a step in the units of the
    weights, whatever those of the loss, and the same for groups of different sigma.

    ``clip`` limits each slope c_k to [-clip, clip]; with ``normalize`` after the division, so in units of its running
    root mean square.

    Half-precision weights are rounded stochastically, so that updates smaller than a weight's last digit are right on
    average.  Source: Malladi et al., "Fine-tuning language models with just forward passes", NeurIPS 2023, whose noise
    is Gaussian, from a seed per step, added to the weights and taken off again.

    Args:
        params: A module, its parameters, named parameters, or groups of them with their own ``lr``, ``sigma``,
            ``momentum`` and ``weight_decay``.  Frozen parameters are skipped and keep their number in the stream.
            Only from a module are its buffers known (see ``model``).
        lr, sigma, momentum, weight_decay: As above; one may change them in ``param_groups`` between steps, as
            schedulers do.  Where groups differ in sigma, the first one's is that of the formula, and the others' z is
            longer or shorter in proportion.
        seed: Of the noise; None draws one from the library's counter.
        samples: Directions for each step, K.
        probe: ``"rademacher"`` or ``"gaussian"``.
        clip, normalize: As above; None is off.
        unused: What to do about a parameter that no evaluation consumes: ``"raise"``, or ``"skip"`` it in this step.
        model: The module whose buffers are set back between evaluations, so that they are as after one (the running
            statistics of batch norm, say), where ``params`` is not the module itself.
        process_group: Processes that share the evaluations (:mod:`zolib.parallel`).
        data: ``"same"`` or ``"sharded"`` over them.
        journal: A :class:`zolib.Journal` or its path.  A new one is begun; one of the same run is replayed, so that the
            weights and ``steps`` are where it ended.

    Attributes:
        steps: How many steps were taken.
        seed: Of the noise.

    Raises:
        ValueError, TypeError: An argument is out of range or of the wrong kind.
        JournalError: The journal belongs to another run, or is damaged; nothing was changed.

    >>> import torch, zolib as zo
    >>> model, x = torch.nn.Linear(3, 1), torch.ones(8, 3)
    >>> opt = zo.MeZO(model, lr=1e-2, seed=0)
    >>> losses = [opt.step(lambda: model(x).square().mean()) for step in range(200)]
    >>> bool(losses[-1] < 0.01)
    True
    """

    _journal: Journal | None = None
    _team: Team | None = None

    def __init__(
        self,
        params: nn.Module | Iterable[Any],
        lr: float = 1e-3,
        sigma: float = 1e-3,
        seed: int | None = 0,
        *,
        samples: int = 1,
        probe: Probe | str = "rademacher",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        clip: float | None = None,
        normalize: float | None = None,
        unused: str = "raise",
        model: nn.Module | None = None,
        process_group: ProcessGroup | None = None,
        data: str = "same",
        journal: Journal | str | os.PathLike[str] | None = None,
    ):
        self.probe = named("probe", probe, PROBES, Probe)
        if type(self.probe) not in LAWS:
            raise ValueError(
                f"probe={self.probe!r}: MeZO draws its noise again inside the update, which it can for 'rademacher' "
                "and 'gaussian'. For other probes fill .grad with zolib.backward and step torch.optim.SGD"
            )
        if self.probe.axes:
            raise ValueError(
                f"probe.axes={self.probe.axes!r}: MeZO has one slope for all weights. For learners side by side fill "
                ".grad with zolib.backward and step torch.optim.SGD"
            )
        self.samples, self.seed, self.steps = whole("samples", samples), as_seed(seed), 0
        if clip is not None and not clip > 0:
            raise ValueError(f"clip must be positive, the largest slope that counts, or None; got {clip!r}")
        if normalize is not None and not 0 < normalize < 1:
            raise ValueError(f"normalize must lie in (0, 1), a decay such as 0.99, or be None; got {normalize!r}")
        if unused not in ("raise", "skip"):
            raise ValueError(f"unused must be 'raise' or 'skip', got {unused!r}")
        self.clip, self.normalize, self.unused = clip, normalize, unused
        if isinstance(params, nn.Module):
            model, params = params, params.named_parameters()
        if model is not None:
            refuse_unreachable(model)
        self._model = model
        self._mean_square, self._repeated, self._journaled, self._interrupted = 0.0, None, False, False
        self._trajectory = Trajectory(LAWS[type(self.probe)], self.seed)
        super().__init__(params, {"lr": lr, "sigma": sigma, "momentum": momentum, "weight_decay": weight_decay})
        if process_group is not None:
            self._team = Team(process_group, data)
        elif data != "same":
            raise ValueError(f"data={data!r} is about processes; pass their process_group too")
        if process_group is not None or journal is not None:
            self._begin(journal if journal is None or isinstance(journal, Journal) else Journal(journal))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters, with their own settings if they have any.  Those that are there keep their noise."""
        if self._journal is not None or self._team is not None:
            raise RuntimeError("a journal or other processes know the parameters; pass all groups to MeZO at once")
        super().add_param_group(param_group)
        try:
            settings_of(param_group)
        except (TypeError, ValueError):
            self.param_groups.remove(param_group)
            raise

    def step(self, closure: Callable[[], Any] | None = None) -> Tensor:  # type: ignore[override]
        """Evaluate, update, and return the loss, the mean of the evaluations.

        Args:
            closure: Called without arguments, 2 ``samples`` times; returns the loss, as for :func:`zolib.backward`.  It
                must not call backward().

        Errors are those of :func:`zolib.backward`; the weights, their noise and the generators are then as before.
        """
        if closure is None:
            raise TypeError("MeZO evaluates the loss itself: call step(closure) with a function that returns it")
        if self._interrupted:
            raise RuntimeError(
                "an earlier step was interrupted while it wrote the weights; load them from a checkpoint, or build a "
                "new MeZO with its journal and the initial weights"
            )
        with quiet_torch():
            settings = [settings_of(group) for group in self.param_groups]
            experiment = self._experiment(closure, settings)
            subject, state = experiment.subject, experiment.state()
            share = None if self._team is None else self._team.share(subject, self._count(), self.steps, settings)
            try:
                rates, loss = slopes(experiment, TwoPoint(), settings[0]["sigma"], share=share, state=state)
                record = self._record(subject, rates, settings)
                self._write_down(record)
            except BaseException:
                state.restore()
                raise
            self._repeated, self._interrupted = subject.repeated, True
            self._trajectory.replay([record], self._parameters(), record.step)
            self.steps, self._mean_square, self._interrupted = record.step + 1, record.mean_square, False
            if self._journal is not None:
                self._journal.keep(self.steps, self._parameters(), self._model)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """As of any optimizer; the entry ``"mezo"`` holds the seed, the step and what momentum remembers."""
        own = {
            "probe": type(self.probe).__name__,
            "samples": self.samples,
            "seed": self.seed,
            "steps": self.steps,
            "mean_square": self._mean_square,
            "past": self._trajectory.to_lists(),
        }
        return super().state_dict() | {"mezo": own}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on as the optimizer that gave it would.

        Raises:
            ValueError: It belongs to another optimizer, probe or number of samples.
        """
        if self._journal is not None:
            raise RuntimeError("the journal says where this run stands; load a state into a MeZO without one")
        own = state_dict.get("mezo")
        if own is None:
            raise ValueError("state_dict holds no entry 'mezo'; it belongs to another optimizer")
        for name, mine in (("probe", type(self.probe).__name__), ("samples", self.samples)):
            if own[name] != mine:
                raise ValueError(f"state_dict is of {name}={own[name]!r}, this optimizer has {name}={mine!r}")
        super().load_state_dict(state_dict)
        self.seed, self.steps, self._mean_square = own["seed"], own["steps"], own["mean_square"]
        self._trajectory = Trajectory(self._trajectory.law, self.seed)
        self._trajectory.from_lists(own["past"])

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles; torch keeps less, and leaves out hooks too."""
        return {k: v for k, v in self.__dict__.items() if k != "step" and not k.startswith("_optimizer_")}

    def _parameters(self) -> list[list[Tensor]]:
        return [group["params"] for group in self.param_groups]

    def _count(self) -> int:
        return sum(map(len, self._parameters()))

    def _experiment(self, closure: Callable[[], Any], settings: list[dict[str, float]]) -> OnParameters:
        flat = [p for parameters in self._parameters() for p in parameters]
        names = [name for group in self.param_groups for name in group.get("param_names", ())]
        names = names or [f"params[{i}]" for i in range(len(flat))]
        subject = Subject(closure, zip(names, flat, strict=True), type(self.probe).__name__)
        subject.modules = [] if self._model is None else list(self._model.modules())
        subject.repeated = self._repeated
        directions = Directions(self.probe, subject.targets, self.seed, self.steps, self.samples)
        sigma = {id(p): s["sigma"] for g, s in zip(self._parameters(), settings, strict=True) for p in g}
        return OnParameters(
            subject, directions, self.unused, [sigma[id(t.value)] / settings[0]["sigma"] for t in subject.targets]
        )

    def _record(self, subject: Subject, rates: Tensor, settings: list[dict[str, float]]) -> Record:
        """This step as numbers: its slopes, (samples,), made into coefficients."""
        found, square, scale = rates.tolist(), 0.0, 1.0
        if self.normalize is not None:
            mean = sum(c * c for c in found) / self.samples
            square = self.normalize * self._mean_square + (1 - self.normalize) * mean
            scale = 1 / math.sqrt(square / (1 - self.normalize ** (self.steps + 1))) if square else 0.0
        limit = math.inf if self.clip is None else self.clip
        coefficients = tuple(min(max(c * scale, -limit), limit) for c in found)
        groups = []
        for s in settings:
            relative = 1.0 if self.normalize else settings[0]["sigma"] / s["sigma"]
            groups.append(Group(s["lr"] * relative / self.samples, 1 - s["lr"] * s["weight_decay"], s["momentum"]))
        consumed = {subject.targets[j].number for j in subject.consumed}
        idle = frozenset(range(self._count())) - consumed
        return Record(self.steps, coefficients, tuple(groups), idle, square)

    def _write_down(self, record: Record) -> None:
        """Into the journal before into the weights: if that fails, nothing was changed."""
        if not self._journaled:
            return

        def append() -> None:
            self._journal.append(record)
            self._interrupted = True  # until the weights hold it too

        append() if self._team is None else self._team.first(append)

    @torch.no_grad()
    def _begin(self, journal: Journal | None) -> None:
        """Agree with the other processes on where to start, and go on where the journal ends."""
        identity, parameters = identity_of(self, self._parameters()), self._parameters()
        self._journaled = journal is not None
        if self._team is not None:
            self._team.agree(identity, self._journaled)
        if journal is None:
            return
        if self._team is None:
            run = journal.open(identity, parameters, self._model)
        else:
            run = self._team.told(self._team.first(lambda: journal.open(identity, parameters, self._model)))
            if run[1]:  # the first process has a snapshot
                buffers = [] if self._model is None else list(self._model.buffers())
                self._team.copy([p for group in parameters for p in group] + buffers)
        self._journal = journal if self._team is None or self._team.rank == 0 else None
        records, held = run
        self._trajectory.replay(records, parameters, held)
        if records:
            self.steps, self._mean_square = len(records), records[-1].mean_square
