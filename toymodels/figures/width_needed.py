"""The width that each first layer and readoff needs for an error, over the number of features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from toymodels.atlas.known import known_width
from toymodels.errors import InputError
from toymodels.figures.fits import Crossing, crossing
from toymodels.figures.maps import ANALYTIC_MEDIAN, RANK_BOUND, predicted_widths
from toymodels.figures.registry import figure
from toymodels.figures.series import Method, gate_of, looks, seeds_in_words, task_title
from toymodels.figures.style import Drawing, heading, legend, new_figure, outer_labels, quiet, sizes_axis
from toymodels.figures.table import (
    ALL_SETS,
    Row,
    active_in_words,
    covered_in_words,
    errors_by_seed,
    format_value,
    layer_knobs,
    method_of,
    require,
    require_one,
    title_of,
)
from toymodels.runs import text as tables
from toymodels.runs.metrics import error_label
from toymodels.runs.table import levels

AFFINE, ANALYTIC = "m linear neurons (affine readoff)", "analytic law, all pairs, exactly s"
BEST = "best layer known, all pairs (atlas)"
LAW_STYLES = {AFFINE: "-", RANK_BOUND: ":", ANALYTIC: "-.", BEST: "*-"}


Size = tuple[int, int]
"""(active features s, number of features m)."""


def _by_method(rows: Sequence[Row]) -> dict[Method, dict[Size, list[Row]]]:
    """Group rows by method, then by s and m; minimax readoffs come first."""
    columns = layer_knobs(rows)
    groups = tables.grouped(rows, lambda row: method_of(row, columns))
    order = list(looks("layer", (method.layer for method in groups)))
    methods = sorted(groups, key=lambda k: (k.readoff != "minimax", order.index(k.layer), str(k.knobs)))
    return {method: tables.grouped(groups[method], lambda row: (row["s"], row["m"])) for method in methods}


def needed_widths(rows: Sequence[Row], metric: str, epsilon: float) -> dict[Method, dict[Size, Crossing]]:
    """Return, for each method and (s, m), the width from which on the mean error over seeds is at most ε.

    Between two widths the error is linear in log d. 0: at the smallest width already; inf: not at the largest.
    """
    widths: dict[Method, dict[Size, Crossing]] = {}
    for method, sizes in _by_method(rows).items():
        for size, members in sorted(sizes.items()):
            d, errors = errors_by_seed(members, "d", metric)
            known = extend_constant(searched_far_enough(errors, epsilon))
            widths.setdefault(method, {})[size] = crossing(np.array(d, dtype=float), known, epsilon)
    return widths


def searched_far_enough(errors: Float[np.ndarray, "seeds sizes"], epsilon: float) -> Float[np.ndarray, "kept sizes"]:
    """Leave out the seeds whose search ended, at a larger error than ε, before the widest layer that others were measured at.

    They were searched for another error; whether they reach ε is not known. All seeds stay if it is so for all.
    """
    last = [np.flatnonzero(~np.isnan(line))[-1:] for line in errors]
    ended = np.array([len(end) > 0 and end[0] < errors.shape[1] - 1 for end in last])
    above = np.array([len(end) > 0 and errors[seed, end[0]] > epsilon for seed, end in enumerate(last)])
    kept = ~(ended & above)
    return errors[kept] if kept.any() else errors


def extend_constant(errors: Float[np.ndarray, "seeds sizes"]) -> Float[np.ndarray, "seeds sizes"]:
    """Extend each seed's curve as a constant beyond its first and last size, so that the mean over seeds has no jumps.

    A search ends at another width for each seed. Its first error is its largest and its last its smallest, so the mean stays on
    the right side of the level.
    """
    filled = errors.copy()
    for line in filled:
        known = np.flatnonzero(~np.isnan(line))
        if len(known):
            line[: known[0]] = line[known[0]]
            line[known[-1] + 1 :] = line[known[-1]]
    return filled


def _applies(rows: Sequence[Row]) -> bool:
    """Return whether the table is a search for widths: closed-form and minimax readoffs, several m, three or more d."""
    closed = {"minimax", "own", "analytic"} >= {row["readoff"] for row in rows} and not levels(rows, "d0")
    return closed and len(levels(rows, "m")) > 1 and len(levels(rows, "d")) > 2


@figure("width_needed", order=30, columns=("m", "d", "s"), applies=_applies)
def width_needed(
    rows: Sequence[Row], *, metric: str = "worst_error", epsilons: tuple[float, ...] = (0.25, 0.2, 0.1)
) -> Drawing:
    """Draw the width that each first layer and readoff needs for an error of ε, over m, with laws and bounds beside.

    How many neurons does each construction need, and how far below the best of them are trained layers? A column of panels for
    each ε, a row for each s. Dashed lines: a construction's own readoff; full lines: minimax readoffs. Arrows: not reached at
    the widest measured. Where ε is at least what affine readoffs of the features reach, the m linear neurons that suffice for it
    are a line, too; and for worst errors at most s active so is the narrowest layer of the atlas, on all pairs.
    Raises InputError for a table without the columns, or of more than one task or kind of inputs.
    """
    require(rows, numbers=("m", "d", "s"))
    if not epsilons or min(epsilons) <= 0:
        raise InputError(f"epsilons = {epsilons}: name at least one error, above 0 each")
    task, inputs = require_one(rows, "task", "inputs")
    counts, sizes = levels(rows, "s"), levels(rows, "m")
    measured = {
        method: {size: levels(members, "d") for size, members in by_size.items()}
        for method, by_size in _by_method(rows).items()
    }
    colours = {name: look.colour for name, look in looks("layer", (method.layer for method in measured)).items()}
    drawing = new_figure(0.9 + 2.7 * len(counts))
    axes = drawing.subplots(len(counts), len(epsilons), sharex=True, squeeze=False)
    cells: list[tuple[str, ...]] = []
    for column, epsilon in enumerate(epsilons):
        widths = needed_widths(rows, metric, epsilon)
        for line, s in enumerate(counts):
            axis = axes[line][column]
            for method, by_size in widths.items():
                crossings = {m: found for (active, m), found in by_size.items() if active == s}
                if crossings:
                    widest = {m: measured[method][s, m][-1] for m in crossings}
                    _draw_method(axis, method, crossings, widest, colours[method.layer])
                for m, found in crossings.items():
                    d = measured[method][s, m]
                    cells.append((f"{epsilon:g}", str(s), method.name, str(m), found.words(d[0], d[-1])))
            _draw_laws(axis, task, inputs, s, epsilon, sizes, metric)
            active = active_in_words({"inputs": inputs, "s": s}) if inputs == "at_most" else f"s = {s}"
            axis.set_title(f"ε = {epsilon:g}, {active}", fontsize=8)
            axis.set_yscale("log")
            quiet(axis)
            sizes_axis(axis, sizes)
    outer_labels(axes, "features m", "width d needed")
    legend(drawing, 3)
    pairs = ", ".join(map(format_value, levels(rows, "n_pairs")))
    heading(
        drawing,
        f"{task_title(task)}: width at which the {error_label(metric)}, largest over {pairs} pairs, falls to ε; "
        f"{covered_in_words(rows)}, means over the seeds measured at each size, of {seeds_in_words(levels(rows, 'seed'))}. "
        "Full: minimax readoffs; dashed: the construction's own. Arrows: not reached at the widest layer measured.",
    )
    header = ("ε", "s", "first layer, readoff", "m", "width needed [95 % over seeds]")
    text = (
        f"{title_of(metric)}, largest over {pairs} pairs: the width at which its mean over seeds falls to ε\n"
        + tables.render(header, cells)
    )
    return Drawing(f"width_needed-{metric}", f"Width needed for {title_of(metric)}", drawing, text)


def _draw_method(
    axis: Any, method: Method, crossings: dict[int, Crossing], widest: dict[int, int], colour: str
) -> None:
    """Draw a method's widths over m, and an arrow at the widest layer where ε was not reached."""
    minimax = method.readoff == "minimax"
    style = {"color": colour, "linewidth": 0.9, "markersize": 3.6, "markerfacecolor": colour if minimax else "white"}
    shown = {m: found.x for m, found in crossings.items() if 0 < found.x < math.inf}
    form = "o-" if minimax else "v--"
    axis.plot(list(shown), list(shown.values()), form, label=method.name, **style, zorder=3)
    for m, found in crossings.items():
        if m in shown and found.interval and found.interval[0] > 0 and found.interval[1] < math.inf:
            axis.plot([m, m], found.interval, color=colour, linewidth=0.7)
        elif found.x == math.inf:
            axis.plot([m], [widest[m]], marker="$↑$", color=colour, markersize=6, linestyle="none")


def _draw_laws(axis: Any, task: str, inputs: str, s: int, epsilon: float, sizes: Sequence[int], metric: str) -> None:
    """Draw the widths that laws and bounds predict, as far as they hold, and the atlas has."""
    gate = gate_of(task)
    if gate is None or inputs not in ALL_SETS:
        return
    points: dict[str, list[tuple[int, float]]] = {}
    if inputs == "at_most" and metric == "worst_error":
        points[BEST] = [(m, d) for m in sizes if (d := known_width(task, s, m, epsilon)) is not None]
    for m in (*sizes, *(m for m in (512, 1024) if m > max(sizes))):
        if epsilon >= gate.affine_floor:
            points.setdefault(AFFINE, []).append((m, m))
        for name, width in predicted_widths(gate, m, s, inputs, epsilon).items():
            if 1 < width < math.inf:
                points.setdefault(ANALYTIC if name == ANALYTIC_MEDIAN else name, []).append((m, width))
    style = {"color": "black", "linewidth": 0.9, "markersize": 5}
    for name, line in points.items():
        if line:
            axis.plot(*zip(*line, strict=True), LAW_STYLES[name], label=name, **style)
