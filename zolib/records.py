"""The format of a journal: a header that says which run it is, then one record of fixed size for each step."""

from __future__ import annotations

import hashlib
import json
import struct
import warnings
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zolib.errors import JournalError
from zolib.noise import stream
from zolib.trajectory import Group, Record, settings_of

_MAGIC = b"zojrnl\x00\x01"  # the last byte is the version of the format
_LENGTH = struct.Struct("<I")


class Form(NamedTuple):
    """How many of each thing are in a record.

    A record is, little-endian: step (uint32); coefficients, factor, decay and momentum of each group, mean square
    (float64); one bit for each parameter that it leaves alone; CRC-32, begun with the header's.
    """

    samples: int
    groups: int
    parameters: int

    @property
    def _numbers(self) -> struct.Struct:
        return struct.Struct(f"<I{self.samples + 3 * self.groups + 1}d")

    @property
    def size(self) -> int:
        return self._numbers.size + self._octets + 4

    @property
    def _octets(self) -> int:
        return -(-self.parameters // 8)

    def pack(self, record: Record, salt: int) -> bytes:
        flat = [x for group in record.groups for x in group]
        numbers = self._numbers.pack(record.step, *record.coefficients, *flat, record.mean_square)
        body = numbers + sum(1 << n for n in record.idle).to_bytes(self._octets, "little")
        return body + _LENGTH.pack(zlib.crc32(body, salt))

    def unpack(self, packed: bytes, salt: int) -> Record | None:
        """None if the checksum is wrong."""
        body, size = packed[:-4], self._numbers.size
        if len(packed) < self.size or zlib.crc32(body, salt) != _LENGTH.unpack(packed[-4:])[0]:
            return None
        step, *numbers, mean_square = self._numbers.unpack(body[:size])
        rest, bits = numbers[self.samples :], int.from_bytes(body[size:], "little")
        groups = tuple(Group(*rest[i : i + 3]) for i in range(0, len(rest), 3))
        idle = frozenset(n for n in range(self.parameters) if bits >> n & 1)
        return Record(step, tuple(numbers[: self.samples]), groups, idle, mean_square)


class Content(NamedTuple):
    """What a journal holds."""

    identity: dict[str, Any]
    records: list[Record]
    form: Form
    salt: int  # the header's checksum: no other file's records pass
    end: int  # of the last good record, in bytes


def identity_of(optimizer: Any, groups: Sequence[Sequence[Tensor]]) -> dict[str, Any]:
    """What makes two runs of :class:`zolib.MeZO` the same one, given the same closure: plain numbers and strings."""
    forms = [[form_of(p) for p in parameters] for parameters in groups]
    return {
        "stream": stream.VERSION,
        "probe": type(optimizer.probe).__name__,
        **{name: getattr(optimizer, name) for name in ("seed", "samples", "clip", "normalize")},
        "groups": [settings_of(g) | {"parameters": f} for g, f in zip(optimizer.param_groups, forms, strict=True)],
        "weights": fingerprint(p for parameters in groups for p in parameters),
    }


def header(identity: dict[str, Any]) -> bytes:
    text = json.dumps(identity).encode()
    start = _MAGIC + _LENGTH.pack(len(text)) + text
    return start + _LENGTH.pack(zlib.crc32(start))


def read(path: Path) -> Content:
    """All good records.  A torn end is left out, with a warning.

    Raises:
        JournalError: The file is no journal, or is damaged before its end.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise JournalError(f"journal {path}: there is no such file") from None
    if not data.startswith(_MAGIC):
        raise JournalError(f"{path} is not a journal of this version of zolib (it begins with {data[:8]!r})")
    begin = len(_MAGIC) + _LENGTH.size
    length = _LENGTH.unpack(data[len(_MAGIC) : begin])[0] if len(data) >= begin else 0
    end = begin + length
    salt = zlib.crc32(data[:end])
    if len(data) < end + _LENGTH.size or _LENGTH.unpack(data[end : end + _LENGTH.size])[0] != salt:
        raise JournalError(f"journal {path} has a damaged header; delete it to begin anew from the initial weights")
    identity = json.loads(data[begin:end])
    end += _LENGTH.size
    groups = identity["groups"]
    form = Form(identity["samples"], len(groups), sum(len(g["parameters"]) for g in groups))
    pieces = [data[i : i + form.size] for i in range(end, len(data), form.size)]
    found = [form.unpack(piece, salt) for piece in pieces]
    good = [r is not None and r.step == i for i, r in enumerate(found)]
    whole = good.index(False) if False in good else len(good)
    if any(good[whole:]):
        raise JournalError(
            f"journal {path} is damaged at step {whole}, before its end: {sum(good[whole:])} later steps are good but "
            "cannot be applied without it. Take the file from a backup, or replay(model, until=...) a copy cut there"
        )
    records = [r for r in found[:whole] if r is not None]
    if whole < len(pieces):
        lost = len(data) - end - whole * form.size
        warnings.warn(
            f"journal {path}: {lost} bytes after step {whole} are no whole record, as when a process is killed while "
            f"it writes; the run goes on after step {whole}",
            RuntimeWarning,
            stacklevel=3,
        )
    return Content(identity, records, form, salt, end + whole * form.size)


def compare(path: Path, written: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise JournalError, with the reason, unless all entries of ``here`` are as written."""
    for name, value in here.items():
        if written.get(name) == value:
            continue
        if name == "weights":
            raise JournalError(
                f"journal {path} began with other weights than these; build the model as the run did (the same seed or "
                "checkpoint), before any training"
            )
        was, now = (str(x) if len(str(x)) < 200 else "other values" for x in (written.get(name), value))
        raise JournalError(f"journal {path} was written with {name}={was}, but here it is {now}; nothing was changed")


def form_of(parameter: Tensor) -> list[Any]:
    """Shape and dtype, as they stand in a header."""
    return [list(parameter.shape), str(parameter.dtype).removeprefix("torch.")]


def fingerprint(parameters: Iterable[Tensor]) -> str:
    """SHA-256 of the parameters' shapes, dtypes and values, the same for any strides and device."""
    digest = hashlib.sha256()
    for parameter in parameters:
        digest.update(str(form_of(parameter)).encode())
        for piece in parameter.detach().reshape(-1).split(1 << 24):
            digest.update(memoryview(piece.cpu().contiguous().view(torch.uint8).numpy()))
    return digest.hexdigest()
