"""Return the worst error that no layer of a cell beats: the largest of the floors that hold for its task."""

from __future__ import annotations

import math

from toymodels.atlas.cells import Cell, set_size
from toymodels.theory.convex import radon_floor
from toymodels.theory.floors import welch_bound
from toymodels.theory.gates import GATE_NAMES, Gate
from toymodels.theory.rank import worst_error_floor


def floor_of(cell: Cell) -> float:
    """Return the largest floor: by rank (`theory.rank`), and for AND of k features by convexity too (`theory.convex`)."""
    if cell.s < set_size(cell.task):
        return 0.0
    if cell.task in GATE_NAMES:
        gate = Gate.parse(cell.task)
        by_rank = worst_error_floor(gate, cell.m, 2, cell.d)
        return max(by_rank, radon_floor(cell.outputs, cell.d)) if gate.name == "and" else by_rank
    return max(_identity(cell.outputs, cell.d), radon_floor(cell.outputs, cell.d))


def _identity(outputs: int, d: int) -> float:
    """Return the floor by rank for outputs that are the identity matrix on some inputs (the proof in `theory.rank`)."""
    best, order = 0.0, 1
    while outputs > 1 and math.comb(d + order, order) < outputs:
        bound = welch_bound(outputs, d + 1, order)
        best = max(best, bound / (1 + bound))
        order += 1
    return best
