"""What node noise costs, in forward passes of the same layer, all measured in one run.

    python benchmarks/bench_nodes.py [--threads 1] [--repeats 31] [--law gaussian] [--device cuda]

Columns, each as a multiple of the plain pass: what an evaluation costs on top of it without noise, since each operation
is looked at; what the noise adds to that, in the first and in the second evaluation of a pair; both together, on
average over the pair; and the eligibility, once per pair.  The passes take turns, so that whatever else the machine
does falls on all of them; printed are medians of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch
from torch import nn

from zolib.nodes import Nodes
from zolib.noise.seeds import manual_seed
from zolib.subject import Subject, quiet_torch

CASES = {
    "Linear 512, 256 rows": (lambda: nn.Linear(512, 512), (256, 512)),
    "Linear 512, 2048 rows": (lambda: nn.Linear(512, 512), (2048, 512)),
    "Linear 1024, 512 rows": (lambda: nn.Linear(1024, 1024), (512, 1024)),
    "Linear 2048, 512 rows": (lambda: nn.Linear(2048, 2048), (512, 2048)),
    "Conv1d 512, width 3": (lambda: nn.Conv1d(512, 512, 3, padding=1), (8, 512, 64)),
    "Conv2d 512, 3 x 3": (lambda: nn.Conv2d(512, 512, 3, padding=1), (4, 512, 14, 14)),
    "Conv2d 512, 1 x 1": (lambda: nn.Conv2d(512, 512, 1), (8, 512, 14, 14)),
}


def clock(f, device):
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = f()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def measure(make, shape, law, repeats, device):
    """Medians: a plain pass in seconds, and the rest in plain passes: looking, noise first and second, eligibility."""
    layer, x = make().to(device), torch.randn(shape, device=device)

    def closure():
        return layer(x)[..., :1].sum()  # a loss that costs nothing beside the layer

    rows = []
    for step in range(repeats + 2):
        with quiet_torch():
            before, _ = clock(closure, device)
            subject = Subject(closure, layer, "Nodes")
            experiment = Nodes(law).experiment(subject, 0, step, 1, "raise")
            clean, _ = clock(lambda: experiment.evaluate(None, 0.0), device)  # noqa: B023
            first, _ = clock(lambda: experiment.evaluate(0, 1e-3), device)  # noqa: B023
            second, _ = clock(lambda: experiment.evaluate(0, -1e-3), device)  # noqa: B023
            after, _ = clock(closure, device)
            credit, _ = clock(lambda: experiment.estimate(torch.ones(1)), device)  # noqa: B023
        plain = (before + after) / 2
        rows.append((plain, clean / plain - 1, (first - clean) / plain, (second - clean) / plain, credit / plain))
    return [statistics.median(column) for column in zip(*rows[2:], strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--law", default="rademacher", choices=["gaussian", "rademacher"])
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    manual_seed(0)
    load = ", load " + " ".join(f"{x:.1f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else ""
    print(f"torch {torch.__version__}, {settings.device}, {settings.threads} threads, {settings.law} noise{load}")
    columns = ("looking", "first", "second", "together", "eligibility")
    print(f"{'layer':24s}{'pass, ms':>10s}" + "".join(f"{c:>13s}" for c in columns))
    for name, (make, shape) in CASES.items():
        plain, look, first, second, credit = measure(make, shape, settings.law, settings.repeats, settings.device)
        ratios = (look, first, second, look + (first + second) / 2, credit)
        print(f"{name:24s}{plain * 1e3:10.2f}" + "".join(f"{r:13.2f}" for r in ratios), flush=True)


if __name__ == "__main__":
    main()
