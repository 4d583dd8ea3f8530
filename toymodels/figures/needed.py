"""The width that each first layer and readoff needs for an error, over the number of features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from toymodels.errors import InputError
from toymodels.figures.fits import Crossing, crossing
from toymodels.figures.maps import widths
from toymodels.figures.style import GREY, Drawing, heading, new_figure, quiet, sizes_axis
from toymodels.figures.table import ERRORS, Row, by_seed, require, show, span, title_of, values
from toymodels.runs import text as tables
from toymodels.theory.gates import Gate

Key = tuple[str, float | int | None, str]
"""(first layer, its share of weights that are not 0, readoff)."""

LAYER_COLOURS = {
    "trained": "#0072B2",
    "gaussian": "#D55E00",
    "rademacher": "#CC79A7",
    "bernoulli": "#009E73",
    "four_class": "#56B4E9",
    "quadratic": "0.2",
}
"""Of Okabe and Ito's palette."""


AFFINE = "m linear neurons (affine readoff)"


def name_of(key: Key) -> str:
    """trained, minimax; bernoulli (p = 0.5), minimax."""
    layer, share, readoff = key
    return f"{layer}{'' if share is None else f' (p = {share:g})'}, {'own' if readoff == 'analytic' else readoff}"


def needed(rows: Sequence[Row], error: str, epsilon: float) -> dict[tuple[Key, int, int], Crossing]:
    """By (method, s, m), the width at which the mean error over seeds falls to ε for good, linear in log d between two.

    0: at the smallest width measured already; infinite: not at the largest.
    """
    groups: dict[tuple[Key, int, int], list[Row]] = {}
    for row in rows:
        key = (row["first_layer"], row.get("layer_p"), row["readoff"])
        groups.setdefault((key, row["s"], row["m"]), []).append(row)
    found = {}
    for place, members in groups.items():
        there, errors = by_seed(members, "d", error)
        found[place] = crossing(np.array(there, dtype=float), _whole(errors), epsilon)
    return found


def _whole(errors: Any) -> Any:
    """Only widths that every seed was measured at: a mean over some seeds jumps where another one sets in.

    A search ends at another width for each seed: above its last one a seed counts with its last, smallest error, below
    its first with its first, largest one, so that the mean stays on the right side of the level.
    """
    filled = errors.copy()
    for line in filled:
        known = np.flatnonzero(~np.isnan(line))
        if len(known):
            line[: known[0]] = line[known[0]]
            line[known[-1] + 1 :] = line[known[-1]]
    return filled


def width_needed(
    rows: Sequence[Row], error: str = "worst_error", epsilons: Sequence[float] = (0.25, 0.2, 0.1)
) -> Drawing:
    """Width needed over m, a column of panels for each ε and a row for each s; methods as lines, laws and bounds beside.

    Dashed lines: a construction's own readoff; full lines: minimax readoffs. Arrows: not reached at the widest measured.
    Where ε is at least what affine readoffs of the features reach, the m linear neurons that suffice for it are a line, too.
    Raises InputError for a table without the columns, or of more than one gate or kind of inputs.
    """
    require(rows, numbers=("m", "d", "s", error))
    if error not in ERRORS:
        raise InputError(f"no width needed for {error}: the errors are {', '.join(ERRORS)}")
    for name in ("task", "inputs"):
        if len(values(rows, name)) != 1:
            raise InputError(
                f"{name} takes {len(values(rows, name))} values in these rows: choose one, --where {name}=…"
            )
    task, law = values(rows, "task")[0], values(rows, "inputs")[0]
    counts, sizes = values(rows, "s"), values(rows, "m")
    figure = new_figure(0.9 + 2.7 * len(counts))
    axes = figure.subplots(len(counts), len(epsilons), sharex=True, squeeze=False)
    lines: list[tuple[str, ...]] = []
    drawn: dict[str, Any] = {}
    for column, epsilon in enumerate(epsilons):
        found = needed(rows, error, epsilon)
        for line, s in enumerate(counts):
            axis = axes[line][column]
            methods = _ordered({key for key, active, _ in found if active == s})
            for key in methods:
                there = {m: found[k, active, m] for k, active, m in found if (k, active) == (key, s)}
                drawn |= {name_of(key): _draw(axis, key, dict(sorted(there.items())), [r for r in rows if r["s"] == s])}
                for m, crossed in sorted(there.items()):
                    lines.append((f"{epsilon:g}", str(s), name_of(key), str(m), _in_words(crossed, rows, key, s, m)))
            drawn |= _laws(axis, task, law, s, epsilon, sizes)
            axis.set_title(f"ε = {epsilon:g}, at most {s} active" if law == "at_most" else f"ε = {epsilon:g}, s = {s}",
                           fontsize=8)  # fmt: skip
            axis.set_yscale("log")
            quiet(axis)
            sizes_axis(axis, sizes)
    for axis in axes[-1]:
        axis.set_xlabel("features m", fontsize=8)
    for line in axes:
        line[0].set_ylabel("width d needed", fontsize=8)
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=4, fontsize=6.5, frameon=False)
    pairs = ", ".join(map(show, values(rows, "n_pairs")))
    heading(
        figure,
        f"U-{task.upper()}: width at which the {ERRORS[error]}, largest over {pairs} pairs, falls to ε; {_covered(rows)}, means "
        f"over {span(values(rows, 'seed'))}. Full: minimax readoffs; dashed: the construction's own. Arrows: not reached at the "
        "widest layer measured.",
    )
    header = ("ε", "s", "first layer, readoff", "m", "width needed [95 % over seeds]")
    text = (
        f"{title_of(error)}, largest over {pairs} pairs: the width at which its mean over seeds falls to ε\n"
        + tables.render(header, lines)
    )
    return Drawing(f"width_needed-{error}", f"Width needed for {title_of(error)}", figure, text)


def _covered(rows: Sequence[Row]) -> str:
    every = all(str(text).startswith("all ") for text in values(rows, "covered"))
    return "all inputs" if every else "all inputs, or a sample of them"


def _ordered(keys: set[Key]) -> list[Key]:
    layers = list(LAYER_COLOURS)
    rank = {name: i for i, name in enumerate(layers)}
    return sorted(keys, key=lambda key: (key[2] != "minimax", rank.get(key[0], len(layers)), key[0], key[1] or 0))


def _draw(axis: Any, key: Key, there: dict[int, Crossing], rows: Sequence[Row]) -> Any:
    colour, minimax = LAYER_COLOURS.get(key[0], GREY), key[2] == "minimax"
    style = {"color": colour, "linewidth": 0.9, "markersize": 3.6, "markerfacecolor": colour if minimax else "white"}
    shown = {m: c.x for m, c in there.items() if 0 < c.x < math.inf}
    (handle,) = axis.plot(
        list(shown), list(shown.values()), "o-" if minimax else "v--", label=name_of(key), **style, zorder=3
    )
    for m, crossed in there.items():
        if m in shown and crossed.interval and crossed.interval[0] > 0 and crossed.interval[1] < math.inf:
            axis.plot([m, m], crossed.interval, color=colour, linewidth=0.7)
        elif crossed.x == math.inf:
            widest = max(row["d"] for row in rows if _is(row, key) and row["m"] == m)
            axis.plot([m], [widest], marker="$↑$", color=colour, markersize=6, linestyle="none")
    return handle


def _is(row: Row, key: Key) -> bool:
    return (row["first_layer"], row.get("layer_p"), row["readoff"]) == key


def _laws(axis: Any, task: str, law: str, s: int, epsilon: float, sizes: Sequence[int]) -> dict[str, Any]:
    styles = {AFFINE: "-", "no layer below (rank bound)": ":", "analytic readoff (median law)": "-."}
    names = {"analytic readoff (median law)": "analytic law, all pairs, exactly s"}
    drawn: dict[str, list[tuple[int, float]]] = {}
    floor = Gate.parse(task).affine_floor
    wide = [*sizes, *(m for m in (512, 1024) if m > max(sizes))]
    for m in wide:
        if epsilon >= floor:
            drawn.setdefault(AFFINE, []).append((m, m))
        for name, width in widths(task, m, s, law, epsilon).items():
            if math.isfinite(width) and width > 1:
                drawn.setdefault(name, []).append((m, width))
    return {
        names.get(name, name): axis.plot(*zip(*points, strict=True), styles[name], color="black", linewidth=0.9)[0]
        for name, points in drawn.items()
    }


def _in_words(crossed: Crossing, rows: Sequence[Row], key: Key, s: int, m: int) -> str:
    measured = sorted({row["d"] for row in rows if _is(row, key) and (row["s"], row["m"]) == (s, m)})
    if crossed.x == 0:
        return f"at most {measured[0]}"
    if crossed.x == math.inf:
        return f"more than {measured[-1]:,}"
    low_high = crossed.interval
    return f"{crossed.x:,.0f}" + (f" [{low_high[0]:,.0f}, {low_high[1]:,.0f}]" if low_high else "")
