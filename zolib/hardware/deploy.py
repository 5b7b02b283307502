"""Putting a model on a chip."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils import _pytree as pytree

from zolib.hardware.chip import Chip, Counters
from zolib.hardware.energy import Energy, Table, energy
from zolib.hardware.layers import Conv2d, Linear
from zolib.hardware.outputs import Outputs
from zolib.hardware.tile import Tile

# Their weights are look-ups, gains and offsets, not matrices to multiply with: digital on any chip
_DIGITAL = (nn.Embedding, nn.EmbeddingBag, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU, nn.LocalResponseNorm)
_DIGITAL += (nn.modules.batchnorm._NormBase,)


class Deployed(nn.Module):
    """A model on a chip: called as the model is; with a chip axis, results have it in front, (S, B, ...).

    Its parameters are ordinary ones, of shape (S, ...): each chip has its own.  What else the model has (methods,
    attributes, children) is found here too.

    Attributes:
        model: The copy of the model, its layers replaced.  Inside it, chips lie side by side along the batch.
        chip: Time, chance and counters.
        axes: What the axes of a loss are, for probes: ``("replica", "example")`` with a chip axis.
    """

    def __init__(self, model: nn.Module, chip: Chip):
        super().__init__()
        self.model, self.chip = model, chip
        self.axes = ("replica", "example") if chip.n_chips else ("example",)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """All chips see the same inputs.  Tensors among the arguments have the batch in front."""
        if not self.chip.n_chips:
            return self.model(*args, **kwargs)
        n = self.chip.n_chips
        args, kwargs = pytree.tree_map(
            lambda t: t.expand(n, *t.shape).flatten(0, 1) if isinstance(t, Tensor) and t.ndim else t, (args, kwargs)
        )
        return self._unfolded(self.model(*args, **kwargs))

    def each(self, *args: Any, **kwargs: Any) -> Any:
        """Each chip sees inputs of its own: tensors among the arguments have the chip axis, (S, B, ...)."""
        n = self.chip.n_chips
        if not n:
            raise ValueError("each() is for many chips, and n_chips is None; call the model itself")

        def folded(t: Any) -> Any:
            if not isinstance(t, Tensor) or not t.ndim:
                return t
            if t.ndim < 2 or t.shape[0] != n:
                raise ValueError(f"each() takes tensors of shape ({n}, B, ...), got {tuple(t.shape)}")
            return t.flatten(0, 1)

        args, kwargs = pytree.tree_map(folded, (args, kwargs))
        return self._unfolded(self.model(*args, **kwargs))

    def _unfolded(self, result: Any) -> Any:
        n = self.chip.n_chips
        return pytree.tree_map(lambda t: t.unflatten(0, (n, -1)) if isinstance(t, Tensor) and t.ndim else t, result)

    def age(self, seconds: float) -> None:
        """Let time pass."""
        self.chip.age(seconds)

    def compensate(self) -> None:
        """Global drift compensation: each array's outputs are multiplied by one number, until the next time.

        The number brings the mean size of its weights back to what was written, as reading one column after another
        would tell (Le Gallo et al., Adv. Electron. Mater. 4:1700627, 2018).  Counted as that many reads.
        """
        for tile in self.tiles():
            tile.compensate()

    @property
    def counters(self) -> Counters:
        """What has been done so far, on all chips together; a copy, to subtract from a later one."""
        return replace(self.chip.counts)

    def energy(self, table: Table, since: Counters | None = None) -> Energy:
        """Joules for what has been done (since an earlier ``counters``), at the prices of a table."""
        return energy(self.counters if since is None else self.counters - since, table)

    def tiles(self) -> list[Tile]:
        """The layers on the chip, in order."""
        return [m for m in self.model.modules() if isinstance(m, Tile)]

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            model = self.__dict__.get("_modules", {}).get("model")
            if model is None or name.startswith("__"):
                raise
            return getattr(model, name)

    def __setattr__(self, name: str, value: Any) -> None:
        modules = self.__dict__.get("_modules", {})
        model = modules.get("model")
        if model is not None and name not in self.__dict__ and name not in modules and hasattr(model, name):
            setattr(model, name, value)
        else:
            super().__setattr__(name, value)


def deploy(
    model: nn.Module,
    chip: Chip,
    *,
    w_max: float | None = None,
    digital: Iterable[str | type[nn.Module]] = (),
    outputs: Iterable[str | type[nn.Module]] = (),
) -> Deployed:
    """A copy of a model whose Linear and Conv2d layers are arrays of cells of a chip.

    The weights are written to the cells, with all that goes wrong in it; from then on they are parameters that any
    optimizer and any rule may change, and the cells follow at the next read.  Biases, and layers that look up or
    normalise, stay digital.  On a chip without stages a layer computes what ``nn.Linear`` computes, bit for bit.

    Args:
        model: Left as it is.
        chip: Copied; left as it is.
        w_max: The weight that g_max stands for; None: of each layer, its largest, which leaves no room.  Weights that
            learning moves beyond it saturate (with one warning): for training give, say, twice the largest.
        digital: Names or types of modules that stay as they are, with all inside them.
        outputs: Names or types of modules that are not on the chip, but whose output is read through its output stages
            (those that need no array), in units of 1: activations, recurrent layers that stay digital.

    Raises:
        TypeError: A module has matrices that this simulation cannot put on cells.
        ValueError: Weights beyond w_max, or shared between layers; a name that is not there; parameters that stay
            digital while there are many chips.

    >>> import torch, zolib as zo
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
    >>> hw = zo.hardware.deploy(model, zo.hardware.pcm(n_chips=8, seed=0))
    >>> hw(torch.rand(5, 64)).shape
    torch.Size([8, 5, 10])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if isinstance(model, Deployed):
        raise ValueError("model is on a chip already; deploy the original again")
    if not isinstance(chip, Chip):
        raise TypeError(f"chip must be a Chip, for example zolib.hardware.pcm(), got {chip!r}")
    if w_max is not None and not w_max > 0:
        raise ValueError(f"w_max must be a positive weight, got {w_max!r}")
    digital, outputs = list(digital), list(outputs)
    names = dict(model.named_modules())
    for argument, given in (("digital", digital), ("outputs", outputs)):
        for entry in given:
            if isinstance(entry, str) and entry not in names:
                there = ", ".join(filter(None, names))
                raise ValueError(f"{argument}: there is no module {entry!r}; there are {there}")
    model, chip = copy.deepcopy(model), copy.deepcopy(chip)
    placing = _Placing(model, chip, w_max, digital, outputs)
    with torch.no_grad():
        model = placing.place(model, "")
    if not placing.placed:
        raise ValueError(
            "model: nothing is on the chip; it needs a Linear or Conv2d that is not in digital=, or outputs="
        )
    hw = Deployed(model, chip)
    if chip.n_chips:
        tiles = {id(p) for t in hw.tiles() for p in t.parameters(recurse=False)}
        rest = [name for name, p in model.named_parameters() if id(p) not in tiles and p.requires_grad]
        if rest:
            names = ", ".join(map(repr, rest[:3]))
            raise ValueError(
                f"parameter {names} stays digital, and {chip.n_chips} chips that share it could not learn apart: "
                "freeze it first, requires_grad_(False), or deploy with n_chips=None"
            )
    return hw


class _Placing:
    """Replaces the layers of one model, each once, in the order in which it lists them."""

    def __init__(self, model: nn.Module, chip: Chip, w_max: float | None, digital: list, outputs: list):
        self.chip, self.w_max, self.digital, self.outputs = chip, w_max, digital, outputs
        self.placed: dict[int, nn.Module] = {}
        self.originals: list[nn.Module] = []  # kept, so that no other module gets the id of one
        self.owners: dict[int, list[str]] = {}
        for name, module in model.named_modules():
            for key, p in module.named_parameters(recurse=False):
                self.owners.setdefault(id(p), []).append(f"{name}.{key}" if name else key)

    def place(self, module: nn.Module, name: str) -> nn.Module:
        if id(module) in self.placed:  # the same layer in two places is one array
            return self.placed[id(module)]
        original, stays = module, _among(module, name, self.digital)
        if not stays and type(module) in (nn.Linear, nn.Conv2d):
            module = self._tile(module, name)
        elif not stays:
            _refuse_unsupported(module, name)
            for child_name, child in list(module._modules.items()):  # twice where the model has it twice
                if child is not None:
                    module._modules[child_name] = self.place(child, f"{name}.{child_name}" if name else child_name)
        if _among(original, name, self.outputs):
            if isinstance(module, Tile):
                raise ValueError(
                    f"outputs: {name!r} is on the chip, and its outputs are read through the stages anyway"
                )
            module = Outputs(self.chip, len(self.placed), module)
        if module is not original:
            self.placed[id(original)] = module
            self.originals.append(original)
            module.train(original.training)
        return module

    def _tile(self, layer: nn.Linear | nn.Conv2d, name: str) -> Tile:
        hooks = [k for k, v in vars(layer).items() if k.endswith("_hooks") and v]
        if hooks:
            raise ValueError(f"layer {name!r} has {hooks[0].strip('_')}, which its replacement would lose; remove them")
        owners = self.owners[id(layer.weight)]
        if len(owners) > 1:
            raise ValueError(f"{' and '.join(map(repr, owners))} are one weight, and cells hold one each; untie them")
        if not layer.weight.is_floating_point() or not bool(layer.weight.isfinite().all()):
            raise ValueError(f"layer {name!r}: its weights are not finite real numbers")
        largest = layer.weight.detach().abs().max().item() if layer.weight.numel() else 0.0
        if self.w_max is not None and largest > self.w_max:
            raise ValueError(
                f"w_max={self.w_max:g}: layer {name!r} has a weight of size {largest:.4g}, whose conductance would be "
                f"beyond g_max={self.chip.g_max:g} microsiemens (which is w_max); take w_max={largest:.4g} or more"
            )
        kind = Linear if type(layer) is nn.Linear else Conv2d
        return kind(self.chip, len(self.placed), layer, self.w_max)


def _among(module: nn.Module, name: str, entries: list) -> bool:
    return any(name == e if isinstance(e, str) else isinstance(module, e) for e in entries)


def _refuse_unsupported(module: nn.Module, name: str) -> None:
    whole = isinstance(module, (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer))
    matrices = [key for key, p in module.named_parameters(recurse=False) if p.ndim >= 2]
    if whole or is_parametrized(module) or (matrices and not isinstance(module, _DIGITAL)):
        held = f"its matrix {matrices[0]!r} is" if matrices else "its matrices are"
        raise TypeError(
            f"module {name or '(the model itself)'!r} is a {type(module).__name__}, and {held} beyond this simulation, "
            f"which has Linear and Conv2d themselves (no subclasses); keep it digital, digital=[{name!r}], or write it "
            "with Linear layers"
        )
