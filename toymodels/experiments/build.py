"""Make first layers and train networks from the settings of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toymodels.core.layers import (
    LAYERS,
    Embedded,
    FirstLayer,
    check_made,
    embed_before,
    layer_width,
    mark_origin,
    unwrap,
)
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import derive_seed
from toymodels.core.tasks import Task
from toymodels.core.training import Progress, Trainer
from toymodels.experiments.settings import NetworkSettings
from toymodels.parallel.progress import Bar
from toymodels.registry import Lazy
from toymodels.runs.identity import network_identity
from toymodels.runs.loop import train
from toymodels.runs.metrics import Row, metrics_of
from toymodels.runs.record import Metrics, load_own_network, save_network
from toymodels.runs.storage import damaged

STOP = "stop"
"""A file of this name in a run's folder ends its training early."""
_LOOK_SECONDS = 1.0
"""How often the metrics are written to disk, and STOP is looked for."""


def first_layer(
    config: NetworkSettings,
    name: str,
    task: Task,
    seed: int,
    purpose: str = "frozen layer",
    trained: Callable[[], nn.Module] | None = None,
) -> nn.Module:
    """Make a frozen first layer, after the features' frame if they are embedded.

    Frozen layers and the initial values of trained ones (purpose "trained layer") come from different streams of random numbers.
    `trained` makes the trained layer, for null models.
    """
    member, knobs = LAYERS.named(name, config.knobs)
    offered = config.offered(member, task, derive_seed(seed, purpose))
    if trained is not None:
        offered["trained"] = Lazy(lambda: unwrap(trained()))
    layer: nn.Module = member.call(offered, knobs)
    check_made(layer, name, offered["m"])
    mark_origin(layer, name)
    frame = config.make_frame(seed)
    if frame is not None:
        if member.role != "construction":
            layer = Embedded(frame, layer)
        elif isinstance(layer, FirstLayer):
            layer = embed_before(frame, layer)
        else:  # it is made for features with axes of their own: its input is Fᵀ F x
            layer = Embedded(frame.T @ frame, layer)
    return layer.requires_grad_(False).to(config.device)


def check_run(config: NetworkSettings) -> None:
    """Check the inputs of each task, make the loss, and every first layer that a plugin draws.

    Raises InputError for what fails, before any work.
    """
    for task in config.tasks():
        config.check_inputs(config.features(), task)
    config.make_loss(0)
    for name in config.first_layers():
        if LAYERS.named(name)[0].plugin is not None:
            for task in config.tasks():
                if LAYERS.named(name)[0].fits(task):
                    first_layer(config, name, task, config.seeds[0])


def train_network(
    config: NetworkSettings,
    task: Task,
    layer: nn.Module,
    seed: int,
    folder: Path,
    label: str,
    position: int = 0,
    report: Callable[[Progress], None] = lambda progress: None,
) -> tuple[Network, dict[str, Any]]:
    """Return (network, facts): trained now, continued from the folder's checkpoint, or read from its record.

    The facts are the seconds of the training and, if it was stopped early, the step at which it was (stopped_at).
    `layer` is the initial first layer; if its parameters do not require gradients it stays as it is, and only the readoff
    learns. Writes metrics.jsonl, checkpoint.pt (deleted at the end) and network.safetensors into the folder. Ends early if a
    file named STOP appears in the parent folder.
    """
    done = folder / "network.safetensors"
    run, width = network_identity(config, seed), layer_width(layer, config.m)
    if done.exists():
        network, extra = load_own_network(done, run, task, width)
        if "seconds" not in extra:
            raise damaged(done, "it does not say how long its training took", advice="move it away, and train again")
        return network.to(config.device), _facts(extra)
    network = Network(layer, LinearReadoff.constant(task.n_outputs, width))
    trainer = Trainer(network, task, config.features(), config, derive_seed(seed, "batches"), config.device)
    metrics = Metrics(folder / "metrics.jsonl")
    planned, looked = trainer.steps, time.monotonic()
    with Bar(label, trainer.steps, "step", position) as bar:

        def show(progress: Progress) -> None:
            metrics.add(progress)
            bar.to(progress.step, p=progress.p, loss=progress.loss, worst_error=progress.worst_error)
            report(progress)
            nonlocal looked
            if time.monotonic() - looked > _LOOK_SECONDS:
                metrics.flush()
                if (folder.parent / STOP).exists():
                    trainer.steps = trainer.step  # ends the training at this step
                looked = time.monotonic()

        def restore(kept: dict[str, Any]) -> None:
            metrics.restore(kept)
            bar.skip(trainer.step)

        train(trainer, folder / "checkpoint.pt", config.checkpoint_seconds, show, metrics.flush, restore, run)
    metrics.flush()
    learned = unwrap(layer)
    if isinstance(learned, FirstLayer) and learned.weight.requires_grad:
        learned.origin = "trained"
    extra = {"seconds": torch.tensor(trainer.seconds, dtype=torch.float64)}
    if trainer.step < planned:
        extra["stopped_at"] = torch.tensor(trainer.step)
    save_network(done, network, task, extra, run)
    (folder / "checkpoint.pt").unlink(missing_ok=True)
    return network, _facts(extra)


def row_of(
    config: NetworkSettings, task: Task, layer: str, readoff: str, seed: int, facts: Row, evaluation: Mapping[str, Any]
) -> Row:
    """Make the row of a network from its evaluation, as `Evaluation.to_dict` writes it, and what is known of its making."""
    about = {"task": task.name, "first_layer": layer, "readoff": readoff, "seed": seed}
    sizes = {"all_pairs": task.n_outputs, "threads": torch.get_num_threads()}
    return {**about, **metrics_of(evaluation, config.tolerances), **sizes, **facts, "evaluation": evaluation}


def _facts(extra: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    return {name: extra[name].item() for name in ("seconds", "stopped_at") if name in extra}
