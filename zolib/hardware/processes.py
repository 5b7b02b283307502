"""Random processes in time, exact at any step: a step of a and a step of b are a step of a + b.

Each is stationary with mean 0, holds the state of many independent copies in a buffer, and starts from its stationary
law.  Noise of a time constant longer than what lies between two reads is the same in both, and cancels in their
difference; this needs trajectories, not fresh samples of the right variance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from zolib.hardware.stage import number

_BLOCK = 256  # rows of a path made at once


class Process(nn.Module):
    """What a process answers.  Times in seconds; values in the unit of the stage that uses it."""

    def start(self, shape: Sequence[int], like: Tensor, generator: Generator) -> None:
        """Independent copies, drawn from the stationary law."""
        raise NotImplementedError

    def value(self) -> Tensor:
        """Where they are, of the shape they were started with."""
        raise NotImplementedError

    def advance(self, seconds: float, generator: Generator) -> None:
        """Move on."""
        raise NotImplementedError

    def path(self, rows: int, seconds: float, generator: Generator) -> Tensor:
        """Values now and at times ``seconds`` apart, (rows, *shape), a new tensor.  Moves on to the last."""
        values = [self.value().clone()]
        for _ in range(rows - 1):
            self.advance(seconds, generator)
            values.append(self.value().clone())
        return torch.stack(values)

    def autocovariance(self, lag: float) -> float:
        """E[x(t) x(t + lag)]."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in vars(self).items() if k[0] != "_" and k != "training")


class OrnsteinUhlenbeck(Process):
    r"""Gaussian noise with an exponential memory.

    .. math:: x(t + \Delta) = x(t)\,e^{-\Delta/\tau} + \sigma\sqrt{1 - e^{-2\Delta/\tau}}\,\xi, \qquad
              \mathbb E[x(t)x(t + \Delta)] = \sigma^2 e^{-|\Delta|/\tau}

    Args:
        sd: :math:`\sigma`, standard deviation.
        tau: :math:`\tau`, seconds.
    """

    state: Tensor

    def __init__(self, sd: float, tau: float):
        super().__init__()
        self.sd, self.tau = number("sd", sd), number("tau", tau, above=True)

    def start(self, shape, like, generator):
        self.register_buffer("state", self.sd * _normal(shape, like, generator))

    def value(self):
        return self.state

    def advance(self, seconds, generator):
        keep = math.exp(-seconds / self.tau)
        fresh = _normal(self.state.shape, self.state, generator)
        self.state.mul_(keep).add_(fresh, alpha=self.sd * math.sqrt(-math.expm1(-2 * seconds / self.tau)))

    def path(self, rows, seconds, generator):
        """All rows of a block are one product with a triangular matrix of powers of the memory of one step."""
        keep, blocks = math.exp(-seconds / self.tau), [self.state.clone().unsqueeze(0)]
        fresh_sd = self.sd * math.sqrt(-math.expm1(-2 * seconds / self.tau))
        for first in range(1, rows, _BLOCK):
            n = min(_BLOCK, rows - first)
            i = torch.arange(n, device=self.state.device)
            power = (i.unsqueeze(1) - i).to(self.state.dtype)
            memory = torch.where(power >= 0, keep**power, 0.0)  # (n, n)
            fresh = fresh_sd * _normal((n, *self.state.shape), self.state, generator)
            decay = (keep ** (i + 1).to(self.state.dtype)).view(-1, *[1] * self.state.ndim)
            blocks.append(torch.tensordot(memory, fresh, dims=1) + decay * self.state)
            self.state.copy_(blocks[-1][-1])
        return torch.cat(blocks)

    def autocovariance(self, lag):
        return self.sd**2 * math.exp(-abs(lag) / self.tau)


class Telegraph(Process):
    r"""Random telegraph noise: two states :math:`\pm a`, left for the other at rate :math:`\lambda`.

    .. math:: P(\text{flipped after } \Delta) = \tfrac12 (1 - e^{-2\lambda\Delta}), \qquad
              \mathbb E[x(t)x(t + \Delta)] = a^2 e^{-2\lambda|\Delta|}

    Args:
        amplitude: a, half the distance of the two states.
        rate: :math:`\lambda`, flips per second in either direction.
    """

    state: Tensor

    def __init__(self, amplitude: float, rate: float):
        super().__init__()
        self.amplitude, self.rate = number("amplitude", amplitude), number("rate", rate)

    @classmethod
    def sampled(cls, amplitude: float, flip: float, seconds: float) -> Telegraph:
        """The process that, looked at every ``seconds``, has flipped with probability ``flip`` < 1/2."""
        flip = number("flip", flip, high=0.4999999)
        return cls(amplitude, -math.log1p(-2 * flip) / (2 * number("seconds", seconds, above=True)))

    def start(self, shape, like, generator):
        self.register_buffer("state", _flips(0.5, shape, like, generator))

    def value(self):
        return self.amplitude * self.state

    def _flip(self, seconds: float) -> float:
        return -0.5 * math.expm1(-2 * self.rate * seconds)

    def advance(self, seconds, generator):
        self.state.mul_(_flips(self._flip(seconds), self.state.shape, self.state, generator))

    def path(self, rows, seconds, generator):
        signs = _flips(self._flip(seconds), (rows, *self.state.shape), self.state, generator)
        signs[0] = self.state
        step = 1
        while step < rows:  # products of 2, 4, 8, ... signs: exact, and cumprod goes along each column by itself
            signs[step:] = signs[step:] * signs[:-step]
            step *= 2
        self.state.copy_(signs[-1])
        return signs.mul_(self.amplitude)

    def autocovariance(self, lag):
        return self.amplitude**2 * math.exp(-2 * self.rate * abs(lag))


class Flicker(Process):
    r"""1/f noise, as a sum of telegraph noises whose rates are spread evenly on a logarithmic scale (McWhorter 1955).

    .. math:: S(f) \approx \frac{q^2}{f} \quad \text{for } \frac{1}{T_{slow}} \ll 2\pi f \ll \frac{1}{T_{fast}}, \qquad
              \sigma^2 = q^2 \ln\frac{T_{slow}}{T_{fast}}

    S is the one-sided power spectral density of the relative value.  Each of the telegraphs has correlation time
    :math:`1/2\lambda` between the two limits, and variance :math:`q^2` per unit of :math:`\ln\lambda`.

    Args:
        q: :math:`\sqrt{S f}`.
        fastest, slowest: :math:`T_{fast}, T_{slow}`, seconds.
        per_decade: How many telegraphs for each factor of ten; 1 makes ripples of a few per cent in :math:`f S(f)`.
    """

    def __init__(self, q: float, fastest: float = 1e-6, slowest: float = 1e4, per_decade: int = 1):
        super().__init__()
        self.q, self.fastest = number("q", q), number("fastest", fastest, above=True)
        self.slowest = number("slowest", slowest, low=self.fastest, above=True)
        self.per_decade = int(number("per_decade", per_decade, low=1))
        span = math.log(self.slowest / self.fastest)
        n = math.ceil(span / math.log(10) * self.per_decade - 1e-9)
        times = [self.fastest * math.exp(span * (i + 0.5) / n) for i in range(n)]
        self._parts = nn.ModuleList(Telegraph(self.q * math.sqrt(span / n), 0.5 / t) for t in times)

    def start(self, shape, like, generator):
        for part in self._parts:
            part.start(shape, like, generator)

    def value(self):
        return sum(part.value() for part in self._parts)

    def advance(self, seconds, generator):
        for part in self._parts:
            part.advance(seconds, generator)

    def path(self, rows, seconds, generator):
        return sum(part.path(rows, seconds, generator) for part in self._parts)

    def autocovariance(self, lag):
        return sum(part.autocovariance(lag) for part in self._parts)

    def spectrum(self, f: float) -> float:
        """One-sided power spectral density at f (Hz), in 1/Hz: sum of 4 a^2 tau / (1 + (2 pi f tau)^2)."""
        taus = [(part.amplitude**2, 0.5 / part.rate) for part in self._parts]
        return sum(4 * a2 * tau / (1 + (2 * math.pi * f * tau) ** 2) for a2, tau in taus)


def _normal(shape: Sequence[int], like: Tensor, generator: Generator) -> Tensor:
    return torch.randn(tuple(shape), generator=generator, dtype=like.dtype, device=like.device)


def _flips(p: float, shape: Sequence[int], like: Tensor, generator: Generator) -> Tensor:
    """-1 with probability p, else +1."""
    u = torch.rand(tuple(shape), generator=generator, dtype=torch.float32, device=like.device)
    return u.ge_(p).mul_(2.0).sub_(1.0).to(like.dtype)
