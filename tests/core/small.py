"""A small problem for MeZO, and what the tests of it share."""

import torch
from torch import nn
from torch.nn import functional as F

import zolib as zo


def build(generator):
    """A net of 58 weights, and a function (net, step) -> loss in float32 at least."""
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    x = torch.randn(5, 16, 4, generator=generator)

    def loss(net, step):
        out = net(x[step % 5].to(net[0].weight.dtype))
        return F.cross_entropy(out.to(torch.promote_types(out.dtype, torch.float32)), (x[step % 5, :, 0] > 0).long())

    return net, loss


def train(net, loss, steps, **settings):
    """MeZO on it, up to that many steps."""
    opt = zo.MeZO(net, **{"lr": 0.05, "seed": 3, **settings})
    while opt.steps < steps:
        opt.step(lambda: loss(net, opt.steps))
    return opt


def journaled(net, loss, path, steps, **settings):
    """The same with a journal, closed at the end."""
    with zo.Journal(path, **{k: settings.pop(k) for k in ("snapshot", "sync") if k in settings}) as journal:
        return train(net, loss, steps, journal=journal, **settings)


def bits(net):
    return b"".join(p.detach().clone().view(torch.uint8).numpy().tobytes() for p in net.parameters())
