"""What noise costs on a CPU: the stream's kernels against copies, and against torch's own noise.

    python benchmarks/bench_cpu.py [--size 16777216] [--threads 2] [--rounds 21] [--record data/cpu.json]

Each line is an operation on --size values and the one that it is compared with.  The two take turns, and the first to
go changes from round to round, so that whatever else the machine does falls on both.  Printed are the median time of
one value and the median of the paired ratios with their quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date

import torch

from zolib.noise import backend, fused, stream

SIGN, NORMAL = stream.SIGN, stream.NORMAL
Operation = Callable[[], object]


def operations(size: int) -> list[tuple[str, Operation, str, Operation]]:
    """(name, operation, name of what it is compared with, the same)."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(size, generator=generator) for _ in range(2))
    z = torch.empty_like(y)
    x16, y16 = x.bfloat16(), y.bfloat16()

    def update(value: torch.Tensor, law: int, terms: int = 1) -> Operation:
        return lambda: fused.update_(value, law, [fused.Term(1, 2, k, 1e-6) for k in range(terms)], 3)

    def perturbed(value: torch.Tensor, law: int) -> Operation:
        return lambda: fused.perturbed(value, law, 1, 2, 3, 4, 1e-3)

    def draw(law: int) -> Operation:
        return lambda: stream.draw(law, 1, 2, range(1), [(3, size)])

    def by_torch(terms: int = 1) -> None:  # with memory for the noise, which is kept
        for _ in range(terms):
            torch.normal(0.0, 1.0, y.shape, generator=generator, out=z)
            y.add_(z, alpha=1e-6)

    copy = ("y.copy_(x)", lambda: y.copy_(x))
    copy16 = ("y.copy_(x), bfloat16", lambda: y16.copy_(x16))
    normal_add = ("torch.normal, add_", by_torch)
    add = ("y + x", lambda: y + x)
    add16 = ("y + x, bfloat16", lambda: y16 + x16)
    normal = ("torch.normal", lambda: torch.normal(0.0, 1.0, y.shape, generator=generator))
    return [
        ("update, signs", update(y, SIGN), *copy),
        ("update, signs", update(y, SIGN), *normal_add),
        ("update, normals", update(y, NORMAL), *normal_add),
        ("update, signs, K = 8", update(y, SIGN, 8), *copy),
        ("update, normals, K = 8", update(y, NORMAL, 8), "the same, eight times", lambda: by_torch(8)),
        ("update, signs, bfloat16", update(y16, SIGN), *copy16),
        ("update, normals, bfloat16", update(y16, NORMAL), *normal_add),
        ("perturbed, signs", perturbed(y, SIGN), *add),
        ("perturbed, normals", perturbed(y, NORMAL), *add),
        ("perturbed, signs, bfloat16", perturbed(y16, SIGN), *add16),
        ("draw, signs", draw(SIGN), *normal),
        ("draw, normals", draw(NORMAL), *normal),
        ("y.add_(x)", lambda: y.add_(x), *copy),
    ]


def seconds(f: Operation) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def measured(f: Operation, other: Operation, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of both, round by round."""
    own, others = [], []
    for turn in range(rounds + 1):
        for one, times in [(f, own), (other, others)][:: 1 if turn % 2 else -1]:
            times.append(seconds(one))
    return own[1:], others[1:]


def load() -> list[float]:
    return [round(x, 1) for x in os.getloadavg()] if hasattr(os, "getloadavg") else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1 << 24, help="values in the tensor")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=21, help="pairs measured of each comparison")
    parser.add_argument("--record", metavar="FILE", help="also write the results there, as JSON")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    started = load()
    first = seconds(lambda: fused.update_(torch.ones(1000), SIGN, [fused.Term(0, 0, 0, 0.1)], 0))
    if backend.kernels(torch.device("cpu")) is None:
        raise SystemExit("there are no kernels to measure: numba is missing, or the reference is asked for")
    import llvmlite.binding
    import numba
    import numpy

    device = f"{os.cpu_count()} cores, {llvmlite.binding.get_host_cpu_name()}, {settings.threads} threads"
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "numba": numba.__version__,
    }
    print(f"{device}; {', '.join(f'{k} {v}' for k, v in versions.items())}; load {started}")
    print(f"{settings.size} values, {settings.rounds} rounds; the first call, compilation included: {first:.1f} s")
    print(f"{'operation':28s}{'ns/value':>9s}   {'to':22s}{'ns/value':>9s}{'ratio':>8s}   quartiles")
    rows = []
    for name, f, other_name, other in operations(settings.size):
        own, others = measured(f, other, settings.rounds)
        low, ratio, high = statistics.quantiles([a / b for a, b in zip(own, others, strict=True)], n=4)
        each = [round(statistics.median(t) / settings.size * 1e9, 3) for t in (own, others)]
        print(
            f"{name:28s}{each[0]:9.2f}   {other_name:22s}{each[1]:9.2f}{ratio:8.2f}   {low:.2f} to {high:.2f}",
            flush=True,
        )
        row = {"operation": name, "ns": each[0], "to": other_name, "to_ns": each[1]}
        rows.append(row | {"ratio": round(ratio, 3), "quartiles": [round(low, 3), round(high, 3)], "load": load()})
    if settings.record:
        record = {
            "command": f"python benchmarks/bench_cpu.py --size {settings.size} --threads {settings.threads} "
            f"--rounds {settings.rounds} --record {settings.record}",
            "date": str(date.today()),
            "versions": versions,
            "device": device,
            "load": [started, load()],
            "size": settings.size,
            "rounds": settings.rounds,
            "first_call_seconds": round(first, 2),
            "rows": rows,
        }
        with open(settings.record, "w") as out:
            json.dump(record, out, indent=1)
            out.write("\n")


if __name__ == "__main__":
    main()
