"""Do ultra-rare latents of sparse autoencoders go on getting rarer, and does it help if dead latents begin again?

U-AND of 12 features with probabilities from a power law (1.5 active on average), a frozen Gaussian layer, and four times as many
latents as features and ANDs. Followed over training, on all inputs by their probabilities: the density of every latent (how
often it is active); its bias and the product of its rows of encoder and decoder at half time and at the end. Latents that were
not active lately begin again every 500 steps in the first half, or never. One line per method and seed in
rare_latents.jsonl (a stopped run goes on there).

    python analysis/rare_latents.py --out analysis/results --figures docs/figures
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toymodels import gaussian, make_task
from toymodels.arguments import run_script
from toymodels.core.features import make_features
from toymodels.core.seeds import derive_seed
from toymodels.errors import InputError, check_whole
from toymodels.experiments.study import Row, stored, study
from toymodels.figures.series import PALETTE
from toymodels.figures.style import Drawing, default_style, heading, new_figure, quiet, save
from toymodels.ground_truth.dictionaries import fit_autoencoder
from toymodels.ground_truth.scores import RARE
from toymodels.runs.storage import check_writable
from toymodels.runs.text import render
from toymodels.theory.statistics import mean_interval

METHODS: dict[str, dict[str, Any]] = {
    "l1": {"l1": 0.3}, "l1, begins again": {"l1": 0.3, "resample": 500},
    "topk": {"k": 6}, "topk, begins again": {"k": 6, "resample": 500},
}  # fmt: skip
"""Autoencoders that are followed."""
TIMES = np.array([1, 2, 4, 8, 16, 24, 32, 48, 64]) / 64
"""When latents are looked at, in units of all steps; half time is the seventh."""
HALF = 6
CHANGE = 2.0
"""By which factor a density must change for a latent to be called rarer or more often active."""
Table = list[list[str]]
"""Cells, the header first."""


@dataclass(frozen=True)
class RareLatents:
    """Follow the density of every latent over training, and draw it."""

    out: Path
    """Folder of the results, rare_latents.jsonl."""
    figures: Path | None = None
    """Folder of the figure, rare_latents.pdf and .png; default that of the results."""
    m: int = 12
    """Features."""
    d: int = 80
    """Width of the layer."""
    s: float = 1.5
    """Active features on average."""
    latents: int = 312
    """Latents of each autoencoder."""
    steps: int = 6400
    """Steps of training."""
    seeds: int = 5
    """Independent layers, samples and autoencoders: seeds 0, 1, …"""
    plot_only: bool = False
    """Draw from the stored results, measure nothing."""

    def check(self) -> None:
        """Raise InputError for settings that make no figure."""
        if self.seeds < 2 or self.steps < 64 or self.steps % 64 or self.m < 3 or not 0 < self.s < self.m:
            raise InputError("the figure needs two seeds, a multiple of 64 steps, 3 features, and s between 0 and m")
        check_whole(1, d=self.d)
        check_whole(None, 20, m=self.m)  # densities are over all 2^m inputs
        check_whole(max(about.get("k", 1) for about in METHODS.values()), latents=self.latents)

    def keys(self) -> list[Row]:
        """Return what identifies each line of the results."""
        size = {"m": self.m, "d": self.d, "s": self.s, "latents": self.latents, "steps": self.steps}
        return [{"method": method, "seed": seed, **size} for method in METHODS for seed in range(self.seeds)]


def measure(key: Row) -> Row:
    """Follow one autoencoder: log10 of the density of each latent at TIMES (None: dead), biases and products at half and end."""
    m, seed, steps = key["m"], key["seed"], key["steps"]
    features, task = make_features("unequal(exponent=1)", m, key["s"]), make_task("and", m)
    layer = gaussian(m, key["d"], derive_seed(seed, "frozen layer")).requires_grad_(False)
    every = features.enumerate()
    weight = every.probabilities.double()
    a, sampled = layer(every.dense()), layer(features.sampled(200_000, derive_seed(seed, "fit")).dense())
    rarest = float((weight @ task.targets(every.dense()).double()).min())
    times = [round(steps * time) for time in TIMES]
    row: Row = {"rarest": rarest, "densities": [], "biases": [], "products": []}

    def watch(step: int, sae: Any) -> None:
        if step not in times:
            return
        density = (weight @ (sae.encode(a) > 0).double()).tolist()
        row["densities"].append([round(math.log10(value), 2) if value else None for value in density])
        if step in (times[HALF], times[-1]):
            row["biases"].append([round(value, 3) for value in sae.encoder_bias.tolist()])
            row["products"].append([round(value, 3) for value in (sae.encoder * sae.decoder).sum(1).tolist()])

    fit_autoencoder(
        sampled, key["latents"], derive_seed(seed, "dictionary"), steps=steps, lr=1e-3, watch=watch, **METHODS[key["method"]]
    )  # fmt: skip
    return row


def kinds(row: Row, time: int) -> dict[str, np.ndarray]:
    """Return which latents are dead, ultra-rare and common at a time, by RARE of the probability of the rarest AND."""
    density = np.array([-np.inf if value is None else value for value in row["densities"][time]])
    dead, rare = np.isneginf(density), density < math.log10(RARE * row["rarest"])
    return {"dead": dead, "ultra-rare": rare & ~dead, "common": ~rare}


def fates(row: Row, kind: str = "ultra-rare") -> dict[str, float]:
    """Return what became by the end of the latents that were of a kind at half time, as shares of these.

    `number` is how many they were, `change` the median of log10(density at the end / at half time) of those that live. Nan where
    there are none.
    """
    half, end = (np.array([-np.inf if x is None else x for x in row["densities"][time]]) for time in (HALF, -1))
    chosen = kinds(row, HALF)[kind]
    dead, moved = np.isneginf(end[chosen]), end[chosen] - half[chosen]
    few, count = math.log10(CHANGE), int(chosen.sum()) or math.nan
    share = {"died": dead, "rarer": ~dead & (moved <= -few), "alike": abs(moved) < few, "more often": moved >= few}
    return {
        "number": float(chosen.sum()), **{name: float(part.sum()) / count for name, part in share.items()},
        "change": math.nan if dead.all() else float(np.median(moved[~dead])),
    }  # fmt: skip


def _cell(values: list[float], form: str) -> str:
    """Write the mean ± 95 % interval of the numbers that there are, or a dash."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "–"
    mean, half = mean_interval(known)
    return (
        f"{mean:{form}} ± {half:{form}}".replace("-", "−") if half is not None else f"{mean:{form}}".replace("-", "−")
    )


def of_method(rows: list[Row]) -> dict[str, list[Row]]:
    """Return the rows of each method."""
    return {method: own for method in METHODS if (own := [row for row in rows if row["method"] == method])}


def numbers_table(rows: list[Row]) -> Table:
    """Return shares of latents that are dead and ultra-rare over training."""
    header = [
        "autoencoder",
        "kind",
        *(f"{round(rows[0]['steps'] * time):,} steps" for time in TIMES[[0, 2, 4, HALF, -1]]),
    ]
    return [header] + [
        [method, kind, *(_cell([kinds(row, t)[kind].mean() for row in own], ".3f") for t in (0, 2, 4, HALF, -1))]
        for method, own in of_method(rows).items() for kind in ("dead", "ultra-rare")
    ]  # fmt: skip


def fates_table(rows: list[Row]) -> Table:
    """Return what became of the latents that were ultra-rare, and of those that were common, at half time."""
    heads = {"number": "number", "died": "died", "rarer": "rarer", "alike": "alike", "more often": "more often",
             "change": "log10 change"}  # fmt: skip
    lines = []
    for kind in ("ultra-rare", "common"):
        for method, own in of_method(rows).items():
            found = [fates(row, kind) for row in own]
            cells = [_cell([fate[name] for fate in found], ".1f" if name == "number" else ".2f") for name in heads]
            lines.append([kind, method, *cells])
    return [["at half time", "autoencoder", *heads.values()], *lines]


def weights_table(rows: list[Row]) -> Table:
    """Return biases and products of encoder and decoder at the end, medians over the latents of each kind."""
    lines = []
    for method, own in of_method(rows).items():
        for column in ("biases", "products"):
            cells = []
            for kind in ("dead", "ultra-rare", "common"):
                chosen = [np.array(row[column][-1])[kinds(row, -1)[kind]] for row in own]
                cells.append(_cell([float(np.median(values)) for values in chosen if len(values)], ".2f"))
            name = {"biases": "bias", "products": "encoder · decoder"}[column]
            lines.append([method, name, *cells])
    return [["autoencoder", "median of", "dead", "ultra-rare", "common"], *lines]


def draw(settings: RareLatents, rows: list[Row]) -> Drawing:
    """Draw the shares of dead and ultra-rare latents over training, densities at the end over half time, and products."""
    figure = new_figure(3.4, width=9.6)
    shares, moved, products = figure.subplots(1, 3)
    steps = settings.steps * TIMES
    for (method, own), colour in zip(of_method(rows).items(), PALETTE, strict=False):
        for kind, line in (("dead", ":"), ("ultra-rare", "-")):
            points = [mean_interval([kinds(row, time)[kind].mean() for row in own]) for time in range(len(TIMES))]
            mean, half = [mean for mean, _ in points], [half or 0.0 for _, half in points]
            shares.errorbar(steps, mean, half, color=colour, linestyle=line, linewidth=1, elinewidth=0.6,
                            label=f"{method}: {kind}")  # fmt: skip
    own = of_method(rows)["l1"]
    for row in own:
        ends = [np.array([np.nan if x is None else x for x in row["densities"][time]]) for time in (HALF, -1)]
        for axis, x, y in ((moved, *ends), (products, ends[1], np.array(row["products"][-1]))):
            axis.plot(x, y, ".", color=PALETTE[0], markersize=2, alpha=0.5)
        limit = math.log10(RARE * row["rarest"])
    low = min(moved.get_xlim()[0], moved.get_ylim()[0])
    moved.plot([low, 0], [low, 0], color="grey", linewidth=0.7)
    for axis in (moved, products):
        axis.axvline(limit, color="grey", linewidth=0.7, linestyle="--")
    for axis, x, y in (
        (shares, "steps", "share of latents"), (moved, "log10 density, half time", "log10 density, end (l1)"),
        (products, "log10 density, end", "encoder · decoder, end (l1)"),
    ):  # fmt: skip
        quiet(axis)
        axis.set_xlabel(x, fontsize=8)
        axis.set_ylabel(y, fontsize=8)
    shares.set_xscale("log")
    shares.set_ylim(0, 0.9)
    shares.legend(fontsize=5.5, frameon=False, loc="upper left", ncols=2)
    title = (
        f"Density of latents over training, {settings.latents} latents for {settings.m} features and "
        f"{math.comb(settings.m, 2)} ANDs; mean ± 95 % interval over {settings.seeds} seeds; dashed: ultra-rare"
    )
    heading(figure, title)
    tables = (numbers_table(rows), fates_table(rows), weights_table(rows))
    return Drawing("rare_latents", title, figure, "\n\n".join(render(header, lines) for header, *lines in tables))


def main(settings: RareLatents) -> str:
    """Measure (unless told not to), store, draw; returns what to print."""
    settings.check()
    path = settings.out / "rare_latents.jsonl"
    for file in (path, (settings.figures or settings.out) / "rare_latents.png"):
        check_writable(file)
    torch.set_num_threads(1)  # the products are short, and a second thread slows other processes
    rows = stored(path, settings.keys()) if settings.plot_only else study(path, settings.keys(), measure)
    with default_style():
        drawing = draw(settings, rows)
    files = save(drawing, settings.figures or settings.out)
    return "\n".join([drawing.title, drawing.text, *map(str, (path, *files))])


if __name__ == "__main__":
    run_script(RareLatents, main)
