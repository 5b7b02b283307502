"""Decorrelated inputs, learned locally: a linear map before a layer that takes the correlations out of what it gets."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Decorrelation(nn.Module):
    r"""Hands on :math:`x^\star = D x`, and learns D from x* alone, without a loss.

    .. math:: D \leftarrow D - \alpha\left[(1-\kappa)\, C D + \kappa\, \mathrm{diag}(v)\, D\right]

    with C the off-diagonal part of :math:`\langle x^\star x^{\star\top}\rangle`, and v its diagonal less one.

    D starts as the identity.  With kappa = 0 the off-diagonal second moments of x* go to zero; with kappa > 0 the
    diagonal goes to one as well (whitening).  The step is stable while alpha times the largest eigenvalue of
    :math:`\langle x^\star x^{\star\top}\rangle` is well below one.  Second moments are not centred.

    Decorrelated node perturbation is :class:`~zolib.Nodes` on a network with one of these before each layer.  D is a
    buffer: no optimizer and no probe sees it.  ``W (D x) = (W D) x``, so :meth:`folded` gives the weight of one plain
    layer that does the same.

    Sources: Ahmad, arXiv:2407.10780; Dalm, van Gerven and Ahmad, arXiv:2310.00965.

    Args:
        size: Length of x, whose last axis it is.
        alpha: Learning rate of D, positive.
        kappa: Share of whitening, in [0, 1].

    >>> import torch
    >>> from zolib.decorrelation import Decorrelation
    >>> layer = Decorrelation(3)
    >>> _ = layer(torch.ones(8, 3))
    >>> layer.update()
    >>> layer.D[0]
    tensor([ 1.0000, -0.0010, -0.0010])
    """

    D: Tensor

    def __init__(self, size: int, alpha: float = 1e-3, kappa: float = 0.0):
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"alpha must be positive, got {alpha!r}")
        if not 0 <= kappa <= 1:
            raise ValueError(f"kappa must lie in [0, 1], got {kappa!r}")
        self.size, self.alpha, self.kappa = size, alpha, kappa
        self.register_buffer("D", torch.eye(size))
        self._seen: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1:] != (self.size,):
            raise ValueError(f"x: its last axis must have length {self.size}, got shape {tuple(x.shape)}")
        out = nn.functional.linear(x, self.D)
        if self.training:
            self._seen = out.detach()
        return out

    @torch.no_grad()
    def update(self) -> None:
        """One step of D, from what the last forward pass in training mode handed on.

        Raises:
            RuntimeError: There was no such pass since the last update.
        """
        if self._seen is None:
            raise RuntimeError("update() needs a forward pass in training mode before it; call the network first")
        seen = self._seen.reshape(-1, self.size)
        self._seen = None
        moment = seen.T @ seen / len(seen)
        variances = moment.diagonal().clone()
        change = (1 - self.kappa) * (moment - variances.diag()) @ self.D
        change += self.kappa * (variances - 1).unsqueeze(1) * self.D
        self.D.sub_(change, alpha=self.alpha)

    def folded(self, weight: Tensor) -> Tensor:
        """The weight of a linear layer that does to x what ``weight`` does to x*: (outputs, size)."""
        return weight @ self.D

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, kappa={self.kappa}"
