"""The genericity experiment: trained, frozen random and no first layer, each through every readoff, in one table."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from toymodels.core.features import Inputs
from toymodels.core.layers import Embedded, FirstLayer, inner
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.experiments.bench import FIGURES, Bench, Row
from toymodels.experiments.genericity import aggregate, genericity, summary
from toymodels.experiments.settings import NetworkSettings, check_layer
from toymodels.experiments.train import first_layer, layer_width
from toymodels.fast.least_squares import balanced, least_squares
from toymodels.fast.minimax import check_minimax
from toymodels.layers import CONSTRUCTIONS
from toymodels.layers.null_models import CONTROLS
from toymodels.parallel.processes import run_jobs
from toymodels.readoffs.analytic import analytic
from toymodels.readoffs.by_class import fitted_class_readoff
from toymodels.runs.config import check_device, derive_seed
from toymodels.runs.record import locked, open_record, read_metrics
from toymodels.runs.storage import check_writable, write_json
from toymodels.runs.tracking import Mirror, check_mirror
from toymodels.theory.gates import Gate

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
    """Which to compare: constant (1/2, for no layer), analytic (Gaussian layers), least_squares, balanced (by input case), own
    (a construction's), by_class (five numbers for all pairs), trained (by the loss), minimax (the best there is, certified),
    random_labels (minimax of labels without structure). Trained layers and no layer get those that say something there."""
    minimax_pairs: int = 2000
    """Minimax readoffs are found for all pairs, or a random sample of this many if there are more (a linear program each)."""
    frozen_layer: str = "gaussian"
    """The random first layer that stays frozen, over which the genericity ratio is taken: gaussian, kaiming, one of
    your own, or a construction."""
    layers: tuple[str, ...] | None = None
    """First layers, a row each for every readoff: identity, trained, gaussian, kaiming, your own, constructions (bernoulli
    ternary rademacher targeted quadratic four_class), controls made from the trained one (gaussian_like
    spectrum_matched shuffled shuffled_within), or all. Default: identity, frozen_layer and trained."""
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
        if len(set(self.readoffs)) < len(self.readoffs):
            raise InputError(f"readoffs names one twice ({', '.join(self.readoffs)}): name each once")
        if self.frozen_layer in ("identity", "trained"):
            raise InputError(
                f"frozen_layer {self.frozen_layer} is the name of another row of the table: name a random layer"
            )
        self._check_layers()
        if self.json is not None:
            check_writable(self.json)
        if self.minimax_pairs < 1:
            raise InputError(f"minimax_pairs = {self.minimax_pairs}: it must be at least 1")
        if {"minimax", "random_labels"} & set(self.readoffs):
            check_minimax(self.features())

    def first_layers(self) -> tuple[str, ...]:
        """The names of all first layers that the run draws, the start of the trained one among them."""
        names = [self.layer if name == "trained" else name for name in self.rows()]
        return tuple(dict.fromkeys(name for name in names if name != "identity" and name not in CONTROLS))

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
                construction.check(self.m, self.d, None)
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
        names = self.rows()
        check_layer(self.frozen_layer)
        if self.layers is not None:
            if not self.layers:
                raise InputError("layers is empty: name at least one first layer, or leave it out")
            if len(set(self.layers)) < len(self.layers):
                raise InputError(f"layers names one twice ({', '.join(self.layers)}): name each once")
            lacking = [name for name in names if name in CONTROLS]
            if lacking and "trained" not in names:
                raise InputError(
                    f"the control {lacking[0]} is made from the trained layer: name trained in layers, too"
                )
            # What is set, but has no row, would change nothing but the run's identity.
            if self.frozen_layer != "gaussian" and self.frozen_layer not in names:
                raise InputError(f"frozen_layer {self.frozen_layer} is not among layers: name it there, too")
            if self.layer != "gaussian" and "trained" not in names:
                raise InputError(f"layer {self.layer} is where the trained layer starts: name trained in layers, too")
        if self.layer == "identity" and "trained" in names:
            raise InputError("layer identity has nothing to train: its rows are those of the layer identity")
        tasks = [self.make_task(gate) for gate in self.task]
        if not any(self.readoffs_of(name, task) for name in names for task in tasks):
            gates = " or ".join(task.name for task in tasks)
            raise InputError(
                f"no first layer of this comparison ({', '.join(names)}) has a readoff {' or '.join(self.readoffs)} of {gates}: "
                "name another readoff or first layer (analytic: a gaussian ReLU layer without bias or embedding; own: a "
                "construction; by_class: no embedding; constant: identity)"
            )


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


def notes(config: CompareConfig) -> list[str]:
    """What a reader of the table should know of this configuration."""
    count = max(2, round(config.s))
    other = "" if config.inputs == "exactly" else "; on inputs with another number it is biased, by design"
    frozen = [name for name in config.rows() if name not in ("identity", "trained")]
    lines = []
    if "analytic" in config.readoffs and frozen:
        if any(analytic_applies(config, name) for name in frozen):
            lines.append(f"The analytic readoff is made for exactly {count} active features{other}." if other else "")
        else:
            lines.append(
                "The analytic readoff is left out: it holds for a Gaussian ReLU layer without bias only, of features with an "
                "axis each."
            )
    tasks = [config.make_task(gate) for gate in config.task]
    made = [name for name in frozen if name in CONSTRUCTIONS]
    if "own" in config.readoffs and made:
        own = [name for name in made if any(CONSTRUCTIONS[name].reads(task) for task in tasks)]
        lines.append(
            f"own: the construction's readoff, made for exactly {count} active features{other}"
            + (", and for features with an axis each" if config.d0 is not None else "")
            + ": "
            + "; ".join(f"{name}: {CONSTRUCTIONS[name].source}" for name in own)
            + "."
        )
        for task in tasks:
            none = [name for name in made if not CONSTRUCTIONS[name].reads(task)]
            if none:
                lines.append(f"Without a readoff of their own for {task.name}: {', '.join(none)}.")
    if "by_class" in config.readoffs and config.d0 is not None:
        lines.append("by_class is left out: behind an embedding a weight is not one on a feature.")
    lines += _built(config, made)
    if "random_labels" in config.readoffs:
        lines.append(
            "random_labels: minimax readoffs of labels as sparse as the targets, in random order over inputs of equal size; "
            "errors are against these labels."
        )
        if "and" in [task.name for task in tasks] and config.s == 2 and config.inputs != "independent":
            lines.append("With at most 2 active, a random label of an AND is the AND of another pair.")
    if "minimax" in config.readoffs and "trained" in config.rows() and config.frozen_layer not in config.rows():
        lines.append(f"No ratio of genericity: the frozen layer, {config.frozen_layer}, is not among layers.")
    lines += [f"The construction {name} is left out: {why}." for name, why in config.left_out().items()]
    return [line for line in lines if line]


def _built(config: CompareConfig, names: Sequence[str]) -> list[str]:
    """What was chosen for the constructions, and which of them are one and the same layer here."""
    lines, seen = [], dict[str, FirstLayer]()
    for task in (config.make_task(gate) for gate in config.task):
        layers = {name: CONSTRUCTIONS[name].build(config.request(task, 0)) for name in names}
        for name, layer in layers.items():
            twin = next((other for other, one in seen.items() if other != name and _equal(one, layer)), None)
            if twin is not None:
                lines.append(f"For {task.name}, {name} is the same layer as {twin}.")
            else:
                seen[name] = layer
            share_of = CONSTRUCTIONS[name].share
            if share_of is not None and config.layer_p is None:
                share = share_of(config.request(task, 0))
                lines.append(
                    f"{name}: p = {share:.3g}, the best one for AND at exactly {max(2, round(config.s))} active."
                )
    return list(dict.fromkeys(lines))


def _equal(one: FirstLayer, other: FirstLayer) -> bool:
    return one.activation == other.activation and all(
        torch.equal(a, b) for a, b in ((one.weight, other.weight), (one.bias, other.bias))
    )


def run_compare(config: CompareConfig) -> Path:
    """Do the comparison, or go on with it; returns the folder of its record.

    Raises InputError for a device that is not there, a readoff that cannot be found on these inputs or a folder that
    holds another run, each before anything is written; Interrupted on Ctrl-C.
    """
    from toymodels.figures.draw import draw_run

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
        figures = [path for path in draw_run(folder) if path.suffix == ".png"] if config.figures else []
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
