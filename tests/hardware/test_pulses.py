"""Weights that pulses move: sent once, at the next read, and then the cells' own affair."""

import pytest
import torch
from torch import nn

import zolib as zo
from zolib import hardware as H

QUIET = {"d2d": 0.0, "c2c": 0.0, "up_down_d2d": 0.0, "bound_d2d": 0.0}


def layer(n_chips=None, seed=0, law=None, w_max=2.0):
    model = nn.Linear(4, 3).double()
    model.weight.data.uniform_(-1, 1)
    return H.deploy(model, H.Chip([law or H.ConstantStep(0.01, **QUIET)], n_chips, seed), w_max=w_max)


def state(hw):
    """The weights as the cells have them."""
    with torch.no_grad():
        hw(torch.zeros(1, 4, dtype=torch.float64))
    return hw.tiles()[0].effective.clone()


def test_a_new_chip_holds_the_weights():
    """The first write is verified: exact, within the bounds of each cell."""
    hw = layer()
    assert torch.allclose(state(hw), hw.weight)
    tight = layer(law=H.ConstantStep(0.01, **{**QUIET, "bound_d2d": 0.3}), w_max=1.0)
    law = tight.tiles()[0].cells.law
    bounded = torch.maximum(torch.minimum(tight.weight, law.top), law.bottom)
    assert torch.allclose(state(tight), bounded) and not torch.allclose(bounded, tight.weight)


def test_pulses_are_sent_once_at_the_next_read():
    """1.5 of a change is 75 pulses of 0.02 in weight; nothing happens before the read, and nothing after."""
    hw = layer()
    before, x = state(hw), torch.zeros(1, 4, dtype=torch.float64)
    with torch.no_grad():
        hw.weight[0, 0] -= 0.5
        assert hw.counters.pulses == 0
        hw(x)
        assert hw.counters.pulses == 25
        hw(x), hw(x)
    assert hw.counters.pulses == 25
    expected = before.clone()
    expected[0, 0] -= 0.5
    assert torch.allclose(state(hw), expected)
    assert hw.counters.writes == 2 * 12  # the first one


def test_what_cells_do_does_not_come_back_to_the_parameters(seed):
    hw = layer(seed=seed, law=H.SoftBounds(step=0.01))
    with torch.no_grad():
        hw.weight += 0.3
    kept = hw.weight.clone()
    assert not torch.allclose(state(hw), kept, atol=0.01)
    assert torch.equal(hw.weight, kept)


def test_changes_add_up_from_where_the_parameter_was_last_read():
    """Two steps before a read are one train of their sum."""
    hw = layer()
    before = state(hw)
    with torch.no_grad():
        hw.weight[1, 1] += 0.4
        hw.weight[1, 1] -= 0.36
    after = state(hw)
    assert hw.counters.pulses == 2
    assert torch.allclose((after - before)[1, 1], torch.tensor(0.04, dtype=torch.float64))


def test_a_pair_of_evaluations_sees_one_update(seed):
    """Probing sends no pulses of its own, and the state after the first evaluation is not set back."""
    hw = layer(seed=seed, law=H.SoftBounds(step=0.01))
    seen = []

    def closure():
        loss = hw(torch.ones(2, 4, dtype=torch.float64)).square().mean()
        seen.append((hw.tiles()[0].effective.clone(), hw.counters.pulses))
        return loss

    with torch.no_grad():
        hw.weight += 0.1
    zo.backward(closure, hw, samples=3, seed=seed)
    assert len(seen) == 6 and seen[0][1] > 0
    assert all(torch.equal(w, seen[0][0]) and n == seen[0][1] for w, n in seen)


def test_a_probe_shakes_the_stored_state(seed):
    """As far as the parameter is shaken, wherever the cells are: slopes by all coordinates are exact."""
    hw = layer(seed=seed, law=H.SoftBounds(step=0.01, bound_d2d=0.0))
    with torch.no_grad():
        hw.weight += 0.3
    x = torch.randn(5, 4, dtype=torch.float64)
    closure = lambda: hw(x).pow(2).sum()  # noqa: E731
    true = torch.autograd.grad(closure(), hw.weight)[0]
    zo.backward(closure, hw, probe="coordinate", samples=15, sigma=1e-4)
    assert torch.allclose(hw.weight.grad, true, rtol=1e-6)


def test_a_train_ends_when_the_range_is_crossed_twice():
    hw = layer()
    with torch.no_grad():
        hw.weight[0, 0] = 1e9
    state(hw)
    assert hw.counters.pulses == hw.tiles()[0].cells.law.longest == 400


def test_noise_differs_from_pulse_to_pulse_and_from_cell_to_cell(seed):
    """Two runs of ten pulses from the same state: other noise each time, none shared between cells."""
    cells = H.Chip([H.ConstantStep(0.001, **{**QUIET, "c2c": 0.5})], seed=seed).cells(1000)
    moves = []
    for _ in range(2):
        cells.program(12.5)
        cells.pulse(torch.full((1000,), 0.01))
        moves.append(cells.mapping.join(cells.g, 0))
    moves = torch.stack(moves)
    assert moves.std(dim=1).min() > 0.5 * 0.001 * 10**0.5 * 0.8
    assert abs(torch.corrcoef(moves)[0, 1]) < 5 / 1000**0.5


def test_the_reference_stays(seed):
    hw = layer(seed=seed)
    reference = hw.tiles()[0].cells.g[1].clone()
    with torch.no_grad():
        hw.weight += 0.2
    state(hw)
    assert torch.equal(hw.tiles()[0].cells.g[1], reference) and (reference == 12.5).all()


def test_pulses_and_cell_stages_go_together(seed):
    """Drift starts anew where a pulse came."""
    hw = H.deploy(nn.Linear(2, 2), H.Chip([H.ConstantStep(0.01, **QUIET), H.Drift(0.1)], seed=seed), w_max=2.0)
    hw.age(100.0)
    with torch.no_grad():
        hw.weight[0, 0] += 0.4
        hw(torch.zeros(1, 2))
    age = hw.tiles()[0].cells.age()
    assert age[0, 0, 0] == 0 and (age.flatten()[1:] == 100).all()


@pytest.mark.parametrize("stages", [[], [H.PCMProgramming()]])
def test_no_pulses_without_a_law(stages):
    cells = H.Chip(stages).cells(4)
    with pytest.raises(ValueError, match="no update law"):
        cells.pulse(torch.zeros(4))


def test_a_cell_has_one_law():
    with pytest.raises(ValueError, match="ConstantStep and SoftBounds are both update laws"):
        H.Chip([H.ConstantStep(), H.SoftBounds()])
