"""Features in superposition: the error over their number, how many fit at each width, and where they crowd the neurons.

m features as random unit vectors f_j in d0 dimensions (matrix F), a layer of d = d0 neurons behind them; up to m = d0 an
orthonormal frame is the same as an axis for each feature, and rows with m ≤ d have no frame.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.figures.fits import Crossing, PowerLaw, crossing, in_words, power_law
from toymodels.figures.style import GREY, Drawing, errors_axis, heading, new_figure, quiet, sizes_axis
from toymodels.figures.table import ERRORS, Row, by_seed, require, span, title_of, values
from toymodels.runs import text as tables
from toymodels.theory.bernoulli import bernoulli_errors
from toymodels.theory.crowding import at_zeros, crowded_rms_zeros

Key = tuple[str, float | int | None, str, str]
"""(first layer, its share of weights that are not 0, readoff, frame)."""

EPSILONS = (0.25, 0.3, 0.5)
"""1/4 is what an affine readoff of features with an axis each has; 1/2 what a constant has, and where a threshold fails."""
COLOURS = {
    "trained": "#0072B2",
    "gaussian": "#D55E00",
    "bernoulli": "#009E73",
    "identity": GREY,
    "rademacher": "#CC79A7",
}
"""Of Okabe and Ito's palette."""
OTHER = "#E69F00"


def name_of(key: Key) -> str:
    """Gaussian, minimax; the frame is named where it is not a random one."""
    layer, share, readoff, frame = key
    first = {"identity": "no layer: affine readoff of the embedding", "trained": "trained"}.get(
        layer, f"frozen {layer}"
    )
    first += "" if share is None or layer == "identity" else f" (p = {share:g})"
    read = "" if layer == "identity" and readoff == "minimax" else f", {readoff}"
    return first + read + ("" if frame == "random" else f", {frame} frame")


@dataclass(frozen=True)
class Line:
    """Errors of one method at one width, over the number of features."""

    m: tuple[int, ...]
    errors: Float[np.ndarray, "seeds sizes"]
    """nan where a seed was not measured."""

    def filled(self) -> Float[np.ndarray, "seeds sizes"]:
        """Between two sizes linear in log m; beyond a seed's last size its last error: searches end at different ones."""
        log_m, rows = np.log(self.m), []
        for line in self.errors:
            there = ~np.isnan(line)
            rows.append(np.interp(log_m, log_m[there], line[there]))
        return np.array(rows)

    def capacity(self, epsilon: float) -> Crossing:
        """The m up to which the mean error over seeds is below ε, linear in log m; 0: at no m measured; infinite: at all."""
        found = crossing(1 / np.array(self.m[::-1], dtype=float), self.filled()[:, ::-1], epsilon)
        low_high = None if found.interval is None else (_over(found.interval[1]), _over(found.interval[0]))
        return Crossing(_over(found.x), low_high)

    def by_seed(self, epsilon: float) -> Float[np.ndarray, " seeds"]:
        """The same for each seed alone, nan where it is not between two sizes."""
        alone = [Line(self.m, line[None]).capacity(epsilon).x for line in self.filled()]
        return np.array([m if 0 < m < math.inf else math.nan for m in alone])


def _over(x: float) -> float:
    return math.inf if x == 0 else 1 / x


def lines_of(rows: Sequence[Row], error: str = "worst_error") -> dict[Key, dict[int, Line]]:
    """Errors by method and width. Rows with m ≤ d have no frame and count for each of a layer's frames.

    Raises InputError for a row with d0 other than d, or with m > d and no d0.
    """
    methods: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if (
            row.get("d0") != (row["d"] if row["m"] > row["d"] else None)
            and (row.get("d0"), row["m"]) != (row["d"],) * 2
        ):
            raise InputError(
                f"a row with m = {row['m']}, d = {row['d']}, d0 = {row.get('d0')}: this figure is of d0 = d where m > d, and "
                "of features with an axis each (no d0) up to m = d"
            )
        methods.setdefault((row["first_layer"], row.get("layer_p"), row["readoff"]), []).append(row)
    found: dict[Key, dict[int, Line]] = {}
    for method, members in methods.items():
        frames = {row.get("frame") or "random" for row in members if row.get("d0") is not None} or {"random"}
        for frame in sorted(frames, reverse=True):
            chosen = [r for r in members if r.get("d0") is None or (r.get("frame") or "random") == frame]
            for d in values(chosen, "d"):
                here = [row for row in chosen if row["d"] == d]
                if any(row.get("d0") is not None for row in here) or frame == "random":
                    sizes, errors = by_seed(here, "m", error)
                    found.setdefault((*method, frame), {})[d] = Line(tuple(sizes), errors)
    return found


def exponent(lines: Mapping[int, Line], epsilon: float) -> tuple[PowerLaw, list[int]] | None:
    """(power law of the capacity over d, the widths it rests on); None where fewer than three have a capacity."""
    seeds = max(len(line.errors) for line in lines.values())
    table = {d: line.by_seed(epsilon) for d, line in lines.items() if len(line.errors) == seeds}
    used = [d for d, found in table.items() if not np.isnan(found).any()]
    if len(used) < 3:
        return None
    return power_law(np.array(used, dtype=float), np.stack([table[d] for d in used], axis=1)), used


def superposed(rows: Sequence[Row], error: str = "worst_error", epsilons: Sequence[float] = EPSILONS) -> Drawing:
    """Errors over m at two widths, the number of features below ε over d, and crowding of the Bernoulli construction.

    Searches are the rows of at most s active features, crowding those of exactly s with d0 and the own readoff; either may
    be missing. Raises InputError for a table without the columns, of more than one gate or s, or with neither.
    """
    require(rows, numbers=("m", "d", "s", error))
    if error not in ERRORS:
        raise InputError(f"no number of features for {error}: the errors are {', '.join(ERRORS)}")
    for name in ("task", "s"):
        if len(values(rows, name)) != 1:
            raise InputError(
                f"{name} takes {len(values(rows, name))} values in these rows: choose one, --where {name}=…"
            )
    searched = [row for row in rows if row.get("inputs") == "at_most"]
    crowds = [row for row in rows if row.get("inputs") == "exactly" and row["readoff"] == "own" and row.get("d0")]
    if not searched and not crowds:
        raise InputError(
            "there is neither a row of at most s active features nor a crowding one (exactly s, d0, readoff own) in this table"
        )
    found = lines_of(searched, error)
    figure = new_figure(6.3)
    axes = figure.subplots(2, 2).ravel()
    drawn: dict[str, Any] = {}
    shown = _shown(found)
    for axis, d in zip(axes, shown, strict=False):
        drawn |= _over_m(axis, found, d, error)
    for axis in axes[len(shown) : 2]:
        axis.set_axis_off()
    words = _capacities(axes[2], found, epsilons) if found else axes[2].set_axis_off() or []
    crowd_words = _crowding(axes[3], crowds) if crowds else axes[3].set_axis_off() or []
    for axis, letter in zip(axes, "abcd", strict=True):
        axis.set_title(f"({letter})  {axis.get_title(loc='left')}", fontsize=8, loc="left")
    if drawn:
        figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=3, fontsize=6.5, frameon=False)
    task, s = values(rows, "task")[0], values(rows, "s")[0]
    pairs = values(searched, "n_pairs")
    panels = [f"(a–c) {ERRORS[error]}, all inputs with at most {s} active, {pairs[-1]} sampled pairs"] if pairs else []
    panels += [f"(d) RMS error at zeros, exactly {s} active"] if crowds else []
    heading(
        figure,
        f"U-{task.upper()} of m features in superposition in d0 = d dimensions (up to m = d an axis each), means over "
        f"{span(values(rows, 'seed'))}; {'; '.join(panels)}",
    )
    header = ("first layer, readoff", "ε", "d", f"m up to which the {ERRORS[error]} is below ε [95 % over seeds]")
    text = tables.render(header, words)
    if crowd_words:
        header = ("d0 = d", "mp/d0", "RMS error at zeros", "law")
        text += "\n\n" + tables.render(header, crowd_words)
    return Drawing(f"superposed-{error}", f"{title_of(error)} of features in superposition", figure, text)


def _shown(found: Mapping[Key, Mapping[int, Line]]) -> list[int]:
    """The widest layer that was trained beside others, and the widest of those with most methods."""
    count: dict[int, int] = {}
    for lines in found.values():
        for d in lines:
            count[d] = count.get(d, 0) + 1
    if not count:
        return []
    learned = [d for key, lines in found.items() if key[0] == "trained" for d in lines if count[d] > 1]
    most = max(d for d in count if count[d] == max(count.values()))
    return sorted({max(learned, default=most), most})


def _style(key: Key) -> dict[str, Any]:
    colour, plain = COLOURS.get(key[0], OTHER), key[3] == "random"
    dash = ":" if key[0] == "identity" else "-" if key[2] == "minimax" and plain else (0, (4, 1.5))
    marker = {"identity": "x", "trained": "s"}.get(key[0], "o" if key[2] == "minimax" else "v")
    return {
        "color": colour, "linestyle": dash, "marker": marker if plain else "D", "linewidth": 0.9, "markersize": 3.4,
        "markerfacecolor": colour if plain and key[2] == "minimax" else "white",
    }  # fmt: skip


def _over_m(axis: Any, found: Mapping[Key, Mapping[int, Line]], d: int, error: str) -> dict[str, Any]:
    drawn, sizes, top = {}, set(), 0.62
    for key, lines in found.items():
        if d not in lines:
            continue
        # Sizes that every seed was measured at; up to m = d all frames are the same.
        means = zip(lines[d].m, lines[d].errors.mean(axis=0), strict=True)
        line = {m: e for m, e in means if not math.isnan(e) and (key[3] == "random" or m >= d)}
        sizes |= set(line)
        (drawn[name_of(key)],) = axis.plot(list(line), list(line.values()), **_style(key), zorder=3)
        high = [m for m, value in line.items() if value > top]
        axis.plot(high, [0.97 * top] * len(high), marker="$↑$", color=COLOURS.get(key[0], OTHER), linestyle="none")
    for level, word in ((0.25, "1/4"), (0.5, "1/2: a constant")):
        axis.axhline(level, color="black", linewidth=0.6, linestyle=(0, (1, 2)))
        axis.text(0.01, level, word, transform=axis.get_yaxis_transform(), fontsize=6, va="bottom")
    axis.axvline(d, color="0.6", linewidth=0.7)
    axis.set_ylim(0, top)
    axis.set_title(f"d = {d}", loc="left")
    axis.set_xlabel("features m (line: m = d0)", fontsize=8)
    axis.set_ylabel(ERRORS[error], fontsize=8)
    quiet(axis)
    sizes_axis(axis, sorted(sizes))
    return drawn


def _capacities(
    axis: Any, found: Mapping[Key, Mapping[int, Line]], epsilons: Sequence[float]
) -> list[tuple[str, str, str, str]]:
    words, first, drawn = [], epsilons[0], set[int]()
    anchor: tuple[float, float] | None = None
    for epsilon in epsilons:
        for key, lines in found.items():
            there = {d: line.capacity(epsilon) for d, line in sorted(lines.items())}
            inside = {d: c.x for d, c in there.items() if 0 < c.x < math.inf and (key[3] == "random" or c.x > d)}
            words += [(name_of(key), f"{epsilon:g}", str(d), _words(c, lines[d])) for d, c in there.items()]
            fitted = exponent(lines, epsilon)
            if fitted is not None:
                law, used = fitted
                value = in_words(law.exponent, law.exponent_interval, ".2f")
                rests = f"exponent {value}, fitted to {law.places} widths, misfit {law.misfit:.2f}"
                wider = [str(d) for d, c in there.items() if d > used[-1] and c.x > 0]
                rests += f"; leaves out d = {', '.join(wider)}, not passed by every seed" if wider else ""
                words.append((name_of(key), f"{epsilon:g}", f"{used[0]}–{used[-1]}", rests))
            if epsilon not in epsilons[:2]:
                continue
            style = _style(key) | {"linestyle": "none"}
            if epsilon != first:
                style |= {"markerfacecolor": "white", "markeredgewidth": 0.6, "alpha": 0.6}
            axis.plot(list(inside), list(inside.values()), **style, zorder=3)
            more = {d: lines[d].m[-1] for d, c in there.items() if c.x == math.inf and key[3] == "random"}
            if epsilon == first:
                axis.plot(list(more), list(more.values()), marker="$↑$", color=style["color"], linestyle="none")
            drawn |= {*inside, *more}
            if fitted is not None and key[3] == "random":
                ends = np.array([used[0], used[-1]], dtype=float)
                axis.plot(
                    ends, law.constant * ends**law.exponent, color=style["color"], linewidth=1.0 if epsilon == first else 0.5,
                    linestyle="-" if epsilon == first else "--",
                )  # fmt: skip
            if inside and epsilon == first and key[0] == "gaussian" and key[3] == "random":
                anchor = max(inside.items())
    span_d = np.array([min(drawn, default=8), max(drawn, default=512)], dtype=float)
    axis.plot(span_d, span_d, color="0.6", linewidth=0.7)
    axis.text(span_d[1], span_d[1], "m = d ", fontsize=6, color="0.4", ha="right", va="bottom")
    if anchor is not None:
        guide = anchor[1] * (span_d / anchor[0]) ** 1.5
        axis.plot(span_d, guide, color="black", linewidth=0.7, linestyle=":")
        # Above the line and near its wide end: methods that hold fewer features lie below, and m = d does there.
        place = span_d[0] * (span_d[1] / span_d[0]) ** 0.8
        axis.text(place, anchor[1] * (place / anchor[0]) ** 1.5, "slope 3/2 ", fontsize=6, ha="right", va="bottom")
    axis.set_xlabel("width d = dimensions d0", fontsize=8)
    axis.set_ylabel("features m below ε", fontsize=8)
    rest = f" (filled), {epsilons[1]:g} (open)" if len(epsilons) > 1 else ""
    axis.set_title(f"ε = {first:g}{rest}; ↑: not passed", loc="left")
    quiet(axis)
    sizes_axis(axis, sorted(drawn) or [8, 512])
    sizes_axis(axis, [2**k for k in range(2, 11)], "y")
    return words


def _words(found: Crossing, line: Line) -> str:
    if found.x == 0:
        return f"below {line.m[0]:,}, the fewest measured"
    if found.x == math.inf:
        return f"above {line.m[-1]:,}, the most measured"
    interval = found.interval
    return f"{found.x:,.0f}" + (f" [{interval[0]:,.0f}, {interval[1]:,.0f}]" if interval else "")


def _crowding(axis: Any, rows: Sequence[Row]) -> list[tuple[str, str, str, str]]:
    words = []
    shares = values(rows, "layer_p")
    if len(shares) != 1 or {row["first_layer"] for row in rows} != {"bernoulli"}:
        raise InputError("the crowding is of bernoulli layers at one given layer_p: choose it, --where layer_p=…")
    (p,), s = shares, rows[0]["s"]
    colours = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
    for i, d0 in enumerate(values(rows, "d0")):
        colour, here = colours[i % len(colours)], [row for row in rows if row["d0"] == d0]
        if {row["d"] for row in here} != {d0}:
            raise InputError(f"the crowding at d0 = {d0} is of other widths, too: choose d0 = d, --where d={d0}")
        sizes, errors = by_seed(here, "m", "rms_zeros")
        x, mean = np.array(sizes) * p / d0, np.nanmean(errors, axis=0)
        law = [crowded_rms_zeros(m, d0, d0, s, p) for m in sizes]
        axis.plot(x, mean, "os^D"[i % 4], color=colour, markersize=3.6, label=f"d0 = {d0}", zorder=3)
        axis.plot(x, law, color=colour, linewidth=0.9)
        alone = at_zeros(sizes[-1], s, (bernoulli_errors(d0, s, p, "affine").rms[:2] ** 2).tolist())
        axis.axhline(alone, color=colour, linewidth=0.7, linestyle=":")
        axis.set_ylim(bottom=0.75 * alone)
        words += [(str(d0), f"{a:.3g}", f"{b:.3f}", f"{c:.3f}") for a, b, c in zip(x, mean, law, strict=True)]
    axis.axvline(1, color="0.6", linewidth=0.7)
    axis.set_xlabel("features that a neuron sees, over dimensions: mp/d0", fontsize=8)
    axis.set_ylabel("RMS error at zeros, own readoff", fontsize=8)
    axis.set_title(f"bernoulli (p = {p:g}), exactly {s} active", loc="left")
    axis.text(0.98, 0.02, "lines: law; dotted: without interference", transform=axis.transAxes, fontsize=6, ha="right")
    axis.legend(fontsize=6.5, frameon=False)
    quiet(axis)
    errors_axis(axis)
    sizes_axis(axis, (0.25, 0.5, 1, 2, 4))
    return words
