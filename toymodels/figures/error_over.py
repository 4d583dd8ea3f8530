"""Errors over d, m, s, training steps or another setting: a line for each first layer and readoff, with the laws beside."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from toymodels.errors import InputError
from toymodels.figures import series
from toymodels.figures.fits import EXACT, crossing, in_words, power_law
from toymodels.figures.registry import figure
from toymodels.figures.series import gate_of, name_of, seeds_in_words, series_of, series_styles, task_title
from toymodels.figures.style import Drawing, errors_axis, heading, legend, new_figure, outer_labels, quiet, sizes_axis
from toymodels.figures.table import (
    Row,
    coverage,
    errors_by_seed,
    laws_hold,
    require,
    require_fixed,
    select_series,
    settings_of,
    title_of,
)
from toymodels.runs import text as tables
from toymodels.runs.table import levels
from toymodels.theory.counts import case_shares
from toymodels.theory.extremes import max_error_distribution
from toymodels.theory.gates import Gate
from toymodels.theory.quadrants import error_std, rms_by_value
from toymodels.theory.rank import worst_error_floor
from toymodels.theory.statistics import mean_interval

AXES = {"d": "width d (neurons)", "m": "number of features m", "s": "active features s", "steps": "training steps"}
"""Names of x axes; another setting has its own name."""
COLUMNS = 4
"""Columns of panels at most; of more values, as many are drawn, evenly spaced."""
WORST = ("worst_error", "mean_worst_error")
"""Errors that the affine level bounds."""


def _panels_over(x: str) -> str:
    """Return the setting that has a column of panels for each of its values."""
    return "m" if x == "d" else "d"


def _applies(rows: Sequence[Row], x: str) -> bool:
    used = [row for row in rows if row.get("stopped_at") is None and not fits_everything(row)]
    values = levels(used, x)
    return len(values) > 1 and all(isinstance(value, int | float) and value > 0 for value in values)


@figure(
    "error_over",
    order=10,
    columns=("d",),
    applies=_applies,
    variants=({"x": "d"}, {"x": "d", "metric": "rms_zeros"}, {"x": "m"}, {"x": "s"}, {"x": "steps"}),
)
def error_over(rows: Sequence[Row], *, x: str = "d", metric: str = "worst_error") -> Drawing:
    """Draw an error over a setting x (d, m, s, steps, …), with fitted power laws and crossings as text.

    How fast does each readoff's error fall with the width, and where does it beat what no hidden layer can? A row of panels for
    each task, a column for each m (each d, if x is not d). Points: geometric means over seeds with 95 % t intervals of the
    logarithms. Lines of theory where they hold: the predicted median of the analytic readoff's worst error (theory.extremes) or
    its RMS error σ/√d (theory.quadrants), the worst error of affine readoffs without a hidden layer, and the floor of any layer
    (theory.rank).

    Raises InputError for a table without the columns, with a single value of x, or in which more varies.
    """
    if x not in settings_of(rows):
        raise InputError(
            f"the table has no setting {x!r} to draw an error over: choose of {', '.join(settings_of(rows))}"
        )
    panel = _panels_over(x)
    require(rows, numbers=(x, panel))
    fixed = require_fixed(rows, (x, panel))
    rows = [row for row in fixed if not fits_everything(row)]
    if len(levels(rows, x)) < 2:
        raise InputError(f"{x} has one value, {levels(fixed, x)[0]}: an error over {x} needs at least two")
    if levels(rows, x)[0] == 0:
        raise InputError(f"{x} is 0 in some rows: its axis is logarithmic, choose rows with --where")
    tasks, panels = levels(rows, "task"), levels(rows, panel)
    shown = _spread(panels, COLUMNS)
    drawing = new_figure(1.15 + 2.15 * len(tasks), width=7.0 if len(shown) > 1 else 4.6)
    axes = drawing.subplots(len(tasks), len(shown), sharex=True, sharey="row", squeeze=False)
    styles = series_styles(series_of(rows))
    for line, task in zip(axes, tasks, strict=True):
        parts = [[row for row in rows if row[panel] == value] for value in shown]
        for axis, part, value in zip(line, parts, shown, strict=True):
            _draw_panel(axis, part, task, styles, x, metric)
            sizes_axis(axis, levels(rows, x))
            axis.set_title(f"{task_title(task)}, {panel} = {value:,}", fontsize=8)
        limits = line[0].get_ylim()  # of the measurements in all panels of the row: theory does not stretch them
        for axis, part in zip(line, parts, strict=True):
            limits = _draw_theory(axis, part, task, x, metric, limits)
        line[0].set_ylim(limits)
    outer_labels(axes, AXES.get(x, x), "error |output − target|" if metric == "worst_error" else "error")
    legend(drawing, 3 if len(shown) > 1 else 2)
    more = f" {len(shown)} of {len(panels)} values of {panel} shown." if len(shown) < len(panels) else ""
    title = f"{title_of(metric)} over {x}"
    bars = "; bars: 95 % intervals" if len(levels(rows, "seed")) > 1 else ""
    text = _fits_table(rows, x, metric)
    if len(rows) < len(fixed):
        more += " Fitted readoffs are left out where d + 1 reaches the number of inputs."
        text += (
            f"\n{len(fixed) - len(rows)} rows are left out: their d weights and a constant can fit every input, "
            "whatever the targets."
        )
    heading(drawing, f"{title}: {coverage(rows)}{bars}.{more}")
    return Drawing(f"error_over_{x}-{metric}", title, drawing, text)


def fits_everything(row: Row) -> bool:
    """Return whether a readoff was fitted to no more inputs than it has weights: d and a constant (d + 1 >= inputs)."""
    words = str(row.get("covered", "")).split()
    fitted = row["first_layer"] != "identity" and row["readoff"] not in ("constant", "analytic")
    if not fitted or len(words) != 2 or words[0] != "all":
        return False
    return bool(row["d"] + 1 >= int(words[1].replace(",", "")))


def _spread(values: Sequence[Any], most: int) -> list[Any]:
    """Choose at most so many of the values, evenly spaced, the first and last among them."""
    if len(values) <= most:
        return list(values)
    return [values[round(i)] for i in np.linspace(0, len(values) - 1, most)]


def _draw_panel(
    axis: Any, rows: Sequence[Row], task: str, styles: dict[series.Key, dict[str, Any]], x: str, metric: str
) -> None:
    for key, style in styles.items():
        members = select_series(rows, task, key)
        if not members:
            continue
        positions, errors = errors_by_seed(members, x, metric)
        points = [_geometric([error for error in column if error > EXACT]) for column in errors.T]  # nan is not above
        centre, low, high = np.array([point or (np.nan,) * 3 for point in points]).T
        axis.errorbar(positions, centre, (centre - low, high - centre), label=name_of(*key), elinewidth=0.7, **style)
    errors_axis(axis)
    quiet(axis)


def _geometric(errors: Sequence[float]) -> tuple[float, float, float] | None:
    """Return (geometric mean, ends of its 95 % t interval; the mean itself for one value), None for no value."""
    if not errors:
        return None
    mean, half = mean_interval(np.log(errors).tolist())
    return math.exp(mean), math.exp(mean - (half or 0)), math.exp(mean + (half or 0))


def _draw_theory(
    axis: Any, rows: Sequence[Row], task: str, x: str, metric: str, limits: tuple[float, float]
) -> tuple[float, float]:
    """Draw the lines of theory that hold for these rows; returns the limits of y, with room for the affine level."""
    gate = gate_of(task)
    if not rows or gate is None or not laws_hold(rows):
        return limits
    if metric in WORST and gate.affine_floor:
        level = gate.affine_floor
        axis.axhline(level, color=series.GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="affine readoff, no layer")
        limits = (min(limits[0], 0.9 * level), max(limits[1], 1.1 * level))
    if metric == "worst_error" and (floor := _line(rows, x, lambda row: _floor(row, task))):
        axis.plot(*floor, color="black", linewidth=1.2, linestyle=":", label="no layer can be below")
    if predicted := _line(rows, x, lambda row: _analytic(row, task, metric)):
        what = "predicted median" if metric == "worst_error" else "σ/√d"
        colour = series.look("readoff", "analytic").colour
        axis.plot(*predicted, color=colour, linewidth=2.2, alpha=0.35, label=f"analytic: {what}")
    return limits


def _line(rows: Sequence[Row], x: str, predict: Callable[[Row], float | None]) -> tuple[list[Any], list[float]] | None:
    """Return (values of x, predictions) over the range of x: every whole s, 25 sizes d or m, the ends of another setting.

    None where fewer than two predictions exist.
    """
    template, positions = rows[0], levels(rows, x)
    if x in ("d", "m"):
        grid = sorted({round(size) for size in np.geomspace(positions[0], positions[-1], 25)} | set(positions))
    elif x == "s":
        grid = list(range(math.ceil(positions[0]), int(positions[-1]) + 1))
    else:
        grid = [positions[0], positions[-1]]
    points = [(position, predict({**template, x: position})) for position in grid]
    known = [(position, value) for position, value in points if value]
    return ([p for p, _ in known], [v for _, v in known]) if len(known) > 1 else None


def _floor(row: Row, task: str) -> float | None:
    """Return the floor of any layer's worst error; it needs every pair and every input with as many active."""
    m, s, gate = row.get("m"), row.get("s"), gate_of(task)
    whole = row.get("pairs") is None and str(row.get("covered", "")).startswith("all ")
    if gate is None or m is None or s is None or row.get("inputs") not in ("exactly", "at_most") or not whole:
        return None
    active = 2 if row["inputs"] == "at_most" else int(s)
    return worst_error_floor(gate, m, active, row["d"]) or None if 2 <= active <= m else None


def _analytic(row: Row, task: str, metric: str) -> float | None:
    """Return the analytic readoff's predicted error, for inputs with exactly s active; None where no closed form holds."""
    m, s, d, gate = row.get("m"), row.get("s"), row["d"], gate_of(task)
    frozen = (row.get("frozen_layer"), row.get("activation"), row.get("layer_bias") or 0) == ("gaussian", "relu", 0)
    simple = row.get("d0") is None and row.get("pairs") is None and row.get("inputs") == "exactly"
    if gate is None or m is None or s is None or not (frozen and simple) or not 2 <= int(s) <= m - 2:
        return None
    active = int(s)
    if metric == "worst_error":
        every = str(row.get("covered", "")).startswith("all ")
        return _median_worst(gate, m, active, d) if d >= 10 and every else None
    value = {"rms_zeros": 0, "rms_ones": 1}.get(metric)
    if value is None or value not in gate.truth:
        return None
    return rms_by_value(gate, value, case_shares(m, active), error_std(gate, active) ** 2 / d)


@functools.cache
def _median_worst(gate: Gate, m: int, s: int, d: int) -> float:
    """Return the predicted median of the analytic readoff's worst error over all inputs with exactly s active."""
    return max_error_distribution(gate, m, s, d, math.comb(m, s)).quantile(0.5)


def _fits_table(rows: Sequence[Row], x: str, metric: str) -> str:
    """Fit a power law to every line; over d, find the width at which it reaches the affine readoffs' worst error, too."""
    panel = _panels_over(x)
    gates = laws_hold(rows) and any(gate_of(task) for task in levels(rows, "task"))
    with_levels = x == "d" and metric in WORST and gates
    header = ["task", panel, "first layer, readoff", f"exponent of {x}", "constant", "misfit", "points"]
    header += ["d at the affine level"] if with_levels else []
    cells = []
    for task in levels(rows, "task"):
        for value in levels(rows, panel):
            part = [row for row in rows if row[panel] == value]
            for key in series_of(part):
                members = select_series(part, task, key)
                if members and key[0] != "identity":  # without a layer, d and training do not enter
                    cells.append([task, str(value), name_of(*key), *_fit(members, task, x, metric, with_levels)])
    seeds = levels(rows, "seed")
    notes = (
        f"{title_of(metric)} = constant · {x}^exponent: least squares of the mean logarithm over {seeds_in_words(seeds)} on "
        f"log {x}"
        + ("; [95 % percentile bootstrap over seeds: too narrow below about ten seeds]" if len(seeds) > 1 else "")
        + f".\nErrors up to {EXACT:g} (fitted exactly) are left out. Misfit: the largest factor between a mean and the fit: well "
        "above 1,\nthe error is no power of the size over this range."
    )
    if with_levels:
        notes += (
            "\nAffine level: the least worst error of affine readoffs without a hidden layer, 1/4 for AND and 1/2 for XOR; the"
            "\nmean error over seeds is below that from the d given on, linear in log d between the widths measured."
        )
    return tables.render(header, cells, right=(1, 5, 6)) + "\n" + notes


def _fit(rows: Sequence[Row], task: str, x: str, metric: str, with_levels: bool) -> list[str]:
    """Return the cells of one line of the fits' table."""
    positions, errors = errors_by_seed(rows, x, metric)
    at = np.array(positions, dtype=float)
    try:
        law = power_law(at, errors)
    except InputError:
        cells = ["–", "–", "–", "0"]
    else:
        exponent = in_words(law.exponent, law.exponent_interval)
        cells = [exponent, in_words(law.constant, law.constant_interval), f"×{law.misfit:.2f}", str(law.sizes)]
    if with_levels:
        gate = gate_of(task)
        cells.append("–" if gate is None else crossing(at, errors, gate.affine_floor).words(at[0], at[-1], ".1f"))
    return cells
