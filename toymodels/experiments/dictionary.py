"""The bench of dictionary learning: what do sparse autoencoders find, and does the network still work through them?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toymodels.errors import InputError, NoEffectError, check_different, check_positive, check_whole
from toymodels.experiments.registry import EXPERIMENTS, Result, Row
from toymodels.experiments.settings import NetworkSettings, nothing_trained
from toymodels.given import conform
from toymodels.registry import deferred

SCORES = (
    ("features_correlation", "features |r|"), ("features_recall", "found"), ("functions_correlation", "functions |r|"),
    ("functions_recall", "found "), ("precision", "precision"), ("l0", "L0"), ("explained", "explained"), ("dead", "dead"),
    ("ultra_rare", "rare"),
)  # fmt: skip
"""Columns of the first table, and their headings."""
COSTS = (
    ("clean_worst_error", "clean worst"), ("worst_error", "worst error"), ("clean_rms", "clean RMS"), ("rms", "RMS"),
    ("sensitivity_sae_error", "SAE error"), ("sensitivity_random", "random"), ("sensitivity_features", "features"),
    ("sensitivity_functions", "functions"), ("sensitivity_principal", "principal"),
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
    """Dictionaries, knobs in brackets: neurons (no dictionary), l1, topk, batch_topk, or your own. l1(l1=0.1,tied=1) shares
    the weights of encoder and decoder; topk(k=3) keeps 3 latents."""
    latents: tuple[int, ...] = ()
    """Numbers of latents of a dictionary; default one for each feature and each function."""
    samples: int = 20_000
    """Sampled inputs on whose activations dictionaries are fitted."""
    threshold: float | int = 0.9
    """The |correlation| from which on a latent counts as a feature or function that is found."""

    def __post_init__(self) -> None:
        from toymodels.core.layers import LAYERS
        from toymodels.core.readoffs import READOFFS, Combination
        from toymodels.core.tasks import task_name
        from toymodels.ground_truth.dictionaries import check_dictionary
        from toymodels.registry import load_plugins

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
        roles = {name: LAYERS.named(name)[0].role for name in self.layers}
        null = [name for name, role in roles.items() if role == "null"]
        if null and "trained" not in roles.values():
            raise InputError(f"the null model {null[0]} is made from the trained layer: add trained to layers")
        if self.layer != "gaussian" and "trained" not in roles.values():
            raise NoEffectError(f"layer {self.layer} is where the trained layer starts: name trained in layers, too")
        for name in self.layers:
            member, knobs = LAYERS.named(name, self.knobs)
            for task in self.tasks():
                if not member.fits(task):
                    raise InputError(f"the first layer {name} is not for the task {task.name}: name another")
                forms = member.aside(member.closed_forms, self.offered(member, task, 0), knobs) or frozenset()
                if not readoff.kept or not readoff.applies(Combination(member, task, forms, self.d0 is not None)):
                    raise InputError(f"the readoff {self.readoff} is not for the first layer {name}: name another")

    def first_layers(self) -> tuple[str, ...]:
        """Return the names of all first layers that the run draws, including the initial layer of the trained one."""
        from toymodels.core.layers import LAYERS

        roles = {name: LAYERS.named(name)[0].role for name in self.layers}
        drawn = {name: role for name, role in roles.items() if role not in ("none", "null")}
        return tuple(dict.fromkeys(self.layer if role == "trained" else name for name, role in drawn.items()))

    def task_names(self) -> tuple[str, ...]:
        """Return the name of the task."""
        return (self.task,)

    def idle(self) -> dict[str, str]:
        """Return the settings that have no effect under the others, each with the reason."""
        from toymodels.core.layers import LAYERS
        from toymodels.core.readoffs import READOFFS

        learned = "trained_readoff" in READOFFS.named(self.readoff)[0].parameters
        if learned or any(LAYERS.named(name)[0].role == "trained" for name in self.layers):
            return super().idle()
        return super().idle() | nothing_trained()


def dictionary_seed(config: DictionaryConfig, seed: int, folder: Path, position: int = 0) -> list[Row]:
    """Make the rows of one seed; those in the record are read."""
    from toymodels.core.seeds import derive_seed
    from toymodels.experiments.rows import RowMaker
    from toymodels.ground_truth.dictionaries import DICTIONARIES
    from toymodels.runs.identity import difference, network_identity
    from toymodels.runs.record import load_network
    from toymodels.runs.storage import damaged, read_json, write_results

    task, run = config.make_task(config.task, seed), network_identity(config, seed)
    maker = RowMaker(config, task, task, seed, folder / f"{task.name}-seed-{seed}", position)
    activations = config.features().sampled(config.samples, derive_seed(seed, "fit"))
    rows = []
    for layer in config.layers:
        maker.row(layer, config.readoff)
        network = load_network(maker.path(layer, config.readoff).with_suffix(".safetensors"))[0]
        for number in config.latents:
            for method in config.methods:
                if number != config.latents[0] and "latents" not in DICTIONARIES.named(method)[0].parameters:
                    continue  # it has a number of its own
                path = maker.folder / f"{layer}-{method}-{number}.json"
                if path.exists():
                    kept = read_json(path, ("of", "row"), advice="delete it, and the same command makes it again")
                    other = difference(kept["of"], run) if isinstance(kept["of"], dict) else "it names no run"
                    if other or not isinstance(kept["row"], dict):
                        raise damaged(path, other, advice="delete it, and the same command makes it again")
                    rows.append(kept["row"])
                    continue
                row = _row(config, network, task, activations, layer, method, number, seed)
                write_results(path, {"row": row, "of": run})
                rows.append(row)
    return rows


def _row(
    config: DictionaryConfig, network: Any, task: Any, inputs: Any, layer: str, method: str, number: int, seed: int
) -> Row:
    import time

    import torch

    from toymodels.core.seeds import derive_seed
    from toymodels.ground_truth.dictionaries import fit_dictionary
    from toymodels.ground_truth.samples import feature_vectors
    from toymodels.ground_truth.scores import score, sensitivities
    from toymodels.parallel.progress import tell_if_slow
    from toymodels.runs.settings import evaluation_inputs

    features, started = config.features(), time.perf_counter()
    with tell_if_slow(f"{task.name} seed {seed} {layer}: {method} with {number} latents"):
        with torch.no_grad():
            activations = network.layer(inputs.dense())
        fitted = fit_dictionary(method, activations, number, derive_seed(seed, "dictionary"))
        seconds = time.perf_counter() - started
        measured = evaluation_inputs(features, task, config.eval_inputs, seed, "cpu")
        scores = score(fitted, network, task, measured, config.threshold)
        try:
            vectors = feature_vectors(network, task, features)
        except InputError:  # a layer of another form than linear and activation, or one that is too large
            moves: dict[str, float | None] = {name: None for name, _ in COSTS if name.startswith("sensitivity_")}
        else:
            moves = sensitivities(fitted, network, vectors, measured, derive_seed(seed, "dictionary"))
    return {
        "task": task.name, "first_layer": layer, "readoff": config.readoff, "dictionary": method, "seed": seed,
        **scores, "latents": int(scores["latents"]), **moves, "covered": measured.description, "seconds": seconds,
    }  # fmt: skip


def text(content: Mapping[str, Any]) -> str:
    """Write the tables of a run: what is found, and what it costs; means over seeds with 95 % t intervals."""
    from toymodels.runs.text import number, render
    from toymodels.theory.statistics import mean_interval

    rows = content["rows"]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in ABOUT), []).append(row)
    tables = []
    for columns in (SCORES, COSTS):
        lines = []
        for about, members in groups.items():
            cells = []
            for name, _ in columns:
                values = [row[name] for row in members if row.get(name) is not None]
                cells.append(number(*mean_interval(values), ".3f") if values else "-")
            lines.append([*map(str, about), *cells])
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
        "and with the reconstruction in place of the activations. Last five columns: RMS change of an output per length of a\n"
        "move as long as the dictionary's error, along the error, a random direction, a feature, a function, the first\n"
        "principal component.",
    ])  # fmt: skip


def _check(config: DictionaryConfig) -> None:
    from toymodels.core.minimax import check_minimax
    from toymodels.core.readoffs import READOFFS
    from toymodels.experiments.build import check_plugin_members

    config.check_inputs(config.features(), config.make_task(config.task))
    if READOFFS.named(config.readoff)[0].needs == "every input":
        check_minimax(config.features())
    check_plugin_members(config)


@EXPERIMENTS(
    "dictionary",
    order=2,
    config=DictionaryConfig,
    check=_check,
    text=deferred("experiments.dictionary", "text"),
    measures=("features_precision", "functions_precision", *(name for name, _ in (*SCORES, *COSTS))),
)
def dictionary(config: DictionaryConfig, folder: Path, report: Callable[..., None]) -> Result:
    """Fit sparse dictionaries to activations, and score them against the true features and functions."""
    from toymodels.parallel.processes import run_jobs

    rows = run_jobs(dictionary_seed, [(config, seed, folder) for seed in config.seeds], config.threads)
    return Result([row for part in rows for row in part])
