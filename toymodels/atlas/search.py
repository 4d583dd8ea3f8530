"""Search for a better layer of a cell: fresh starts of all kinds, layers of neighbouring cells, perturbed ones; then descend.

A neighbour's layer is grown by a neuron or by a feature, or loses one; some of these are layers of the cell as they are, so that
no cell is worse than a narrower one, or than one of more features. What is trained is an ensemble (`atlas.ensemble`); the best
few are solved exactly, and the best of these goes down the exact gradient of its worst error (`core.worst_case`).
"""

from __future__ import annotations

import dataclasses
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from toymodels.atlas.cells import Cell
from toymodels.atlas.constructions import Layer, constructions, padded
from toymodels.atlas.ensemble import train
from toymodels.atlas.entries import CLOSE, Entry, check_layer, prove
from toymodels.atlas.starts import STARTS
from toymodels.atlas.symmetry import Moves, check_moves, draw_cycle, neurons_moved, representatives, spread_readoffs
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.layers import FirstLayer
from toymodels.core.minimax import Chebyshev, minimax
from toymodels.core.tasks import Task, make_task
from toymodels.core.worst_case import descend
from toymodels.errors import InputError, check_positive, check_whole

FRESH, WARM = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0), (8.0, 16.0, 32.0, 64.0, 128.0)
"""Exponents for fresh starts, and for layers that are good already."""
SYMMETRIC = (*FRESH, 128.0, 256.0)
"""Exponents for layers with symmetry, which no descent follows."""
STEPS = 100
"""Steps of the ensemble with each exponent."""
_PACE = 2e7
"""Members × inputs × outputs × (neurons + _LOOSE) that an ensemble's step takes a second for: sets the number of members."""
_LOOSE, _STEPS_A_SECOND = 8, 30
_SOLVED = 4
_CYCLES = 3
"""Permutations of the features that are drawn for each search of a cell."""
_SMALL = 10**4
"""Inputs × outputs × neurons up to which one such permutation is enough."""
_DESCENDED = 10**6
"""Inputs × outputs × neurons up to which a step of the descent takes a fraction of a second."""


@dataclass(frozen=True)
class Found:
    """A layer, how it was found, and its minimax readoffs."""

    layer: Layer
    how: str
    certificates: tuple[Chebyshev, ...]
    """One for each output; with moves, one for the first output of each orbit."""
    moves: Moves | None = None
    """Permutations of the features that carry its neurons to its neurons."""

    @property
    def worst_error(self) -> float:
        """The largest error over outputs."""
        return max(known.worst_error for known in self.certificates)


def problem(cell: Cell) -> tuple[Task, Inputs]:
    """Make the task and all inputs of a cell."""
    return make_task(cell.task, cell.m), SparseFeatures.at_most(cell.m, cell.s).enumerate()


def as_module(layer: Layer) -> FirstLayer:
    """Make a module of a matrix (W | b)."""
    tensor = torch.from_numpy(np.ascontiguousarray(layer, np.float64))
    return FirstLayer(tensor[:, :-1].clone(), tensor[:, -1].clone(), origin="atlas")


def solve(cell: Cell, layer: Layer, how: str = "", moves: Moves | None = None) -> Found:
    """Solve all outputs of a layer, or with moves the first one of each orbit.

    Raises InputError for a layer of another shape or that is not finite, or moves that do not carry neurons to neurons.
    """
    layer = np.asarray(layer, np.float64)
    if layer.ndim != 2:
        raise InputError(f"a layer is a matrix (W | b) of the shape {(cell.d, cell.m + 1)}")
    check_layer(cell, layer[:, :-1], layer[:, -1])
    task, inputs = problem(cell)
    if moves is not None:
        check_moves(moves, cell.m)
        for move in moves:
            neurons_moved(layer, move)
        task = task.subset(torch.from_numpy(representatives(cell, moves)))
    return Found(layer, how, minimax(as_module(layer), task, inputs).certificates, moves)


def entry_of(cell: Cell, found: Found, facts: Mapping[str, object]) -> Entry:
    """Make an entry of a layer: its readoffs, and the certificate of the largest error."""
    layer, known = found.layer, found.certificates
    worst = int(np.argmax([one.lower_bound for one in known]))
    readoff, output = np.stack([one.coefficients for one in known]), worst
    if found.moves is not None:
        output = int(representatives(cell, found.moves)[worst])
        readoff, _ = spread_readoffs(cell, layer, found.moves, readoff, np.zeros(len(known)))
    entry = Entry(
        cell, layer[:, :-1].copy(), layer[:, -1].copy(), readoff, np.zeros(cell.outputs), known[worst].rows,
        known[worst].multipliers, output, found.moves, dict(facts),
    )  # fmt: skip
    rounded = _centred(dataclasses.replace(entry, readoff=readoff.astype(np.float32)))
    # large coefficients that cancel do not bear rounding
    return rounded if prove(rounded).gap <= CLOSE / 10 else _centred(entry)


def solved(cell: Cell, layer: Layer, facts: Mapping[str, object], moves: Moves | None = None) -> Entry:
    """Make an entry of a layer by solving its outputs. Raises InputError as `solve` does."""
    return entry_of(cell, solve(cell, layer, moves=moves), facts)


def _centred(entry: Entry) -> Entry:
    """Return the entry with the best offset of each readoff."""
    error = entry.activations() @ entry.readoff.T.astype(np.float64) - entry.cell.targets()
    return dataclasses.replace(entry, offset=-(error.max(0) / 2 + error.min(0) / 2))


def inherited(cell: Cell, known: Mapping[Cell, Entry]) -> Iterator[tuple[str, Layer, Moves | None]]:
    """Yield the layers of other cells that are layers of this one without any change that can make them worse.

    A narrower one with dead neurons; one of more features without the last; one of the same size for more active features.
    """
    same = [(other, entry) for other, entry in known.items() if other.task == cell.task]
    narrower = [other.d for other, _ in same if (other.s, other.m) == (cell.s, cell.m) and other.d < cell.d]
    for other, entry in same:
        if (other.s, other.m) == (cell.s, cell.m) and other.d == max(narrower, default=0):
            yield f"dead neurons more than d = {other.d}", padded(_layer(entry), cell.d), entry.moves
        if (other.s, other.m, other.d) == (cell.s, cell.m + 1, cell.d):
            yield f"a feature less than m = {other.m}", np.delete(_layer(entry), cell.m, axis=1), None
        if other.s > cell.s and (other.m, other.d) == (cell.m, cell.d):
            yield f"at most {other.s} active", _layer(entry), entry.moves


def _layer(entry: Entry) -> Layer:
    return np.column_stack([entry.weight, entry.bias])


def _neighbours(
    cell: Cell, known: Mapping[Cell, Entry], rng: np.random.Generator
) -> list[Callable[[], tuple[str, Layer]]]:
    """Return functions that each draw a start near a layer of this cell or a neighbouring one."""
    m, d = cell.m, cell.d
    makers: list[Callable[[], tuple[str, Layer]]] = []

    def fresh(rows: int) -> Layer:
        member = STARTS.values()[rng.integers(len(STARTS))]
        layer: Layer = member.call({"m": m, "d": max(rows, 2), "s": cell.s, "rng": rng})
        return layer[rng.permutation(len(layer))[:rows]]

    sizes = {(other.task, other.s, other.m, other.d): entry for other, entry in known.items()}

    def add(how: str, change: Callable[[Layer], Layer], m: int, d: int, s: int = cell.s, task: str = cell.task) -> None:
        if (entry := sizes.get((task, s, m, d))) is not None:
            layer = _layer(entry)
            makers.append(lambda: (how, change(layer)))

    def perturbed(layer: Layer) -> Layer:
        size = np.abs(layer).mean()
        if rng.random() < 0.5:
            return layer + rng.choice([0.03, 0.1, 0.3]) * size * rng.standard_normal(layer.shape)
        layer = layer.copy()
        rows = rng.permutation(d)[: rng.integers(1, max(2, d // 3 + 1))]
        layer[rows] = fresh(len(rows))
        return layer

    def wider(layer: Layer) -> Layer:
        return np.vstack([layer, fresh(1)])

    def narrower(layer: Layer) -> Layer:
        return np.delete(layer, rng.integers(len(layer)), axis=0)

    def without_feature(layer: Layer) -> Layer:
        return np.delete(layer, rng.integers(m + 1), axis=1)

    def shaken(layer: Layer) -> Layer:
        return layer + 0.03 * rng.standard_normal(layer.shape)

    def with_feature(layer: Layer) -> Layer:
        column = layer[:, rng.integers(m - 1)] if rng.random() < 0.5 else rng.permutation(layer[:, : m - 1].ravel())[:d]
        return np.insert(layer, m - 1, column + 0.1 * rng.standard_normal(d) * np.abs(layer[:, :-1]).mean(), axis=1)

    def with_both(layer: Layer) -> Layer:
        layer = np.insert(layer, m - 1, np.zeros(d - 1), axis=1)
        row = np.zeros(m + 1)
        row[m - 1] = 1
        return np.vstack([layer, row]) + 0.03 * rng.standard_normal((d, m + 1))

    add("perturbed", perturbed, m, d)
    add("perturbed", perturbed, m, d)
    add(f"a neuron less than d = {d + 1}", narrower, m, d + 1)
    add(f"a neuron more than d = {d - 1}", wider, m, d - 1)
    add(f"a feature less than m = {m + 1}", without_feature, m + 1, d)
    add(f"a feature more than m = {m - 1}", with_feature, m - 1, d)
    add(f"a feature and a neuron more than m = {m - 1}, d = {d - 1}", with_both, m - 1, d - 1)
    add(f"at most {cell.s - 1} active", shaken, m, d, s=cell.s - 1)
    for task in ("and", "xor", "and_of(k=3)"):
        if task != cell.task:
            add(f"a layer for {task}", shaken, m, d, task=task)
    return makers


def improve(cell: Cell, known: Mapping[Cell, Entry], seed: int = 0, seconds: float | int = 10.0) -> Entry | None:
    """Search a cell for about so many seconds; return an entry that is better than the known one by more than CLOSE, or None.

    `known` are the entries of other cells and of this one. Which layers are tried depends on the seed, on `known`, and on the
    seconds (they set the size of the ensembles). Raises InputError for a seed below 0 or seconds that are not above 0.
    """
    check_whole(0, seed=seed)
    check_positive(seconds=seconds)
    began = time.perf_counter()
    rng = np.random.default_rng([seed, zlib.crc32(cell.name.encode())])
    before = prove(known[cell]).worst_error if cell in known else float("inf")
    best: Found | None = None
    for how, layer, moves in [*written_down(cell, before), *inherited(cell, known)]:
        best = _better(best, solve(cell, layer, how, moves))
    if min(before, best.worst_error if best else before) > CLOSE:
        for found in _trained(cell, known, rng, seconds):
            best = _better(best, found)
    near = best is not None and CLOSE < best.worst_error < before + 0.02 * min(before, 1)
    if best is not None and near and cell.inputs * cell.outputs * cell.d < _DESCENDED:
        best = polish(cell, best, seconds=max(0.1 * seconds, seconds - (time.perf_counter() - began)))
    if best is None or not best.worst_error < before - CLOSE:
        return None
    spent = round(time.perf_counter() - began, 2)
    return entry_of(cell, best, {"how": best.how, "seed": seed, "seconds": spent})


def _better(best: Found | None, found: Found) -> Found:
    return found if best is None or found.worst_error < best.worst_error else best


def written_down(cell: Cell, below: float) -> Iterator[tuple[str, Layer, Moves | None]]:
    """Yield the constructions that may be better than an error: their names, layers with dead neurons, and moves."""
    for made in constructions(cell):
        if made.error < below or math.isinf(made.error):
            yield made.how, padded(made.layer(), cell.d), made.moves


def _trained(cell: Cell, known: Mapping[Cell, Entry], rng: np.random.Generator, seconds: float) -> Iterator[Found]:
    """Train ensembles of fresh starts, with symmetry and without, and near known layers; yield the best, solved exactly."""
    steps = min(STEPS, max(10, int(seconds * _STEPS_A_SECOND)))  # small ensembles take as long as middling ones
    near = _neighbours(cell, known, rng)
    many = cell.inputs * cell.outputs * cell.d > _SMALL
    cycles = [cycle for _ in range(_CYCLES if many else 1) if (cycle := draw_cycle(cell, rng)) is not None]
    plans = [(None, FRESH, 0.2 if cycles else 0.3), *((cycle, SYMMETRIC, 0.4 / len(cycles)) for cycle in cycles)]
    for cycle, exponents, share in (*plans, (None, WARM, 0.4 if near else 0.0)):
        outputs = cell.outputs if cycle is None else len(representatives(cell, cycle.moves))
        cost = cell.inputs * outputs * (cell.d + _LOOSE) / _PACE
        members = int(min(96, share * seconds / (cost * steps * len(exponents) / 2)))
        if exponents is WARM:
            drawn = [near[i % len(near)]() for i in range(max(members, len(near)))] if share else []
        elif members < 1 and cycle is None and cycles:
            continue  # too large for an ensemble without symmetry
        else:
            drawn = _fresh(cell, max(members, 1), rng)
        if not drawn:
            continue
        reached = train(cell, [layer for _, layer in drawn], exponents, steps, min(_SOLVED, len(drawn)), cycle)
        for _, layer, number in reached[: _SOLVED if cycle is None else 1]:
            words = "" if cycle is None else f", cycles of {cycle.lengths[0]} neurons"
            yield solve(cell, layer, drawn[number][0] + words, None if cycle is None else cycle.moves)


def _fresh(cell: Cell, number: int, rng: np.random.Generator) -> list[tuple[str, Layer]]:
    """Draw starts of all kinds in turn, from any of them on: a few starts are of other kinds each time."""
    kinds, first = STARTS.values(), int(rng.integers(len(STARTS)))
    order = [kinds[(first + i) % len(kinds)] for i in range(number)]
    return [(kind.name, kind.call({"m": cell.m, "d": cell.d, "s": cell.s, "rng": rng})) for kind in order]


def polish(cell: Cell, found: Found, steps: int = 200, seconds: float | int = 10.0) -> Found:
    """Send a layer down the exact gradient of its worst error, for so many seconds at most."""
    began = time.perf_counter()

    def until(steps: range) -> Iterator[int]:
        for step in steps:
            if time.perf_counter() - began > seconds:
                return
            yield step

    task, inputs = problem(cell)
    reached = descend(as_module(found.layer), task, inputs, steps, progress=until)
    layer = reached.layer
    assert isinstance(layer, FirstLayer)
    with torch.no_grad():
        matrix = torch.cat([layer.weight, layer.bias[:, None]], 1).numpy().copy()
    return _better(found, Found(matrix, f"{found.how}, descended", reached.fitted.certificates))
