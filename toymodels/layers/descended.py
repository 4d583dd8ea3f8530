"""The trained layer after a descent of its worst error, beside it in the tables of `compare`.

No optimiser of `train`: the descent solves every output by linear programs at each step, over all inputs, and has no readoff that
learns with the layer. `toymodels descend` is the same descent of a layer in a file: it can be stopped and goes on.
"""

from __future__ import annotations

import copy

from torch import nn

from toymodels.core.features import Features
from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.tasks import Task
from toymodels.core.worst_case import SUMMARIES, descend
from toymodels.errors import InputError, check_choice, check_whole
from toymodels.parallel.progress import Bar

MOST = 10**7
"""Inputs × outputs × neurons up to which a step takes seconds."""


def _check(d: int, task: Task, features: Features, steps: int, summary: str) -> None:
    check_whole(1, steps=steps)
    check_choice(SUMMARIES, summary=summary)
    if features.m != task.m:
        raise InputError("descended needs features with axes of their own: leave d0 out")
    if not features.n_inputs * task.n_outputs * d <= MOST:
        raise InputError(
            f"descended solves every output at each step: {task.n_outputs:,} outputs, {features.n_inputs:,.0f} inputs and {d} "
            "neurons are too many; take fewer, or descend from the file of the layer (toymodels descend)"
        )


@LAYERS("descended", role="refined", source="core.worst_case", check=_check)
def descended(
    trained: nn.Module, d: int, task: Task, features: Features, *, steps: int = 50, summary: str = "soft"
) -> FirstLayer:
    """Send the trained layer down the exact gradient of its worst error over all inputs, for minimax readoffs."""
    if not isinstance(trained, FirstLayer):
        raise InputError("descended is made from a trained FirstLayer: leave it out for layers of your own")
    start = copy.deepcopy(trained).requires_grad_(True).cpu()
    layer = descend(start, task, features.enumerate(), steps, summary, Bar("descended", steps, "step").over).layer
    assert isinstance(layer, FirstLayer)
    weight, bias = (value.detach().to(trained.weight.dtype) for value in (layer.weight, layer.bias))
    return FirstLayer(weight, bias, layer.activation, "descended").requires_grad_(False)
