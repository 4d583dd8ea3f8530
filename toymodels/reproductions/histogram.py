"""The comment under "Toward A Mathematical Framework for Computation in Superposition" (2024) from which this lab grew.

A network is trained on U-AND or U-XOR; then its first layer is drawn again and frozen, and only the readoff is trained. The
comment shows a histogram of errors, outputs that should be 0 and outputs that should be 1, and calls the two comparable. It
gives no numbers, so there is no published one to compare with.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.layers import make_layer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import derive_seed
from toymodels.core.settings import TrainingSettings
from toymodels.core.tasks import make_task
from toymodels.core.training import Trainer
from toymodels.reproductions.registry import REPRODUCTIONS, Line, Row, of_cases
from toymodels.runs.loop import train

S = 2
EDGES = np.linspace(-1, 1, 81)
LAYERS = ("trained", "frozen")


def errors_of(key: Row) -> Row:
    """Train both networks for each seed, and measure the errors of all outputs on all inputs, zeros and ones apart."""
    task, features = make_task(key["task"], key["m"]), SparseFeatures.at_most(key["m"], S)
    x = features.enumerate().dense()
    targets = task.targets(x).double().numpy()
    row: dict[str, Any] = {f"{layer}_{name}": [] for layer in LAYERS for name in ("zeros", "ones", "worst")}
    counts = {layer: np.zeros((2, len(EDGES) - 1), dtype=np.int64) for layer in LAYERS}
    for seed in key["seeds"]:
        for layer in LAYERS:
            first = make_layer("kaiming", key["m"], key["d"], derive_seed(seed, f"{layer} layer"))
            first.requires_grad_(layer == "trained")
            made = Network(first, LinearReadoff.constant(task.n_outputs, key["d"]))
            trainer = Trainer(made, task, features, TrainingSettings(optimiser="kfac", steps=key["steps"]), seed)
            train(trainer)
            with torch.no_grad():
                errors = made(x).double().numpy() - targets
            for value, name in enumerate(("zeros", "ones")):
                part = errors[targets == value]
                row[f"{layer}_{name}"].append(float(np.sqrt((part**2).mean())))
                counts[layer][value] += np.histogram(part.clip(-1, 1), EDGES)[0]
            row[f"{layer}_worst"].append(float(np.abs(errors).max()))
    return {**row, "counts": {layer: table.tolist() for layer, table in counts.items()}}


def _ratios(row: Row, name: str) -> list[float]:
    return [frozen / trained for frozen, trained in zip(row[f"frozen_{name}"], row[f"trained_{name}"], strict=True)]


def _lines(rows: Sequence[Row]) -> list[Line]:
    words = {"zeros": "RMS error where 0 is right", "ones": "RMS error where 1 is right", "worst": "worst error"}
    lines = []
    for row in rows:
        for name, label in words.items():
            lines += [
                Line(f"U-{row['task'].upper()}, {layer} first layer: {label}", row[f"{layer}_{name}"])
                for layer in LAYERS
            ]
            lines.append(Line(f"U-{row['task'].upper()}, frozen / trained: {label}", _ratios(row, name)))
    return lines


def _answer(rows: Sequence[Row]) -> str:
    """Say how comparable the errors are."""
    parts = [
        f"U-{row['task'].upper()} {np.mean(_ratios(row, 'zeros')):.2f} (zeros), {np.mean(_ratios(row, 'ones')):.2f} (ones), "
        f"{np.mean(_ratios(row, 'worst')):.2f} (worst)"
        for row in rows
    ]
    return f"Errors with a frozen first layer over those with a trained one: {'; '.join(parts)}."


def _draw(rows: Sequence[Row]) -> Any:
    """Draw the histograms of errors, all seeds together: zeros blue, ones orange, as in the comment."""
    from toymodels.figures.series import BLUE, ORANGE
    from toymodels.figures.style import heading, legend, new_figure, quiet

    figure = new_figure(4.4)
    axes = figure.subplots(len(rows), 2, sharex=True, squeeze=False)
    middle, width = (EDGES[1:] + EDGES[:-1]) / 2, EDGES[1] - EDGES[0]
    for row, pair in zip(rows, axes, strict=True):
        for layer, axis in zip(LAYERS, pair, strict=True):
            for counts, colour, label in zip(
                row["counts"][layer], (BLUE, ORANGE), ("should be 0", "should be 1"), strict=True
            ):
                total = max(1, sum(counts)) * width
                axis.step(middle, np.array(counts) / total, where="mid", color=colour, linewidth=1, label=label)
            quiet(axis, xlabel="error", ylabel="density", title=f"U-{row['task'].upper()}, {layer} first layer")
    legend(figure, columns=2)
    first = rows[0]
    size = f"m = {first['m']}, d = {first['d']}, at most {S} active, {first['steps']} steps"
    about = f"{size}, {len(first['seeds'])} seeds together"
    heading(figure, f"Errors of all outputs on all inputs, trained and frozen first layers: {about}")
    return figure


REPRODUCTIONS(
    "comment_histogram", shows="comment of 2024: errors of U-AND and U-XOR with a trained and with a frozen first layer",
    source="Mendel 2024, comment on LessWrong", reduced={"m": 30, "d": 60, "steps": 200}, full={"m": 100, "d": 300, "steps": 500},
    keys=of_cases({"task": task} for task in ("and", "xor")), lines=_lines, draw=_draw, answer=_answer, minutes=3, order=30,
)(errors_of)  # fmt: skip
