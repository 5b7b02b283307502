"""The shared problems: the same data and network everywhere, and a flat loss that is the network's own."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from zolib import problems


def test_digits_are_what_they_say():
    data = problems.digits()
    assert data.x.shape == (1437, 64) and data.x_test.shape == (360, 64)
    assert data.x.dtype == torch.float32 and data.y.dtype == torch.int64
    assert data.x.min() == 0 and data.x.max() == 1
    together = torch.cat([data.y, data.y_test])
    assert together.bincount().tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # scikit-learn's counts


def test_no_digit_is_in_both_parts():
    data = problems.digits(test=300, dtype=torch.float64)
    train, test = ({row.numpy().tobytes() for row in part} for part in (data.x, data.x_test))
    assert len(train) + len(test) == len(train | test)


@pytest.mark.parametrize("test", [0, 1797, -1])
def test_digits_refuse_an_empty_part(test):
    with pytest.raises(ValueError, match="test="):
        problems.digits(test=test)


def test_the_book_network_has_8970_weights_in_its_range():
    model = problems.mlp()
    assert sum(p.numel() for p in model.parameters()) == 8970
    assert [type(layer) for layer in model] == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    for parameter in model.parameters():
        assert parameter.abs().max() <= 1 / 8
    weight = model[0].weight
    assert weight.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.03)


def test_the_network_depends_on_its_seed_alone():
    torch.manual_seed(1)
    one = problems.mlp(seed=3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    two = problems.mlp(seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one[0].weight, problems.mlp(seed=4)[0].weight)


def test_every_precision_starts_from_the_same_network():
    exact = problems.mlp(dtype=torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        for a, b in zip(exact.parameters(), problems.mlp(dtype=dtype).parameters(), strict=True):
            assert torch.equal(a.to(dtype), b)


def test_mlp_refuses_one_size():
    with pytest.raises(ValueError, match="sizes="):
        problems.mlp((64,))


@pytest.fixture
def small():
    data = problems.digits(dtype=torch.float64)
    model = problems.mlp((64, 8, 10), dtype=torch.float64)
    return model, data.x[:32], data.y[:32]


def test_flat_loss_is_the_models_own_loss(small):
    model, x, y = small
    loss, theta = problems.flat_loss(model, x, y)
    assert loss(theta).item() == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-12)
    nn.functional.cross_entropy(model(x), y).backward()
    own = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    torch.testing.assert_close(torch.func.grad(loss)(theta), own)


def test_flat_loss_takes_many_points_at_once(small):
    loss, theta = problems.flat_loss(*small)
    points = theta + 0.1 * torch.randn(5, len(theta), generator=torch.Generator().manual_seed(0), dtype=theta.dtype)
    torch.testing.assert_close(loss(points), torch.stack([loss(p) for p in points]))


def test_flat_loss_holds_a_copy(small):
    model, x, y = small
    _, theta = problems.flat_loss(model, x, y)
    before = model[0].weight.detach().clone()
    theta += 1
    assert torch.equal(model[0].weight, before)


def test_flat_loss_ends_in_float32_for_half_precision(small):
    loss, theta = problems.flat_loss(*small)
    value = loss(theta.bfloat16())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(theta).item(), abs=0.02)
    assert loss(theta.float()).item() != value.item()


@pytest.mark.parametrize("shape", [(3,), (2, 2, 602)])
def test_flat_loss_refuses_points_of_another_shape(small, shape):
    loss, _ = problems.flat_loss(*small)
    with pytest.raises(ValueError, match="points of shape"):
        loss(torch.zeros(shape, dtype=torch.float64))


def test_power_law():
    np.testing.assert_allclose(problems.power_law(4, 2.0), [1, 1 / 4, 1 / 9, 1 / 16])
    np.testing.assert_array_equal(problems.power_law(3, 0.0), np.ones(3))
    with pytest.raises(ValueError, match="d=0"):
        problems.power_law(0, 1.0)


def test_mnist1d_is_the_published_set_and_leaves_global_generators_alone():
    random.seed(1)
    np.random.seed(1)
    before = random.getstate(), np.random.get_state()[1].copy()
    data = problems.mnist1d(dtype=torch.float64)
    assert random.getstate() == before[0] and np.array_equal(np.random.get_state()[1], before[1])
    assert data.x.shape == (4000, 40) and data.x_test.shape == (1000, 40)
    assert torch.cat([data.y, data.y_test]).bincount().tolist() == [500] * 10
    together = torch.cat([data.x, data.x_test])
    assert abs(together.mean()) < 1e-12 and together.std(correction=0).item() == pytest.approx(1)
    assert torch.equal(data.x, problems.mnist1d(dtype=torch.float64).x)


def test_a_record_is_read_and_an_unknown_one_refused():
    assert problems.recorded("perturbing-digits.json")["rows"]
    assert problems.recorded("pretraining.npz")["weights-10000000"].shape == (116_480,)
    with pytest.raises(FileNotFoundError, match="perturbing-digits.json"):
        problems.recorded("perturbing-letters.json")


def test_the_transformer_is_causal_tied_and_the_same_from_the_same_seed():
    before = torch.get_rng_state()
    model = problems.Transformer(width=16, heads=2, context=12, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    tokens = torch.arange(24).view(2, 12)
    logits = model(tokens)
    assert logits.shape == (2, 12, 128)
    changed = tokens.clone()
    changed[:, 7:] = 100
    torch.testing.assert_close(model(changed)[:, :7], logits[:, :7])
    assert not torch.allclose(model(changed)[:, 7:], logits[:, 7:])
    again = problems.Transformer(width=16, heads=2, context=12, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert sum(p.numel() for p in problems.Transformer().parameters()) == 116_480
