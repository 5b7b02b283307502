"""What a population costs beside plain inference: 16 members of 16 rows, through 8 layers of width 1024.

    python benchmarks/bench_population.py
    python benchmarks/bench_population.py --device cuda --members 1024 --record data/population-h100.json

Every round takes each way once, in random order, so that whatever else the machine does falls on all of them: once to
warm up, as after a step like it, and then some calls by the clock.  A ratio is taken within a round, and its median and
quartiles are printed.  Everything that a step needs is inside the clock, noise included: every call is another step.
On a machine that others use too, ``--clock processor --threads 1`` counts the processor's time instead, which does not
see the others take turns, but still sees them in the caches and at the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import time
from datetime import date

import torch
from torch import nn
from torch.func import functional_call, vmap

import zolib as zo


def ways(model, rows, ranks, copies):
    """Name: what is timed, on rows (members, rows, width).  The first is what the others are compared with."""
    size = len(rows)
    pops = {rank: zo.Population(model, size, 0.02, rank, seed=0, chunk=size) for rank in [*ranks, None]}

    def loss(model, x):
        return model(x).square().mean()

    def population(rank, batch, per_member=True):
        pops[rank].step += 1  # other noise than the time before
        return pops[rank].evaluate(loss, batch, per_member=per_member)

    def step():
        pops[1].tell(population(1, rows))
        model.zero_grad()

    made = {"plain inference, the same rows": lambda: loss(model, rows.flatten(0, 1))}
    for rank in ranks:
        made[f"population, rank {rank}"] = lambda rank=rank: population(rank, rows)
    made["rank 1, one batch for all members"] = lambda: population(1, rows[0], per_member=False)
    made["rank 1, evaluate and tell"] = step
    if copies:
        own = [pops[1].member(k) for k in range(size)]
        weights = {name: torch.stack([values[name] for values in own]) for name in own[0]}
        made["a copy of the weights for each, given"] = lambda: vmap(
            lambda values, x: functional_call(model, values, (x,)).square().mean()
        )(weights, rows)
        made["full rank, drawn and written out"] = lambda: population(None, rows)
    return made


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def seconds_of(f, calls, now, device):
    """Seconds of one call."""
    f()
    if device == "cuda":
        torch.cuda.synchronize()
    start = now()
    for _ in range(calls):
        f()
    if device == "cuda":
        torch.cuda.synchronize()
    return (now() - start) / calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=16)
    parser.add_argument("--rows", type=int, default=16, help="of each member")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--calls", type=int, default=3, help="by the clock, in each round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16", "float16"])
    parser.add_argument(
        "--no-copies", action="store_true", help="leave out what takes the memory of all members' weights"
    )
    parser.add_argument("--record", metavar="FILE", help="write the numbers as JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    dtype = getattr(torch, given.dtype)
    layers = [m for _ in range(given.layers) for m in (nn.Linear(given.width, given.width), nn.ReLU())]

    class Float(nn.Module):  # a loss in half precision is refused
        def forward(self, x):
            return x.float()

    model = nn.Sequential(*layers, Float()).to(given.device, dtype).requires_grad_()
    rows = torch.randn(given.members, given.rows, given.width, device=given.device, dtype=dtype)
    made = ways(model, rows, sorted({1, *given.ranks}), not given.no_copies)
    names = list(made)
    times = {name: [] for name in names}
    order = random.Random(0)
    before = os.getloadavg()
    for turn in range(given.rounds + 2):
        for name in order.sample(names, len(names)):
            seconds = seconds_of(made[name], given.calls, CLOCKS[given.clock], given.device)
            if turn >= 2:  # the first rounds compile
                times[name].append(seconds)
    after = os.getloadavg()

    device = torch.cuda.get_device_name() if given.device == "cuda" else f"{platform.machine()} CPU"
    print(f"torch {torch.__version__}, {device}, {given.threads} threads, {given.dtype}; ", end="")
    print(f"{given.rounds} rounds, {given.clock} time")
    print(f"{given.members} members of {given.rows} rows, {given.layers} layers of width {given.width}")
    print(f"load in the last minute: {before[0]:.1f} at the start, {after[0]:.1f} at the end, {os.cpu_count()} cores")
    print(f"{'':40s}{'ms':>9s}{'ratio':>9s}{'quartiles':>16s}")
    table = {}
    for name in names:
        ratios = [t / plain for t, plain in zip(times[name], times[names[0]], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        median = statistics.median(times[name])
        table[name] = {"seconds": times[name], "ratio": middle, "quartiles": [low, high]}
        print(f"{name:40s}{median * 1e3:9.2f}{middle:9.3f}{low:9.3f}{high:7.3f}")
    if given.record:
        record = {
            "command": "python " + " ".join(sys.argv),
            "date": str(date.today()),
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "device": device,
            "load": {"before": before, "after": after},
            "settings": {k: v for k, v in vars(given).items() if k != "record"},
            "ways": table,
        }
        with open(given.record, "w") as out:
            json.dump(record, out, indent=1)


if __name__ == "__main__":
    main()
