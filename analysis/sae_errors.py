"""Are the errors of sparse autoencoders worse than other moves where thresholds or error correction stand behind the readoff?

U-AND of 12 features, at most 3 active, minimax readoffs, autoencoders with a latent for each feature and AND. Measured on
all inputs: RMS change of an output per length of a move, along the autoencoder's error, a random direction, …, at several
multiples of the error's length, behind a linear readoff, thresholds, and a correction layer; and the exponent p of
arXiv:2606.24964 along pairs of directions. One line per layer in sae_errors.jsonl (a stopped run goes on there).

    python analysis/sae_errors.py --out analysis/results --figures docs/figures
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from toymodels import (
    LinearReadoff,
    Network,
    SparseFeatures,
    Trainer,
    TrainingSettings,
    feature_vectors,
    fit_dictionary,
    gaussian,
    make_task,
    minimax,
    train,
)
from toymodels.arguments import run_script
from toymodels.core.seeds import derive_seed, seeded
from toymodels.errors import InputError, check_different, check_positive, check_whole
from toymodels.experiments.study import Row, stored, study
from toymodels.figures.series import PALETTE
from toymodels.figures.style import Drawing, default_style, heading, new_figure, quiet, save
from toymodels.ground_truth.dictionaries import check_dictionary
from toymodels.ground_truth.perturbations import BEHIND, exponent, outputs_behind, sensitivities
from toymodels.runs.storage import check_writable
from toymodels.runs.text import render
from toymodels.theory.statistics import mean_interval

PAIRS = {"functions": "two ANDs", "features": "two features", "random": "two random directions"}
"""Pairs of directions along which exponents are measured, and their headings."""
LABELS = {"sae_error": "SAE error", "random": "random", "latents": "active latents", "features": "a feature",
          "functions": "an AND", "principal": "principal"}  # fmt: skip
"""Directions of moves, and their headings."""
MOVES = tuple(LABELS)
Table = list[list[str]]
"""Cells, the header first."""


@dataclass(frozen=True)
class SAEErrors:
    """Measure moves of activations and exponents, and draw the moves."""

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
    seeds: int = 24
    """Independent layers: seeds 0, 1, …"""
    bases: int = 100
    """Inputs from which the exponent is measured."""
    plot_only: bool = False
    """Draw from the stored results, measure nothing."""

    def check(self) -> None:
        """Raise InputError for settings that make no figure."""
        if len(self.layers) != len(self.d) or set(self.layers) - {"gaussian", "trained"} or not self.layers:
            raise InputError("layers are gaussian or trained, and d must have a width for each of them")
        if self.seeds < 2 or self.m < 4 or not 2 <= self.s < self.m:
            raise InputError("the figure needs at least two seeds and 4 features, and s from 2 to m − 1")
        check_different("layer and width", list(zip(self.layers, self.d, strict=True)), layers=self.layers)
        check_whole(1, bases=self.bases, d=min(self.d))
        check_positive(**{f"factor {number}": factor for number, factor in enumerate(self.factors)})
        if 1 not in self.factors:
            raise InputError("factors must have 1 among them, of which the tables are")
        latents = self.m + make_task("and", self.m).n_outputs
        check_different("method", [check_dictionary(name, latents) for name in self.methods], methods=self.methods)

    def keys(self) -> list[Row]:
        """Return what identifies each line of the results."""
        size = {"m": self.m, "s": self.s}
        return [
            {"layer": layer, "d": d, **size, "seed": seed, "methods": list(self.methods), "factors": list(self.factors),
             "bases": self.bases}
            for layer, d in zip(self.layers, self.d, strict=True) for seed in range(self.seeds)
        ]  # fmt: skip


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


def measure_layer(key: Row) -> Row:
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
            known = found is not None and not math.isnan(found.p)
            exponents[f"{name} {directions}"] = {"p": found.p if known else None, "used": found.used if found else 0}
    return {"worst": worst, "moves": moves, "exponents": exponents}


def _two_off(vectors: torch.Tensor, values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return for each input the directions, of length 1, of two different features or functions that are 0 there."""
    rank = torch.rand(values.shape, generator=generator).masked_fill(values != 0, -1.0)
    chosen = rank.topk(2, dim=1).indices.T
    return torch.nn.functional.normalize(vectors.double(), dim=1)[chosen]


def _cell(values: list[float | None], form: str = ".3f") -> str:
    """Write the mean ± 95 % interval of the values that there are, or a dash."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    mean, half = mean_interval(known)
    return f"{mean:{form}}" + ("" if half is None else f" ± {half:{form}}")


def layers_of(rows: list[Row]) -> dict[str, list[Row]]:
    """Return the rows of each layer by its name and width."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row['layer']}, d = {row['d']}", []).append(row)
    return groups


def moves_table(rows: list[Row], behind: str, factor: int) -> Table:
    """Return the change of an output per length of a move, by direction, at a multiple of the length of the SAE's error."""
    lines = []
    for name, own in layers_of(rows).items():
        for method in own[0]["methods"]:
            at = [row["moves"][f"{method} {behind} {factor:g}"] for row in own]
            ratio = [moves["sae_error"] / moves["random"] for moves in at if moves["random"]]
            lines.append([name, method, *(_cell([moves[move] for moves in at]) for move in MOVES), _cell(ratio, ".2f")])
    return [["layer", "SAE", *LABELS.values(), "SAE error / random"], *lines]


def worst_table(rows: list[Row]) -> Table:
    """Return the worst error of each layer, by what stands behind its readoff."""
    return [["layer", *BEHIND]] + [
        [name, *(_cell([row["worst"][behind] for row in own]) for behind in BEHIND)]
        for name, own in layers_of(rows).items()
    ]


def exponents_table(rows: list[Row]) -> Table:
    """Return the exponent p by directions and what stands behind the readoff, and fits without a minimum, which are left out."""
    lines = []
    for name, own in layers_of(rows).items():
        for behind in BEHIND:
            found = [[row["exponents"][f"{behind} {kind}"]["p"] for row in own] for kind in PAIRS]
            lines.append([name, behind, *(_cell(p, ".2f") for p in found), str(sum(p.count(None) for p in found))])
    return [["layer", "behind", *PAIRS.values(), "no minimum"], *lines]


def draw(settings: SAEErrors, rows: list[Row]) -> Drawing:
    """Draw the change of outputs per length over the length of the move: a column for each layer, a row for what is behind."""
    layers = layers_of(rows)
    figure = new_figure(5.2, width=7.2)
    grid = figure.subplots(len(BEHIND), len(layers), sharex=True, squeeze=False)
    method = settings.methods[0]
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
    grid[0][-1].legend(fontsize=5, frameon=False, loc="center", bbox_to_anchor=(0.5, 0.7), ncols=2)
    title = (
        f"Change of an output (RMS) per length of a move of activations, by direction, SAE {method}; mean ± 95 % interval over "
        f"{settings.seeds} seeds; rows: what stands behind the readoff"
    )
    heading(figure, title)
    tables = [worst_table(rows), *(moves_table(rows, behind, 1) for behind in BEHIND), exponents_table(rows)]
    text = "\n\n".join(render(header, lines) for header, *lines in tables)
    return Drawing("sae_errors", title, figure, text)


def main(settings: SAEErrors) -> str:
    """Measure (unless told not to), store, draw; returns what to print."""
    settings.check()
    path = settings.out / "sae_errors.jsonl"
    for file in (path, (settings.figures or settings.out) / "sae_errors.png"):
        check_writable(file)
    torch.set_num_threads(1)  # the products are short, and a second thread slows other processes
    rows = stored(path, settings.keys()) if settings.plot_only else study(path, settings.keys(), measure_layer)
    with default_style():
        drawing = draw(settings, rows)
    files = save(drawing, settings.figures or settings.out)
    return "\n".join([drawing.title, drawing.text, *map(str, (path, *files))])


if __name__ == "__main__":
    run_script(SAEErrors, main)
