"""MeZO gives the same bits wherever it runs, at the memory of inference."""

import copy
import os
import threading

import pytest
import torch
from small import bits, build, train
from torch import nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile

import zolib as zo
from zolib.noise import backend, fused

law = pytest.mark.parametrize("probe", ["rademacher", "gaussian"])


@pytest.fixture
def problem(generator):
    return build(generator)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_thousand_steps_of_no_length_change_no_bit(problem, dtype, monkeypatch):
    net, _ = problem
    net.to(dtype)
    before = bits(net)
    x = torch.ones(2, 4, dtype=dtype)
    calls = []
    update = fused.update_
    monkeypatch.setattr(fused, "update_", lambda *args: calls.append(0) or update(*args))
    for lr, steps in ((0.0, 1000), (1e-30, 200)):  # the second is lost in rounding, but is added
        opt = zo.MeZO(net, lr=lr, sigma=1e-2)
        for _ in range(steps):
            opt.step(lambda: net(x).float().square().mean())
        assert bits(net) == before
    assert len(calls) == 4 * 1200


@law
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kernels_threads_and_a_fork_change_no_bit(problem, probe, dtype):
    net, loss = problem
    nets = [copy.deepcopy(net).to(dtype) for _ in range(6)]
    settings = {"probe": probe, "samples": 2, "momentum": 0.5, "sigma": 1e-2}
    train(nets[0], loss, 100, **settings)
    with backend.reference():
        train(nets[1], loss, 100, **settings)
    threads = [threading.Thread(target=train, args=(n, loss, 100), kwargs=settings) for n in nets[2:5]]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    expected = bits(nets[0])
    assert [bits(n) == expected for n in nets] == [True] * 5 + [False]
    assert torch._dynamo.eval_frame._stance.stance == "default"
    child = os.fork()
    if not child:
        try:
            train(nets[5], loss, 100, **settings)
            os._exit(0 if bits(nets[5]) == expected else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_half_precision_moves_as_far_as_it_should_on_average(seed, half_width):
    """Rounding bits that the slope knows too would make the mean step more than twice as long."""
    lr, steps, moved = 2e-5, 200, []
    for run in range(12):
        p = nn.Parameter(torch.ones(64, dtype=torch.bfloat16))
        opt = zo.MeZO([p], lr=lr, sigma=1e-3, seed=seed + run)
        for _ in range(steps):
            opt.step(lambda p=p: p.float().sum())  # its gradient is 1 everywhere
        moved.append((1 - p.detach().float().mean()) / (lr * steps))
    moved = torch.stack(moved).unsqueeze(1)
    assert (moved.mean() - 1).abs() < half_width(moved, 1) < 1


# Memory


class Wide(nn.Module):
    """Layers of 4 MiB between small activations; attention is one operation with weights of 4 MiB together."""

    def __init__(self, tied):
        super().__init__()
        self.embedding = nn.Embedding(2048, 512)
        self.head = nn.Linear(512, 2048, bias=False)
        if tied:
            self.head.weight = self.embedding.weight
        self.attention = nn.MultiheadAttention(512, 4, batch_first=True)
        self.layers = nn.ModuleList(nn.Linear(512, 2048) if i % 2 == 0 else nn.Linear(2048, 512) for i in range(6))

    def forward(self, x):
        h = self.embedding(x)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        for up, down in zip(self.layers[::2], self.layers[1::2], strict=True):
            h = h + down(F.gelu(up(h)))
        return self.head(h).square().mean()


def peak(f):
    """The most bytes that torch had allocated at once during f, beyond those before it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        f()
    events = [(e.start_ns(), e.nbytes()) for e in record.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = most = 0
    for _, size in sorted(events):
        live += size
        most = max(most, live)
    return most


@pytest.mark.skipif(backend.kernels(torch.device("cpu")) is None, reason="the reference draws noise by way of tensors")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("tied", [False, True])
@law
def test_the_peak_is_inference_and_one_perturbed_layer(probe, dtype, tied, generator):
    net = Wide(tied).to(dtype)
    x = torch.randint(2048, (2, 64), generator=generator)
    opt = zo.MeZO(net, lr=1e-4, samples=2, momentum=0.5, weight_decay=0.1, probe=probe)
    closure = lambda: net(x).float()  # noqa: E731
    steps = [peak(lambda: opt.step(closure)) for _ in range(2)]
    with torch.no_grad():
        inference = peak(closure)
    weights = sum(p.nbytes for p in net.parameters())
    layer = sum(p.nbytes for p in net.attention.parameters())
    again = net.embedding.weight.nbytes if tied else 0  # used at both ends, and kept between them
    assert weights > 6 * layer
    for most in steps:
        assert weights + most <= 1.05 * (weights + inference) + layer + again
