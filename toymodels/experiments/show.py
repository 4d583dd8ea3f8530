"""A run in words, from its record alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from toymodels.core.evaluation import evaluate
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig
from toymodels.experiments.settings import NetworkSettings
from toymodels.experiments.train import TrainConfig, headline
from toymodels.runs import text as tables
from toymodels.runs.config import cover, from_dict
from toymodels.runs.record import load_config, load_network, read_metrics
from toymodels.runs.storage import read_json


def describe(folder: Path, again: bool = False) -> str:
    """The run's tables, or how far it got; with `again`, every network rebuilt and evaluated anew beside its record.

    Raises InputError for a folder that is no run, a damaged record or one of another version.
    """
    saved = load_config(folder)
    kinds: dict[str, tuple[type[Any], Callable[[Any], str]]] = {
        "compare": (CompareConfig, tables.comparison),
        "train": (TrainConfig, _training),
    }
    if saved["kind"] not in kinds:
        raise InputError(
            f"{folder} holds a run of unknown kind {saved['kind']!r}: this version knows {', '.join(kinds)}"
        )
    cls, render = kinds[saved["kind"]]
    config = from_dict(cls, saved["config"])
    title = f"{saved['kind']}: {_problem(config)}"
    if not (folder / "results.json").exists():
        return f"{title}\nnot finished\n{_so_far(folder)}\nthe same command with --out {folder} goes on from there"
    result = read_json(folder / "results.json", ("rows", "genericity") if saved["kind"] == "compare" else ("seeds",))
    try:
        text = f"{title}\n\n{render(result)}"
    except (KeyError, TypeError, IndexError, AttributeError):
        raise InputError(f"{folder / 'results.json'} is damaged: delete the run's folder and repeat the run") from None
    return text + ("\n\n" + _again(folder, config) if again else "")


def _problem(config: NetworkSettings) -> str:
    parts = [f"m = {config.m}, d = {config.d}", f"{config.features().name} active", config.activation]
    if config.d0 is not None:
        parts.append(f"features in d0 = {config.d0} dimensions ({config.frame or 'random'} frame)")
    parts += [f"{name} = {value:g}" for name, value, plain in (
        ("layer_scale", config.layer_scale, 1), ("layer_bias", config.layer_bias, 0)) if value != plain]  # fmt: skip
    return ", ".join(parts + ([f"layer_p = {config.layer_p}"] if config.layer_p is not None else []))


def _training(result: dict[str, Any]) -> str:
    rows = []
    for seed in result["seeds"]:
        figures = headline(seed["evaluation"])
        numbers = [
            f"{figures[k]:.4f}" for k in ("worst_error", "mean_worst_error", "rms_ones", "rms_zeros", "within_quarter")
        ]
        rows.append(
            (str(seed["seed"]), *numbers, figures["inputs"], f"{figures['pairs']:,}", f"{seed['training_seconds']:.1f}")
        )
    header = (
        "seed", "worst error", "mean over pairs", "RMS at ones", "RMS at zeros", "within 1/4", "inputs", "pairs",
        "training seconds",
    )  # fmt: skip
    return tables.render(header, rows, right=range(1, len(header)))


def _so_far(folder: Path) -> str:
    lines = []
    for path in sorted(folder.rglob("metrics.jsonl")):
        last = list(read_metrics(path))[-1:]
        if last:
            m = last[0]
            lines.append(
                f"{path.parent.relative_to(folder)}: step {m['step']}, p = {m['p']:g}, loss {m['loss']:.4f}, "
                f"worst error {m['worst_error']:.4f}"
            )
    return "\n".join(lines) or "no step recorded yet"


def _network_of(record: Path) -> Path:
    return record.parent / "network.safetensors" if record.name == "result.json" else record.with_suffix(".safetensors")


def _again(folder: Path, config: CompareConfig | TrainConfig) -> str:
    """Each stored network's worst error, as recorded and as measured now from its file."""
    rows = []
    device = config.device if torch.device(config.device).type == "cpu" or torch.cuda.is_available() else "cpu"
    for record in sorted(folder.rglob("*.json")):
        kept = not record.stem.endswith("-random_labels")  # a readoff of labels: its network computes no gate
        if kept and record.parent != folder and not _network_of(record).exists():
            rows.append((str(_network_of(record).relative_to(folder)), "", "", "missing"))
    for path in sorted(folder.rglob("*.safetensors")):
        record = path.parent / "result.json" if path.name == "network.safetensors" else path.with_suffix(".json")
        if not record.exists():
            continue  # a network on its way to a row of its own
        recorded = read_json(record, ("seed", "evaluation"))
        network, task, _ = load_network(path)
        inputs = cover(config.features(), task, config.eval_inputs, recorded["seed"], device)
        measured = evaluate(network, task, inputs)
        old = recorded["evaluation"]["worst_error"]
        same = "identical" if old == measured.worst_error else f"differs by {abs(old - measured.worst_error):.1e}"
        rows.append((str(path.relative_to(folder)), f"{old:.9f}", f"{measured.worst_error:.9f}", same))
    return tables.render(("network", "recorded worst error", "measured again", ""), rows, right=(1, 2))
