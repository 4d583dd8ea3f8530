"""Which connection probability does the sparse Bernoulli construction want at laboratory widths, and what error then?

Theory alone, no layer is drawn: the p of least predicted median worst error, over all pairs on one input with exactly s of
m features active, of the debiased mean readoff, beside the asymptotic p = ln²(m)/√d of the published construction.

    python analysis/bernoulli_probability.py --out analysis/results     # under a minute on one core
"""

from __future__ import annotations

import csv
import io
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toymodels.arguments import run_script
from toymodels.errors import InputError
from toymodels.figures.series import GREY, MARKERS, PALETTE
from toymodels.figures.style import Drawing, default_style, errors_axis, heading, new_figure, quiet, save, sizes_axis
from toymodels.layers.iid import connection_probability
from toymodels.runs.storage import write_atomically
from toymodels.runs.text import render
from toymodels.theory.bernoulli import asymptotic_probability, median_worst_error
from toymodels.theory.gates import Gate

COLOURS = PALETTE[:4]
"""One for each pair of m and s."""


@dataclass(frozen=True)
class Probabilities:
    """The best connection probability of the Bernoulli construction over widths, and the asymptotic one."""

    out: Path
    """Folder of the table, bernoulli_probability.csv."""
    figures: Path | None = None
    """Folder of the figure, bernoulli_probability.pdf and .png; default that of the table."""
    m: tuple[int, ...] = (100, 1000)
    """Numbers of features."""
    s: tuple[int, ...] = (2, 3)
    """Numbers of active features, exactly; 2 or more each, and with those of m at most four combinations."""
    d: tuple[int, ...] = (100, 200, 500, 1000, 2000, 5000, 10000)
    """Widths: neurons, 2 or more."""
    kind: str = "affine"
    """How the mean readoff is debiased: none, shift or affine."""

    def check(self) -> None:
        """Raise InputError for settings that make no figure."""
        if not self.m or not self.s or not self.d or len(self.m) * len(self.s) > len(COLOURS):
            raise InputError("m, s and d need at least one number each, and m and s at most four combinations")
        if min(self.s) < 2 or max(self.s) > min(self.m) or min(self.d) < 2:
            raise InputError("s lies between 2 and m, and d is at least 2")
        if self.kind not in ("none", "shift", "affine"):
            raise InputError(f"a readoff is debiased by none, shift or affine, got {self.kind}")


def rows(settings: Probabilities) -> list[dict[str, Any]]:
    """Compute one row for each m, s and d; the error at the asymptotic p is empty where that is no probability."""
    table = []
    for m, s, d in itertools.product(settings.m, settings.s, sorted(settings.d)):
        best, asymptotic = connection_probability("best", m, d, s, settings.kind), asymptotic_probability(m, d)
        row = {
            "m": m, "s": s, "d": d, "kind": settings.kind, "best_p": best,
            "median_worst_error": median_worst_error(m, d, s, best, settings.kind),
            "asymptotic_p": asymptotic,
            "median_worst_error_asymptotic": median_worst_error(m, d, s, asymptotic, settings.kind) if asymptotic < 1 else "",
        }  # fmt: skip
        table.append(row)
    return table


def table(found: list[dict[str, Any]]) -> str:
    """Write the rows as a table in plain text."""
    cells = [
        (
            f"{row['m']:,}",
            str(row["s"]),
            f"{row['d']:,}",
            f"{row['best_p']:.3f}",
            f"{row['median_worst_error']:.3f}",
            f"{row['asymptotic_p']:.3f}",
            f"{row['median_worst_error_asymptotic']:.3f}" if row["asymptotic_p"] < 1 else "no probability",
        )
        for row in found
    ]
    header = ("m", "s", "d", "best p", "median worst error", "asymptotic p", "median worst error")
    return f"{render(header, cells, right=range(len(header)))}\n" + (
        "Predicted, U-AND; worst error: largest |output − target| over all pairs on one input with exactly s of m active;\n"
        "median over draws of the layer. Its affine floor, without any layer, is 0.25."
    )


def draw(settings: Probabilities, found: list[dict[str, Any]]) -> Drawing:
    """Draw best and asymptotic p over widths on the left, their predicted errors on the right."""
    figure = new_figure(2.9)
    left, right = figure.subplots(1, 2)
    for colour, marker, (m, s) in zip(COLOURS, MARKERS, itertools.product(settings.m, settings.s), strict=False):
        line = [row for row in found if (row["m"], row["s"]) == (m, s)]
        full = {"color": colour, "marker": marker, "markersize": 3.4, "linewidth": 0.9}
        dashed = {**full, "linestyle": (0, (4, 2)), "markerfacecolor": "white", "markeredgewidth": 0.8}
        d = [row["d"] for row in line]
        left.plot(d, [row["best_p"] for row in line], label=f"m = {m:,}, s = {s}", **full)
        right.plot(d, [row["median_worst_error"] for row in line], **full)
        possible = [row for row in line if row["asymptotic_p"] < 1]
        widths = [row["d"] for row in possible]
        left.plot(widths, [row["asymptotic_p"] for row in possible], **dashed)
        right.plot(widths, [row["median_worst_error_asymptotic"] for row in possible], **dashed)
    floor = Gate.parse("and").affine_floor
    right.axhline(floor, color=GREY, linewidth=0.8, linestyle=(0, (1, 2)))
    right.annotate(f"affine floor {floor:g}", (0.01, floor), (0, 2.5), textcoords="offset points",
                   xycoords=("axes fraction", "data"), color=GREY, fontsize=6.5)  # fmt: skip
    for axis in (left, right):
        sizes_axis(axis, sorted(settings.d))
        errors_axis(axis)
        quiet(axis)
        axis.set_xlabel("width d (neurons)", fontsize=8)
    left.set_title("connection probability p", fontsize=8.5)
    right.set_title("predicted worst error on one input,\nmedian over layers", fontsize=8.5)
    left.legend(fontsize=6.5, frameon=False)
    title = (
        f"Sparse Bernoulli U-AND, mean readoff debiased by: {settings.kind}. Full lines: p of least median worst error "
        "over all pairs on one input with exactly s of m active; dashed: p = ln²(m)/√d, where that is below 1"
    )
    heading(figure, title)
    return Drawing("bernoulli_probability", title, figure, table(found))


def main(settings: Probabilities) -> str:
    """Compute, store, draw; returns what to print."""
    settings.check()
    found = rows(settings)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{v:.6g}" if isinstance(v, float) else v for key, v in row.items()} for row in found)
    path = settings.out / "bernoulli_probability.csv"
    write_atomically(path, lambda temporary: temporary.write_text(buffer.getvalue()))
    with default_style():
        drawing = draw(settings, found)
    return "\n".join([drawing.text, "", *map(str, (path, *save(drawing, settings.figures or settings.out)))])


if __name__ == "__main__":
    run_script(Probabilities, main)
