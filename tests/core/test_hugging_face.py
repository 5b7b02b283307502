"""Transformers as they come: small random OPT, Llama and BERT, unmodified, trained by MeZO."""

import copy
import os

import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded: the models are built from their configurations
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

import zolib as zo  # noqa: E402

SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def opt_():
    config = transformers.OPTConfig(**SIZES, ffn_dim=64, max_position_embeddings=32, word_embed_proj_dim=32)
    return transformers.OPTForCausalLM(config)


def llama():
    config = transformers.LlamaConfig(**SIZES, intermediate_size=64, num_key_value_heads=2, tie_word_embeddings=False)
    return transformers.LlamaForCausalLM(config)


def llama_tied():
    config = transformers.LlamaConfig(**SIZES, intermediate_size=64, num_key_value_heads=4, tie_word_embeddings=True)
    return transformers.LlamaForCausalLM(config)


def bert():
    return transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, intermediate_size=64))


def bert_classifier():
    config = transformers.BertConfig(**SIZES, intermediate_size=64, num_labels=2)
    return transformers.BertForSequenceClassification(config)


MODELS = {f.__name__.strip("_"): f for f in (opt_, llama, llama_tied, bert, bert_classifier)}
TIED = {"opt", "llama_tied", "bert"}
every = pytest.mark.parametrize("name", MODELS)


@pytest.fixture
def problem(name, seed, generator):
    """A model in training mode, dropout included, and a closure on a fixed batch of (4, 12) tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS[name]().train()
    tokens = torch.randint(64, (4, 12), generator=generator)
    labels = torch.tensor([0, 1, 1, 0]) if name == "bert_classifier" else tokens
    return model, lambda: model(input_ids=tokens, labels=labels).loss


@every
def test_the_loss_falls(problem, name):
    model, closure = problem
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    assert (outputs is not None and outputs.weight is inputs.weight) == (name in TIED)
    with torch.no_grad():
        model.eval()
        first = closure().item()
        model.train()
    opt = zo.MeZO(model, lr=1e-2, samples=4, normalize=0.9)
    for _ in range(60):
        opt.step(closure)
    model.eval()
    assert closure().item() < 0.97 * first
    if outputs is not None and name in TIED:
        assert outputs.weight is inputs.weight


@every
def test_a_step_is_backward_and_sgd(problem, name, seed):
    model, closure = problem
    twin = copy.deepcopy(model.state_dict())
    torch.manual_seed(1)
    one = zo.MeZO(model, lr=1e-3, seed=seed).step(closure)
    ends = {n: p.detach().clone() for n, p in model.named_parameters()}
    model.load_state_dict(twin)
    torch.manual_seed(1)
    other = zo.backward(closure, model, seed=seed)
    torch.optim.SGD(model.parameters(), lr=1e-3).step()
    assert torch.equal(one, other)
    for n, p in model.named_parameters():
        assert torch.allclose(p, ends[n], rtol=1e-6, atol=1e-7), n


@pytest.mark.parametrize("name", ["llama_tied"])
def test_in_bfloat16_with_groups_and_a_journal(problem, name, tmp_path):
    """Decay for matrices only, a schedule, half precision; then the same weights from the journal."""
    model, closure = problem
    model.to(torch.bfloat16)
    inner, closure = closure, lambda: inner().float()
    start = copy.deepcopy(model)
    matrices = [p for p in model.parameters() if p.ndim > 1]
    gains = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": gains}]
    opt = zo.MeZO(groups, lr=3e-4, sigma=1e-2, samples=2, normalize=0.9, journal=tmp_path / "run", model=model)
    schedule = transformers.get_linear_schedule_with_warmup(opt, 5, 40)
    losses = []
    for _ in range(40):
        losses.append(opt.step(closure).item())
        schedule.step()
    assert sum(losses[-5:]) < sum(losses[:5])
    again = [p for p in start.parameters() if p.ndim > 1] + [p for p in start.parameters() if p.ndim < 2]
    assert zo.Journal(tmp_path / "run").replay(again) == 40
    assert all(torch.equal(p, q) for p, q in zip(start.parameters(), model.parameters(), strict=True))
