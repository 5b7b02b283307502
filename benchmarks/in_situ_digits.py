"""Learning on defective chips from their own noise: the handwritten digits, 32 chips side by side.

    python benchmarks/in_situ_digits.py [--chips 32] [--seeds 3] [--epochs 60] [--record FILE]

A net 64-48-10 is trained by backpropagation in software; then it is put on chips with 30 % mismatch, 10 % stuck cells
and output noise of 0.05; then each chip learns, on its own, from the difference of two of its own noisy reads and
nothing else.  Printed: mean and standard deviation over chips of the accuracy on the test set, read once with noise,
and which part of what the chips had lost comes back.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time

import torch
from torch import nn
from torch.nn import functional as F

import zolib as zo
from zolib.problems import digits, mlp

H = zo.hardware


def trained(data, seed: int) -> nn.Module:
    """The net in software: 64-48-10, tanh, 60 epochs of Adam by backpropagation."""
    model = mlp((64, 48, 10), seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(60):
        for rows in torch.randperm(len(data.x), generator=generator).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(data.x[rows]), data.y[rows]).backward()
            optimizer.step()
    return model


@torch.no_grad()
def accuracy(model: nn.Module, data) -> torch.Tensor:
    """On the test set: (), or one for each chip, (S,)."""
    return (model(data.x_test).argmax(dim=-1) == data.y_test).float().mean(dim=-1)


def learn(hw: nn.Module, data, seed: int, epochs: int, lr: float, batch: int) -> None:
    """In situ: the probe is the noise of the chips; each example's change of loss is credited to its own noise."""
    optimizer = torch.optim.Adam(hw.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(data.x), generator=generator).split(batch):
            x, y = data.x[rows], data.y[rows]

            def closure():
                logits = hw(x)  # (S, B, 10)  # noqa: B023
                return F.cross_entropy(logits.flatten(0, 1), y.repeat(len(logits)), reduction="none").view(-1, len(y))  # noqa: B023

            optimizer.zero_grad()
            zo.backward(closure, hw, probe=zo.Intrinsic())
            optimizer.step()
        schedule.step()


def run(seed: int, chips: int, epochs: int, lr: float, batch: int, on: float) -> dict:
    data = digits()
    model = trained(data, seed)
    chip = H.Chip([H.Mismatch(0.3), H.StuckAt(0.1, on=on), H.OutputNoise(0.05)], n_chips=chips, seed=seed)
    room = 2 * max(p.abs().max().item() for p in model.parameters())
    hw = H.deploy(model, chip, w_max=room)
    before = H.across(accuracy(hw, data))
    start = time.perf_counter()
    learn(hw, data, seed, epochs, lr, batch)
    seconds = time.perf_counter() - start
    after = H.across(accuracy(hw, data))
    offline = accuracy(model, data).item()
    return {
        "seed": seed,
        "offline": offline,
        "mapped": before._asdict(),
        "learned": after._asdict(),
        "recovered": (after.mean - before.mean) / (offline - before.mean),
        "reads_per_chip": hw.counters.reads // chips,
        "seconds": seconds,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--on", type=float, default=0.0, help="part of the stuck cells that is stuck at g_max")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", help="write the results to this file, as json")
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    rows = []
    for seed in range(settings.seeds):
        row = run(seed, settings.chips, settings.epochs, settings.lr, settings.batch, settings.on)
        rows.append(row)
        mapped, learned = row["mapped"], row["learned"]
        print(
            f"seed {seed}: offline {row['offline']:.1%}, mapped {mapped['mean']:.1%} +- {mapped['sd']:.1%}, learned "
            f"{learned['mean']:.1%} +- {learned['sd']:.1%}, recovered {row['recovered']:.0%} ({row['seconds']:.0f} s)"
        )
    if settings.record:
        record = {
            "command": "python benchmarks/in_situ_digits.py",
            "settings": {k: v for k, v in vars(settings).items() if k != "record"},
            "rows": rows,
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "device": platform.processor() or platform.machine(),
            "date": datetime.date.today().isoformat(),
            "load": os.getloadavg(),
        }
        with open(settings.record, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
