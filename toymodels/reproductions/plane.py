"""New: over the plane of p, the probability of an active feature, and q, the exponent of the loss: naive network or code?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from toymodels.reproductions.l4 import COMPUTED, FULL, by_exponent
from toymodels.reproductions.registry import REPRODUCTIONS, Line, Row, of_cases

PROBABILITIES = (0.02, 0.1, 0.5)
EXPONENTS = (2, 2.05, 2.1, 2.2, 4)
HALF = 0.5
"""A network with a CV above it leaves features out; the naive one has 1 at d = n/2."""


def _lines(rows: Sequence[Row]) -> list[Line]:
    lines = []
    for row in rows:
        name, share = f"p = {row['p']:g}, q = {row['q']:g}", [count / row["n"] for count in row["computed"]]
        lines.append(Line(f"{name}: CV over features", row["cv"]))
        lines.append(Line(f"{name}: share of features with MSE < {COMPUTED:g}", share))
    return lines


def _by_p(rows: Sequence[Row]) -> dict[float, list[Row]]:
    return {p: [row for row in rows if row["p"] == p] for p in dict.fromkeys(row["p"] for row in rows)}


def crossing(rows: Sequence[Row]) -> float:
    """Find the q at which the mean CV falls below 1/2, by lines between the q measured; not a number if it never does."""
    points = [(row["q"], float(np.mean(row["cv"]))) for row in rows]
    for (a, high), (b, low) in itertools.pairwise(points):
        if high > HALF >= low:
            return float(a + (high - HALF) / (high - low) * (b - a))
    return float("nan")


def _answer(rows: Sequence[Row]) -> str:
    """Say where in the plane the naive network gives way, and whether the border depends on p."""
    words = []
    for p, part in _by_p(rows).items():
        at, last = crossing(part), float(np.mean(part[-1]["cv"]))
        where = f"q = {at:.3f}" if at == at else f"no q measured (CV {last:.2f} at q = {part[-1]['q']:g})"
        words.append(f"p = {p:g}: {where}")
    return f"The CV over features falls below 1/2 at {'; '.join(words)} (by lines between the exponents measured)."


def _draw(rows: Sequence[Row]) -> Any:
    """Draw CV and share of computed features over p and q, means over seeds."""
    from toymodels.figures.style import heading, new_figure

    figure = new_figure(3.2)
    axes = figure.subplots(1, 2)
    by_p = _by_p(rows)
    panels = (
        ("CV over features", lambda row: np.mean(row["cv"])),
        (f"share of features with MSE < {COMPUTED:g}", lambda row: np.mean(row["computed"]) / row["n"]),
    )
    for axis, (title, number) in zip(axes, panels, strict=True):
        values = np.array([[number(row) for row in part] for part in by_p.values()]).T
        axis.imshow(values, cmap="viridis", vmin=0, vmax=1, origin="lower", aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            axis.text(
                j, i, f"{value:.2f}", ha="center", va="center", fontsize=6, color="white" if value < 0.6 else "black"
            )
        axis.set_xticks(range(len(by_p)), [f"{p:g}" for p in by_p])
        axis.set_yticks(range(len(values)), [f"{row['q']:g}" for row in next(iter(by_p.values()))])
        axis.set_xlabel("p, probability of an active feature", fontsize=8)
        axis.set_ylabel("q, exponent of the loss", fontsize=8)
        axis.set_title(title, fontsize=8)
    first = rows[0]
    size = f"n = {first['n']}, d = {first['d']}, {first['steps']:,} steps of {first['batch']:,} inputs"
    heading(figure, f"Trained on ReLU(x) with the loss mean |error|^q: {size}, {len(first['seeds'])} seeds")
    return figure


REPRODUCTIONS(
    "plane", shows="new: CV and computed features over p and q: where does the naive network give way to a code?",
    source="measured here", reduced={"n": 40, "d": 20, "steps": 3000, "batch": 256, "eval": 20_000}, full=FULL,
    keys=of_cases({"p": p, "q": q} for p in PROBABILITIES for q in EXPONENTS), lines=_lines, draw=_draw, answer=_answer,
    minutes=6, order=3,
)(by_exponent)  # fmt: skip
