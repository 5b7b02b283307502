"""What zo.minimize itself costs, beside its peers: microseconds for each evaluation of a batched objective.

    python benchmarks/bench_minimize.py [--d 1000] [--budget 32000] [--repeats 7]

The objective is a sphere of d coordinates, 32 points at once; its own time is measured apart and taken off.  One
thread.
pycma's row appears if ``cma`` is installed; it is given the whole population at once too.  The ratios at the end are of
one run, rounds of the two alternating.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time

import numpy as np
import torch

import zolib as zo

METHODS = ("spsa", "gaussian-smoothing", "openai-es", "snes", "sep-cma-es")
SIZE = 32


def ours(method, d, budget):
    def run():
        result = zo.minimize(
            lambda x: np.einsum("dk,dk->k", x, x), np.ones(d), method=method, popsize=SIZE, budget=budget,
            vectorized=True, seed=0,
        )  # fmt: skip
        return result.nfev

    return run


def pycma(d, budget):
    import cma

    def run():
        options = {"popsize": SIZE, "CMA_diagonal": True, "verbose": -9, "seed": 1}
        search, count = cma.CMAEvolutionStrategy(np.ones(d), 0.5, options), 0
        while count < budget:
            x = search.ask()
            search.tell(x, [float(v @ v) for v in x])
            count += SIZE
        return count

    return run


def timed(run):
    began = time.perf_counter()
    count = run()
    return (time.perf_counter() - began) / count * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d", type=int, default=1000, help="coordinates")
    parser.add_argument("--budget", type=int, default=32_000, help="evaluations in a round")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    runs = {f"zolib {m}": ours(m, arguments.d, arguments.budget) for m in METHODS}
    if importlib.util.find_spec("cma"):
        runs["pycma sep-cma-es"] = pycma(arguments.d, arguments.budget // 8)
    x = np.ones((arguments.d, SIZE), order="F")

    def objective():
        for _ in range(1000):
            np.einsum("dk,dk->k", x, x)
        return 1000 * SIZE

    times = {name: [] for name in ("objective", *runs)}
    for run in runs.values():
        run()  # compile, warm up
    for _ in range(arguments.repeats):
        times["objective"].append(timed(objective))
        for name, run in runs.items():
            times[name].append(timed(run))
    base = statistics.median(times["objective"])
    print(f"sphere, d = {arguments.d}, {SIZE} points at once; the objective itself {base:.2f} us\n")
    print(f"{'':22s} {'us/evaluation':>14s} {'quartiles':>16s} {'evaluations/s':>14s}")
    for name in runs:
        low, middle, high = statistics.quantiles(times[name], n=4)
        print(f"{name:22s} {middle - base:14.2f} {low - base:8.2f}{high - base:8.2f} {1e6 / middle:14,.0f}")
    if "pycma sep-cma-es" in runs:
        ratios = [b / a for a, b in zip(times["zolib sep-cma-es"], times["pycma sep-cma-es"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"\npycma over zolib, sep-cma-es: {middle:.1f} ({low:.1f} to {high:.1f})")


if __name__ == "__main__":
    main()
