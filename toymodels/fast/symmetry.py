"""Solve one minimax readoff of the inputs themselves for all pairs: the others differ by a permutation of the features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float
from torch import nn

from toymodels.core.features import Inputs
from toymodels.core.layers import IdentityLayer
from toymodels.core.minimax import Chebyshev, measured
from toymodels.core.tasks import PairTask, Task

_TOGETHER = 64
"""Outputs whose targets are computed at once."""


def interchangeable(layer: nn.Module, task: Task, inputs: Inputs) -> bool:
    """Whether any permutation of the features maps the inputs to themselves, and neurons and pairs to one another.

    A set of different inputs is closed under permutations if it holds, for each number of active features, all sets of that size.
    """
    if type(layer) is not IdentityLayer or type(task) is not PairTask or inputs.values is not None:
        return False
    sizes, counts = np.unique((inputs.indices < inputs.m).sum(1).cpu().numpy(), return_counts=True)
    if any(count != math.comb(inputs.m, size) for size, count in zip(sizes, counts, strict=True)):
        return False
    return len(_numbers(inputs)) == len(inputs)


def permuted(
    task: PairTask,
    inputs: Inputs,
    activations: Float[np.ndarray, "inputs m"],
    wanted: range,
    solve: Callable[[Float[np.ndarray, " inputs"]], Chebyshev],
) -> Iterator[Chebyshev]:
    """Solve pair 0 and permute its readoff and its certificate for the wanted pairs, each measured on all inputs again."""
    x = inputs.dense()
    solved = solve(task.targets(x, slice(0, 1))[:, 0].double().cpu().numpy())
    numbers, rows = _numbers(inputs), inputs.indices.cpu().numpy()[solved.rows]
    pairs = task.pairs.cpu().numpy()
    size = np.abs(activations).max(0)
    for start in wanted[::_TOGETHER]:
        outputs = range(start, min(start + _TOGETHER, wanted.stop))
        targets = task.targets(x, slice(start, outputs.stop)).double().T.contiguous().cpu().numpy()
        for output, target in zip(outputs, targets, strict=True):
            to = _permutation(pairs[0], pairs[output], inputs.m)
            coefficients = np.empty_like(solved.coefficients)
            coefficients[to[:-1]] = solved.coefficients
            moved = np.array([numbers[key] for key in _keys(to[rows])], dtype=np.int64)
            found = coefficients, solved.offset, moved, solved.multipliers, solved.iterations, solved.method
            yield measured(activations, target, *found, size)


def _permutation(old: np.ndarray, new: np.ndarray, m: int) -> np.ndarray:
    """Return where each feature goes, if the features of one pair go to those of another in order; m, the padding, stays."""
    to = np.arange(m + 1)
    for source, goal in zip(old, new, strict=True):
        held = np.flatnonzero(to == goal)
        to[held], to[source] = to[source], goal
    return to


def _keys(rows: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in np.sort(rows, axis=1)]


def _numbers(inputs: Inputs) -> dict[bytes, int]:
    """Return the number of each input by its set of active features."""
    if "numbers" not in inputs.kept:
        inputs.kept["numbers"] = {key: number for number, key in enumerate(_keys(inputs.indices.cpu().numpy()))}
    numbers: dict[bytes, int] = inputs.kept["numbers"]
    return numbers
