"""Histograms of the outputs of a run's networks, frozen beside trained, from its record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toymodels.core.evaluation import HISTOGRAM_EDGES as EDGES
from toymodels.errors import InputError
from toymodels.figures.registry import figure
from toymodels.figures.series import BLUE, ORANGE, gate_of, seeds_in_words, task_title
from toymodels.figures.style import Drawing, heading, legend, new_figure
from toymodels.figures.table import active_in_words
from toymodels.runs.record import load_config
from toymodels.runs.storage import read_json

COLOURS = (BLUE, ORANGE)
READOFFS = ("trained", "minimax")


def stored_rows(run: Path) -> list[dict[str, Any]]:
    """Read the rows of a comparison with their evaluations, from the files that the run keeps of each of them."""
    keys = ("task", "first_layer", "readoff", "seed", "worst_error", "covered", "n_pairs", "all_pairs", "evaluation")
    return [read_json(path, keys) for path in sorted(run.glob("*-seed-*/*.json"))]


def _both_layers(rows: Sequence[dict[str, Any]], frozen: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the rows by (readoff, layer) of readoffs that both the frozen and the trained layer have."""
    by_key = {(row["readoff"], row["first_layer"]): row for row in rows}
    shared = [readoff for readoff in READOFFS if {(readoff, frozen), (readoff, "trained")} <= by_key.keys()]
    return {(readoff, layer): by_key[readoff, layer] for readoff in shared for layer in (frozen, "trained")}


def _applies(run: Path) -> bool:
    saved = load_config(run)
    return saved.kind == "compare" and bool(_both_layers(stored_rows(run), saved.config["frozen_layer"]))


@figure("histogram", order=90, applies=_applies, after_run=True)
def histogram(run: Path, *, task: str | None = None, seed: int | None = None) -> list[Drawing]:
    """Draw how the outputs of a trained network spread around 0 and 1, beside those of the frozen random layer.

    A figure for each task, or for one; of the first seed unless another is named. Top row: readoffs trained by the loss; bottom
    row: minimax readoffs. Raises InputError for a run of another kind, or without a readoff of both layers.
    """
    saved = load_config(run)
    config = saved.config
    if saved.kind != "compare":
        raise InputError(f"{run} is a run of {saved.kind}: histograms of both layers need a run of compare")
    seed = config["seeds"][0] if seed is None else seed
    rows = [row for row in stored_rows(run) if row["seed"] == seed and task in (None, row["task"])]
    drawings = []
    for name in dict.fromkeys(row["task"] for row in rows):
        shown = _both_layers([row for row in rows if row["task"] == name], config["frozen_layer"])
        if shown:
            title = f"Outputs of {task_title(name)}, trained against frozen ({run.name})"
            drawings.append(Drawing(f"histogram-{name}", title, _draw(shown, config)))
    if not drawings:
        raise InputError(f"{run} has no readoff of both a frozen and a trained layer: their outputs cannot be compared")
    return drawings


def _draw(rows: Mapping[tuple[str, str], dict[str, Any]], config: Mapping[str, Any]) -> Any:
    """Draw one task and seed: a line of panels for each readoff, the frozen layer on the left."""
    truth = all(set(_masses(row)) == {"zeros", "ones"} for row in rows.values())
    readoffs = list(dict.fromkeys(readoff for readoff, _ in rows))
    drawing = new_figure(0.9 + 2.1 * len(readoffs))
    axes = drawing.subplots(len(readoffs), 2, sharex=True, sharey=True, squeeze=False)
    for axis, ((readoff, layer), row) in zip(axes.flat, rows.items(), strict=True):
        for (name, mass), colour in zip(_masses(row).items(), COLOURS, strict=False):
            density = np.where(mass > 0, mass / np.diff(EDGES), np.nan)
            value = {"zeros": 0, "ones": 1}.get(name)
            label = f"error, {name}" if value is None else f"should be {value}"
            axis.stairs(density, EDGES, color=colour, fill=True, alpha=0.6, label=label)
            axis.axvline(value or 0, color=colour, linewidth=0.8, linestyle=":")
        axis.set_yscale("log")
        first = "trained layer" if layer == "trained" else "frozen random layer"
        how = "minimax readoff" if readoff == "minimax" else "readoff trained by L_p"
        outputs = f"{row['n_pairs']:,} of {row['all_pairs']:,} {'pairs' if gate_of(row['task']) else 'outputs'}"
        axis.set_title(f"{first}, {how}\nε = {row['worst_error']:.3f} ({outputs})", fontsize=8)
    used = np.flatnonzero(np.sum([mass for row in rows.values() for mass in _masses(row).values()], axis=0))
    axes[0][0].set_xlim(min(EDGES[used[0]], 0) - 0.05, max(EDGES[used[-1] + 1], 1 if truth else 0) + 0.05)
    for axis in axes[-1]:
        axis.set_xlabel("readoff (output of the network)" if truth else "error (output − target)")
    for line in axes:
        line[0].set_ylabel("probability density")
    legend(drawing, 2, fontsize=8)
    row = next(iter(rows.values()))
    heading(
        drawing,
        f"{task_title(row['task'])}: m = {config['m']}, d = {config['d']}, {active_in_words(config)}; {row['covered']} inputs, "
        f"{seeds_in_words([row['seed']])}; worst error ε = largest |output − target|",
    )
    return drawing


def _masses(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the histograms of a row by group of outputs."""
    stored = row["evaluation"]["histogram"]
    groups = stored if isinstance(stored, dict) else dict(zip(("zeros", "ones"), stored, strict=True))
    return {name: np.array(mass) for name, mass in groups.items()}
