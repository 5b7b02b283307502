"""A population gives each member's loss as if its weights had been written, and the estimate that zo.estimate gives."""

import copy
import gc
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from zoo import HOSTILE

import zolib as zo
from zolib.noise.factored import Weight

hostile = pytest.mark.parametrize("build", HOSTILE.values(), ids=HOSTILE.keys())
ranks = pytest.mark.parametrize("rank", [1, 2, None])

#: No vmap can carry these, and their members are evaluated one after another.
ALONE = {"custom_function_without_a_backward", "through_numpy", "batch_norm_in_training"}


def written(model, values, loss):
    """The loss with a member's values written into the parameters; state is left as it is after that."""
    saved = {name: p.detach().clone() for name, p in model.named_parameters()}
    try:
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(values[name])
            return float(loss(model))
    finally:
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(saved[name])


def each_written(pop, model, loss):
    buffers = copy.deepcopy(dict(model.named_buffers()))
    state = torch.get_rng_state()
    losses = []
    for k in range(pop.size):
        torch.set_rng_state(state)
        with torch.no_grad():
            for name, b in model.named_buffers():
                b.copy_(buffers[name])
        losses.append(written(model, pop.member(k), loss))
    return torch.tensor(losses)


@hostile
@ranks
def test_losses_state_and_weights_are_those_of_written_members(build, rank, seed, generator):
    module, closure = build(generator)
    twin = copy.deepcopy(module.state_dict())
    pop = zo.Population(module, size=6, sigma=0.1, rank=rank, seed=seed)
    torch.manual_seed(5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        losses = pop.evaluate(lambda m: closure())
    state = torch.get_rng_state()
    one_by_one = [w for w in caught if "one after another" in str(w.message)]
    assert len(one_by_one) == (build.__name__ in ALONE)
    assert all(torch.equal(p, twin[name]) for name, p in module.named_parameters())
    after = {name: b.clone() for name, b in module.named_buffers()}
    module.load_state_dict(twin)
    torch.manual_seed(5)
    expected = each_written(pop, module, lambda m: closure())
    # sums in another order: float32 rounding of losses that are of order one
    assert torch.allclose(losses, expected, rtol=2e-6, atol=5e-7)
    assert expected.std() > 1e-4, "the members do not differ: this case shows nothing"
    assert torch.equal(state, torch.get_rng_state())
    for name, b in module.named_buffers():  # of the last member
        assert torch.allclose(after[name].double(), b.double(), rtol=1e-5)


class Net(nn.Module):
    """Attention, an embedding, a convolution, norms: tokens (B, 6) in, (B, 3) out."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.convolution = nn.Conv1d(8, 8, 3, padding=1, groups=2)
        self.head = nn.Linear(8, 3)

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        x = x + torch.tanh(self.convolution(x.mT)).mT
        return self.head(x.mean(dim=1))


def classify(model, x, y):
    return F.cross_entropy(model(x), y)


def task(generator, rows=32):
    tokens = torch.randint(11, (rows, 6), generator=generator)
    return tokens, (tokens.sum(dim=1) > 30).long()


LAWS = [
    {"rank": 1},
    {"rank": 3},
    {"rank": None},
    {"rank": None, "probe": "rademacher"},
    {"rank": None, "probe": "sphere"},
    {"rank": None, "probe": zo.Orthogonal(4)},
    {"rank": None, "probe": "coordinate"},
]


@pytest.mark.parametrize("feedback", ["ranks", "z-scores", "two-point", "utilities"])
@pytest.mark.parametrize("law", LAWS, ids=str)
def test_tell_gives_the_estimate_of_estimate(law, feedback, seed, generator):
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    x = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    pop = zo.Population(model, 12, 0.3, seed=seed, feedback=feedback, **law)
    for step in (0, 1):
        model.zero_grad()
        found = pop.tell(pop.evaluate(lambda m, x: m(x).square().mean(), x))
        assert pop.step == step + 1
        shaped = {"ranks": zo.Ranks(), "z-scores": zo.ZScores(), "utilities": zo.Utilities(antithetic=True)}
        other = zo.estimate(
            lambda: model(x).square().mean(),
            model,
            probe=pop.probe,
            feedback=shaped.get(feedback, feedback),
            samples=6,
            sigma=0.3,
            seed=seed,
            step=step,
        )
        assert torch.allclose(found.loss.double(), other.loss, rtol=1e-6)
        for (p, g), q in zip(other.gradients(), model.parameters(), strict=True):
            assert p is q and torch.allclose(g, q.grad, rtol=1e-4, atol=1e-6)
        again = zo.Replay.from_dict(found.to_dict(), found.targets)
        for a, p in zip(again.dense(), model.parameters(), strict=True):  # factors are summed in float32
            assert torch.allclose(a, p.grad, rtol=1e-5, atol=1e-6)


def test_members_without_a_mirror(seed, generator):
    model, x = nn.Linear(3, 2), torch.randn(7, 3, generator=generator)
    pop = zo.Population(model, 5, 0.1, antithetic=False, seed=seed)
    expected = each_written(pop, model, lambda m: m(x).square().mean())
    assert torch.allclose(pop.evaluate(lambda m: m(x).square().mean()), expected, rtol=2e-6)
    pop.tell(expected)
    other = zo.estimate(
        lambda: model(x).square().mean(),
        model,
        probe=zo.LowRank(1),
        feedback=zo.Ranks(antithetic=False),
        samples=5,
        sigma=0.1,
        seed=seed,
    )
    assert all(torch.allclose(g, p.grad, rtol=1e-5) for p, g in other.gradients())


def test_mirrored_members_are_neighbours(seed):
    model = nn.Linear(3, 2)
    pop = zo.Population(model, 4, 0.1, seed=seed)
    for i in (0, 1):
        plus, minus = pop.member(2 * i), pop.member(2 * i + 1)
        for name, p in model.named_parameters():
            assert torch.allclose((plus[name] + minus[name]) / 2, p, atol=1e-7)
            assert not torch.equal(plus[name], minus[name])
    assert torch.linalg.matrix_rank(pop.member(0)["weight"] - model.weight, rtol=1e-4) == 1


@pytest.mark.parametrize("chunk", [1, 2, 5, 64])
@pytest.mark.parametrize("rank", [2, None])
def test_chunks_change_nothing(chunk, rank, seed, generator):
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.BatchNorm1d(6, track_running_stats=False))
    x = torch.randn(5, 4, generator=generator)
    calls, results = [], []
    for c in (None, chunk):
        pop = zo.Population(model, 8, 0.1, rank, seed=seed, chunk=c)
        torch.manual_seed(1)
        losses = pop.evaluate(lambda m, x: (calls.append(1), torch.tanh(m(x)).square().mean())[1], x)
        results.append((losses, torch.get_rng_state()))
    assert len(calls) == 1 + -(-8 // max(2, chunk + chunk % 2))  # whole pairs
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-6)
    assert torch.equal(results[0][1], results[1][1])


def test_large_models_are_drawn_piece_by_piece(seed, generator, monkeypatch):
    model, (x, y) = Net(), task(generator)
    results = []
    for numbers in (1 << 21, 1):
        monkeypatch.setattr("zolib.on_members.CHUNK", numbers)
        pop = zo.Population(model, 8, 0.1, 2, seed=seed)
        losses = pop.evaluate(classify, x, y)
        results.append((losses, [g for _, g in pop.tell(losses).gradients()]))
    assert torch.equal(results[0][0], results[1][0])
    for whole, pieces in zip(results[0][1], results[1][1], strict=True):
        assert torch.allclose(whole, pieces, rtol=1e-4, atol=1e-6)


@ranks
def test_a_batch_for_each_member(rank, seed, generator):
    model, (x, y) = Net(), task(generator, 6 * 4)
    x, y = x.view(6, 4, 6), y.view(6, 4)
    pop = zo.Population(model, 6, 0.1, rank, seed=seed)
    losses = pop.evaluate(lambda m, batch, scale: classify(m, *batch) * scale, (x, y), 2.0, per_member=True)
    expected = [written(model, pop.member(k), lambda m, k=k: classify(m, x[k], y[k]) * 2) for k in range(6)]
    assert torch.allclose(losses, torch.tensor(expected), rtol=2e-6)
    alone = zo.Population(model, 6, 0.1, rank, seed=seed)
    alone._members.alone = True
    one_by_one = alone.evaluate(lambda m, batch, scale: classify(m, *batch) * scale, (x, y), 2.0, per_member=True)
    assert torch.allclose(losses, one_by_one, rtol=2e-6)


def sdpa(mask=None, **settings):
    def forward(w, x):  # x: (2, 5, 8)
        q, k, v = ((x @ m).unflatten(2, (2, 4)).transpose(1, 2) for m in w[:3])
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **settings)

    return forward


def masked_by_members(w, x):
    return sdpa(mask=(x @ w[1]).mean(-1)[:, None, None, :].expand(-1, 2, 5, -1))(w, x)


def shared_queries(w, x):
    q = x.unflatten(2, (2, 4)).transpose(1, 2)
    return F.scaled_dot_product_attention(q, q, (x @ w[0]).unflatten(2, (2, 4)).transpose(1, 2))


FUNCTIONS = {
    "linear with keywords": lambda w, x: F.linear(weight=w[0], bias=w[3], input=x),
    "linear of one row": lambda w, x: F.linear(x[0, 0], w[0], w[3]),
    "linear without rows": lambda w, x: F.linear(x[:0], w[0], w[3]).sum() + (w[0] + w[1] + w[3]).mean(),
    "linear twice": lambda w, x: F.linear(F.linear(x, w[0]), w[0], w[3]),
    "linear of a weight": lambda w, x: F.linear(w[0], w[1], w[3]),
    "bias of another shape": lambda w, x: torch.addmm(w[1], x.flatten(0, 1)[:8], w[0]),
    "addmm": lambda w, x: torch.addmm(w[3], x.flatten(0, 1), w[0]),
    "addmm with scales": lambda w, x: torch.addmm(w[3], x.flatten(0, 1), w[0], beta=0.5, alpha=2.0),
    "addmm of a weight and an input": lambda w, x: torch.addmm(w[3], w[0], x[0].mT[:, :5] @ x[0]),
    "on the left": lambda w, x: w[0] @ x.mT,
    "on the left of a vector": lambda w, x: torch.mv(w[0], x[0, 0]),
    "from the right": lambda w, x: x.__matmul__(w[0]) + w[0].__rmatmul__(x) + torch.matmul(x, w[0].t()),
    "between weights": lambda w, x: x @ (w[0] @ w[1]),
    "views": lambda w, x: x @ w[0].transpose(0, 1).transpose(-1, -2) + x @ w[0].detach().T + x @ w[1].data.mT,
    "chunks": lambda w, x: x @ w[0].chunk(2)[1].T + F.linear(x, w[0].split(4)[0]) + x @ w[0].T.chunk(2, dim=-1)[0],
    "methods of a view": lambda w, x: x.flatten() @ w[0].T.reshape(-1).repeat(2)[:80] + w[0].data.view(-1)[3],
    "einsum": lambda w, x: torch.einsum("bti,oi->bto", x, w[0]),
    "a vmap inside": lambda w, x: torch.vmap(lambda row: w[0] @ row + F.linear(row, w[1], w[3]))(x.flatten(0, 1)),
    "a gradient inside": lambda w, x: torch.func.grad(lambda y: torch.tanh(F.linear(y, w[0], w[3])).sum())(x),
    "attention": sdpa(),
    "causal attention": sdpa(is_causal=True),
    "masked attention": sdpa(mask=torch.eye(5).bool()),
    "attention with a mask for each example": sdpa(mask=torch.eye(5).repeat(2, 1, 1, 1)),
    "attention with a mask of the members": masked_by_members,
    "attention with common queries": shared_queries,
    "attention with dropout": sdpa(dropout_p=0.5),
    "autocast": lambda w, x: torch.autocast("cpu", torch.bfloat16)(lambda: F.linear(x, w[0], w[3]).float())(),
}


@pytest.mark.parametrize("rank", [1, 3, None])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functional_code(name, rank, seed, generator):
    w = [nn.Parameter(torch.randn(8, 8, generator=generator)) for _ in range(3)]
    w.append(nn.Parameter(torch.randn(8, generator=generator)))
    x = torch.randn(2, 5, 8, generator=generator)

    def loss(w):
        return torch.tanh(FUNCTIONS[name](w, x)).square().sum() / 10

    pop = zo.Population(w, 6, 0.05, rank, seed=seed, unused="skip")
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # nothing here needs a loop
        losses = pop.evaluate(loss)
    expected = []
    for k in range(6):
        torch.manual_seed(3)
        with torch.no_grad():
            expected.append(loss(list(pop.member(k).values())))
    tolerance = 2e-2 if name == "autocast" else 5e-6  # bfloat16 rounds the activations
    assert torch.allclose(losses, torch.stack(expected), rtol=tolerance)


def test_a_transformer_of_hugging_face(seed, generator):
    transformers = pytest.importorskip("transformers")
    settings = transformers.GPT2Config(vocab_size=17, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(settings).train()
    tokens = torch.randint(17, (3, 8), generator=generator)

    def loss(m):
        return m(input_ids=tokens, labels=tokens).loss

    pop = zo.Population(model, 4, 0.05, seed=seed)
    torch.manual_seed(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        losses = pop.evaluate(loss)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.allclose(losses, each_written(pop, model, loss), rtol=5e-6)
    assert torch.equal(state, torch.get_rng_state())


class Largest(torch.utils._python_dispatch.TorchDispatchMode):
    """The most numbers in one tensor that an operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in torch.utils._pytree.tree_leaves(out):
            if isinstance(t, torch.Tensor):
                self.numel = max(self.numel, t.untyped_storage().nbytes() // t.element_size())
        return out


def test_low_rank_writes_out_no_members_weights(seed, generator):
    class Wide(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(64, 64)
            self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
            self.cell = nn.GRU(64, 64, batch_first=True)
            self.convolution = nn.Conv1d(64, 64, 3, padding=1)
            self.matrix = nn.Parameter(torch.randn(64, 64) / 8)

        def forward(self, tokens):
            x = self.embedding(tokens)
            x = self.cell(self.attention(x, x, x)[0])[0]
            return self.convolution(x.mT).mT @ self.matrix

    model, tokens = Wide(), torch.randint(64, (1, 3), generator=generator)
    largest = {}
    for rank in (1, None):
        pop = zo.Population(model, 64, 0.02, rank, seed=seed)
        with Largest() as found:
            losses = pop.evaluate(lambda m: m(tokens).square().mean())
            pop.tell(losses)
        largest[rank] = found.numel
    # of 64 members, one matrix each of 64 x 64: three times that in the attention's and the recurrent projections
    assert largest[None] >= 64 * 3 * 64 * 64
    assert largest[1] < 64 * 64 * 64


def test_nothing_of_an_evaluation_is_kept(seed, generator):
    model, (x, y) = Net(), task(generator)
    pop = zo.Population(model, 8, 0.02, seed=seed)
    gc.collect()
    gc.disable()  # a cycle would keep the factors, and all that they hold, until the collector comes by
    try:
        pop.evaluate(classify, x, y)
        assert not any(issubclass(type(o), Weight) for o in gc.get_objects())
    finally:
        gc.enable()


@pytest.mark.parametrize("kind", ["perceptron", "net"])
@pytest.mark.parametrize("rank", [1, None])
def test_losses_fall(kind, rank, seed, generator):
    torch.manual_seed(seed % (1 << 32))
    if kind == "net":
        model, (x, y) = Net(), task(generator)
    else:
        model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 3))
        x = torch.randn(32, 4, generator=generator)
        y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    pop = zo.Population(model, 48, 0.05, rank, seed=seed, optimizer=optimizer, feedback="z-scores")
    before = classify(model, x, y).item()
    for _ in range(30):
        pop.tell(pop.evaluate(classify, x, y))
    assert all(p.grad is None for p in model.parameters())
    assert classify(model, x, y).item() < before / 2


def test_evaluations_elsewhere(seed, generator):
    model, x = nn.Linear(3, 1), torch.randn(16, 3, generator=generator)
    pop = zo.Population(model, 4, 0.1, seed=seed)
    rewards = [-torch.func.functional_call(model, pop.member(k), (x,)).square().mean().item() for k in range(4)]
    pop.tell([-r for r in rewards])
    there = [p.grad for p in model.parameters()]
    model.zero_grad()
    here = zo.Population(model, 4, 0.1, seed=seed)
    here.tell(here.evaluate(lambda m: m(x).square().mean()))
    assert all(torch.equal(g, p.grad) for g, p in zip(there, model.parameters(), strict=True))
    here.tell(here.evaluate(lambda m: m(x).square().mean()))  # as after backward()
    assert not any(torch.equal(g, p.grad) for g, p in zip(there, model.parameters(), strict=True))


def test_a_run_goes_on_from_its_state(seed, generator):
    def run(stop):
        torch.manual_seed(0)
        model, x = nn.Linear(3, 1), torch.ones(4, 3)
        new = lambda: zo.Population(  # noqa: E731
            model, 4, 0.1, seed=seed, antithetic=False, feedback="reward-prediction-error"
        )
        pop = new()
        for step in range(4):
            if step == stop:
                state = pop.state_dict()
                pop = new()
                pop.load_state_dict(state)
            pop.tell(pop.evaluate(lambda m: m(x).square().mean()))
        return model.weight.grad

    assert torch.equal(run(2), run(None))
    other = zo.Population(nn.Linear(3, 1), 4, 0.1)
    with pytest.raises(ValueError, match="state: its size is 6, that of this population 4"):
        other.load_state_dict(zo.Population(nn.Linear(3, 1), 6, 0.1).state_dict())
    assert other.step == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@ranks
def test_half_precision_loses_no_perturbation(dtype, rank, seed, generator, half_width):
    """Each member's loss moves as in float32, gains of 1 included, whose spacing is above the probe size."""
    model = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.Linear(32, 8))
    x = torch.randn(512, 16, generator=generator)
    exact = zo.Population(model, 128, 2e-3, rank, seed=seed)
    half = copy.deepcopy(model).to(dtype)
    for p, q in zip(model.parameters(), half.parameters(), strict=True):
        p.data.copy_(q)  # the same weights
    losses = exact.evaluate(lambda m: torch.tanh(m(x)).square().mean())
    pop = zo.Population(half, 128, 2e-3, rank, seed=seed)
    found = pop.evaluate(lambda m: torch.tanh(m(x.to(dtype)).float()).square().mean())
    moved, expected = found.view(-1, 2).diff(), losses.view(-1, 2).diff()  # by each mirrored pair
    excess = ((moved - expected) * expected / expected.square().mean()).flatten()  # its mean: the slope, less 1
    assert abs(excess.mean()) < half_width(excess, 12) < 0.1
    gain = torch.stack([pop.member(k)["1.weight"].float() - 1 for k in range(128)])
    z = torch.stack([exact.member(k)["1.weight"] - 1 for k in range(128)])
    pull = (gain * z).mean(dim=1) / z.square().mean()
    assert abs(pull.mean() - 1) < half_width(pull, 12) < 0.2


def test_it_warns_once_and_goes_on(seed, generator):
    module, closure = HOSTILE["batch_norm_in_training"](generator)
    pop = zo.Population(module, 4, seed=seed)
    with pytest.warns(
        RuntimeWarning, match="one after another, since they cannot be batched: RuntimeError: Batch norm"
    ):
        first = pop.evaluate(lambda m: closure())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(first, pop.evaluate(lambda m: closure()))


def test_idle_parameters(seed):
    model = nn.ModuleList([nn.Linear(3, 2), nn.Linear(3, 2)])
    f = lambda m: m[0](torch.ones(4, 3)).square().mean()  # noqa: E731
    with pytest.raises(zo.ParameterError, match=r"never consumed parameter '1.weight', '1.bias'.*f\(model, ...\) runs"):
        zo.Population(model, 4).evaluate(f)
    pop = zo.Population(model, 4, seed=seed, unused="skip")
    pop.tell(pop.evaluate(f))
    assert model[0].weight.grad is not None and model[1].weight.grad is None
    model[0].requires_grad_(False)
    assert set(zo.Population(model, 4).member(0)) == {"1.weight", "1.bias"}


LINEAR = nn.Linear(3, 2)

REFUSED = {
    "odd": ({"size": 5}, ValueError, "size=5 is odd, .* make it even, or pass antithetic=False"),
    "empty": ({"size": 0}, ValueError, "size must be at least 1"),
    "alone": ({"size": 1, "antithetic": False}, ValueError, "size=1: Ranks .* needs at least 2"),
    "rank of 0": ({"rank": 0}, ValueError, "rank must be at least 1"),
    "rank too large": ({"rank": 3}, ValueError, "rank=3: no matrix of the model has a rank above 2.*use rank=None"),
    "rank of 1.5": ({"rank": 1.5}, TypeError, "rank must be a whole number"),
    "sigma": ({"sigma": -1.0}, ValueError, "sigma must be a positive"),
    "two laws": ({"probe": "gaussian"}, ValueError, "pass rank=None with it"),
    "nodes": ({"rank": None, "probe": "nodes"}, ValueError, "draws no direction for the parameters"),
    "a clean pass": ({"feedback": "one-sided"}, ValueError, "needs the unperturbed model"),
    "not mirrored": ({"feedback": zo.Ranks(antithetic=False)}, ValueError, "pass antithetic=False"),
    "mirrored": ({"feedback": "two-point", "antithetic": False}, ValueError, "pass antithetic=True"),
    "optimizer": ({"optimizer": torch.optim.SGD}, TypeError, "must be a torch.optim.Optimizer"),
    "chunk": ({"chunk": 0}, ValueError, "chunk must be at least 1"),
    "unused": ({"unused": "ignore"}, ValueError, "unused must be"),
    "scripted": ({"model": torch.jit.script(nn.Linear(3, 2))}, zo.ParameterError, "ScriptModule"),
    "frozen": ({"model": nn.Linear(3, 2).requires_grad_(False)}, zo.ParameterError, "frozen"),
    "lazy": ({"model": nn.LazyLinear(2)}, zo.ParameterError, "no shape yet"),
    "no model": ({"model": 3}, TypeError, "model must be a module"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused(case):
    settings, error, message = REFUSED[case]
    with pytest.raises(error, match=f"(?s){message}"):
        zo.Population(**{"model": LINEAR, "size": 8} | settings)


def test_bad_evaluations_are_refused_and_change_nothing(generator):
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2, momentum=0.5))
    x = torch.randn(5, 3, generator=generator)
    pop = zo.Population(model, 4, seed=0)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()

    def broken(m, x):
        torch.rand(3)
        return m(x).undefined

    def writes(m, x):
        m[0].weight.data.mul_(2)
        return m(x).sum()

    refused = [
        (model, (), {}, TypeError, "f must be a function"),
        (None, (), {}, TypeError, "f must be a function"),
        (lambda m, x: m(x), (x,), {}, zo.LossError, r"f\(model, ...\) returned a loss of shape \(5, 2\)"),
        (lambda m, x: m(x).sum().bfloat16(), (x,), {}, zo.LossError, "bfloat16 loss"),
        (lambda m, x: None, (x,), {}, zo.ParameterError, "never consumed"),
        (lambda m, x: m(x).sum(), (x,), {"per_member": True}, ValueError, r"\(5, 3\) has no leading axis of 4"),
        (lambda m, x: m(x).sum().backward(), (x,), {}, RuntimeError, r"called backward\(\)"),
        (writes, (x,), {}, zo.ParameterError, "writes in place to parameter '0.weight'"),
        (broken, (x,), {}, AttributeError, "undefined"),
    ]
    for f, args, settings, error, message in refused:
        with pytest.raises(error, match=message):
            pop.evaluate(f, *args, **settings)
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()), message
        assert torch.equal(state, torch.get_rng_state()), message
    with pytest.raises(ValueError, match="from 0 to 3, got 4"):
        pop.member(4)


def test_bad_losses_are_refused_and_change_nothing():
    model = nn.Linear(3, 2)
    pop = zo.Population(model, 4, seed=0)
    with pytest.raises(RuntimeError, match=r"tell\(\) ends step 0, and no member of it was evaluated"):
        pop.tell(torch.zeros(4))
    losses = pop.evaluate(lambda m: m(torch.ones(5, 3)).sum())
    with pytest.raises(ValueError, match=r"losses must have shape \(4,\).* got \(3,\)"):
        pop.tell(losses[:3])
    with pytest.raises(zo.LossError, match=r"the loss of member 1 is nan \(2 of 4 are not finite\)"):
        pop.tell([1.0, float("nan"), 2.0, float("inf")])
    assert pop.step == 0 and model.weight.grad is None
    pop.tell(losses)
    with pytest.raises(RuntimeError, match=r"tell\(\) ends step 1"):  # the losses of another step
        pop.tell(losses)

    class Broken(torch.optim.SGD):
        def step(self):
            raise RuntimeError("no step")

    pop = zo.Population(model, 4, seed=0, optimizer=Broken(model.parameters()))
    model.zero_grad()
    with pytest.raises(RuntimeError, match="no step"):
        pop.tell(pop.evaluate(lambda m: m(torch.ones(5, 3)).sum()))
    assert pop.step == 0 and model.weight.grad is None
