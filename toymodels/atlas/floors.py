"""Return the worst error that no layer of a cell beats: the largest of the floors that hold for its task."""

from __future__ import annotations

from toymodels.atlas.cells import Cell, set_size
from toymodels.theory.convex import radon_floor
from toymodels.theory.gates import GATE_NAMES, Gate
from toymodels.theory.polynomial import identity_floor, polynomial_floor


def floor_of(cell: Cell) -> float:
    """Return the largest floor: by polynomials (`theory.polynomial`), for AND of k also by convexity (`theory.convex`)."""
    if cell.s < set_size(cell.task):
        return 0.0
    if cell.task in GATE_NAMES and cell.task != "and":
        return polynomial_floor(Gate.parse(cell.task), cell.m, 2, cell.d)
    return max(identity_floor(cell.outputs, cell.d), radon_floor(cell.outputs, cell.d))
