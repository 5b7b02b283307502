"""Linear and Conv2d as arrays of cells; all chips in one batched product."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zolib.hardware.tile import Tile


class Linear(Tile):
    """``nn.Linear`` on a chip: ([S x] B, ..., in) to ([S x] B, ..., out)."""

    def __init__(self, chip, number: int, layer: nn.Linear, w_max: float | None = None):
        super().__init__(chip, number, layer, w_max)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    def product(self, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self.lead:
            return F.linear(x, w, bias)
        if x.ndim == 3:  # (S, B, in) (S, in, out)
            return torch.bmm(x, w.mT) if bias is None else torch.baddbmm(bias.unsqueeze(1), x, w.mT)
        y = torch.einsum("s...i,soi->s...o", x, w)
        return y if bias is None else y + self.spread(bias, y.ndim)

    def per_weight(self) -> Tensor:
        return torch.zeros_like(self.weight.detach().mT, memory_format=torch.contiguous_format).mT  # as BLAS likes it

    def _rows(self, x: Tensor) -> int:
        return x.numel() // self.in_features

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, w_max={self.w_max:.4g}"


class Conv2d(Tile):
    """``nn.Conv2d`` on a chip: one column of cells for each output channel, read at each position.

    ([S x] B, C, H, W) to ([S x] B, out, H', W').
    """

    input_axes = (-3, -2, -1)
    unit_axis = -3

    def __init__(self, chip, number: int, layer: nn.Conv2d, w_max: float | None = None):
        super().__init__(chip, number, layer, w_max)
        self.stride, self.dilation, self.groups = layer.stride, layer.dilation, layer.groups
        self.padding = tuple(layer._reversed_padding_repeated_twice)  # as F.pad wants it
        self.padding_mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode

    def product(self, x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self.lead:
            left, right, top, bottom = self.padding
            if self.padding_mode == "constant" and (left, top) == (right, bottom):
                return F.conv2d(x, w, bias, self.stride, (top, left), self.dilation, self.groups)
            x = F.pad(x, self.padding, self.padding_mode)
            return F.conv2d(x, w, bias, self.stride, 0, self.dilation, self.groups)
        x = F.pad(x.flatten(0, 1), self.padding, self.padding_mode)
        height, width = self._size(x.shape[-2:])
        patches = F.unfold(x, w.shape[-2:], self.dilation, 0, self.stride)  # (S * B, in * kh * kw, positions)
        patches = patches.view(len(w), -1, self.groups, patches.shape[1] // self.groups, patches.shape[2])
        w = w.view(len(w), self.groups, w.shape[1] // self.groups, -1)
        y = torch.einsum("sgoi,sbgil->sbgol", w, patches)
        y = y.reshape(*y.shape[:2], -1, height, width)
        return y if bias is None else y + self.spread(bias, y.ndim)

    def _size(self, padded: torch.Size) -> tuple[int, int]:
        kernel = self.weight.shape[-2:]
        sides = zip(padded, kernel, self.stride, self.dilation, strict=True)
        height, width = ((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in sides)
        return height, width

    def _rows(self, x: Tensor) -> int:
        left, right, top, bottom = self.padding
        height, width = self._size(torch.Size((x.shape[-2] + top + bottom, x.shape[-1] + left + right)))
        examples = x[..., 0, 0, 0].numel()
        return examples * height * width

    def _fan_in(self) -> int:
        return super()._fan_in() * self.groups

    def extra_repr(self) -> str:
        return f"weight={tuple(self.weight.shape)}, stride={self.stride}, groups={self.groups}, w_max={self.w_max:.4g}"
