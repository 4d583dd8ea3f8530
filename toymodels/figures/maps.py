"""Maps over two settings: worst errors and genericity over m and d, worst errors over the loss's exponent and weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.figures.fits import EXACT, crossing, in_words
from toymodels.figures.style import Drawing, heading, new_figure, series_name
from toymodels.figures.table import (
    ERRORS,
    Row,
    by_seed,
    domain,
    of_series,
    require,
    series,
    show,
    single,
    title_of,
    values,
)
from toymodels.runs import text as tables
from toymodels.theory.extremes import max_error_distribution
from toymodels.theory.gates import Gate
from toymodels.theory.rank import least_width
from toymodels.theory.statistics import mean_interval
from toymodels.theory.widths import smallest_width

Grid = Float[np.ndarray, "rows columns"]


def _means(rows: Sequence[Row], across: str, up: str, error: str) -> tuple[list[Any], list[Any], Grid]:
    """(values across, values up, means over seeds)."""
    columns, lines = values(rows, across), values(rows, up)
    found = np.full((len(lines), len(columns)), np.nan)
    for j, place in enumerate(columns):
        there, errors = by_seed([row for row in rows if row[across] == place], up, error)
        for value, column in zip(there, errors.T, strict=True):
            found[lines.index(value), j] = np.nanmean(column)
    return columns, lines, found


def _cells(axis: Any, grid: Grid, columns: Sequence[Any], lines: Sequence[Any], form: str, **style: Any) -> Any:
    """Equal cells with their numbers written in, dark on light and light on dark."""
    image = axis.imshow(grid, origin="lower", aspect="auto", **style)
    for i, j in np.argwhere(~np.isnan(grid)):
        red, green, blue, _ = image.cmap(image.norm(grid[i, j]))
        light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        axis.text(
            j, i, f"{grid[i, j]:{form}}", ha="center", va="center", fontsize=5.6, color="black" if light else "white"
        )
    axis.set_xticks(range(len(columns)), [show(value) for value in columns])
    axis.set_yticks(range(len(lines)), [show(value) for value in lines])
    axis.tick_params(labelsize=7, length=2)
    return image


def _check_map(rows: Sequence[Row]) -> None:
    for name in ("m", "d"):
        if len(values(rows, name)) < 2:
            raise InputError(f"{name} has one value in these rows: a map over m and d needs two of each at least")


def _place(places: Sequence[int | float], value: int | float) -> float:
    """Where a size lies among equal cells; linear in the logarithm between two, nan outside."""
    return float(np.interp(math.log(value), np.log(places), np.arange(len(places)), left=np.nan, right=np.nan))


def _contour(columns: Sequence[Any], lines: Sequence[Any], grid: Grid, level: float) -> tuple[list[int], list[float]]:
    """The d at which each m's error reaches the level for good, as (places across, places up)."""
    found = []
    for j in range(len(columns)):
        used = ~np.isnan(grid[:, j])
        x = crossing(np.array(lines, dtype=float)[used], grid[used, j][None], level, 1).x if used.any() else 0
        found.append((j, _place(lines, x) if 0 < x < math.inf else np.nan))
    return [j for j, _ in found], [y for _, y in found]


def widths(task: str, m: int, s: int, inputs: str, epsilon: float) -> dict[str, float]:
    """Widths d for a worst error of ε, by name: the lower bound for any layer, and the analytic readoff's law.

    Sources: theory.rank (Alon 2009, Welch 1974) and theory.extremes; the latter is for inputs with exactly s active.
    """
    gate = Gate.parse(task)
    found = {"no layer below (rank bound)": float(least_width(gate, m, 2 if inputs == "at_most" else s, epsilon))}
    if 2 <= s <= m - 2:
        law = max_error_distribution(gate, m, s, 10, math.comb(m, s))
        found["analytic readoff (median law)"] = float(
            smallest_width(lambda d: max_error_distribution(gate, m, s, d, math.comb(m, s)).cdf(epsilon) >= 0.5, 10)
        ) if law.shape.sigma.any() else math.nan  # fmt: skip
    return found


def error_map(rows: Sequence[Row], error: str = "worst_error") -> Drawing:
    """An error over m and d by minimax readoffs, a row of panels for each gate, a column for each first layer.

    Line: where the error passes below what affine readoffs reach without a hidden layer (1/4 for AND, 1/2 for XOR).
    Dotted: the rank bound, below which no layer reaches that. Means over seeds. The text has the widths of that line
    with intervals, beside the laws. Raises InputError for a table without the columns or in which more varies.
    """
    require(rows, numbers=("m", "d", "s", error))
    if error not in ERRORS:
        raise InputError(f"no map of {error}: the errors are {', '.join(ERRORS)}")
    rows = single([row for row in rows if row["readoff"] == "minimax" and row["first_layer"] != "identity"], ("m", "d"))
    if not rows:
        raise InputError("the table has no minimax readoff of a hidden layer: run compare with minimax among readoffs")
    _check_map(rows)
    tasks, keys = values(rows, "task"), series(rows)
    columns, lines = values(rows, "m"), values(rows, "d")
    figure = new_figure(0.8 + len(tasks) * (0.5 + 0.26 * len(lines)), width=max(4.2, 1.4 + 2.8 * len(keys)))
    axes = figure.subplots(len(tasks), len(keys), sharex=True, sharey=True, squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        level = Gate.parse(task).affine_floor or 0.25
        for axis, key in zip(line, keys, strict=True):
            members = of_series(rows, task, key)
            if not members:
                axis.set_axis_off()
                continue
            there, up, found = _means(members, "m", "d", error)
            grid = np.full((len(lines), len(columns)), np.nan)
            grid[np.ix_([lines.index(v) for v in up], [columns.index(v) for v in there])] = found
            image = _cells(axis, grid, columns, lines, ".3f", cmap="cividis", vmin=0, vmax=2 * level)
            if error == "worst_error":
                axis.plot(*_contour(columns, lines, grid, level), color="#D55E00", linewidth=1.6, marker="o", markersize=3,
                          label=f"{level:g}: affine, no layer")  # fmt: skip
                bound = [least_width(Gate.parse(task), m, _rank_active(rows), level) for m in columns]
                dots = [_place(lines, value) for value in bound]
                if np.isfinite(dots).any():
                    axis.plot(
                        range(len(columns)), dots, color="black", linewidth=1.4, linestyle=":", label="rank bound"
                    )
            axis.set_title(f"U-{task.upper()}, {series_name(*key)}", fontsize=8)
        line[0].set_ylabel("width d", fontsize=8)
        figure.colorbar(image, ax=list(line), shrink=0.9, pad=0.01, extend="max").ax.tick_params(labelsize=6.5)
    for axis in axes[-1]:
        axis.set_xlabel("features m", fontsize=8)
    entries = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    levels = ", ".join(f"{Gate.parse(task).affine_floor:g} (U-{task.upper()})" for task in tasks)
    note = f"Line: below it affine readoffs without a layer do as well, {levels}." if entries else ""
    if "rank bound" in entries:
        note += " Dotted: no layer reaches that below (rank bound)."
    heading(figure, f"{title_of(error)} over m and d: {domain(rows)}, means. {note}")
    return Drawing(f"error_map-{error}", f"{title_of(error)} over m and d", figure, _widths_table(rows, error))


def _rank_active(rows: Sequence[Row]) -> int:
    return 2 if rows[0].get("inputs") == "at_most" else int(rows[0]["s"])


def _widths_table(rows: Sequence[Row], error: str) -> str:
    cells: list[list[str]] = []
    names: tuple[str, ...] = ()
    for task in values(rows, "task"):
        level = Gate.parse(task).affine_floor
        for m in values(rows, "m"):
            laws = widths(task, m, int(rows[0]["s"]), str(rows[0].get("inputs")), level) if level else {}
            names = names or tuple(laws)
            for key in series(rows):
                members = [row for row in of_series(rows, task, key) if row["m"] == m]
                if not members:
                    continue
                places, found = by_seed(members, "d", error)
                at = np.array(places, dtype=float)
                reached = crossing(at, found, level)
                word = f"≤ {at[0]:g}" if not reached.x else f"> {at[-1]:g}" if reached.x == math.inf else in_words(
                    reached.x, reached.interval, ".1f")  # fmt: skip
                cells.append([task, str(m), series_name(*key), word, *(f"{laws[name]:,.0f}" for name in names)])
    header = ["gate", "m", "first layer, readoff", "d at the affine level", *names]
    return tables.render(header, cells, right=(1, *range(4, 4 + len(names)))) + (
        f"\n{title_of(error)} below the affine level, 1/4 for AND and 1/2 for XOR, from that d on; linear in log d between the "
        "widths\nmeasured; [95 % bootstrap over seeds, too narrow below about ten]. The rank bound holds for every layer; the "
        "analytic law for\nexactly s active."
    )


def genericity_map(rows: Sequence[Row], error: str = "worst_error") -> Drawing:
    """Error of the frozen layer over that of the trained one, both by minimax readoffs, over m and d; means over seeds.

    A cell is empty where the trained layer reads some seed's targets exactly (within 1e-6). Raises InputError for a
    table without both layers' minimax readoffs or in which more varies.
    """
    require(rows, numbers=("m", "d", error))
    if error not in ERRORS:
        raise InputError(f"no map of {error}: the errors are {', '.join(ERRORS)}")
    rows = single([row for row in rows if row["readoff"] == "minimax" and row["first_layer"] != "identity"], ("m", "d"))
    frozen = [layer for layer, _ in series(rows) if layer != "trained"]
    if len(frozen) != 1 or not any(row["first_layer"] == "trained" for row in rows):
        raise InputError("a ratio needs minimax readoffs of one frozen layer and of a trained one: run compare")
    _check_map(rows)
    tasks, columns, lines = values(rows, "task"), values(rows, "m"), values(rows, "d")
    errors = {tuple(row[k] for k in ("task", "m", "d", "seed", "first_layer")): row[error] for row in rows}
    figure = new_figure(1.3 + 0.26 * len(lines), width=1.2 + 2.9 * len(tasks))
    axes, cells, image = figure.subplots(1, len(tasks), sharey=True, squeeze=False)[0], [], None
    for axis, task in zip(axes, tasks, strict=True):
        grid = np.full((len(lines), len(columns)), np.nan)
        for i, d in enumerate(lines):
            for j, m in enumerate(columns):
                pairs = [
                    (errors.get((task, m, d, seed, frozen[0])), errors.get((task, m, d, seed, "trained")))
                    for seed in values(rows, "seed")
                ]
                known = [(f, t) for f, t in pairs if f is not None and t is not None]
                if known and min(t for _, t in known) > EXACT:
                    mean, half = mean_interval([f / t for f, t in known])
                    grid[i, j] = mean
                    cells.append((task, str(m), str(d), tables.number(mean, half, ".3f"), str(len(known))))
        shown = max(1.5, float(np.nanmax(grid)) if np.isfinite(grid).any() else 1.5)
        image = _cells(axis, grid, columns, lines, ".2f", cmap="cividis_r", vmin=1, vmax=min(shown, 3.0))
        axis.set_title(f"U-{task.upper()}", fontsize=8)
        axis.set_xlabel("features m", fontsize=8)
    axes[0].set_ylabel("width d", fontsize=8)
    figure.colorbar(image, ax=list(axes), pad=0.01, extend="both").ax.tick_params(labelsize=6.5)
    heading(figure, f"{title_of(error)}, frozen {frozen[0]} layer over trained layer, both by minimax readoffs: "
        f"{domain(rows)}, means of ratios")  # fmt: skip
    text = tables.render(("gate", "m", "d", "ratio ± 95 % t interval", "seeds"), cells, right=(1, 2, 4))
    return Drawing(f"genericity_map-{error}", "Genericity: frozen over trained", figure, text)


def loss_map(rows: Sequence[Row], error: str = "worst_error") -> Drawing:
    """An error of trained networks over the loss's exponent and weights, a row for each gate, a column for each length.

    Means over seeds. Raises InputError for a table without them, or in which more varies.
    """
    if error not in ERRORS:
        raise InputError(f"no map of {error}: the errors are {', '.join(ERRORS)}")
    rows = [row for row in rows if (row.get("first_layer"), row.get("readoff")) == ("trained", "trained")]
    if not rows:
        raise InputError("the table has no trained network: a map over losses needs some")
    rows = [{**row, "steps": row.get("steps") or 0} for row in rows]
    require(rows, ("p", "weight"), (error,))
    rows = single(rows, ("p", "weight", "steps"))
    exponents, weights = values(rows, "p"), values(rows, "weight")
    tasks, lengths = values(rows, "task"), values(rows, "steps")
    if len(exponents) * len(weights) < 2:
        raise InputError("p and weight have one value each: a map over losses needs more")
    from matplotlib.patches import Rectangle

    figure = new_figure(0.9 + len(tasks) * (0.55 + 0.24 * len(exponents)), width=max(4.4, 1.4 + 2.3 * len(lengths)))
    axes = figure.subplots(len(tasks), len(lengths), sharex=True, sharey=True, squeeze=False)
    cells = []
    for line, task in zip(axes, tasks, strict=True):
        grids = []
        for steps in lengths:
            grid = np.full((len(exponents), len(weights)), np.nan)
            for i, p in enumerate(exponents):
                for j, weight in enumerate(weights):
                    there = [
                        r for r in rows if (r["task"], r["steps"], r["p"], r["weight"]) == (task, steps, p, weight)
                    ]
                    if there:
                        mean, half = mean_interval([row[error] for row in there])
                        grid[i, j] = mean
                        words = (task, show(steps) if steps else "default", show(p), show(weight))
                        cells.append((mean, (*words, tables.number(mean, half), str(len(there)))))
            grids.append(grid)
        low, high = np.nanmin(grids), min(np.nanmax(grids), 4 * np.nanmin(grids) + 1e-9)
        for axis, grid, steps in zip(line, grids, lengths, strict=True):
            image = _cells(axis, grid, weights, exponents, ".3f", cmap="cividis", vmin=low, vmax=high)
            best = np.unravel_index(np.nanargmin(grid), grid.shape) if np.isfinite(grid).any() else None
            if best is not None:
                axis.add_patch(
                    Rectangle(
                        (best[1] - 0.47, best[0] - 0.45), 0.94, 0.9, fill=False, edgecolor="#D55E00", linewidth=1.8
                    )
                )
            axis.set_title(f"U-{task.upper()}, {f'{steps:,} steps' if steps else 'default steps'}", fontsize=8)
        line[0].set_ylabel("exponent p of the loss", fontsize=8)
        figure.colorbar(image, ax=list(line), pad=0.01, extend="max").ax.tick_params(labelsize=6.5)
    for axis in axes[-1]:
        axis.set_xlabel("weight on ones, or by", fontsize=8)
    heading(figure, f"{title_of(error)} of trained networks over their loss: {_sizes(rows)}{domain(rows)}, means. "
        "Framed: the least of a panel.")  # fmt: skip
    ordered = [words for _, words in sorted(cells, key=lambda cell: (cell[1][0], cell[0]))]
    text = tables.render(("gate", "steps", "p", "weight", ERRORS[error] + " ± 95 %", "seeds"), ordered, right=(1, 5))
    return Drawing(f"loss_map-{error}", f"{title_of(error)} over the loss", figure, text)


def _sizes(rows: Sequence[Row]) -> str:
    """m and d in words, where they are one each."""
    known = [(name, values(rows, name)) for name in ("m", "d")]
    return "".join(f"{name} = {found[0]}, " for name, found in known if len(found) == 1)
