"""Networks for the tests of node noise, and the loop that runs an experiment on them."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from zolib.subject import Subject, quiet_torch


def run(experiment, feedback, sigma=1e-3):
    """The estimate of one step: all evaluations, then the slopes."""
    with quiet_torch():
        if getattr(feedback, "exact", False):
            return experiment.estimate(torch.stack([experiment.slope(k)[1] for k in range(experiment.samples)]))
        state, rows = experiment.state(), []
        for k in range(experiment.samples):
            for sign in feedback.signs:
                rows.append(experiment.evaluate(k, sign * sigma))
                state.restore()
        clean = experiment.evaluate(None, 0.0).double() if feedback.clean else None
        losses = torch.stack(rows).double()
        losses = losses.view(experiment.samples, len(feedback.signs), *losses.shape[1:])
        return experiment.estimate(feedback.coefficients(losses, clean, sigma))


def start(closure, model, probe, seed=0, step=0, samples=1, unused="raise"):
    return probe.experiment(Subject(closure, model, type(probe).__name__), seed, step, samples, unused)


def estimate(closure, model, probe, feedback, sigma=1e-3, **settings):
    return run(start(closure, model, probe, **settings), feedback, sigma)


class OneHot:
    """In place of random noise: unit k of all that are shaken, so that all samples together leave no chance.

    With one loss per example (``one_each``), unit k of every example.
    """

    def __init__(self, experiment, one_each):
        with quiet_torch():
            self.sites, loss = experiment._run(lambda site, a: a)
        self.one_each = one_each
        self.offsets, self.units = [], 0
        for site in self.sites:
            self.offsets.append(self.units)
            self.units += math.prod(site.shape) // (len(loss) if one_each else 1)

    def __call__(self, site, k, second=0):
        z = torch.zeros(site.shape)
        # in a run only the dry one before it knows every batch axis
        rows = z.transpose(0, self.sites[site.index].axis).flatten(1) if self.one_each else z.view(1, -1)
        place = k - self.offsets[site.index]
        if 0 <= place < rows.shape[1]:
            rows = torch.zeros(rows.shape)
            rows[:, place] = 1.0
        if not self.one_each:
            return rows.view(site.shape)
        axis = self.sites[site.index].axis
        moved = list(site.shape)
        moved[0], moved[axis] = moved[axis], moved[0]
        return rows.view(moved).transpose(0, axis)


class Recurrent(nn.Module):
    def __init__(self, kind, **settings):
        super().__init__()
        self.inner, self.outer = kind(3, 4, **settings), nn.Linear(4 * (1 + settings.get("bidirectional", 0)), 2)

    def forward(self, x):
        return self.outer(self.inner(x)[0])


class Cells(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cell = kind(3, 4)

    def forward(self, x):
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return state[0] if isinstance(state, tuple) else state


class Attention(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True, **settings)

    def forward(self, x):
        x = F.pad(x, (0, 1), value=0.5)
        mask = torch.zeros(x.shape[:2], dtype=torch.bool)
        mask[0, -1] = True
        return self.attention(x, x, x, need_weights=False, key_padding_mask=mask)[0]


class Functional(nn.Module):
    """No modules inside: products, a bias added on its own, a weight used twice, one made of others."""

    def __init__(self):
        super().__init__()
        shapes = {"w": (3, 3), "b": (3,), "left": (2, 1), "right": (1, 3), "scale": (2, 1)}
        self.weights = nn.ParameterDict({name: torch.zeros(shape) for name, shape in shapes.items()})
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0]))

    def forward(self, x):
        p = self.weights
        h = torch.tanh(x @ p["w"].T + p["b"])
        h = torch.tanh(torch.einsum("...i,ij->...j", h, p["w"] * self.mask))
        return F.linear(h, p["scale"] * (p["left"] @ p["right"]))


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.bilinear = nn.Bilinear(3, 3, 2)

    def forward(self, x):
        return self.bilinear(x, torch.tanh(x))


NETS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), (3, 3)),
    "functional": (Functional, (3, 3)),
    "bilinear": (Pair, (3, 3)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 3, 2), nn.Tanh(), nn.ConvTranspose2d(3, 2, 2, bias=False), nn.Flatten(), nn.Linear(18, 2)
        ),
        (3, 2, 3, 3),
    ),
    "cnn-1d": (lambda: nn.Sequential(nn.Conv1d(2, 4, 2, groups=2), nn.Tanh(), nn.ConvTranspose1d(4, 1, 2)), (3, 2, 4)),
    "cnn-3d": (lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.Tanh(), nn.ConvTranspose3d(2, 1, 2)), (2, 1, 2, 3, 2)),
    "rnn": (lambda: Recurrent(nn.RNN, batch_first=True, nonlinearity="tanh"), (2, 3, 3)),
    "lstm": (lambda: Recurrent(nn.LSTM, batch_first=True), (2, 3, 3)),
    "lstm-deep": (lambda: Recurrent(nn.LSTM, batch_first=True, num_layers=2, bidirectional=True), (2, 2, 3)),
    "gru": (lambda: Recurrent(nn.GRU, batch_first=True, bias=False), (2, 3, 3)),
    "gru-deep": (lambda: Recurrent(nn.GRU, batch_first=True, num_layers=2, bidirectional=True), (2, 2, 3)),
    "rnn-cell": (lambda: Cells(nn.RNNCell), (2, 3, 3)),
    "lstm-cell": (lambda: Cells(nn.LSTMCell), (2, 3, 3)),
    "gru-cell": (lambda: Cells(nn.GRUCell), (2, 3, 3)),
    "attention": (Attention, (2, 3, 3)),
    "attention-without-bias": (lambda: Attention(bias=False), (2, 3, 3)),
    "weight-norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), (3, 3)),
}


def build(name, generator, one_each, dtype=torch.float64):
    """(module, closure, true gradients): filled at random, with a loss that is curved and mixes all outputs."""
    make, shape = NETS[name]
    net = make().to(dtype)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.5)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    mix = torch.randn(net(x).shape, generator=generator, dtype=torch.float64).to(dtype)

    def closure():
        out = net(x)
        losses = (mix * torch.sin(out) + 0.2 * out.square()).flatten(1).sum(dim=1)
        return losses if one_each else losses.mean()

    true = torch.autograd.grad(closure().mean(), list(net.parameters()), allow_unused=True)
    return net, closure, true
