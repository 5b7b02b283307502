"""The problems that several chapters share: real data that every reader has, and one small network.

Nothing here touches a global random state, and nothing is downloaded: the digits come with scikit-learn.
"""

import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap


class Digits(NamedTuple):
    """A set of labelled digits: inputs of shape (examples, n) and labels 0 to 9, shape (examples,)."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def digits(test: int = 360, dtype: torch.dtype = torch.float32) -> Digits:
    """scikit-learn's 1797 handwritten digits, 8 by 8 pixels in [0, 1], in one fixed random order.

    The last ``test`` of them are set apart for testing. Source: Alpaydin and Kaynak, "Optical recognition of
    handwritten digits", UCI Machine Learning Repository, 1998 (the part that scikit-learn ships).
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    if not 0 < test < len(labels):
        raise ValueError(f"test={test}: choose between 1 and {len(labels) - 1} examples to set apart")
    order = np.random.default_rng(0).permutation(len(labels))
    x = torch.from_numpy(pixels[order] / 16).to(dtype)
    y = torch.from_numpy(labels[order]).long()
    return Digits(x[:-test], y[:-test], x[-test:], y[-test:])


def mnist1d(dtype: torch.dtype = torch.float32) -> Digits:
    """MNIST-1D: ten shapes on a line of 40 points, shifted, sheared and noisy; 4,000 to train on, 1,000 to test.

    ``x`` has shape (examples, 40), mean 0 and standard deviation 1 over the whole set. The package ``mnist1d``
    (Apache-2.0) makes the set from its own default arguments and seed, without the network, in a second or two.
    Needs that package and SciPy; raises ImportError that says so. Source: Greydanus and Kobak, "Scaling down
    deep learning with MNIST-1D", ICML 2024.
    """
    try:
        from mnist1d.data import get_dataset_args, make_dataset
    except ImportError as error:
        raise ImportError("problems.mnist1d() needs the package mnist1d: pip install mnist1d") from error
    ours = random.getstate(), np.random.get_state()  # the package seeds both; give them back as they were
    try:
        made = make_dataset(get_dataset_args())
    finally:
        random.setstate(ours[0])
        np.random.set_state(ours[1])
    x, x_test = (torch.from_numpy(made[name]).to(dtype) for name in ("x", "x_test"))
    y, y_test = (torch.from_numpy(made[name]).long() for name in ("y", "y_test"))
    return Digits(x, y, x_test, y_test)


def mlp(
    sizes: tuple[int, ...] = (64, 64, 64, 10),
    activation: type[nn.Module] = nn.Tanh,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> nn.Sequential:
    """The network that the book carries: fully connected, 64-64-64-10 unless told otherwise (8,970 parameters).

    Weights and biases are uniform in (-1/sqrt(n), 1/sqrt(n)) for n inputs, torch's own default, but drawn from
    a generator of their own, in float64, and then rounded to ``dtype``: every precision starts from the same
    network.
    """
    if len(sizes) < 2:
        raise ValueError(f"sizes={sizes}: give at least the number of inputs and of outputs")
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layer = nn.utils.skip_init(nn.Linear, inputs, outputs, dtype=dtype)
        with torch.no_grad():
            for parameter in (layer.weight, layer.bias):
                uniform = torch.rand(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.copy_((2 * uniform - 1) / inputs**0.5)
        layers += [layer, activation()]
    return nn.Sequential(*layers[:-1])


def flat_loss(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """A network's training loss as a plain function of one long vector, for many vectors at once.

    Returns ``(loss, theta)``: ``theta`` holds a copy of all parameters, shape (d,); ``loss`` takes points of
    shape (d,) or (M, d) and returns the mean cross-entropy at each, a scalar or shape (M,). The points may have
    another floating dtype than the model: then the whole evaluation up to the logits is done in that dtype, the
    last step, from logits to loss, in float32 or wider.
    """
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    theta = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])

    def one(point: Tensor, inputs: Tensor) -> Tensor:
        pieces = point.split([shape.numel() for shape in shapes.values()])
        weights = {name: piece.view(shape) for (name, shape), piece in zip(shapes.items(), pieces, strict=True)}
        logits = functional_call(model, weights, (inputs,))
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        return nn.functional.cross_entropy(logits, y)

    def loss(points: Tensor) -> Tensor:
        if points.shape[-1:] != theta.shape or points.dim() > 2:
            raise ValueError(f"points of shape {tuple(points.shape)}: give (d,) or (M, d) with d = {len(theta)}")
        inputs = x.to(points.dtype)
        return one(points, inputs) if points.dim() == 1 else vmap(one, in_dims=(0, None))(points, inputs)

    return loss, theta


def recorded(name: str) -> dict:
    """A recorded result from ``data/``, as the script that made it wrote it: a dictionary, of arrays if it is ``.npz``.

    Raises FileNotFoundError, with the names there are, if there is none of that name.
    """
    here = Path(__file__).resolve().parent
    folder = here.parent / "data" if (here.parent / "data").is_dir() else here / "_data"
    file = folder / name
    if not file.is_file():
        known = ", ".join(sorted(f.name for f in folder.iterdir() if f.suffix in (".json", ".npz")))
        raise FileNotFoundError(f"name={name!r}: no such record; there are {known}")
    if file.suffix == ".npz":
        with np.load(file) as arrays:
            return dict(arrays)
    return json.loads(file.read_text(encoding="utf-8"))


def power_law(d: int, alpha: float) -> np.ndarray:
    """Curvatures that fall off as a power law: lambda_i = i^-alpha for i = 1..d, shape (d,).

    alpha = 0 curves alike in every direction; the larger alpha, the fewer directions carry the curvature.
    """
    if d < 1:
        raise ValueError(f"d={d}: there must be at least one direction")
    return np.arange(1.0, d + 1) ** -alpha


class Transformer(nn.Module):
    """A small language model over bytes: token ids of shape (B, T) to logits (B, T, 128), causal.

    Embeddings of 128 tokens (ASCII) and of ``context`` positions; ``layers`` blocks of attention and a GELU network
    four times as wide, each behind a LayerNorm and added to its input; a last LayerNorm; logits by the token embedding
    again (tied). With the defaults 116,480 parameters. Matrices are normal with standard deviation 0.02, drawn from a
    generator of their own; gains 1, biases 0.
    """

    def __init__(self, width: int = 64, layers: int = 2, heads: int = 4, context: int = 128, seed: int = 0):
        super().__init__()
        self.heads = heads
        self.token = nn.utils.skip_init(nn.Embedding, 128, width)
        self.place = nn.utils.skip_init(nn.Embedding, context, width)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(width),
                    "qkv": nn.utils.skip_init(nn.Linear, width, 3 * width),
                    "out": nn.utils.skip_init(nn.Linear, width, width),
                    "norm2": nn.LayerNorm(width),
                    "up": nn.utils.skip_init(nn.Linear, width, 4 * width),
                    "down": nn.utils.skip_init(nn.Linear, 4 * width, width),
                }
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02, generator=generator)
            elif "norm" not in name:
                nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.place.weight[: tokens.shape[-1]]
        for block in self.blocks:
            q, k, v = block["qkv"](block["norm"](x)).unflatten(-1, (3, self.heads, -1)).movedim((-3, -2), (0, -3))
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, heads, T, width / heads)
            x = x + block["out"](mixed.movedim(-3, -2).flatten(-2))
            x = x + block["down"](nn.functional.gelu(block["up"](block["norm2"](x))))
        return self.norm(x) @ self.token.weight.T
