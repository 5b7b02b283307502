"""What node noise costs, in forward passes of the same layer, all measured in one run.

    python benchmarks/bench_nodes.py [--threads 1] [--repeats 15]

Columns, each as a multiple of the plain pass: what noise adds to the first evaluation of a pair, where it is drawn, to
the second, where it is at hand, and to one of them on average; the draw alone; and the eligibility, once per pair.  The
passes take turns, so that whatever else the machine does falls on all of them; medians are printed.
"""

from __future__ import annotations

import argparse
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
    """Medians in seconds: plain pass, first and second of a pair, the draw, the eligibility."""
    layer, x = make().to(device), torch.randn(shape, device=device)

    def closure():
        return layer(x)[..., :1].sum()  # a loss that costs nothing beside the layer

    rows = []
    for step in range(repeats + 2):
        with quiet_torch():
            plain, _ = clock(closure, device)
            subject = Subject(closure, layer, "Nodes")
            experiment = Nodes(law).experiment(subject, 0, step, 1, "raise")
            first, _ = clock(lambda: experiment.evaluate(0, 1e-3), device)  # noqa: B023
            second, _ = clock(lambda: experiment.evaluate(0, -1e-3), device)  # noqa: B023
            site = experiment.sites[0][0]
            credit, _ = clock(lambda: experiment.estimate(torch.ones(1)), device)  # noqa: B023
            fresh = Nodes(law).experiment(subject, 1, step, 1, "raise")
            draw, _ = clock(lambda: fresh.noise(site, 0), device)  # noqa: B023
        rows.append((plain, first, second, draw, credit))
    return [statistics.median(column) for column in zip(*rows[2:], strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--law", default="rademacher", choices=["gaussian", "rademacher"])
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    manual_seed(0)
    print(f"torch {torch.__version__}, {settings.device}, {settings.threads} threads, {settings.law} noise")
    print(
        f"{'layer':24s}{'pass, ms':>10s}{'+ first':>10s}{'+ second':>10s}{'+ mean':>8s}{'draw':>8s}{'eligibility':>13s}"
    )
    for name, (make, shape) in CASES.items():
        plain, first, second, draw, credit = measure(make, shape, settings.law, settings.repeats, settings.device)
        ratios = ((first - plain) / plain, (second - plain) / plain, draw / plain, credit / plain)
        print(f"{name:24s}{plain * 1e3:10.2f}{ratios[0]:10.2f}{ratios[1]:10.2f}{sum(ratios[:2]) / 2:8.2f}", end="")
        print(f"{ratios[2]:8.2f}{ratios[3]:13.2f}")


if __name__ == "__main__":
    main()
