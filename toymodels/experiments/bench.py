"""The rows of a comparison: one first layer with one readoff, made, measured and kept in the record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from toymodels.core.evaluation import evaluate
from toymodels.core.features import Inputs
from toymodels.core.network import Network
from toymodels.core.tasks import PairTask, Task
from toymodels.experiments.settings import NetworkSettings
from toymodels.experiments.train import headline, layer_width, train_network
from toymodels.fast.minimax import Minimax, holds_all, minimax
from toymodels.layers.null_models import RandomLabels
from toymodels.parallel.processes import bars
from toymodels.runs.config import cover, derive_seed
from toymodels.runs.record import save_network
from toymodels.runs.storage import read_json, write_json

FIGURES = ("worst_error", "mean_worst_error", "rms_ones", "rms_zeros", "within_quarter", "seconds")
"""The numbers of a row: largest |error|, mean over pairs of each pair's largest, RMS at ones and at zeros, share within 1/4."""

Row = dict[str, Any]

_SECONDS = 4.5e-10
"""Of one core for a minimax readoff, over inputs × neurons² (measured: 6 ms at 1,276 × 100², 0.9 s at 32,897 × 256²)."""
_WORTH = 10.0
"""Seconds of work from which further processes are started: each takes a few until it can help."""


@dataclass(frozen=True)
class Bench:
    """One task and seed of a comparison: what its rows share. A row in the record is read, not made again."""

    config: NetworkSettings
    task: PairTask
    sample: PairTask
    """The pairs that minimax readoffs are found for."""
    seed: int
    folder: Path
    position: int
    """Line of the progress bar."""

    def inputs(self, task: Task, role: str = "evaluation") -> Inputs:
        """The inputs that readoffs are measured on, or fitted to."""
        config = self.config
        return cover(config.features(), task, config.eval_inputs, self.seed, config.device, role)

    def fitted(self, name: str, readoff: str, layer: nn.Module, fit: Callable[[], nn.Module]) -> Row:
        """A layer that stays as it is, with a readoff fitted to it or read off its weights."""
        return self._row(name, readoff, lambda: (Network(layer, fit()), self.task, {}))

    def minimax(self, name: str, layer: nn.Module) -> Row:
        """A layer with the minimax readoff of the sampled pairs, and its certificates."""

        def make() -> tuple[Network, PairTask, dict[str, Any]]:
            fitted = self._minimax(
                name, layer, self.sample, self.config.features().enumerate(device=self.config.device)
            )
            return Network(layer, fitted.readoff), self.sample, {"proved": fitted.proved, **certificate_tensors(fitted)}

        return self._row(name, "minimax", make)

    def random_labels(self, name: str, layer: nn.Module) -> Row:
        """The same for labels without structure, as sparse as the targets; measured against these labels.

        Its network is not stored: a record names the gate that a network computes, and this one computes none.
        """
        path = self._path(name, "random_labels")
        if path.exists():
            return _stored(path)
        started = time.perf_counter()
        inputs = self.config.features().enumerate(device=self.config.device)
        labels = RandomLabels(self.sample, inputs, derive_seed(self.seed, "labels"))
        fitted = self._minimax(f"{name} random labels", layer, labels, inputs)
        network = Network(layer, fitted.readoff)
        seconds = time.perf_counter() - started
        return self._keep(path, name, "random_labels", network, labels, inputs, seconds, {"proved": fitted.proved})

    def trained(self, name: str, layer: nn.Module, readoff: bool) -> tuple[nn.Module, list[Row]]:
        """(layer, rows): a layer with the readoff that is trained with it, or on it if the layer is frozen.

        The row is left out unless `readoff`; a layer that does not learn is then not trained at all.
        """
        learns = any(parameter.requires_grad for parameter in layer.parameters())
        if not (readoff or learns):
            return layer, []
        label = f"{self.task.name} seed {self.seed} {name}"
        where = self.folder / f"{name}-training"
        network, seconds = train_network(self.config, self.task, layer, self.seed, where, label, self.position)
        made = (network, self.task, {"seconds": seconds})
        return network.layer, [self._row(name, "trained", lambda: made)] if readoff else []

    def _minimax(self, label: str, layer: nn.Module, task: Task, inputs: Inputs) -> Minimax:
        def progress(outputs: Iterable[int]) -> Iterable[int]:
            place: dict[str, Any] = {"position": self.position, "leave": False, "disable": not bars()}
            about = f"{self.task.name} seed {self.seed} {label} minimax"
            return tqdm(outputs, desc=about, unit="pair", **place)

        width = layer_width(layer, self.config.m)
        worth = not holds_all(inputs, width) or _SECONDS * task.n_outputs * len(inputs) * width**2 > _WORTH
        # A lone job has all of torch's threads, one beside others a single one: as many processes are free to help.
        return minimax(layer, task, inputs, progress, processes=torch.get_num_threads() if worth else 1)

    def _path(self, layer: str, readoff: str) -> Path:
        return self.folder / f"{layer}-{readoff}.json"

    def _row(self, layer: str, readoff: str, make: Callable[[], tuple[Network, PairTask, dict[str, Any]]]) -> Row:
        """One row: made and measured now, or read from the record. `make` may state its own seconds."""
        path = self._path(layer, readoff)
        if path.exists():
            return _stored(path)
        started = time.perf_counter()
        network, task, extra = make()
        seconds = extra.pop("seconds", None) or time.perf_counter() - started
        tensors = {key: extra.pop(key) for key in list(extra) if isinstance(extra[key], Tensor)}
        save_network(path.with_suffix(".safetensors"), network, task, tensors)
        return self._keep(path, layer, readoff, network, task, self.inputs(task), seconds, extra)

    def _keep(
        self, path: Path, layer: str, readoff: str, network: Network, task: Task, inputs: Inputs, seconds: float,
        extra: dict[str, Any],
    ) -> Row:  # fmt: skip
        evaluation = evaluate(network, task, inputs).to_dict()
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


def _stored(path: Path) -> Row:
    row: Row = read_json(path, ("task", "layer", "readoff", "seed", "evaluation", *FIGURES))
    return row


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
