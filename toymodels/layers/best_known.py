"""The best layer known of a problem, from the atlas (docs/results/atlas.md)."""

from __future__ import annotations

import torch

from toymodels.atlas.cells import Cell
from toymodels.atlas.entries import HERE, read_entry
from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.tasks import Task
from toymodels.errors import InputError


def _cell(m: int, d: int, task: Task, s: int) -> Cell:
    """Return the cell of a problem. Raises InputError if the atlas has no entry of it."""
    cell = Cell(task.name, s, m, d)
    if not (HERE / f"{cell.name}.safetensors").is_file():
        raise InputError(f"the atlas has no layer for {cell.in_words}: `toymodels atlas` prints those that it has")
    return cell


def _fits(task: Task) -> bool:
    try:
        return Cell(task.name, 1, task.m, 1).outputs == task.n_outputs
    except InputError:
        return False


@LAYERS("best_known", role="random", marker="*", order=30, source="docs/results/atlas.md", fits=_fits, check=_cell)
def best_known(m: int, d: int, task: Task, s: int) -> FirstLayer:
    """Take the best layer known for a gate on all pairs at most s active, in float32, from the atlas."""
    entry = read_entry(HERE / f"{_cell(m, d, task, s).name}.safetensors")
    weight, bias = torch.from_numpy(entry.weight).float(), torch.from_numpy(entry.bias).float()
    return FirstLayer(weight, bias, origin="best_known").requires_grad_(False)
