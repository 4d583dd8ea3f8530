"""Errors over each setting that a sweep varies, whatever it is: small panels, a dot a row of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toymodels.errors import InputError
from toymodels.figures.style import (
    Drawing,
    errors_axis,
    heading,
    new_figure,
    quiet,
    series_name,
    series_style,
    sizes_axis,
)
from toymodels.figures.table import ERRORS, Row, domain, of_series, require, series, show, title_of, values, varied
from toymodels.runs import text as tables
from toymodels.theory.statistics import mean_interval

_FEW = 8
"""Different numbers up to which an axis has a tick at each."""
_TINY = 1e-9
"""Where errors of 0 are drawn, on a logarithmic axis."""


def parameters(rows: Sequence[Row], error: str = "worst_error") -> Drawing:
    """An error over every varied setting, a row of panels for each gate; numbers on an axis, words side by side.

    Each dot is one (run, seed, first layer, readoff): of several settings varied at once, a panel shows one and spreads
    over the others. The text lists the settings from the best on. Raises InputError for a table where nothing varies.
    """
    if error not in ERRORS:
        raise InputError(f"no figure of {error}: the errors are {', '.join(ERRORS)}")
    require(rows, numbers=(error,))
    names = varied(rows)
    if not names:
        raise InputError("no setting varies in this table: there is nothing to draw an error over")
    tasks, keys = values(rows, "task"), series(rows)
    figure = new_figure(1.2 + 2.0 * len(tasks), width=max(4.4, 0.5 + 2.2 * len(names)))
    axes = figure.subplots(len(tasks), len(names), sharey="row", squeeze=False)
    for line, task in zip(axes, tasks, strict=True):
        for axis, name in zip(line, names, strict=True):
            _panel(axis, rows, task, keys, name, error)
        line[0].set_ylabel(f"U-{task.upper()}: {ERRORS[error]}", fontsize=8)
    entries = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=max(1, min(3, len(names))),
        fontsize=6.5,
        frameon=False,
    )
    shown = [f"{name} = {show(found[0])}" for name in ("m", "d") if len(found := values(rows, name)) == 1]
    title = f"{title_of(error)} over {', '.join(names)}"
    heading(figure, f"{title}: {', '.join([*shown, domain(rows)])}")
    return Drawing(f"parameters-{error}", title, figure, _ranking(rows, names, error))


def _panel(axis: Any, rows: Sequence[Row], task: str, keys: Sequence[tuple[str, str]], name: str, error: str) -> None:
    chosen = [row for row in rows if row["task"] == task and row.get(name) is not None]
    there = values(chosen, name)
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in there)
    for i, key in enumerate(keys):
        members = of_series(chosen, task, key)
        if not members:
            continue
        shift = (i - (len(keys) - 1) / 2) / (len(keys) + 1) * 0.8  # side by side within a word's place
        x = [row[name] if numeric else there.index(row[name]) + shift for row in members]
        y = [max(row[error], _TINY) for row in members]
        style = {**series_style(*key), "linestyle": "none", "alpha": 0.6}
        axis.plot(x, y, label=series_name(*key), **style)
        stopped = [i for i, row in enumerate(members) if row.get("stopped_at") is not None]
        if stopped:
            cross = {"linestyle": "none", "marker": "x", "color": "black", "markersize": 4, "markeredgewidth": 0.7}
            axis.plot([x[i] for i in stopped], [y[i] for i in stopped], label="stopped early", **cross)
    if numeric and there and min(there) > 0 and len(there) <= _FEW:
        sizes_axis(axis, there)
    elif numeric and there and min(there) > 0 and max(there) >= 8 * min(there):
        axis.set_xscale("log")
    elif not numeric:
        axis.set_xticks(range(len(there)), [show(value) for value in there])
        axis.set_xlim(-0.5, len(there) - 0.5)
    errors_axis(axis)
    quiet(axis)
    if not numeric and sum(len(show(value)) for value in there) > 22:
        axis.tick_params(axis="x", labelrotation=35)
    axis.set_xlabel(name, fontsize=8)


def _ranking(rows: Sequence[Row], names: Sequence[str], error: str, most: int = 30) -> str:
    """The settings of each gate, first layer and readoff, from the smallest mean error over seeds on."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        stopped = "" if row.get("stopped_at") is None else f", stopped at {row['stopped_at']:,}"
        key = (row["task"], row["first_layer"], row["readoff"] + stopped, *(row.get(name) for name in names))
        groups.setdefault(key, []).append(row[error])
    ranked = sorted(groups.items(), key=lambda group: float(np.mean(group[1])))
    cells = []
    for task in values(rows, "task"):
        for key, found in [group for group in ranked if group[0][0] == task][:most]:
            mean, half = mean_interval(found)
            words = [show(value) if value is not None else "–" for value in key[3:]]
            cells.append((key[0], series_name(key[1], key[2]), *words, tables.number(mean, half), str(len(found))))
    header = ("gate", "first layer, readoff", *names, f"{ERRORS[error]} ± 95 %", "seeds")
    note = f"\nThe {most} best of each gate." if len(ranked) > most else ""
    return tables.render(header, cells, right=tuple(range(2, len(header)))) + note
