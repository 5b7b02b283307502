"""Learning on defective chips from their own noise, and what one would do instead; a record for chapter 18.

    python benchmarks/in_situ_digits.py data/in-situ.json

A net 64-48-10 (tanh) is trained in software on the handwritten digits and put on chips with 30 % mismatch, 10 % stuck
cells and output noise of 0.05.  Rows of ``what``: "remedy", what each remedy makes of 32 chips, five nets, with all
stuck cells open and with half of them shorted; "longer", two of them in 240 passes instead of 60; "noise" and "ADC",
how much noise a chip may have and what a converter hides; "telegraph" and "white", noise with and without a memory, at
different intervals between two reads; "junction", all 60 passes with such noise, five nets; "pulses", cells that are
moved by pulses, from scratch.  Every accuracy is of one noisy read of the 360 test images on one chip.

Step sizes of the remedies are chosen among 1e-3, 3e-3 and 1e-2 on a fifth of the training set that is held out, on 8
other chips and another net, for each learner by itself, and recorded ("step size").  Everything else was fixed before
the runs; "longer" and "junction" were added when the others were known.  About 30 minutes of one core.  A file that
is there is continued: rows that it has are kept.
"""

import json
import platform
import sys
import time
from collections.abc import Callable, Generator
from datetime import date
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import zolib as zo
from zolib.problems import Digits, digits, mlp

H = zo.hardware
EPOCHS, BATCH, CHIPS, NETS = 60, 64, 32, 5
STEPS = (1e-3, 3e-3, 1e-2)
DEFECTS = (H.Mismatch(0.3), H.StuckAt(0.1))
STUCK = {"open": 0.0, "half shorted": 0.5}  # which part of the stuck cells conducts fully
Jobs = Generator[tuple[dict, Callable[[], dict]], dict, None]  # what identifies a row, and what makes the rest of it


def trained(data: Digits, seed: int, prepare: bool = False) -> nn.Module:
    """The net in software, 60 epochs of Adam by backpropagation.

    prepare: 240 epochs, with the defects and the noise of a new chip at each step, as one who knows their statistics
    can.
    """
    model = mlp((64, 48, 10), seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    epochs = 4 * EPOCHS if prepare else EPOCHS
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    g = torch.Generator().manual_seed(seed)

    def layer(x: Tensor, m: nn.Linear) -> Tensor:
        if not prepare:
            return m(x)
        gain = (1 + 0.3 * torch.randn(m.weight.shape, generator=g)).clamp(min=0)
        gain = gain * (torch.rand(m.weight.shape, generator=g) > 0.1)
        y = F.linear(x, m.weight * gain, m.bias)
        return y + 0.05 * room(model) * torch.randn(y.shape, generator=g)

    for _ in range(epochs):
        for rows in torch.randperm(len(data.x), generator=g).split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(layer(torch.tanh(layer(data.x[rows], model[0])), model[2]), data.y[rows]).backward()
            optimizer.step()
        schedule.step()
    return model


def room(model: nn.Module) -> float:
    """w_max: one and a half times the largest weight, so that learning can move beyond it."""
    return 1.5 * max(m.weight.detach().abs().max().item() for m in (model[0], model[2]))


def deployed(model: nn.Module, stages, chips: int, seed: int, w_max: float | None = None, read_time: float = 0.0):
    chip = H.Chip([*stages], n_chips=chips, seed=seed, read_time=read_time)
    return H.deploy(model, chip, w_max=w_max or room(model))


@torch.no_grad()
def accuracy(model: nn.Module, data: Digits) -> Tensor:
    """On the test set, one noisy read: (), or one for each chip, (S,)."""
    return (model(data.x_test).argmax(dim=-1) == data.y_test).double().mean(dim=-1)


def each_loss(logits: Tensor, y: Tensor) -> Tensor:
    """(S, B, 10) and (B,) to (S, B)."""
    losses = F.cross_entropy(logits.flatten(0, -2), y.repeat(len(logits)), reduction="none")
    return losses.view(logits.shape[:-1])


def learn(
    hw,
    data: Digits,
    rule: str,
    lr: float,
    seed: int = 0,
    epochs: int = EPOCHS,
    batch: int = BATCH,
    momentum: float = 0.9,
) -> Tensor:
    """Adam on the chips, step size falling to zero as a cosine.  Returns accuracies over the epochs, (points, S).

    rule: "noise", two reads of the chip; "backpropagation", through the effective weights, which then have to be known;
    "shuffled", as "noise", but each example gets another's change of loss.
    """
    optimizer = torch.optim.Adam(hw.parameters(), lr=lr, betas=(momentum, 0.999))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    g = torch.Generator().manual_seed(seed)
    history = [accuracy(hw, data)]
    for epoch in range(epochs):
        for rows in torch.randperm(len(data.x), generator=g).split(batch):
            other = torch.randperm(len(rows), generator=g) if rule == "shuffled" else torch.arange(len(rows))

            def losses(rows=rows, other=other) -> Tensor:
                return each_loss(hw(data.x[rows]), data.y[rows])[:, other]

            optimizer.zero_grad()
            if rule == "backpropagation":
                losses().mean(dim=1).sum().backward()
            else:
                zo.backward(losses, hw, probe=zo.Intrinsic())
            optimizer.step()
        schedule.step()
        if (epoch + 1) % 5 == 0:
            history.append(accuracy(hw, data))
    return torch.stack(history)


@torch.no_grad()
def fitted(hw, model: nn.Module, data: Digits) -> Tensor:
    """A gain and an offset for each column, digital, fitted by least squares to what the software would have read.

    Returns accuracies (S,).
    """
    chips, x, test = hw.chip.n_chips, data.x, data.x_test
    h, t = x.expand(chips, *x.shape), test.expand(chips, *test.shape)
    for tile, layer in zip(hw.tiles(), (model[0], model[2]), strict=True):

        def read(v, tile=tile):
            return tile(v.flatten(0, 1)).unflatten(0, (chips, -1))

        y, goal = read(h), layer(h)  # what is, what should be
        ym, gm = y.mean(dim=1, keepdim=True), goal.mean(dim=1, keepdim=True)
        gain = ((y - ym) * (goal - gm)).sum(1, True) / (y - ym).square().sum(1, True).clamp(min=1e-12)
        h, t = ((gain * (read(v) - ym) + gm) for v in (h, t))
        if layer is model[0]:
            h, t = torch.tanh(h), torch.tanh(t)
    return (t.argmax(dim=-1) == data.y_test).double().mean(dim=1)


def last_layer(hw, model: nn.Module, data: Digits, lr: float, seed: int = 0, epochs: int = EPOCHS) -> Tensor:
    """The last layer leaves the chip: a digital one learns, by its exact gradient, on what the first layer shows."""
    chips = hw.chip.n_chips
    first = hw.tiles()[0]
    w = model[2].weight.detach().expand(chips, 10, 48).clone().requires_grad_()
    b = model[2].bias.detach().expand(chips, 10).clone().requires_grad_()
    optimizer = torch.optim.Adam([w, b], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    g = torch.Generator().manual_seed(seed)

    def logits(x: Tensor) -> Tensor:
        with torch.no_grad():
            h = torch.tanh(first(x.repeat(chips, 1)).unflatten(0, (chips, -1)))
        return torch.einsum("sbi,soi->sbo", h, w) + b.unsqueeze(1)

    for _ in range(epochs):
        for rows in torch.randperm(len(data.x), generator=g).split(BATCH):
            optimizer.zero_grad()
            each_loss(logits(data.x[rows]), data.y[rows]).mean(dim=1).sum().backward()
            optimizer.step()
        schedule.step()
    with torch.no_grad():
        return (logits(data.x_test).argmax(dim=-1) == data.y_test).double().mean(dim=1)


def chosen(learner: str) -> dict:
    """The step size that is best on held-out examples: 8 chips of their own, half as many epochs."""
    data, found = digits(), {}
    cut = len(data.x) * 4 // 5
    part = Digits(data.x[:cut], data.y[:cut], data.x[cut:], data.y[cut:])
    model = trained(part, 100)
    for lr in STEPS:
        hw = deployed(model, (*DEFECTS, H.OutputNoise(0.05)), 8, 100)
        if learner == "last layer":
            found[lr] = last_layer(hw, model, part, lr, 100, EPOCHS // 2).mean().item()
        else:
            found[lr] = learn(hw, part, learner, lr, 100, EPOCHS // 2)[-1].mean().item()
    return {"tried": found, "lr": max(found, key=found.get)}


def junction() -> tuple:
    """At each output the simulated junction of Koenders et al. (2025), as large as the white noise that it replaces."""
    telegraph, white = 0.0059316154, 0.00090841466
    unit = 0.05 / (telegraph**2 + white**2) ** 0.5
    return H.NodeNoise(H.Telegraph.sampled(telegraph * unit, 0.0809, seconds=1e-6)), H.OutputNoise(white * unit)


def remedy(
    seed: int,
    stuck: str,
    name: str,
    lr: float,
    epochs: int = EPOCHS,
    noise: tuple = (H.OutputNoise(0.05),),
    read_time: float = 0.0,
) -> dict:
    """What one remedy makes of 32 chips with one net on them."""
    data = digits()
    model = trained(data, seed)
    stages = (DEFECTS[0], H.StuckAt(0.1, on=STUCK[stuck]), *noise)
    net = trained(data, seed, prepare=True) if name == "prepared" else model
    hw = deployed(net, stages, CHIPS, seed, read_time=read_time)
    row, before = {"offline": accuracy(model, data).item()}, hw.counters
    if name in ("mapped", "prepared"):
        found = accuracy(hw, data)
    elif name == "gain fit":
        found = fitted(hw, model, data)
    elif name == "last layer":
        found = last_layer(hw, model, data, lr, seed, epochs)
    else:
        path = learn(hw, data, name, lr, seed, epochs=15 if name == "shuffled" else epochs)
        found, row["path"] = path[-1], path.mean(dim=1).tolist()
        row["cost"] = counted(hw, before)
    if name == "noise":
        other = deployed(model, stages, CHIPS, seed, read_time=read_time)  # the same chips; weights of the neighbour
        for key, change in {"moved": lambda q: q.roll(1, 0), "mean of all": lambda q: q.mean(0, True)}.items():
            with torch.no_grad():
                for p, q in zip(other.parameters(), hw.parameters(), strict=True):
                    p.copy_(change(q).expand_as(p))
            row[key] = accuracy(other, data).tolist()
    return row | {"accuracy": found.tolist()}


def counted(hw, before) -> dict:
    """Per chip."""
    return {k: v / hw.chip.n_chips for k, v in vars(hw.counters - before).items()}


def remedies(stuck: str) -> Jobs:
    learners, lr = ("noise", "backpropagation", "last layer"), {}
    for learner in learners:
        row = yield {"what": "step size", "learner": learner}, partial(chosen, learner)
        lr[learner] = row["lr"]
    for seed in range(NETS):
        for name in ("mapped", "prepared", "gain fit", *reversed(learners), "shuffled"):
            identity = {"what": "remedy", "net": seed, "stuck": stuck, "remedy": name}
            yield identity, partial(remedy, seed, stuck, name, lr.get(name, lr["noise"]))


def longer() -> Jobs:
    """Four times as many passes, on the chips that are hurt most; step sizes as chosen."""
    for name in ("last layer", "noise"):
        row = yield {"what": "step size", "learner": name}, partial(chosen, name)
        for seed in range(NETS):
            identity = {"what": "longer", "net": seed, "stuck": "half shorted", "remedy": name}
            yield identity, partial(remedy, seed, "half shorted", name, row["lr"], 4 * EPOCHS)


def junctions() -> Jobs:
    """Two reads of an example lie as many samples apart as two layers read a batch, or are 64 times as fast as that."""
    row = yield {"what": "step size", "learner": "noise"}, partial(chosen, "noise")
    for faster in (1, 64):
        for seed in range(NETS):
            identity = {"what": "junction", "net": seed, "stuck": "open", "apart": 2 * BATCH // faster}
            how = {"noise": junction(), "read_time": 1e-6 / faster}
            yield identity, partial(remedy, seed, "open", "noise", row["lr"], **how)


def noise() -> Jobs:
    data = digits()
    model = trained(data, 0)

    def job(stages, lr=3e-3, **how) -> dict:
        path = learn(deployed(model, stages, 8, 0, read_time=1e-6), data, "noise", lr, **how)
        return {"mapped": path[0].mean().item(), "accuracy": path[-1].tolist()}

    for sd in (0.005, 0.0158, 0.05, 0.158, 0.5):
        yield {"what": "noise", "sd": sd}, partial(job, (*DEFECTS, H.OutputNoise(sd)), epochs=40)
    for bits in (4, 5, 6, 8, 10):
        stages = (H.DAC(8), *DEFECTS, H.OutputNoise(0.05), H.ADC(bits, bound=4.0))
        yield {"what": "ADC", "bits": bits}, partial(job, stages, epochs=40)
    # A batch is read layer after layer: the two reads of an example lie twice as many read times apart as it is long
    kinds = {"telegraph": junction(), "white": (H.OutputNoise(0.05),)}
    for batch in (2, 8, 64):
        for kind, stages in kinds.items():
            job_lr = 3e-3 * (batch / 64) ** 0.5
            yield {"what": kind, "batch": batch}, partial(job, (*DEFECTS, *stages), job_lr, epochs=5, batch=batch)


def pulses() -> Jobs:
    """From scratch, by pulses with the 30 % spreads of the cross-point specification.

    Momentum is a digital memory that averages before it writes; without it each estimate is sent to the cells at once.
    """
    data = digits()
    laws = {
        "written": [],
        "constant": [H.ConstantStep()],
        "soft": [H.SoftBounds()],
        "soft, scattered": [H.SoftBounds(up_down_d2d=0.3)],
    }

    def job(stages, momentum) -> dict:
        hw = deployed(mlp((64, 48, 10), seed=0), (*stages, H.OutputNoise(0.05)), 8, 0, w_max=2.0)
        before = hw.counters
        found = learn(hw, data, "noise", 1e-2, epochs=30, momentum=momentum)[-1]
        return {"accuracy": found.tolist(), "cost": counted(hw, before)}

    for law, stages in laws.items():
        for momentum in (0.0, 0.9, 0.98):
            yield {"what": "pulses", "law": law, "momentum": momentum}, partial(job, stages, momentum)


def everything() -> Jobs:
    yield from remedies("open")
    yield from pulses()
    yield from noise()
    yield from remedies("half shorted")
    yield from longer()
    yield from junctions()


def main() -> None:
    file = Path(sys.argv[1])
    torch.set_num_threads(1)
    record = json.loads(file.read_text()) if file.exists() else {"rows": []}
    jobs, row = everything(), None
    while True:
        try:
            identity, job = jobs.send(row)
        except StopIteration:
            break
        row = next((r for r in record["rows"] if identity.items() <= r.items()), None)
        if row is not None:
            continue
        start = time.process_time()
        row = identity | job()
        record["rows"].append(row)
        record |= {
            "command": "python benchmarks/in_situ_digits.py data/in-situ.json",
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "device": f"CPU ({platform.machine()}), one thread",
            "date": date.today().isoformat(),
        }
        file.write_text(json.dumps(record, indent=1) + "\n")
        reached = row.get("accuracy", [row.get("lr")])
        print(*identity.values(), f"{sum(reached) / len(reached):.4f} {time.process_time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
