"""The genericity experiment: trained, frozen random and no first layer, each through every readoff, in one table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from toymodels.config import check_device, cover, derive_seed
from toymodels.errors import InputError
from toymodels.evaluation import evaluate
from toymodels.experiments.settings import NetworkSettings
from toymodels.experiments.train import first_layer, headline, train_network
from toymodels.features import Inputs
from toymodels.gates import Gate
from toymodels.jobs import bars, run_jobs
from toymodels.layers import make_layer
from toymodels.network import Network
from toymodels.plots import draw_comparison
from toymodels.readoffs.analytic import analytic
from toymodels.readoffs.least_squares import balanced, least_squares
from toymodels.readoffs.linear import LinearReadoff
from toymodels.readoffs.minimax import Minimax, check_minimax, minimax
from toymodels.record import locked, open_record, read_metrics, save_network
from toymodels.statistics import mean_interval
from toymodels.storage import check_writable, read_json, write_json
from toymodels.tasks import PairTask
from toymodels.tracking import Mirror, check_mirror

READOFFS = ("constant", "analytic", "least_squares", "balanced", "trained", "minimax")


@dataclass(frozen=True)
class CompareConfig(NetworkSettings):
    """The genericity experiment: are the gates as readable from a random first layer as from a trained one?

    For each task and seed: predict a constant; the affine readoff of the inputs; a frozen random layer with analytic,
    least-squares, L_p-trained and minimax readoffs; a trained layer with its own readoff and with the minimax readoff.
    """

    task: tuple[str, ...] = ("and", "xor")
    """Gates on every pair, each with a table and a figure of its own."""
    readoffs: tuple[str, ...] = READOFFS
    """Which readoffs to compare: constant analytic least_squares balanced trained minimax."""
    minimax_pairs: int = 2000
    """Minimax readoffs are found for all pairs, or a random sample of this many if there are more (a linear program each)."""
    frozen_layer: str = "gaussian"
    """The random first layer that stays frozen: gaussian, kaiming, or one of your own."""
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
        known = dict.fromkeys((*READOFFS, *FITTED))
        unknown = [name for name in self.readoffs if name not in known]
        if unknown or not self.readoffs:
            raise InputError(f"unknown readoff {', '.join(unknown) or '(none)'}: choose from {', '.join(known)}")
        if self.frozen_layer in ("identity", "trained"):
            raise InputError(
                f"frozen_layer {self.frozen_layer} is the name of another row of the table: name a random layer"
            )
        if set(self.readoffs) == {"analytic"} and not analytic_applies(self):
            raise InputError(
                "the analytic readoff holds for a Gaussian ReLU layer without bias only: name another readoff"
            )
        if self.json is not None:
            check_writable(self.json)
        if self.minimax_pairs < 1:
            raise InputError(f"minimax_pairs = {self.minimax_pairs}: it must be at least 1")
        if "minimax" in self.readoffs:
            check_minimax(self.features())

    def first_layers(self) -> tuple[str, ...]:
        """The names of all first layers that the run draws."""
        return (self.layer, self.frozen_layer)


Fit = Callable[[CompareConfig, nn.Module, PairTask, Inputs], LinearReadoff]

FITTED: dict[str, Fit] = {
    # Made for exactly s active features (2 at least: a pair); on fewer it is biased.
    "analytic": lambda config, layer, task, inputs: analytic(layer, task, max(2, round(config.s))),
    "least_squares": lambda config, layer, task, inputs: least_squares(layer, task, inputs),
    "balanced": lambda config, layer, task, inputs: balanced(layer, task, config.features(), inputs),
}
"""Readoffs of the frozen layer by name. Add your own, and name it in `readoffs`, to set it beside the others."""


@dataclass(frozen=True)
class _Bench:
    """One task and seed of a comparison: what its rows share."""

    config: CompareConfig
    task: PairTask
    sample: PairTask
    """The pairs that minimax readoffs are found for."""
    seed: int
    folder: Path
    position: int

    def inputs(self, task: PairTask, role: str = "evaluation") -> Inputs:
        config = self.config
        return cover(config.features(), task, config.eval_inputs, self.seed, config.device, role)

    def row(
        self, layer: str, readoff: str, make: Callable[[], tuple[Network, PairTask, dict[str, Any]]]
    ) -> dict[str, Any]:
        """One row of the table: made and measured now, or read from the record. `make` may state its own seconds."""
        path = self.folder / f"{layer}-{readoff}.json"
        if path.exists():
            return read_json(path, ("task", "layer", "readoff", "seed", "evaluation", *FIGURES))
        started = time.perf_counter()
        network, task, extra = make()
        seconds = extra.pop("seconds", None) or time.perf_counter() - started
        tensors = {key: extra.pop(key) for key in list(extra) if isinstance(extra[key], Tensor)}
        evaluation = evaluate(network, task, self.inputs(task)).to_dict()
        save_network(path.with_suffix(".safetensors"), network, task, tensors)
        row = {
            "task": self.task.name,
            "layer": layer,
            "readoff": readoff,
            "seed": self.seed,
            **headline(evaluation),
            "all_pairs": self.task.n_outputs,
            "seconds": seconds,
            **extra,
            "evaluation": evaluation,
        }
        write_json(path, row)
        return row

    def fitted_row(self, name: str, layer: nn.Module, fit: Fit) -> dict[str, Any]:
        """The frozen layer with a readoff fitted to it, or read off its weights."""

        def make() -> tuple[Network, PairTask, dict[str, Any]]:
            return Network(layer, fit(self.config, layer, self.task, self.inputs(self.task, "fit"))), self.task, {}

        return self.row(self.config.frozen_layer, name, make)

    def minimax_row(self, layer_name: str, layer: nn.Module) -> dict[str, Any]:
        def make() -> tuple[Network, PairTask, dict[str, Any]]:
            inputs = self.config.features().enumerate(device=self.config.device)

            def progress(outputs: Iterable[int]) -> Iterable[int]:
                label = f"{self.task.name} seed {self.seed} {layer_name} minimax"
                place: dict[str, Any] = {"position": self.position, "leave": False, "disable": not bars()}
                return tqdm(outputs, desc=label, unit="pair", **place)

            # A lone job has all of torch's threads, one beside others a single one: as many processes are free to help.
            fitted = minimax(layer, self.sample, inputs, progress, processes=torch.get_num_threads())
            return Network(layer, fitted.readoff), self.sample, {"proved": fitted.proved, **certificate_tensors(fitted)}

        return self.row(layer_name, "minimax", make)

    def trained_rows(self, name: str, layer: nn.Module) -> list[dict[str, Any]]:
        """A layer with the readoff that is trained with it (or on it, if it is frozen), and with the minimax readoff."""
        rows, wanted = [], self.config.readoffs
        learns = any(parameter.requires_grad for parameter in layer.parameters())
        if "trained" in wanted or (learns and "minimax" in wanted):
            label = f"{self.task.name} seed {self.seed} {name}"
            where = self.folder / f"{name}-training"
            network, seconds = train_network(self.config, self.task, layer, self.seed, where, label, self.position)
            layer = network.layer
            if "trained" in wanted:
                rows.append(self.row(name, "trained", lambda: (network, self.task, {"seconds": seconds})))
        if "minimax" in wanted:
            rows.append(self.minimax_row(name, layer))
        return rows


def certificate_tensors(fitted: Minimax) -> dict[str, Tensor]:
    """Certificates as flat tensors: output i owns the entries offsets[i] … offsets[i+1] of rows and multipliers.

    `rows` number the inputs in the order of `SparseFeatures.enumerate`.
    """
    sizes = torch.tensor([0] + [len(c.rows) for c in fitted.certificates])
    return {
        "certificate_offsets": sizes.cumsum(0),
        "certificate_rows": torch.cat([torch.from_numpy(c.rows) for c in fitted.certificates]),
        "certificate_multipliers": torch.cat([torch.from_numpy(c.multipliers) for c in fitted.certificates]),
        "lower_bounds": torch.tensor([c.lower_bound for c in fitted.certificates], dtype=torch.float64),
    }


def compare_one(config: CompareConfig, gate: str, seed: int, folder: Path, position: int = 0) -> list[dict[str, Any]]:
    """All rows of one task and one seed."""
    task = config.make_task(gate)
    generator = torch.Generator().manual_seed(derive_seed(seed, "pairs"))
    chosen = torch.randperm(task.n_outputs, generator=generator)[: config.minimax_pairs].sort().values
    bench = _Bench(config, task, task.subset(chosen), seed, folder / f"{task.name}-seed-{seed}", position)
    wanted = config.readoffs
    rows = []
    identity = make_layer("identity", config.m, config.d, seed)
    if "constant" in wanted:
        half = LinearReadoff.constant(task.n_outputs, config.m, 0.5).to(config.device)
        rows.append(bench.row("identity", "constant", lambda: (Network(identity, half), task, {})))
    if "minimax" in wanted:
        rows.append(bench.minimax_row("identity", identity))
    frozen = first_layer(config, config.frozen_layer, seed, trainable=False).to(config.device)
    for name, fit in FITTED.items():
        if name in wanted and (name != "analytic" or analytic_applies(config)):
            rows.append(bench.fitted_row(name, frozen, fit))
    rows += bench.trained_rows(config.frozen_layer, frozen)
    rows += bench.trained_rows("trained", first_layer(config, config.layer, seed, trainable=True))
    return rows


def analytic_applies(config: CompareConfig) -> bool:
    """The analytic readoff holds for a Gaussian ReLU layer without bias and at least 2 active features."""
    return config.frozen_layer == "gaussian" and config.activation == "relu" and config.layer_bias == 0


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
    if "analytic" in config.readoffs:
        if not analytic_applies(config):
            lines.append("The analytic readoff is left out: it holds for a Gaussian ReLU layer without bias only.")
        elif config.inputs != "exactly":
            lines.append(
                f"The analytic readoff is made for exactly {max(2, round(config.s))} active features; on inputs with "
                "another number it is biased, by design."
            )
    return lines


FIGURES = ("worst_error", "mean_worst_error", "rms_ones", "rms_zeros", "within_quarter", "seconds")
"""The numbers of a row."""


def aggregate(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per (task, layer, readoff): means over seeds, with the half-width of their 95 % t interval and each seed's figures.

    `proved` says whether the certificates of every seed hold; `seconds` is the mean.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
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


def genericity(rows: Sequence[dict[str, Any]], frozen_layer: str) -> dict[str, Any]:
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
