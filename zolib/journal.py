"""A run kept in a file: a few numbers for each step, from which the weights come back bit for bit.

The file begins with what makes the run: the stream's version, a hash of the initial weights, the optimizer's settings.
Each step adds one record of fixed size: its number, the coefficients of its directions, for each parameter group the
factor (with the learning rate), the decay and the momentum, one bit for each parameter that it left alone, and a
checksum.  With one direction and one group that is 48 bytes, and one more for every eight parameters; how large they
are does not matter.

A record is written before the weights are.  A killed process takes its weights with it, and the file alone decides
where the run goes on, so the order does not matter then.  It matters when writing fails, on a full disk: the step is
refused, and nothing was changed.  A process killed while it writes leaves a torn record.  It is cut off, and its step
evaluated again.

A replay needs the initial weights, or a snapshot, and no evaluation.  It does not depend on what makes the noise or on
the number of processes.  For the steps that follow to be those of an uninterrupted run, the closure must be a function
of the step: ``MeZO.steps`` says which batch is next, and with dropout, ``torch.manual_seed`` should follow it.
Schedulers are stepped again by their owner, ``MeZO.steps`` times.  Buffers come from the snapshot: running statistics
of batch norm lack what came after it.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from zolib.directions import LAWS
from zolib.errors import JournalError
from zolib.noise import stream
from zolib.records import Content, Form, compare, fingerprint, form_of, header, read
from zolib.trajectory import Record, Trajectory

try:
    import fcntl
except ImportError:  # not on Windows: two writers of one journal go unnoticed there
    fcntl = None  # type: ignore[assignment]

Groups = Sequence[Sequence[Tensor]]


class Journal:
    """The file of one run.  Give it to :class:`zolib.MeZO`, which begins it or goes on where it ends.

    Args:
        path: The file.  A snapshot lies beside it, with ``.snapshot`` added to its name.
        snapshot: Keep the weights and buffers every so many steps, so that a replay need not start from the initial
            weights.  The last one is kept.  None: never.
        sync: Wait at each step until the disk has it.  Without, a step survives the death of the process, but not that
            of the machine.

    >>> import tempfile, torch, zolib as zo
    >>> x, path = torch.ones(8, 3), tempfile.mkdtemp() + "/run.journal"
    >>> model, again = (torch.nn.Linear(3, 1, bias=False) for _ in range(2))
    >>> again.load_state_dict(model.state_dict())
    <All keys matched successfully>
    >>> opt = zo.MeZO(model, seed=0, journal=path)
    >>> for step in range(10):
    ...     loss = opt.step(lambda: model(x).square().mean())
    >>> zo.Journal(path).replay(again)
    10
    >>> torch.equal(model.weight, again.weight)
    True
    """

    def __init__(self, path: str | os.PathLike[str], *, snapshot: int | None = None, sync: bool = False):
        if snapshot is not None and (not isinstance(snapshot, int) or snapshot < 1):
            raise ValueError(f"snapshot must be a number of steps, at least 1, or None; got {snapshot!r}")
        self.path, self.snapshot, self.sync = Path(path), snapshot, sync
        self._snapshot_path = self.path.with_name(self.path.name + ".snapshot")
        self._file: IO[bytes] | None = None
        self._end, self._form, self._salt = 0, Form(0, 0, 0), 0

    def replay(self, model: nn.Module | Iterable[Tensor], until: int | None = None) -> int:
        """Move initial weights to where the run stood.

        Args:
            model: The module, or all parameters in the optimizer's order, with the weights that the run began with.
            until: Stop after so many steps; None: all.

        Returns:
            The number of steps that the weights now hold.

        Raises:
            JournalError: These are not the initial weights of the run, or the file is damaged; nothing was changed.
        """
        module = model if isinstance(model, nn.Module) else None
        parameters = list(model.parameters()) if isinstance(model, nn.Module) else list(model)
        content = read(self.path)
        identity, groups, taken = content.identity, [], 0
        for group in identity["groups"]:
            groups.append(parameters[taken : taken + len(group["parameters"])])
            taken += len(groups[-1])
        compare(
            self.path,
            identity | {"parameters": [form for group in identity["groups"] for form in group["parameters"]]},
            {
                "stream": stream.VERSION,
                "parameters": [form_of(p) for p in parameters],
                "weights": fingerprint(parameters),
            },
        )
        laws = {probe.__name__: law for probe, law in LAWS.items()}
        records = content.records[:until]
        start = self._load(content, len(records), groups, module)
        Trajectory(laws[identity["probe"]], identity["seed"]).replay(records, groups, start)
        return len(records)

    def open(self, identity: dict[str, Any], groups: Groups, module: nn.Module | None) -> tuple[list[Record], int]:
        """Begin the file, or take it up, for the run of this identity.  Called by the optimizer.

        Returns the records, and how many of them the weights already hold, from a snapshot.
        """
        if self._file is not None:
            raise JournalError(f"journal {self.path} is open already; each run needs a Journal of its own")
        start = header(identity)
        file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b", buffering=0)
        try:
            self._lock(file)
            if start.startswith(file.read(len(start) + 1)):  # nothing, or a header that was never finished
                self._put(file, 0, start)
            content = read(self.path)
            compare(self.path, content.identity, identity)
            file.truncate(content.end)
            held = self._load(content, len(content.records), groups, module)
        except BaseException:
            file.close()
            raise
        self._file, self._end, self._form, self._salt = file, content.end, content.form, content.salt
        return content.records, held

    def append(self, record: Record) -> None:
        """Write one step down.  If that fails, the file is as before."""
        if self._file is None:
            raise JournalError(f"journal {self.path} is closed; the step is refused, nothing was changed")
        packed = self._form.pack(record, self._salt)
        try:
            self._put(self._file, self._end, packed)
        except BaseException:
            self._file.truncate(self._end)
            raise
        self._end += len(packed)

    def keep(self, steps: int, groups: Groups, module: nn.Module | None) -> None:
        """Make a snapshot, if this number of steps calls for one."""
        if self.snapshot is None or steps % self.snapshot:
            return
        weights = [p.detach() for group in groups for p in group]
        buffers = dict(module.named_buffers()) if module is not None else {}
        what = {"run": self._salt, "steps": steps, "weights": weights, "buffers": buffers, "hash": fingerprint(weights)}
        try:
            torch.save(what, f"{self._snapshot_path}.new")
            os.replace(f"{self._snapshot_path}.new", self._snapshot_path)
        except (OSError, RuntimeError) as error:  # the journal itself is whole
            warnings.warn(f"no snapshot of step {steps}: {error}", RuntimeWarning, stacklevel=4)

    def close(self) -> None:
        """Let go of the file.  Another process may then take it up."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _lock(self, file: IO[bytes]) -> None:
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalError(
                f"journal {self.path} is being written by another run, or by an optimizer of this process that was not "
                "let go; close() it first"
            ) from None

    def _put(self, file: IO[bytes], place: int, data: bytes) -> None:
        file.seek(place)
        while data:  # the system may take less than all
            data = data[file.write(data) :]
        if self.sync:
            os.fsync(file.fileno())

    def _load(self, content: Content, most: int, groups: Groups, module: nn.Module | None) -> int:
        """Copy the snapshot into the weights and buffers, if there is a good one.  Returns the steps it holds, or 0."""
        if not self._snapshot_path.exists():
            return 0
        parameters = [p for group in groups for p in group]
        try:
            found = torch.load(self._snapshot_path, map_location="cpu", weights_only=True)
            wrong = "it is of another run" if found["run"] != content.salt else ""
            wrong = wrong or ("it is damaged" if found["hash"] != fingerprint(found["weights"]) else "")
        except Exception as error:  # whatever a damaged file makes of torch.load; the records suffice
            wrong = f"it cannot be read ({error})"
        if wrong:
            warnings.warn(f"snapshot {self._snapshot_path} is left aside: {wrong}", RuntimeWarning, stacklevel=4)
        if wrong or found["steps"] > most:
            return 0
        with torch.no_grad():
            for p, saved in zip(parameters, found["weights"], strict=True):
                p.copy_(saved)
            for name, buffer in module.named_buffers() if module is not None else ():
                if name in found["buffers"]:
                    buffer.copy_(found["buffers"][name])
        return found["steps"]
