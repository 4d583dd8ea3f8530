"""Worst error reached against the seconds of training, a line for each optimiser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toymodels.errors import InputError
from toymodels.figures.registry import figure
from toymodels.figures.series import BLUE, GREEN, PURPLE, VERMILION, task_title
from toymodels.figures.style import Drawing, errors_axis, heading, legend, new_figure, quiet, sizes_axis
from toymodels.figures.table import Row, active_in_words, coverage, require, require_fixed, title_of
from toymodels.runs.metrics import error_label
from toymodels.runs.table import levels
from toymodels.runs.text import number
from toymodels.theory.statistics import mean_interval

COLOURS = {"kfac": VERMILION, "lbfgs": BLUE, "adam": GREEN, "adamw": PURPLE}
"""Of optimisers."""
SIZES = ("m", "d", "s")
_TICKS = [10.0**power for power in range(-3, 6)]
"""Of the axis of seconds, as far as it reaches."""


def _applies(rows: Sequence[Row]) -> bool:
    timed = any(row.get("seconds") is not None for row in rows)
    return timed and all(len(levels(rows, name)) > 1 for name in ("optimiser", "steps"))


@figure("error_over_seconds", order=25, columns=("optimiser", "steps"), applies=_applies)
def error_over_seconds(rows: Sequence[Row], *, metric: str = "worst_error") -> Drawing:
    """Draw an error over the seconds of training: a line for each optimiser, a point for each number of steps.

    Which optimiser reaches a smaller error sooner? A panel for each task and size. Points: means over seeds, of the error with
    95 % t intervals. The seconds are those of the machine that trained, with whatever else ran on it; where only some seeds were
    timed, those of these.

    Raises InputError for a table without the columns, or in which more varies.
    """
    require(rows, (*SIZES, "optimiser"), numbers=("steps", metric))
    rows = require_fixed(rows, (*SIZES, "optimiser", "steps"))
    timed = {_point(row) for row in rows if row.get("seconds") is not None}
    require([row for row in rows if _point(row) not in timed or row.get("seconds") is not None], numbers=("seconds",))
    if len(levels(rows, "first_layer")) > 1 or len(levels(rows, "readoff")) > 1:
        raise InputError(
            "rows of several first layers or readoffs: choose one of each with --where first_layer=… readoff=…"
        )
    sizes = sorted({tuple(row[name] for name in SIZES) for row in rows})
    tasks, optimisers = levels(rows, "task"), levels(rows, "optimiser")
    drawing = new_figure(1.0 + 1.9 * len(tasks), width=max(4.6, 2.0 * len(sizes)))
    axes = drawing.subplots(len(tasks), len(sizes), squeeze=False)
    lines = [f"{'task':<8} {'m, d, s':<14} {'optimiser':<10} {'steps':>6} {'seconds':>9}   {error_label(metric)}"]
    for line, task in zip(axes, tasks, strict=True):
        for axis, size in zip(line, sizes, strict=True):
            here = [row for row in rows if row["task"] == task and tuple(row[name] for name in SIZES) == size]
            for place, optimiser in enumerate(optimisers):
                points = _points([row for row in here if row["optimiser"] == optimiser], metric)
                if not points:
                    continue
                colour = COLOURS.get(optimiser, f"C{place}")
                steps, seconds, means, halves = zip(*points, strict=True)
                bars = [half or 0.0 for half in halves]
                axis.errorbar(seconds, means, yerr=bars, color=colour, marker="o", markersize=3, linewidth=1, capsize=2,
                              label=optimiser)  # fmt: skip
                name = f"{task:<8} {', '.join(map(str, size)):<14} {optimiser:<10}"
                lines += [
                    f"{name} {step:>6,} {second:>9.2f}   {number(mean, half)}"
                    for step, second, mean, half in zip(steps, seconds, means, halves, strict=True)
                ]
            sizes_axis(axis, _TICKS)
            errors_axis(axis)
            quiet(axis)
            row = {"inputs": here[0].get("inputs"), "s": size[2]} if here else {}
            axis.set_title(f"{task_title(task)}, m = {size[0]}, d = {size[1]}\n{active_in_words(row)}", fontsize=7)
        line[0].set_ylabel(error_label(metric), fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("seconds of training", fontsize=7)
    legend(drawing, len(optimisers))
    title = f"{title_of(metric)} over seconds of training"
    many = "; bars: 95 % intervals" if len(levels(rows, "seed")) > 1 else ""
    heading(drawing, f"{title}: {coverage(rows)}{many}. Points: numbers of steps.")
    return Drawing(f"error_over_seconds-{metric}", title, drawing, "\n".join(lines))


def _point(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("task", *SIZES, "optimiser", "steps"))


def _points(rows: Sequence[Row], metric: str) -> list[tuple[int, float, float, float | None]]:
    """Return (steps, mean seconds, mean error, half of its interval) for each number of steps."""
    points = []
    for steps in levels(rows, "steps"):
        here = [row for row in rows if row["steps"] == steps]
        errors = [row[metric] for row in here]
        mean, half = mean_interval(errors)
        seconds = [row["seconds"] for row in here if row["seconds"] is not None]
        points.append((steps, float(np.mean(seconds)), mean, half))
    return points
