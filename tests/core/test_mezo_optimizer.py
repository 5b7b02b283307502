"""MeZO is an optimizer as others are: schedulers, states, errors that leave everything as it was."""

import copy
import io

import pytest
import torch
from small import bits, build, train
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, OneCycleLR

import zolib as zo


@pytest.fixture
def problem(generator):
    return build(generator)


@pytest.mark.parametrize("schedule", ["lambda", "cosine", "one-cycle"])
def test_schedulers_drive_it(problem, schedule, seed):
    net, loss = problem
    twin = copy.deepcopy(net)

    def scheduler(opt):
        if schedule == "lambda":
            return LambdaLR(opt, lambda step: 1 / (1 + step))
        if schedule == "cosine":
            return CosineAnnealingLR(opt, 8)
        return OneCycleLR(opt, 0.1, total_steps=9, base_momentum=0.3, max_momentum=0.6)

    opt = zo.MeZO(net, lr=0.1, seed=seed, momentum=0.5)
    drive, rates = scheduler(opt), []
    other = zo.MeZO(twin, lr=0.1, seed=seed)
    for step in range(8):
        group = opt.param_groups[0]
        rates.append((group["lr"], group["momentum"]))
        other.param_groups[0].update(lr=group["lr"], momentum=group["momentum"])
        opt.step(lambda step=step: loss(net, step))
        other.step(lambda step=step: loss(twin, step))
        drive.step()
    assert len(set(rates)) > 6
    assert bits(net) == bits(twin)


def test_it_goes_on_from_its_state(problem):
    net, loss = problem
    twin = copy.deepcopy(net)
    settings = {"momentum": 0.8, "normalize": 0.95, "samples": 2, "weight_decay": 0.01}
    train(net, loss, 25, **settings)
    first = train(twin, loss, 10, **settings)
    file = io.BytesIO()
    torch.save({"model": twin.state_dict(), "opt": first.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = copy.deepcopy(twin)
    with torch.no_grad():
        for p in again.parameters():
            p.zero_()
    again.load_state_dict(saved["model"])
    opt = zo.MeZO(again, seed=99, samples=2, normalize=0.95)
    opt.load_state_dict(saved["opt"])
    assert (opt.steps, opt.seed) == (10, 3)
    for _ in range(15):
        opt.step(lambda: loss(again, opt.steps))
    assert bits(again) == bits(net)


def test_a_copy_goes_on_by_itself(problem):
    net, loss = problem
    opt = train(net, loss, 5, momentum=0.5)
    LambdaLR(opt, lambda step: 1.0)
    twin, other = copy.deepcopy((net, opt))
    for n, o in ((net, opt), (twin, other)):
        for _ in range(5):
            o.step(lambda n=n, o=o: loss(n, o.steps))
    assert bits(net) == bits(twin)
    net[0].bias.data += 1
    assert bits(net) != bits(twin)


def test_a_state_of_another_kind_is_refused(problem):
    net, _ = problem
    opt = zo.MeZO(net)
    with pytest.raises(ValueError, match="no entry 'mezo'"):
        opt.load_state_dict(torch.optim.SGD(net.parameters()).state_dict())
    with pytest.raises(ValueError, match="probe='Gaussian', this optimizer has probe='Rademacher'"):
        opt.load_state_dict(zo.MeZO(net, probe="gaussian").state_dict())
    with pytest.raises(ValueError, match="different number of parameter groups"):
        opt.load_state_dict(zo.MeZO([{"params": [p]} for p in net.parameters()]).state_dict())
    assert opt.steps == 0


# Errors leave everything as it was


class Noisy(nn.Module):
    """Dropout and batch norm: random numbers and buffers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, x):
        return self.layers(x)


def fails(kind, out, calls):
    loss = out.square().mean()
    if kind == "exception" and len(calls) == 3:
        raise ZeroDivisionError
    if kind == "not finite" and len(calls) == 3:
        return loss * float("nan")
    if kind == "backward":
        loss.backward()
    return {"half": loss.half(), "vector": out.flatten(), "nothing": None}.get(kind, loss)


@pytest.mark.parametrize("kind", ["exception", "not finite", "backward", "half", "vector", "nothing"])
def test_a_step_that_fails_changes_nothing(kind, generator):
    net, x, calls = Noisy(), torch.randn(8, 4, generator=generator), []
    opt = zo.MeZO(net, samples=3, momentum=0.5, normalize=0.9)
    opt.step(lambda: net(x).square().mean())
    before, state, random = copy.deepcopy(net.state_dict()), opt.state_dict(), torch.get_rng_state()
    with pytest.raises((ZeroDivisionError, ValueError, RuntimeError)):
        opt.step(lambda: calls.append(0) or fails(kind, net(x), calls))
    assert all(torch.equal(a, b) for a, b in zip(before.values(), net.state_dict().values(), strict=True))
    assert torch.equal(torch.get_rng_state(), random)
    assert opt.state_dict() == state and opt.steps == 1


def test_a_pair_sees_one_dropout_mask_and_buffers_end_as_after_one_evaluation(generator):
    net, x = Noisy(), torch.randn(8, 4, generator=generator)
    torch.manual_seed(1)
    copy.deepcopy(net)(x)
    after = torch.get_rng_state()
    slopes = []
    for given in ({"params": net}, {"params": net.parameters(), "model": net}):
        torch.manual_seed(1)
        opt = zo.MeZO(**given, lr=0.0, sigma=1e-3, normalize=0.9)
        opt.step(lambda: net(x).square().mean())
        slopes.append(opt.state_dict()["mezo"]["mean_square"])
        assert torch.equal(torch.get_rng_state(), after)
    assert net.layers[1].num_batches_tracked == 2
    assert slopes[0] == pytest.approx(slopes[1])
    assert slopes[0] < 100  # another mask would make a difference of order 1, and its slope of order 1 / sigma


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1}, "lr must be at least 0, got -1"),
        ({"sigma": 0}, "sigma must be a positive, finite probe size"),
        ({"momentum": 1.0}, "momentum must be at least 0 and below 1"),
        ({"weight_decay": float("nan")}, "weight_decay must be at least 0, got nan"),
        ({"clip": 0}, "clip must be positive"),
        ({"normalize": 1}, r"normalize must lie in \(0, 1\)"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"probe": "sphere"}, "fill .grad with zolib.backward"),
        ({"probe": zo.Nodes()}, "fill .grad with zolib.backward"),
        ({"probe": zo.Gaussian(axes=("replica",))}, "MeZO has one slope for all weights"),
        ({"unused": "no"}, "unused must be 'raise' or 'skip'"),
        ({"data": "sharded"}, "pass their process_group"),
    ],
)
def test_arguments_are_checked(problem, settings, message):
    with pytest.raises(ValueError, match=message):
        zo.MeZO(problem[0], **settings)


def test_a_closure_is_needed(problem):
    with pytest.raises(TypeError, match="call step\\(closure\\)"):
        zo.MeZO(problem[0]).step()
    with pytest.raises(ValueError, match="empty parameter list"):
        zo.MeZO([])
