"""The program behind data/in-situ.json: its remedies, on small problems whose answer is known."""

import sys
from pathlib import Path

import pytest
import torch

from zolib import hardware as H
from zolib.problems import digits


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import in_situ_digits

    monkeypatch.setattr(in_situ_digits, "EPOCHS", 6)
    yield in_situ_digits
    sys.modules.pop("in_situ_digits", None)


@pytest.fixture
def task(program):
    data = digits()
    return data, program.trained(data, seed=0)


def test_a_gain_fit_mends_what_a_column_has_in_common_and_nothing_else(program, task):
    data, model = task
    software = program.accuracy(model, data)
    columns = program.deployed(model, [H.ReadoutMismatch(0.3, 1.0)], 4, 0)
    assert (program.accuracy(columns, data) < software - 0.02).any()
    assert (program.fitted(columns, model, data) - software).abs().max() < 0.006  # two of 360 images: float32
    cells = program.deployed(model, [H.StuckAt(0.3, on=0.5)], 4, 0)
    assert (program.fitted(cells, model, data) < software - 0.1).all()


def test_a_digital_last_layer_learns_on_what_the_first_one_shows(program, task):
    data, model = task
    stages = [H.StuckAt(0.1, on=0.5), H.OutputNoise(0.05)]
    before = program.accuracy(program.deployed(model, stages, 4, 0), data)
    after = program.last_layer(program.deployed(model, stages, 4, 0), model, data, 3e-3, epochs=4)
    assert (after > before + 0.1).all()


def test_credit_teaches_and_shaking_does_not(program, task):
    data, model = task
    stages = [H.StuckAt(0.1, on=0.5), H.OutputNoise(0.05)]
    gain = {}
    for rule in ("noise", "shuffled", "backpropagation"):
        hw = program.deployed(model, stages, 8, 0)
        path = program.learn(hw, data, rule, 3e-3, epochs=5)
        gain[rule] = (path[-1] - path[0]).mean()
    assert gain["backpropagation"] > gain["noise"] > gain["shuffled"] + 0.1


def test_the_step_size_is_the_best_of_those_tried(program, monkeypatch):
    monkeypatch.setattr(program, "STEPS", (1e-6, 1e-2))
    row = program.chosen("backpropagation")
    assert set(row["tried"]) == {1e-6, 1e-2} and row["lr"] == max(row["tried"], key=row["tried"].get)


def test_a_prepared_net_is_less_hurt_by_what_it_was_prepared_for(program, task):
    data, model = task
    careful = program.trained(data, 0, prepare=True)
    plain, prepared = (
        program.accuracy(program.deployed(net, program.DEFECTS, 16, 0), data).mean() for net in (model, careful)
    )
    assert prepared > plain
    assert torch.equal(program.trained(data, 0)[0].weight, model[0].weight)


def test_the_junction_is_as_large_as_the_noise_that_it_replaces(program):
    telegraph, white = program.junction()
    process = telegraph.process
    assert process.amplitude**2 + white.sd**2 == pytest.approx(0.05**2)
    assert process.amplitude / white.sd == pytest.approx(5.9316154 / 0.90841466)
    assert process.autocovariance(1e-6) / process.autocovariance(0.0) == pytest.approx(1 - 2 * 0.0809)
