"""The best layer known of a problem, from the atlas (docs/results/atlas.md)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from toymodels.atlas.cells import Cell
from toymodels.atlas.entries import HERE
from toymodels.atlas.known import best_layer
from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.tasks import Task
from toymodels.errors import InputError


def _layer(m: int, d: int, task: Task, s: int) -> Float[np.ndarray, "neurons columns"]:
    """Return the best layer of a problem. Raises InputError if the atlas knows none."""
    cell = Cell(task.name, s, m, d)
    known = best_layer(cell, HERE)
    if known is None:
        raise InputError(f"the atlas has no layer for {cell.in_words}: `toymodels atlas` prints those that it has")
    return known[0]


def _fits(task: Task) -> bool:
    try:
        return Cell(task.name, 1, task.m, 1).outputs == task.n_outputs
    except InputError:
        return False


@LAYERS("best_known", role="random", marker="*", order=30, source="docs/results/atlas.md", fits=_fits, check=_layer)
def best_known(m: int, d: int, task: Task, s: int) -> FirstLayer:
    """Take the best layer known for a gate on all pairs at most s active, in float32: of the atlas, or a construction."""
    layer = torch.from_numpy(_layer(m, d, task, s)).float()
    return FirstLayer(layer[:, :-1].clone(), layer[:, -1].clone(), origin="best_known").requires_grad_(False)
