"""How many skip-bigrams does a head hold, and is its noise √(k_Q·k_K·|B|/(d_resid·d_head)), as the 2024 post says in section 3?

Heads that score random bigrams of m features of queries and m of keys, with random vectors in d_resid dimensions, by a
matrix of rank d_head: the construction, and heads trained by Adam from the same vectors. Each query and key has the same
number of active features; every second row of a sample holds a bigram. Measuring writes one line per size into
bigrams.jsonl (a stopped run goes on there).

    python analysis/bigrams.py --out analysis/results --figures docs/figures
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from toymodels.arguments import run_script
from toymodels.circuits.bigrams import (
    constructed_head,
    head_errors,
    noise_law,
    random_bigrams,
    sampled,
    score_variance,
    trained_head,
    true_scores,
)
from toymodels.core.seeds import derive_seed
from toymodels.errors import InputError, check_different, check_whole
from toymodels.experiments.study import Row, stored, study
from toymodels.figures.series import PALETTE
from toymodels.figures.style import Drawing, default_style, heading, new_figure, quiet, save
from toymodels.runs.storage import check_writable
from toymodels.runs.text import render
from toymodels.theory.statistics import mean_interval

ROWS, EXACT = 4000, 40
"""Queries and keys measured for each head, and of those without a bigram for which the exact variance is computed."""


@dataclass(frozen=True)
class Bigrams:
    """Measure constructed and trained heads of bigrams, and draw their noise over the law."""

    out: Path
    """Folder of the results, bigrams.jsonl."""
    figures: Path | None = None
    """Folder of the figure, bigrams.pdf and .png; default that of the results."""
    m: tuple[int, ...] = (64, 256)
    """Features of queries, and as many of keys."""
    d_resid: int = 64
    """Dimensions of the residual stream."""
    d_head: tuple[int, ...] = (8, 32)
    """Ranks of the head's matrix."""
    bigrams: tuple[int, ...] = (16, 64, 256, 1024)
    """Numbers of bigrams."""
    active: tuple[int, ...] = (2, 4)
    """Active features of each query, and of each key; heads are trained for the first number."""
    seeds: int = 4
    """Independent draws of bigrams, vectors and heads: seeds 0, 1, …"""
    steps: int = 500
    """Steps of training."""
    plot_only: bool = False
    """Draw from the stored results, measure nothing."""

    def check(self) -> None:
        """Raise InputError for settings that make no figure."""
        for name, values in (
            ("m", self.m),
            ("d_head", self.d_head),
            ("bigrams", self.bigrams),
            ("active", self.active),
        ):
            check_different("size", values, **{name: tuple(map(str, values))})
            check_whole(1, **{name: min(values)})
        if self.seeds < 2 or self.steps < 1 or len(self.m) > len(PALETTE):
            raise InputError("the figure needs at least two seeds, one step and at most as many m as there are colours")
        if max(self.d_head) > self.d_resid or max(self.active) > min(self.m) or max(self.bigrams) > min(self.m) ** 2:
            raise InputError("d_head must be at most d_resid, active at most m, and bigrams at most m²")

    def keys(self) -> list[Row]:
        """Return what identifies each line of the results."""
        sizes = itertools.product(self.m, self.d_head, self.bigrams, self.active)
        return [
            {"m": m, "d_resid": self.d_resid, "d_head": h, "bigrams": b, "active": k, "seeds": self.seeds,
             "steps": self.steps if k == self.active[0] else 0}
            for m, h, b, k in sizes
        ]  # fmt: skip


def measure_size(key: Row) -> Row:
    """Measure one line of the results: for each seed the errors, and the exact variance at the zeros measured."""
    m, d, h, active = key["m"], key["d_resid"], key["d_head"], key["active"]
    row: Row = {"law": noise_law(active, key["bigrams"], d, h), "exact": [], "constructed": [], "trained": []}
    for seed in range(key["seeds"]):
        bigrams = random_bigrams(m, key["bigrams"], derive_seed(seed, "task"))
        query, key_ = sampled(bigrams, ROWS, active, derive_seed(seed, "evaluation"))
        zeros = (true_scores(bigrams, query, key_) == 0).nonzero()[:EXACT, 0]
        row["exact"].append(float(np.mean([score_variance(bigrams, query[i], key_[i], d, h) for i in zeros])))
        heads = {"constructed": constructed_head(bigrams, d, h, seed)}
        if key["steps"]:
            heads["trained"] = trained_head(bigrams, d, h, active, seed, key["steps"])
        for name, head in heads.items():
            row[name].append(head_errors(head, bigrams, query, key_))
    return row


def fit(rows: list[Row]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return slope and constant of log(noise at zeros) over log(law), each as (mean, half of the 95 % interval over seeds)."""
    law = np.log([row["law"] for row in rows])
    fits = []
    for seed in range(len(rows[0]["constructed"])):
        noise = np.log([row["constructed"][seed]["rms_zeros"] for row in rows])
        slope, constant = np.polyfit(law, noise, 1)
        fits.append((slope, np.exp(constant)))
    slopes, constants = (mean_interval(values) for values in zip(*fits, strict=True))
    return (slopes[0], slopes[1] or 0.0), (constants[0], constants[1] or 0.0)


def table(rows: list[Row], m: int) -> list[list[str]]:
    """Return, for one m, the noise of constructed heads beside the law and the exact one, and wrong scores; the header first."""

    def cell(errors: list[Row], name: str) -> str:
        if not errors:
            return "–"
        mean, half = mean_interval([error[name] for error in errors])
        return f"{mean:.3f} ± {half:.3f}"

    lines = [["d_head", "bigrams", "active", "law", "exact", "measured", "wrong, constructed", "wrong, trained"]]
    for row in rows:
        if row["m"] == m:
            lines.append([
                *(f"{row[name]:,}" for name in ("d_head", "bigrams", "active")), f"{row['law']:.3f}",
                f"{np.mean(row['exact']) ** 0.5:.3f}", cell(row["constructed"], "rms_zeros"),
                cell(row["constructed"], "wrong"), cell(row["trained"], "wrong"),
            ])  # fmt: skip
    return lines


def draw(settings: Bigrams, rows: list[Row]) -> Drawing:
    """Draw the noise at zeros over the law, and wrong scores over bigrams per parameter."""
    figure = new_figure(3.2, width=7.0)
    noise, wrong = figure.subplots(1, 2)
    for m, colour in zip(settings.m, PALETTE, strict=False):
        own = [row for row in rows if row["m"] == m]
        mean = [mean_interval([error["rms_zeros"] for error in row["constructed"]]) for row in own]
        look = {"color": colour, "markersize": 3.4, "linewidth": 0}
        noise.errorbar(
            [row["law"] for row in own], [value for value, _ in mean], [half for _, half in mean], marker="o", label=f"m = {m}",
            elinewidth=0.7, **look,
        )  # fmt: skip
        noise.plot([row["law"] for row in own], [np.mean(row["exact"]) ** 0.5 for row in own], marker="_", **look)
        for name, marker in (("constructed", "o"), ("trained", "s")):
            shown = [row for row in own if row["steps"]]
            load = [row["bigrams"] / (row["d_resid"] * row["d_head"]) for row in shown]
            share = [mean_interval([error["wrong"] for error in row[name]]) for row in shown]
            wrong.errorbar(
                load, [value for value, _ in share], [half for _, half in share], marker=marker, label=f"m = {m}, {name}",
                markerfacecolor=colour if name == "constructed" else "white", elinewidth=0.7, **look,
            )  # fmt: skip
    ends = [min(row["law"] for row in rows), max(row["law"] for row in rows)]
    noise.plot(ends, ends, color="grey", linewidth=0.7)
    for axis, label, about in (
        (noise, "law √(k·k·|B|/(d_resid·d_head))", "RMS error at zeros"),
        (wrong, "|B|/(d_resid·d_head)", "share on the wrong side of 1/2"),
    ):
        quiet(axis)
        axis.set_xscale("log")
        axis.set_xlabel(label, fontsize=8)
        axis.set_ylabel(about, fontsize=8)
        axis.legend(fontsize=6.5, frameon=False)
    noise.set_yscale("log")
    noise.xaxis.set_minor_formatter("")
    title = (
        f"Skip-bigram heads, d_resid = {settings.d_resid}: noise of the construction over the law (line: equal; dashes: exact), "
        f"and wrong scores of constructed and trained heads; mean ± 95 % interval over {settings.seeds} seeds"
    )
    heading(figure, title)
    parts = []
    for m in settings.m:
        header, *lines = table(rows, m)
        (slope, by), (constant, of) = fit([row for row in rows if row["m"] == m])
        said = f"m = {m}: noise = ({constant:.3f} ± {of:.3f})·law^({slope:.3f} ± {by:.3f})"
        parts.append(f"{render(header, lines, right=range(8))}\n\n{said}")
    return Drawing("bigrams", title, figure, "\n\n".join(parts))


def main(settings: Bigrams) -> str:
    """Measure (unless told not to), store, draw; returns what to print."""
    settings.check()
    path = settings.out / "bigrams.jsonl"
    for file in (path, (settings.figures or settings.out) / "bigrams.png"):
        check_writable(file)
    torch.set_num_threads(1)  # the products are short, and a second thread slows other processes
    rows = stored(path, settings.keys()) if settings.plot_only else study(path, settings.keys(), measure_size)
    with default_style():
        drawing = draw(settings, rows)
    files = save(drawing, settings.figures or settings.out)
    return "\n".join([drawing.title, drawing.text, *map(str, (path, *files))])


if __name__ == "__main__":
    run_script(Bigrams, main)
