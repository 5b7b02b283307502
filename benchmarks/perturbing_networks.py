"""Training small networks by backpropagation and by noise, at equal budgets; the record behind chapter 08.

    python benchmarks/perturbing_networks.py digits data/perturbing-digits.json
    python benchmarks/perturbing_networks.py mnist1d data/perturbing-mnist1d.json

Budgets are counted in passes over the training set, a pass being one forward evaluation of every example. Every
multiply-accumulate on an example counts, as a fraction of those of a forward evaluation: a backward pass is two, an
outer product of noise and input is one, decorrelating matrices are counted as coded. Every method and budget
gets six settings, tried with three seeds on a fifth of the training set that is held out; the best one is then run
with ten other seeds on the whole training set and judged on the test set, which tuning never saw. All runs of one
method and budget are trained together, as one batch of networks. Adam, step size falling linearly to zero, batches
of 64. Two more arguments restrict the methods and the budgets: ``BP,NP 30,90``.
"""

import json
import platform
import sys
from datetime import date

import numpy as np
import torch
from torch import Tensor

BATCH, TUNE, SEEDS = 64, 3, 10
STEPS = [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
SETTINGS = {  # six each: step size, then the method's own second knob
    "BP": [(lr, 0.0) for lr in STEPS],
    "NP": [(lr, 1e-3) for lr in STEPS],  # probe size
    "ANP": [(lr, 1e-3) for lr in STEPS],  # probe size
    "DNP": [(lr, rate) for lr in (3e-3, 1e-2, 3e-2) for rate in (1e-2, 3e-2)],  # decorrelation rate
    "WP": [(lr, 1e-3) for lr in STEPS],  # probe size
    "ES": [(lr, sigma) for lr in (1e-2, 3e-2, 1e-1) for sigma in (0.01, 0.03)],  # probe size
}
PAIRS = 16  # antithetic pairs in one step of the evolution strategy


class Nets:
    """R networks side by side: weights (R, out, in), biases (R, 1, out), tanh between layers."""

    def __init__(self, sizes: list[int], seeds: list[int]):
        self.sizes = sizes
        self.params: list[Tensor] = []
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        for n, m in zip(sizes[:-1], sizes[1:], strict=True):
            for shape in ((m, n), (1, m)):
                self.params.append(torch.stack([(2 * torch.rand(shape, generator=g) - 1) / n**0.5 for g in generators]))

    def forward(self, x: Tensor, params=None, noise=None, mix=None):
        """Inputs (R, B, in) to input sums and layer inputs; ``noise`` is added to sums, ``mix`` decorrelates inputs."""
        params = params or self.params
        sums, inputs = [], []
        for layer in range(len(self.sizes) - 1):
            if layer:
                x = torch.tanh(sums[-1])
            if mix is not None:
                x = x @ mix[layer].mT
            inputs.append(x)
            a = torch.baddbmm(params[2 * layer + 1], x, params[2 * layer].mT)
            sums.append(a if noise is None else a + noise[layer])
        return sums, inputs


def losses(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of each example, (R, B)."""
    return torch.logsumexp(logits, -1) - logits.gather(-1, y[..., None])[..., 0]


def outer(signal: list[Tensor], inputs: list[Tensor]) -> list[Tensor]:
    """Mean over the batch of signal (R, B, out) times input (R, B, in), and of the signal, for weights and biases."""
    grads = []
    for s, x in zip(signal, inputs, strict=True):
        grads += [s.mT @ x / s.shape[1], s.mean(1, keepdim=True)]
    return grads


def backprop(nets, x, y, knob, state, g):
    sums, inputs = nets.forward(x)
    p = torch.softmax(sums[-1], -1)
    p.scatter_add_(-1, y[..., None], -torch.ones_like(p[..., :1]))
    signal = [p]
    for layer in range(len(sums) - 1, 0, -1):
        signal.insert(0, signal[0] @ nets.params[2 * layer] * (1 - torch.tanh(sums[layer - 1]) ** 2))
    return outer(signal, inputs)


def pair(nets, x, y, knob, g, mix=None):
    """Two passes with opposite node noise of size knob (R,): noise, difference of losses (R, B, 1), sums and inputs."""
    sigma = knob[:, None, None]
    xi = [torch.randn((*x.shape[:2], m), generator=g) for m in nets.sizes[1:]]
    up, in_up = nets.forward(x, noise=[sigma * n for n in xi], mix=mix)
    down, in_down = nets.forward(x, noise=[-sigma * n for n in xi], mix=mix)
    gain = (losses(up[-1], y) - losses(down[-1], y))[..., None] / 2
    return xi, gain, up, down, [(a + b) / 2 for a, b in zip(in_up, in_down, strict=True)]


def node(nets, x, y, knob, state, g):
    xi, gain, _, _, inputs = pair(nets, x, y, knob, g)
    gain = gain / knob[:, None, None]
    return outer([gain * n for n in xi], inputs)


def activity(nets, x, y, knob, state, g):
    """Dalm et al. and Koenders et al.: N dL da / |da|^2, the square over all layers of an example."""
    _, gain, up, down, inputs = pair(nets, x, y, knob, g)
    change = [(a - b) / 2 for a, b in zip(up, down, strict=True)]
    square = sum(c.square().sum(-1, keepdim=True) for c in change)
    gain = gain * sum(nets.sizes[1:]) / square
    return outer([gain * c for c in change], inputs)


def decorrelated(nets, x, y, knob, state, g):
    """Node perturbation on x* = D x, with D <- D - rate (<x* x*^T> - diagonal) D."""
    if not state:
        state += [torch.eye(n).repeat(len(x), 1, 1) for n in nets.sizes[:-1]]
    small = torch.full_like(knob, 1e-3)
    xi, gain, _, _, inputs = pair(nets, x, y, small, g, mix=state)
    gain = gain / small[:, None, None]
    for layer, star in enumerate(inputs):
        c = star.mT @ star / star.shape[1]
        c.diagonal(dim1=1, dim2=2).zero_()
        state[layer] = state[layer] - knob[:, None, None] * (c @ state[layer])
    return outer([gain * n for n in xi], inputs)


def weight(nets, x, y, knob, state, g):
    sigma = knob[:, None, None]
    z = [torch.randn(p.shape, generator=g) for p in nets.params]
    values = []
    for sign in (1, -1):
        sums, _ = nets.forward(x, [p + sign * sigma * n for p, n in zip(nets.params, z, strict=True)])
        values.append(losses(sums[-1], y).mean(1))
    gain = ((values[0] - values[1]) / (2 * knob))[:, None, None]
    return [gain * n for n in z]


def evolution(nets, x, y, knob, state, g):
    """Sixteen antithetic pairs, losses turned into z-scores over the population."""
    runs = len(x)
    z = [torch.randn((PAIRS, *p.shape), generator=g) for p in nets.params]
    sigma = knob[:, None, None]
    points = [
        torch.cat([(p + sign * sigma * n).flatten(0, 1) for sign in (1, -1)])
        for p, n in zip(nets.params, z, strict=True)
    ]
    sums, _ = nets.forward(x.repeat(2 * PAIRS, 1, 1), points)
    value = losses(sums[-1], y.repeat(2 * PAIRS, 1)).mean(1).view(2, PAIRS, runs)
    score = (value[0] - value[1]) / value.std((0, 1))
    return [torch.einsum("kr,krab->rab", score, n) / PAIRS for n in z]


METHODS = {"BP": backprop, "NP": node, "ANP": activity, "DNP": decorrelated, "WP": weight, "ES": evolution}


def cost(method: str, sizes: list[int]) -> float:
    """Forward evaluations that one example costs in one step."""
    pairs = list(zip(sizes[:-1], sizes[1:], strict=True))
    mix = sum(n * n for n, _ in pairs) / sum(n * m for n, m in pairs)
    cubes = sum(n**3 for n, _ in pairs) / BATCH / sum(n * m for n, m in pairs)
    return {"BP": 3, "NP": 3, "ANP": 3, "DNP": 2 * (1 + mix) + 1 + mix + cubes, "WP": 2, "ES": 2 * PAIRS}[method]


def train(method: str, sizes, train_set, test_set, passes: float, settings, seeds) -> np.ndarray:
    """Accuracy on ``test_set`` after a budget of passes, for every setting and seed: (settings, seeds)."""
    x, y = train_set
    grid = [(lr, knob, s) for lr, knob in settings for s in seeds]
    lr, knob = (torch.tensor([row[i] for row in grid]) for i in (0, 1))
    nets = Nets(sizes, [1000 + s for *_, s in grid])
    g = torch.Generator().manual_seed(seeds[0])
    m, v = ([torch.zeros_like(p) for p in nets.params] for _ in range(2))
    state: list[Tensor] = []
    steps = max(1, int(passes * len(x) / (BATCH * cost(method, sizes))))
    for t in range(1, steps + 1):
        pick = torch.randint(len(x), (len(grid), BATCH), generator=g)
        grads = METHODS[method](nets, x[pick], y[pick], knob, state, g)
        rate = (lr * (1 - (t - 1) / steps) / (1 - 0.9**t))[:, None, None]
        for p, d, first, second in zip(nets.params, grads, m, v, strict=True):
            first.mul_(0.9).add_(d, alpha=0.1)
            second.mul_(0.999).addcmul_(d, d, value=0.001)
            p.sub_(rate * first / ((second / (1 - 0.999**t)).sqrt() + 1e-8))
    inputs, labels = test_set
    sums, _ = nets.forward(inputs.expand(len(grid), *inputs.shape), mix=state or None)
    right = (sums[-1].argmax(-1) == labels).double().mean(1)
    return right.view(len(settings), len(seeds)).numpy()


def main() -> None:
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    which, file = sys.argv[1:3]
    methods = sys.argv[3].split(",") if len(sys.argv) > 3 else list(METHODS)
    from zolib import problems

    data = getattr(problems, which)()
    sizes, budgets = {
        "digits": ([64, 64, 64, 10], [30, 90, 270, 600, 1800]),
        "mnist1d": ([40, 100, 100, 10], [30, 90, 270, 600]),
    }[which]
    if len(sys.argv) > 4:
        budgets = [float(b) for b in sys.argv[4].split(",")]
    n = len(data.x) - len(data.x) // 5
    rows = []
    for passes in budgets:
        for method in methods:
            tried = train(
                method, sizes, (data.x[:n], data.y[:n]), (data.x[n:], data.y[n:]), passes, SETTINGS[method], range(TUNE)
            ).mean(1)
            best = int(tried.argmax())
            found = train(
                method,
                sizes,
                (data.x, data.y),
                (data.x_test, data.y_test),
                passes,
                [SETTINGS[method][best]],
                range(100, 100 + SEEDS),
            )[0]
            rows.append(
                {
                    "method": method,
                    "passes": passes,
                    "per_example": round(cost(method, sizes), 2),
                    "settings": SETTINGS[method],
                    "tried": tried.round(4).tolist(),
                    "best": best,
                    "test": found.round(4).tolist(),
                }
            )
            print(
                f"{method:4} {passes:5} best {SETTINGS[method][best]} "
                f"{found.mean():.4f} +- {found.std(ddof=1):.4f}  tried {tried.round(3)}",
                flush=True,
            )
            with open(file, "w") as out:
                json.dump(
                    {
                        "command": f"python benchmarks/perturbing_networks.py {which} {file}",
                        "date": str(date.today()),
                        "versions": {
                            "python": platform.python_version(),
                            "torch": torch.__version__,
                            "numpy": np.__version__,
                        },
                        "device": "CPU, one thread",
                        "sizes": sizes,
                        "batch": BATCH,
                        "seeds": SEEDS,
                        "rows": rows,
                    },
                    out,
                    indent=1,
                )


if __name__ == "__main__":
    main()
