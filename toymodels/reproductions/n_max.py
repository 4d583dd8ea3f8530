"""New: n_max(d), the largest number of features that d neurons compute, with the squared and the fourth-power loss.

Computed: mean over features of MSE_i/E y_i² below a tenth, over inputs with x_i > 0 (Dvořák 2026, who asks whether n_max grows as
d²/log d).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toymodels.compressed.measures import feature_errors
from toymodels.compressed.stack import Recipe, train_stack
from toymodels.core.features import SparseFeatures
from toymodels.core.seeds import derive_seed
from toymodels.core.tasks import make_task
from toymodels.diagnosis.registry import COMPUTED
from toymodels.reproductions.registry import REPRODUCTIONS, Line, Row
from toymodels.theory.statistics import mean_interval

WIDTHS = (4, 8, 12, 20, 32)
ACTIVE = (1, 2)
"""Active features of an input: exactly one, or two in expectation, each independently."""
LONGER = {"active": 1, "q": 4, "d": 20, "times": 4}
"""A case that is trained again, four times as long: does the training limit n_max?"""
_ONE = 0.02
"""Where exactly one is active networks are trained on inputs with an active feature, at this expected number: 1 % have two."""
_CLOSE = 20
"""The search ends at sizes that differ by a twentieth, or by one."""


def shares(key: Mapping[str, Any], n: int) -> list[float]:
    """Train networks of n features for each seed; return the mean of MSE_i/E y_i² of each."""
    one = key["active"] == 1
    p = (_ONE if one else min(key["active"], n)) / n
    recipe = Recipe(n, key["d"], p, occupied=one, q=key["q"], steps=key["steps"], batch=key["batch"])
    stack = train_stack(recipe, key["seeds"])
    source = SparseFeatures.exactly(n, 1, "symmetric") if one else SparseFeatures.independent(n, p, "symmetric")
    found = []
    for i, seed in enumerate(key["seeds"]):
        sample = source.sampled(key["eval"], derive_seed(seed, "evaluation"))
        errors = feature_errors(stack.network(i), make_task("relu", n), sample)
        found.append(float((errors.mse / errors.power).mean()))
    return found


def search(key: Row) -> Row:
    """Double n from d on, then halve the step on a logarithmic scale; return all shares, and n_max of each seed."""
    tried: dict[int, list[float]] = {}

    def share(n: int) -> list[float]:
        if n not in tried:
            tried[n] = shares(key, n)
        return tried[n]

    low, high = key["d"], 2 * key["d"]
    share(low)
    while min(share(high)) < COMPUTED:
        low, high = high, 2 * high
    while high - low > max(1, low // _CLOSE):
        middle = min(max(round(math.sqrt(low * high)), low + 1), high - 1)
        if np.mean(share(middle)) < COMPUTED:
            low = middle
        else:
            high = middle
    sizes = sorted(tried)
    columns = [tried[n] for n in sizes]
    return {"sizes": sizes, "shares": columns, "n_max": [crossing(sizes, line) for line in zip(*columns, strict=True)]}


def crossing(sizes: Sequence[int], line: Sequence[float]) -> float:
    """Find the last n at which the share rises above a tenth, on a line between sizes; the first size if none is below."""
    for (a, low), (b, high) in reversed(list(itertools.pairwise(zip(sizes, line, strict=True)))):
        if low < COMPUTED <= high:
            return float(a + (COMPUTED - low) / (high - low) * (b - a))
    return float(sizes[0])


def closed_form(d: int, q: float | int) -> float:
    """Compute n_max for one active feature without a free parameter.

    q = 2, the naive network: 1 − d/n is a tenth. q = 4, one-hot responses αP (theory.compressed.single_alpha): the share is
    (1 − u)², with 1/u − 1 = (γ²/(n − 1))^{1/3} and γ = (n − d)/d; so (n − d)² = c d² (n − 1) with c = (1/u − 1)³, whose larger
    root grows as c d² = 0.099 d².
    """
    if q == 2:
        return d / (1 - COMPUTED)
    c = (1 / (1 - math.sqrt(COMPUTED)) - 1) ** 3 * d**2
    half = d + c / 2
    return half + math.sqrt(half**2 - d**2 - c)


def exponents(rows: Sequence[Row]) -> list[float]:
    """Fit log n_max on log d for each seed; return the slopes."""
    d = np.log([row["d"] for row in rows])
    return [float(np.polyfit(d, np.log(line), 1)[0]) for line in zip(*(row["n_max"] for row in rows), strict=True)]


def groups(rows: Sequence[Row]) -> dict[tuple[int, float], list[Row]]:
    """Return the rows of each (active, q), by width, without the one that is trained longer."""
    same = [row for row in rows if "times" not in row]
    cases = dict.fromkeys((row["active"], row["q"]) for row in same)
    return {case: [row for row in same if (row["active"], row["q"]) == case] for case in cases}


def _keys(size: Mapping[str, int], seeds: tuple[int, ...]) -> list[Row]:
    cases = itertools.product(ACTIVE, (2, 4), WIDTHS)
    again = {**LONGER, **size, "steps": LONGER["times"] * size["steps"], "seeds": list(seeds)}
    return [*({"active": active, "q": q, "d": d, **size, "seeds": list(seeds)} for active, q, d in cases), again]


def _lines(rows: Sequence[Row]) -> list[Line]:
    lines = []
    for (active, q), part in groups(rows).items():
        name = f"{active} active, q = {q:g}"
        lines += [Line(f"{name}, d = {row['d']}: n_max", row["n_max"]) for row in part]
        lines.append(Line(f"{name}: exponent of d", exponents(part)))
    for row in (row for row in rows if "times" in row):
        name = f"{row['active']} active, q = {row['q']:g}, d = {row['d']}, trained {row['times']} times as long"
        lines.append(Line(f"{name}: n_max", row["n_max"]))
    return lines


def _answer(rows: Sequence[Row]) -> str:
    """Say the exponents, beside those that d²/log d and the closed form have over the same widths."""
    words = []
    for (active, q), part in groups(rows).items():
        mean, half = mean_interval(exponents(part))
        words.append(f"{active} active, q = {q:g}: {mean:.2f} ± {half or math.nan:.2f}")
    widths = [row["d"] for row in part]
    known = [
        ("d²/log d", [d**2 / math.log(d) for d in widths]),
        ("closed form, q = 4", [closed_form(d, 4) for d in widths]),
    ]
    fits = [f"{name} {np.polyfit(np.log(widths), np.log(values), 1)[0]:.2f}" for name, values in known]
    return f"n_max grows with d to the power {'; '.join(words)} (over the same widths: {', '.join(fits)})."


def _draw(rows: Sequence[Row]) -> Any:
    """Draw n_max over d, each seed a dot, with the closed forms."""
    from toymodels.figures.series import PALETTE
    from toymodels.figures.style import heading, legend, new_figure, quiet, sizes_axis

    figure = new_figure(3.2)
    axes = figure.subplots(1, len(ACTIVE), sharey=True, squeeze=False)[0]
    d = np.geomspace(min(row["d"] for row in rows), max(row["d"] for row in rows), 50)
    for axis, active in zip(axes, ACTIVE, strict=True):
        for q, colour in ((2, PALETTE[0]), (4, PALETTE[1])):
            part = groups(rows)[active, q]
            for row in part:
                axis.plot([row["d"]] * len(row["n_max"]), row["n_max"], "o", color=colour, markersize=3, alpha=0.6)
            axis.plot(
                [row["d"] for row in part], [np.mean(row["n_max"]) for row in part], color=colour, linewidth=1,
                label=f"q = {q}",
            )  # fmt: skip
            axis.plot(
                d, [closed_form(width, q) for width in d], color=colour, linewidth=0.8, linestyle="--",
                label=f"closed form, q = {q}, one active",
            )  # fmt: skip
        sizes_axis(axis, WIDTHS)
        sizes_axis(axis, (5, 10, 20, 50, 100, 200), "y")
        title = "exactly one active" if active == 1 else f"{active} active in expectation"
        quiet(axis, xlabel="d, neurons", title=title)
    axes[0].set_ylabel("n_max, features computed", fontsize=8)
    legend(figure, columns=2)
    first = rows[0]
    size = f"{first['steps']:,} steps of {first['batch']:,} inputs, {len(first['seeds'])} seeds"
    heading(figure, f"Largest n with mean MSE of a feature below a tenth of that of the output 0: {size}")
    return figure


REPRODUCTIONS(
    "n_max", shows="new: the number of features that d neurons compute, over d, with the squared and the fourth-power loss",
    source="measured here", reduced={"steps": 2000, "batch": 256, "eval": 20_000},
    full={"steps": 20_000, "batch": 2048, "eval": 100_000}, keys=_keys, lines=_lines, draw=_draw, answer=_answer, minutes=7,
    order=5,
)(search)  # fmt: skip
