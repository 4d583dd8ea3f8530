"""List the values that a matplotlib figure shows, so that they can be read beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def values_drawn(figure: Any) -> tuple[list[str], list[list[str]]]:
    """Return (header, rows) of the values of all lines, points, steps and maps of a figure; those without a name are marks."""
    rows = [row for axis in figure.axes for row in _of_axis(axis)]
    kept = [i for i in range(5) if any(row[i] for row in rows)]
    header = ["panel", "series", "x", "y", "value"]
    return [header[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _of_axis(axis: Any) -> Iterator[list[str]]:
    panel = " ".join((axis.get_title() or axis.get_ylabel()).split())
    for line in axis.lines:
        if line.get_transform() == axis.transData:  # others are levels across the panel
            yield from _points(panel, line.get_label(), line.get_xdata(orig=False), line.get_ydata(orig=False))
    for container in axis.containers:
        if hasattr(container, "has_yerr") and container.lines[0] is not None:  # points with their intervals
            line = container.lines[0]
            yield from _points(panel, container.get_label(), line.get_xdata(orig=False), line.get_ydata(orig=False))
    for patch in axis.patches:
        if hasattr(patch, "get_data"):  # steps of a histogram
            heights, edges, _ = patch.get_data()
            yield from _points(panel, patch.get_label(), (edges[:-1] + edges[1:]) / 2, heights)
    for drawn in axis.collections:
        if hasattr(drawn, "get_coordinates") and drawn.get_array() is not None:  # a map of cells
            grid = drawn.get_array()
            corners = drawn.get_coordinates()
            middle = (corners[:-1, :-1] + corners[1:, 1:]) / 2
            for (i, j), value in np.ndenumerate(np.ma.filled(grid, np.nan).reshape(middle.shape[:2])):
                yield [panel, "", *map(_number, middle[i, j]), _number(value)]
        elif drawn.get_label()[:1] != "_" and len(drawn.get_offsets()) > 1:  # points
            yield from _points(panel, drawn.get_label(), *np.asarray(drawn.get_offsets()).T)
    for image in axis.images:
        for (i, j), value in np.ndenumerate(np.ma.filled(image.get_array(), np.nan)):
            yield [panel, "", str(j), str(i), _number(value)]


def _points(panel: str, label: str, xs: Any, ys: Any) -> Iterator[list[str]]:
    if label[:1] != "_":
        for x, y in zip(xs, ys, strict=True):
            if np.isfinite(y):
                yield [panel, label, _number(x), _number(y), ""]


def _number(value: Any) -> str:
    return f"{float(value):.6g}"
