"""The chip's own noise as the probe: two noisy reads, nothing injected, no clean pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from zolib.hardware.outputs import Outputs
from zolib.on_nodes import OnActivities, Site
from zolib.probes import PROBES, Probe
from zolib.subject import Subject


@dataclass(frozen=True)
class Intrinsic(Probe):
    r"""Learning from what a noisy chip does by itself (Koenders et al., Phys. Rev. Applied 23:054035, 2025).

    The same inputs are read twice.  The outputs of the layers, as the chip's converters give them, differ by
    :math:`\delta a_l`, and so does the loss, by :math:`\delta L`:

    .. math:: \hat g_{W_l} = N\,\delta L\,\frac{\delta a_l}{\|\delta a\|^2}\, x_{l-1}^\top

    as :class:`~zolib.Activities` with two noisy passes, but the noise is the chip's: nobody knows it, and nobody sets
    its size.  What is the same in both reads (mismatch, drift, noise that is slow beside the time between the reads)
    cancels.  Layers that are not on the chip, and learn, are credited with how their outputs moved.

    Its scale is ``"direction"``: right on average up to a positive semidefinite matrix, the covariance of the outputs
    (see :class:`~zolib.Activities`).  The feedback is ``"two-point"``, and ``sigma`` plays no part.

    Args:
        scaling: ``"global"``, N and the norm over all layers; ``"layer"``, of each layer (call) by itself.
        batch_dim, axes: As for :class:`~zolib.Nodes`; a deployed model knows its axes.

    >>> import torch, zolib as zo
    >>> H = zo.hardware
    >>> model = torch.nn.Linear(3, 1)
    >>> hw = H.deploy(model, H.Chip([H.OutputNoise(0.05)], n_chips=4, seed=0))
    >>> loss = zo.backward(lambda: hw(torch.ones(8, 3)).square().mean(dim=2), hw, probe=zo.Intrinsic())  # (4, 8)
    >>> hw.weight.grad.shape
    torch.Size([4, 1, 3])
    """

    scaling: str = "global"
    batch_dim: int = 0
    axes: tuple[str, ...] | None = None
    scale: ClassVar[str] = "direction"
    where: ClassVar[str] = "outputs"
    law: ClassVar[str] = "the chip's own noise"

    def __post_init__(self):
        if self.scaling not in ("global", "layer"):
            raise ValueError(f"scaling must be 'global' or 'layer', got {self.scaling!r}")
        if not isinstance(self.batch_dim, int) or isinstance(self.batch_dim, bool):
            raise TypeError(f"batch_dim must be an axis, a whole number, got {self.batch_dim!r}")

    def validate(self, d: int, samples: int) -> None:
        raise TypeError("probe=Intrinsic() needs a model on a chip; use zolib.backward(closure, hw, probe=Intrinsic())")

    def experiment(self, subject: Subject, seed: int, step: int, samples: int, unused: str) -> OnChip:
        """What :func:`zolib.backward` runs."""
        layers = [m for m in subject.modules if isinstance(m, Outputs)]
        if not layers:
            raise TypeError(
                "probe=Intrinsic() needs a model on a chip, and model has no layer on one; pass hw = "
                "zolib.hardware.deploy(model, chip) itself (not its parameters), or inject noise, with Nodes()"
            )
        return OnChip(layers, self, subject, seed, step, samples, unused)


class OnChip(OnActivities):
    """Two reads of a chip, and what the outputs of its layers were in each."""

    def __init__(self, layers: Sequence[Outputs], *args: object):
        super().__init__(*args)
        self._layers = layers

    def evaluate(self, k: int | None, scale: float) -> Tensor:
        if k is None:
            raise ValueError("feedback: a noisy chip has no clean pass; Intrinsic compares two reads, use 'two-point'")
        activities: list[Tensor] = []
        begun: list[int] = []

        def see(site: Site, a: Tensor) -> Tensor:
            activities.append(a.clone())
            return a

        def begin(layer: nn.Module, args: object) -> None:
            begun.append(len(activities))

        def end(layer: nn.Module, args: object, output: Tensor) -> None:
            first = begun.pop()
            for i in range(first, len(activities)):  # the outputs as they are read, instead of before the noise
                if activities[i].numel() == output.numel():
                    activities[i] = output.detach().clone().view(activities[i].shape)

        hooks = [layer.register_forward_pre_hook(begin) for layer in self._layers]
        hooks += [layer.register_forward_hook(end) for layer in self._layers]
        try:
            sites, loss = self._run(see)
        finally:
            for hook in hooks:
                hook.remove()
        if scale > 0:
            self.sites[k], self._first[k], self._sigma = sites, activities, scale
        else:
            self._other[k] = activities
        return loss

    def credits(self, k: int, sites: Sequence[Site], slope: Tensor) -> list[Tensor]:
        if k not in self._other:
            raise ValueError("feedback: Intrinsic compares two reads of the chip; use 'two-point'")
        if all(map(torch.equal, self._first[k], self._other[k])):
            raise ValueError(
                "two reads of the chip gave the same outputs, so its noise explores nothing: add a stage that is drawn "
                "at each read (OutputNoise, ReadNoise), let time pass between reads (read_time) if all its noise is "
                "slow, or give the ADC more bits if it hides the noise"
            )
        return super().credits(k, sites, slope)


PROBES["intrinsic"] = Intrinsic
