"""Train one network per seed and measure it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from toymodels.core.evaluation import evaluate
from toymodels.core.layers import Embedded, FirstLayer, behind, gaussian, inner, make_layer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask
from toymodels.core.training import Progress, Trainer, train
from toymodels.experiments.settings import NetworkSettings
from toymodels.layers import CONSTRUCTIONS
from toymodels.parallel.processes import bars, run_jobs
from toymodels.runs.config import check_device, cover, derive_seed
from toymodels.runs.record import Metrics, load_network, locked, open_record, read_metrics, save_network
from toymodels.runs.storage import read_json, write_json
from toymodels.runs.tracking import Mirror, check_mirror
from toymodels.theory.gates import Gate

STOP = "stop"
"""A file of this name in a run's folder ends its training before its last step: somebody has seen enough."""
_LOOK_SECONDS = 1.0
"""How often the metrics are written where others can see them, and STOP is looked for."""


@dataclass(frozen=True)
class TrainConfig(NetworkSettings):
    """Train a network on one task, for each seed, and measure its errors.

    The same command again goes on where a stopped or killed run left off, or shows a finished one.
    """

    task: str = "and"
    """Gate on every pair: and, xor, or, nand, … by name, or a truth table for the cases 00, 01, 10, 11 (0001 is AND)."""
    train_first: bool = True
    """Train the first layer; else it stays frozen as drawn and only the readoff learns."""

    def __post_init__(self) -> None:
        super().__post_init__()
        Gate.parse(self.task)


def train_network(
    config: NetworkSettings,
    task: PairTask,
    layer: nn.Module,
    seed: int,
    folder: Path,
    label: str,
    position: int = 0,
    report: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Network, float]:
    """(network, training seconds): trained now, continued from the folder's checkpoint, or read from a finished record.

    `layer` is where the first layer starts; if its parameters do not require gradients it stays as it is, and only
    the readoff learns. Writes metrics.jsonl, checkpoint.pt (gone when finished) and network.safetensors into the folder.
    Ends early where a file named STOP appears beside the folder.
    """
    done = folder / "network.safetensors"
    if done.exists():
        network, _, extra = load_network(done)
        return network.to(config.device), float(extra["seconds"])
    network = Network(layer, LinearReadoff.constant(task.n_outputs, layer_width(layer, config.m)))
    trainer = Trainer(network, task, config.features(), config, derive_seed(seed, "batches"), config.device)
    metrics = Metrics(folder / "metrics.jsonl")
    planned, looked = trainer.steps, time.monotonic()
    place: dict[str, Any] = {"position": position, "leave": False, "disable": not bars()}
    with tqdm(total=trainer.steps, desc=label, unit="step", **place) as bar:

        def show(progress: Progress) -> None:
            metrics.add(progress)
            shown = {"p": progress.p, "loss": progress.loss, "worst error": progress.worst_error}
            bar.set_postfix({key: f"{value:.4g}" for key, value in shown.items()}, refresh=False)
            bar.update(progress.step - bar.n)
            report(progress)
            nonlocal looked
            if time.monotonic() - looked > _LOOK_SECONDS:
                metrics.flush()
                if (folder.parent / STOP).exists():
                    trainer.steps = trainer.step  # the network is measured as it is now
                looked = time.monotonic()

        def restore(kept: dict[str, Any]) -> None:
            metrics.restore(kept)
            bar.update(trainer.step)

        train(trainer, folder / "checkpoint.pt", config.checkpoint_seconds, show, metrics.flush, restore)
    metrics.flush()
    learned = inner(layer)
    if isinstance(learned, FirstLayer) and learned.weight.requires_grad:
        learned.law = "trained"
    extra = {"seconds": torch.tensor(trainer.seconds, dtype=torch.float64)}
    if trainer.step < planned:
        extra["stopped_at"] = torch.tensor(trainer.step)
    save_network(done, network, task, extra)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return network, trainer.seconds


def first_layer(config: NetworkSettings, name: str, task: PairTask, seed: int, trainable: bool) -> nn.Module:
    """A fresh first layer, behind the features' frame if they are embedded.

    Frozen ones are drawn from a stream of their own, so none is the start of a trained one.
    """
    stream = derive_seed(seed, "trained layer" if trainable else "frozen layer")
    frame = config.make_frame(seed)
    seen = config.m if config.d0 is None else config.d0
    if name in CONSTRUCTIONS:
        made = CONSTRUCTIONS[name].build(config.request(task, stream))
        layer: nn.Module = made if frame is None else behind(frame, made)
        return layer.requires_grad_(trainable)
    if name == "gaussian":
        layer = gaussian(seen, config.d, stream, config.activation, config.layer_scale, config.layer_bias)
    else:
        layer = make_layer(name, seen, config.d, stream, config.activation)
    if not hasattr(layer, "law"):
        layer.law = name  # type: ignore[assignment]  # by which a record finds its constructor in LAYERS again
    return (layer if frame is None else Embedded(frame, layer)).requires_grad_(trainable)


@torch.no_grad()
def layer_width(layer: nn.Module, m: int) -> int:
    """Number of activations a layer returns."""
    return int(copy.deepcopy(layer).cpu()(torch.zeros(1, m)).shape[1])


def train_seed(
    config: TrainConfig,
    seed: int,
    folder: Path,
    report: Callable[[Progress], None] = lambda progress: None,
    position: int = 0,
) -> dict[str, Any]:
    """Train and measure one seed; returns its result, from the record if it is finished."""
    where = folder / f"seed-{seed}"
    if (where / "result.json").exists():
        return read_json(where / "result.json", ("seed", "evaluation", "training_seconds"))
    task = config.make_task(config.task)
    label = f"{task.name} seed {seed}"
    layer = first_layer(config, config.layer, task, seed, config.train_first)
    network, seconds = train_network(config, task, layer, seed, where, label, position, report)
    inputs = cover(config.features(), task, config.eval_inputs, seed, config.device)
    result = {"seed": seed, "training_seconds": seconds, "evaluation": evaluate(network, task, inputs).to_dict()}
    _, _, extra = load_network(where / "network.safetensors")
    if "stopped_at" in extra:
        result["stopped_at"] = int(extra["stopped_at"])
    write_json(where / "result.json", result)
    return result


def run_train(config: TrainConfig) -> Path:
    """Do the run, or go on with it; returns the folder of its record.

    Raises InputError for a device that is not there, L-BFGS on inputs too many to enumerate, or a folder that holds
    another run, each before anything is written; Interrupted on Ctrl-C.
    """
    check_device(config.device)
    config.check_inputs(config.features(), config.make_task(config.task))
    check_mirror(config.wandb)
    folder = open_record("train", config, config.out)
    with locked(folder), Mirror(config, "train", folder) as mirror:
        if len(config.seeds) == 1:
            live = mirror.progress
            results = run_jobs(train_seed, [(config, config.seeds[0], folder, live)], config.threads)
        else:
            results = run_jobs(train_seed, [(config, seed, folder) for seed in config.seeds], config.threads)
            for seed in config.seeds:
                mirror.history(f"seed-{seed}", read_metrics(folder / f"seed-{seed}" / "metrics.jsonl"))
        write_json(folder / "results.json", {"seeds": results})
        rows = [{"seed": r["seed"], **headline(r["evaluation"]), "seconds": r["training_seconds"]} for r in results]
        mirror.table(rows)
        mirror.summary(summary({"seeds": results}))
    return folder


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """The figures by which sweeps compare runs: means over seeds, and those of each seed under its own name."""
    rows = {seed["seed"]: headline(seed["evaluation"]) for seed in result["seeds"]}
    numbers = [key for key, value in next(iter(rows.values())).items() if isinstance(value, float)]
    means: dict[str, Any] = {key: sum(row[key] for row in rows.values()) / len(rows) for key in numbers}
    return means | {f"seed-{seed}": row for seed, row in rows.items()}


def headline(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The figures of an evaluation that a table shows."""
    worst = evaluation["output_worst"]
    return {
        "worst_error": evaluation["worst_error"],
        "mean_worst_error": sum(worst) / len(worst),
        "rms_ones": evaluation["ones"]["rms"],
        "rms_zeros": evaluation["zeros"]["rms"],
        "within_quarter": evaluation["within"]["0.25"],
        "inputs": evaluation["inputs"],
        "pairs": evaluation["n_outputs"],
    }
