"""Many processes make one run, exchange scalars only, and refuse together."""

import copy
import os
import signal

import pytest
import torch
import torch.distributed as dist
from processes import together
from small import bits, build, train
from torch import nn

import zolib as zo


@pytest.fixture
def problem(generator):
    return build(generator)


def in_group(net, loss, steps, **settings):
    """What each process of a group returns: the weights, after as many steps."""

    def run(rank):
        train(net, loss, steps, process_group=dist.group.WORLD, **settings)
        return bits(net)

    return run


@pytest.mark.parametrize("settings", [{}, {"samples": 4, "momentum": 0.5, "probe": "gaussian"}], ids=["one", "four"])
def test_the_bits_are_those_of_one_process(problem, settings):
    net, loss = problem
    alone = copy.deepcopy(net)
    train(alone, loss, 100, **settings)
    for world in (1, 2, 3):  # with one sample there is nothing left for the third
        assert together(world, in_group(net, loss, 100, **settings)) == [bits(alone)] * world


def test_evaluations_are_dealt_round(problem):
    net, loss = problem
    calls = []

    def run(rank):
        opt = zo.MeZO(net, samples=4, process_group=dist.group.WORLD)
        opt.step(lambda: calls.append(0) or loss(net, 0))
        return len(calls)

    assert together(2, run) == [4, 4]
    assert together(3, run) == [3, 3, 2]


class Noisy(nn.Module):
    """Random numbers, buffers that an evaluation writes, and one that it does not."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.3), nn.Linear(6, 1))
        self.register_buffer("fixed", torch.ones(1000))

    def forward(self, x):
        return self.layers(x) * self.fixed[0]


def noisy_run(rank, net, x, group, seed=0):
    torch.manual_seed(seed)
    opt = zo.MeZO(net, lr=0.01, samples=2, process_group=group)
    for _ in range(5):
        opt.step(lambda: net(x).square().mean())
    return [t.tolist() for t in net.state_dict().values()] + [torch.get_rng_state().tolist()]


def test_dropout_and_buffers_are_those_of_one_process(generator):
    net, x = Noisy(), torch.randn(8, 4, generator=generator)
    alone = noisy_run(0, copy.deepcopy(net), x, None)
    for world in (2, 3, 5):
        assert together(world, lambda rank: noisy_run(rank, net, x, dist.group.WORLD)) == [alone] * world
    for error in together(2, lambda rank: noisy_run(rank, net, x, dist.group.WORLD, seed=rank)):
        assert isinstance(error, RuntimeError) and "the generators differ" in str(error)


def test_sharded_data_average_the_coefficients(generator, seed):
    net = nn.Linear(3, 2).double()
    x = torch.randn(2, 8, 3, generator=generator, dtype=torch.float64)

    def run(rank):
        opt = zo.MeZO(net, lr=0.1, samples=3, seed=seed, process_group=dist.group.WORLD, data="sharded")
        loss = opt.step(lambda: net(x[rank]).square().mean())
        return [p.tolist() for p in net.parameters()], loss.item()

    one, other = together(2, run)
    assert one == other
    found = [zo.estimate(lambda part=part: net(part).square().mean(), net, samples=3, seed=seed) for part in x]
    mean = (0.5 * (found[0] + found[1])).dense()
    for end, p, g in zip(one[0], net.parameters(), mean, strict=True):
        assert torch.allclose(torch.tensor(end, dtype=torch.float64), p - 0.1 * g, rtol=0, atol=1e-9)
    assert one[1] == pytest.approx((found[0].loss + found[1].loss).item() / 2)


def test_what_one_process_consumes_is_updated_in_all():
    """Experts: each shard of the data may pass through another one."""
    net = nn.ModuleList(nn.Linear(2, 1) for _ in range(3))
    x = torch.ones(4, 2)
    start = copy.deepcopy(net)

    def run(rank):
        opt = zo.MeZO(net, lr=0.1, unused="skip", process_group=dist.group.WORLD, data="sharded")
        opt.step(lambda: net[rank](x).square().mean())
        return bits(net), [torch.equal(p, q) for p, q in zip(net.parameters(), start.parameters(), strict=True)]

    one, other = together(2, run)
    assert one == other and one[1] == [False] * 4 + [True] * 2


# Refusing together


@pytest.mark.parametrize("kind", ["nan", "exception"])
@pytest.mark.parametrize("world", [2, 3])
def test_a_failure_in_one_is_a_refusal_by_all(problem, kind, world):
    net, loss = problem
    alone = copy.deepcopy(net)
    train(alone, loss, 4, samples=3)

    def run(rank):
        opt = zo.MeZO(net, lr=0.05, seed=3, samples=3, process_group=dist.group.WORLD)
        refusals = []
        while opt.steps < 4:
            fail = opt.steps == 2 and not refusals and rank == 1
            before, state = bits(net), torch.get_rng_state()
            try:
                opt.step(lambda fail=fail: bad(loss(net, 2), kind) if fail else loss(net, opt.steps))
            except Exception as error:
                refusals.append(f"{type(error).__name__}: {error}")
                assert bits(net) == before and torch.equal(torch.get_rng_state(), state) and opt.steps == 2
        return refusals, bits(net)

    results = together(world, run)
    assert [end for _, end in results] == [bits(alone)] * world
    for rank, (refusals, _) in enumerate(results):
        (words,) = refusals
        if kind == "nan":
            assert words.startswith("LossError: the loss is nan at sample")
        else:
            assert words == ("OSError: no batch" if rank == 1 else "RuntimeError: rank 1: OSError: no batch")


def bad(value, kind):
    if kind == "exception":
        raise OSError("no batch")
    return value * float("nan")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("weights", "ranks 0 and 1: initial weights differ"),
        ("seed", "ranks 0 and 1: the optimizers' arguments"),
        ("journal", "some were given a journal and some were not"),
        ("lr", "lr, sigma, momentum or weight_decay differ between the processes"),
        ("steps", r"at different steps, \(0, 1\)"),
        ("data", "data must be 'same' or 'sharded', got 'mine'"),
    ],
)
def test_processes_that_differ_are_told_so(problem, tmp_path, kind, reason):
    net, loss = problem

    def run(rank):
        if kind == "weights" and rank == 1:
            net[2].bias.data[1] += 1e-3
        settings = {"journal": tmp_path / "j"} if kind == "journal" and rank == 0 else {}
        settings |= {"seed": rank} if kind == "seed" else {"data": "mine"} if kind == "data" else {}
        opt = zo.MeZO(net, process_group=dist.group.WORLD, **settings)
        if kind == "lr":
            opt.param_groups[0]["lr"] = 0.1 * rank
        if kind == "steps":
            opt.steps = rank
        opt.step(lambda: loss(net, 0))

    for error in together(2, run):
        assert isinstance(error, (ValueError, RuntimeError))
        with pytest.raises(type(error), match=reason):
            raise error


def test_a_group_needs_a_group(problem):
    with pytest.raises(ValueError, match="call init_process_group first"):
        zo.MeZO(problem[0], process_group=object())


# What is sent


def test_the_bytes_of_a_step_do_not_grow_with_the_model(monkeypatch):
    """Every way to send is watched; without a failure only all_gather is used after the start."""
    ways = [name for name in dir(dist) if name.startswith(("all_", "broadcast", "reduce", "scatter", "gather", "send"))]
    ways += [name for name in dir(dist) if name.startswith(("isend", "batch_isend", "monitored", "_all", "_reduce"))]

    def run(rank):
        sent, totals = [], []
        for name in ways:
            if callable(getattr(dist, name)):
                monkeypatch.setattr(dist, name, watched(getattr(dist, name), name, sent))
        for width in (4, 400):
            torch.manual_seed(0)
            net, x = nn.Linear(width, width), torch.ones(width)
            opt = zo.MeZO(net, samples=8, process_group=dist.group.WORLD)
            sent.clear()
            for _ in range(10):
                opt.step(lambda net=net, x=x: net(x).square().mean())
            totals.append(list(sent))
        return totals

    for small, large in together(2, run):
        # each step: a mark of failure, three words to check, 8 losses, one bit for each parameter
        assert small == large == [("all_gather", 1 + 12 + 8 * 8 + 1)] * 10


def watched(send, name, sent):
    def call(*args, **kwargs):
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        sent.append((name, sum(t.nbytes for t in tensors)))
        return send(*args, **kwargs)

    return call


# Journals


def test_a_run_goes_on_with_other_numbers_of_processes(problem, tmp_path):
    net, loss = problem
    alone = copy.deepcopy(net)
    settings = {"samples": 2, "momentum": 0.5, "normalize": 0.9}
    train(alone, loss, 40, **settings)
    for world, until in ((2, 10), (3, 25), (1, 30), (2, 40)):

        def run(rank, until=until):
            group, journal = dist.group.WORLD, zo.Journal(tmp_path / "run.journal", snapshot=4)
            opt = train(net, loss, until, process_group=group, journal=journal, **settings)
            return opt.steps, bits(net)

        ends = together(world, run)
        assert len(set(ends)) == 1 and ends[0][0] == until
    assert ends[0][1] == bits(alone)
    zo.Journal(tmp_path / "run.journal").replay(net)
    assert bits(net) == bits(alone)


def test_a_journal_that_fails_is_a_refusal_by_all(problem, tmp_path):
    net, loss = problem
    path = tmp_path / "run.journal"
    path.write_bytes(b"a letter")
    errors = together(2, lambda rank: zo.MeZO(net, process_group=dist.group.WORLD, journal=path) and None)
    assert [type(e) for e in errors] == [zo.JournalError] * 2
    path.unlink()

    def run(rank):
        journal = zo.Journal(path)
        opt = zo.MeZO(net, process_group=dist.group.WORLD, journal=journal)
        opt.step(lambda: loss(net, 0))
        before = bits(net)
        journal.close()
        with pytest.raises(zo.JournalError, match="is closed"):
            opt.step(lambda: loss(net, 1))
        return bits(net) == before, opt.steps

    assert together(2, run) == [(True, 1)] * 2


def test_a_process_that_dies_stops_the_others_and_all_start_again(problem, tmp_path):
    net, loss = problem
    alone = copy.deepcopy(net)
    train(alone, loss, 30, samples=2)
    lives = tmp_path / "lives"

    def run(rank):
        def closure():
            if opt.steps == 12 and rank == 1 and not lives.exists():
                lives.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return loss(net, opt.steps)

        opt = zo.MeZO(net, lr=0.05, seed=3, samples=2, process_group=dist.group.WORLD, journal=tmp_path / "run.journal")
        start = opt.steps
        while opt.steps < 30:
            opt.step(closure)
        return start, bits(net)

    first = together(3, run)
    assert isinstance(first[0], RuntimeError) and first[1] is None and isinstance(first[2], RuntimeError)
    assert together(3, run) == [(12, bits(alone))] * 3
