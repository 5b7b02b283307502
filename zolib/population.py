"""A population of perturbed models, evaluated in one batched forward pass: ask, evaluate, tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zolib.directions import Directions
from zolib.errors import LossError
from zolib.estimates import Replay
from zolib.feedback import FEEDBACKS, Feedback, Ranks
from zolib.gradient import probe_size, whole
from zolib.noise import stream
from zolib.noise.seeds import as_seed
from zolib.on_members import FactoredDirections, Given, OnMembers
from zolib.probes import PROBES, LowRank, Probe, named
from zolib.subject import Subject, quiet_torch

#: Members of full rank are evaluated as many at a time as have their largest weight in this many bytes.
FULL_RANK_BYTES = 1 << 28


class Population:
    r"""Many perturbed copies of a model, none of which exists: evolution strategies for any module.

    Member k has the parameters :math:`\theta + \sigma z_k`.  With a rank r, each matrix is perturbed by
    :math:`\sigma a b^\top / \sqrt r` (:class:`~zolib.LowRank`), and an operation with it is one product that all
    members share and a thin one beside it: :math:`x W^\top + \sigma (x b) a^\top / \sqrt r`.  Vectors are perturbed
    in full.  So a population costs little more than plain inference on as many rows.  Sources: Salimans et al.,
    arXiv:1703.03864 (evolution strategies); Sarkar et al., arXiv:2511.16652 (low rank; later than the review).

    Any module will do.  It is evaluated under :func:`torch.func.vmap`: shared products serve linear maps, matrix
    products, embeddings, convolutions, attention and recurrent modules; other operations are given the weights of all
    members, written out for that operation alone.  What cannot be batched at all (batch norm in training, control flow
    that depends on values, numbers that leave torch) is evaluated one member after another, with one warning.

    The values are those of :func:`torch.func.functional_call` with the parameters of :meth:`member`, to the rounding of
    the activations.  In half precision a matrix is not rounded, since none is written out: the perturbation enters
    where the activations are, with factors rounded to nearest; vectors, and all parameters of full rank, are formed in
    float32 and rounded stochastically.

    Args:
        model: A module, or a list of tensors.  Its trainable parameters are those that require grad now.
        size: Members.
        sigma: Probe size, in the units of the parameters.  May be set between steps.
        rank: Of a matrix's perturbation.  None: full rank, with as many weights as members; see ``chunk``.
        seed: The same seed gives the same noise; None draws the next one of the library's counter.
        antithetic: Members 2i and 2i + 1 are :math:`\theta + \sigma z_i` and :math:`\theta - \sigma z_i`.
        probe: The law of a full-rank perturbation (``rank=None``): an object or its name.  None: Gaussian.
        feedback: How the losses become slopes: an object or its name, ``"ranks"``, ``"z-scores"``, ``"two-point"``, ...
        optimizer: Steps after :meth:`tell`, and its gradients are cleared then.  None: ``tell`` adds to ``.grad``.
        chunk: Members evaluated in one pass, rounded up to whole pairs.  None: all; of full rank as many as have their
            largest weight in 256 MB.
        unused: What to do about a parameter that an evaluation never consumes: ``"raise"`` or ``"skip"``.

    Attributes:
        step: The number of the step, which the next ``tell`` ends.

    Raises:
        ValueError, TypeError: An argument is out of range or of the wrong kind.
        ParameterError: As for :func:`zolib.backward`.

    >>> import torch, zolib as zo
    >>> model = torch.nn.Linear(3, 1)
    >>> x, y = torch.ones(8, 3), torch.zeros(8, 1)
    >>> pop = zo.Population(model, size=32, sigma=0.1, seed=0, optimizer=torch.optim.SGD(model.parameters(), lr=0.01))
    >>> for _ in range(100):
    ...     losses = pop.evaluate(lambda model, x: ((model(x) - y) ** 2).mean(), x)
    ...     _ = pop.tell(losses)
    >>> losses.shape, bool(losses.mean() < 0.1)
    (torch.Size([32]), True)
    """

    def __init__(
        self,
        model: nn.Module | Iterable[Tensor],
        size: int = 256,
        sigma: float = 0.02,
        rank: int | None = 1,
        seed: int | None = None,
        *,
        antithetic: bool = True,
        probe: Probe | str | None = None,
        feedback: Feedback | str = "ranks",
        optimizer: torch.optim.Optimizer | None = None,
        chunk: int | None = None,
        unused: str = "raise",
    ):
        plain = isinstance(model, Iterable) and not isinstance(model, (nn.Module, Tensor))
        self.model = list(model) if plain else model
        self.size, self.sigma, self.step = whole("size", size), probe_size(sigma), 0
        self.antithetic, self.unused, self.optimizer = antithetic, unused, optimizer
        if antithetic and size % 2:
            raise ValueError(
                f"size={size} is odd, and antithetic members come in pairs; make it even, or pass antithetic=False"
            )
        if unused not in ("raise", "skip"):
            raise ValueError(f"unused must be 'raise' or 'skip', got {unused!r}")
        if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"optimizer must be a torch.optim.Optimizer over the model's parameters, got {optimizer!r}")
        self.probe = _law(rank, probe)
        self.feedback = _mirrored(feedback, antithetic)
        if size < self.feedback.least:
            raise ValueError(
                f"size={size}: {type(self.feedback).__name__} compares members with one another and needs at least "
                f"{self.feedback.least}"
            )
        self._subject = Subject(lambda: None, self.model, type(self.probe).__name__)
        self._targets = self._subject.targets
        self._members = OnMembers(self._subject, unused)
        sides = [min(t.value.shape[0], t.value.shape[1:].numel()) for t in self._targets if t.value.ndim > 1]
        if isinstance(self.probe, LowRank):
            if 0 < max(sides, default=0) < self.probe.rank:
                raise ValueError(
                    f"rank={self.probe.rank}: no matrix of the model has a rank above {max(sides)}, the lesser of its "
                    "rows and columns; use rank=None for full rank"
                )
            most = size
        else:
            most = max(1, FULL_RANK_BYTES // max(t.value.nbytes for t in self._targets))
        chunk = min(size, most) if chunk is None else whole("chunk", chunk)
        self.chunk = chunk + chunk % 2 if antithetic else chunk
        self._seed = as_seed(seed)
        self._asked = False
        self._drawn: Directions | None = None
        self._directions()  # which checks that the probe can draw that many

    def evaluate(self, f: Callable[..., Any], *args: Any, per_member: bool = False) -> Tensor:
        """The loss of every member, (size,).

        Global generators, and buffers, end as after one evaluation.  What f draws from a generator, a dropout mask for
        instance, is the same for all members, so that they differ by their parameters alone.

        Args:
            f: Called as ``f(model, *args)`` under ``torch.no_grad``; returns the loss of one member, a scalar of
                float32 or float64, or a number.  It sees the model itself, with one member's parameters.
            *args: What f is given, a batch for instance: tensors, or nests of them, the same for all members.
            per_member: Every tensor in ``args`` has a leading axis of ``size``, and member k is given entry k.

        Raises:
            LossError: The loss is no scalar, or of half precision.  (One that is not finite is refused by ``tell``.)
            ParameterError: As for :func:`zolib.backward`.
        """
        if isinstance(f, nn.Module) or not callable(f):
            raise TypeError(f"f must be a function (model, *args) that returns the loss, got {type(f).__name__}")
        leaves, tree = pytree.tree_flatten(args)
        split = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)] if per_member else []
        for i in split:
            if leaves[i].ndim == 0 or len(leaves[i]) != self.size:
                raise ValueError(
                    f"per_member=True: a tensor of shape {tuple(leaves[i].shape)} has no leading axis of "
                    f"{self.size}, the size of the population"
                )

        def run(leaves: Sequence[Any]) -> Any:
            return f(self.model, *pytree.tree_unflatten(leaves, tree))

        with quiet_torch():
            losses = self._members.losses(Given(run, leaves, split), self._directions(), self._signed, self.chunk)
        self._asked = True
        return losses

    def member(self, k: int) -> dict[str, Tensor]:
        """The parameters of member k of this step, written out: for ``torch.func.functional_call(model, pop.member(k),
        args)``, or for an evaluation somewhere else, whose losses ``tell`` takes.
        """
        if not 0 <= k < self.size:
            raise ValueError(f"k must be a member's number, from 0 to {self.size - 1}, got {k!r}")
        self._asked = True
        draw, sign = divmod(k, len(self._signed))
        with quiet_torch():
            return {
                t.name: self._directions().perturbed(draw, j, self._signed[sign]) for j, t in enumerate(self._targets)
            }

    def tell(self, losses: Tensor | Sequence[float]) -> Replay:
        """Ends the step: adds the estimate of the gradient to ``.grad``, or takes a step of the optimizer with it.

        losses: (size,), of :meth:`evaluate` or of anywhere else; what is to be made small, so minus a reward.

        Returns:
            The estimate, seeds and coefficients, with the loss as the feedback reports it.  It is that of
            ``zolib.estimate`` with the same probe, feedback, seed and step, and ``samples`` the number of draws.

        Raises:
            LossError: A loss is not finite.
            ValueError: The shape is wrong.
            RuntimeError: No member of this step was asked for: the losses would be those of another one.

        After an error parameters and gradients are as before.
        """
        values = torch.as_tensor(losses).detach().double().cpu()
        if values.shape != (self.size,):
            raise ValueError(f"losses must have shape ({self.size},), one for each member; got {tuple(values.shape)}")
        if not self._asked:
            raise RuntimeError(
                f"tell() ends step {self.step}, and no member of it was evaluated: each step has draws of its own. "
                "Call evaluate() first, or member() for an evaluation elsewhere"
            )
        bad = torch.nonzero(~values.isfinite()).flatten().tolist()
        if bad:
            raise LossError(
                f"the loss of member {bad[0]} is {values[bad[0]].item()} ({len(bad)} of {self.size} are not finite); "
                "the step is refused, nothing was changed. Make sigma smaller, or give such members a loss worse than "
                "all others"
            )
        table = values.view(-1, len(self._signed))
        consumed = self._subject.consumed or range(len(self._targets))
        idle = set(range(len(self._targets))) - set(consumed)
        found = Replay.mean(self._directions(), self.feedback.coefficients(table, None, self.sigma), idle)
        found.loss = self.feedback.value(table, None)
        before = [t.value.grad for t in self._targets]
        try:
            with quiet_torch():
                found.accumulate()
            if self.optimizer is not None:
                self.optimizer.step()
                self.optimizer.zero_grad()
        except BaseException:
            for target, g in zip(self._targets, before, strict=True):
                target.value.grad = g
            raise
        self.step, self._asked = self.step + 1, False
        return found

    def state_dict(self) -> dict[str, Any]:
        """What a run goes on from; the parameters and the optimizer have their own."""
        memory = dict(vars(self.feedback)) if self.feedback.memory else {}
        now = {"seed": self._seed, "step": self.step, "sigma": self.sigma, "asked": self._asked}
        return self._settings() | now | {"feedback": memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state.  Raises ValueError if it is of another population, and then changes nothing."""
        for name, value in self._settings().items():
            if state[name] != value:
                raise ValueError(f"state: its {name} is {state[name]!r}, that of this population {value!r}")
        self._seed, self.step, self._asked = state["seed"], state["step"], state["asked"]
        self.sigma = state["sigma"]
        if self.feedback.memory:
            vars(self.feedback).update(state["feedback"])

    def _settings(self) -> dict[str, Any]:
        law = [type(self.probe).__name__, asdict(self.probe)]  # type: ignore[call-overload]
        return {"stream": stream.VERSION, "probe": law, "size": self.size, "antithetic": self.antithetic}

    @property
    def _signed(self) -> list[float]:
        return [sign * self.sigma for sign in self.feedback.signs]

    def _directions(self) -> Directions:
        now = self._drawn
        if now is None or (now.seed, now.step) != (self._seed, self.step):
            kind = FactoredDirections if isinstance(self.probe, LowRank) else Directions
            now = kind(self.probe, self._targets, self._seed, self.step, self.size // len(self._signed))
            self._drawn = now
        return now


def _law(rank: int | None, probe: Probe | str | None) -> Probe:
    if rank is not None:
        if probe is not None:
            raise ValueError(
                f"probe={probe!r} is the law of a full-rank perturbation; pass rank=None with it, or only rank={rank}"
            )
        return LowRank(whole("rank", rank))
    chosen = named("probe", "gaussian" if probe is None else probe, PROBES, Probe)
    if type(chosen).experiment is not Probe.experiment:
        raise ValueError(f"probe={probe!r} draws no direction for the parameters, and members differ in nothing else")
    return chosen


def _mirrored(feedback: Feedback | str, antithetic: bool) -> Feedback:
    chosen = named("feedback", feedback, FEEDBACKS, Feedback)
    if isinstance(feedback, str) and isinstance(chosen, Ranks):
        chosen = type(chosen)(antithetic=antithetic)
    name = type(chosen).__name__
    if chosen.clean or chosen.exact:
        raise ValueError(f"feedback={feedback!r} needs the unperturbed model, which is no member; use 'ranks'")
    if (len(chosen.signs) == 2) != antithetic:
        raise ValueError(
            f"feedback={name} evaluates {len(chosen.signs)} points along each draw, but antithetic={antithetic}; "
            f"pass antithetic={not antithetic}, or another feedback"
        )
    return chosen
