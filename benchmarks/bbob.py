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
import hashlib
import time
import warnings

import numpy as np

DIMENSIONS, INSTANCES, BUDGET = "5,10,20,40", "1-3", 500
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


def distribution(datasets, budget):
    """Runtimes over d to each target of each function, by simulated restarts where a run failed: as COCO's figures."""
    runtimes = []
    for data in datasets:
        samples = data.evals_with_simulated_restarts(
            TARGETS, samplesize=100, randintfirst=lambda *a, **k: 0, bootstrap=False
        )
        runtimes += [np.asarray(s, dtype=float) / data.dim for s in samples]
    return runtimes


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
    arguments = parser.parse_args()
    if arguments.command == "list":
        print("\n".join(METHODS))
    else:
        run(arguments.method, arguments.folder, arguments.dimensions, arguments.instances, arguments.budget)


if __name__ == "__main__":
    main()
