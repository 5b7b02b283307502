"""What a simulated chip costs: forward passes of a 512 x 512 layer, batch 64, against nn.Linear.

    python benchmarks/bench_hardware.py [--repeats 60] [--chips 8] [--record FILE]

Each pass of a chip is timed between two of nn.Linear, turn by turn, so that whatever else the machine does falls on
both; printed are medians of the ratios, with their quartiles.  The last lines are many chips in one batched product,
against as many passes of nn.Linear.  Peers are measured if they can be imported (aihwkit).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import time

import torch
from torch import nn

from zolib import hardware as H

CASES = {
    "no stages": [],
    "mismatch (kept)": [H.Mismatch(0.1)],
    "output noise": [H.OutputNoise(0.04)],
    "8-bit converters": [H.DAC(8), H.ADC(8)],
    "8-bit converters, fixed range": [H.DAC(8, bound=4.0), H.ADC(8)],
    "read noise at the output": [H.ReadNoise(0.02)],
    "telegraph noise at the output": [H.NodeNoise(H.Telegraph(0.05, 1e5))],
    "PCM programming and drift (kept)": [H.PCMProgramming(), H.PCMDrift()],
    "PCM, read and output noise, converters": list(H.pcm().stages),
    "IR drop": [H.IRDrop()],
}


def clock(f) -> float:
    start = time.perf_counter()
    f()
    return time.perf_counter() - start


def ratios(f, plain, repeats: int) -> list[float]:
    """f against the mean of the two plain passes around it."""
    for _ in range(5):
        f(), plain()
    found = []
    for _ in range(repeats):
        before, taken, after = clock(plain), clock(f), clock(plain)
        found.append(2 * taken / (before + after))
    return found


def peers(layer: nn.Linear) -> dict[str, nn.Module]:
    try:
        from aihwkit.nn.conversion import convert_to_analog
        from aihwkit.simulator.configs import InferenceRPUConfig, TorchInferenceRPUConfig
    except ImportError:
        return {}
    kinds = {"aihwkit, inference defaults": InferenceRPUConfig, "the same, torch tile": TorchInferenceRPUConfig}
    return {name: convert_to_analog(nn.Sequential(layer), kind()).eval() for name, kind in kinds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--chips", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", help="write the results to this file, as json")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(512, 512)
    x = torch.randn(64, 512, generator=generator)
    load = os.getloadavg()
    print(f"torch {torch.__version__}, {settings.threads} threads, load {load[0]:.1f} on {os.cpu_count()} cores")
    rows = {}

    def show(name: str, found: list[float], unit: str = "x nn.Linear") -> None:
        low, middle, high = statistics.quantiles(found, n=4)
        rows[name] = {"median": middle, "quartiles": [low, high]}
        print(f"{name:42s}{middle:7.2f} {unit} ({low:.2f} to {high:.2f})")

    with torch.no_grad():
        plain = lambda: layer(x)  # noqa: E731
        for name, stages in CASES.items():
            timed = any(s.when is H.When.SLOW for s in stages) and any(isinstance(s, H.NodeNoise) for s in stages)
            hw = H.deploy(layer, H.Chip(stages, seed=0, read_time=1e-6 if timed else 0.0))
            show(name, ratios(lambda: hw(x), plain, settings.repeats))  # noqa: B023
        for name, peer in peers(layer).items():
            show(name, ratios(lambda: peer(x), plain, settings.repeats))  # noqa: B023

        def many():
            for _ in range(settings.chips):
                layer(x)

        for name in ("no stages", "PCM, read and output noise, converters"):
            hw = H.deploy(layer, H.Chip(CASES[name], n_chips=settings.chips, seed=0))
            show(f"{settings.chips} chips: {name}", ratios(lambda: hw(x), many, settings.repeats), "x as many")  # noqa: B023
    if settings.record:
        record = {
            "command": "python benchmarks/bench_hardware.py",
            "settings": {k: v for k, v in vars(settings).items() if k != "record"},
            "rows": rows,
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "device": platform.processor() or platform.machine(),
            "load": load,
            "date": datetime.date.today().isoformat(),
        }
        with open(settings.record, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
