"""The bench of dictionary learning: what do sparse autoencoders find, and does the network still work through them?"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from toymodels.errors import InputError, check_different, check_positive, check_whole
from toymodels.experiments.registry import EXPERIMENTS, Result, Row
from toymodels.experiments.settings import NetworkSettings, nothing_trained
from toymodels.given import conform
from toymodels.parallel.progress import tell_if_slow
from toymodels.registry import Lazy, load_plugins
from toymodels.runs.identity import network_identity
from toymodels.runs.settings import evaluation_inputs
from toymodels.runs.storage import damaged

SCORES = (
    ("features_correlation", "features |r|"), ("features_recall", "found"), ("functions_correlation", "functions |r|"),
    ("functions_recall", "found "), ("precision", "precision"), ("l0", "L0"), ("explained", "explained"), ("dead", "dead"),
    ("ultra_rare", "rare"),
)  # fmt: skip
"""Columns of the first table, and their headings."""
COSTS = (
    ("clean_worst_error", "clean worst"), ("worst_error", "worst error"), ("clean_rms", "clean RMS"), ("rms", "RMS"),
    ("sensitivity_sae_error", "SAE error"), ("sensitivity_random", "random"), ("sensitivity_features", "features"),
    ("sensitivity_functions", "functions"), ("sensitivity_principal", "principal"), ("sensitivity_latents", "latents"),
)  # fmt: skip
"""Columns of the second table, and their headings."""
ABOUT = ("first_layer", "dictionary", "latents")
"""Columns that say what a row measures."""


@dataclass(frozen=True)
class DictionaryConfig(NetworkSettings):
    """Fit sparse dictionaries to the activations of networks whose features and functions are known, and score them.

    For each seed and first layer: a readoff, then each dictionary at each number of latents. A score says which true features and
    functions are found, and what is left of the network when the reconstruction replaces the activations.
    """

    m: int = 12
    """Number of features, at least 2."""
    d: int = 40
    """Width: neurons in the hidden layer, at least 1."""
    s: int | float = 3
    """Active features: their number (exactly, at_most) or expected number, 0 < s < m (independent, couples, unequal)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; each gives a result of its own."""
    task: str = "and"
    """The functions: gates on every pair, and_of(k=3) and other gates of k inputs, product, relu, …, or your own."""
    layers: tuple[str, ...] = ("gaussian", "bernoulli", "trained")
    """First layers: frozen, constructed and trained ones, or your own."""
    readoff: str = "minimax"
    """What reads the outputs: minimax, least_squares, balanced, trained (by the loss), or your own."""
    methods: tuple[str, ...] = ("neurons", "l1", "l1(l1=0.1)", "l1(l1=0.3)", "topk", "batch_topk")
    """Dictionaries, knobs in brackets: neurons (no dictionary), l1, topk, batch_topk, transcoder (reads what the layer reads, and
    reconstructs its activations), saelens (SAELens' own: standard, gated, …; see `toymodels[interp]`), or your own.
    l1(l1=0.1,tied=1) shares the weights of encoder and decoder; topk(k=3) keeps 3 latents."""
    latents: tuple[int, ...] = ()
    """Numbers of latents of a dictionary; default one for each feature and each function."""
    samples: int = 20_000
    """Sampled inputs on whose activations dictionaries are fitted."""
    threshold: float | int = 0.9
    """The |correlation| from which on a latent counts as a feature or function that is found."""

    def __post_init__(self) -> None:
        from toymodels.core.layers import LAYERS
        from toymodels.core.readoffs import READOFFS
        from toymodels.core.tasks import task_name
        from toymodels.ground_truth.dictionaries import check_dictionary

        conform(self)
        load_plugins(self.plugin)  # before the names below are looked up
        object.__setattr__(self, "task", task_name(self.task))
        names = [LAYERS.canonical(name) for name in self.layers]
        check_different("first layer", names, layers=self.layers)
        object.__setattr__(self, "layers", tuple(names))
        object.__setattr__(self, "readoff", READOFFS.canonical(self.readoff))
        super().__post_init__()
        if self.latents:
            check_whole(least=1, **{f"latents[{i}]": number for i, number in enumerate(self.latents)})
            check_different("number of latents", self.latents, latents=[str(number) for number in self.latents])
        else:
            object.__setattr__(self, "latents", (self.m + self.tasks()[0].n_outputs,))
        known = [check_dictionary(name, number) for number in self.latents for name in self.methods]
        check_different("method", known[: len(self.methods)], methods=self.methods)
        object.__setattr__(self, "methods", tuple(known[: len(self.methods)]))
        check_whole(least=1, samples=self.samples)
        check_positive(1, threshold=self.threshold)
        if self.device != "cpu":
            raise InputError(f"device {self.device}: dictionaries are fitted on the CPU, leave device at cpu")
        readoff = READOFFS.named(self.readoff)[0]
        self.check_trained(self.layers)
        (task,) = self.tasks()
        for name in self.layers:
            if not LAYERS.named(name)[0].fits(task):
                raise InputError(f"the first layer {name} is not for the task {task.name}: name another")
            if not readoff.kept or not readoff.applies(self.combination(name, task)):
                raise InputError(f"the readoff {self.readoff} is not for the first layer {name}: name another")

    def first_layers(self) -> tuple[str, ...]:
        """Return the names of all first layers that the run draws, including the initial layer of the trained one."""
        return self.drawn(self.layers)

    def idle(self) -> dict[str, str]:
        """Return the settings that have no effect under the others, each with the reason."""
        reasons = super().idle() | {"tolerances": "shares of outputs within a tolerance are no column of this table"}
        return reasons | nothing_trained(self.layers, [self.readoff])

    def task_names(self) -> tuple[str, ...]:
        """Return the name of the task."""
        return (self.task,)


def dictionary_seed(config: DictionaryConfig, seed: int, folder: Path, position: int = 0) -> list[Row]:
    """Make the rows of one seed; those in the record are read."""
    from toymodels.experiments.rows import RowMaker
    from toymodels.ground_truth.dictionaries import DICTIONARIES
    from toymodels.runs.record import load_network, write_row

    task, run = config.make_task(config.task, seed), network_identity(config, seed)
    maker = RowMaker(config, task, task, seed, folder / f"{task.name}-seed-{seed}", position)
    rows = []
    for layer in config.layers:
        maker.row(layer, config.readoff)
        network = load_network(maker.path(layer, config.readoff).with_suffix(".safetensors"))[0]
        measured = Lazy(functools.partial(_measured, config, network, task, seed))
        for number in config.latents:
            for method in config.methods:
                if number != config.latents[0] and "latents" not in DICTIONARIES.named(method)[0].parameters:
                    continue  # it has a number of its own
                path = maker.folder / f"{layer}-{method}-{number}.json"
                about = {
                    "task": task.name,
                    "first_layer": layer,
                    "readoff": config.readoff,
                    "dictionary": method,
                    "seed": seed,
                }
                if path.exists():
                    rows.append(_read(path, run, about))
                    continue
                label = maker.label(f"{layer}: {method} with {number} latents")
                row = {**about, **_scores(config, measured.make(), method, number, seed, label)}
                write_row(path, run, row)
                rows.append(row)
    return rows


def _read(path: Path, run: Mapping[str, Any], about: Mapping[str, Any]) -> Row:
    """Read a row of the record. Raises InputError if it is damaged, another run's, or lacks a number."""
    from toymodels.runs.record import read_own_row

    known = [name for name, _ in (*SCORES, *COSTS)]
    row = read_own_row(path, run, about, [*known, "latents", "covered"])
    for name in known:
        value = row[name]
        real = isinstance(value, int | float | None) and not isinstance(value, bool)
        if not real or ((value or 0) < 0 and name != "explained"):  # no other number may be below 0
            raise damaged(path, f"{name} is {value!r}", advice="delete it, and the same command makes it again")
    return row


class _Layer(NamedTuple):
    """What all dictionaries of one layer are fitted to, and measured by."""

    network: Any
    task: Any
    activations: Any
    read: Any
    """What the layer reads, a row for each row of activations."""
    inputs: Any
    vectors: Any
    """Directions of features and functions; None where `feature_vectors` finds none."""
    clean: Any
    """The evaluation of the network without a dictionary."""


def _measured(config: DictionaryConfig, network: Any, task: Any, seed: int) -> _Layer:
    import torch

    from toymodels.core.evaluation import evaluate
    from toymodels.core.seeds import derive_seed
    from toymodels.ground_truth.samples import feature_vectors
    from toymodels.ground_truth.scores import layer_reads

    features = config.features()
    with torch.no_grad():
        x = features.sampled(config.samples, derive_seed(seed, "fit")).dense()
        activations, read = network.layer(x), layer_reads(network.layer, x)
    inputs = evaluation_inputs(features, task, config.eval_inputs, seed, "cpu")
    try:
        vectors = feature_vectors(network, task, features)
    except InputError:  # a layer of another form than linear and activation, or one that is too large
        vectors = None
    return _Layer(network, task, activations, read, inputs, vectors, evaluate(network, task, inputs))


def _scores(config: DictionaryConfig, layer: _Layer, method: str, number: int, seed: int, label: str) -> Row:
    from toymodels.core.seeds import derive_seed
    from toymodels.ground_truth.dictionaries import fit_dictionary
    from toymodels.ground_truth.perturbations import sensitivities
    from toymodels.ground_truth.scores import score

    started = time.perf_counter()
    with tell_if_slow(label):
        fitted = fit_dictionary(method, layer.activations, number, derive_seed(seed, "dictionary"), layer.read)
        seconds = time.perf_counter() - started
        scores = score(fitted, layer.network, layer.task, layer.inputs, config.threshold, layer.clean)
        moves: dict[str, float | None] = {name: None for name, _ in COSTS if name.startswith("sensitivity_")}
        if layer.vectors is not None:
            moves = sensitivities(fitted, layer.network, layer.vectors, layer.inputs, derive_seed(seed, "dictionary"))
    about = {"covered": layer.inputs.description, "seconds": seconds}
    return {**scores, "latents": int(scores["latents"]), **moves, **about}


def text(content: Mapping[str, Any]) -> str:
    """Write the tables of a run: what is found, and what it costs; means over seeds with 95 % t intervals."""
    from toymodels.runs.text import grouped, mean_cell, render

    rows = content["rows"]
    groups = grouped(rows, lambda row: tuple(str(row[name]) for name in ABOUT))
    tables = []
    for columns in (SCORES, COSTS):
        lines = [
            [*about, *(mean_cell(members, name, ".3f") for name, _ in columns)] for about, members in groups.items()
        ]
        header = ["layer", "dictionary", "latents", *(heading.strip() for _, heading in columns)]
        tables.append(render(header, lines, right=range(2, len(header))))
    seeds = sorted({row["seed"] for row in rows})
    threshold = rows[0]["threshold"]
    return "\n\n".join([
        f"U-{rows[0]['task'].upper()}, readoff {rows[0]['readoff']}, inputs: {rows[0]['covered']}, {len(seeds)} seeds (means"
        + (" ± 95 % t interval" if len(seeds) > 1 else "") + ")",
        *tables,
        f"|r|: mean |correlation| after optimal assignment; found: share with |r| ≥ {threshold:g}; precision: found features\n"
        "and functions over live latents; L0: active latents; explained: share of variance; dead, rare: shares of latents never\n"
        "active, and active with less than a tenth of the rarest function's probability. Errors of the outputs without (clean)\n"
        "and with the reconstruction in place of the activations. Last six columns: RMS change of an output per length of a\n"
        "move as long as the dictionary's error, along the error, a random direction, a feature, a function, the first\n"
        "principal component, and active latents changed by random shares.",
    ])  # fmt: skip


def _check(config: DictionaryConfig) -> None:
    from toymodels.core.minimax import check_minimax
    from toymodels.core.readoffs import READOFFS
    from toymodels.experiments.build import check_run

    check_run(config)
    if READOFFS.named(config.readoff)[0].needs == "every input":
        check_minimax(config.features())


_MEASURES = ("features_precision", "functions_precision", "split", "absorbed", *(name for name, _ in (*SCORES, *COSTS)))


@EXPERIMENTS("dictionary", order=2, config=DictionaryConfig, check=_check, text=text, measures=_MEASURES)
def dictionary(config: DictionaryConfig, folder: Path, report: Callable[..., None]) -> Result:
    """Fit sparse dictionaries to activations, and score them against the true features and functions."""
    from toymodels.parallel.processes import run_jobs

    rows = run_jobs(dictionary_seed, [(config, seed, folder) for seed in config.seeds], config.threads)
    return Result([row for part in rows for row in part])
