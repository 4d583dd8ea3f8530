"""Search for a better layer of a cell: fresh starts of all kinds, layers of neighbouring cells, perturbed ones; then descend.

A neighbour's layer is grown by a neuron or by a feature, or loses one; some of these are layers of the cell as they are, so that
no cell is worse than a narrower one, or than one of more features. What is trained is an ensemble (`atlas.ensemble`); the best
few are solved exactly, and the best of these goes down the exact gradient of its worst error (`core.worst_case`).
"""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from toymodels.atlas.cells import Cell, set_size
from toymodels.atlas.ensemble import train
from toymodels.atlas.entries import CLOSE, Entry, check_layer, prove
from toymodels.atlas.starts import LEAST_ON_A_PLANE, STARTS, on_a_plane
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.layers import FirstLayer
from toymodels.core.minimax import Chebyshev, minimax
from toymodels.core.tasks import Task, make_task
from toymodels.core.worst_case import Descended, descend
from toymodels.errors import InputError, check_positive, check_whole

Layer = Float[np.ndarray, "d m+1"]
"""Weights and, in the last column, biases."""
FRESH, WARM = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0), (8.0, 16.0, 32.0, 64.0, 128.0)
"""Exponents for fresh starts, and for layers that are good already."""
STEPS = 100
"""Steps of the ensemble with each exponent."""
_PACE = 2e7
"""Members × inputs × outputs × (neurons + _LOOSE) that an ensemble's step takes a second for: sets the number of members."""
_LOOSE, _STEPS_A_SECOND = 8, 30
_SOLVED = 4


@dataclass(frozen=True)
class Found:
    """A layer and what it reaches."""

    worst_error: float
    layer: Layer
    how: str


def problem(cell: Cell) -> tuple[Task, Inputs]:
    """Make the task and all inputs of a cell."""
    return make_task(cell.task, cell.m), SparseFeatures.at_most(cell.m, cell.s).enumerate()


def as_module(layer: Layer) -> FirstLayer:
    """Make a module of a matrix (W | b)."""
    tensor = torch.from_numpy(np.ascontiguousarray(layer, np.float64))
    return FirstLayer(tensor[:, :-1].clone(), tensor[:, -1].clone(), origin="atlas")


def worst_error(cell: Cell, layer: Layer) -> float:
    """Solve all outputs; return the largest of their errors."""
    return max(known.worst_error for known in _solve(cell, layer))


def solved(cell: Cell, layer: Layer, facts: Mapping[str, object]) -> Entry:
    """Make an entry of a layer: solve the readoffs of all outputs, and keep the certificate of the largest error.

    Raises InputError for a layer of another shape, or that is not finite.
    """
    layer = np.asarray(layer, np.float64)
    if layer.ndim != 2:
        raise InputError(f"a layer is a matrix (W | b) of the shape {(cell.d, cell.m + 1)}")
    check_layer(cell, layer[:, :-1], layer[:, -1])
    known = _solve(cell, layer)
    output = int(np.argmax([one.lower_bound for one in known]))
    readoff = np.stack([one.coefficients for one in known])
    entry = Entry(
        cell, layer[:, :-1].copy(), layer[:, -1].copy(), readoff, np.zeros(len(known)), known[output].rows,
        known[output].multipliers, output, dict(facts),
    )  # fmt: skip
    rounded = _centred(dataclasses.replace(entry, readoff=readoff.astype(np.float32)))
    # large coefficients that cancel do not bear rounding
    return rounded if prove(rounded).gap <= CLOSE / 10 else _centred(entry)


def _centred(entry: Entry) -> Entry:
    """Return the entry with the best offset of each readoff."""
    error = entry.activations() @ entry.readoff.T.astype(np.float64) - entry.cell.targets()
    return dataclasses.replace(entry, offset=-(error.max(0) / 2 + error.min(0) / 2))


def _solve(cell: Cell, layer: Layer) -> tuple[Chebyshev, ...]:
    return minimax(as_module(layer), *problem(cell)).certificates


def constructions(cell: Cell) -> Iterator[tuple[str, Layer]]:
    """Yield the layers that are known without a search: the features themselves, and a neuron for each output."""
    m, d = cell.m, cell.d
    if d >= m:
        yield "identity", _padded(np.column_stack([np.eye(m), np.zeros(m)]), d)
    if cell.s <= 2 and m >= LEAST_ON_A_PLANE and d >= m - 1:
        yield "m − 1 neurons on a plane", _padded(on_a_plane(m), d)
    if d >= cell.outputs:
        size = set_size(cell.task)
        x = cell.at(m, d).x()
        sets = x[x.sum(1) == size] if cell.s >= size else np.zeros((0, m))
        if len(sets) == cell.outputs:
            yield "a neuron for each output", _padded(np.column_stack([sets, np.full(len(sets), 1.0 - size)]), d)


def _padded(layer: Layer, d: int) -> Layer:
    """Add dead neurons."""
    return np.vstack([layer, np.zeros((d - len(layer), layer.shape[1]))])


def inherited(cell: Cell, known: Mapping[Cell, Entry]) -> Iterator[tuple[str, Layer]]:
    """Yield the layers of other cells that are layers of this one without any change that can make them worse.

    A narrower one with dead neurons; one of more features without the last; one of the same size for more active features.
    """
    same = [(other, entry) for other, entry in known.items() if other.task == cell.task]
    narrower = [other.d for other, _ in same if (other.s, other.m) == (cell.s, cell.m) and other.d < cell.d]
    for other, entry in same:
        if (other.s, other.m) == (cell.s, cell.m) and other.d == max(narrower, default=0):
            yield f"dead neurons more than d = {other.d}", _padded(_layer(entry), cell.d)
        if (other.s, other.m, other.d) == (cell.s, cell.m + 1, cell.d):
            yield f"a feature less than m = {other.m}", np.delete(_layer(entry), cell.m, axis=1)
        if other.s > cell.s and (other.m, other.d) == (cell.m, cell.d):
            yield f"at most {other.s} active", _layer(entry)


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


def improve(
    cell: Cell,
    known: Mapping[Cell, Entry],
    seed: int = 0,
    seconds: float | int = 10.0,
    said: Callable[[str], None] = lambda text: None,
) -> Entry | None:
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

    def take(layer: Layer, how: str) -> None:
        nonlocal best
        error = worst_error(cell, layer)
        if best is None or error < best.worst_error:
            best = Found(error, layer, how)

    for how, layer in [*constructions(cell), *inherited(cell, known)]:
        take(layer, how)
    if min(before, best.worst_error if best else before) > CLOSE:
        for found in _trained(cell, known, rng, seconds):
            if best is None or found.worst_error < best.worst_error:
                best = found
        said(f"{cell.name}: {best.worst_error if best else before:.5f} trained, {before:.5f} known")
    if best is not None and CLOSE < best.worst_error < before + 0.02 * min(before, 1):
        best = polish(cell, best, seconds=max(0.1 * seconds, seconds - (time.perf_counter() - began)))
    if best is None or not best.worst_error < before - CLOSE:
        return None
    spent = round(time.perf_counter() - began, 2)
    return solved(cell, best.layer, {"how": best.how, "seed": seed, "seconds": spent})


def _trained(cell: Cell, known: Mapping[Cell, Entry], rng: np.random.Generator, seconds: float) -> Iterator[Found]:
    """Train ensembles of fresh starts and of starts near known layers; yield the best of each, solved exactly."""
    cost = cell.inputs * cell.outputs * (cell.d + _LOOSE) / _PACE
    near = _neighbours(cell, known, rng)
    steps = min(STEPS, max(10, int(seconds * _STEPS_A_SECOND)))  # small ensembles take as long as middling ones
    for exponents, share in ((FRESH, 0.3), (WARM, 0.5 if near else 0.0)):
        members = int(min(96, share * seconds / (cost * steps * 3)))
        if exponents is FRESH:
            kinds = STARTS.values()
            order = [kinds[i % len(kinds)] for i in range(max(members, 1))]
            drawn = [(kind.name, kind.call({"m": cell.m, "d": cell.d, "s": cell.s, "rng": rng})) for kind in order]
        else:
            drawn = [near[i % len(near)]() for i in range(max(members, len(near)))] if share else []
        if not drawn:
            continue
        reached = train(cell, [layer for _, layer in drawn], exponents, steps, min(_SOLVED, len(drawn)))
        for _, layer, number in reached[:_SOLVED]:
            yield Found(worst_error(cell, layer), layer, drawn[number][0])


def polish(cell: Cell, found: Found, steps: int = 200, seconds: float | int = 10.0) -> Found:
    """Send a layer down the exact gradient of its worst error, for so many seconds at most."""
    began = time.perf_counter()

    def until(steps: range) -> Iterator[int]:
        for step in steps:
            if time.perf_counter() - began > seconds:
                return
            yield step

    task, inputs = problem(cell)
    reached: Descended = descend(as_module(found.layer), task, inputs, steps, progress=until)
    layer = reached.layer
    assert isinstance(layer, FirstLayer)
    with torch.no_grad():
        matrix = torch.cat([layer.weight, layer.bias[:, None]], 1).numpy().copy()
    better = reached.worst_error < found.worst_error
    return Found(reached.worst_error, matrix, f"{found.how}, descended") if better else found
