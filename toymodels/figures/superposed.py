"""Features in superposition: errors over their number, how many fit at each width, and where they crowd the neurons.

m features as random unit vectors f_j in d0 dimensions (matrix F), a layer of d = d0 neurons behind them; up to m = d0 an
orthonormal frame is the same as an axis for each feature, and rows with m ≤ d have no frame.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.figures.fits import Crossing, PowerLaw, crossing, in_words, power_law
from toymodels.figures.registry import figure
from toymodels.figures.series import BLUE, GREEN, MARKERS, ORANGE, PURPLE, Method, looks, seeds_in_words, task_title
from toymodels.figures.style import Drawing, errors_axis, heading, legend, new_figure, quiet, sizes_axis
from toymodels.figures.table import (
    Row,
    covered_in_words,
    errors_by_seed,
    layer_knobs,
    method_of,
    require,
    require_one,
    title_of,
)
from toymodels.runs import text as tables
from toymodels.runs.metrics import error_label
from toymodels.runs.table import levels
from toymodels.theory.bernoulli import bernoulli_errors
from toymodels.theory.crowding import at_zeros, crowded_rms_zeros

EPSILONS = (0.25, 0.3, 0.5)
"""1/4 is what an affine readoff of features with an axis each has; 1/2 what a constant has, and where a threshold fails."""
TOP = 0.62
"""Upper end of the axis of errors; arrows stand for larger ones."""
Lines = dict[Method, dict[int, "Line"]]


@dataclass(frozen=True)
class Line:
    """Errors of one method at one width, over the number of features."""

    m: tuple[int, ...]
    errors: Float[np.ndarray, "seeds sizes"]
    """nan where a seed was not measured."""

    def filled(self) -> Float[np.ndarray, "seeds sizes"]:
        """Fill sizes that a seed lacks: linear in log m between two, beyond its last one (where its search ended) constant."""
        log_m, rows = np.log(self.m), []
        for line in self.errors:
            known = ~np.isnan(line)
            rows.append(np.interp(log_m, log_m[known], line[known]))
        return np.array(rows)

    def capacity(self, epsilon: float) -> Crossing:
        """Find the m up to which the mean error over seeds is below ε, linear in log m; 0: at no m measured; inf: at all."""
        found = crossing(1 / np.array(self.m[::-1], dtype=float), self.filled()[:, ::-1], epsilon)
        ends = None if found.interval is None else (_inverse(found.interval[1]), _inverse(found.interval[0]))
        return Crossing(_inverse(found.x), ends)

    def capacity_by_seed(self, epsilon: float) -> Float[np.ndarray, " seeds"]:
        """Find the same for each seed alone, nan where it is not between two sizes."""
        alone = [Line(self.m, line[None]).capacity(epsilon).x for line in self.filled()]
        return np.array([m if 0 < m < math.inf else math.nan for m in alone])


def _inverse(x: float) -> float:
    return math.inf if x == 0 else 1 / x


def _frame_fits(row: Row) -> bool:
    """Return whether d0 = d where m > d, and no frame (or one of as many dimensions as features) up to m = d."""
    m, d, d0 = row["m"], row["d"], row.get("d0")
    return d0 == (d if m > d else None) or (d0, m) == (d, d)


def lines_of(rows: Sequence[Row], metric: str = "worst_error") -> Lines:
    """Return errors by method and width. Rows with m ≤ d have no frame and count for each of a layer's frames.

    Raises InputError for a row with d0 other than d, or with m > d and no d0.
    """
    columns = layer_knobs(rows)
    for row in rows:
        if not _frame_fits(row):
            raise InputError(
                f"a row with m = {row['m']}, d = {row['d']}, d0 = {row.get('d0')}: this figure is of d0 = d where m > d, and "
                "of features with an axis each (no d0) up to m = d"
            )
    lines: Lines = {}
    for method, members in tables.grouped(rows, lambda row: method_of(row, columns)).items():
        frames = {row.get("frame") or "random" for row in members if row.get("d0") is not None} or {"random"}
        for frame in sorted(frames, reverse=True):
            chosen = [r for r in members if r.get("d0") is None or (r.get("frame") or "random") == frame]
            for d in levels(chosen, "d"):
                at_width = [row for row in chosen if row["d"] == d]
                if any(row.get("d0") is not None for row in at_width) or frame == "random":
                    sizes, errors = errors_by_seed(at_width, "m", metric)
                    lines.setdefault(method._replace(frame=frame), {})[d] = Line(tuple(sizes), errors)
    return lines


def exponent(lines: Mapping[int, Line], epsilon: float) -> tuple[PowerLaw, list[int]] | None:
    """Fit a power law to the capacity over d; returns it and its widths, None where fewer than three have a capacity."""
    seeds = max(len(line.errors) for line in lines.values())
    table = {d: line.capacity_by_seed(epsilon) for d, line in lines.items() if len(line.errors) == seeds}
    used = [d for d, capacities in table.items() if not np.isnan(capacities).any()]
    if len(used) < 3:
        return None
    return power_law(np.array(used, dtype=float), np.stack([table[d] for d in used], axis=1)), used


def _searched(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.get("inputs") == "at_most"]


def _crowded(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.get("inputs") == "exactly" and row["readoff"] == "own" and row.get("d0")]


def _applies(rows: Sequence[Row]) -> bool:
    searched, crowded = _searched(rows), _crowded(rows)
    return bool(levels(rows, "d0")) and len(searched) + len(crowded) == len(rows) and all(map(_frame_fits, searched))


@figure("superposed", order=31, columns=("m", "d", "s", "n_pairs", "covered"), applies=_applies)
def superposed(rows: Sequence[Row], *, metric: str = "worst_error", epsilons: tuple[float, ...] = EPSILONS) -> Drawing:
    """Draw errors over m at two widths, the number of features below ε over d, and crowding of the Bernoulli construction.

    How many features in superposition can a layer of d neurons compute the gates of, and where do they crowd the neurons?
    Searches are the rows of at most s active features, crowding those of exactly s with d0 and the own readoff; either may
    be missing. Raises InputError for a table without the columns, of more than one task or s, or with neither.
    """
    require(rows, numbers=("m", "d", "s"))
    task, s = require_one(rows, "task", "s")
    searched, crowds = _searched(rows), _crowded(rows)
    if not searched and not crowds:
        raise InputError(
            "this table has neither a row of at most s active features nor a crowding one (exactly s, d0, readoff own)"
        )
    lines = lines_of(searched, metric)
    styles = _styles(list(lines))
    drawing = new_figure(6.3)
    axes = drawing.subplots(2, 2).ravel()
    shown = _widths_shown(lines)
    for axis, d in zip(axes, shown, strict=False):
        _draw_errors(axis, lines, styles, d, metric)
    for axis in axes[len(shown) : 2]:
        axis.set_axis_off()
    cells = _draw_capacities(axes[2], lines, styles, epsilons) if lines else axes[2].set_axis_off() or []
    crowd_cells = _draw_crowding(axes[3], crowds) if crowds else axes[3].set_axis_off() or []
    for axis, letter in zip(axes, "abcd", strict=True):
        axis.set_title(f"({letter})  {axis.get_title(loc='left')}", fontsize=8, loc="left")
    legend(drawing, 3, axes[:2])
    panels = []
    if searched:
        pairs = f"{levels(searched, 'n_pairs')[-1]} sampled pairs"
        panels.append(f"(a–c) {error_label(metric)}, at most {s} active, {covered_in_words(searched)}, {pairs}")
    if crowds:
        panels.append(f"(d) RMS error at zeros, exactly {s} active, {covered_in_words(crowds)}")
    heading(
        drawing,
        f"{task_title(task)} of m features in superposition in d0 = d dimensions (up to m = d an axis each), means over "
        f"{seeds_in_words(levels(rows, 'seed'))}; {'; '.join(panels)}",
    )
    header = ("first layer, readoff", "ε", "d", f"m up to which the {error_label(metric)} is below ε [95 % over seeds]")
    text = tables.render(header, cells)
    if crowd_cells:
        text += "\n\n" + tables.render(("d0 = d", "mp/d0", "RMS error at zeros", "law"), crowd_cells)
    return Drawing(f"superposed-{metric}", f"{title_of(metric)} of features in superposition", drawing, text)


def _widths_shown(lines: Lines) -> list[int]:
    """Choose the widest layer that was trained beside others, and the widest of those with most methods."""
    count = Counter(d for by_width in lines.values() for d in by_width)
    if not count:
        return []
    trained = [d for key, by_width in lines.items() if key.layer == "trained" for d in by_width if count[d] > 1]
    most = max(d for d in count if count[d] == max(count.values()))
    return sorted({max(trained, default=most), most})


def _styles(methods: Sequence[Method]) -> dict[Method, dict[str, Any]]:
    """Return how to draw each method: colour by layer, open markers and dashes for other readoffs and frames."""
    layers, styles = looks("layer", (method.layer for method in methods)), {}
    for method in methods:
        colour, plain, minimax = layers[method.layer].colour, method.frame == "random", method.readoff == "minimax"
        marker = {"identity": "x", "trained": "s"}.get(method.layer, "o" if minimax else "v")
        styles[method] = {
            "color": colour, "linestyle": ":" if method.layer == "identity" else "-" if minimax and plain else (0, (4, 1.5)),
            "marker": marker if plain else "D", "linewidth": 0.9, "markersize": 3.4,
            "markerfacecolor": colour if plain and minimax else "white",
        }  # fmt: skip
    return styles


def _draw_errors(axis: Any, lines: Lines, styles: Mapping[Method, dict[str, Any]], d: int, metric: str) -> None:
    """Draw errors over m at one width."""
    all_sizes = set()
    for method, by_width in lines.items():
        if d not in by_width:
            continue
        # Sizes that every seed was measured at; up to m = d all frames are the same.
        means = zip(by_width[d].m, by_width[d].errors.mean(axis=0), strict=True)
        line = {m: e for m, e in means if not math.isnan(e) and (method.frame == "random" or m >= d)}
        all_sizes |= set(line)
        axis.plot(list(line), list(line.values()), label=method.name, **styles[method], zorder=3)
        above = [m for m, error in line.items() if error > TOP]
        axis.plot(above, [0.97 * TOP] * len(above), marker="$↑$", color=styles[method]["color"], linestyle="none")
    for level, word in ((0.25, "1/4"), (0.5, "1/2: a constant")):
        axis.axhline(level, color="black", linewidth=0.6, linestyle=(0, (1, 2)))
        axis.text(0.01, level, word, transform=axis.get_yaxis_transform(), fontsize=6, va="bottom")
    axis.axvline(d, color="0.6", linewidth=0.7)
    axis.set_ylim(0, TOP)
    axis.set_title(f"d = {d}", loc="left")
    axis.set_xlabel("features m (line: m = d0)", fontsize=8)
    axis.set_ylabel(error_label(metric), fontsize=8)
    quiet(axis)
    sizes_axis(axis, sorted(all_sizes))


def _draw_capacities(
    axis: Any, lines: Lines, styles: Mapping[Method, dict[str, Any]], epsilons: Sequence[float]
) -> list[tuple[str, str, str, str]]:
    """Draw the number of features below the first two ε over d, with fitted powers; returns the cells of the table of all ε."""
    cells, first, widths = [], epsilons[0], set[int]()
    anchor: tuple[float | int, float] | None = None
    for epsilon in epsilons:
        for method, by_width in lines.items():
            plain, style = method.frame == "random", styles[method] | {"linestyle": "none"}
            capacities = {d: line.capacity(epsilon) for d, line in sorted(by_width.items())}
            inside = {d: c.x for d, c in capacities.items() if 0 < c.x < math.inf and (plain or c.x > d)}
            fitted = exponent(by_width, epsilon)
            for d, found in capacities.items():
                cells.append((method.name, f"{epsilon:g}", str(d), _capacity_in_words(found, by_width[d].m)))
            if fitted is not None:
                cells.append((method.name, f"{epsilon:g}", *_fit_in_words(*fitted, capacities)))
            if epsilon not in epsilons[:2]:
                continue
            if epsilon != first:
                style |= {"markerfacecolor": "white", "markeredgewidth": 0.6, "alpha": 0.6}
            axis.plot(list(inside), list(inside.values()), **style, zorder=3)
            beyond = {d: by_width[d].m[-1] for d, c in capacities.items() if c.x == math.inf and plain}
            if epsilon == first:
                axis.plot(list(beyond), list(beyond.values()), marker="$↑$", color=style["color"], linestyle="none")
            widths |= {*inside, *beyond}
            if fitted is not None and plain:
                law, used = fitted
                ends = np.array([used[0], used[-1]], dtype=float)
                axis.plot(
                    ends, law.constant * ends**law.exponent, color=style["color"], linewidth=1.0 if epsilon == first else 0.5,
                    linestyle="-" if epsilon == first else "--",
                )  # fmt: skip
            if inside and epsilon == first and method.layer == "gaussian" and plain:
                anchor = max(inside.items())
    _draw_guides(axis, np.array([min(widths, default=8), max(widths, default=512)], dtype=float), anchor)
    axis.set_xlabel("width d = dimensions d0", fontsize=8)
    axis.set_ylabel("features m below ε", fontsize=8)
    rest = f" (filled), {epsilons[1]:g} (open)" if len(epsilons) > 1 else ""
    axis.set_title(f"ε = {first:g}{rest}; ↑: not passed", loc="left")
    quiet(axis)
    sizes_axis(axis, sorted(widths) or [8, 512])
    sizes_axis(axis, [2**k for k in range(2, 11)], "y")
    return cells


def _draw_guides(axis: Any, ends: Float[np.ndarray, " 2"], anchor: tuple[float | int, float] | None) -> None:
    """Draw m = d, and a line of slope 3/2 through the anchor."""
    axis.plot(ends, ends, color="0.6", linewidth=0.7)
    axis.text(ends[1], ends[1], "m = d ", fontsize=6, color="0.4", ha="right", va="bottom")
    if anchor is not None:
        axis.plot(ends, anchor[1] * (ends / anchor[0]) ** 1.5, color="black", linewidth=0.7, linestyle=":")
        # Above the line and near its wide end: methods that hold fewer features lie below, and so does m = d.
        x = ends[0] * (ends[1] / ends[0]) ** 0.8
        axis.text(x, anchor[1] * (x / anchor[0]) ** 1.5, "slope 3/2 ", fontsize=6, ha="right", va="bottom")


def _capacity_in_words(found: Crossing, sizes: Sequence[int]) -> str:
    if found.x == 0:
        return f"below {sizes[0]:,}, the fewest measured"
    if found.x == math.inf:
        return f"above {sizes[-1]:,}, the most measured"
    return in_words(found.x, found.interval, ",.0f")


def _fit_in_words(law: PowerLaw, used: Sequence[int], capacities: Mapping[int, Crossing]) -> tuple[str, str]:
    """Write (range of widths, exponent and misfit), and which wider layers the fit leaves out."""
    value = in_words(law.exponent, law.exponent_interval, ".2f")
    words = f"exponent {value}, fitted to {law.sizes} widths, misfit {law.misfit:.2f}"
    wider = [str(d) for d, found in capacities.items() if d > used[-1] and found.x > 0]
    words += f"; leaves out d = {', '.join(wider)}, not passed by every seed" if wider else ""
    return f"{used[0]}–{used[-1]}", words


def _draw_crowding(axis: Any, rows: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    """Draw the RMS error at zeros of the Bernoulli construction over m·p/d0, with its law; returns the cells of the table."""
    cells = []
    shares = levels(rows, "layer_p")
    if len(shares) != 1 or {row["first_layer"] for row in rows} != {"bernoulli"}:
        raise InputError("the crowding is of bernoulli layers at one given layer_p: choose it, --where layer_p=…")
    (p,), s = shares, rows[0]["s"]
    colours = (BLUE, ORANGE, GREEN, PURPLE)
    for i, d0 in enumerate(levels(rows, "d0")):
        colour, members = colours[i % len(colours)], [row for row in rows if row["d0"] == d0]
        if {row["d"] for row in members} != {d0}:
            raise InputError(f"the crowding at d0 = {d0} is of other widths, too: choose d0 = d, --where d={d0}")
        sizes, errors = errors_by_seed(members, "m", "rms_zeros")
        x, mean = np.array(sizes) * p / d0, np.nanmean(errors, axis=0)
        law = [crowded_rms_zeros(m, d0, d0, s, p) for m in sizes]
        axis.plot(x, mean, MARKERS[i % 4], color=colour, markersize=3.6, label=f"d0 = {d0}", zorder=3)
        axis.plot(x, law, color=colour, linewidth=0.9)
        alone = at_zeros(sizes[-1], s, (bernoulli_errors(d0, s, p, "affine").rms[:2] ** 2).tolist())
        axis.axhline(alone, color=colour, linewidth=0.7, linestyle=":")
        axis.set_ylim(bottom=0.75 * alone)
        cells += [(str(d0), f"{a:.3g}", f"{b:.3f}", f"{c:.3f}") for a, b, c in zip(x, mean, law, strict=True)]
    axis.axvline(1, color="0.6", linewidth=0.7)
    axis.set_xlabel("features that a neuron sees, over dimensions: mp/d0", fontsize=8)
    axis.set_ylabel("RMS error at zeros, own readoff", fontsize=8)
    axis.set_title(f"bernoulli (p = {p:g}), exactly {s} active", loc="left")
    axis.text(0.98, 0.02, "lines: law; dotted: without interference", transform=axis.transAxes, fontsize=6, ha="right")
    axis.legend(fontsize=6.5, frameon=False)
    quiet(axis)
    errors_axis(axis)
    sizes_axis(axis, (0.25, 0.5, 1, 2, 4))
    return cells
