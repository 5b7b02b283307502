"""A journal gives the weights back bit for bit, whatever kills the process, and refuses what is not its own."""

import copy

import pytest
import torch
from small import bits, build, journaled, train
from torch import nn

import zolib as zo
from zolib.noise import backend
from zolib.records import Form, read


@pytest.fixture
def problem(generator):
    return build(generator)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.journal"


SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.8, "samples": 3, "weight_decay": 0.1},
    "normalised": {"normalize": 0.9, "clip": 1.5, "probe": "gaussian", "momentum": 0.5},
}


# Replay


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_replay_gives_the_weights(problem, path, settings, dtype):
    net, loss = problem
    start = copy.deepcopy(net.to(dtype))
    journaled(net, loss, path, 30, **settings)
    for again in (copy.deepcopy(start), list(copy.deepcopy(start).parameters())):
        assert zo.Journal(path).replay(again) == 30
        parameters = again.parameters() if isinstance(again, nn.Module) else again
        assert all(torch.equal(p, q) for p, q in zip(parameters, net.parameters(), strict=True))
    with backend.reference():
        assert zo.Journal(path).replay(start) == 30
    assert bits(start) == bits(net)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
@pytest.mark.parametrize("snapshot", [None, 4])
def test_a_run_goes_on_as_if_it_had_not_stopped(problem, path, settings, snapshot):
    net, loss = problem
    nets = [copy.deepcopy(net) for _ in range(3)]
    train(net, loss, 30, **settings)
    for again, until in zip(nets, (11, 23, 30), strict=True):
        opt = journaled(again, loss, path, until, snapshot=snapshot, **settings)
        assert opt.steps == until
    assert bits(nets[2]) == bits(net)


def test_a_run_can_be_looked_at_in_the_middle(problem, path):
    net, loss = problem
    start = copy.deepcopy(net)
    middle = copy.deepcopy(net)
    train(middle, loss, 7)
    journaled(net, loss, path, 20, snapshot=10)
    assert zo.Journal(path).replay(start, until=7) == 7
    assert bits(start) == bits(middle)


def test_schedules_groups_frozen_and_idle_parameters_are_in_the_records(problem, path):
    net, loss = problem
    net.spare = nn.Linear(2, 2)
    net.forward = lambda x: net[2](net[1](net[0](x)))
    start = copy.deepcopy(net)
    groups = lambda n: [{"params": n[0].parameters()}, {"params": [*n[2].parameters(), *n.spare.parameters()]}]  # noqa: E731
    opt = zo.MeZO(groups(net), lr=0.1, sigma=2e-3, samples=2, momentum=0.5, unused="skip", journal=path)
    for step in range(20):
        opt.param_groups[0].update(lr=0.1 / (1 + step), momentum=0.1 * (step % 5), weight_decay=0.01 * step)
        opt.param_groups[1].update(sigma=1e-3 * (1 + step % 3))
        net[0].bias.requires_grad_(step % 2 == 0)
        opt.step(lambda step=step: loss(net, step))
    parameters = [p for group in groups(start) for p in group["params"]]
    assert zo.Journal(path).replay(parameters) == 20
    assert bits(start) == bits(net)


def test_a_record_is_some_bytes_whatever_the_size_of_the_weights(tmp_path):
    sizes = []
    for width in (2, 200):
        net, path = nn.Linear(width, width), tmp_path / str(width)
        journaled(net, lambda n, step, w=width: n(torch.ones(w)).square().mean(), path, 1)
        one = path.stat().st_size
        start = nn.Linear(width, width)
        start.load_state_dict(net.state_dict())
        path.unlink()
        journaled(start, lambda n, step, w=width: n(torch.ones(w)).square().mean(), path, 101)
        sizes.append((path.stat().st_size - one) / 100)
    assert sizes[0] == sizes[1] == Form(1, 1, 2).size == 49
    assert Form(samples=1, groups=1, parameters=0).size == 48


def test_snapshots_bring_buffers_and_shorten_the_replay(path, generator, monkeypatch):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    x = torch.randn(8, 3, generator=generator)
    start = copy.deepcopy(net)
    opt = zo.MeZO(net, journal=zo.Journal(path, snapshot=5))
    for step in range(12):
        opt.step(lambda: net(x).square().mean())
        if step == 9:
            then = copy.deepcopy(dict(net.named_buffers()))
    calls, update = [], zo.noise.fused.update_
    monkeypatch.setattr(zo.noise.fused, "update_", lambda *a: calls.append(0) or update(*a))
    assert zo.Journal(path).replay(start) == 12
    assert len(calls) == 2 * 6
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), start.parameters(), strict=True))
    assert all(torch.equal(b, then[name]) for name, b in start.named_buffers())


@pytest.mark.parametrize("harm", ["flip", "cut", "other run"])
def test_a_bad_snapshot_is_left_aside(problem, path, tmp_path, harm):
    net, loss = problem
    nets = [copy.deepcopy(net) for _ in range(2)]
    journaled(net, loss, path, 8, snapshot=4)
    beside = path.with_name("run.journal.snapshot")
    data = bytearray(beside.read_bytes())
    if harm == "other run":
        journaled(nets[0], loss, tmp_path / "other", 8, snapshot=4, seed=5)
        data = (tmp_path / "other.snapshot").read_bytes()
    elif harm == "flip":
        place = data.find(net[0].bias.detach().numpy().tobytes()[:4])  # any byte of a weight
        data[place if place > 0 else len(data) // 2] ^= 1
    else:
        data = data[:-100]
    beside.write_bytes(data)
    with pytest.warns(RuntimeWarning, match="left aside"):
        zo.Journal(path).replay(nets[1])
    assert bits(nets[1]) == bits(net)


# Refusals: the reason is told, nothing is changed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"seed": 4}, "written with seed=3, but here it is 4"),
        ({"probe": "gaussian"}, "written with probe=Rademacher, but here it is Gaussian"),
        ({"samples": 2}, "written with samples=1, but here it is 2"),
        ({"lr": 0.1}, "written with groups="),
        ({"clip": 1.0}, "written with clip=None, but here it is 1.0"),
        ({"normalize": 0.9}, "written with normalize=None"),
        ({"weights": 0}, "began with other weights than these"),
        ({"shape": 0}, "written with groups="),
        ({"stream": 0}, "written with stream=1, but here it is 2"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else "",
)
def test_another_run_is_refused(problem, path, change, reason, monkeypatch):
    net, loss = problem
    other = copy.deepcopy(net)
    journaled(net, loss, path, 5)
    if "weights" in change:
        other[0].bias.data[0] += 1e-6
    if "shape" in change:
        other[2] = nn.Linear(8, 3)
    if "stream" in change:
        monkeypatch.setattr("zolib.noise.stream.VERSION", 2)
    change = {k: v for k, v in change.items() if k not in ("weights", "shape", "stream")}
    before, file = bits(other), path.read_bytes()
    with pytest.raises(zo.JournalError, match=reason):
        journaled(other, loss, path, 10, **change)
    if not change:
        with pytest.raises(zo.JournalError, match=reason.replace("groups", "parameters")):
            zo.Journal(path).replay(other)
    assert bits(other) == before and path.read_bytes() == file


def test_damage_in_the_middle_is_refused_at_every_byte(problem, path):
    net, loss = problem
    start = copy.deepcopy(net)
    journaled(net, loss, path, 4)
    data, size = path.read_bytes(), Form(1, 1, 4).size
    before = bits(start)
    for place in range(0, len(data) - size, 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x40]) + data[place + 1 :])
        with pytest.raises(zo.JournalError, match="not a journal|damaged header|is damaged at step"):
            zo.Journal(path).replay(start)
    records = data[-4 * size :]
    path.write_bytes(data[: -4 * size] + records[size : 2 * size] + records[:size] + records[2 * size :])
    with pytest.raises(zo.JournalError, match="is damaged at step 0"):
        zo.Journal(path).replay(start)
    path.write_bytes(b"something else entirely")
    with pytest.raises(zo.JournalError, match="is not a journal"):
        train(start, loss, 5, journal=path)
    path.unlink()
    with pytest.raises(zo.JournalError, match="there is no such file"):
        zo.Journal(path).replay(start)
    assert bits(start) == before


def test_a_journal_has_one_writer(problem, path):
    net, loss = problem
    twin = copy.deepcopy(net)
    journal = zo.Journal(path)
    opt = train(net, loss, 3, journal=journal)
    with pytest.raises(zo.JournalError, match="being written by another run"):
        zo.MeZO(twin, lr=0.05, seed=3, journal=path)
    with pytest.raises(zo.JournalError, match="is open already"):
        zo.MeZO(twin, lr=0.05, seed=3, journal=journal)
    with pytest.raises(RuntimeError, match="the journal says where this run stands"):
        opt.load_state_dict(opt.state_dict())
    with pytest.raises(RuntimeError, match="pass all groups to MeZO at once"):
        opt.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    journal.close()
    assert zo.MeZO(twin, lr=0.05, seed=3, journal=path).steps == 3
    before = bits(net)
    with pytest.raises(zo.JournalError, match="is closed"):
        opt.step(lambda: loss(net, 3))
    assert bits(net) == before and opt.steps == 3
    with pytest.raises(ValueError, match="snapshot must be a number of steps"):
        zo.Journal(path, snapshot=0)


def test_a_full_disk_refuses_the_step(problem, path, monkeypatch):
    net, loss = problem
    journal = zo.Journal(path)
    opt = train(net, loss, 3, journal=journal)
    before, file, random_state = bits(net), path.read_bytes(), torch.get_rng_state()

    def half(file, place, data):
        file.seek(place)
        file.write(data[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal, "_put", half)
    with pytest.raises(OSError, match="No space left"):
        opt.step(lambda: loss(net, 3) + 0 * torch.rand(()))
    assert bits(net) == before and path.read_bytes() == file and opt.steps == 3
    assert torch.equal(torch.get_rng_state(), random_state)
    monkeypatch.undo()
    opt.step(lambda: loss(net, 3))
    assert len(read(path).records) == 4


def test_an_interrupted_update_is_taken_up_from_the_journal(problem, path, monkeypatch):
    net, loss = problem
    nets = [copy.deepcopy(net) for _ in range(2)]
    train(nets[0], loss, 5)
    journal = zo.Journal(path)
    opt = train(net, loss, 4, journal=journal)
    update, calls = zo.noise.fused.update_, []

    def interrupted(*args):
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        update(*args)

    monkeypatch.setattr(zo.noise.fused, "update_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        opt.step(lambda: loss(net, 4))
    monkeypatch.undo()
    with pytest.raises(RuntimeError, match="interrupted while it wrote the weights"):
        opt.step(lambda: loss(net, 4))
    journal.close()
    assert train(nets[1], loss, 5, journal=path).steps == 5
    assert bits(nets[1]) == bits(nets[0])
