"""Return the worst error that no layer of a cell beats: the largest of the floors that hold for its task."""

from __future__ import annotations

from toymodels.atlas.cells import Cell, set_size
from toymodels.theory.convex import radon_floor
from toymodels.theory.gates import GATE_NAMES, Gate
from toymodels.theory.polynomial import identity_floor, polynomial_floor
from toymodels.theory.relu import relu_floor


def floor_of(cell: Cell) -> float:
    """Return the largest floor: by polynomials, for AND of k also by convexity and of ReLU (`theory.convex`, `theory.relu`)."""
    size = set_size(cell.task)
    if cell.s < size:
        return 0.0
    if cell.task in GATE_NAMES and cell.task != "and":
        return polynomial_floor(Gate.parse(cell.task), cell.m, 2, cell.d)
    general = max(identity_floor(cell.outputs, cell.d), radon_floor(cell.outputs, cell.d))
    return max(general, relu_floor(cell.m, size, cell.d))
