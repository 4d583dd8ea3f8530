"""Are the errors of sparse autoencoders worse than other moves where thresholds or error correction stand behind the readoff?

U-AND of 12 features, at most 3 active, minimax readoffs, autoencoders with a latent for each feature and AND. Measured on
all inputs: RMS change of an output per length of a move, along the autoencoder's error, a random direction, …, at several
multiples of the error's length, behind a linear readoff, thresholds, and a correction layer; the exponent p of
arXiv:2606.24964 along pairs of directions; and the density of latents over training where features have probabilities from
a power law. One line per layer, or per method of the last part, in sae_errors.jsonl (a stopped run goes on there).

    python analysis/sae_errors.py --out analysis/results --figures docs/figures
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from toymodels import (
    LinearReadoff,
    Network,
    SparseFeatures,
    Trainer,
    TrainingSettings,
    evaluate,
    feature_vectors,
    fit_dictionary,
    gaussian,
    make_task,
    minimax,
    train,
)
from toymodels.arguments import run_script
from toymodels.core.features import make_features
from toymodels.core.seeds import derive_seed, seeded
from toymodels.errors import InputError
from toymodels.experiments.study import Row, stored, study
from toymodels.figures.series import PALETTE
from toymodels.figures.style import Drawing, default_style, heading, new_figure, quiet, save
from toymodels.ground_truth.dictionaries import fit_autoencoder
from toymodels.ground_truth.perturbations import BEHIND, exponent, outputs_behind, sensitivities
from toymodels.ground_truth.scores import RARE
from toymodels.runs.storage import check_writable
from toymodels.runs.text import render
from toymodels.theory.statistics import mean_interval

MOVES = ("sae_error", "random", "latents", "features", "functions", "principal")
LABELS = {"sae_error": "SAE error", "random": "random", "latents": "active latents", "features": "a feature",
          "functions": "an AND", "principal": "principal"}  # fmt: skip
METHODS = {"l1": {"l1": 0.1}, "topk": {"k": 6}, "batch_topk": {"k": 6, "batch": True}}
"""Autoencoders whose latents are watched over training."""


@dataclass(frozen=True)
class SAEErrors:
    """Measure moves of activations, exponents and rare latents, and draw them."""

    out: Path
    """Folder of the results, sae_errors.jsonl."""
    figures: Path | None = None
    """Folder of the figure, sae_errors.pdf and .png; default that of the results."""
    m: int = 12
    """Features."""
    s: int = 3
    """Active features, at most."""
    layers: tuple[str, ...] = ("gaussian", "gaussian", "trained")
    """First layers: gaussian or trained."""
    d: tuple[int, ...] = (40, 80, 80)
    """The width of each layer."""
    methods: tuple[str, ...] = ("l1(l1=0.1)", "batch_topk")
    """Autoencoders."""
    factors: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    """Lengths of moves, in units of the autoencoder's error on each input."""
    seeds: int = 3
    """Independent layers: seeds 0, 1, …"""
    steps: int = 4000
    """Steps over which the density of latents is watched."""
    bases: int = 100
    """Inputs from which the exponent is measured."""
    plot_only: bool = False
    """Draw from the stored results, measure nothing."""

    def check(self) -> None:
        """Raise InputError for settings that make no figure."""
        if len(self.layers) != len(self.d) or set(self.layers) - {"gaussian", "trained"} or not self.layers:
            raise InputError("layers are gaussian or trained, and d must have a width for each of them")
        if self.seeds < 2 or self.steps < 8 or self.m < 4 or not 2 <= self.s < self.m:
            raise InputError("the figure needs at least two seeds, 8 steps and 4 features, and s from 2 to m − 1")

    def keys(self) -> list[Row]:
        """Return what identifies each line of the results."""
        size = {"m": self.m, "s": self.s}
        moves: list[Row] = [
            {"part": "moves", "layer": layer, "d": d, **size, "seed": seed, "methods": list(self.methods),
             "factors": list(self.factors), "bases": self.bases}
            for layer, d in zip(self.layers, self.d, strict=True) for seed in range(self.seeds)
        ]  # fmt: skip
        rare: list[Row] = [
            {"part": "rare", "d": max(self.d), **size, "method": method, "seed": seed, "steps": self.steps}
            for method in METHODS
            for seed in range(self.seeds)
        ]
        return moves + rare


def make_network(layer: str, m: int, d: int, s: int, seed: int) -> tuple[Network, Any, SparseFeatures]:
    """Make a frozen or trained layer with its minimax readoff; return it with the task and the features."""
    features, task = SparseFeatures.at_most(m, s), make_task("and", m)
    first = gaussian(m, d, derive_seed(seed, "frozen layer"))
    if layer == "trained":
        start = Network(gaussian(m, d, derive_seed(seed, "trained layer")), LinearReadoff.constant(task.n_outputs, d))
        trainer = Trainer(start, task, features, TrainingSettings(), seed=seed)
        train(trainer)
        first = trainer.network.layer  # type: ignore[assignment]
    first = first.requires_grad_(False)
    return Network(first, minimax(first, task, features.enumerate()).readoff), task, features


def measure_moves(key: Row) -> Row:
    """Measure one layer: its worst error, moves behind each kind of readoff, and exponents."""
    seed = key["seed"]
    network, task, features = make_network(key["layer"], key["m"], key["d"], key["s"], seed)
    inputs, vectors = features.enumerate(), feature_vectors(network, task, features)
    behind = {name: outputs_behind(network, task, name, math.comb(key["s"], 2), seed) for name in BEHIND}
    x = inputs.dense()
    with torch.no_grad():
        a, truth = network.layer(x).double(), task.targets(x).double()
        worst = {name: float((function(a) - truth).abs().max()) for name, function in behind.items()}
        sampled = network.layer(features.sampled(20_000, derive_seed(seed, "fit")).dense())
    latents, moves = task.m + task.n_outputs, {}
    for method in key["methods"]:
        fitted = fit_dictionary(method, sampled, latents, derive_seed(seed, "dictionary"))
        for name, function in behind.items():
            for factor in key["factors"]:
                measured = sensitivities(fitted, network, vectors, inputs, seed, function, factor)
                moves[f"{method} {name} {factor:g}"] = {move: measured[f"sensitivity_{move}"] for move in MOVES}
    generator = seeded(derive_seed(seed, "evaluation"))
    chosen = torch.randint(len(a), (key["bases"],), generator=generator)
    random = torch.nn.functional.normalize(torch.randn(2, len(chosen), a.shape[1], generator=generator).double(), dim=2)
    pairs = {
        "functions": _two_off(vectors.functions, truth[chosen], generator),
        "features": _two_off(vectors.activations, x[chosen], generator),
        "random": random,
    }
    exponents = {}
    for name, function in behind.items():
        for directions, (u, v) in pairs.items():
            found = exponent(function, a[chosen], u, v, reach=3.0, radii=200)
            exponents[f"{name} {directions}"] = None if found is None else {"p": found.p, "used": found.used}
    return {"clean_worst_error": evaluate(network, task, inputs).worst_error, "worst": worst, "moves": moves,
            "exponents": exponents}  # fmt: skip


def _two_off(vectors: torch.Tensor, values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return for each input the directions, of length 1, of two different features or functions that are 0 there."""
    rank = torch.rand(values.shape, generator=generator).masked_fill(values != 0, -1.0)
    chosen = rank.topk(2, dim=1).indices.T
    return torch.nn.functional.normalize(vectors.double(), dim=1)[chosen]


def measure_rare(key: Row) -> Row:
    """Watch the density of every latent over training, where features have probabilities from a power law."""
    m, seed = key["m"], key["seed"]
    features, task = make_features("unequal(exponent=1)", m, key["s"] / 2), make_task("and", m)
    layer = gaussian(m, key["d"], derive_seed(seed, "frozen layer")).requires_grad_(False)
    every = features.enumerate()
    weight = every.probabilities.double()
    a, sampled = layer(every.dense()), layer(features.sampled(20_000, derive_seed(seed, "fit")).dense())
    rarest = float((weight @ task.targets(every.dense()).double()).min())
    times = [key["steps"] * k // 8 for k in range(1, 9)]
    densities: dict[int, list[float]] = {}

    def watch(step: int, sae: Any) -> None:
        if step in times:
            training, _ = sae.training, sae.eval()
            densities[step] = (weight @ (sae.encode(a) > 0).double()).tolist()
            sae.train(training)

    latents = m + task.n_outputs
    fit_autoencoder(
        sampled, latents, derive_seed(seed, "dictionary"), steps=key["steps"], watch=watch, **METHODS[key["method"]]
    )
    return {"rarest": rarest, "times": times, "densities": [densities[time] for time in times]}


def rare_row(rows: list[Row]) -> list[str]:
    """Return the cells of one method: shares of latents that are dead and ultra-rare, and what became of those at half time."""
    shares: dict[str, list[float]] = {name: [] for name in ("dead, half", "dead, end", "rare, half", "rare, end")}
    fate = {"died": 0, "rarer": 0, "as or more often": 0}
    for row in rows:
        density = np.array(row["densities"])
        half, end = density[len(density) // 2 - 1], density[-1]
        rare = [(x > 0) & (x < RARE * row["rarest"]) for x in (half, end)]
        for name, x, few in (("half", half, rare[0]), ("end", end, rare[1])):
            shares[f"dead, {name}"].append(float((x == 0).mean()))
            shares[f"rare, {name}"].append(float(few.mean()))
        later = end[rare[0]]
        fate["died"] += int((later == 0).sum())
        fate["rarer"] += int(((later > 0) & (later < half[rare[0]])).sum())
        fate["as or more often"] += int((later >= half[rare[0]]).sum())
    return [*(_cell(values) for values in shares.values()), *map(str, fate.values())]


def _cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, half = mean_interval(known)
    return f"{mean:.3f}" + ("" if half is None else f" ± {half:.3f}")


def lines_of(rows: list[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the layers of the first part, with their rows."""
    moves = [row for row in rows if row["part"] == "moves"]
    for name in dict.fromkeys(f"{row['layer']}, d = {row['d']}" for row in moves):
        yield name, [row for row in moves if f"{row['layer']}, d = {row['d']}" == name]


def draw(settings: SAEErrors, rows: list[Row]) -> Drawing:
    """Draw the change of outputs per length over the length of the move: a column for each layer, a row for what is behind."""
    layers = dict(lines_of(rows))
    figure = new_figure(5.2, width=7.2)
    grid = figure.subplots(len(BEHIND), len(layers), sharex=True, squeeze=False)
    method, cells = settings.methods[0], []
    for column, (name, own) in enumerate(layers.items()):
        for line, behind in enumerate(BEHIND):
            axis = grid[line][column]
            for move, colour in zip(MOVES, PALETTE, strict=False):
                points = []
                for factor in settings.factors:
                    values = [row["moves"][f"{method} {behind} {factor:g}"][move] for row in own]
                    points.append(mean_interval([value for value in values if value is not None] or [math.nan]))
                axis.errorbar(settings.factors, [mean for mean, _ in points], [half or 0.0 for _, half in points], color=colour,
                              label=LABELS[move], linewidth=0.8, elinewidth=0.6, marker="o", markersize=2.2)  # fmt: skip
            quiet(axis)
            axis.set_xscale("log", base=2)
            axis.set_ylim(bottom=0)
            if line == 0:
                axis.set_title(name, fontsize=8)
            if column == 0:
                axis.set_ylabel(behind, fontsize=8)
            if line == len(BEHIND) - 1:
                axis.set_xlabel("length / length of SAE error", fontsize=8)
        for behind in BEHIND:
            for kind in settings.methods:
                at = [row["moves"][f"{kind} {behind} 1"] for row in own]
                ratio = [moves["sae_error"] / moves["random"] for moves in at if moves["random"]]
                cells.append(
                    [name, behind, kind, *(_cell([moves[move] for moves in at]) for move in MOVES), _cell(ratio)]
                )
    grid[-1][-1].legend(fontsize=5, frameon=False, loc="upper left", ncols=2)
    title = (
        f"Change of an output (RMS) per length of a move of activations, by direction, SAE {method}; mean ± 95 % interval over "
        f"{settings.seeds} seeds; rows: what stands behind the readoff"
    )
    heading(figure, title)
    exponents, errors = [], []
    for name, own in layers.items():
        for behind in BEHIND:
            found = [
                [row["exponents"][f"{behind} {kind}"] for row in own] for kind in ("functions", "features", "random")
            ]
            exponents.append([name, behind, *(_cell([None if x is None else x["p"] for x in xs]) for xs in found)])
        errors.append([name, *(_cell([row["worst"][behind] for row in own]) for behind in BEHIND)])
    rare = [[method, *rare_row([row for row in rows if row.get("method") == method])] for method in METHODS]
    moves_header = ["layer", "behind", "SAE", *(LABELS[move] for move in MOVES), "SAE error / random"]
    fates = ["method", "dead, half", "dead, end", "rare, half", "rare, end", "died", "rarer", "as or more often"]
    text = "\n\n".join([
        render(["layer", *(f"worst error, {name}" for name in BEHIND)], errors),
        render(moves_header, cells), render(["layer", "behind", "p: ANDs", "p: features", "p: random"], exponents),
        render(fates, rare),
    ])  # fmt: skip
    return Drawing("sae_errors", title, figure, text)


def main(settings: SAEErrors) -> str:
    """Measure (unless told not to), store, draw; returns what to print."""
    settings.check()
    path = settings.out / "sae_errors.jsonl"
    for file in (path, (settings.figures or settings.out) / "sae_errors.png"):
        check_writable(file)
    torch.set_num_threads(1)  # the products are short, and a second thread slows other processes
    measure = {"moves": measure_moves, "rare": measure_rare}
    keys = settings.keys()
    rows = stored(path, keys) if settings.plot_only else study(path, keys, lambda key: measure[key["part"]](key))
    with default_style():
        drawing = draw(settings, rows)
    files = save(drawing, settings.figures or settings.out)
    return "\n".join([drawing.title, drawing.text, *map(str, (path, *files))])


if __name__ == "__main__":
    run_script(SAEErrors, main)
