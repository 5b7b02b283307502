"""Fused modules, opened, are the same functions, and every pre-activation in them is found."""

import pytest
import torch
from node_nets import estimate, start
from torch import nn

import zolib as zo
from zolib.errors import ParameterError
from zolib.nodes import Nodes
from zolib.noise.opened import OPENED


def _same(a, b):
    if isinstance(a, tuple):
        return all(_same(i, j) for i, j in zip(a, b, strict=True))
    return (a is None and b is None) or torch.allclose(a, b, atol=1e-6, rtol=1e-6)


FUSED = {
    f"{kind.__name__}-{i}": (lambda kind=kind, s=s: kind(3, 4, **s), lambda g: (torch.randn(5, 2, 3, generator=g),))
    for kind in (nn.RNN, nn.LSTM, nn.GRU)
    for i, s in enumerate(
        [{}, {"bias": False}, {"num_layers": 2, "bidirectional": True}, {"batch_first": True, "num_layers": 3}]
    )
}
FUSED["RNN-relu"] = (lambda: nn.RNN(3, 4, nonlinearity="relu"), lambda g: (torch.randn(5, 2, 3, generator=g),))
FUSED["LSTM-projected"] = (
    lambda: nn.LSTM(3, 4, proj_size=2, num_layers=2, bidirectional=True),
    lambda g: (torch.randn(5, 2, 3, generator=g),),
)
FUSED["LSTM-unbatched"] = (lambda: nn.LSTM(3, 4), lambda g: (torch.randn(5, 3, generator=g),))
FUSED |= {
    f"{kind.__name__}-{s}": (lambda kind=kind, s=s: kind(3, 4, **s), lambda g: (torch.randn(2, 3, generator=g),))
    for kind in (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
    for s in ({}, {"bias": False})
}


def _masks(g):
    x = torch.randn(5, 2, 4, generator=g)
    return (x, x, x, torch.tensor([[False] * 5, [False] * 3 + [True] * 2]), True, torch.ones(5, 5).triu(1).bool())


FUSED |= {
    "attention": (lambda: nn.MultiheadAttention(4, 2), lambda g: (torch.randn(5, 2, 4, generator=g),) * 3),
    "attention-masks": (lambda: nn.MultiheadAttention(4, 2), _masks),
    "attention-float-mask": (
        lambda: nn.MultiheadAttention(4, 2, bias=False),
        lambda g: (*(torch.randn(5, 2, 4, generator=g),) * 3, None, False, torch.randn(4, 5, 5, generator=g)),
    ),
    "attention-other-sizes": (
        lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5),
        lambda g: tuple(torch.randn(n, 2, size, generator=g) for n, size in [(4, 4), (6, 3), (6, 5)]),
    ),
    "attention-unbatched": (lambda: nn.MultiheadAttention(4, 2), lambda g: (torch.randn(5, 4, generator=g),) * 3),
    "attention-all-heads": (
        lambda: nn.MultiheadAttention(4, 2),
        lambda g: (*(torch.randn(5, 2, 4, generator=g),) * 3, None, True, None, False),
    ),
}


@pytest.mark.parametrize("name", FUSED)
def test_opened_modules_equal_the_fused_ones(name, generator):
    make, arguments = FUSED[name]
    module, inputs = make(), arguments(generator)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
        fused = module(*inputs)
        opened = []
        experiment = start(lambda: opened.append(module(*inputs)) or torch.as_tensor(0.0), module, Nodes())
        sites, _ = experiment._run(lambda site, a: a)
    assert sites and _same(opened[0], fused)


def test_the_table_has_every_recurrent_module_and_attention():
    assert {module for _, _, module in OPENED.values()} == {
        "RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell", "MultiheadAttention",
    }  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_a_transformer_layer_is_opened_and_its_gains_are_named(training, generator):
    net = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True).train(training)
    x = torch.randn(2, 3, 4, generator=generator)

    def closure():
        return net(x).square().flatten(1).sum(dim=1)

    with pytest.raises(ParameterError, match=r"norm1\.weight.*layer_norm.*unused='skip'"):
        estimate(closure, net, Nodes(), zo.TwoPoint())
    e = estimate(closure, net, Nodes(), zo.TwoPoint(), unused="skip")
    reached = {name for name, p in net.named_parameters() if any(p is q for q, _ in e.pairs)}
    assert reached == {name for name, _ in net.named_parameters() if "norm" not in name}
