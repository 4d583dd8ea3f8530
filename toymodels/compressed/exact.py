"""The largest error of a ReLU network over ALL amplitudes of one or two active features, by enumeration.

With the other features at 0 the network is piecewise linear in the amplitudes a (and b): each neuron is active on one side of
the line w_i a + w_k b + c = 0. So are the targets ReLU(x), |x|, x, min, max and |x_i − x_k|, with the lines a = 0, b = 0 and
a = b; x² and x_i x_k are quadratic. These lines and the edges of the square of amplitudes cut it into cells, and

* an affine error is largest at a corner of its cell;
* an error with x² of one of the features, or with x_i x_k, is largest on an edge of its cell: across the cell it is affine in the
  other amplitude, or has no extremum inside but a saddle. Along an edge it is a parabola: ends and vertex are looked at.

So the largest error over infinitely many inputs is one of finitely many numbers. Others train and test on samples, whose largest
error is a lower bound only.

What is proved: the input that is returned has that error (`check` computes it again), and no input has more than `upper`, which
is the error plus an allowance for rounding: lines computed in float64 are those of a network whose pre-activations differ by at
most 10^-12 of their size.
"""

from __future__ import annotations

import copy
import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from toymodels.compressed.weights import TwoLayer, two_layer
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_kind, check_whole
from toymodels.tasks.pairwise import PairFunctionTask
from toymodels.tasks.pointwise import PointwiseTask

AFFINE = {"relu", "abs", "copy", "minimum", "maximum", "distance"}
"""Tasks whose targets are affine between the lines a = 0, b = 0 and a = b."""
QUADRATIC = {"square", "product"}
_ROUNDING = 1e-12
_MOST = 2_000_000_000
"""Corners × outputs that are looked at, at most; some minutes."""


@dataclass(frozen=True)
class WorstError:
    """The largest |error| over all amplitudes, and where it is."""

    value: float
    """The largest |error| found, which the input below has."""
    upper: float
    """No input has a larger |error|: value plus an allowance for rounding."""
    features: tuple[int, ...]
    """The active features of the input with this error."""
    amplitudes: tuple[float, ...]
    """Their values."""
    output: int
    sets: int
    """Sets of active features looked at."""

    def check(self, network: nn.Module, task: Task) -> float:
        """Compute the |error| of the network at that input again, by running it."""
        return abs(error_at(network, task, self.features, self.amplitudes, self.output))


@torch.no_grad()
def error_at(
    network: nn.Module, task: Task, features: Sequence[int], amplitudes: Sequence[float], output: int
) -> float:
    """Run the network in float64 and in evaluation mode on one input; return output − target."""
    x = torch.zeros(1, task.m, dtype=torch.float64)
    x[0, list(features)] = torch.tensor(list(amplitudes), dtype=torch.float64)
    return float((copy.deepcopy(network).double().eval()(x) - task.targets(x))[0, output])


def worst_over_amplitudes(
    network: nn.Module,
    task: Task,
    s: int = 1,
    amplitudes: tuple[float, float] = (-1.0, 1.0),
    sets: Sequence[Sequence[int]] | None = None,
) -> WorstError:
    """Find the largest |error| over all inputs with at most s = 1 or 2 active features whose values lie in an interval around 0.

    `sets` names some sets of s features; None: all. Raises InputError for another s, an interval that does not hold 0, a task or
    a network whose errors are no such functions, or more than 2·10^9 corners × outputs.
    """
    check_whole(1, 2, s=s)
    check_kind(Task, "a Task, such as make_task('relu', m)", task=task)
    low, high = _interval(amplitudes)
    name = task.name.partition("(")[0]
    if not isinstance(task, PointwiseTask | PairFunctionTask) or name not in AFFINE | QUADRATIC:
        allowed = ", ".join(sorted(AFFINE | QUADRATIC))
        raise InputError(
            f"the task {task.name} is not piecewise linear or quadratic as {allowed} are: name one of these"
        )
    layers = two_layer(network, task.m, task.n_outputs)
    chosen = _sets(task.m, s, sets)
    lines = layers.d + 7
    crossings = 2 if s == 1 else (4 if not layers.b_in.any() else lines)
    if len(chosen) * lines * crossings * task.n_outputs > _MOST * (1 if name in AFFINE else 0.5):
        raise InputError(
            f"{len(chosen):,} sets × {lines * crossings:,} corners × {task.n_outputs:,} outputs are too many: name fewer sets"
        )
    best: tuple[float, tuple[int, ...], np.ndarray, int] = (-1.0, (), np.zeros(s), 0)
    for features in chosen:
        for points in _points(layers, features, low, high, name in QUADRATIC):
            errors = _errors(layers, task, features, points)
            if name in QUADRATIC:
                points, errors = _with_vertices(layers, task, features, points, errors)
            place = int(np.abs(errors).argmax())
            row, output = divmod(place, errors.shape[1])
            if abs(errors[row, output]) > best[0]:
                best = (float(abs(errors[row, output])), features, points[row], output)
    value, features, where, output = best
    reach = max(abs(low), abs(high)) * s
    hidden = np.abs(layers.w_in).max(1) * reach + np.abs(layers.b_in)
    allowance = _ROUNDING * (1 + value + float((np.abs(layers.w_out) @ hidden).max()))
    return WorstError(value, value + allowance, features, tuple(map(float, where)), output, len(chosen))


def _interval(amplitudes: Any) -> tuple[float, float]:
    try:
        low, high = map(float, amplitudes)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low <= 0 <= high and low < high):
        raise InputError(f"amplitudes = {amplitudes!r}: give two finite numbers, low ≤ 0 ≤ high, such as (-1, 1)")
    return low, high


def _sets(m: int, s: int, sets: Sequence[Sequence[int]] | None) -> list[tuple[int, ...]]:
    if s > m:
        raise InputError(f"s = {s} active features of {m}: there are not so many")
    if sets is None:
        return list(itertools.combinations(range(m), s))
    try:
        chosen = [tuple(map(operator.index, features)) for features in sets]
    except TypeError:
        chosen = []
    if not chosen or any(len(set(f)) != s or len(f) != s or not 0 <= min(f) <= max(f) < m for f in chosen):
        raise InputError(f"sets must name at least one set of s = {s} different features, numbered from 0 to {m - 1}")
    return chosen


def _errors(
    layers: TwoLayer, task: Task, features: tuple[int, ...], points: Float[np.ndarray, "points s"]
) -> Float[np.ndarray, "points outputs"]:
    x = torch.zeros(len(points), task.m, dtype=torch.float64)
    x[:, list(features)] = torch.from_numpy(points)
    hidden = np.maximum(points @ layers.w_in[:, list(features)].T + layers.b_in, 0)
    return np.asarray(hidden @ layers.w_out.T + layers.b_out - task.targets(x).numpy())


def _points(
    layers: TwoLayer, features: tuple[int, ...], low: float, high: float, along: bool
) -> Iterator[Float[np.ndarray, "points s"]]:
    """Yield all corners at once; or, if errors along edges matter, for each line its corners in order."""
    if len(features) == 1:
        w, c = layers.w_in[:, features[0]], layers.b_in
        with np.errstate(divide="ignore", invalid="ignore"):
            breaks = -c / w
        inside = breaks[np.isfinite(breaks) & (breaks > low) & (breaks < high)]
        yield np.unique(np.concatenate([[low, 0.0, high], inside]))[:, None]
        return
    w = layers.w_in[:, list(features)]
    # Lines n·(a, b) + c = 0: the neurons, a = 0, b = 0, a = b, and the edges of the square.
    normals = np.concatenate([w, [[1, 0], [0, 1], [1, -1], [1, 0], [1, 0], [0, 1], [0, 1]]])
    offsets = np.concatenate([layers.b_in, [0, 0, 0, -low, -high, -low, -high]])
    size = np.hypot(*normals.T)
    normals, offsets = normals[size > 0] / size[size > 0, None], offsets[size > 0] / size[size > 0]
    if not along and not layers.b_in.any():
        # All lines but the edges pass through 0: corners are 0 and those on the edges.
        crossed = _crossings(normals[-4:], offsets[-4:], normals, offsets).reshape(-1, 2)
        yield np.concatenate([np.zeros((1, 2)), _inside(crossed, low, high)])
        return
    crossed = _crossings(normals, offsets, normals, offsets)
    if not along:
        yield _inside(crossed.reshape(-1, 2), low, high)
        return
    for normal, points in zip(normals, crossed, strict=True):
        on_line = _inside(points, low, high)
        if len(on_line):
            yield on_line[np.argsort(on_line @ np.array([-normal[1], normal[0]]))]


def _crossings(
    normals: np.ndarray, offsets: np.ndarray, others: np.ndarray, other_offsets: np.ndarray
) -> Float[np.ndarray, "lines others 2"]:
    """Return where lines cross; not a number where they are parallel."""
    det = normals[:, None, 0] * others[None, :, 1] - normals[:, None, 1] * others[None, :, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        a = (normals[:, None, 1] * other_offsets - others[None, :, 1] * offsets[:, None]) / det
        b = (others[None, :, 0] * offsets[:, None] - normals[:, None, 0] * other_offsets) / det
    return np.where(np.abs(det)[..., None] > 1e-14, np.stack([a, b], -1), np.nan)


def _inside(points: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the points in the square, those within rounding of an edge moved onto it."""
    margin = 1e-9 * (high - low)
    kept = points[((points >= low - margin) & (points <= high + margin)).all(1)]
    return np.clip(kept, low, high)


def _with_vertices(
    layers: TwoLayer, task: Task, features: tuple[int, ...], points: np.ndarray, errors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Add the vertices of the parabolas between neighbouring points: error e(t) by its values at both ends and the middle."""
    if len(points) < 2:
        return points, errors
    middle = _errors(layers, task, features, (points[1:] + points[:-1]) / 2)
    left, right = errors[:-1], errors[1:]
    bend = 2 * (left + right - 2 * middle)  # e(t) = left + (right − left − bend) t + bend t²
    with np.errstate(divide="ignore", invalid="ignore"):
        t = -(right - left - bend) / (2 * bend)
    inside = np.isfinite(t) & (t > 0) & (t < 1)
    t = np.where(inside, t, 0.0)
    at = np.where(inside, left + (right - left - bend) * t + bend * t**2, 0.0)
    best = np.abs(at).argmax(0)  # for each output the segment whose vertex is worst
    share = t[best, np.arange(at.shape[1])][:, None]
    added = points[best] + share * (points[best + 1] - points[best])
    return np.concatenate([points, added]), np.concatenate([errors, _errors(layers, task, features, added)])
