"""Maps over two settings: errors and genericity over m and d, errors over the loss's exponent and weights."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.figures.fits import EXACT, crossing
from toymodels.figures.registry import figure
from toymodels.figures.series import VERMILION, gate_of, name_of, series_of, task_title
from toymodels.figures.style import Drawing, heading, new_figure, outer_labels
from toymodels.figures.table import (
    Row,
    coverage,
    errors_by_seed,
    format_value,
    laws_hold,
    require,
    require_fixed,
    select_series,
    title_of,
)
from toymodels.runs import text as tables
from toymodels.runs.metrics import error_label
from toymodels.runs.table import levels
from toymodels.theory.extremes import max_error_distribution
from toymodels.theory.gates import Gate
from toymodels.theory.rank import least_width
from toymodels.theory.statistics import mean_interval
from toymodels.theory.widths import smallest_width

Grid = Float[np.ndarray, "rows columns"]
RANK_BOUND, ANALYTIC_MEDIAN = "no layer below (rank bound)", "analytic readoff (median law)"


@functools.cache
def predicted_widths(gate: Gate, m: int, s: int, inputs: str, epsilon: float) -> dict[str, float]:
    """Return widths d for a worst error of ε, by name: the lower bound for any layer, and the analytic readoff's law.

    Sources: theory.rank (Alon 2009, Welch 1974) and theory.extremes; the latter is for inputs with exactly s active.
    """
    widths = {RANK_BOUND: float(least_width(gate, m, 2 if inputs == "at_most" else s, epsilon))}
    if 2 <= s <= m - 2 and max_error_distribution(gate, m, s, 10, 1).shape.sigma.any():

        def good(d: int) -> bool:
            return max_error_distribution(gate, m, s, d, math.comb(m, s)).cdf(epsilon) >= 0.5

        widths[ANALYTIC_MEDIAN] = float(smallest_width(good, 10))  # predictions are made from 10 neurons up
    return widths


def _draw_cells(axis: Any, grid: Grid, columns: Sequence[Any], lines: Sequence[Any], form: str, **style: Any) -> Any:
    """Draw equal cells with their numbers written in, dark on light and light on dark; returns the image."""
    image = axis.imshow(grid, origin="lower", aspect="auto", **style)
    for i, j in np.argwhere(~np.isnan(grid)):
        red, green, blue, _ = image.cmap(image.norm(grid[i, j]))
        colour = "black" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"
        axis.text(j, i, f"{grid[i, j]:{form}}", ha="center", va="center", fontsize=5.6, color=colour)
    axis.set_xticks(range(len(columns)), [format_value(value) for value in columns])
    axis.set_yticks(range(len(lines)), [format_value(value) for value in lines])
    axis.tick_params(labelsize=7, length=2)
    return image


def _draw_colours(drawing: Any, image: Any, axes: Any, extend: str = "max", **style: Any) -> None:
    """Draw the colour bar of some panels."""
    drawing.colorbar(image, ax=list(axes), pad=0.01, extend=extend, **style).ax.tick_params(labelsize=6.5)


def _minimax_of_layers(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row["readoff"] == "minimax" and row["first_layer"] != "identity"]


def _has_map(rows: Sequence[Row]) -> bool:
    used = [row for row in _minimax_of_layers(rows) if row.get("stopped_at") is None]
    return len(levels(used, "m")) > 1 and len(levels(used, "d")) > 1


def _map_rows(rows: Sequence[Row], what: str) -> list[Row]:
    """Return the rows of minimax readoffs of hidden layers, over two or more m and d. Raises InputError without."""
    require(rows, numbers=("m", "d"))
    chosen = require_fixed(_minimax_of_layers(rows), ("m", "d"))
    if not chosen:
        raise InputError(f"{what} needs minimax readoffs of a hidden layer: run compare with minimax among readoffs")
    for name in ("m", "d"):
        if len(levels(chosen, name)) < 2:
            raise InputError(f"{name} has one value in these rows: a map over m and d needs two of each at least")
    return chosen


def _position(sizes: Sequence[int | float], size: int | float) -> float:
    """Return where a size lies among equal cells: linear in the logarithm between two, nan outside."""
    return float(np.interp(math.log(size), np.log(sizes), np.arange(len(sizes)), left=np.nan, right=np.nan))


def _contour(lines: Sequence[Any], grid: Grid, level: float) -> list[float]:
    """Return, for each column, the position up at which its error falls below the level for good; nan for none."""
    heights = []
    for column in grid.T:
        known = ~np.isnan(column)
        x = crossing(np.array(lines, dtype=float)[known], column[known][None], level).x if known.any() else 0
        heights.append(_position(lines, x) if 0 < x < math.inf else np.nan)
    return heights


@figure("error_map", order=20, columns=("m", "d", "s"), applies=_has_map)
def error_map(rows: Sequence[Row], *, metric: str = "worst_error") -> Drawing:
    """Draw an error of minimax readoffs as a map over m and d, a row of panels for each task, a column for each layer.

    For which m and d does a layer beat what no hidden layer can, and how do the widths compare with the laws? Line: where the
    error passes below what affine readoffs reach without a hidden layer (1/4 for AND, 1/2 for XOR). Dotted: the rank bound,
    below which no layer reaches that. Means over seeds. The text has the widths of that line with intervals, beside the laws.
    Raises InputError for a table without minimax readoffs or in which more varies.
    """
    rows = _map_rows(rows, "a map of errors")
    tasks, keys = levels(rows, "task"), series_of(rows)
    columns, lines = levels(rows, "m"), levels(rows, "d")
    drawing = new_figure(0.8 + len(tasks) * (0.5 + 0.26 * len(lines)), width=max(4.2, 1.4 + 2.8 * len(keys)))
    axes = drawing.subplots(len(tasks), len(keys), sharex=True, sharey=True, squeeze=False)
    for panels, task in zip(axes, tasks, strict=True):
        gate = gate_of(task)
        level = (gate.affine_floor if gate else 0) or 0.25
        for axis, key in zip(panels, keys, strict=True):
            members = select_series(rows, task, key)
            if not members:
                axis.set_axis_off()
                continue
            grid = _means(members, columns, lines, metric)
            image = _draw_cells(axis, grid, columns, lines, ".3f", cmap="cividis", vmin=0, vmax=2 * level)
            if metric == "worst_error" and gate is not None and laws_hold(rows):
                _draw_levels(axis, gate, grid, columns, lines, level, _rank_active(rows))
            axis.set_title(f"{task_title(task)}, {name_of(*key)}", fontsize=8)
        _draw_colours(drawing, image, panels, shrink=0.9)
    outer_labels(axes, "features m", "width d")
    names = {label for axis in axes.flat for label in axis.get_legend_handles_labels()[1]}
    floors = ", ".join(f"{gate.affine_floor:g} ({task_title(task)})" for task in tasks if (gate := gate_of(task)))
    note = f" Line: at smaller d, affine readoffs without a layer do as well, {floors}." if names else ""
    note += " Dotted: at smaller d, no layer reaches that (rank bound)." if "rank bound" in names else ""
    title = f"{title_of(metric)} over m and d"
    heading(drawing, f"{title}: {coverage(rows)}, means.{note}")
    return Drawing(f"error_map-{metric}", title, drawing, _widths_table(rows, metric))


def _means(rows: Sequence[Row], columns: Sequence[Any], lines: Sequence[Any], metric: str) -> Grid:
    """Return means over seeds on the grid of m (columns) and d (lines), nan where nothing was measured."""
    grid = np.full((len(lines), len(columns)), np.nan)
    for j, m in enumerate(columns):
        widths, errors = errors_by_seed([row for row in rows if row["m"] == m], "d", metric)
        for d, column in zip(widths, errors.T, strict=True):
            grid[lines.index(d), j] = np.nanmean(column)
    return grid


def _draw_levels(
    axis: Any, gate: Gate, grid: Grid, columns: Sequence[Any], lines: Sequence[Any], level: float, active: int
) -> None:
    """Draw where the error passes the affine level, and the rank bound for it."""
    style = {"color": VERMILION, "linewidth": 1.6, "marker": "o", "markersize": 3}
    axis.plot(range(len(columns)), _contour(lines, grid, level), label=f"{level:g}: affine, no layer", **style)
    bound = [_position(lines, least_width(gate, m, active, level)) for m in columns]
    if np.isfinite(bound).any():
        style = {"color": "black", "linewidth": 1.4, "linestyle": ":"}
        axis.plot(range(len(columns)), bound, label="rank bound", **style)


def _rank_active(rows: Sequence[Row]) -> int:
    return 2 if rows[0].get("inputs") == "at_most" else int(rows[0]["s"])


def _widths_table(rows: Sequence[Row], metric: str) -> str:
    """Write the widths at which each line reaches the affine level, beside the laws."""
    if not laws_hold(rows):
        return (
            "Laws and the affine level speak about inputs in which all sets of some size are active: not about these."
        )
    cells: list[list[str]] = []
    names: tuple[str, ...] = ()
    for task in levels(rows, "task"):
        gate = gate_of(task)
        level = gate.affine_floor if gate else 0.0
        for m in levels(rows, "m"):
            s, inputs = int(rows[0]["s"]), str(rows[0].get("inputs"))
            laws = predicted_widths(gate, m, s, inputs, level) if gate and level else {}
            names = names or tuple(laws)
            for key in series_of(rows):
                members = [row for row in select_series(rows, task, key) if row["m"] == m]
                if members:
                    widths, errors = errors_by_seed(members, "d", metric)
                    reached = crossing(np.array(widths, dtype=float), errors, level).words(widths[0], widths[-1], ".1f")
                    predicted = [f"{laws[name]:,.0f}" if name in laws else "–" for name in names]
                    cells.append([task, str(m), name_of(*key), reached, *predicted])
    header = ["task", "m", "first layer, readoff", "d at the affine level", *names]
    cells = [[*line, *["–"] * (len(header) - len(line))] for line in cells]
    return tables.render(header, cells, right=(1, *range(4, 4 + len(names)))) + (
        f"\n{title_of(metric)} below the affine level, 1/4 for AND and 1/2 for XOR, from that d on; linear in log d between the "
        "widths\nmeasured; [95 % bootstrap over seeds, too narrow below about ten]. The rank bound holds for every layer; the "
        "analytic law for\nexactly s active."
    )


def _compares_layers(rows: Sequence[Row]) -> bool:
    layers = {row["first_layer"] for row in _minimax_of_layers(rows)}
    return _has_map(rows) and len(layers) == 2 and "trained" in layers


@figure("genericity_map", order=21, columns=("m", "d"), applies=_compares_layers)
def genericity_map(rows: Sequence[Row], *, metric: str = "worst_error") -> Drawing:
    """Draw the error of the frozen layer over that of the trained one as a map over m and d, both by minimax readoffs.

    Are the gates as readable from a random first layer as from a trained one? Means over seeds of each seed's ratio. A cell is
    empty where the trained layer reads some seed's targets exactly (within 1e-6). Raises InputError for a table without both
    layers' minimax readoffs or in which more varies.
    """
    rows = _map_rows(rows, "a map of ratios")
    layers = list(dict.fromkeys(layer for layer, _ in series_of(rows)))
    if len(layers) != 2 or "trained" not in layers:
        raise InputError("a ratio needs minimax readoffs of one frozen layer and of a trained one: run compare")
    (frozen,) = (layer for layer in layers if layer != "trained")
    tasks, columns, lines = levels(rows, "task"), levels(rows, "m"), levels(rows, "d")
    errors = {tuple(row[k] for k in ("task", "m", "d", "seed", "first_layer")): row[metric] for row in rows}
    drawing = new_figure(1.3 + 0.26 * len(lines), width=1.2 + 2.9 * len(tasks))
    axes, cells, image = drawing.subplots(1, len(tasks), sharey=True, squeeze=False)[0], [], None
    for axis, task in zip(axes, tasks, strict=True):
        grid = np.full((len(lines), len(columns)), np.nan)
        for i, j in np.ndindex(grid.shape):
            sizes = (task, columns[j], lines[i])
            pairs = [
                tuple(errors.get((*sizes, seed, layer)) for layer in (frozen, "trained"))
                for seed in levels(rows, "seed")
            ]
            known = [(f, t) for f, t in pairs if f is not None and t is not None]
            if known and min(t for _, t in known) > EXACT:
                mean, half = mean_interval([f / t for f, t in known])
                grid[i, j] = mean
                ratio = tables.number(mean, half, ".3f")
                cells.append((task, str(columns[j]), str(lines[i]), ratio, str(len(known))))
        shown = max(1.5, float(np.nanmax(grid)) if np.isfinite(grid).any() else 1.5)
        image = _draw_cells(axis, grid, columns, lines, ".2f", cmap="cividis_r", vmin=1, vmax=min(shown, 3.0))
        axis.set_title(task_title(task), fontsize=8)
    outer_labels([axes], "features m", "width d")
    _draw_colours(drawing, image, axes, "both")
    heading(drawing, f"{title_of(metric)}, frozen {frozen} layer over trained layer, both by minimax readoffs: "
        f"{coverage(rows)}, means of ratios")  # fmt: skip
    text = tables.render(("task", "m", "d", "ratio ± 95 % t interval", "seeds"), cells, right=(1, 2, 4))
    return Drawing(f"genericity_map-{metric}", "Genericity: frozen over trained", drawing, text)


def _trained_networks(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of trained networks; a length of training that is not set counts as 0 steps."""
    trained = [row for row in rows if (row["first_layer"], row["readoff"]) == ("trained", "trained")]
    return [{**row, "steps": row.get("steps") or 0} for row in trained]


def _has_losses(rows: Sequence[Row]) -> bool:
    trained = _trained_networks(rows)
    return len(levels(trained, "p")) * len(levels(trained, "weight")) > 1


@figure("loss_map", order=22, columns=("p", "weight"), applies=_has_losses)
def loss_map(rows: Sequence[Row], *, metric: str = "worst_error") -> Drawing:
    """Draw an error of trained networks as a map over the loss's exponent and weights, a column for each number of steps.

    Which loss trains the network of smallest worst error, and how long must one train? A row of panels for each task; means over
    seeds. Raises InputError for a table without trained networks, or in which more varies.
    """
    rows = _trained_networks(rows)
    if not rows:
        raise InputError("the table has no trained network: a map over losses needs some")
    rows = require_fixed(rows, ("p", "weight", "steps"))
    exponents, weights = levels(rows, "p"), levels(rows, "weight")
    tasks, lengths = levels(rows, "task"), levels(rows, "steps")
    if len(exponents) * len(weights) < 2:
        raise InputError("p and weight have one value each: a map over losses needs more")
    from matplotlib.patches import Rectangle

    drawing = new_figure(0.9 + len(tasks) * (0.55 + 0.24 * len(exponents)), width=max(4.4, 1.4 + 2.3 * len(lengths)))
    axes = drawing.subplots(len(tasks), len(lengths), sharex=True, sharey=True, squeeze=False)
    cells = []
    for line, task in zip(axes, tasks, strict=True):
        grids = np.full((len(lengths), len(exponents), len(weights)), np.nan)
        for (k, steps), (i, p), (j, weight) in itertools.product(*map(enumerate, (lengths, exponents, weights))):
            errors = [
                r[metric] for r in rows if (r["task"], r["steps"], r["p"], r["weight"]) == (task, steps, p, weight)
            ]
            if errors:
                mean, half = mean_interval(errors)
                grids[k, i, j] = mean
                words = (task, format_value(steps) if steps else "default", format_value(p), format_value(weight))
                cells.append((mean, (*words, tables.number(mean, half), str(len(errors)))))
        low, high = np.nanmin(grids), min(np.nanmax(grids), 4 * np.nanmin(grids) + 1e-9)
        for axis, grid, steps in zip(line, grids, lengths, strict=True):
            image = _draw_cells(axis, grid, weights, exponents, ".3f", cmap="cividis", vmin=low, vmax=high)
            if np.isfinite(grid).any():
                up, across = np.unravel_index(np.nanargmin(grid), grid.shape)
                corner = (across - 0.47, up - 0.45)
                axis.add_patch(Rectangle(corner, 0.94, 0.9, fill=False, edgecolor=VERMILION, linewidth=1.8))
            axis.set_title(f"{task_title(task)}, {f'{steps:,} steps' if steps else 'default steps'}", fontsize=8)
        _draw_colours(drawing, image, line)
    outer_labels(axes, "weight on ones, or by", "exponent p of the loss")
    sizes = [f"{name} = {found[0]}, " for name in ("m", "d") if len(found := levels(rows, name)) == 1]
    heading(drawing, f"{title_of(metric)} of trained networks over their loss: {''.join(sizes)}{coverage(rows)}, means. "
        "Framed: the least of a panel.")  # fmt: skip
    ordered = [words for _, words in sorted(cells, key=lambda cell: (cell[1][0], cell[0]))]
    text = tables.render(
        ("task", "steps", "p", "weight", error_label(metric) + " ± 95 %", "seeds"), ordered, right=(1, 5)
    )
    return Drawing(f"loss_map-{metric}", f"{title_of(metric)} over the loss", drawing, text)
