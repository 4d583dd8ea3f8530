"""Errors over d, m, s or training steps: one line for each first layer and readoff, a panel for each gate and size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from toymodels.errors import InputError
from toymodels.figures.fits import EXACT, PowerLaw, crossing, in_words, power_law
from toymodels.figures.style import (
    GREY,
    READOFF_COLOURS,
    Drawing,
    errors_axis,
    heading,
    new_figure,
    quiet,
    series_name,
    series_style,
    sizes_axis,
)
from toymodels.figures.table import (
    ERRORS,
    Row,
    by_seed,
    domain,
    of_series,
    require,
    series,
    single,
    span,
    title_of,
    values,
)
from toymodels.runs import text as tables
from toymodels.theory.counts import case_shares
from toymodels.theory.extremes import max_error_distribution
from toymodels.theory.gates import Gate
from toymodels.theory.quadrants import error_std, rms_by_value
from toymodels.theory.rank import worst_error_floor
from toymodels.theory.statistics import mean_interval

AXES = {
    "d": ("width d (neurons)", "m"),
    "m": ("number of features m", "d"),
    "s": ("active features s", "d"),
    "steps": ("training steps", "d"),
}
"""What an x axis is called, and which setting has a column of panels for each value."""
COLUMNS = 4
"""Columns of panels at most; of more values, as many are drawn, evenly spaced."""


def error_over(rows: Sequence[Row], x: str, error: str = "worst_error") -> Drawing:
    """The figure of one error over one setting, with the fitted power laws and crossings as text.

    Points: geometric means over seeds with 95 % t intervals of the logarithms. Lines of theory where they hold: the
    analytic readoff's predicted median of the worst error (theory.extremes) or RMS error σ/√d (theory.quadrants), the
    worst error of affine readoffs without a hidden layer, and the floor of any layer (theory.rank).

    Raises InputError for a table without the columns, with a single value of x, or in which more varies.
    """
    if x not in AXES or error not in ERRORS:
        raise InputError(f"no figure of {error} over {x}: the errors are {', '.join(ERRORS)}, over {', '.join(AXES)}")
    name, panel = AXES[x]
    require(rows, numbers=(x, panel, error))
    rows = single(rows, (x, panel))
    everything, rows = rows, [row for row in rows if not fits_everything(row)]
    if len(values(rows, x)) < 2:
        raise InputError(f"{x} has one value, {values(rows, x)[0]}: an error over {x} needs two at least")
    tasks, panels = values(rows, "task"), values(rows, panel)
    drawn = _spread(panels, COLUMNS)
    figure = new_figure(1.15 + 2.15 * len(tasks), width=7.0 if len(drawn) > 1 else 4.6)
    axes = figure.subplots(len(tasks), len(drawn), sharex=True, sharey="row", squeeze=False)
    keys = series(rows)
    for line, task in zip(axes, tasks, strict=True):
        parts = [[row for row in rows if row[panel] == value] for value in drawn]
        for axis, part, value in zip(line, parts, drawn, strict=True):
            _panel(axis, part, task, keys, x, error)
            sizes_axis(axis, values(rows, x))
            axis.set_title(f"U-{task.upper()}, {panel} = {value:,}", fontsize=8)
        limits = line[0].get_ylim()  # of what was measured, in all panels of the row: theory does not stretch them
        for axis, part in zip(line, parts, strict=True):
            limits = _theory(axis, part, task, x, error, limits)
        line[0].set_ylim(limits)
        line[0].set_ylabel("error |output − target|" if error == "worst_error" else "error", fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel(name, fontsize=8)
    entries = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    columns = 3 if len(drawn) > 1 else 2
    figure.legend(
        entries.values(), entries.keys(), loc="outside lower center", ncols=columns, fontsize=6.5, frameon=False
    )
    more = f" {len(drawn)} of {len(panels)} values of {panel} shown." if len(drawn) < len(panels) else ""
    title = f"{title_of(error)} over {x}"
    seeds = values(rows, "seed")
    bars = "; bars: 95 % intervals" if len(seeds) > 1 else ""
    text = describe(rows, x, error)
    if len(rows) < len(everything):
        more += " Fitted readoffs are left out where d + 1 reaches the number of inputs."
        text += (
            f"\n{len(everything) - len(rows)} rows are left out: their d weights and a constant can fit every input, "
            "whatever the targets."
        )
    heading(figure, f"{title}: {domain(rows)}{bars}.{more}")
    return Drawing(f"error_over_{x}-{error}", title, figure, text)


def fits_everything(row: Row) -> bool:
    """Whether a readoff was fitted to no more inputs than it has weights: d and a constant (d + 1 >= inputs)."""
    words = str(row.get("covered", "")).split()
    fitted = row["first_layer"] != "identity" and row["readoff"] not in ("constant", "analytic")
    if not fitted or len(words) != 2 or words[0] != "all":
        return False
    return bool(row["d"] + 1 >= int(words[1].replace(",", "")))


def _spread(places: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them, evenly spaced, the first and last among them."""
    if len(places) <= most:
        return list(places)
    return [places[round(i)] for i in np.linspace(0, len(places) - 1, most)]


def _panel(axis: Any, rows: Sequence[Row], task: str, keys: Sequence[tuple[str, str]], x: str, error: str) -> None:
    for key in keys:
        members = of_series(rows, task, key)
        if not members:
            continue
        places, found = by_seed(members, x, error)
        points = [_geometric([v for v in column if v > EXACT]) for column in found.T]  # nan is not above
        centre, low, high = np.array([point or (np.nan,) * 3 for point in points]).T
        axis.errorbar(
            places, centre, (centre - low, high - centre), label=series_name(*key), elinewidth=0.7, **series_style(*key)
        )
    errors_axis(axis)
    quiet(axis)


def _geometric(errors: Sequence[float]) -> tuple[float, float, float] | None:
    """(geometric mean, ends of its 95 % t interval; the mean itself for one value), None for no value."""
    if not errors:
        return None
    mean, half = mean_interval(np.log(errors).tolist())
    return math.exp(mean), math.exp(mean - (half or 0)), math.exp(mean + (half or 0))


def _theory(
    axis: Any, rows: Sequence[Row], task: str, x: str, error: str, limits: tuple[float, float]
) -> tuple[float, float]:
    """Lines of theory, as far as they hold for these rows; returns the limits of y, with room for the affine level."""
    if not rows:
        return limits
    if error in ("worst_error", "mean_worst_error"):
        level = Gate.parse(task).affine_floor
        if level:
            axis.axhline(level, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), label="affine readoff, no layer")
        floor = _line(rows, x, lambda row: _floor(row, task)) if error == "worst_error" else None
        if floor:
            axis.plot(*floor, color="black", linewidth=1.2, linestyle=":", label="no layer can be below")
        if level:
            limits = (min(limits[0], 0.9 * level), max(limits[1], 1.1 * level))
    predicted = _line(rows, x, lambda row: _analytic(row, task, error))
    if predicted:
        what = "predicted median" if error == "worst_error" else "σ/√d"
        axis.plot(*predicted, color=READOFF_COLOURS["analytic"], linewidth=2.2, alpha=0.35, label=f"analytic: {what}")
    return limits


def _line(rows: Sequence[Row], x: str, predict: Any) -> tuple[list[Any], list[float]] | None:
    """(x, predictions) over the range of x, where there are two at least; every whole s, 25 places of other settings."""
    template, places = rows[0], values(rows, x)
    if x == "steps":
        grid = [places[0], places[-1]]
    elif x == "s":
        grid = list(range(math.ceil(places[0]), int(places[-1]) + 1))
    else:
        grid = sorted({round(v) for v in np.geomspace(places[0], places[-1], 25)} | set(places))
    found = [(place, predict({**template, x: place})) for place in grid]
    there = [(place, value) for place, value in found if value]
    return ([p for p, _ in there], [v for _, v in there]) if len(there) > 1 else None


def _floor(row: Row, task: str) -> float | None:
    """The floor of any layer's worst error; it needs every pair and every input with as many active."""
    m, s = row.get("m"), row.get("s")
    if m is None or s is None or row.get("inputs") not in ("exactly", "at_most") or row.get("pairs") is not None:
        return None
    count = 2 if row["inputs"] == "at_most" else int(s)
    if not 2 <= count <= m or not str(row.get("covered", "")).startswith("all "):
        return None
    return worst_error_floor(Gate.parse(task), m, count, row["d"]) or None


def _analytic(row: Row, task: str, error: str) -> float | None:
    """The analytic readoff's predicted error, for inputs with exactly s active; None where no closed form holds."""
    m, s, d = row.get("m"), row.get("s"), row["d"]
    frozen = (row.get("frozen_layer"), row.get("activation"), row.get("layer_bias", 0)) == ("gaussian", "relu", 0)
    if (
        not frozen
        or row.get("d0") is not None
        or row.get("inputs") != "exactly"
        or m is None
        or s is None
        or row.get("pairs") is not None
    ):
        return None
    gate, active = Gate.parse(task), int(s)
    if not 2 <= active <= m - 2:
        return None
    if error == "worst_error":
        every = str(row.get("covered", "")).startswith("all ")
        return (
            max_error_distribution(gate, m, active, d, math.comb(m, active)).quantile(0.5)
            if d >= 10 and every
            else None
        )
    value = {"rms_zeros": 0, "rms_ones": 1}.get(error)
    if value is None or value not in gate.truth:
        return None
    return rms_by_value(gate, value, case_shares(m, active), error_std(gate, active) ** 2 / d)


def describe(rows: Sequence[Row], x: str, error: str) -> str:
    """Power laws fitted to every line and, over d, the width at which it reaches the affine readoffs' worst error."""
    panel = AXES[x][1]
    levels = x == "d" and error in ("worst_error", "mean_worst_error")
    header = ["gate", panel, "first layer, readoff", f"exponent of {x}", "constant", "misfit", "points"]
    cells = []
    for task in values(rows, "task"):
        level = Gate.parse(task).affine_floor
        for value in values(rows, panel):
            chosen = [row for row in rows if row[panel] == value]
            for key in series(chosen):
                members = of_series(chosen, task, key)
                if not members or key[0] == "identity":  # no layer: d and training do not enter
                    continue
                places, found = by_seed(members, x, error)
                at = np.array(places, dtype=float)
                line = [task, str(value), series_name(*key)]
                try:
                    law: PowerLaw | None = power_law(at, found)
                except InputError:
                    law = None
                if law:
                    line += [
                        in_words(law.exponent, law.exponent_interval),
                        in_words(law.constant, law.constant_interval),
                        f"×{law.misfit:.2f}",
                    ]
                else:
                    line += ["–", "–", "–"]
                line.append(str(law.places) if law else "0")
                if levels:
                    line.append(_reached(at, found, level))
                cells.append(line)
    if levels:
        header.append("d at the affine level")
    seeds = values(rows, "seed")
    notes = (
        f"{title_of(error)} = constant · {x}^exponent: least squares of the mean logarithm over {span(seeds)} on "
        f"log {x}"
        + ("; [95 % percentile bootstrap over seeds: too narrow below about ten seeds]" if len(seeds) > 1 else "")
        + f".\nErrors up to {EXACT:g} (fitted exactly) are left out. Misfit: the largest factor between a mean and the law: well "
        "above 1,\nthe error is no power of the size over this range."
    )
    if levels:
        notes += (
            "\nAffine level: what affine readoffs reach without a hidden layer, 1/4 for AND and 1/2 for XOR; the mean error over"
            "\nseeds is below that from the d given on, linear in log d between the widths measured."
        )
    return tables.render(header, cells, right=(1, 5, 6)) + "\n" + notes


def _reached(x: Any, errors: Any, level: float) -> str:
    found = crossing(x, errors, level)

    def word(value: float) -> str:
        return f"≤ {x[0]:g}" if value == 0 else f"> {x[-1]:g}" if value == math.inf else f"{value:.1f}"

    if found.interval is None or found.interval[0] == found.interval[1] == found.x:
        return word(found.x)
    return f"{word(found.x)} [{word(found.interval[0])}, {word(found.interval[1])}]"
