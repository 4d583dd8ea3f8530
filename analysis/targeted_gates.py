"""How many ANDs of chosen pairs fit into d neurons, when each gate has neurons of its own?

Targeted AND (the 2024 post, section 1.3) on random graphs: the largest number of gates whose worst error over all inputs
with at most 2 active stays below 1/2, read from the gates' own neurons as published and from all neurons that see both
features, over the width d. Lines: the published readoff by `predicted_worst_error`, which simulates nothing.
Measuring writes one line per size into targeted_gates.jsonl (a stopped run goes on there); the figure is made from it.

    python analysis/targeted_gates.py --out analysis/results --figures docs/figures    # about 2 minutes on one core
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from toymodels.arguments import run_script
from toymodels.core.features import SparseFeatures
from toymodels.errors import InputError
from toymodels.experiments.study import Row, stored, study
from toymodels.figures.series import PALETTE, seeds_in_words
from toymodels.figures.style import Drawing, default_style, errors_axis, heading, new_figure, quiet, save, sizes_axis
from toymodels.layers.targeted import best_per_gate, feasible_gates, predicted_worst_error, random_graph
from toymodels.runs.storage import check_writable
from toymodels.runs.text import render

COLOURS = PALETTE[:4]
LIMIT = 0.5
"""Worst error below which an output can be thresholded."""
NAMES = {True: "own", False: "common"}


@dataclass(frozen=True)
class TargetedGates:
    """Measure how many targeted ANDs are feasible, and draw them over the width."""

    out: Path
    """Folder of the results, targeted_gates.jsonl."""
    figures: Path | None = None
    """Folder of the figure, targeted_gates.pdf and .png; default that of the results."""
    m: tuple[int, ...] = (32, 64)
    """Numbers of features, at most four, 4 or more each."""
    d: tuple[int, ...] = (128, 256, 512, 1024, 2048)
    """Widths: neurons, two or more of them."""
    seeds: int = 5
    """Independent graphs and layers: seeds 0, 1, …"""
    plot_only: bool = False
    """Draw from the stored results, measure nothing."""

    def check(self) -> None:
        """Raise InputError for settings that make no figure."""
        if not 1 <= len(self.m) <= len(COLOURS) or min(self.m) < 4 or len(set(self.d)) < 2 or self.seeds < 1:
            raise InputError("the figure needs one to four m of 4 or more, two widths and one seed at least")
        if len(set(self.m)) < len(self.m) or len(set(self.d)) < len(self.d):
            raise InputError("m or d names a size twice: each is measured and drawn once")
        if min(self.d) < 2:
            raise InputError(f"d = {min(self.d)} neurons: two gates with neurons of their own need at least 2")

    def keys(self) -> list[Row]:
        """Return what identifies each line of the results."""
        return [{"m": m, "d": d, "seeds": self.seeds} for m, d in itertools.product(self.m, self.d)]


def predicted_gates(m: int, d: int) -> int:
    """Return the largest number of gates with a predicted worst error below the limit, to 3 %; graph of seed 0."""
    low, high = 1, m * (m - 1) // 2
    while high - low > 1 and high > 1.03 * low:
        middle = min(max(round(math.sqrt(low * high)), low + 1), high - 1)
        pairs = random_graph(m, middle, 0)
        good = predicted_worst_error(m, d, pairs, best_per_gate(m, d, pairs)).worst_error < LIMIT
        low, high = (middle, high) if good else (low, middle)
    return low


def measure_size(key: Row) -> Row:
    """Measure one line of the results."""
    m, d = key["m"], key["d"]
    inputs = SparseFeatures.at_most(m, 2).enumerate()
    row: Row = {"pairs": m * (m - 1) // 2, "predicted": predicted_gates(m, d)}
    for own, name in NAMES.items():
        row[name] = [feasible_gates(d, inputs, seed, LIMIT, own=own) for seed in range(key["seeds"])]
    return row


def mean(values: list[int]) -> float:
    """Return the geometric mean; a graph without any feasible gate counts as 1/2."""
    return math.exp(sum(math.log(max(value, 0.5)) for value in values) / len(values))


def draw(settings: TargetedGates, rows: list[Row]) -> Drawing:
    """Draw gates over width, a colour for each m."""
    by_size = {(row["m"], row["d"]): row for row in rows}
    figure = new_figure(3.4, width=4.6)
    axis, cells = figure.subplots(), []
    widths = sorted(settings.d)
    for m, colour in zip(settings.m, COLOURS, strict=False):
        line = [by_size[m, d] for d in widths]
        axis.plot(widths, [row["predicted"] for row in line], color=colour, linewidth=0.8, linestyle=":")
        for name, marker, style in (("own", "o", (0, (5, 1))), ("common", "s", "-")):
            look = {"color": colour, "marker": marker, "markersize": 3.6, "linewidth": 0.9, "linestyle": style}
            look["markerfacecolor"] = "white" if name == "own" else colour
            axis.plot(widths, [mean(row[name]) for row in line], label=f"m = {m}, {name} neurons", **look)
        axis.axhline(line[0]["pairs"], color=colour, linewidth=0.6, alpha=0.6)
        for row in line:
            spread = [f"{mean(row[name]):.0f} ({min(row[name])}–{max(row[name])})" for name in ("own", "common")]
            cells.append((str(m), f"{row['d']:,}", str(row["pairs"]), str(row["predicted"]), *spread))
    quiet(axis)
    sizes_axis(axis, widths)
    errors_axis(axis)
    axis.set_xlabel("width d (neurons)", fontsize=8)
    axis.set_ylabel("gates with worst error below 1/2", fontsize=8)
    axis.legend(fontsize=6.5, frameon=False)
    seeds = seeds_in_words(range(settings.seeds))
    title = (
        "Targeted AND: gates of random graphs with worst error < 1/2 over all inputs with at most 2 active, geometric mean over "
        f"{seeds}; dotted: predicted, own neurons; horizontal: all pairs"
    )
    heading(figure, title)
    header = ("m", "d", "all pairs", "predicted, own", "own (range)", "common (range)")
    return Drawing("targeted_gates", title, figure, render(header, cells, right=range(6)))


def main(settings: TargetedGates) -> str:
    """Measure (unless told not to), store, draw; returns what to print."""
    settings.check()
    path = settings.out / "targeted_gates.jsonl"
    for file in (path, (settings.figures or settings.out) / "targeted_gates.png"):
        check_writable(file)
    torch.set_num_threads(1)  # the products are short, and a second thread slows other processes
    keys = settings.keys()
    rows = stored(path, keys) if settings.plot_only else study(path, keys, measure_size)
    with default_style():
        drawing = draw(settings, rows)
    files = save(drawing, settings.figures or settings.out)
    return "\n".join([drawing.title, drawing.text, *map(str, (path, *files))])


if __name__ == "__main__":
    run_script(TargetedGates, main)
