"""The largest error over all amplitudes in [−1, 1] of one and two active features, beside that of a fine grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from toymodels.compressed.exact import worst_over_amplitudes
from toymodels.compressed.weights import two_layer
from toymodels.diagnosis.known import KNOWN
from toymodels.reproductions.registry import REPRODUCTIONS, Line, Row, columns
from toymodels.tasks.pointwise import PointwiseTask

NETWORKS = (
    "naive", "designed_code", "l4_trained", "dense_design", "linear_copy", "linear_map", "mixed", "random", "noisy_code",
    "gaussian",
)  # fmt: skip
"""Ten kinds of networks for ReLU(x), with M and without, made, random and trained."""
SIZE = {"n": 20, "d": 10, "steps": 2000, "points": 10_000}


def grid_worst(network: nn.Module, task: PointwiseTask, s: int, points: int) -> tuple[float, float]:
    """Return the largest |error| on a grid of amplitudes of all sets of s features, and how far its steps can hide a larger one.

    The grid has the middles of equal parts of [−1, 1]: the ends, where errors are often largest, are not on it. An error changes
    by each amplitude at most as fast as Σ |W_out||W_in| + 1 + |M|.
    """
    layers, worst = two_layer(network, task.m, task.n_outputs), 0.0
    axis = (2 * np.arange(points) + 1) / points - 1
    amplitudes = np.stack(np.meshgrid(*[axis] * s), -1).reshape(-1, s)
    for features in itertools.combinations(range(task.m), s):
        x = np.zeros((len(amplitudes), task.m))
        x[:, list(features)] = amplitudes
        worst = max(worst, float(np.abs(layers(x) - task.targets(torch.from_numpy(x)).numpy()).max()))
    mixing = 0.0 if task.mixing is None else float(task.mixing.abs().max())
    slope = float((np.abs(layers.w_out) @ np.abs(layers.w_in)).max()) + 1 + mixing
    return worst, s * slope / points


def beside_grid(key: Row) -> Row:
    """Find the exact largest error of one kind of network, a network for each seed, and that of the grid."""
    points = key["points"] if key["s"] == 1 else math.isqrt(key["points"])
    found = []
    for network, task in KNOWN[key["network"]].call(key):
        assert isinstance(task, PointwiseTask)
        worst = worst_over_amplitudes(network, task, key["s"])
        exact = {"exact": worst.value, "upper": worst.upper, "again": worst.check(network, task)}
        grid, hidden = grid_worst(network, task, key["s"], points)
        found.append({**exact, "grid": grid, "hidden": hidden})
    return columns(found)


def _keys(size: Mapping[str, int], seeds: tuple[int, ...]) -> list[Row]:
    cases = itertools.product(NETWORKS, (1, 2))
    return [{"network": name, "s": s, **size, "seeds": list(seeds)} for name, s in cases]


def _lines(rows: Sequence[Row]) -> list[Line]:
    lines = []
    for row in rows:
        name = f"{row['network']}, s = {row['s']}"
        lines.append(Line(f"{name}: largest |error| over all amplitudes", row["exact"]))
        lines.append(Line(f"{name}: less that of the grid", np.subtract(row["exact"], row["grid"]).tolist()))
    return lines


def _answer(rows: Sequence[Row]) -> str:
    """Count the networks whose exact error lies above the grid's and within what its steps can hide, and is found again."""
    good, total, gap = 0, 0, 0.0
    for row in rows:
        for exact, upper, again, grid, hidden in zip(
            *(row[name] for name in ("exact", "upper", "again", "grid", "hidden")), strict=True
        ):
            good += grid <= upper and exact <= grid + hidden and abs(again - exact) <= 1e-9
            total, gap = total + 1, max(gap, exact - grid)
    return (
        f"In {good} of {total} cases no grid point has more than the certified upper end, the exact error is within what the "
        f"grid's steps can hide, and the input that is named has it when the network is run. The largest gap is {gap:.2g}."
    )


REPRODUCTIONS(
    "amplitudes", shows="new: the largest error over all amplitudes of one and two features, beside that of a fine grid",
    source="measured here", reduced=SIZE,
    full={**SIZE, "n": 60, "d": 30, "steps": 40_000}, keys=_keys,
    lines=_lines, answer=_answer, minutes=2, order=7,
)(beside_grid)  # fmt: skip
