"""The genericity experiment: trained, frozen random and no first layer, each through every readoff, in one table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from toymodels.config import check_device, derive_seed
from toymodels.constructions import CONSTRUCTIONS
from toymodels.controls import CONTROLS
from toymodels.errors import InputError
from toymodels.experiments.bench import FIGURES, Bench, Row
from toymodels.experiments.settings import NetworkSettings
from toymodels.experiments.train import first_layer, layer_width
from toymodels.features import Inputs
from toymodels.gates import Gate
from toymodels.jobs import run_jobs
from toymodels.layers import Embedded, FirstLayer, inner
from toymodels.plots import draw_comparison
from toymodels.readoffs.analytic import analytic
from toymodels.readoffs.by_class import fitted_class_readoff
from toymodels.readoffs.least_squares import balanced, least_squares
from toymodels.readoffs.linear import LinearReadoff
from toymodels.readoffs.minimax import check_minimax
from toymodels.record import locked, open_record, read_metrics
from toymodels.statistics import mean_interval
from toymodels.storage import check_writable, write_json
from toymodels.tasks import PairTask
from toymodels.tracking import Mirror, check_mirror

READOFFS = ("constant", "analytic", "own", "least_squares", "balanced", "trained", "minimax")
"""The readoffs of a comparison unless others are named."""


@dataclass(frozen=True)
class CompareConfig(NetworkSettings):
    """The genericity experiment: are the gates as readable from a random first layer as from a trained one?

    For each task and seed: predict a constant; the affine readoff of the inputs; a frozen random layer with analytic,
    least-squares, L_p-trained and minimax readoffs; a trained layer with its own readoff and with the minimax readoff.
    `layers` sets published constructions and null models beside them.
    """

    task: tuple[str, ...] = ("and", "xor")
    """Gates on every pair, each with a table and a figure of its own."""
    readoffs: tuple[str, ...] = READOFFS
    """Which to compare: constant analytic own (a construction's) least_squares balanced by_class trained minimax
    random_labels."""
    minimax_pairs: int = 2000
    """Minimax readoffs are found for all pairs, or a random sample of this many if there are more (a linear program each)."""
    frozen_layer: str = "gaussian"
    """The random first layer that stays frozen, over which the genericity ratio is taken: gaussian, kaiming, one of
    your own, or a construction."""
    layers: tuple[str, ...] | None = None
    """First layers, a row each for every readoff: identity, trained, gaussian, kaiming, your own, constructions (bernoulli
    ternary rademacher targeted quadratic four_class), controls made from the trained one (spectrum_matched shuffled
    shuffled_within), or all. Default: identity, frozen_layer and trained."""
    figures: bool = True
    """Draw the figures: histograms of the outputs, a file for each gate."""
    json: Path | None = None
    """Also write every number of the table to this file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.task:
            raise InputError("task is empty: name at least one gate")
        names = [Gate.parse(task).name for task in self.task]
        if len(set(names)) < len(names):
            raise InputError(f"task names a gate twice ({', '.join(self.task)}): name each once")
        known = readoff_names()
        unknown = [name for name in self.readoffs if name not in known]
        if unknown or not self.readoffs:
            raise InputError(f"unknown readoff {', '.join(unknown) or '(none)'}: choose from {', '.join(known)}")
        if self.frozen_layer in ("identity", "trained"):
            raise InputError(
                f"frozen_layer {self.frozen_layer} is the name of another row of the table: name a random layer"
            )
        self._check_layers()
        if set(self.readoffs) == {"analytic"} and not any(analytic_applies(self, name) for name in self.rows()):
            raise InputError(
                "the analytic readoff holds for a Gaussian ReLU layer without bias only: name another readoff"
            )
        if self.json is not None:
            check_writable(self.json)
        if self.minimax_pairs < 1:
            raise InputError(f"minimax_pairs = {self.minimax_pairs}: it must be at least 1")
        if {"minimax", "random_labels"} & set(self.readoffs):
            check_minimax(self.features())

    def first_layers(self) -> tuple[str, ...]:
        """The names of all first layers that the run draws."""
        drawn = [name for name in self.rows() if name not in ("identity", "trained", *CONTROLS)]
        return tuple(dict.fromkeys((*([self.layer] if "trained" in self.rows() else []), self.frozen_layer, *drawn)))

    def rows(self) -> tuple[str, ...]:
        """The first layers in the table's order: none, those that stay as drawn, the trained one, controls made from it.

        "all" leaves out the constructions that cannot be made for these sizes; `left_out` says why.
        """
        if self.layers is None:
            return ("identity", self.frozen_layer, "trained")
        names = dict.fromkeys(self.layers)
        if "all" in names:
            names |= dict.fromkeys(("identity", self.frozen_layer, *CONSTRUCTIONS, "trained", *CONTROLS))
            for name in ("all", *self.left_out()):
                del names[name]
        rank = {"identity": 0, "trained": 2} | dict.fromkeys(CONTROLS, 3)
        return tuple(sorted(names, key=lambda name: rank.get(name, 1)))

    def left_out(self) -> dict[str, str]:
        """Constructions that "all" would have, but that cannot be made for these sizes, and why."""
        reasons = {}
        for name, construction in CONSTRUCTIONS.items() if "all" in (self.layers or ()) else ():
            try:
                construction.check(self.m, self.d, self.layer_p)
            except InputError as error:
                reasons[name] = str(error)
        return {name: why for name, why in reasons.items() if name not in (self.layers or ())}

    def readoffs_of(self, layer: str, task: PairTask) -> tuple[str, ...]:
        """The readoffs that this first layer gets in the table of this task, in its order."""
        names = [name for name in readoff_names() if name in self.readoffs]
        if layer == "identity":
            names = [name for name in names if name in ("constant", "minimax", "random_labels")]
        elif layer == "trained":
            names = [name for name in names if name in ("by_class", "trained", "minimax", "random_labels")]
        own = layer in CONSTRUCTIONS and CONSTRUCTIONS[layer].reads(task)
        plain = self.d0 is None  # behind a frame a weight is no weight on a feature
        without = {
            "own": own,
            "analytic": analytic_applies(self, layer),
            "constant": layer == "identity",
            "by_class": plain,
        }
        return tuple(name for name in names if without.get(name, True))

    def _check_layers(self) -> None:
        if self.layers is None:
            return
        if not self.layers:
            raise InputError("layers is empty: name at least one first layer, or leave it out")
        names = self.rows()
        lacking = [name for name in names if name in CONTROLS]
        if lacking and "trained" not in names:
            raise InputError(f"the control {lacking[0]} is made from the trained layer: name trained in layers, too")


Fit = Callable[[CompareConfig, nn.Module, PairTask, Inputs], LinearReadoff]

FITTED: dict[str, Fit] = {
    # Made for exactly s active features (2 at least: a pair); on fewer it is biased.
    "analytic": lambda config, layer, task, inputs: analytic(layer, task, max(2, round(config.s))),
    "least_squares": lambda config, layer, task, inputs: least_squares(layer, task, inputs),
    "balanced": lambda config, layer, task, inputs: balanced(layer, task, config.features(), inputs),
    "by_class": lambda config, layer, task, inputs: fitted_class_readoff(layer, task, config.features(), inputs),
}
"""Readoffs of a frozen layer by name. Add your own, and name it in `readoffs`, to set it beside the others."""


def readoff_names() -> tuple[str, ...]:
    """All readoffs there are, in the order of the table's rows."""
    return ("constant", *FITTED, "own", "trained", "minimax", "random_labels")


def compare_one(config: CompareConfig, gate: str, seed: int, folder: Path, position: int = 0) -> list[Row]:
    """All rows of one task and one seed."""
    task = config.make_task(gate)
    generator = torch.Generator().manual_seed(derive_seed(seed, "pairs"))
    chosen = torch.randperm(task.n_outputs, generator=generator)[: config.minimax_pairs].sort().values
    bench = Bench(config, task, task.subset(chosen), seed, folder / f"{task.name}-seed-{seed}", position)
    trained: nn.Module | None = None
    rows: list[Row] = []
    for name in config.rows():
        readoffs = config.readoffs_of(name, task)
        if not readoffs and not (name == "trained" and set(CONTROLS) & set(config.rows())):
            continue
        if name in CONTROLS:
            assert trained is not None  # `rows` has it before its controls
            layer = control(CONTROLS[name], trained, derive_seed(seed, "frozen layer"))
        elif name == "trained":
            layer = first_layer(config, config.layer, task, seed, trainable=True)
        else:
            layer = first_layer(config, name, task, seed, trainable=False).to(config.device)
        layer, found = bench.trained(name, layer, "trained" in readoffs)
        trained = layer if name == "trained" else trained
        for readoff in readoffs:
            if readoff == "trained":
                rows += found
            elif readoff == "minimax":
                rows.append(bench.minimax(name, layer))
            elif readoff == "random_labels":
                rows.append(bench.random_labels(name, layer))
            else:
                rows.append(bench.fitted(name, readoff, layer, functools.partial(_fitted, bench, name, readoff, layer)))
    return rows


def _fitted(bench: Bench, name: str, readoff: str, layer: nn.Module) -> LinearReadoff:
    config, task = bench.config, bench.task
    assert isinstance(config, CompareConfig)
    if readoff == "constant":
        return LinearReadoff.constant(task.n_outputs, layer_width(layer, config.m), 0.5).to(config.device)
    if readoff == "own":
        construction, request = CONSTRUCTIONS[name], config.request(task, derive_seed(bench.seed, "frozen layer"))
        # Made for features with axes of their own, embedded or not: it does not know of the frame's interference.
        return construction.readoff(request, construction.build(request)).to(config.device)
    return FITTED[readoff](config, layer, task, bench.inputs(task, "fit"))


def control(make: Callable[[FirstLayer, int], FirstLayer], trained: nn.Module, seed: int) -> nn.Module:
    """A control made from a trained layer; with embedded features, from the layer behind the same frame."""
    layer = inner(trained)
    if not isinstance(layer, FirstLayer):
        raise InputError(
            "controls are made from the weights of a trained FirstLayer: leave them out for layers of your own"
        )
    made = make(layer, seed)
    return Embedded(trained.frame, made) if isinstance(trained, Embedded) else made


def analytic_applies(config: CompareConfig, layer: str) -> bool:
    """The analytic readoff holds for a Gaussian ReLU layer without bias, of features with axes of their own."""
    return layer == "gaussian" and (config.activation, config.layer_bias, config.d0) == ("relu", 0, None)


def _ratios(frozen: Sequence[np.ndarray], trained: Sequence[np.ndarray]) -> dict[str, Any]:
    """Ratios of worst errors, each seed's and each pair's; None where the trained layer reads a target exactly."""
    names = ("ratio", "ratio_interval", "ratio_by_seed", "pair_ratio_mean", "pair_ratio_min", "pair_ratio_max")
    # What a certificate proves is proved to 1e-6: below, a ratio would compare rounding errors.
    if min(t.min() for t in trained) <= 1e-6:
        return dict.fromkeys((*names, "pair_ratio_quartiles"))
    ratios = [float(f.max() / t.max()) for f, t in zip(frozen, trained, strict=True)]
    by_pair = np.concatenate([f / t for f, t in zip(frozen, trained, strict=True)])
    figures = (*mean_interval(ratios), ratios, float(by_pair.mean()), float(by_pair.min()), float(by_pair.max()))
    return {
        **dict(zip(names, figures, strict=True)),
        "pair_ratio_quartiles": np.quantile(by_pair, [0.25, 0.75]).tolist(),
    }


def notes(config: CompareConfig) -> list[str]:
    """What a reader of the table should know of this configuration."""
    lines = []
    frozen = [name for name in config.rows() if name not in ("identity", "trained")]
    if "analytic" in config.readoffs and frozen:
        if not any(analytic_applies(config, name) for name in frozen):
            lines.append("The analytic readoff is left out: it holds for a Gaussian ReLU layer without bias only.")
        elif config.inputs != "exactly":
            lines.append(
                f"The analytic readoff is made for exactly {max(2, round(config.s))} active features; on inputs with "
                "another number it is biased, by design."
            )
    own = [name for name in frozen if name in CONSTRUCTIONS]
    if "own" in config.readoffs and own:
        lines.append(
            f"own: the construction's readoff, made for exactly {max(2, round(config.s))} active features: "
            + "; ".join(f"{name}: {CONSTRUCTIONS[name].source}" for name in own)
            + "."
        )
    if "random_labels" in config.readoffs:
        lines.append(
            "random_labels: minimax readoffs of labels as sparse as the targets, in random order over inputs of equal size; "
            "errors are against these labels."
            + (" With at most 2 active, such a label is the AND of another pair." if config.s <= 2 else "")
        )
    return lines + [f"The construction {name} is left out: {why}." for name, why in config.left_out().items()]


def aggregate(rows: Sequence[Row]) -> list[Row]:
    """One row per (task, layer, readoff): means over seeds, with the half-width of their 95 % t interval and each seed's figures.

    `proved` says whether the certificates of every seed hold; `seconds` is the mean.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["layer"], row["readoff"]), []).append(row)
    table = []
    for members in groups.values():
        first = {key: value for key, value in members[0].items() if key not in ("seed", "evaluation", *FIGURES)}
        for figure in FIGURES:
            first[figure], first[f"{figure}_interval"] = mean_interval([row[figure] for row in members])
        if "proved" in first:
            first["proved"] = all(row["proved"] for row in members)
        first["seeds"] = [row["seed"] for row in members]
        first["by_seed"] = [{key: row[key] for key in ("seed", *FIGURES)} for row in members]
        table.append(first)
    return table


def genericity(rows: Sequence[Row], frozen_layer: str) -> dict[str, Any]:
    """For each task, worst errors of the frozen layer over those of the trained one, both by minimax readoffs.

    Per seed the ratio of the two worst errors over all sampled pairs, and the ratios pair by pair (the same pairs).
    """
    answer = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        worst = {
            (row["layer"], row["seed"]): np.array(row["evaluation"]["output_worst"])
            for row in rows
            if row["task"] == task and row["readoff"] == "minimax"
        }
        seeds = [seed for layer, seed in worst if layer == "trained"]
        if not seeds or (frozen_layer, seeds[0]) not in worst:
            continue
        frozen, trained = ([worst[layer, seed] for seed in seeds] for layer in (frozen_layer, "trained"))
        answer[task] = {
            "frozen_mean": float(np.mean(frozen)),
            "frozen_worst": float(np.mean([f.max() for f in frozen])),
            "trained_mean": float(np.mean(trained)),
            "trained_worst": float(np.mean([t.max() for t in trained])),
            "pairs": len(trained[0]),
            "seeds": seeds,
            **_ratios(frozen, trained),
        }
    return answer


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """The figures by which sweeps compare runs: {"and/trained/minimax": {"worst_error": …}, …, "genericity": {"and": …}}."""
    rows = {f"{row['task']}/{row['layer']}/{row['readoff']}": {k: row[k] for k in FIGURES} for row in result["rows"]}
    return {**rows, "genericity": {task: answer["ratio"] for task, answer in result["genericity"].items()}}


def run_compare(config: CompareConfig) -> Path:
    """Do the comparison, or go on with it; returns the folder of its record.

    Raises InputError for a device that is not there, a readoff that cannot be found on these inputs or a folder that
    holds another run, each before anything is written; Interrupted on Ctrl-C.
    """
    check_device(config.device)
    for gate in config.task:
        config.check_inputs(config.features(), config.make_task(gate))
    check_mirror(config.wandb)
    folder = open_record("compare", config, config.out)
    with locked(folder), Mirror(config, "compare", folder) as mirror:
        jobs = [(config, gate, seed, folder) for seed in config.seeds for gate in config.task]
        rows = [row for rows in run_jobs(compare_one, jobs, config.threads) for row in rows]
        rows.sort(key=lambda row: [Gate.parse(gate).name for gate in config.task].index(row["task"]))
        table = aggregate(rows)
        answers = genericity(rows, config.frozen_layer)
        result = {"rows": table, "genericity": answers, "notes": notes(config)}
        figures = draw_comparison(rows, config, folder) if config.figures else []
        write_json(folder / "results.json", result)
        if config.json is not None:
            write_json(config.json, result)
        for path in sorted(folder.glob("*-seed-*/*-training/metrics.jsonl")):
            mirror.history(f"{path.parent.parent.name}/{path.parent.name}", read_metrics(path))
        columns = ("task", "layer", "readoff", *FIGURES)
        mirror.table([{column: row[column] for column in columns} for row in table])
        mirror.summary(summary(result))
        for path in figures:
            mirror.figure(path)
    return folder
