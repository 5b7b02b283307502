"""Why pretraining helps zeroth order: fine-tuning a small language model from checkpoints; the record of chapter 09.

    python benchmarks/pretraining.py --record data/pretraining.json --weights data/pretraining.npz

Three transformers over bytes (116,480 weights each) learn the documentation strings of Python's standard library,
which every reader has, by backpropagation. From checkpoints at 0 to 10^7 tokens two small tasks are learned, each with
forward passes only (one pair with random signs per step, plain SGD) and by backpropagation (plain SGD):

- ``style``: predict 16 pieces of such text, not seen before, in capitals. Done when the loss has fallen by one nat.
- ``kind``: after a piece of text and a prompt, say whether it was prose or program, by one of two letters. Done when
  the loss is half of log 2.

Loss and curvature are those of the whole set of examples, so nothing is random but the directions. Both step sizes are
tuned on their own, over ten values each, a factor of two apart, with examples that are not used again. Cost is
counted in forward passes, a backward pass as two, up to the interpolated step at which the loss crosses its target.
The Hessian's trace (random signs) and largest eigenvalue (Lanczos) come from Hessian-vector products, at the checkpoint
and where backpropagation reached the target. Nothing of that is used to choose a step size.

A run that stops is taken up where it was; finished rows are kept in the record.
"""

import argparse
import ast
import contextlib
import hashlib
import json
import math
import platform
import random
import re
import statistics
import sysconfig
import time
from datetime import date
from pathlib import Path

import numpy as np
import scipy
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from zolib.noise import fused, stream
from zolib.problems import Transformer

TOKENS = [0, 10**4, 10**5, 10**6, 10**7]
MODELS, REPEATS, TUNERS = 3, 2, 3  # pretrained networks; sets of examples for each, to measure and to tune
BATCH, LENGTH, RATE, WARM = 16, 128, 3e-3, 100  # of pretraining
STEPS = {"BP": [2.0**e for e in range(-8, 2)], "ZO": [2.0**e for e in range(-14, -4)]}
MOST = {"BP": 500, "ZO": 3000}  # steps before a run is given up
BROKEN = 30.0  # nats: a run with such a loss, or none, is given up
PASSES = {"BP": 3, "ZO": 2}  # forward passes of one step, backward counted as two
SIGMA, PROBES = 1e-3, 64
DROP, LEVEL = 1.0, math.log(2) / 2  # targets of the two tasks, in nats


# ---- text ----------------------------------------------------------------------------------------------------------


def library() -> Path:
    return Path(sysconfig.get_paths()["stdlib"])


def sources() -> list[Path]:
    """The standard library's modules, without tests, tools and installed packages, in sorted order."""
    skip = ("site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__")
    found = [p for p in library().rglob("*.py") if not set(p.relative_to(library()).parts) & set(skip)]
    return sorted(found, key=lambda p: p.relative_to(library()).as_posix())


def docstrings(tree: ast.AST) -> list[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds))
    return [text for text in found if text]


def corpus() -> tuple[str, str, str]:
    """Text to pretrain on, text kept aside (the last tenth), and the program text of the modules kept aside."""
    texts = []
    for path in sources():
        with contextlib.suppress(SyntaxError, UnicodeDecodeError):
            program = path.read_text(encoding="utf-8")
            texts.append((program, "\n\n".join(docstrings(ast.parse(program)))))
    prose = plain("\n\n".join(doc for _, doc in texts if doc))
    cut, length, programs = int(0.9 * len(prose)), 0, []
    for program, doc in texts:
        length += len(doc) + 2 if doc else 0
        if length > cut:
            programs.append(re.sub(r'(?s)""".*?"""|#[^\n]*', " ", program))  # without docstrings and comments
    return prose[:cut], prose[cut:], plain("\n".join(programs))


def plain(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def ids(texts: list[str]) -> Tensor:
    return torch.tensor([list(text.encode()) for text in texts])


# ---- tasks ---------------------------------------------------------------------------------------------------------


def style(prose: str, program: str, seed: int) -> tuple[Tensor, Tensor]:
    """16 pieces in capitals, 33 bytes each."""
    draw = random.Random(seed)
    places = [draw.randrange(len(prose) - 33) for _ in range(16)]
    return ids([prose[i : i + 33].upper() for i in places]), torch.zeros(16, dtype=torch.long)


def kind(prose: str, program: str, seed: int) -> tuple[Tensor, Tensor]:
    """16 pieces of prose and 16 of program, 32 bytes each with white space made single, and a prompt."""
    draw, texts = random.Random(seed), []
    while len(texts) < 32:
        source = (prose, program)[len(texts) % 2]
        i = draw.randrange(len(source) - 96)
        piece = re.sub(r"\s+", " ", source[i : i + 96]).strip()[:32]
        if len(piece) == 32:
            texts.append(piece + "\n>")
    return ids(texts), torch.arange(32) % 2


def style_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


def kind_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    answers = model(x)[:, -1, [ord("d"), ord("p")]]
    return nn.functional.cross_entropy(answers, y)


TASKS = {"style": (style, style_loss), "kind": (kind, kind_loss)}


def target(task: str, start: float) -> float:
    return start - DROP if task == "style" else LEVEL


# ---- pretraining ---------------------------------------------------------------------------------------------------


def pretrain(text: Tensor, held: Tensor, seed: int, folder: Path, bar: tqdm) -> list[float]:
    """Checkpoints of one network in ``folder``; returns its loss on text kept aside, in nats per byte."""
    model, losses = Transformer(seed=seed), []
    windows = held[: len(held) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1)[:100]
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.01)
    draw = torch.Generator().manual_seed(seed)
    done = step = 0
    for goal in TOKENS:
        while done < goal:
            step += 1
            optimizer.param_groups[0]["lr"] = RATE * min(1.0, step / WARM)
            start = torch.randint(len(text) - LENGTH - 1, (BATCH, 1), generator=draw)
            x = text[start + torch.arange(LENGTH + 1)]
            optimizer.zero_grad()
            style_loss(model, x, x).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            done += BATCH * LENGTH
            bar.update(BATCH * LENGTH)
        with torch.no_grad():
            losses.append(round(style_loss(model, windows, windows).item(), 4))
        torch.save(model.state_dict(), folder / f"{seed}-{goal}.pt")
    return losses


# ---- fine-tuning ---------------------------------------------------------------------------------------------------


class Flat:
    """A model whose weights are one vector, and its loss on one set of examples."""

    def __init__(self, model: nn.Module, loss, x: Tensor, y: Tensor):
        self.model, self.loss, self.x, self.y = model, loss, x, y
        self.theta = torch.cat([p.detach().flatten() for p in model.parameters()])

    def __call__(self, theta: Tensor) -> Tensor:
        used = 0
        for p in self.model.parameters():
            p.data = theta[used : used + p.numel()].view(p.shape)
            used += p.numel()
        return self.loss(self.model, self.x, self.y)

    def gradient(self, theta: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        loss = self(theta)
        parts = torch.autograd.grad(loss, list(self.model.parameters()), create_graph=create_graph)
        return loss, torch.cat([p.flatten() for p in parts])


def passes(f: Flat, method: str, eta: float, goal: float, most: float, seed: int) -> tuple[float, Tensor]:
    """Forward passes until the loss crosses ``goal``, infinite if not within ``most`` steps; and the last weights."""
    theta, before = f.theta.clone(), math.inf
    for t in range(int(min(most, MOST[method])) + 1):
        if method == "BP":
            loss, g = f.gradient(theta)
            value = loss.item()
        else:
            with torch.no_grad():
                pair = [f(fused.perturbed(theta, stream.SIGN, seed, t, 0, 0, s)).item() for s in (SIGMA, -SIGMA)]
            value = sum(pair) / 2
        if value <= goal:  # between two steps, but no less than the first
            steps = max(1.0, t - 1 + (before - goal) / (before - value)) if t else 0.0
            return PASSES[method] * steps, theta
        if not value < BROKEN:
            break
        before = value
        if method == "BP":
            theta -= eta * g
        else:
            slope = (pair[0] - pair[1]) / (2 * SIGMA)
            fused.update_(theta, stream.SIGN, [fused.Term(seed, t, 0, -eta * slope)], 0)
    return math.inf, theta


def tuned(runs: list[tuple[Flat, float, int]], method: str) -> tuple[float, list[float]]:
    """The step size with the least passes, summed over the runs; and all sums, infinite where they could not win."""
    steps, sums, best = STEPS[method], [math.inf] * len(STEPS[method]), math.inf
    for i in sorted(range(len(steps)), key=lambda i: abs(i - len(steps) // 2)):
        total = 0.0
        for f, goal, seed in runs:
            left = (best - total) / PASSES[method] + 1
            total += passes(f, method, steps[i], goal, left, seed)[0]
            if total >= best:
                total = math.inf
                break
        sums[i] = total
        best = min(best, total)
    return steps[sums.index(best)], sums


def curvature(f: Flat, theta: Tensor, seed: int) -> dict[str, float | None]:
    """Trace and largest eigenvalue of the Hessian, and the curvature along the gradient."""
    with sdpa_kernel(SDPBackend.MATH):  # the other kernels cannot be differentiated twice
        loss, g = f.gradient(theta, create_graph=True)
        weights = list(f.model.parameters())

        def product(v: Tensor) -> Tensor:
            parts = torch.autograd.grad(g @ v, weights, retain_graph=True)
            return torch.cat([p.flatten() for p in parts])

        draws = []
        for k in range(PROBES):
            z = stream.draw(stream.SIGN, seed, 0, range(k, k + 1), [(0, len(g))])[0][0]
            draws.append((z @ product(z)).item())
        operator = LinearOperator(
            (len(g), len(g)), dtype=np.float32, matvec=lambda v: product(torch.from_numpy(v.ravel()).float()).numpy()
        )
        start = np.random.default_rng(seed).standard_normal(len(g)).astype(np.float32)
        top = float(eigsh(operator, 1, which="LA", tol=1e-2, v0=start, return_eigenvectors=False)[0])
        flat = g.detach()
        along = (flat @ product(flat) / (flat @ flat)).item()
    return {
        "trace": shown(statistics.mean(draws)),
        "trace_error": shown(statistics.stdev(draws) / PROBES**0.5),
        "top": shown(top),
        "along": shown(along),
        "gradient": shown(flat.norm().item()),
    }


# ---- the whole ------------------------------------------------------------------------------------------------------


def subject(folder: Path, texts: tuple[str, str], task: str, model: int, tokens: int, seed: int) -> Flat:
    net = Transformer(seed=model)
    net.load_state_dict(torch.load(folder / f"{model}-{tokens}.pt"))
    make, loss = TASKS[task]
    return Flat(net, loss, *make(*texts, seed))


def finetune(folder: Path, texts: tuple[str, str], task: str, tokens: int) -> dict:
    """One row of the record: a task from one checkpoint."""

    def run(model: int, seed: int) -> tuple[Flat, float, int]:
        f = subject(folder, texts, task, model, tokens, seed)
        with torch.no_grad():
            return f, target(task, f(f.theta).item()), seed

    row: dict = {
        "task": task,
        "tokens": tokens,
        "start": [],
        "passes": {},
        "eta": {},
        "tried": {},
        "before": [],
        "after": [],
    }
    tuners = [run(i % MODELS, 1000 + i) for i in range(TUNERS)]
    measured = [run(model, MODELS * r + model) for r in range(REPEATS) for model in range(MODELS)]
    ends = []
    for method in ("BP", "ZO"):
        eta, sums = tuned(tuners, method)
        found = [passes(f, method, eta, goal, math.inf, seed) for f, goal, seed in measured]
        row["eta"][method], row["tried"][method] = eta, [shown(s) for s in sums]
        row["passes"][method] = [shown(p) for p, _ in found]
        ends.append([theta for _, theta in found])
    for (f, _, seed), theta in zip(measured, ends[0], strict=True):
        with torch.no_grad():
            row["start"].append(shown(f(f.theta).item()))
        row["before"].append(curvature(f, f.theta, seed))
        row["after"].append(curvature(f, theta, seed))  # where backpropagation reached the target
    return row


def shown(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def keep_weights(file: Path, folder: Path, texts: tuple[str, str]) -> None:
    """Two checkpoints of the first network in half precision, and its first sets of examples."""
    arrays = {}
    for tokens in (10**6, 10**7):
        state = torch.load(folder / f"0-{tokens}.pt")
        arrays[f"weights-{tokens}"] = torch.cat([t.flatten() for t in state.values()]).half().numpy()
    for task, (make, _) in TASKS.items():
        x, y = make(*texts, 0)
        arrays[f"{task}-x"], arrays[f"{task}-y"] = x.numpy().astype(np.uint8), y.numpy().astype(np.uint8)
    np.savez_compressed(file, **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], epilog="Some 30 minutes of one core.")
    parser.add_argument("--record", type=Path, required=True, metavar="JSON", help="the record to write or go on with")
    parser.add_argument("--weights", type=Path, metavar="NPZ", help="where two checkpoints and examples are kept")
    parser.add_argument("--work", type=Path, default=Path("_build/pretraining"), help="checkpoints (%(default)s)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="default: both")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(parents=True, exist_ok=True)

    train, prose, program = corpus()
    text, held = ids([train])[0], ids([prose])[0]
    record = json.loads(arguments.record.read_text()) if arguments.record.exists() else {"rows": []}
    record |= {
        "command": f"python benchmarks/pretraining.py --record {arguments.record} --weights {arguments.weights}",
        "date": str(date.today()),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "scipy": scipy.__version__,
        },
        "device": f"CPU, one thread, {platform.machine()}",
        "corpus": {"bytes": len(train), "kept aside": len(prose), "sha256": hashlib.sha256(train.encode()).hexdigest()},
        "parameters": sum(p.numel() for p in Transformer().parameters()),
        "models": MODELS,
        "repeats": REPEATS,
        "steps": STEPS,
        "most": MOST,
        "probes": PROBES,
        "sigma": SIGMA,
        "targets": {"style": f"a fall by {DROP:g}", "kind": f"{LEVEL:.4f}"},
    }
    record.setdefault("seconds", {})

    def save() -> None:
        arguments.record.write_text(json.dumps(record, indent=1) + "\n")

    last = [arguments.work / f"{model}-{TOKENS[-1]}.pt" for model in range(MODELS)]
    if "pretraining" not in record or not all(file.exists() for file in last):
        clock = time.process_time()
        with tqdm(total=MODELS * TOKENS[-1], unit="token", desc="pretraining") as bar:
            losses = [pretrain(text, held, seed, arguments.work, bar) for seed in range(MODELS)]
        record["pretraining"] = {"tokens": TOKENS, "loss": losses}
        record["rows"], record["seconds"]["pretraining"] = [], round(time.process_time() - clock)
        save()
    if arguments.weights:
        keep_weights(arguments.weights, arguments.work, (prose, program))
    for task in arguments.tasks:
        for tokens in tqdm(TOKENS[::-1], desc=task):
            if any(row["task"] == task and row["tokens"] == tokens for row in record["rows"]):
                continue
            clock = time.process_time()
            row = finetune(arguments.work, (prose, program), task, tokens)
            row["seconds"] = round(time.process_time() - clock)
            record["rows"].append(row)
            save()
            tqdm.write(f"{task} {tokens}: {row['passes']} {row['eta']} {row['seconds']} s")


if __name__ == "__main__":
    main()
