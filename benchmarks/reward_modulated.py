"""Learning to act from one number: REINFORCE by backpropagation, NRL and RMHL; the record behind chapter 13.

    python benchmarks/reward_modulated.py data/reward-modulated.json

Policies are networks without biases, leaky ReLU (0.1) between layers, each learner with a task of its own.  At the end
of an episode the eligibility of all its steps is multiplied by the reward prediction error (R - expected)/|expected|,
where "expected" is a running mean of earlier episodes (rate 0.1), and added to the weights: plain gradient ascent.
Steps are in the units of a gradient estimate, so for RMHL the noise times its input counts 1/sigma^2.

Every method gets eight settings, tried with four seeds and judged by the last quarter of the run; the best one is run
again with sixteen other seeds.  Budgets are counted in steps of the task.  All learners of a method run side by side.
More arguments restrict the rows, by their names, and leave the others in the file as they are: ``NRL RMHL-noise``.
"""

import json
import platform
import sys
import time
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path

import gymnasium
import numpy as np
import torch
from tqdm import tqdm

from zolib import tasks

TUNE, SEEDS, WINDOWS, RATE = 4, 16, 40, 0.1
POLE, SWING = (4, 32, 2), (6, 32, 3)
NRL = [(s, 0.01) for s in (3e-4, 1e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 3e-2)]
BP = [(s, 0.0) for s in (1e-3, 3e-3, 1e-2, 2e-2, 3e-2, 5e-2, 1e-1, 3e-1)]
NOISE = [(s, sigma) for sigma in (0.1, 0.3) for s in (1e-4, 3e-4, 1e-3, 3e-3)]
SAMPLED = [(s, sigma) for sigma in (0.3, 1.0) for s in (1e-3, 3e-3, 5e-3, 1e-2)]


@dataclass
class Row:
    """One method on one task.  rule: bp, nrl, rmhl.  settings: step and size of the noise."""

    rule: str
    settings: list[tuple[float, float]]
    task: str = "cartpole"
    sizes: tuple[int, ...] = POLE
    greedy: bool = False  # the likeliest action, so that the noise on the nodes is all the exploration
    trace: float = 1.0
    baseline: bool = True
    divide: str = "expected"  # or "reward", as the program of NRL has it, or "constant"
    steps: int = 100_000


ROWS = {
    "BP": Row("bp", BP),
    "NRL": Row("nrl", NRL),
    "RMHL-sampled": Row("rmhl", SAMPLED),
    "RMHL-noise": Row("rmhl", NOISE, greedy=True),
    # noise as small as NRL's, the action drawn
    "RMHL-small": Row("rmhl", [(s, 1e-3) for s in (1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)]),
    # steps and noises that the program of NRL names, and two larger steps; there a step multiplies noise of size sigma
    "RMHL-program": Row(
        "rmhl",
        [(s * v**2, v) for v in (1e-3, 0.1) for s in (5e-3, 1e-2, 5e-2)] + [(0.2 * 0.1**2, 0.1), (0.5 * 0.1**2, 0.1)],
    ),
    "NRL-no-baseline": Row("nrl", [(s / 10, v) for s, v in NRL], baseline=False),
    "NRL-trace-0.9": Row("nrl", [(3 * s, v) for s, v in NRL], trace=0.9),
    "NRL-no-trace": Row("nrl", [(10 * s, v) for s, v in NRL], trace=0.0),
    "NRL-over-reward": Row("nrl", NRL, divide="reward"),
    "NRL-constant": Row("nrl", NRL, divide="constant"),
    "BP-deep": Row("bp", BP, sizes=(4, 32, 32, 2)),
    "NRL-deep": Row("nrl", NRL, sizes=(4, 32, 32, 2)),
    "RMHL-noise-deep": Row("rmhl", NOISE, sizes=(4, 32, 32, 2), greedy=True),
    "BP-acrobot": Row("bp", BP, "acrobot", SWING, steps=150_000),
    "NRL-acrobot": Row("nrl", NRL, "acrobot", SWING, steps=150_000),
    "RMHL-sampled-acrobot": Row("rmhl", SAMPLED, "acrobot", SWING, steps=150_000),
    "RMHL-noise-acrobot": Row("rmhl", NOISE, "acrobot", SWING, greedy=True, steps=150_000),
}


class Nets:
    """R policies side by side: weights (R, out, in), normal with variance 2/(in + out)."""

    def __init__(self, sizes: tuple[int, ...], count: int, random: np.random.Generator):
        self.weights = [
            (random.standard_normal((count, m, n)) * (2 / (n + m)) ** 0.5).astype(np.float32)
            for n, m in pairwise(sizes)
        ]

    def forward(self, x: np.ndarray, noise: list[np.ndarray] | None = None):
        """Observations (R, in) to the inputs and the sums of each layer; ``noise`` is added to the sums."""
        inputs, sums = [], []
        for i, w in enumerate(self.weights):
            if i:
                x = np.where(sums[-1] > 0, sums[-1], np.float32(0.1) * sums[-1])
            inputs.append(x)
            a = (w @ x[:, :, None])[:, :, 0]
            sums.append(a if noise is None else a + noise[i])
        return inputs, sums


def log_policy(logits: np.ndarray) -> np.ndarray:
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def backprop(nets: Nets, sums: list[np.ndarray], chosen: np.ndarray) -> list[np.ndarray]:
    """Derivative of the log-probability of the chosen action with respect to the sums of each layer."""
    found = [chosen - np.exp(log_policy(sums[-1]))]
    for w, a in zip(nets.weights[:0:-1], sums[-2::-1], strict=True):
        found.insert(0, (found[0][:, None, :] @ w)[:, 0] * np.where(a > 0, np.float32(1), np.float32(0.1)))
    return found


def act(row: Row, nets: Nets, x: np.ndarray, sigma: np.ndarray, random: np.random.Generator):
    """Actions (R,), and what each layer's synapses remember: their node's part (R, out) and their input (R, in)."""
    z = [random.standard_normal(w.shape[:2], dtype=np.float32) for w in nets.weights] if row.rule != "bp" else []
    noise = [sigma * n for n in z]
    inputs, sums = nets.forward(x, noise if row.rule == "rmhl" else None)
    clocks = 0 if row.greedy else np.log(random.standard_exponential(sums[-1].shape, dtype=np.float32))
    action = (sums[-1] - clocks).argmax(1)  # with clocks: a draw from the policy
    chosen = np.eye(sums[-1].shape[1], dtype=np.float32)[action]
    if row.rule == "bp":
        return action, backprop(nets, sums, chosen), inputs
    if row.rule == "rmhl":
        return action, [n / sigma for n in z], inputs
    inputs, noisy = nets.forward(x, noise)
    gain = ((log_policy(noisy[-1]) - log_policy(sums[-1])) * chosen).sum(1, keepdims=True)
    share = gain * sum(n.shape[1] for n in z) / (sigma * sum((n**2).sum(1, keepdims=True) for n in z))
    return action, [share * n for n in z], inputs


def live(row: Row, settings: list[tuple[float, float]], seed: int) -> np.ndarray:
    """Mean return of the episodes that ended in each window, (learners, WINDOWS), one learner for each setting."""
    random = np.random.default_rng(seed)
    step, sigma = (np.array(v, dtype=np.float32)[:, None] for v in zip(*settings, strict=True))
    nets = Nets(row.sizes, len(step), random)
    task = getattr(tasks, row.task)(len(step), seed=seed)
    eligibility = [np.zeros_like(w) for w in nets.weights]
    expected = np.full(len(step), np.nan)
    latest = np.zeros(len(step))
    total, count, curve = np.zeros(len(step)), np.zeros(len(step)), []
    for t in tqdm(range(1, row.steps + 1), disable=None, leave=False):
        action, posts, inputs = act(row, nets, task.observation.numpy(), sigma, random)
        for e, post, x in zip(eligibility, posts, inputs, strict=True):
            if row.trace != 1:
                e *= np.float32(row.trace)
            e += post[:, :, None] * x[:, None, :]
        paid, ended = (v.numpy() for v in task.step(torch.from_numpy(action)))
        if ended.any():
            told = np.flatnonzero(ended)
            reward = paid[told]
            before = np.where(np.isnan(expected[told]), reward, expected[told])
            unit = {"expected": np.abs(before), "reward": np.abs(reward), "constant": 100.0}[row.divide]
            error = (reward - before * row.baseline) / unit
            expected[told] = before + RATE * (reward - before)
            for w, e in zip(nets.weights, eligibility, strict=True):
                w[told] += (step[told, 0] * error).astype(np.float32)[:, None, None] * e[told]
                e[told] = 0
            latest[told] = reward
            total[told] += reward
            count[told] += 1
        if t % (row.steps // WINDOWS) == 0:
            curve.append(np.where(count > 0, total / np.maximum(count, 1), latest))
            total[:], count[:] = 0, 0
    return np.array(curve).T


def main() -> None:
    torch.set_num_threads(1)
    np.seterr(over="ignore", divide="ignore")  # clocks at zero, and policies that are sure
    file, names = sys.argv[1], sys.argv[2:]
    rows = json.loads(Path(file).read_text())["rows"] if names else {}
    for name in names or ROWS:
        row, begun = ROWS[name], time.process_time()
        grid = [s for s in row.settings for _ in range(TUNE)]
        tried = live(row, grid, seed=0).reshape(len(row.settings), TUNE, WINDOWS)
        score = tried[:, :, -WINDOWS // 4 :].mean((1, 2))
        best = int(score.argmax())
        found = live(row, [row.settings[best]] * SEEDS, seed=1000)
        last = found[:, -WINDOWS // 10 :].mean(1)
        rows[name] = {
            **{k: getattr(row, k) for k in ("rule", "task", "sizes", "greedy", "trace", "baseline", "divide", "steps")},
            "settings": row.settings,
            "tried": score.round(1).tolist(),
            "best": best,
            "curves": found.round(1).tolist(),
        }
        print(
            f"{name:20} {row.settings[best]} last tenth {last.mean():7.1f} +- {last.std(ddof=1) / SEEDS**0.5:5.1f}  "
            f"tried {score.round(0)}  {time.process_time() - begun:.0f} s",
            flush=True,
        )
        with open(file, "w") as out:
            json.dump(
                {
                    "command": f"python benchmarks/reward_modulated.py {file}",
                    "date": str(date.today()),
                    "versions": {
                        "python": platform.python_version(),
                        "numpy": np.__version__,
                        "torch": torch.__version__,
                        "gymnasium": gymnasium.__version__,
                    },
                    "device": "CPU, one thread",
                    "seeds": SEEDS,
                    "rows": {name: rows[name] for name in ROWS if name in rows},
                },
                out,
            )


if __name__ == "__main__":
    main()
