"""Learning, generalisation and robustness against the noise level, of one small network on digits, for chapter 16.

    python benchmarks/noise_levels.py data/noise-levels.json

Writes one row for each noise level: what 40 networks have learned, how often they misname new digits, and how often
they do so on devices that shake every weight.  About three minutes on one core.
"""

import argparse
import json
import platform
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zolib import problems

LEVELS = (0.003, 0.03, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
DEVICES = (0.15, 0.3, 0.6)  # by how much a device shakes every weight
STEPS, PAIRS, SETTINGS = 600, 16, (0.125, 0.25, 0.5, 1.0, 2.0)
TRIALS, NETWORKS, EXAMPLES = 8, 40, 100

digits = problems.digits()
few, few_labels = digits.x[:EXAMPLES], digits.y[:EXAMPLES]
kept_x, kept_y = digits.x[EXAMPLES:460], digits.y[EXAMPLES:460]  # to choose the step on


def start(seeds: range) -> Tensor:
    """Networks 64-12-10 as long vectors, (networks, 910)."""
    return torch.stack([problems.flat_loss(problems.mlp((64, 12, 10), seed=s), few, few_labels)[1] for s in seeds])


def logits(w: Tensor, x: Tensor) -> Tensor:
    """(n, 910) and (examples, 64) to (n, examples, 10)."""
    outer, a, inner, b = w.split([768, 12, 120, 10], dim=1)
    return torch.tanh(x @ outer.view(-1, 12, 64).mT + a[:, None]) @ inner.view(-1, 10, 12).mT + b[:, None]


def loss(w: Tensor) -> Tensor:
    out = logits(w, few)
    return (out.logsumexp(2) - out[:, torch.arange(EXAMPLES), few_labels]).mean(1)


def wrong(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Percent of the digits that are misnamed, (n,)."""
    return 100 * (logits(w, x).argmax(2) != y).double().mean(1)


def train(w: Tensor, sigma: float, lr: float, seed: int) -> Tensor:
    """Steps down the two-point estimate of 16 shakes, the same shakes at all levels: 2 x 16 x 600 evaluations."""
    chance, n = torch.Generator().manual_seed(seed), len(w)
    for _ in range(STEPS):
        z = torch.randn(n, PAIRS, w.shape[1], generator=chance)
        up, down = (loss((w[:, None] + k * sigma * z).flatten(0, 1)).view(n, PAIRS) for k in (1, -1))
        w = w - lr * ((up - down)[..., None] * z).mean(1) / (2 * sigma)
    return w


def on_devices(w: Tensor, device: float, seed: int) -> Tensor:
    z = torch.randn(len(w), 40, w.shape[1], generator=torch.Generator().manual_seed(seed))
    shaken = (w[:, None] + device * z).flatten(0, 1)
    return wrong(shaken, digits.x_test, digits.y_test).view(len(w), 40).mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    torch.set_num_threads(1)
    rows = []
    with torch.no_grad():
        for sigma in LEVELS:
            tried = [
                wrong(train(start(range(100, 100 + TRIALS)), sigma, lr, 1), kept_x, kept_y).mean().item()
                for lr in SETTINGS
            ]
            lr = SETTINGS[int(np.argmin(tried))]
            w = train(start(range(NETWORKS)), sigma, lr, 2)
            rows.append(
                {
                    "noise": sigma,
                    "tried": [round(t, 2) for t in tried],
                    "step": lr,
                    "loss": [round(v, 4) for v in loss(w).tolist()],
                    "wrong": [round(v, 2) for v in wrong(w, digits.x_test, digits.y_test).tolist()],
                    "on_device": {
                        str(device): [round(v, 2) for v in on_devices(w, device, 3).tolist()] for device in DEVICES
                    },
                }
            )
            print(sigma, lr, np.mean(rows[-1]["wrong"]))
    record = {
        "command": f"python benchmarks/noise_levels.py {file}",
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "device": "CPU, one thread",
        "networks": NETWORKS,
        "steps": STEPS,
        "pairs": PAIRS,
        "settings": SETTINGS,
        "rows": rows,
    }
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
