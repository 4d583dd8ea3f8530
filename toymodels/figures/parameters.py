"""Errors over each setting that a sweep varies: small panels, a dot for each row of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toymodels.errors import InputError
from toymodels.figures.registry import figure
from toymodels.figures.series import Key, name_of, series_of, series_styles, task_title
from toymodels.figures.style import Drawing, errors_axis, heading, legend, new_figure, quiet, sizes_axis
from toymodels.figures.table import Row, coverage, format_value, select_series, title_of, varied
from toymodels.runs import text as tables
from toymodels.runs.metrics import error_label, is_error
from toymodels.runs.table import levels
from toymodels.theory.statistics import mean_interval

FEW = 8
"""Different numbers up to which an axis has a tick at each."""
TINY = 1e-9
"""Where errors of 0 are drawn, on a logarithmic axis."""
SHOWN_ELSEWHERE = {"m", "d", "s", "steps", "p", "weight"}
"""Settings that other figures show in more detail: a table that varies in these alone has no such figure in a report."""
BEST = 30
"""Settings of each task that the text lists."""


@figure("parameters", order=80, applies=lambda rows: bool(set(varied(rows)) - SHOWN_ELSEWHERE))
def parameters(rows: Sequence[Row], *, metric: str = "worst_error") -> Drawing:
    """Draw an error over every setting that varies, a row of panels for each task; numbers on an axis, words side by side.

    What does the error depend on, of all that a sweep varies? Each dot is one (run, seed, first layer, readoff): where several
    settings vary at once, a panel shows one and spreads over the others. The text lists the settings from the best on.
    Raises InputError for a table where nothing varies.
    """
    names = varied(rows)
    if not names:
        raise InputError("no setting varies in this table: an error over a setting needs two values at least")
    tasks, styles = levels(rows, "task"), series_styles(series_of(rows))
    drawing = new_figure(1.2 + 2.0 * len(tasks), width=max(4.4, 0.5 + 2.2 * len(names)))
    axes = drawing.subplots(len(tasks), len(names), sharey="row", squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        for axis, name in zip(line, names, strict=True):
            _draw_panel(axis, rows, task, styles, name, metric)
        line[0].set_ylabel(f"{task_title(task)}: {error_label(metric)}", fontsize=8)
    legend(drawing, max(1, min(3, len(names))))
    sizes = [f"{name} = {format_value(found[0])}" for name in ("m", "d") if len(found := levels(rows, name)) == 1]
    title = f"{title_of(metric)} over {', '.join(names)}"
    heading(drawing, f"{title}: {', '.join([*sizes, coverage(rows)])}")
    return Drawing(f"parameters-{metric}", title, drawing, _ranking(rows, names, metric))


def _draw_panel(
    axis: Any, rows: Sequence[Row], task: str, styles: dict[Key, dict[str, Any]], name: str, metric: str
) -> None:
    """Draw the errors over one setting. Rows without a value stand beside the words, as "none"."""
    values: list[Any] = levels([row for row in rows if row["task"] == task], name)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if any(row.get(name) is None for row in rows if row["task"] == task):
        values, numeric = [None, *values], False
    for i, (key, style) in enumerate(styles.items()):
        members = select_series(rows, task, key)
        if not members:
            continue
        shift = (i - (len(styles) - 1) / 2) / (len(styles) + 1) * 0.8  # side by side within the room of a word
        x = [row[name] if numeric else values.index(row.get(name)) + shift for row in members]
        y = [max(row[metric], TINY) if is_error(metric) else row[metric] for row in members]
        axis.plot(x, y, label=name_of(*key), **{**style, "linestyle": "none", "alpha": 0.6})
        stopped = [i for i, row in enumerate(members) if row.get("stopped_at") is not None]
        if stopped:
            cross = {"linestyle": "none", "marker": "x", "color": "black", "markersize": 4, "markeredgewidth": 0.7}
            axis.plot([x[i] for i in stopped], [y[i] for i in stopped], label="stopped early", **cross)
    if numeric and values and min(values) > 0 and len(values) <= FEW:
        sizes_axis(axis, values)
    elif numeric and values and min(values) > 0 and max(values) >= 8 * min(values):
        axis.set_xscale("log")
    elif not numeric:
        words = [format_value(value) for value in values]
        axis.set_xticks(range(len(words)), words)
        axis.set_xlim(-0.5, len(words) - 0.5)
        axis.tick_params(axis="x", labelrotation=35 if sum(map(len, words)) > 22 else 0)
    if is_error(metric):
        errors_axis(axis)
    quiet(axis)
    axis.set_xlabel(name, fontsize=8)


def _ranking(rows: Sequence[Row], names: Sequence[str], metric: str) -> str:
    """List the settings of each task, first layer and readoff, from the smallest mean error over seeds on."""
    groups = [(key, [row[metric] for row in members]) for key, members in by_setting(rows, names).items()]
    ranked = sorted(groups, key=lambda group: float(np.mean(group[1])))
    cells = []
    for task in levels(rows, "task"):
        for (_, line, *values), errors in [group for group in ranked if group[0][0] == task][:BEST]:
            mean, half = mean_interval(errors)
            words = ["–" if value is None else format_value(value) for value in values]
            cells.append((task, line, *words, tables.number(mean, half), str(len(errors))))
    header = ("task", "first layer, readoff", *names, f"{error_label(metric)} ± 95 %", "seeds")
    note = f"\nThe {BEST} best of each task." if len(ranked) > len(cells) else ""
    return tables.render(header, cells, right=tuple(range(2, len(header)))) + note


def by_setting(rows: Sequence[Row], names: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """Group rows that differ in the seed alone: (task, first layer and readoff in words, values of `names`) → rows."""

    def setting(row: Row) -> tuple[Any, ...]:
        stopped = "" if row.get("stopped_at") is None else f", stopped at {row['stopped_at']:,}"
        return row["task"], name_of(row["first_layer"], row["readoff"]) + stopped, *(row.get(name) for name in names)

    return tables.grouped(rows, setting)
