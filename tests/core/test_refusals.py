"""Wrong use gets its own clear error, and leaves weights, gradients, buffers and generators as they were."""

import copy

import pytest
import torch
from torch import nn

import zolib as zo


@pytest.fixture
def net():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    return model


X = torch.linspace(-1, 1, 24).view(8, 3)


def refused(net, closure, error, match, model=None, **kwargs):
    """backward() raises, and nothing has changed."""
    state, rng = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    grads = [None if p.grad is None else p.grad.clone() for p in net.parameters()]
    with pytest.raises(error, match=match) as caught:
        zo.backward(closure, net if model is None else model, seed=0, **kwargs)
    assert all(torch.equal(state[k], v) for k, v in net.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    for g, p in zip(grads, net.parameters(), strict=True):
        assert (g is None and p.grad is None) or torch.equal(g, p.grad)
    return str(caught.value)


def test_a_vector_loss_with_a_parameter_probe(net):
    message = refused(net, lambda: net(X).square().sum(dim=1), zo.LossError, r"shape \(8,\)")
    assert "Rademacher" in message and ".mean()" in message
    refused(net, lambda: net(X).mean().view(1), zo.LossError, r"shape \(1,\)")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_half_precision_loss(net, dtype):
    message = refused(net, lambda: net(X).mean().to(dtype), zo.LossError, str(dtype).removeprefix("torch."))
    assert "float32" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("feedback", ["two-point", "one-sided"])
def test_a_loss_that_is_not_finite(net, value, feedback):
    calls = []

    def closure():
        calls.append(torch.rand(()))  # a closure that draws: the generator is set back too
        return net(X).mean() * (1.0 if len(calls) < 3 else value)

    refused(net, closure, zo.LossError, "the step is refused", feedback=feedback, samples=3)


def test_an_empty_parameter_list(net):
    refused(net, lambda: net(X).mean(), zo.ParameterError, "there is no parameter to probe", model=[])
    refused(net, lambda: net(X).mean(), zo.ParameterError, "there is no parameter to probe", model=nn.ReLU())
    refused(net, lambda: net(X).mean(), zo.ParameterError, "hold no element", model=[torch.zeros(0)])


def test_a_frozen_parameter_list(net):
    net.requires_grad_(False)
    for model in (net, list(net.parameters())):
        message = refused(net, lambda: net(X).mean(), zo.ParameterError, "all 6 parameters are frozen", model=model)
        assert "requires_grad_(True)" in message


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64])
def test_a_parameter_that_is_no_real_floating_point_number(net, dtype):
    bad = torch.zeros(3, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    refused(net, lambda: net(X).mean(), zo.ParameterError, name, model=[*net.parameters(), bad])
    with pytest.raises(zo.ParameterError, match=name):
        zo.grad(lambda t: t["a"].sum(), seed=0)({"a": bad})


def test_frozen_integers_of_a_module_are_left_alone(net):
    net.register_parameter("table", nn.Parameter(torch.arange(3), requires_grad=False))
    zo.backward(lambda: net(X).mean(), net, seed=0)


@pytest.mark.parametrize(
    ("sigma", "error"),
    [(0, ValueError), (-1e-3, ValueError), (float("nan"), ValueError), (float("inf"), ValueError), ("1e-3", TypeError)],
)
def test_a_sigma_that_is_no_probe_size(net, sigma, error):
    refused(net, lambda: net(X).mean(), error, "sigma must be", sigma=sigma)
    with pytest.raises(error, match="sigma must be"):
        zo.grad(torch.sum, sigma=sigma)


@pytest.mark.parametrize(
    ("samples", "error"), [(0, ValueError), (-1, ValueError), (2.0, TypeError), (True, ValueError)]
)
def test_samples_that_are_no_count(net, samples, error):
    refused(net, lambda: net(X).mean(), error, "samples must be", samples=samples)
    with pytest.raises(error, match="samples must be"):
        zo.grad(torch.sum, samples=samples)


def test_more_coordinates_than_there_are(net):
    message = refused(net, lambda: net(X).mean(), ValueError, "samples=35", probe="coordinate", samples=35)
    assert "34 coordinates" in message and "samples=34" in message


def test_a_parameter_never_consumed(net):
    net.add_module("idle", nn.Linear(2, 2))
    message = refused(net, lambda: net[2](net[1](net[0](X))).mean(), zo.ParameterError, "'idle.weight', 'idle.bias'")
    assert "unused='skip'" in message
    zo.backward(lambda: net[2](net[1](net[0](X))).mean(), net, unused="skip", seed=0)
    assert net.idle.weight.grad is None
    assert net[0].weight.grad.ne(7.0).any()


def test_a_closure_that_runs_another_model(net):
    other = copy.deepcopy(net)
    refused(net, lambda: other(X).mean(), zo.ParameterError, "never consumed", unused="skip")


def test_a_script_module(net):
    with pytest.warns(DeprecationWarning) if torch.__version__ >= "2.9" else __import__("contextlib").nullcontext():
        scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 4)))
    refused(net, lambda: scripted(X).mean(), zo.ParameterError, "is a ScriptModule", model=scripted)
    net.add_module("scripted", scripted)
    with pytest.raises(zo.ParameterError, match="'scripted' is a ScriptModule"):
        zo.backward(lambda: net.scripted(X).mean(), net)


def test_sharded_parameters_are_refused_by_name(net):
    class DTensor(nn.Parameter):  # torch's own needs a process group; the name is what is looked at
        pass

    class FSDPModule(nn.Module):
        def forward(self, x):
            return x

    with pytest.raises(zo.ParameterError, match="DTensor"):
        zo.backward(lambda: 0.0, [DTensor(torch.zeros(2))])
    net.add_module("shard", FSDPModule())
    with pytest.raises(zo.ParameterError, match="FSDP"):
        zo.backward(lambda: 0.0, net)


def test_a_lazy_or_sparse_parameter():
    with pytest.raises(zo.ParameterError, match="run one forward pass"):
        zo.backward(lambda: 0.0, nn.LazyLinear(3))
    with pytest.raises(zo.ParameterError, match="to_dense"):
        zo.backward(lambda: 0.0, [torch.eye(2).to_sparse()])


@pytest.mark.parametrize(
    "write",
    [
        lambda p: p.add_(1),
        lambda p: p.data.mul_(2),
        lambda p: p.detach().zero_(),
        lambda p: p.T.add_(1),
        lambda p: p.copy_(p * 2),
        lambda p: p.__setitem__(0, 1.0),
        lambda p: p.__iadd__(1),
        lambda p: setattr(p, "data", p * 2),
        lambda p: torch.add(p, 1, out=p),
        lambda p: torch._foreach_add_([p], 1.0),
        lambda p: nn.init.zeros_(p),
        lambda p: torch.ops.aten.add_.Scalar(p, 1),
    ],
)
@pytest.mark.parametrize("feedback", ["two-point", "one-sided"])
def test_a_closure_that_writes_a_parameter(net, write, feedback):
    def closure():
        loss = net(X).mean()
        write(net[0].weight)
        return loss

    refused(net, closure, zo.ParameterError, r"writes in place to parameter '0.weight'", feedback=feedback)


@pytest.mark.parametrize("view", [lambda p: p.T, lambda p: p.data, lambda p: p.detach(), lambda p: p.detach()[1:]])
def test_a_view_made_before_the_evaluation(net, view):
    with torch.no_grad():
        stale = view(net[0].weight)
    refused(
        net, lambda: net(X).mean() + stale.sum(), zo.ParameterError, "view of parameter '0.weight' that was made before"
    )


def test_a_closure_that_calls_backward(net):
    def closure():
        loss = net(X).mean()
        loss.backward()
        return loss

    refused(net, closure, RuntimeError, "delete the backward")


@pytest.mark.parametrize(("value", "match"), [(None, "return the loss"), ("low", "str"), ([1.0], "list")])
def test_a_closure_that_returns_no_number(net, value, match):
    refused(net, lambda: net(X).mean() and value, zo.LossError, match)


def test_a_complex_loss(net):
    refused(net, lambda: net(X).mean() * 1j, zo.LossError, "complex")


def test_arguments_in_the_wrong_order_or_of_the_wrong_kind(net):
    with pytest.raises(TypeError, match="the order is closure, model"):
        zo.backward(net, lambda: net(X).mean())
    with pytest.raises(TypeError, match="closure must be a function"):
        zo.backward(net(X).mean(), net)
    with pytest.raises(TypeError, match="model must be a module or an iterable"):
        zo.backward(lambda: 0.0, 3)
    with pytest.raises(TypeError, match="model must be a module or an iterable"):
        zo.backward(lambda: 0.0, torch.zeros(3))
    with pytest.raises(TypeError, match=r"model\[0\] is str, not a tensor"):
        zo.backward(lambda: 0.0, ["weight"])
    with pytest.raises(TypeError, match="f must be callable"):
        zo.grad(3)
    with pytest.raises(TypeError, match=r"x\['a'\] is float, not a tensor"):
        zo.grad(torch.sum)({"a": 1.0})
    with pytest.raises(zo.ParameterError, match="there is no parameter"):
        zo.grad(torch.sum)([])
    with pytest.raises(ValueError, match="step must be a whole number"):
        zo.grad(torch.sum)(torch.ones(2), step=-1)
    with pytest.raises(ValueError, match="unused must be 'raise' or 'skip'"):
        zo.backward(lambda: 0.0, net, unused="ignore")


def test_an_unknown_name_suggests_the_nearest(net):
    with pytest.raises(ValueError, match="Did you mean 'rademacher'"):
        zo.backward(lambda: net(X).mean(), net, probe="rademacher noise")
    with pytest.raises(ValueError, match="Did you mean 'two-point'"):
        zo.grad(torch.sum, feedback="twopoint")
    with pytest.raises(TypeError, match=r"pass an object, Gaussian\(\)"):
        zo.grad(torch.sum, probe=zo.Gaussian)
    with pytest.raises(TypeError, match="probe must be a Probe"):
        zo.grad(torch.sum, probe=3)


def test_numbers_and_integer_tensors_are_losses(net):
    """A simulator returns floats, an accuracy counts: values are all that is needed."""
    for convert in (float, lambda t: t.item(), lambda t: (t * 1000).long(), lambda t: t.numpy()[()]):
        assert zo.backward(lambda convert=convert: convert(net(X).mean().detach()), net, seed=0).ndim == 0


def test_an_integer_loss_is_reported_as_a_fraction():
    x = torch.zeros(4)
    values = iter([1, 2] * 2)
    loss = zo.backward(lambda: x.sum().long() * 0 + next(values), [x], samples=2, seed=0)
    assert loss.item() == 1.5


def test_the_same_tensor_twice():
    x = torch.ones(2, dtype=torch.float64)
    g = zo.grad(lambda t: (2 * t["a"] + 3 * t["b"]).sum(), probe="coordinate", samples=4, seed=0)({"a": x, "b": x})
    assert torch.allclose(g["a"], 2 * x) and torch.allclose(g["b"], 3 * x), "two inputs, as for torch.func.grad"
    zo.backward(lambda: (x * x).sum(), [x, x], probe="coordinate", samples=2, seed=0)
    assert torch.allclose(x.grad, 2 * x), "one parameter, as for an optimizer"


def test_f_may_write_its_input():
    x = torch.ones(3, dtype=torch.float64)
    g = zo.grad(lambda v: v.mul_(2).sum(), feedback="one-sided", probe="coordinate", samples=3, seed=0)
    assert torch.allclose(g(x), 2 * x) and torch.equal(x, torch.ones_like(x))


def test_zeroing_gradients_inside_the_closure_is_harmless(net):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def closure():
        optimizer.zero_grad()
        return net(X).mean()

    zo.backward(closure, net, seed=0)
    assert all(p.grad.abs().max() < 7 for p in net.parameters())
    optimizer.step()


def test_settings_of_the_process_do_not_matter(net):
    def estimate():
        net.zero_grad()
        zo.backward(lambda: net(X).square().mean(), net, probe="coordinate", samples=20, seed=0)
        return [p.grad for p in net.parameters()]

    plain = estimate()
    torch.set_default_dtype(torch.float64)
    try:
        assert all(torch.equal(a, b) for a, b in zip(plain, estimate(), strict=True))
    finally:
        torch.set_default_dtype(torch.float32)
    with torch.inference_mode():
        inside = estimate()
    assert all(torch.equal(a, b) and not b.is_inference() for a, b in zip(plain, inside, strict=True))
    with torch.device("meta"):  # a default device for new tensors
        assert all(torch.equal(a, b) for a, b in zip(plain, estimate(), strict=True))


def test_f_gets_its_other_arguments_and_x_is_not_written():
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    g = zo.grad(lambda v, a, b=1.0: a * b * v.sum(), probe="coordinate", samples=3, seed=0)
    assert torch.allclose(g(x, 2.0, b=3.0), torch.full((3,), 6.0, dtype=torch.float64))
    assert x.grad is None and torch.equal(x, torch.ones(3, dtype=torch.float64))


def test_a_function_that_draws_sees_the_same_draw_and_advances_once():
    torch.manual_seed(3)
    expected = torch.rand(2)[1]
    torch.manual_seed(3)
    estimate = zo.grad(lambda v: (v * torch.rand(())).sum(), samples=16, seed=0, sigma=0.1)(torch.ones(3))
    assert torch.equal(torch.rand(()), expected)
    torch.manual_seed(3)
    plain = zo.grad(lambda v: v.sum(), samples=16, seed=0, sigma=0.1)(torch.ones(3)) * torch.rand(())
    assert torch.allclose(estimate, plain, rtol=1e-4)
