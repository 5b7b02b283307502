"""What node noise cannot do is refused, with the name of what stands in the way."""

import pytest
import torch
from node_nets import Attention, estimate, start
from torch import nn
from torch.nn import functional as F

import zolib as zo
from zolib.errors import LossError, ParameterError
from zolib.nodes import Activities, Nodes

X = torch.linspace(-1, 1, 12).view(4, 3)


def refused(error, message, net, closure, probe=None, **settings):
    with pytest.raises(error, match=message):
        estimate(closure, net, probe or Nodes(), zo.TwoPoint(), **settings)


def test_bare_tensors_are_refused():
    for probe in (Nodes(), Activities()):
        with pytest.raises(TypeError, match="bare tensors"):
            zo.grad(lambda x: (x**2).sum(), probe=probe)(torch.ones(3))
    w = nn.Parameter(torch.ones(3))
    refused(ParameterError, "node noise does not reach parameter 'model\\[0\\]'", [w], lambda: (w * 2).sum())
    refused(ParameterError, "reaches none of the parameters", [w], lambda: (w * 2).sum(), unused="skip")
    refused(ParameterError, "no linear map consumed parameter 'weight'", nn.Linear(3, 2), lambda: X.sum())


def test_batch_norm_in_training_couples_examples(generator):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, affine=False), nn.Linear(4, 1))
    refused(LossError, "BatchNorm1d", net, lambda: net(X).squeeze(1).square())
    functional = nn.Linear(3, 4)
    closure = lambda: F.batch_norm(functional(X), None, None, training=True).square().sum(dim=1)  # noqa: E731
    refused(LossError, "batch_norm in training mode", functional, closure)
    estimate(lambda: net(X).square().mean(), net, Nodes(), zo.TwoPoint())  # a scalar is welcome
    net.eval()
    estimate(lambda: net(X).squeeze(1).square(), net, Nodes(), zo.TwoPoint())


def test_losses_that_fit_no_axis():
    net = nn.Linear(3, 2)
    refused(LossError, r"shape \(4, 2\).*batch_dim=0", net, lambda: torch.ones(3) * net(X).sum())
    refused(LossError, r"batch_dim=1", net, lambda: net(X).sum(dim=1), Nodes(batch_dim=1))
    refused(LossError, r"batch_dim=5", net, lambda: net(X).sum(dim=1), Nodes(batch_dim=5))
    refused(LossError, r"shape \(4, 2\)", net, lambda: net(X))
    refused(LossError, "half|float16", net, lambda: net(X).sum(dim=1).half())
    estimate(lambda: net(X.T.reshape(3, 4).T).sum(dim=-1), net, Nodes(batch_dim=-2), zo.TwoPoint())


def test_parameters_that_no_noise_reaches():
    net = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 1))
    refused(ParameterError, "'1.weight'.*layer_norm", net, lambda: net(X).sum())
    tied = nn.Embedding(5, 3)
    ids = torch.arange(4)
    refused(ParameterError, "'weight'.*embedding", tied, lambda: F.linear(tied(ids), tied.weight).sum())
    scaled = nn.ParameterDict({"w": torch.ones(3, 3), "gain": torch.ones(3)})
    closure = lambda: F.linear(X * scaled["gain"], scaled["w"]).sum()  # noqa: E731
    refused(ParameterError, "'gain'.*linear", scaled, closure)
    e = estimate(closure, scaled, Nodes(), zo.TwoPoint(), unused="skip")
    assert [p is scaled["w"] for p, _ in e.pairs] == [True]
    detached = nn.Linear(3, 1, bias=False)
    assert len(estimate(lambda: (X @ detached.weight.detach().T).sum(), detached, Nodes(), zo.TwoPoint()).pairs) == 1
    decay = nn.Linear(3, 1)
    refused(ParameterError, "the loss itself", decay, lambda: decay(X).sum() + decay.weight.square().sum())
    learned = nn.ParameterDict({"h": torch.zeros(1, 4, 3)})
    both = nn.ModuleList([nn.GRU(3, 3, batch_first=True), learned])
    refused(ParameterError, "'1.h'.*gru", both, lambda: both[0](X.view(4, 1, 3), learned["h"])[0].sum())


def test_modules_that_share_an_output_tensor():
    """Two layers that write to one place: neither has a pre-activation of its own."""
    weights = [nn.Parameter(torch.ones(3, 2)) for _ in range(2)]
    shared = torch.zeros(4, 2)

    def closure():
        return sum(torch.mm(X, w, out=shared).sum() for w in weights)

    refused(ParameterError, "out=", weights, closure)


def test_what_cannot_be_opened():
    lstm = nn.LSTM(3, 2)
    packed = nn.utils.rnn.pack_padded_sequence(torch.ones(3, 2, 3), torch.tensor([3, 1]))
    refused(ParameterError, "LSTM on a packed sequence", lstm, lambda: lstm(packed)[0].data.sum())
    odd = nn.MultiheadAttention(4, 2, add_bias_kv=True)
    x = torch.ones(3, 2, 4)
    refused(ParameterError, "bias_k, bias_v", odd, lambda: odd(x, x, x)[0].sum())
    mapped = nn.Linear(3, 2)
    refused(ParameterError, "vmap", mapped, lambda: torch.func.vmap(mapped)(X).sum())
    native = Attention().attention

    def closure():
        return torch._native_multi_head_attention(
            x, x, x, 4, 2, native.in_proj_weight, native.in_proj_bias, native.out_proj.weight, native.out_proj.bias
        )[0].sum()

    refused(ParameterError, "_native_multi_head_attention", native, closure)


def test_settings_are_checked():
    with pytest.raises(ValueError, match="gaussian.*rademacher"):
        Nodes("uniform")
    with pytest.raises(TypeError, match="batch_dim"):
        Nodes(batch_dim="first")
    with pytest.raises(ValueError, match="scaling"):
        Activities("local")
    net = nn.Linear(3, 1)
    with pytest.raises(ValueError, match="chunk"):
        start(lambda: net(X).sum(), net, Nodes(), samples=2).evaluate_together([(0, 1e-3), (1, 1e-3)])
