"""What a step of MeZO costs, in units of two forward passes of the same model: the least that its two values can cost.

    python benchmarks/bench_mezo.py [--size 10M] [--threads 2] [--pairs 15] [--clock wall] [--record FILE]

The model is a plain GPT on 8 x 128 tokens.  All methods take turns in every round, in changing order, so that whatever
else the machine does falls on all of them; the ratio is taken within each round, and its median and quartiles are
printed.  Beside zolib's steps: the algorithm of the paper (Malladi et al. 2023, Algorithm 1), with its noise drawn in
place from a reseeded generator, added, added twice over, taken off, and added again as the update; and a step of
backpropagation with SGD.  On a machine that others use too, ``--clock processor --threads 1`` counts the processor's
time instead, which does not see the others take turns, but still sees them in the caches and at the memory.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import platform
import statistics
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

import zolib as zo

SIZES = {"10M": (8192, 320, 6, 5), "98M": (16384, 768, 12, 12)}  # vocabulary, width, layers, heads
BATCH, LENGTH = 8, 128


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):  # (B, T, width)
        q, k, v = (h.unflatten(2, (self.heads, -1)).transpose(1, 2) for h in self.qkv(self.norm1(x)).chunk(3, dim=2))
        attention = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attention.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self, vocabulary, width, layers, heads):
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, x):  # (B, T) to (B, T, vocabulary)
        h = self.tokens(x) + self.places.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def two_forwards(closure):
    with torch.no_grad():
        closure()
        return closure()


class Paper:
    """Algorithm 1 of the paper, with the least memory that plain torch allows: noise of one parameter at a time."""

    def __init__(self, parameters, lr, eps):
        self.parameters, self.lr, self.eps, self.step_number = list(parameters), lr, eps, 0

    def _add(self, scale):
        generator = torch.Generator(self.parameters[0].device).manual_seed(self.step_number)
        for p in self.parameters:
            p.add_(torch.empty_like(p).normal_(generator=generator), alpha=scale)

    @torch.no_grad()
    def step(self, closure):
        self._add(self.eps)
        plus = closure()
        self._add(-2 * self.eps)
        minus = closure()
        self._add(self.eps)
        self._add(-self.lr * ((plus - minus) / (2 * self.eps)).item())
        self.step_number += 1


def backpropagation(model, closure):
    sgd = torch.optim.SGD(model.parameters(), lr=1e-6)

    def step():
        sgd.zero_grad()
        closure().backward()
        sgd.step()
        sgd.zero_grad()

    return step


def methods(model, closure):
    """Name to a function that makes one step."""

    def stepping(optimizer):
        return lambda: optimizer.step(closure)

    lr = 1e-7  # the weights stay where they are, near enough
    found = {
        "two forward passes": lambda: two_forwards(closure),
        "zolib, signs": stepping(zo.MeZO(model, lr)),
        "zolib, Gaussian": stepping(zo.MeZO(model, lr, probe="gaussian")),
        "zolib, signs, momentum 0.5": stepping(zo.MeZO(model, lr, momentum=0.5)),
        "the paper's algorithm": stepping(Paper(model.parameters(), lr, 1e-3)),
        "backpropagation, SGD": backpropagation(model, closure),
    }
    if importlib.util.find_spec("torchzero"):
        import torchzero as tz

        other = tz.Optimizer(model.parameters(), tz.m.MeZO(), tz.m.LR(lr))
        found["torchzero, MeZO"] = lambda: other.step(lambda backward=False: closure())
    return found


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def seconds_of(step, now, device):
    if device == "cuda":
        torch.cuda.synchronize()
    start = now()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return now() - start


def measure(model, closure, pairs, now, device):
    """Seconds of each method in each round, and the machine's load before it."""
    chosen = methods(model, closure)
    for step in chosen.values():
        step(), step()
    names, seconds, load = list(chosen), {name: [] for name in chosen}, []
    for turn in range(pairs):
        load.append(os.getloadavg()[0])
        for i in range(len(names)):
            name = names[(turn + i) % len(names)]
            seconds[name].append(seconds_of(chosen[name], now, device))
    return seconds, load


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="10M", choices=SIZES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--record", metavar="FILE", help="write the measurements as JSON")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    vocabulary = SIZES[settings.size][0]
    model = GPT(*SIZES[settings.size]).to(settings.device, getattr(torch, settings.dtype))
    x = torch.randint(vocabulary, (BATCH, LENGTH + 1), device=settings.device)

    def closure():
        return F.cross_entropy(model(x[:, :-1]).flatten(0, 1).float(), x[:, 1:].flatten())

    seconds, load = measure(model, closure, settings.pairs, CLOCKS[settings.clock], settings.device)
    base = seconds["two forward passes"]
    count = sum(p.numel() for p in model.parameters())
    where = torch.cuda.get_device_name() if settings.device == "cuda" else f"CPU, {settings.threads} threads"
    print(f"GPT of {count / 1e6:.1f}M parameters, {settings.dtype}, {BATCH} x {LENGTH} tokens; {where}; ", end="")
    print(f"torch {torch.__version__}; {settings.clock} time; load {min(load):.1f} to {max(load):.1f}")
    print(f"{'':28s}{'median, ms':>12s}{'of two forward passes':>24s}{'quartiles':>16s}")
    rows = {}
    for name, times in seconds.items():
        ratios = [t / b for t, b in zip(times, base, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        rows[name] = {"ratio": middle, "quartiles": [low, high], "seconds": times}
        print(f"{name:28s}{statistics.median(times) * 1e3:12.1f}{middle:24.3f}{low:9.3f} {high:6.3f}")
    if settings.record:
        versions = {name: importlib.import_module(name).__version__ for name in ("torch", "numba", "numpy")}
        record = {
            "command": " ".join(["python", *sys.argv]),
            "settings": vars(settings) | {"parameters": count, "tokens": [BATCH, LENGTH]},
            "machine": {"processor": platform.processor() or platform.machine(), "device": where},
            "cores": os.cpu_count(),
            "versions": versions | {"python": platform.python_version()},
            "date": datetime.date.today().isoformat(),
            "load": load,
            "methods": rows,
        }
        with open(settings.record, "w") as file:
            json.dump(record, file, indent=1)


if __name__ == "__main__":
    main()
