"""Node noise: its estimate against the gradient, exactly where chance can be taken out and by intervals elsewhere."""

import copy
import math

import pytest
import torch
from node_nets import NETS, OneHot, build, estimate, run, start
from torch import nn
from torch.nn import functional as F

import zolib as zo
from zolib.nodes import Nodes
from zolib.tangent import Exact

FEEDBACKS = [zo.TwoPoint(), zo.OneSided()]
name_of = dict(ids=lambda f: type(f).__name__)


@pytest.mark.parametrize("feedback", [*FEEDBACKS, Exact()], **name_of)
@pytest.mark.parametrize("one_each", [False, True], ids=["scalar", "per-example"])
@pytest.mark.parametrize("net", NETS)
def test_all_units_one_after_another_give_the_gradient(net, one_each, feedback, generator):
    """No chance in it: with each unit shaken in turn, the sum over units is the chain rule."""
    model, closure, true = build(net, generator, one_each)
    probe = Nodes()
    units = OneHot(start(closure, model, probe), one_each)
    experiment = start(closure, model, probe, samples=units.units)
    experiment.noise = units
    sigma = 1e-5 if isinstance(feedback, zo.TwoPoint) else 1e-7
    pairs = run(experiment, feedback, sigma).pairs
    size = max(g.abs().max().item() for g in true if g is not None)
    # float64 differences: the rounding error 1e-16/sigma and the curvature, sigma^2 or sigma
    allowed = {zo.TwoPoint: 1e-8, zo.OneSided: 1e-5, Exact: 1e-12}[type(feedback)] * size
    found = {id(p): g * units.units for p, g in pairs}
    assert len(found) == sum(g is not None for g in true)
    for (name, p), g in zip(model.named_parameters(), true, strict=True):
        if g is not None:
            assert (found[id(p)] - g).abs().max().item() <= allowed, name


SLOPES = ["mlp", "cnn", "rnn", "lstm", "gru", "attention"]
FAMILY = 8 * len(SLOPES) * 2 * 2 * 2  # at most eight parameters each


@pytest.mark.parametrize("feedback", FEEDBACKS, **name_of)
@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
@pytest.mark.parametrize("one_each", [False, True], ids=["scalar", "per-example"])
@pytest.mark.parametrize("net", SLOPES)
def test_slope_one_for_each_parameter(net, one_each, law, feedback, seed, generator, half_width):
    model, closure, true = build(net, generator, one_each)
    rows = [
        estimate(closure, model, Nodes(law), feedback, seed=seed, step=step, samples=12).pairs for step in range(24)
    ]
    for i, g in enumerate(true):
        slopes = torch.stack([(row[i][1] * g).sum() / g.square().sum() for row in rows])
        assert abs(slopes.mean().item() - 1) <= half_width(slopes, FAMILY).item()


def test_the_estimate_is_the_sum_it_says_it_is(seed, generator):
    """Slope times noise times input, for one example after another."""
    layer, x = nn.Linear(3, 2).double(), torch.randn(4, 3, generator=generator, dtype=torch.float64)

    def losses(a):
        return a.pow(3).sum(dim=1) + a.prod(dim=1)

    experiment = start(lambda: losses(layer(x)), layer, Nodes("rademacher"), seed=seed, samples=3)
    (_, weight), (_, bias) = run(experiment, zo.TwoPoint(), sigma=0.1).pairs
    again = start(lambda: losses(layer(x)), layer, Nodes("rademacher"), seed=seed, samples=3)
    sites, _ = again._run(lambda site, a: a)
    z = torch.stack([again.noise(sites[0], k) for k in range(3)]).double()
    assert z.abs().eq(1).all() and len(z.unique(dim=0)) == 3
    a = layer(x).detach()
    slopes = torch.stack([(losses(a + 0.1 * row) - losses(a - 0.1 * row)) / 0.2 for row in z])  # (samples, examples)
    assert torch.allclose(weight, torch.einsum("kb,kbi,bj->ij", slopes, z, x) / 12, rtol=1e-12)
    assert torch.allclose(bias, torch.einsum("kb,kbi->i", slopes, z) / 12, rtol=1e-12)


# --- second moments ---------------------------------------------------------------------------------------------------

MOMENTS = 8


@pytest.mark.parametrize(("law", "samples"), [("gaussian", 1), ("gaussian", 4), ("rademacher", 1), ("rademacher", 4)])
def test_second_moment_for_a_linear_layer(law, samples, seed, half_width):
    """(M + K + 1)/K times the gradient's for M outputs and Gaussian noise, (M + K - 1)/K for signs."""
    outputs, replicates = 7, 600
    layer, x = nn.Linear(5, outputs, bias=False).double(), torch.linspace(-1, 1, 5, dtype=torch.float64)
    slope = torch.linspace(-1, 2, outputs, dtype=torch.float64)
    true = torch.outer(slope, x)
    ratios = []
    for step in range(replicates):
        e = estimate(lambda: layer(x) @ slope, layer, Nodes(law), zo.TwoPoint(), seed=seed, step=step, samples=samples)
        ratios.append(e.pairs[0][1].square().sum() / true.square().sum())
    ratios = torch.stack(ratios)
    predicted = (outputs + samples + (1 if law == "gaussian" else -1)) / samples
    assert abs(ratios.mean().item() - predicted) <= half_width(ratios, MOMENTS).item() + 1e-9


@pytest.mark.parametrize("examples", [1, 4, 16])
def test_with_one_loss_per_example_the_variance_falls_with_the_batch(examples, seed, generator, half_width):
    """Total variance (q + 1)/B^2 sum_b |g_b|^2 |x_b|^2 for q outputs, independent noise (Ren et al. 2023, table 1)."""
    outputs, replicates = 5, 800
    layer = nn.Linear(4, outputs, bias=False).double()
    x = F.normalize(torch.randn(examples, 4, generator=generator, dtype=torch.float64), dim=1)
    g = F.normalize(torch.randn(examples, outputs, generator=generator, dtype=torch.float64), dim=1)
    true = g.T @ x / examples
    rows = []
    for step in range(replicates):
        e = estimate(lambda: (layer(x) * g).sum(dim=1), layer, Nodes(), zo.TwoPoint(), seed=seed, step=step)
        rows.append((e.pairs[0][1] - true).square().sum())
    rows = torch.stack(rows)
    assert abs(rows.mean().item() - (outputs + 1) / examples) <= half_width(rows, MOMENTS).item()


@pytest.mark.parametrize("samples", [1, 8, 32])
def test_cosine_of_a_deep_net_grows_with_samples_as_predicted(samples, seed, generator, half_width):
    """E<g_hat, G>^2 and E|g_hat|^2, whose ratio is the squared cosine, from the layers' Jacobians alone."""
    net = nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(4, 4), nn.Tanh())), nn.Linear(4, 1)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.7)
    x = torch.randn(2, 4, generator=generator, dtype=torch.float64)

    def closure():
        return net(x).sin().sum()

    activities, h = [], x  # backpropagation by hand, to each pre-activation
    for layer in net:
        h = layer(h)
        if isinstance(layer, nn.Linear):
            activities.append((layer, h))
    slopes = torch.autograd.grad(h.sin().sum(), [a for _, a in activities], retain_graph=True)
    u = torch.cat([s.flatten() for s in slopes])  # slope along each unit
    columns, offset = [], 0
    for layer, a in activities:  # what one unit's noise leaves in the weights
        for i in range(a.numel()):
            unit = torch.zeros(a.numel(), dtype=torch.float64)
            unit[i] = 1
            gs = torch.autograd.grad(a, list(layer.parameters()), unit.view(a.shape), retain_graph=True)
            columns.append((offset, torch.cat([g.flatten() for g in gs])))
        offset += columns[-1][1].numel()
    eligible = torch.zeros(offset, len(u), dtype=torch.float64)
    for j, (start_row, column) in enumerate(columns):
        eligible[start_row : start_row + len(column), j] = column
    true = eligible @ u
    net.zero_grad()
    closure().backward()
    assert torch.allclose(true, torch.cat([p.grad.flatten() for p in net.parameters()]))

    size, back = true.square().sum(), eligible.T @ true
    one = (u.square().sum() * eligible.square().sum() + 2 * size - size) / size  # variance of one sample, over |G|^2
    along = (u.square().sum() * back.square().sum() + (u @ back) ** 2) / size**2  # of its part along G
    norms, dots = [], []
    for step in range(120):
        e = estimate(closure, net, Nodes(), zo.TwoPoint(), 1e-4, seed=seed, step=step, samples=samples)
        g = torch.cat([g.flatten() for _, g in e.pairs])
        norms.append(g.square().sum() / size)
        dots.append(((g @ true) / size) ** 2)
    norms, dots = torch.stack(norms), torch.stack(dots)
    assert abs(norms.mean() - (1 + one / samples)) <= half_width(norms, MOMENTS)
    assert abs(dots.mean() - (1 + along / samples)) <= half_width(dots, MOMENTS)


# --- noise and state --------------------------------------------------------------------------------------------------


def test_noise_is_the_same_for_the_same_seed_and_shared_by_a_pair(seed, generator):
    model, closure, _ = build("mlp", generator, False)
    first, same, other = (
        estimate(closure, model, Nodes(), zo.TwoPoint(), seed=s, step=3, samples=2).pairs
        for s in (seed, seed, seed + 1)
    )
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, same, strict=True))
    assert not torch.equal(first[0][1], other[0][1])
    linear = nn.Linear(3, 2).double()
    seen = []
    x = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    estimate(lambda: seen.append(linear(x)) or seen[-1].sum(), linear, Nodes(), zo.TwoPoint(), 1e-3, seed=seed)
    with torch.no_grad():
        assert torch.allclose((seen[0] + seen[1]) / 2, linear(x), atol=1e-15)
        assert 0.2 < ((seen[0] - seen[1]) / 2e-3).std() < 3


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_noise_does_not_depend_on_how_it_is_chunked(law, seed, generator, monkeypatch):
    model, closure, _ = build("mlp", generator, True)
    at_once = estimate(closure, model, Nodes(law), zo.TwoPoint(), seed=seed, samples=5).pairs
    monkeypatch.setattr("zolib.on_nodes.CHUNK", 1)
    assert all(
        torch.equal(a, b)
        for (_, a), (_, b) in zip(
            at_once, estimate(closure, model, Nodes(law), zo.TwoPoint(), seed=seed, samples=5).pairs, strict=True
        )
    )


def test_nothing_is_written_and_the_random_state_is_that_of_one_evaluation(generator):
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5, affine=False), nn.Dropout(0.5), nn.Linear(5, 2))
    x = torch.randn(6, 4, generator=generator)
    twin = copy.deepcopy(net)
    before = copy.deepcopy(net.state_dict())
    torch.manual_seed(3)
    twin(x)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    experiment = start(lambda: net(x).square().mean(), net, Nodes(), samples=2)
    state = experiment.state()
    losses = []
    for k, scale in [(0, 1e-3), (0, -1e-3), (1, 1e-3), (None, 0.0)]:
        state.restore()
        with torch.no_grad():
            losses.append(experiment.evaluate(k, scale))
    assert max(losses) - min(losses) < 0.02, "all evaluations see the same dropout mask"
    assert torch.equal(torch.get_rng_state(), after)
    for name, value in net.state_dict().items():
        expected = before if "running" not in name and "num_batches" not in name else twin.state_dict()
        assert torch.equal(value, expected[name]), name
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_a_buffer_as_input_and_an_activation_written_in_place(generator):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(3, 4), nn.Linear(4, 2)
            self.register_buffer("x", torch.randn(5, 3, generator=generator))

        def forward(self):
            return self.outer(F.relu(self.inner(self.x), inplace=True))

    net = Net()
    e = estimate(lambda: net().square().mean(), net, Nodes(), zo.TwoPoint(), 1e-2, samples=300)
    net().square().mean().backward()
    g, true = (
        torch.cat([t.flatten() for t in ts]) for ts in ([g for _, g in e.pairs], [p.grad for p in net.parameters()])
    )
    assert F.cosine_similarity(g, true, dim=0) > 0.8


def test_modules_that_hand_on_the_same_output_shake_it_once(generator):
    """A wrapper's output is its layer's: one operation, one noise."""
    layer = nn.Linear(3, 2)
    net = nn.Sequential(nn.Sequential(layer), nn.Identity(), nn.Dropout(0.0))
    x = torch.randn(4, 3, generator=generator)
    experiment = start(lambda: net(x).sum(), net, Nodes())
    sites, _ = experiment._run(lambda site, a: a)
    assert [tuple(s.shape) for s in sites] == [(4, 2)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_activations_round_stochastically(dtype, seed):
    """At sigma far below the spacing of the numbers, noise arrives on average."""
    layer = nn.Linear(1, 1, bias=False).to(dtype)
    layer.weight.data.fill_(1.0)
    x = torch.ones(20_000, 1, dtype=dtype)
    seen = []
    experiment = start(lambda: seen.append(layer(x).float()) or seen[-1].sum(), layer, Nodes("rademacher"), seed=seed)
    sites, _ = experiment._run(lambda site, a: a)
    with torch.no_grad():
        experiment.evaluate(0, 1e-4)
    z = experiment.noise(sites[0], 0)
    slope = ((seen[-1] - 1) * z).mean().item() / 1e-4
    spacing = torch.finfo(dtype).eps
    assert abs(slope - 1) <= 4 * math.sqrt(spacing / 1e-4 / len(x))
