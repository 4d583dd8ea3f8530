"""Make the rows of a comparison: one first layer with one readoff, fitted, measured and stored in the record."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from toymodels.core.evaluation import Evaluation, evaluate
from toymodels.core.features import Inputs
from toymodels.core.layers import LAYERS, layer_width
from toymodels.core.network import Network
from toymodels.core.readoffs import READOFFS, Fitted, as_fitted
from toymodels.core.seeds import derive_seed
from toymodels.core.tasks import Task
from toymodels.experiments.build import first_layer, row_of, train_network
from toymodels.experiments.registry import Row
from toymodels.experiments.settings import NetworkSettings
from toymodels.experiments.times import PIVOTS
from toymodels.fast.minimax import holds_all
from toymodels.parallel.progress import Bar, plan, tell_if_slow
from toymodels.registry import Lazy
from toymodels.runs.identity import network_identity
from toymodels.runs.record import read_row, save_network, write_row
from toymodels.runs.settings import evaluation_inputs
from toymodels.runs.solved import ENDING, SolvedOutputs

_WORTH = 10.0
"""Seconds of work from which more processes are started: a process takes a few seconds to start."""


@dataclass(frozen=True)
class RowMaker:
    """Makes the rows of one task and seed. A row in the record is read, not made again."""

    config: NetworkSettings
    task: Task
    sample: Task
    """The task on a sample of outputs, for readoffs that are solved for a sample only."""
    seed: int
    folder: Path
    position: int
    """The terminal line of the progress bar."""
    _made: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False, compare=False)
    """First layers and trained networks that rows share."""

    def path(self, name: str, readoff: str) -> Path:
        """Return the file of a row."""
        return self.folder / f"{name}-{readoff}.json"

    def label(self, what: str) -> str:
        """Say which task and seed a first layer or row belongs to."""
        return f"{self.task.name} seed {self.seed} {what.replace('_', ' ')}"

    def plan(self, rows: Sequence[tuple[str, str]]) -> None:
        """Tell the progress of the whole run which of these rows, not yet in the record, train and solve output by output."""
        missing = [
            (name, READOFFS.named(readoff)[0]) for name, readoff in rows if not self.path(name, readoff).exists()
        ]
        learn = {name for name, readoff in missing if "trained_readoff" in readoff.parameters}
        learn |= {name for name, _ in missing if LAYERS.named(name)[0].role == "trained"}
        trainings = [name for name in learn if not (self.folder / f"{name}-training" / "network.safetensors").exists()]
        plan(step=len(trainings), output=sum("progress" in member.parameters for _, member in missing))

    def row(self, name: str, readoff: str) -> Row:
        """Return the row of a first layer and a readoff: fitted and measured now, or read from the record."""
        path = self.path(name, readoff)
        unfinished, run = SolvedOutputs(path.with_suffix(ENDING)), network_identity(self.config, self.seed)
        if path.exists():
            unfinished.delete()
            about = {"task": self.task.name, "first_layer": name, "readoff": readoff, "seed": self.seed}
            return read_row(path, run, about)
        member, knobs = READOFFS.named(readoff)
        layer = self.layer(name)
        task = self.sample if member.sampled else self.task
        started = time.perf_counter()
        with tell_if_slow(self.label(f"{name} {readoff}: preparing inputs and readoff")):
            offered = {**self._offered(name, layer, task, member.name), "kept": unfinished}
            fitted = as_fitted(member.call(offered, knobs))
        facts = {"seconds": unfinished.seconds + time.perf_counter() - started, **fitted.facts}
        network = Network(layer, fitted.readoff.to(self.config.device))
        if member.kept:
            save_network(path.with_suffix(".safetensors"), network, task, fitted.tensors, run)
        task = fitted.task or task
        with tell_if_slow(self.label(f"{name} {readoff}: measuring errors")):
            evaluation = self._measured(network, task, fitted)
        row = row_of(self.config, self.task, name, readoff, self.seed, facts, evaluation)
        write_row(path, run, row)
        unfinished.delete()
        return row

    def layer(self, name: str) -> nn.Module:
        """Return a first layer by name: frozen, or trained."""
        if LAYERS.named(name)[0].role == "trained":
            return self.trained(name)[0].layer
        return self._once(
            "layer", name, lambda: first_layer(self.config, name, self.task, self.seed, trained=self._trained_layer)
        )

    def trained(self, name: str) -> tuple[Network, dict[str, Any]]:
        """Return (network, facts) after training the readoff by the loss, and the first layer too if it is the trained one."""

        def make() -> tuple[Network, dict[str, Any]]:
            if LAYERS.named(name)[0].role == "trained":
                member, knobs = LAYERS.named(name)
                start = first_layer(self.config, self.config.layer, self.task, self.seed, "trained layer")
                layer: nn.Module = member.call({"start": start}, knobs)
            else:
                layer = self.layer(name)
            folder = self.folder / f"{name}-training"
            return train_network(self.config, self.task, layer, self.seed, folder, self.label(name), self.position)

        return self._once("trained", name, make)

    def _once(self, kind: str, name: str, make: Callable[[], Any]) -> Any:
        if (kind, name) not in self._made:
            self._made[kind, name] = make()
        return self._made[kind, name]

    def _trained_layer(self) -> nn.Module:
        trained = next(name for name in LAYERS if LAYERS[name].role == "trained")
        return self.layer(trained)

    def _trained_readoff(self, name: str) -> Fitted:
        network, facts = self.trained(name)
        return Fitted(network.readoff, facts=facts)

    def _own_readoff(self, name: str, layer: nn.Module) -> nn.Module:
        member, knobs = LAYERS.named(name, self.config.knobs)
        seed = derive_seed(self.seed, "frozen layer")
        offered = {**self.config.offered(member, self.task, seed), "m": self.config.m}
        if self.config.d0 is not None:  # the readoff is made for the layer without the embedding
            layer = member.call(offered, knobs).to(self.config.device)
        readoff: nn.Module = member.aside(member.own_readoff, {**offered, "layer": layer}, knobs)
        return readoff

    def _offered(self, name: str, layer: nn.Module, task: Task, readoff: str) -> dict[str, Any]:
        config, features = self.config, self.config.features()
        every = Lazy(self._every_input)
        return {
            "layer": layer,
            "task": task,
            "inputs": Lazy(lambda: self._inputs(task, "fit")),
            "every_input": every,
            "features": features,
            "m": config.m,
            "d": config.d,
            "s": config.active,
            "seed": self.seed,
            "layer_seed": derive_seed(self.seed, "frozen layer"),
            "width": Lazy(lambda: layer_width(layer, config.m)),
            "trained_readoff": Lazy(lambda: self._trained_readoff(name)),
            "own_readoff": Lazy(lambda: self._own_readoff(name, layer)),
            "progress": functools.partial(self._progress, f"{name} {readoff}"),
            "processes": Lazy(lambda: self._processes(layer, task, every.make())),
        }

    def _inputs(self, task: Task, purpose: str = "evaluation") -> Inputs:
        config = self.config
        return evaluation_inputs(config.features(), task, config.eval_inputs, self.seed, config.device, purpose)

    def _every_input(self) -> Inputs:
        """Return all inputs; if values are real numbers and there is no list, the sample to which readoffs are fitted."""
        features = self.config.features()
        if features.n_inputs == float("inf"):
            return self._inputs(self.task, "fit")
        return features.enumerate(device=self.config.device)

    def _processes(self, layer: nn.Module, task: Task, inputs: Inputs) -> int:
        """Return the number of processes for minimax readoffs: one per torch thread of this job, or 1 for little work."""
        width = layer_width(layer, self.config.m)
        worth = not holds_all(inputs, width) or PIVOTS * task.n_outputs * len(inputs) * width**2 > _WORTH
        return torch.get_num_threads() if worth else 1

    def _progress(self, label: str, outputs: Iterable[int]) -> Iterable[int]:
        outputs = outputs if isinstance(outputs, range) else list(outputs)
        # The first ones may be known from before.
        start, total = (outputs.start, outputs.stop) if isinstance(outputs, range) else (0, len(outputs))
        bar = Bar(self.label(label), total, "output", self.position)
        bar.skip(start)
        return bar.over(outputs)

    def _measured(self, network: Network, task: Task, fitted: Fitted) -> dict[str, Any]:
        """Measure a network; if inputs are a sample and the readoff's method used all inputs, report its worst errors."""
        inputs = self._every_input() if fitted.task is not None else self._inputs(task)
        evaluation: Evaluation = evaluate(network, task, inputs, tolerances=self.config.tolerances or ())
        record = evaluation.to_dict()
        if fitted.output_worst is not None and not inputs.enumerated:
            record["output_worst"] = fitted.output_worst.tolist()
            record["worst_error"] = float(fitted.output_worst.max())
            record["worst_error_inputs"] = f"all {int(self.config.features().n_inputs):,}"
            record["inputs"] = f"{inputs.description}; worst errors {record['worst_error_inputs']}"
        return record
