"""Modules that are hard to probe from outside.  Each entry: a function (generator) -> (module, closure).

The closure returns a float32 scalar.  What makes each one hard is in its name.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

HOSTILE = {}


def hostile(build):
    HOSTILE[build.__name__] = build
    return build


def _fill(module, generator):
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    return module


def _over(module, generator, *shape):
    """A closure: the mean of a module's outputs, after a tanh so that nothing is linear."""
    _fill(module, generator)
    x = torch.randn(shape, generator=generator)

    def closure():
        out = module(x)
        while isinstance(out, tuple):
            out = out[0]
        return torch.tanh(out).square().mean() + out.mean()

    return module, closure


class Forward(nn.Module):
    """A square weight and a forward pass given as a function of (module, x)."""

    def __init__(self, forward, size=4):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size, size))
        self._forward = forward

    def forward(self, x):
        return self._forward(self, x)


@hostile
def mlp(g):
    return _over(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)), g, 3, 4)


@hostile
def convolutions(g):
    return _over(nn.Sequential(nn.Conv1d(2, 3, 3, padding=1), nn.GELU(), nn.ConvTranspose1d(3, 2, 3)), g, 2, 2, 6)


@hostile
def convolution_channels_last(g):
    return _over(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), g, 2, 3, 5, 5)


@hostile
def lstm(g):
    return _over(nn.LSTM(4, 3, num_layers=2, bidirectional=True, batch_first=True), g, 2, 5, 4)


@hostile
def gru(g):
    return _over(nn.GRU(4, 3, batch_first=True), g, 2, 5, 4)


@hostile
def rnn(g):
    return _over(nn.RNN(4, 3, batch_first=True), g, 2, 5, 4)


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(4, 3)

    def forward(self, x):
        state = None
        for row in x:
            state = self.cell(row, state)
        return state[0]


@hostile
def recurrent_cell_used_many_times(g):
    return _over(Cell(), g, 6, 2, 4)


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


@hostile
def attention(g):
    return _over(SelfAttention(), g, 2, 5, 8)


@hostile
def attention_in_eval_mode(g):
    return _over(SelfAttention().eval(), g, 2, 5, 8)


@hostile
def transformer_layer(g):
    return _over(nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), g, 2, 5, 8)


@hostile
def transformer_layer_fast_path(g):
    return _over(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval(), g, 2, 5, 8)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.decoder = nn.Linear(4, 7, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, x):
        return self.decoder(torch.tanh(self.embedding(x.abs().mul(2).long().clamp(max=6))))


@hostile
def tied_embedding(g):
    return _over(Tied(), g, 2, 5)


class Bounded(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4, max_norm=0.5)

    def forward(self, x):
        return self.embedding(x.abs().mul(2).long().clamp(max=6))


@hostile
def embedding_with_max_norm(g):
    return _over(Bounded(), g, 2, 5)


@hostile
def transpose_property(g):
    return _over(Forward(lambda m, x: x @ m.weight.T + x @ m.weight.mT), g, 3, 4)


@hostile
def data_attribute(g):
    return _over(Forward(lambda m, x: x @ m.weight.data), g, 3, 4)


@hostile
def detached(g):
    return _over(Forward(lambda m, x: x @ m.weight.detach()), g, 3, 4)


@hostile
def indexed_and_viewed(g):
    return _over(Forward(lambda m, x: x[:, :2] @ m.weight[1:3] + m.weight.view(-1)[::4]), g, 3, 4)


@hostile
def in_lists_and_keywords(g):
    def forward(m, x):
        return F.linear(input=x, weight=torch.cat([m.weight, torch.stack(list(m.weight))])) + torch.einsum(
            "bi,ij->b", x, m.weight
        ).unsqueeze(1)

    return _over(Forward(forward), g, 3, 4)


@hostile
def raw_operators(g):
    return _over(Forward(lambda m, x: torch.ops.aten.mm.default(x, m.weight) + torch.ops.aten.mm(x, m.weight)), g, 3, 4)


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        return x @ (w * w)

    @staticmethod
    def backward(ctx, g):
        raise NotImplementedError


@hostile
def custom_function_without_a_backward(g):
    return _over(Forward(lambda m, x: Square.apply(x, m.weight)), g, 3, 4)


@hostile
def vectorised_map(g):
    return _over(Forward(lambda m, x: torch.func.vmap(lambda row: m.weight @ row)(x)), g, 3, 4)


@hostile
def through_numpy(g):
    return _over(Forward(lambda m, x: x @ torch.from_numpy(m.weight.detach().numpy() * 2)), g, 3, 4)


@hostile
def a_new_parameter_from_an_old_one(g):
    return _over(Forward(lambda m, x: x @ nn.Parameter(m.weight * 2)), g, 3, 4)


@hostile
def checkpointed(g):
    inner = nn.Linear(4, 4)
    module = nn.Sequential(inner, nn.Tanh())
    _, _ = _over(module, g, 3, 4)
    x = torch.randn(3, 4, generator=g, requires_grad=True)
    return module, lambda: checkpoint(module, x, use_reentrant=False).mean()


@hostile
def weight_norm(g):
    return _over(parametrizations.weight_norm(nn.Linear(4, 3)), g, 3, 4)


@hostile
def orthogonal(g):
    return _over(parametrizations.orthogonal(nn.Linear(4, 4)), g, 3, 4)


@hostile
def group_and_layer_norm(g):
    return _over(nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.GroupNorm(2, 6)), g, 3, 4)


@hostile
def batch_norm_in_training(g):
    return _over(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh()), g, 5, 4)


@hostile
def dropout_in_training(g):
    return _over(nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 2)), g, 5, 4)


@hostile
def parameter_containers(g):
    class Bag(nn.Module):
        def __init__(self):
            super().__init__()
            self.list = nn.ParameterList([torch.zeros(4, 4), torch.zeros(4)])
            self.dict = nn.ParameterDict({"a": torch.zeros(4)})

        def forward(self, x):
            return x @ self.list[0] + self.list[1] * self.dict["a"]

    return _over(Bag(), g, 3, 4)


@hostile
def scalar_and_empty_parameters(g):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.empty = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.zeros(0, 4))

        def forward(self, x):
            return torch.cat([x * self.scale, self.empty])

    return _over(Odd(), g, 3, 4)
