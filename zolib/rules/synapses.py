"""What a synapse can know: one forward pass with noise on the nodes, and a local factor for each weight from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils import _pytree as pytree

from zolib.noise import stream
from zolib.noise.preactivations import PreActivations
from zolib.noise.seeds import as_seed, own
from zolib.subject import Subject

_RULES = 0x7275  # keys of its own


@dataclass(frozen=True)
class Node:
    """A pre-activation of one pass: what arrived, what was added, and the way back to its synapses.

    value: as it went on, noise included.  noise: z, standard normal; None in a clean pass.  axis: of the examples.
    """

    edge: GradientEdge
    value: Tensor
    noise: Tensor | None
    axis: int


class Synapses:
    """The trainable weights of a module, and what each can see of a pass: input times something of its own node.

    Args:
        model: The module.
        sigma: Noise on each pre-activation, in its units.
        batch_dim: The axis of the pre-activations that runs over replicas or examples.
        seed: Each pass draws its own noise from it.
    """

    def __init__(self, model: nn.Module, sigma: float, batch_dim: int = 0, seed: int | None = None):
        self._subject = Subject(lambda: None, model, "Nodes")
        self.parameters = [t.value for t in self._subject.targets]
        self.sigma, self._axis = sigma, batch_dim
        self._seed, self.passes = own(as_seed(seed), _RULES), 0
        self.nodes: list[Node] = []
        self._leaves: list[Tensor] = []

    @torch.no_grad()
    def run(self, f: Callable[[], Any], noisy: bool = True) -> Any:
        """f(), with fresh noise on the nodes, which are then at hand as ``nodes``; its result carries no graph."""
        nodes: list[Node] = []

        def node(output: Tensor, axis: int | None, behind: frozenset[int]) -> Tensor:
            edge, value, z = get_gradient_edge(output), output.detach(), None
            if noisy:
                part = [(len(nodes), value.numel())]
                drawn = stream.draw(stream.NORMAL, self._seed, self.passes, range(1), part, value.device)[0]
                z = drawn.view(value.shape).to(value.dtype)
                value = value + self.sigma * z
            # what follows may write into what it is given
            nodes.append(Node(edge, value.clone(), z, self._axis if axis is None else axis))
            return value

        subject = self._subject
        self._leaves = [p.detach().requires_grad_() for p in self.parameters]
        mode = PreActivations(
            self.parameters,
            subject.others,
            [t.name for t in subject.targets],
            self._leaves,
            [b for module in subject.modules for b in module.buffers(recurse=False)],
            node,
            skip=True,
        )
        with mode:
            out = f()
        self.nodes = nodes
        self.passes += 1
        return pytree.tree_map_only(Tensor, torch.Tensor.detach, out)

    def local(self, posts: Sequence[Tensor], each: int | None = None) -> list[Tensor]:
        """For each weight, the sum over its nodes of post times input; for the last pass, once.

        posts: one tensor for each node, of its shape.  each: keep that many replicas apart: (each, *shape) per weight.
        """
        edges = [n.edge for n in self.nodes]
        if each is None:
            found = torch.autograd.grad(edges, self._leaves, list(posts), allow_unused=True)
        else:
            alone = [_one_by_one(p, n.axis, each) for p, n in zip(posts, self.nodes, strict=True)]
            found = torch.autograd.grad(edges, self._leaves, alone, allow_unused=True, is_grads_batched=True)
        self.nodes = []
        lead = () if each is None else (each,)
        return [
            torch.zeros(lead + p.shape, dtype=p.dtype, device=p.device) if g is None else g
            for g, p in zip(found, self.parameters, strict=True)
        ]


def _one_by_one(post: Tensor, axis: int, each: int) -> Tensor:
    """(each, *shape): the s-th is post in replica s, and 0 elsewhere."""
    if not -post.ndim <= axis < post.ndim or post.shape[axis] != each:
        raise ValueError(
            f"{each} rewards, one for each replica, but a pre-activation has shape {tuple(post.shape)}, which has no "
            f"{each} along batch_dim={axis}; name that axis, or give one reward"
        )
    only = torch.eye(each, dtype=post.dtype, device=post.device)
    shape = [each] + [1] * post.ndim
    shape[1 + axis % post.ndim] = each
    return post.unsqueeze(0) * only.view(shape)
