"""What noise costs on a GPU: the stream's kernels against copies, the perturbed layers against plain ones.

    python benchmarks/bench_gpu.py --record data/gpu.json
    python benchmarks/bench_gpu.py --interpret                 # tiny, on a CPU: does the script run?

First the bits: draws, perturbed copies and updates on the GPU against the plain torch reference on the CPU.  Then the
times.  The candidates of a comparison take turns; each line has the median of the paired ratios to the first candidate,
with their quartiles.  Layers are measured eight in a row with weights of their own, so that no cache holds them, and as
CUDA graphs, so that the host's launches do not count.  Tiles are chosen among a few, before the rounds reported.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from datetime import date

if "--interpret" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # Triton asks when it is imported

import torch
from torch.nn import functional

from zolib.noise import backend, fused, stream

SIGN, NORMAL = stream.SIGN, stream.NORMAL
PLACE = dict(seed=1, step=2, sample=3, parameter=4)
TOKENS = [1, 16, 64, 256, 512, 1024, 2048, 4096, 8192]
POPULATIONS = [(1024, 1), (64, 16), (16, 64), (8, 128), (64, 128)]  # members, rows of each
LAYERS = 2 if "--interpret" in sys.argv else 8


class Run:
    """The settings of this run and the lines it has printed."""

    def __init__(self, interpret: bool, rounds: int, width: int, size: int):
        self.interpret, self.rounds, self.width, self.size = interpret, rounds, width, size
        self.device = torch.device("cpu" if interpret else "cuda")
        self.rows: list[dict] = []
        self.generator = torch.Generator(self.device).manual_seed(0)

    def randn(self, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator, device=self.device).to(dtype)

    def seconds(self, f) -> float:
        """Of one f.  Ten in a row, so that the host is ahead of the GPU for all but the first."""
        if self.interpret:
            begin = time.perf_counter()
            f()
            return time.perf_counter() - begin
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(10):
            f()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e4

    def graph(self, f):
        """The launches of f as one CUDA graph."""
        if self.interpret:
            return f
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            f()
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            f()
        return captured.replay

    def best(self, make, choices):
        """The choice whose f runs fastest, with f."""
        tried = []
        for choice in choices:
            try:
                f = self.graph(lambda: make(choice))  # noqa: B023
                f()
                tried.append((statistics.median(self.seconds(f) for _ in range(5)), len(tried), choice, f))
            except Exception as error:  # too large for this card's registers or shared memory
                print(f"  {tuple(choice)} does not run here: {type(error).__name__}", file=sys.stderr)
        return min(tried)[2:]

    def compare(self, what: str, candidates: dict, target: tuple[str, float] | None = None, **facts) -> None:
        """Interleaved rounds; ratios of times to the first candidate.  target: (candidate, largest ratio)."""
        for _ in range(1 if self.interpret else 3):
            for f in candidates.values():
                f()
        times: dict[str, list[float]] = {name: [] for name in candidates}
        for r in range(self.rounds):
            order = list(candidates)
            for name in order[r % len(order) :] + order[: r % len(order)]:
                times[name].append(self.seconds(candidates[name]))
        base = list(candidates)[0]
        row = {"what": what, **facts, "against": base, "rounds": self.rounds, "candidates": {}}
        print(f"{what:44s} {base} {statistics.median(times[base]) * 1e3:.3f} ms", end="")
        for name, spent in times.items():
            ratios = sorted(t / b for t, b in zip(spent, times[base], strict=True))
            low, ratio, high = (ratios[int(q * (len(ratios) - 1))] for q in (0.25, 0.5, 0.75))
            row["candidates"][name] = {
                "seconds": statistics.median(spent), "ratio": ratio, "quartiles": [low, high],
            }  # fmt: skip
            if name != base:
                print(f" | {name} x{ratio:.3f} [{low:.3f}, {high:.3f}]", end="")
        if target is not None and not self.interpret:
            name, limit = target
            row["target"] = {"candidate": name, "ratio": limit}
            row["target"]["met"] = row["candidates"][name]["ratio"] <= limit
            print(f" | target x{limit:.3f} {'met' if row['target']['met'] else 'MISSED'}", end="")
        print(flush=True)
        self.rows.append(row)


def same(x: torch.Tensor, y: torch.Tensor) -> bool:
    return torch.equal(x.cpu().view(torch.uint8), y.cpu().view(torch.uint8))


def check_bits(run: Run, kernels) -> None:
    """Every operation against the reference on the CPU; the plain torch code on the GPU too."""
    count, bad = (500 if run.interpret else 1 << 22), []
    for law in (SIGN, NORMAL, stream.ROUNDING):
        samples, parts = range(2, 4), [(2**32 - 1, count // 2 + 3)]
        with backend.reference():
            (expected,) = stream.draw(law, 2**64 - 1, 7, samples, parts)
            (plain,) = stream.draw(law, 2**64 - 1, 7, samples, parts, run.device)
        (drawn,) = kernels.draw(law, 2**64 - 1, 7, samples, parts, run.device)
        bad += [f"draw, law {law}"] * (not same(drawn, expected))
        bad += [f"plain torch on the GPU, law {law}"] * (not same(plain, expected))
    for law in (SIGN, NORMAL):
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
            value = (run.randn(count) * 10 ** (4 * run.randn(count)).clamp(-9, 4)).to(dtype)
            terms = [fused.Term(1, 2, k, c) for k, c in enumerate((1e-3, -3.0, 0.37))]
            mine, theirs = value.clone(), value.cpu()
            with backend.reference():
                fused.update_(theirs, law, terms, 4, 0.99)
                moved = fused.perturbed(value.cpu(), law, **PLACE, scale=1e-3)
            kernels.update_(mine, law, terms, 4, 0.99)
            bad += [f"update, law {law}, {dtype}"] * (not same(mine, theirs))
            bad += [f"perturbed, law {law}, {dtype}"] * (
                not same(kernels.perturbed(value, law, **PLACE, scale=1e-3), moved)
            )
    print("bits:", "all equal" if not bad else f"NOT EQUAL: {bad}")
    run.rows.append({"what": "bits against the reference", "elements": count, "different": bad})


def bench_stream(run: Run, kernels) -> None:
    """One pass that reads and writes every weight, as a copy does."""
    for dtype in (torch.float32, torch.bfloat16):
        value, other = run.randn(run.size, dtype=dtype), torch.empty(run.size, dtype=dtype, device=run.device)
        one = [fused.Term(1, 2, 3, 1e-6)]
        many = [fused.Term(1, 2, k, 1e-7) for k in range(8)]
        for law, name in ((SIGN, "sign"), (NORMAL, "Gaussian")):
            candidates = {
                "copy": lambda: other.copy_(value),  # noqa: B023
                "update": lambda: kernels.update_(value, law, one, 4, 1.0),  # noqa: B023
                "perturbed": lambda: kernels.perturbed(value, law, **PLACE, scale=1e-3),  # noqa: B023
                "update of 8": lambda: kernels.update_(value, law, many, 4, 1.0),  # noqa: B023
            }
            target = ("update", 1 / 0.85)
            run.compare(f"{name}, {str(dtype)[6:]}", candidates, target, elements=run.size, dtype=str(dtype))
        scale = 1e-3

        def mezo_pass(factor):
            """As MeZO's published code does it: a reseeded generator, one more draw, a new tensor."""
            torch.manual_seed(1)
            z = torch.normal(0.0, 1.0, size=value.shape, device=value.device, dtype=value.dtype)  # noqa: B023
            value.data = value.data + factor * scale * z  # noqa: B023

        candidates = {
            "MeZO, four passes": lambda: [mezo_pass(f) for f in (1, -2, 1, 1e-6)],
            "two sign copies, update": lambda: [
                kernels.perturbed(value, SIGN, **PLACE, scale=scale),  # noqa: B023
                kernels.perturbed(value, SIGN, **PLACE, scale=-scale),  # noqa: B023
                kernels.update_(value, SIGN, one, 4, 1.0),  # noqa: B023
            ],
            "sign update alone": lambda: kernels.update_(value, SIGN, one, 4, 1.0),  # noqa: B023
        }
        run.compare(f"noise of one step, {str(dtype)[6:]}", candidates, elements=run.size, dtype=str(dtype))


def bench_pair(run: Run, linear, kernels, dtype: torch.dtype) -> None:
    """Two evaluations through eight layers: plain; with noise made inside; with noise made before, in two copies."""
    d, tiles = run.width, linear.Tiles
    weights = [run.randn(d, d, dtype=dtype) / d**0.5 for _ in range(LAYERS)]
    place = {k: v for k, v in PLACE.items() if k != "parameter"}

    def copies(x1, x2, i):
        for x, scale in ((x1, 1e-3), (x2, -1e-3)):
            functional.linear(x, kernels.perturbed(weights[i], SIGN, **place, parameter=i, scale=scale))

    for rows in TOKENS[:2] if run.interpret else TOKENS:
        x1, x2 = run.randn(rows, d, dtype=dtype), run.randn(rows, d, dtype=dtype)
        choices = [linear.pair_tiles(rows, dtype)]
        if not run.interpret and dtype != torch.float32:
            choices += [tiles(64, 64, 64, 4, 3), tiles(128, 64, 64, 4, 2), tiles(256, 64, 64, 8, 3)][: 1 + rows // 64]
        chosen, pair = run.best(
            lambda cut: [
                linear.pair(x1, x2, w, None, 1e-3, **place, parameter=i, tiles=cut)  # noqa: B023
                for i, w in enumerate(weights)
            ],
            choices,
        )
        candidates = {
            "two plain": run.graph(lambda: [functional.linear(x, w) for w in weights for x in (x1, x2)]),  # noqa: B023
            "pair": pair,
            "two copies": run.graph(lambda: [copies(x1, x2, i) for i in range(LAYERS)]),  # noqa: B023
        }
        target = ("pair", 1.1) if rows >= 1024 else None
        facts = dict(rows=rows, width=d, dtype=str(dtype), tiles=list(chosen))
        run.compare(f"two-point signs, {str(dtype)[6:]}, {rows} rows", candidates, target, **facts)


def bench_rank_one(run: Run, linear, dtype: torch.dtype) -> None:
    """A population through eight layers, against plain inference on as many rows."""
    d, tiles = run.width, linear.Tiles
    weights = [run.randn(d, d, dtype=dtype) / d**0.5 for _ in range(LAYERS)]
    for members, rows in [(3, 2)] if run.interpret else POPULATIONS:
        x, a, b = run.randn(members, rows, d, dtype=dtype), run.randn(members, d), run.randn(members, d)
        ahat, bhat = a.to(dtype).unsqueeze(1), b.to(dtype).unsqueeze(2)
        choices = [linear.rank_one_tiles(members * rows, dtype)]
        choices += [] if run.interpret else [tiles(128, 128, 64, 8, 4), tiles(128, 128, 64, 4, 3)]
        chosen, fast = run.best(
            lambda cut: [linear.rank_one(x, w, a, b, 1e-3, tiles=cut) for w in weights],  # noqa: B023
            choices,
        )
        candidates = {
            "plain": run.graph(lambda: [functional.linear(x, w) for w in weights]),  # noqa: B023
            "rank one": fast,
            "side branch": run.graph(
                lambda: [functional.linear(x, w).addcmul_(x @ bhat, ahat, value=1e-3) for w in weights]  # noqa: B023
            ),
        }
        facts = dict(members=members, rows=rows, width=d, dtype=str(dtype), tiles=list(chosen))
        run.compare(f"rank one, {members} members x {rows} rows", candidates, ("rank one", 1 / 0.95), **facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", help="write the results to this file, as json")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--width", type=int, default=4096, help="features of the layers, d")
    parser.add_argument("--elements", type=int, default=1 << 28, help="weights that the stream's kernels work on")
    parser.add_argument("--interpret", action="store_true", help="tiny sizes in Triton's interpreter, on the CPU")
    given = parser.parse_args()
    if given.interpret:
        given.rounds, given.width, given.elements = 1, 32, 500
        print("INTERPRETED on a CPU: the script runs; its times mean nothing")
    elif not torch.cuda.is_available():
        sys.exit("no CUDA device: this measures a GPU. --interpret runs the script on a CPU, without meaningful times")
    import triton

    from zolib.noise import gpu, gpu_linear

    run = Run(given.interpret, given.rounds, given.width, given.elements)
    versions = {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__}
    device = "CPU, interpreted"
    if not given.interpret:
        device = torch.cuda.get_device_name()
        versions["cuda"] = torch.version.cuda
    print(device, versions)
    with torch.no_grad():
        check_bits(run, gpu)
        bench_stream(run, gpu)
        bench_pair(run, gpu_linear, gpu, torch.bfloat16)
        bench_rank_one(run, gpu_linear, torch.bfloat16)
        if not run.interpret:
            torch.set_float32_matmul_precision("high")  # TF32, for both sides
            bench_pair(run, gpu_linear, gpu, torch.float32)
    if given.record:
        command = "python benchmarks/bench_gpu.py " + " ".join(sys.argv[1:])
        record = {"command": command, "date": date.today().isoformat(), "versions": versions, "device": device}
        with open(given.record, "w") as file:
            json.dump(record | {"rows": run.rows}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
