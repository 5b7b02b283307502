"""The rows of the catalogue: learning rules of the literature, each as a triple.

A row takes the probe and the feedback of its source.  Where the source says more (schedules of step and sigma, a
projection, weight decay), the row is its estimator with a plain update.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD, Adam

from zolib.backpropagation import Backpropagation
from zolib.catalogue import Method, catalogue
from zolib.decorrelation import Decorrelation
from zolib.feedback import Fitness, OneSided, Ranks, RewardPredictionError, TwoPoint, Utilities, ZScores
from zolib.hardware.intrinsic import Intrinsic
from zolib.nodes import Activities, Nodes
from zolib.probes import Coordinate, Gaussian, LowRank, Orthogonal, Rademacher, Sphere
from zolib.tangent import Exact
from zolib.updates import SignSGD

__all__ = ["catalogue"]


def decorrelate(model: nn.Module) -> Callable[[], Any]:
    """The model's :class:`~zolib.Decorrelation` layers learn from what they handed on last.

    Raises ValueError if there is none.
    """
    layers = [module for module in model.modules() if isinstance(module, Decorrelation)]
    if not layers:
        raise ValueError(
            "model: this rule decorrelates the input of each layer, and there is no zo.Decorrelation in the model; put "
            "one before each linear layer, or use the method 'node-perturbation'"
        )

    def update() -> None:
        for layer in layers:
            layer.update()

    return update


_INPUTS = "layer inputs per sample"
_PASSES = "layer inputs per sample, outputs per pass"

for _row in (
    # --- noise on weights, values only --------------------------------------------------------------------------------
    Method(
        "coordinate-differences",
        "coordinate-wise finite differences",
        Coordinate(),
        TwoPoint,
        SGD,
        "Kiefer and Wolfowitz 1952 (one dimension)",
        samples=None,
    ),
    Method("rdsa", "random-direction stochastic approximation", Sphere(), TwoPoint, SGD, "Kushner and Clark 1978"),
    Method("spsa", "simultaneous perturbation (SPSA)", Rademacher(), TwoPoint, SGD, "Spall 1992"),
    Method("gaussian-smoothing", "Gaussian smoothing", Gaussian(), OneSided, SGD, "Nesterov and Spokoiny 2017"),
    Method(
        "weight-perturbation",
        "weight perturbation, reward against its running mean",
        Gaussian(),
        RewardPredictionError,
        SGD,
        "Cauwenberghs 1993; with a baseline: Williams 1992, Roberts and Tedrake 2008",
        samples=4,
        sigma=1e-2,
        memory="one number",
    ),
    Method(
        "nes",
        "natural evolution strategy, of the mean alone (width fixed), with utilities",
        Gaussian(),
        Utilities,
        SGD,
        "Wierstra et al. 2014",
        samples=16,
        sigma=2e-2,
    ),
    Method(
        "evolution",
        "an evolving population, its mean moved by selection (Lande's equation)",
        Gaussian(),
        Fitness,
        SGD,
        "Lande 1976",
        samples=16,
        sigma=2e-2,
    ),
    Method(
        "openai-es",
        "evolution strategy with mirrored samples and centred ranks (OpenAI-ES)",
        Gaussian(),
        Ranks,
        Adam,
        "Salimans et al. 2017",
        samples=16,
        sigma=2e-2,
        memory="two moments",
    ),
    Method(
        "es-z-scores",
        "evolution strategy with mirrored samples and standardised rewards",
        Gaussian(),
        ZScores,
        SGD,
        "compare Salimans et al. 2017; Sarkar et al. 2025 (later)",
        samples=16,
        sigma=2e-2,
    ),
    Method(
        "eggroll",
        "low-rank evolution strategy (EGGROLL)",
        LowRank(1),
        ZScores,
        SGD,
        "Sarkar et al. 2025 (later)",
        samples=16,
        sigma=2e-2,
    ),
    Method(
        "mezo",
        "memory-efficient zeroth order (MeZO)",
        Gaussian(),
        TwoPoint,
        SGD,
        "Malladi et al. 2023",
        memory="nothing (published: a seed, no gradient)",
    ),
    Method("zo-signsgd", "zeroth-order signSGD", Sphere(), OneSided, SignSGD, "Liu et al. 2019", samples=4),
    Method(
        "zo-adam",
        "zeroth-order Adam",
        Gaussian(),
        TwoPoint,
        Adam,
        "Malladi et al. 2023 (MeZO-Adam); compare ZO-AdaMM, Chen et al. 2019",
        samples=4,
        memory="two moments",
    ),
    Method(
        "orthogonal-directions",
        "orthogonal random directions",
        Orthogonal(8),
        TwoPoint,
        SGD,
        "Choromanski et al. 2018",
        samples=8,
        memory="eight directions",
    ),
    # --- noise on nodes -----------------------------------------------------------------------------------------------
    Method(
        "node-perturbation",
        "node perturbation",
        Nodes(),
        OneSided,
        SGD,
        "Werfel, Xie and Seung 2005",
        memory=_INPUTS,
    ),
    Method(
        "decorrelated-node-perturbation",
        "decorrelated node perturbation",
        Nodes(),
        OneSided,
        SGD,
        "Dalm, van Gerven and Ahmad 2023",
        memory=f"{_INPUTS}; a matrix and an input per layer",
        local=decorrelate,
    ),
    Method(
        "reinforce",
        "REINFORCE with Gaussian units, reward against its running mean",
        Nodes(),
        RewardPredictionError,
        SGD,
        "Williams 1992",
        sigma=1e-1,
        memory=f"{_INPUTS}; one number",
    ),
    Method(
        "anp-dalm",
        "activity perturbation, normalised over all layers",
        Activities("global"),
        OneSided,
        SGD,
        "Dalm, van Gerven and Ahmad 2023",
        memory=_PASSES,
    ),
    Method(
        "anp-fernandez",
        "activity perturbation, normalised in each layer",
        Activities("layer"),
        OneSided,
        SGD,
        "Fernández, Keemink and van Gerven 2024",
        memory=_PASSES,
    ),
    Method(
        "anp-koenders",
        "activity perturbation between two noisy passes",
        Activities("global"),
        TwoPoint,
        SGD,
        "Koenders et al. 2025",
        memory=_PASSES,
    ),
    Method(
        "two-reads",
        "two reads of a chip that differ by its own noise",
        Intrinsic(),
        TwoPoint,
        SGD,
        "Koenders et al. 2025",
        memory=_PASSES,
    ),
    # --- derivatives --------------------------------------------------------------------------------------------------
    Method(
        "forward-gradient",
        "forward gradient",
        Gaussian(),
        Exact,
        SGD,
        "Baydin et al. 2022",
        order=1,
        memory="a tangent beside each value",
    ),
    Method(
        "activity-forward-gradient",
        "activity-perturbed forward gradient",
        Nodes(),
        Exact,
        SGD,
        "Ren et al. 2023",
        order=1,
        memory=f"{_INPUTS}; a tangent beside each value",
    ),
    Method(
        "backpropagation",
        "backpropagation",
        Backpropagation(),
        Exact,
        SGD,
        "Linnainmaa 1970; Rumelhart, Hinton and Williams 1986",
        order=1,
        memory="all activations",
    ),
):
    catalogue.add(_row)
