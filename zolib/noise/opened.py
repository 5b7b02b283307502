"""Fused modules, opened: the same functions in plain operations, with each pre-activation in sight.

Each takes ``node`` before the arguments of the torch function that it stands for.  ``node(output, batch_dim)`` is
called with every pre-activation and returns what goes on in its place; with the identity, the result is the fused one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from zolib.errors import ParameterError

Node = Callable[[Tensor, int], Tensor]
# (node, W_ih x + b_ih, h -> W_hh h + b_hh, state) -> state; a state is (h,) or (h, c)
_Step = Callable[[Node, Tensor, Callable[[Tensor], Tensor], tuple[Tensor, ...]], tuple[Tensor, ...]]


def _simple(activation: Callable[[Tensor], Tensor]) -> _Step:
    def step(node: Node, given: Tensor, recurrent: Callable, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (activation(node(given + recurrent(state[0]), 0)),)

    return step


def _lstm(node: Node, given: Tensor, recurrent: Callable, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    i, f, g, o = node(given + recurrent(state[0]), 0).chunk(4, dim=1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru(node: Node, given: Tensor, recurrent: Callable, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    size = given.shape[1] // 3
    again = recurrent(state[0])
    r, z = torch.sigmoid(node(given[:, : 2 * size] + again[:, : 2 * size], 0)).chunk(2, dim=1)
    n = torch.tanh(node(given[:, 2 * size :] + r * again[:, 2 * size :], 0))
    return (n + z * (state[0] - n),)


def _cell(step: _Step, states: int) -> Callable[..., Any]:
    def cell(
        node: Node,
        x: Tensor,
        hx: Any,
        w_ih: Tensor,
        w_hh: Tensor,
        b_ih: Tensor | None = None,
        b_hh: Tensor | None = None,
    ) -> Any:
        state = tuple(hx) if states == 2 else (hx,)
        after = step(node, F.linear(x, w_ih, b_ih), partial(F.linear, weight=w_hh, bias=b_hh), state)
        return after if states == 2 else after[0]

    return cell


def _layers(step: _Step, states: int, name: str) -> Callable[..., Any]:
    def run(
        node: Node,
        x: Tensor,
        hx: Any,
        weights: Sequence[Tensor],
        biases: bool,
        layers: int,
        dropout: float,
        training: bool,
        bidirectional: bool,
        batch_first: bool = False,
    ) -> Any:
        if not isinstance(biases, bool):  # (data, batch_sizes, hx, weights, ...)
            raise ParameterError(
                f"Nodes cannot open {name} on a packed sequence; pass a padded batch, or one sequence at a time"
            )
        start = tuple(hx) if states == 2 else (hx,)
        directions = 2 if bidirectional else 1
        each = len(weights) // (layers * directions)  # W_ih, W_hh, then b_ih, b_hh, then a projection, as there are
        projected = each - 2 - 2 * biases == 1
        x = x.transpose(0, 1) if batch_first else x
        ends: list[tuple[Tensor, ...]] = []
        for layer in range(layers):
            if layer and dropout and training:
                x = F.dropout(x, dropout, True)
            outputs = []
            for direction in range(directions):
                index = layer * directions + direction
                w = weights[index * each : (index + 1) * each]
                w_ih, w_hh = w[:2]
                b_ih, b_hh = w[2:4] if biases else (None, None)
                given = F.linear(x, w_ih, b_ih)  # for all times at once
                recurrent = partial(F.linear, weight=w_hh, bias=b_hh)
                state = tuple(s[index] for s in start)
                rows: list[Tensor] = []
                for t in reversed(range(len(x))) if direction else range(len(x)):
                    state = step(node, given[t], recurrent, state)
                    if projected:
                        state = (node(F.linear(state[0], w[-1]), 0), *state[1:])
                    rows.append(state[0])
                outputs.append(torch.stack(rows[::-1] if direction else rows))
                ends.append(state)
            x = torch.cat(outputs, dim=-1)
        x = x.transpose(0, 1) if batch_first else x
        return (x, *(torch.stack(s) for s in zip(*ends, strict=True)))

    return run


def _attention(
    node: Node,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """query (L, N, E), key and value (S, N, E), or without N.  Three pre-activations in, one out."""
    extras = {"bias_k": bias_k, "bias_v": bias_v, "static_k": static_k, "static_v": static_v}
    odd = [name for name, given in extras.items() if given is not None] + ["add_zero_attn"] * bool(add_zero_attn)
    if odd:
        raise ParameterError(f"Nodes cannot open MultiheadAttention with {', '.join(odd)}; build it without")
    batched = query.dim() == 3
    if not batched:
        query, key, value = query.unsqueeze(1), key.unsqueeze(1), value.unsqueeze(1)
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    if use_separate_proj_weight:
        weights: Sequence[Any] = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        assert in_proj_weight is not None
        weights = in_proj_weight.chunk(3)
    biases: Sequence[Any] = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    inputs = (query, key, value)
    projected = (node(F.linear(x, w, b), 1) for x, w, b in zip(inputs, weights, biases, strict=True))
    # (length, N, heads * size) -> (N, heads, length, size)
    q, k, v = (p.unflatten(2, (num_heads, -1)).permute(1, 2, 0, 3) for p in projected)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    if attn_mask is not None:
        mask = _additive(attn_mask, scores)
        scores = scores + (mask.view(-1, num_heads, *mask.shape[1:]) if mask.dim() == 3 else mask)
    if key_padding_mask is not None:
        scores = scores + _additive(key_padding_mask, scores)[:, None, None, :]
    attention = F.dropout(torch.softmax(scores, dim=-1), dropout_p, training)
    mixed = (attention @ v).permute(2, 0, 1, 3).flatten(2)
    out = node(F.linear(mixed, out_proj_weight, out_proj_bias), 1)
    shown = (attention.mean(dim=1) if average_attn_weights else attention) if need_weights else None
    if not batched:
        return out.squeeze(1), None if shown is None else shown.squeeze(0)
    return out, shown


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, dtype=like.dtype, device=like.device).masked_fill(mask, -math.inf)
    return mask.to(like.dtype)


_TANH, _RELU = _simple(torch.tanh), _simple(torch.relu)
#: Name of the torch function: (the same, opened; how many leading arguments are inputs, not weights; its module).
OPENED: dict[str, tuple[Callable[..., Any], int, str]] = {
    "lstm": (_layers(_lstm, 2, "LSTM"), 2, "LSTM"),
    "gru": (_layers(_gru, 1, "GRU"), 2, "GRU"),
    "rnn_tanh": (_layers(_TANH, 1, "RNN"), 2, "RNN"),
    "rnn_relu": (_layers(_RELU, 1, "RNN"), 2, "RNN"),
    "lstm_cell": (_cell(_lstm, 2), 2, "LSTMCell"),
    "gru_cell": (_cell(_gru, 1), 2, "GRUCell"),
    "rnn_tanh_cell": (_cell(_TANH, 1), 2, "RNNCell"),
    "rnn_relu_cell": (_cell(_RELU, 1), 2, "RNNCell"),
    "multi_head_attention_forward": (_attention, 3, "MultiheadAttention"),
}
