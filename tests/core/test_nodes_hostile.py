"""Node noise on modules that are hard to probe: the gradient, or a refusal that names what is in the way.

Every unit is shaken in turn, with exact slopes, so that the sum is the gradient up to float32.
"""

import pytest
import torch
from node_nets import OneHot, run, start
from zoo import HOSTILE

from zolib.errors import ParameterError
from zolib.nodes import Nodes
from zolib.tangent import Exact

#: What stands in the way: (in the message, how many parameters are reached if it may be skipped).
IN_THE_WAY = {
    "transformer_layer": ("layer_norm", 8),
    "transformer_layer_fast_path": ("layer_norm", 8),
    "tied_embedding": ("embedding", 0),
    "embedding_with_max_norm": ("embedding", 0),
    "vectorised_map": ("torch.func", 0),
    "through_numpy": ("numpy", 0),
    "a_new_parameter_from_an_old_one": ("no linear map consumed", 0),
    "group_and_layer_norm": ("layer_norm", 2),
    "batch_norm_in_training": ("batch_norm", 2),
    "scalar_and_empty_parameters": ("the loss itself", 0),
}


def found(module, closure, unused):
    torch.manual_seed(0)
    units = OneHot(start(closure, module, Nodes(), unused=unused), one_each=False)
    torch.manual_seed(0)  # dropout as in the pass that autograd takes
    experiment = start(closure, module, Nodes(), samples=units.units, unused=unused)
    experiment.noise = units
    state = experiment.state()
    slope = experiment.slope

    def same_draw(k):
        state.restore()
        return slope(k)

    experiment.slope = same_draw
    return [(p, g * units.units) for p, g in run(experiment, Exact()).pairs]


@pytest.mark.parametrize("name", HOSTILE)
def test_the_gradient_or_a_refusal(name, generator):
    module, closure = HOSTILE[name](generator)
    unused = "raise"
    if name in IN_THE_WAY:
        message, reached = IN_THE_WAY[name]
        with pytest.raises(ParameterError, match=message):
            found(module, closure, unused)
        if not reached:
            with pytest.raises(ParameterError):
                found(module, closure, "skip")
            return
        unused = "skip"
    pairs = found(module, closure, unused)
    assert len(pairs) == (IN_THE_WAY[name][1] if name in IN_THE_WAY else len(list(module.parameters())))
    torch.manual_seed(0)
    if name in ("data_attribute", "detached", "custom_function_without_a_backward"):  # which autograd does not see
        true = by_values(module, closure)
        allowed = 1e-4  # of the difference itself: its step squared, times a third derivative of order 1
    else:
        true = torch.autograd.grad(closure(), [p for p, _ in pairs])
        allowed = 1e-4 * max(t.abs().max() for t in true)
    for (_, g), t in zip(pairs, true, strict=True):
        assert (g - t).abs().max() <= allowed


def by_values(module, closure, step=1e-2):
    """Central differences of the only parameter, which is small, entry by entry."""
    (p,) = module.parameters()
    g = torch.zeros_like(p)
    with torch.no_grad():
        for i in range(p.numel()):
            row = []
            for shift in (step, -step):
                p.view(-1)[i] += shift
                row.append(closure().item())
                p.view(-1)[i] -= shift
            g.view(-1)[i] = (row[0] - row[1]) / (2 * step)
    return [g]
