"""The cases of the suite of correctness: problems with a known gradient, and a prediction for each estimator.

On weights: the bowl f(x) = g.x + h/2 |x|^2 at x = 0, with gradient g.  On nodes: the same bowl of the outputs of a
linear layer, which all are 0.  rho = (sigma h)^2 / (4 |g|^2) says how much of the bowl a one-sided difference sees, and
S is E|z|^6.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

import zolib as zo
from zolib.feedback import Feedback
from zolib.probes import Probe, Target

from .correctness import Case

SIGMA, BEND, SAMPLES = 0.1, 2.0, 4  # sigma, h and K, unless a case says otherwise
REPLICATES = 24_000
OUTPUTS, SHARED = 5, 3  # of the layer; examples that share one loss
INPUTS = 600  # of the layer: so many estimates are made in one call, or a third as many
DOORS = 8  # estimates of a case that are made in two ways


def all_cases() -> list[Case]:
    return [*differences(), *comparisons(), *nodes(), *activities(), *certain()]


def gradient(*shape: int) -> Tensor:
    """g: entries 1/2 + sin(i^2), without a pattern that a law could share."""
    i = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return (0.5 + (i * i).sin()).view(shape)


# -- noise on weights --------------------------------------------------------------------------------------------------


def on_weights(probe, feedback, g, samples, sigma, bend, replicates, seed):
    """Estimates as the sum they are said to be, of the library's directions and coefficients, many at a time.

    The first of each step must be what :func:`zolib.grad` gives.
    """

    def f(x: Tensor) -> Tensor:
        return (g * x).sum() + bend / 2 * x.square().sum()

    target, d = Target(0, 0, "x", torch.zeros_like(g)), g.numel()
    # coordinates are drawn without replacement, so only the samples of one step belong together
    steps = replicates if isinstance(probe, zo.Coordinate) else DOORS
    count = replicates // steps
    drawn = []
    for step in range(steps):
        raw = probe.together(probe.draw([target], d, seed, step, range(count * samples)), d)
        factor = probe.factor(raw, d)
        drawn.append(raw[0] if factor is None else raw[0] * factor.unsqueeze(1))
    z = torch.cat(drawn).double().view(replicates, samples, *g.shape)
    slopes = coefficients(f, feedback, z.transpose(0, 1), sigma).T.double()  # (replicates, samples)
    estimates = torch.einsum("rk,rk...->r...", probe.weight(d) / samples * slopes, z)
    difference = 0.0
    for step in range(DOORS):
        door = zo.grad(f, probe=probe, feedback=feedback(), samples=samples, sigma=sigma, seed=seed)
        own = door(target.value, step=step)
        difference = max(difference, ((own - estimates[step * count]).norm() / own.norm()).item())
    return estimates.flatten(1), g.flatten(), difference


def coefficients(f: Callable, feedback: Callable[[], Feedback], z: Tensor, sigma: float) -> Tensor:
    """z (K, n, ...) to the coefficients of n steps of K samples, (K, n)."""
    made, zero = feedback(), torch.zeros_like(z[0, 0])
    twice = lambda function: torch.func.vmap(torch.func.vmap(function))  # noqa: E731
    if made.exact:
        return twice(lambda t: torch.func.jvp(f, (zero,), (t,))[1])(z)
    losses = torch.stack([twice(f)(sign * sigma * z) for sign in made.signs], dim=1)  # (K, signs, n)
    if made.memory:  # each step is the first of its own object
        return torch.stack([feedback().coefficients(each, None, sigma) for each in losses.unbind(dim=2)], dim=1)
    return made.coefficients(losses, f(zero) if made.clean else None, sigma)


def weights(
    group: str,
    label: str,
    probe: Probe,
    feedback: Callable[[], Feedback],
    moment: float,
    formula: str,
    slope: float = 1.0,
    shape: tuple[int, int] = (3, 4),
    samples: int = SAMPLES,
    sigma: float = SIGMA,
    bend: float = BEND,
    replicates: int = REPLICATES,
) -> Case:
    estimates = partial(on_weights, probe, feedback, gradient(*shape), samples, sigma, bend)
    return Case(group, label, samples, replicates, slope, moment, formula, estimates)


def differences() -> Iterator[Case]:
    """Differences and exact slopes with each law: E|g_hat|^2/|g|^2 = a/K, and (a + rho S)/K one-sided."""
    k, flat, square = SAMPLES, (3, 4), (8, 8)
    d, (m, n) = math.prod(flat), square
    low, sixth = (m + 2) * (n + 2) + k - 1, m * (m + 2) * (m + 4) * n * (n + 2) * (n + 4)
    for group, probe, shape, bend, a, tex, s in (
        ("Gaussian", zo.Gaussian(), flat, BEND, d + k + 1, "d+K+1", d * (d + 2) * (d + 4)),
        ("Rademacher, fair signs", zo.Rademacher(), flat, BEND, d + k - 1, "d+K-1", d**3),
        ("Sphere", zo.Sphere(), flat, BEND, d + k - 1, "d+K-1", d**3),
        ("Orthogonal, K at right angles", zo.Orthogonal(k), flat, BEND, d, "d", d**3),
        ("Low rank, rank 1", zo.LowRank(1), square, BEND / 4, low, "A_1+K-1", sixth),
    ):
        rho = (SIGMA * bend) ** 2 / (4 * gradient(*shape).square().sum().item())
        add = partial(weights, group, probe=probe, shape=shape)
        formula = f"({tex})/K" if tex != "d" else "d/K"
        yield add("two-point", feedback=zo.TwoPoint, moment=a / k, formula=formula)
        yield add("one-sided", feedback=zo.OneSided, moment=(a + rho * s) / k, formula=rf"({tex}+\rho S)/K", bend=bend)
        yield add("exact slope", feedback=zo.Exact, moment=a / k, formula=formula)

    moment = (((m + 2) * (n + 2) + m * n + 2) / 2 + k - 1) / k
    yield weights("Low rank, rank 2", "two-point", zo.LowRank(2), zo.TwoPoint, moment, "(A_2+K-1)/K", shape=square)

    many = {"samples": 2 * k, "replicates": REPLICATES // 10}  # one draw for each estimate
    add = partial(weights, "Coordinates, without replacement", probe=zo.Coordinate(), **many)
    g, shift, left = gradient(*flat), SIGMA * BEND / 2, d / (2 * k)
    size = g.square().sum().item()
    slope, moved = 1 + shift * g.sum().item() / size, (g + shift).square().sum().item() / size
    yield add("two-point", feedback=zo.TwoPoint, moment=left, formula="d/K")
    yield add("one-sided", feedback=zo.OneSided, moment=moved * left, formula="|g'|^2/|g|^2\\,d/K", slope=slope)
    yield add("exact slope", feedback=zo.Exact, moment=left, formula="d/K")


def comparisons() -> Iterator[Case]:
    """Gaussian noise on a linear function, where values are normal, so that what is only compared has a known mean.

    sigma = 1/|g|: the values have unit variance.
    """
    g, k = gradient(3, 4), SAMPLES
    d = g.numel()
    add = partial(weights, "Gaussian, comparisons", probe=zo.Gaussian(), sigma=1 / g.norm().item(), bend=0.0)
    label = "reward less the others' mean"
    yield add(label, feedback=zo.RewardPredictionError, moment=(d + k) / (k - 1), formula="(d+K)/(K-1)")
    label = "reward less a wrong mean"
    yield add(label, feedback=partial(expecting, 1.0), moment=(2 * d + k + 1) / k, formula="(2d+K+1)/K")

    chi = [math.sqrt(2 / k) * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2)) for n in (k, k - 1)]
    for label, antithetic, slope, less in (("z-scores of pairs", True, chi[0], 1), ("z-scores", False, chi[1], 2)):
        scores, tex = partial(zo.ZScores, antithetic=antithetic), f"(d+K-{less})/K"
        yield add(label, feedback=scores, slope=slope, moment=(d + k - less) / k, formula=tex)

    i = torch.arange(1, k + 1, dtype=torch.float64)
    utility = ((k / 2 + 1) / i).log().clamp(min=0)
    for label, feedback, w, half in (
        ("ranks of pairs", zo.Ranks, (i - 0.5) / (2 * k - 1), True),
        ("ranks", partial(zo.Ranks, antithetic=False), (i - 1) / (k - 1) - 0.5, False),
        ("utilities", zo.Utilities, 1 - k * utility / utility.sum(), False),
    ):
        mean, square = order_moments(w, half)
        moment = (square + (d - 1) * w.square().sum().item()) / k**2
        yield add(label, feedback=feedback, slope=mean / k, moment=moment, formula="(q+(d-1)|w|^2)/K^2")

    node, weight = np.polynomial.hermite_e.hermegauss(100)
    u, weight = math.sqrt(2) * node, weight / weight.sum()  # the difference of two values
    less = np.tanh(u / 2)  # half the first one's coefficient; the other's is its negative
    slope, moment = float(weight @ (u * less)), float(weight @ ((u * less) ** 2 + 2 * (d - 1) * less**2))
    formula = r"(q+(d-1)\E|c|^2)/K^2"
    yield add("fitness, K = 2", feedback=zo.Fitness, slope=slope, moment=moment, formula=formula, samples=2)


def expecting(value: float) -> zo.RewardPredictionError:
    feedback = zo.RewardPredictionError()
    feedback.expected = torch.tensor(value, dtype=torch.float64)
    return feedback


def order_moments(w: Tensor, half: bool) -> tuple[float, float]:
    """Mean and mean square of sum_i w_i t_(i), with t_(1) < ... < t_(n) normals in order, or sizes of normals (half).

    By Gauss's quadrature over the densities of one and of two order statistics.
    """
    n, law = len(w), stats.halfnorm if half else stats.norm
    low, high = 0.0 if half else -9.0, 9.0
    node, weight = ((v + c) / 2 for v, c in zip(np.polynomial.legendre.leggauss(120), (1, 0), strict=True))
    x, dx = low + (high - low) * node, (high - low) * weight
    y, dy = x[:, None] + (high - x)[:, None] * node, (high - x)[:, None] * weight  # above x
    fx, fy, below, above = law.pdf(x) * dx, law.pdf(y) * dy, law.cdf(x), law.sf(y)
    between = law.cdf(y) - below[:, None]

    def ways(*sizes: int) -> float:
        return math.factorial(n) / math.prod(math.factorial(size) for size in sizes)

    mean = square = 0.0
    for i in range(n):
        single = w[i].item() * ways(i, n - 1 - i) * below**i * law.sf(x) ** (n - 1 - i) * fx
        mean += (single * x).sum()
        square += w[i].item() * (single * x * x).sum()
        for j in range(i + 1, n):
            outer = (x * fx * below**i)[:, None] * y * fy * between ** (j - i - 1) * above ** (n - 1 - j)
            square += 2 * (w[i] * w[j]).item() * ways(i, j - i - 1, n - 1 - j) * outer.sum()
    return float(mean), float(square)


# -- noise on nodes ----------------------------------------------------------------------------------------------------


def on_nodes(probe, feedback, examples, replicates, seed):
    """Estimates of the columns of one linear layer whose inputs are unit vectors: each loss has columns of its own.

    One loss for each ``examples`` inputs.  A closure that returns a scalar must give what one that returns a batch of
    one loss gives.
    """
    g = gradient(examples, OUTPUTS)

    def estimates(losses: int, step: int, scalar: bool = False) -> Tensor:
        inputs = losses * examples
        layer = nn.Linear(inputs, OUTPUTS, bias=False, dtype=torch.float64)
        nn.init.zeros_(layer.weight)
        x = torch.eye(inputs, dtype=torch.float64).view(losses, examples, inputs)

        def closure() -> Tensor:
            a = layer(x)
            each = (g * a).sum(dim=(1, 2)) + BEND / 2 * a.square().sum(dim=(1, 2))
            return each.sum() if scalar else each

        settings = {"samples": 1, "sigma": SIGMA, "seed": seed, "step": step}
        [(_, columns)] = zo.estimate(closure, layer, probe=probe, feedback=feedback(), **settings).gradients()
        return losses * columns.T.reshape(losses, -1)  # the estimate is of the mean over losses

    losses = INPUTS // examples
    found = torch.cat([estimates(losses, step) for step in range(replicates // losses)])
    pairs = [(estimates(1, step), estimates(1, step, scalar=True)) for step in range(DOORS)]
    return found, g.flatten(), max(((a - b).norm() / a.norm()).item() for a, b in pairs)


def layer(
    group: str,
    label: str,
    probe: Probe,
    feedback: Callable[[], Feedback],
    moment: float,
    formula: str,
    examples: int = 1,
    replicates: int = 2 * REPLICATES,
) -> Case:
    estimates = partial(on_nodes, probe, feedback, examples)
    return Case(group, label, 1, replicates, 1.0, moment, formula, estimates)


def nodes() -> Iterator[Case]:
    """One sample; M outputs, or B M of those examples that share a loss."""
    for examples, where, tex in ((1, "one loss each", "M"), (SHARED, "one loss for B", "BM")):
        n, replicates = examples * OUTPUTS, REPLICATES if examples > 1 else 2 * REPLICATES
        rho = (SIGMA * BEND) ** 2 / (4 * gradient(n).square().sum().item())
        for words, law, a, tex_a, s in (
            ("Gaussian", "gaussian", n + 2, f"{tex}+2", n * (n + 2) * (n + 4)),
            ("signs", "rademacher", n, tex, n**3),
        ):
            add = partial(
                layer, f"Nodes, {words}, {where}", probe=zo.Nodes(law), examples=examples, replicates=replicates
            )
            yield add("two-point", feedback=zo.TwoPoint, moment=a, formula=tex_a)
            yield add("one-sided", feedback=zo.OneSided, moment=a + rho * s, formula=rf"{tex_a}+\rho S")
            yield add("exact slope", feedback=zo.Exact, moment=a, formula=tex_a)


def activities() -> Iterator[Case]:
    """The published rule on a single layer, where its mean is the gradient."""
    m = OUTPUTS
    rho = (SIGMA * BEND) ** 2 / (4 * gradient(m).square().sum().item())
    add = partial(layer, "Activities, Gaussian, one loss each", probe=zo.Activities())
    yield add("against a clean pass", feedback=zo.OneSided, moment=m + rho * m**3, formula=r"M+\rho M^3")
    yield add("two noisy passes", feedback=zo.TwoPoint, moment=m + 2 * rho * m**2, formula=r"M+2\rho M^2")


def certain() -> Iterator[Case]:
    """What has the gradient for an estimate, and no variance."""
    d, group = 12, "No chance left"
    add = partial(weights, group, feedback=zo.TwoPoint, moment=1.0, formula="1", samples=d, replicates=10 * DOORS)
    yield add("coordinates, two-point, K = d", probe=zo.Coordinate())
    yield add("orthogonal, two-point, K = d", probe=zo.Orthogonal(d))
    yield layer(group, "backpropagation", zo.Backpropagation(), zo.Exact, 1.0, "1", replicates=INPUTS)
