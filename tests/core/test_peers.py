"""Wrong gradients and wrong noise that were found in other zeroth-order code, each as a test of ours.

The page book/correctness.md says where each was found, and names the test.
"""

import copy

import pytest
import torch
from torch import nn

import zolib as zo
from zolib.noise import stream
from zolib.probes import Target

GRADIENT = torch.linspace(-1, 2, 12, dtype=torch.float64).view(3, 4)


def linear(x):
    """Gradient GRADIENT; the value at zero is not zero."""
    return (GRADIENT * x).sum() + 0.7


def slopes(g):
    """Of 64 estimates, along the gradient."""
    estimates = torch.stack([g(torch.zeros_like(GRADIENT), step=step) for step in range(64)])
    return (estimates * GRADIENT).sum(dim=(1, 2)) / GRADIENT.square().sum()


def draw(law, seed, parameter=0, sample=0, step=0, count=64):
    return stream.draw(law, seed, step, range(sample, sample + 1), [(parameter, count)])[0][0]


# --- the size of an estimate ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.1, 1e-3])
def test_a_difference_is_divided_by_sigma_once(sigma, seed, half_width):
    """One multiplied by sigma where it had to divide: sigma^2 times too small."""
    found = slopes(zo.grad(linear, feedback="one-sided", samples=32, sigma=sigma, seed=seed))
    assert abs(found.mean() - 1) <= half_width(found, 2)


def test_the_base_value_survives_many_samples(seed):
    """One overwrote the value at theta by the first difference: the more samples in a call, the worse."""
    found = zo.grad(linear, feedback="one-sided", samples=4000, sigma=0.1, seed=seed)(torch.zeros_like(GRADIENT))
    assert torch.cosine_similarity(found.flatten(), GRADIENT.flatten(), dim=0) > 0.99


@pytest.mark.parametrize("probe", ["gaussian", "rademacher", "sphere", "coordinate", "low-rank", "orthogonal"])
def test_every_law_has_unit_variance(probe, seed, half_width):
    """One passed a variance where its sampler wanted a standard deviation; one drew noise of variance 1/12."""
    samples = {"coordinate": 6, "orthogonal": 8}.get(probe, 32)
    found = slopes(zo.grad(linear, probe=probe, samples=samples, sigma=0.01, seed=seed))
    assert abs(found.mean() - 1) <= half_width(found, 6)


def test_every_direction_counts():
    """One kept only the last of its directions."""
    f = torch.Tensor.sum
    x = torch.zeros(5, dtype=torch.float64)
    one, two = (
        zo.grad(f, probe="rademacher", samples=1, sigma=0.1, seed=0),
        zo.grad(f, probe="rademacher", samples=2, sigma=0.1, seed=0),
    )
    z = torch.stack([draw(stream.SIGN, 0, sample=k, count=5) for k in range(2)]).double()
    assert torch.allclose(one(x), z[0] * z[0].sum())
    assert torch.allclose(two(x), (z * z.sum(dim=1, keepdim=True)).mean(dim=0))


def test_scores_use_the_spread_of_their_own_group(seed, generator):
    """One centred the scores of each group, and divided by the deviation of all of them."""
    layer, x = nn.Linear(3, 2).double(), torch.randn(4, 3, generator=generator, dtype=torch.float64)
    wider = torch.tensor([1.0, 100.0, 1.0, 1.0], dtype=torch.float64)

    def estimate(scale):
        losses = lambda: scale * layer(x).pow(3).sum(dim=1)  # noqa: E731
        found = zo.estimate(losses, layer, probe="nodes", feedback="z-scores", samples=6, sigma=0.1, seed=seed)
        return torch.cat([g.flatten() for _, g in found.gradients()])

    assert torch.allclose(estimate(wider), estimate(torch.ones_like(wider)), rtol=1e-10)


# --- the noise --------------------------------------------------------------------------------------------------------


def test_layers_of_one_shape_have_their_own_noise():
    """Reseeding inside the loop over parameters gave layers of the same shape identical noise."""
    net = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    zo.backward(lambda: net(torch.ones(1, 4)).sum(), net, seed=0)
    a, b = (p.grad.sign() for p in net.parameters())
    assert not torch.equal(a, b) and not torch.equal(a, -b)


@pytest.mark.parametrize("law", [stream.SIGN, stream.NORMAL])
def test_consecutive_seeds_share_no_noise(law):
    """Seeds made by adding let the noise of one purpose return as that of another at the next seed."""
    drawn = {}
    for seed in range(8):
        for parameter in range(4):
            for sample in range(4):
                key = tuple(draw(law, seed, parameter, sample).tolist())
                assert key not in drawn, f"{(seed, parameter, sample)} repeats {drawn[key]}"
                drawn[key] = (seed, parameter, sample)


def test_factors_of_low_rank_noise_share_nothing():
    """The same, for the two factors of a low-rank direction and for plain noise of the next seeds."""
    vectors, places = [], []
    target = [Target(0, 0, "x", torch.zeros(6, 6))]
    for seed in range(16):
        z = zo.LowRank(1).draw(target, 36, seed, 0, range(1))[0].view(6, 6)  # a b^T
        plain = zo.Gaussian().draw(target, 36, seed, 0, range(1))[0].view(6, 6)
        vectors += [z[:, 0], z[0], *plain]
        places += [seed] * 8
    unit = torch.nn.functional.normalize(torch.stack(vectors), dim=1)
    same = (unit @ unit.T).abs() > 0.9999
    elsewhere = torch.tensor(places).unsqueeze(0) != torch.tensor(places).unsqueeze(1)
    assert not (same & elsewhere).any()
    assert not same[0::8, 1::8].any(), "the two factors differ"


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_noise_is_of_low_rank(rank, seed, generator):
    """One summed its factors entry by entry, which leaves full rank at any number of them."""
    layer, x = nn.Linear(48, 48, bias=False), torch.randn(8, 48, generator=generator)
    closure = lambda: layer(x).square().mean()  # noqa: E731
    [(_, g)] = zo.estimate(closure, layer, probe=zo.LowRank(rank), samples=1, seed=seed).gradients()
    assert torch.linalg.matrix_rank(g, rtol=1e-5) == rank


def test_the_direction_added_is_the_one_probed():
    """Reseeding per parameter made the update's noise differ from the probe's from the second parameter on."""
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    seen = []
    x = torch.eye(3)

    def closure():
        seen.append([net[0](x).T.clone(), net[1](x).T.clone()])  # the perturbed weights themselves
        return net(x).sum()

    zo.backward(closure, net, samples=2, sigma=0.5, seed=3)
    losses = [(w[0].T @ w[1].T).sum() for w in seen]
    coefficients = [(losses[0] - losses[1]) / 1.0, (losses[2] - losses[3]) / 1.0]
    for j, p in enumerate(net.parameters()):
        expected = sum(c * (seen[2 * k][j] - seen[2 * k + 1][j]) for k, c in enumerate(coefficients)) / 2
        assert torch.allclose(p.grad, expected, atol=1e-5)


def test_inputs_beyond_4096_count(seed, generator):
    """A kernel read the first 4,096 inputs of a layer and no more."""
    layer, x = nn.Linear(5000, 3, bias=False), torch.randn(2, 5000, generator=generator)
    seen = []
    zo.backward(lambda: seen.append(layer(x)) or seen[-1].sum(), layer, probe="rademacher", sigma=0.5, seed=seed)
    z = draw(stream.SIGN, seed, count=15_000).view(3, 5000)
    for sign, found in zip((1, -1), seen, strict=True):
        assert torch.allclose(found, x @ (layer.weight + sign * 0.5 * z).T, rtol=1e-4, atol=1e-3)


def test_seed_zero_is_a_seed():
    """One read seed 0 as 'no seed'."""
    g = zo.grad(torch.Tensor.sum, samples=3, seed=0)
    assert torch.equal(g(torch.ones(4)), g(torch.ones(4)))
    fresh = zo.grad(torch.Tensor.sum, samples=3)
    assert not torch.equal(fresh(torch.ones(4)), fresh(torch.ones(4)))


# --- what is left behind ----------------------------------------------------------------------------------------------


def test_an_estimate_does_not_move_the_weights():
    """One kept its backup as an alias of the live weights; others restore by arithmetic and drift."""
    net = nn.Linear(4, 3)
    before, live = copy.deepcopy(net.state_dict()), dict(net.named_parameters())
    zo.backward(lambda: net(torch.ones(2, 4)).square().mean(), live.values(), samples=50, sigma=0.3, seed=0)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_training_mode_is_left_as_it_is():
    """One called model.eval() for its passes and never undid it."""
    net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    seen = []
    zo.backward(lambda: seen.append(net.training) or net(torch.ones(2, 3)).mean(), net, samples=2, seed=0)
    assert seen == [True] * 4 and net.training


def test_a_pair_sees_the_same_dropout_mask():
    net = nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.5))
    masks = []

    def closure():
        out = net(torch.ones(1, 3))
        masks.append(out.eq(0))
        return out.mean()

    zo.backward(closure, net, samples=3, sigma=1e-4, seed=0)
    assert all(torch.equal(masks[0], m) for m in masks)
    assert 10 < masks[0].sum() < 54


def test_bfloat16_gains_are_probed():
    """In bfloat16 a probe of 1e-3 on a LayerNorm gain of 1 is rounded away: 97 % of perturbations vanished."""
    norm = nn.LayerNorm(64).bfloat16()
    x = torch.linspace(-2, 2, 64)

    def closure():
        return (x * norm.weight.float() + norm.bias.float()).sum()

    rows = []
    for step in range(200):
        zo.backward(closure, norm, samples=8, sigma=1e-3, seed=0, step=step)
        rows.append(norm.weight.grad.float())
        norm.zero_grad()
    slope = (torch.stack(rows) @ x / x.square().sum()).mean()
    assert slope == pytest.approx(1.0, abs=0.2)
