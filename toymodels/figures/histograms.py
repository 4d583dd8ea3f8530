"""Figures of a run, drawn from its record. matplotlib is imported here alone, and only when a figure is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toymodels.core.evaluation import HISTOGRAM_EDGES

ZERO, ONE = "#0072B2", "#E69F00"
"""Blue and orange of Okabe and Ito's palette, told apart with any colour vision."""


def draw_comparison(rows: Sequence[dict[str, Any]], config: Any, folder: Path) -> list[Path]:
    """`comparison_figure` of each task, for the first seed, as PNG and PDF in the folder; returns the PNG files."""
    seed = rows[0]["seed"]
    files = []
    for task in dict.fromkeys(row["task"] for row in rows):
        figure = comparison_figure([row for row in rows if row["task"] == task and row["seed"] == seed], config)
        if figure is None:
            continue
        for suffix in (".png", ".pdf"):
            figure.savefig(folder / f"{task}{suffix}", dpi=150)
        files.append(folder / f"{task}.png")
    return files


def comparison_figure(rows: Sequence[dict[str, Any]], config: Any) -> Any:
    """Outputs that should be 0 (blue) and 1 (orange), frozen beside trained; None if no readoff was found for both layers.

    Top row: readoffs trained by the loss; bottom row: minimax readoffs. `rows` are those of one task and seed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = {(row["layer"], row["readoff"]): row for row in rows}
    layers = (config.frozen_layer, "trained")
    readoffs = [r for r in ("trained", "minimax") if all((layer, r) in found for layer in layers)]
    if not readoffs:
        return None
    figure = Figure(figsize=(7, 0.9 + 2.1 * len(readoffs)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(readoffs), 2, sharex=True, sharey=True, squeeze=False)
    for line, readoff in zip(axes, readoffs, strict=True):
        for axis, layer in zip(line, layers, strict=True):
            _histogram(axis, found[layer, readoff], frozen=layer != "trained")
    low, high = _range([found[layer, readoff] for layer in layers for readoff in readoffs])
    axes[0][0].set_xlim(min(low, 0) - 0.05, max(high, 1) + 0.05)
    for axis in axes[-1]:
        axis.set_xlabel("readoff (output of the network)")
    for line in axes:
        line[0].set_ylabel("probability density")
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8)
    row = found[layers[0], readoffs[0]]
    figure.suptitle(
        f"U-{row['task'].upper()}: m = {config.m}, d = {config.d}, {config.features().name} active; {row['inputs']} inputs, "
        f"seed {row['seed']}; ε = worst |output − target|",
        fontsize=9,
    )
    return figure


def _histogram(axis: Any, row: dict[str, Any], frozen: bool) -> None:
    width = np.diff(HISTOGRAM_EDGES)
    for value, colour in ((0, ZERO), (1, ONE)):
        mass = np.array(row["evaluation"]["histogram"][value])
        density = np.where(mass > 0, mass / width, np.nan)
        axis.stairs(density, HISTOGRAM_EDGES, color=colour, fill=True, alpha=0.6, label=f"should be {value}")
        axis.axvline(value, color=colour, linewidth=0.8, linestyle=":")
    axis.set_yscale("log")
    first = "frozen random layer" if frozen else "trained layer"
    how = "minimax readoff" if row["readoff"] == "minimax" else "readoff trained by L_p"
    axis.set_title(
        f"{first}, {how}\nε = {row['worst_error']:.3f} ({row['pairs']:,} of {row['all_pairs']:,} pairs)", fontsize=8
    )


def _range(rows: Sequence[dict[str, Any]]) -> tuple[float, float]:
    """From the lowest to the highest output of all rows."""
    mass = np.sum([row["evaluation"]["histogram"] for row in rows], axis=(0, 1))
    used = np.flatnonzero(mass)
    return float(HISTOGRAM_EDGES[used[0]]), float(HISTOGRAM_EDGES[used[-1] + 1])
