"""Say what is known of a cell: from its own entry, from another one whose layer would do, or from a construction."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from toymodels.atlas.cells import Cell, cell_of
from toymodels.atlas.constructions import constructions, padded
from toymodels.atlas.entries import CLOSE, HERE, files_in, prove, read_entry, read_tensors
from toymodels.atlas.floors import floor_of
from toymodels.errors import InputError
from toymodels.theory.widths import smallest_width


def least_known(cell: Cell, errors: Mapping[Cell, float]) -> tuple[float, str]:
    """Return the smallest worst error known for a cell, and the cell or construction that it is of; infinite if nothing is.

    `errors` are those of entries.
    """
    written = [(made.error, made.how) for made in constructions(cell) if math.isfinite(made.error)]
    stored = [(error, other.name) for other, error in errors.items() if other.serves(cell)]
    return min([*written, *stored], default=(math.inf, "nothing"))


def least_known_width(
    task: str, s: int, m: int, error: float, errors: Mapping[Cell, float], strictly: bool = False
) -> int | None:
    """Return the least d for which a worst error of at most `error` (or below it) is known, up to CLOSE; None if none is."""
    level = error - CLOSE if strictly else error + CLOSE
    try:
        return smallest_width(lambda d: least_known(Cell(task, s, m, d), errors)[0] <= level, widest=10**6)
    except InputError:
        return None


@functools.cache
def _shipped() -> dict[Cell, float]:
    """Return the worst errors that the entries of this package state; a test proves each of them."""
    return {cell_of(path.stem): float(read_tensors(path)[1]["worst_error"]) for path in files_in(HERE)}


def known_width(task: str, s: int, m: int, error: float, strictly: bool = False) -> int | None:
    """Return the least d with a worst error of at most `error` (or below it) in the atlas of this package.

    None if there is none below the number of outputs (a neuron for each is no news), or the problem is too large for a cell.
    """
    try:
        outputs = Cell(task, s, m, 1).outputs
    except InputError:
        return None
    known = least_known_width(task, s, m, error, _shipped(), strictly)
    return known if known is not None and known < outputs else None


def least_possible_width(task: str, s: int, m: int, error: float, strictly: bool = False) -> int:
    """Return the d below which no layer has a worst error of at most `error` (or below it)."""

    def allowed(d: int) -> bool:
        floor = floor_of(Cell(task, s, m, d))
        return floor < error - 1e-12 if strictly else floor <= error + 1e-12

    return smallest_width(allowed)


def errors_serving(cell: Cell, folder: Path) -> dict[Cell, float]:
    """Prove the entries of a folder whose layers would do in a cell; return their worst errors."""
    paths = {cell_of(path.stem): path for path in (files_in(folder) if folder.is_dir() else [])}
    return {other: prove(read_entry(path)).worst_error for other, path in paths.items() if other.serves(cell)}


def best_layer(cell: Cell, folder: Path) -> tuple[Float[np.ndarray, "neurons columns"], str] | None:
    """Return the best layer known of a cell, (W | b), and the cell or construction that it is of; None if nothing is known."""
    _, name = least_known(cell, errors_serving(cell, folder))
    for made in constructions(cell):
        if made.how == name:
            return padded(made.layer(), cell.d), name
    if name == "nothing":
        return None
    entry = read_entry(folder / f"{name}.safetensors")
    return padded(np.column_stack([entry.weight[:, : cell.m], entry.bias]), cell.d), name
