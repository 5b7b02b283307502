"""COCO's BBOB functions: how many evaluations our methods and their peers need to reach a target.

    python benchmarks/bbob.py list
    python benchmarks/bbob.py run zolib/cma-es --folder FOLDER           # once for each method; minutes to an hour
    python benchmarks/bbob.py collect FOLDER data/bbob.json

Needs ``coco-experiment`` and ``cocopp``, and each peer for its own rows (``cma``, ``nevergrad``, ``evotorch``).  Every
method gets the same functions, instances, starts (uniform in [-4, 4]^d, a function of problem and run) and budget,
counted by COCO itself, and begins again when it has converged, as long as the budget lasts.  COCO's observer writes
the logs; ``collect`` reads them with cocopp and keeps the runtime distributions.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import json
import platform
import time
import warnings
from pathlib import Path

import numpy as np

DIMENSIONS, INSTANCES, BUDGET = "5,10,20,40", "1-3", 300
TARGETS = 10.0 ** np.linspace(2, -8, 51)


class Over(Exception):
    """The budget is spent, or COCO's final target is hit."""


def objective(problem, budget):
    def f(x):
        if problem.evaluations >= budget or problem.final_target_hit:
            raise Over
        return problem(x)

    return f


def starts(problem):
    """Start after start, uniform in [-4, 4]^d, the same for every method."""
    seed = int.from_bytes(hashlib.sha256(problem.id.encode()).digest()[:8])
    rng = np.random.default_rng(seed)
    while True:
        yield rng.uniform(-4, 4, problem.dimension), int(rng.integers(1, 2**31))


def ours(method):
    import zolib as zo

    grows = method in ("cma-es", "sep-cma-es", "snes", "xnes")

    def run(f, d, left, begin):
        for k, (x0, seed) in enumerate(begin):
            size = {"popsize": (4 + int(3 * np.log(d))) * 2**k} if grows else {}
            zo.minimize(
                f, x0, method=method, sigma=2.0, budget=max(left(), 2 + 2 * size.get("popsize", 20)), seed=seed, **size
            )

    return run


def pycma(f, d, left, begin):
    import cma

    for k, (x0, seed) in enumerate(begin):
        options = {"verbose": -9, "seed": seed, "popsize": (4 + int(3 * np.log(d))) * 2**k, "maxfevals": left()}
        cma.fmin2(f, x0, 2.0, options)


def pycma_separable(f, d, left, begin):
    import cma

    for k, (x0, seed) in enumerate(begin):
        options = {"verbose": -9, "seed": seed, "popsize": (4 + int(3 * np.log(d))) * 2**k, "maxfevals": left()}
        cma.fmin2(f, x0, 2.0, options | {"CMA_diagonal": True})


def nevergrad(name):
    def run(f, d, left, begin):
        import nevergrad as ng

        for x0, seed in begin:
            space = ng.p.Array(init=x0).set_mutation(sigma=2.0)
            space.random_state.seed(seed)
            ng.optimizers.registry[name](space, budget=left()).minimize(f)

    return run


def evotorch(name):
    def run(f, d, left, begin):
        import torch
        from evotorch import Problem, algorithms

        torch.set_num_threads(1)
        size = 4 + int(3 * np.log(d))
        for x0, seed in begin:
            problem = Problem(
                "min", lambda x: torch.tensor(f(x.numpy())), solution_length=d, initial_bounds=(-4, 4),
                dtype=torch.float64, seed=seed,
            )  # fmt: skip
            center = torch.as_tensor(x0)
            search = getattr(algorithms, name)(problem, stdev_init=2.0, popsize=size, center_init=center)
            while True:  # it has no test of convergence
                search.step()

    return run


def scipy(method):
    def run(f, d, left, begin):
        from scipy import optimize

        for x0, seed in begin:
            if method == "differential-evolution":
                optimize.differential_evolution(f, [(-5, 5)] * d, x0=x0, rng=seed, maxiter=10**6, polish=False)
            else:
                optimize.minimize(f, x0, method=method, options={"maxiter": 10**7})

    return run


METHODS = {
    **{
        f"zolib/{m}": ours(m)
        for m in ("cma-es", "sep-cma-es", "xnes", "snes", "openai-es", "spsa", "gaussian-smoothing")
    },
    **{f"zolib/{m}": ours(m) for m in ("random-search", "nelder-mead", "powell", "auto")},
    "pycma/cma-es": pycma,
    "pycma/sep-cma-es": pycma_separable,
    "evotorch/CMAES": evotorch("CMAES"),
    "evotorch/SNES": evotorch("SNES"),
    "nevergrad/NGOpt": nevergrad("NGOpt"),
    "nevergrad/OnePlusOne": nevergrad("OnePlusOne"),
    "scipy/Nelder-Mead": scipy("Nelder-Mead"),
    "scipy/Powell": scipy("Powell"),
    "scipy/L-BFGS-B": scipy("L-BFGS-B"),
    "scipy/differential-evolution": scipy("differential-evolution"),
}


def run(name, folder, dimensions, instances, budget):
    import cocoex

    suite = cocoex.Suite("bbob", "", f"dimensions:{dimensions} instance_indices:{instances}")
    label = name.replace("/", "-")
    observer = cocoex.Observer("bbob", f"result_folder:{label} algorithm_name:{label} outer_folder:{folder}")
    spent, began = 0, time.perf_counter()
    for problem in suite:
        problem.observe_with(observer)
        limit = budget * problem.dimension
        f, begin = objective(problem, limit), starts(problem)

        def left(problem=problem, limit=limit):
            return max(1, limit - problem.evaluations)

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                while True:  # a method whose own restarts ended early begins again
                    METHODS[name](f, problem.dimension, left, begin)
        except Over:
            pass
        spent += problem.evaluations
        problem.free()
    seconds = time.perf_counter() - began
    print(f"{name}: {spent} evaluations, {seconds / spent * 1e6:.0f} microseconds each, {seconds / 60:.1f} minutes")


def runtimes(folder):
    """{dimension: {function: runtimes over d to every target}}; where a run failed, by simulated restarts, as COCO."""
    import cocopp

    found = {}
    for data in cocopp.load(str(folder)):
        rest = np.random.RandomState(0).randint  # which failed runs are put before a successful one
        samples = data.evals_with_simulated_restarts(TARGETS, randintrest=rest)
        found.setdefault(data.dim, {})[data.funcId] = np.concatenate(samples) / data.dim
    return found


def curve(times, grid):
    """The fraction of function-target pairs that are reached within each of the evaluations over d in ``grid``."""
    times = np.sort(np.where(np.isnan(times), np.inf, times))
    return np.searchsorted(times, grid, side="right") / len(times)


def collect(folder, budget, points=61):
    """All methods in a folder: their curves, the area under each, and that of each function."""
    grid = np.logspace(0, np.log10(budget), points)
    fine = np.logspace(0, np.log10(budget), 1001)  # equal steps: a mean over it is an area
    curves, area, functions = {}, {}, {}
    for logs in sorted(p for p in Path(folder).iterdir() if p.is_dir()):
        name = next(m for m in METHODS if m.replace("/", "-") == logs.name)
        for d, by_function in sorted(runtimes(logs).items()):
            together = np.concatenate(list(by_function.values()))
            curves.setdefault(name, {})[str(d)] = [round(float(v), 4) for v in curve(together, grid)]
            area.setdefault(name, {})[str(d)] = round(float(curve(together, fine).mean()), 4)
            each = [float(curve(by_function[i], fine).mean()) for i in sorted(by_function)]
            functions.setdefault(name, {})[str(d)] = each
    return {"grid": [round(float(g), 3) for g in grid], "curves": curves, "area": area}, functions


def compare(functions, ours, theirs):
    """The ratio of two areas for each dimension, with a 95 % interval from the spread over the 24 functions."""
    found = {}
    for d in functions[ours]:
        a, b = np.array(functions[ours][d]), np.array(functions[theirs][d])
        ratio = a.sum() / b.sum()
        error = 1.96 * np.std(a - ratio * b, ddof=1) * np.sqrt(len(a)) / b.sum()
        found[d] = {"ratio": round(ratio, 4), "interval": [round(ratio - error, 4), round(ratio + error, 4)]}
    return found


def write(arguments):
    record, _ = collect(arguments.folder, arguments.budget)
    versions = {}
    for package in ("coco-experiment", "cocopp", "cma", "evotorch", "nevergrad", "scipy", "numpy", "torch", "numba"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    provenance = {
        "command": f"benchmarks/bbob.py run METHOD --budget {arguments.budget} --instances {arguments.instances}",
        "versions": versions | {"python": platform.python_version()},
        "date": time.strftime("%Y-%m-%d"),
        "instances": arguments.instances,
        "targets": "51 precisions from 1e2 to 1e-8",
        "restarts": "a method that has converged begins again; failed runs are completed by simulated restarts",
    }
    record = {"provenance": provenance, "dimensions": [5, 10, 20, 40], "budget_over_d": arguments.budget} | record
    if arguments.pair:
        pair, functions = collect(arguments.pair, arguments.pair_budget)
        ratio = compare(functions, "zolib/cma-es", "pycma/cma-es")
        settings = {"instances": "1-15", "budget_over_d": arguments.pair_budget}
        record["pair"] = settings | pair | {"zolib over pycma": ratio}
    arguments.file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    for name, areas in sorted(record["area"].items(), key=lambda row: -sum(row[1].values())):
        print(f"{name:32s}" + "".join(f"{areas.get(str(d), float('nan')):8.3f}" for d in record["dimensions"]))
    if arguments.pair:
        print(record["pair"]["zolib over pycma"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the methods")
    one = commands.add_parser("run", help="one method over all functions")
    one.add_argument("method", choices=METHODS)
    one.add_argument("--folder", default="bbob-logs")
    one.add_argument("--dimensions", default=DIMENSIONS)
    one.add_argument("--instances", default=INSTANCES)
    one.add_argument("--budget", type=int, default=BUDGET, help="evaluations for each dimension")
    two = commands.add_parser("collect", help="the logs of a folder into one file")
    two.add_argument("folder", type=Path)
    two.add_argument("file", type=Path)
    two.add_argument("--budget", type=int, default=BUDGET)
    two.add_argument("--instances", default=INSTANCES)
    two.add_argument("--pair", type=Path, help="logs of zolib/cma-es and pycma/cma-es alone, on more instances")
    two.add_argument("--pair-budget", type=int, default=1000)
    arguments = parser.parse_args()
    if arguments.command == "list":
        print("\n".join(METHODS))
    elif arguments.command == "collect":
        write(arguments)
    else:
        run(arguments.method, arguments.folder, arguments.dimensions, arguments.instances, arguments.budget)


if __name__ == "__main__":
    main()
