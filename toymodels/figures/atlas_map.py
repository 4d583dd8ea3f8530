"""Draw the atlas: the worst error of the best layer known, over features and neurons, and how far the floor is below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toymodels.errors import InputError
from toymodels.figures.style import Drawing, heading, new_figure, quiet

COLUMNS = ("task", "s", "m", "d", "worst_error", "floor")
"""What a row must have."""


def draw_atlas(rows: Sequence[dict[str, Any]]) -> Drawing:
    """Draw a panel for each task and number of active features: a line for each m over d, and dotted the floor below it.

    Raises InputError for no rows, or a row without one of COLUMNS.
    """
    if not rows:
        raise InputError("there is no cell to draw: choose other tasks or sizes")
    for row in rows:
        lacking = [name for name in COLUMNS if row.get(name) is None]
        if lacking:
            raise InputError(f"a row of the atlas has no {lacking[0]}: a map needs {', '.join(COLUMNS)}")
    import matplotlib

    panels = sorted({(row["task"], row["s"]) for row in rows})
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    drawing = new_figure(0.8 + 2.6 * lines, width=0.6 + 3.0 * columns)
    axes = drawing.subplots(lines, columns, squeeze=False)
    features = sorted({row["m"] for row in rows})
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, len(features)))
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, (task, s) in zip(axes.flat, panels, strict=False):
        for m, colour in zip(features, colours, strict=True):
            cells = sorted(
                (row["d"], row["worst_error"], row["floor"])
                for row in rows
                if (row["task"], row["s"], row["m"]) == (task, s, m)
            )
            if cells:
                d, best, floor = zip(*cells, strict=True)
                axis.plot(d, best, "o-", color=colour, markersize=2.2, linewidth=0.9, label=f"m = {m}")
                axis.plot(d, floor, ":", color=colour, linewidth=0.9)
        axis.set_xscale("log")
        axis.set_ylim(bottom=0)
        axis.set_title(f"{task}, at most {s} active", fontsize=8)
        axis.set_xlabel("neurons d", fontsize=8)
        axis.legend(fontsize=5.5, frameon=False, loc="upper right", ncols=2)
        quiet(axis)
    for line in axes:
        line[0].set_ylabel("worst error", fontsize=8)
    heading(
        drawing,
        "Worst error of the best layers known, all inputs and outputs, minimax readoffs; dotted: no layer is below",
    )
    return Drawing("atlas", "The best layers known", drawing)
