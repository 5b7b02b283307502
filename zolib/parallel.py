"""Many processes on one step.  They exchange losses, some bytes for each evaluation, and never a tensor of weights.

All hold the same weights and draw the same noise, so each can make the whole update from the losses of all.  With
``data="same"`` all see the same batch and the evaluations are dealt round: the run is bit for bit that of one process.
With ``data="sharded"`` each process evaluates everything on its own part of the data, and the losses are averaged over
the processes, which averages the coefficients.  Buffers that an evaluation writes (the statistics of batch norm) go
from the process that made the last evaluation to all.

A script, started with ``torchrun --standalone --nproc-per-node 2 script.py``:

.. code-block:: python

    import torch
    import torch.distributed as dist
    import zolib as zo

    dist.init_process_group("gloo")
    torch.manual_seed(0)  # the same initial weights everywhere
    model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
    x = torch.randn(64, 4)
    y = x[:, :1] * x[:, 1:2]
    opt = zo.MeZO(model, lr=1e-1, samples=8, process_group=dist.group.WORLD, journal="run.journal")
    first = torch.nn.functional.mse_loss(model(x), y).item()
    while opt.steps < 200:
        opt.step(lambda: torch.nn.functional.mse_loss(model(x), y))
    last = torch.nn.functional.mse_loss(model(x), y).item()
    print(f"rank {dist.get_rank()}: {first:.3f} to {last:.3f}")
    dist.destroy_process_group()

A failure in one process (an exception, a loss that is not finite) travels with the losses: all refuse the step
together.  A process that dies breaks the connection, and the others' step raises.  With a journal a new start of the
script goes on where the run was: the first process writes the journal, and at the start it tells the records to the
others, who replay them from the initial weights.  ``torchrun --max-restarts 3`` starts anew by itself; torch 2.5 and
later then need ``TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`` in the environment, or the new processes find the old addresses
(PyTorch issue 135712).
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from zolib import errors
from zolib.evaluation import State
from zolib.loop import Point, Share
from zolib.subject import Subject

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")


class Team:
    """The processes of a group.  Every method is called by all of them, in the same order."""

    def __init__(self, group: ProcessGroup, data: str):
        if data not in ("same", "sharded"):
            raise ValueError(f"data must be 'same' or 'sharded', got {data!r}")
        if not dist.is_initialized():
            raise ValueError("process_group: torch.distributed is not initialised; call init_process_group first")
        self.group, self.data = group, data
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        if self.rank < 0:
            raise ValueError("process_group: this process is not in it")
        self._device = torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")

    def exchange(self, payload: bytes, error: BaseException | None = None) -> list[bytes]:
        """Everybody's payload, of the same length, in the order of ranks.  If one has an error, all raise."""
        mine = torch.frombuffer(bytearray([error is not None, *payload]), dtype=torch.uint8).to(self._device)
        everybody = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(everybody, mine, group=self.group)
        answers = [bytes(t.tolist()) for t in everybody]
        failed = [rank for rank, answer in enumerate(answers) if answer[0]]
        if failed:
            words: list[Any] = [None] * self.size
            dist.all_gather_object(words, error and (type(error).__name__, str(error)), group=self.group)
            if error is not None:
                raise error
            name, message = words[failed[0]]
            if hasattr(errors, name):
                raise getattr(errors, name)(f"rank {failed[0]}: {message}")
            raise RuntimeError(f"rank {failed[0]}: {name}: {message}")
        return [answer[1:] for answer in answers]

    def first(self, f: Callable[[], T]) -> T | None:
        """``f()`` by the first process, and its error, if any, to all.  None to the others."""
        result, error = None, None
        if self.rank == 0:
            try:
                result = f()
            except BaseException as e:
                error = e
        self.exchange(b"", error)
        return result

    def told(self, thing: T) -> T:
        """The first process's thing, to all."""
        box = [thing]
        dist.broadcast_object_list(box, group=self.group, group_src=0, device=self._device)
        return box[0]

    def copy(self, tensors: Sequence[Tensor], owner: int = 0) -> None:
        """The values of one process's tensors, to all."""
        for t in tensors:
            here = t.detach().to(self._device).contiguous()
            dist.broadcast(here, group=self.group, group_src=owner)
            if self.rank != owner:
                t.copy_(here)

    def agree(self, identity: dict[str, Any], journaled: bool) -> None:
        """Raise ValueError, in all processes, unless they begin the same run."""
        same = ("weights", "settings", "journal")
        rest = {name: value for name, value in identity.items() if name != "weights"}
        digests = [hashlib.sha256(json.dumps(part).encode()).digest() for part in (identity["weights"], rest)]
        answers = self.exchange(b"".join(digests) + bytes([journaled]))
        for name, part in zip(same, (slice(0, 32), slice(32, 64), slice(64, 65)), strict=True):
            other = [rank for rank, answer in enumerate(answers) if answer[part] != answers[0][part]]
            cure = {
                "weights": "initial weights differ; load the same checkpoint, or call torch.manual_seed with the same "
                "number before the model is built",
                "settings": "the optimizers' arguments, or the shapes of their parameters, differ; set them alike",
                "journal": "some were given a journal and some were not; give it to all, the first one writes it",
            }[name]
            if other:
                raise ValueError(f"process_group: ranks 0 and {other[0]}: {cure}")

    def share(self, subject: Subject, parameters: int, step: int, settings: Any) -> Share:
        """What makes the evaluations of one step together.

        parameters: how many there are, frozen ones included.  settings: lr and its kin, which have to agree.
        """
        same, check = self.data == "same", zlib.crc32(json.dumps(settings).encode())

        def losses(points: Sequence[Point], evaluate: Callable[[Sequence[Point]], Tensor], state: State) -> Tensor:
            count = len(points)
            most = -(-count // self.size) if same else count
            # who has no evaluation of its own makes one too, so that it ends in the same state
            mine = (points[self.rank :: self.size] or [points[self.rank % count]]) if same else points
            values, drawn, error = [0.0] * most, 0, None
            try:
                found = evaluate(mine).tolist()
                values[: len(found)] = found
                drawn = state.drawn() if same else 0
            except BaseException as e:
                error = e
            consumed = [subject.targets[j].number for j in subject.consumed]
            form = struct.Struct(f"<III{most}d")
            payload = form.pack(step, check, drawn, *values) + _bits(consumed, parameters)
            answers = self.exchange(payload + _bits(state.changed(), len(state.buffers())), error)
            steps, checks, draws, *losses = zip(*(form.unpack(a[: form.size]) for a in answers), strict=True)
            _refuse_strangers(steps, checks, draws)
            marks = [(a[form.size :][: -(-parameters // 8)], a[form.size :][-(-parameters // 8) :]) for a in answers]
            everywhere = {n for consumed, _ in marks for n in _numbers(consumed)}
            subject.consumed |= {j for j, t in enumerate(subject.targets) if t.number in everywhere}
            owner = (count - 1) % self.size if same else 0  # who made the last evaluation
            buffers = state.buffers()
            self.copy([buffers[i] for i in _numbers(marks[owner][1])], owner)
            if same:  # losses[i // size][i % size]: dealt round
                table = [losses[i // self.size][i % self.size] for i in range(count)]
            else:
                table = [sum(row) / self.size for row in losses]
            return torch.tensor(table, dtype=torch.float64, device="cpu")

        return losses


def _refuse_strangers(steps: Sequence[int], checks: Sequence[int], draws: Sequence[int]) -> None:
    """Raise RuntimeError, in all processes, if they are not at the same place."""
    if len(set(steps)) > 1:
        raise RuntimeError(f"the processes are at different steps, {steps}; all must call step() equally often")
    if len(set(checks)) > 1:
        raise RuntimeError("lr, sigma, momentum or weight_decay differ between the processes; set them alike")
    if len(set(draws) - {0}) > 1:
        raise RuntimeError(
            "closure() draws random numbers (dropout?), and the generators differ between the processes; seed torch, "
            "NumPy and random alike in all of them, or use data='sharded'"
        )


def _bits(chosen: Iterable[int], count: int) -> bytes:
    return sum(1 << n for n in chosen).to_bytes(-(-count // 8), "little")


def _numbers(bits: bytes) -> list[int]:
    word = int.from_bytes(bits, "little")
    return [n for n in range(word.bit_length()) if word >> n & 1]
