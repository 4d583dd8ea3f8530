"""Describe a run from its record alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from toymodels.core.evaluation import evaluate
from toymodels.errors import InputError
from toymodels.experiments.registry import EXPERIMENTS
from toymodels.registry import load_plugins
from toymodels.runs import text
from toymodels.runs.identity import from_dict
from toymodels.runs.record import load_config, load_network, read_metrics
from toymodels.runs.settings import evaluation_inputs
from toymodels.runs.storage import damaged, read_json
from toymodels.runs.table import read_result


def describe(folder: Path, again: bool = False) -> str:
    """Write the run's tables, or how far it got; with `again`, rebuild and evaluate every network and compare the errors.

    Raises InputError for a folder without a run, and for a record that is damaged or of another version.
    """
    if folder.is_file():
        network, table = f"`toymodels evaluate {folder} --task and`", f"`toymodels results {folder}`"
        ways = f"{network} measures a network that was made elsewhere, {table} prints a table (.csv, .jsonl)"
        raise InputError(f"{folder} is a file, and show prints the record of a run, which is a folder: {ways}")
    saved = load_config(folder)
    load_plugins(saved.config["plugin"])
    if saved.kind not in EXPERIMENTS:
        known = f"this version knows {', '.join(EXPERIMENTS)}"
        raise InputError(f"{folder} holds a run of unknown kind {saved.kind!r}: {known}")
    experiment = EXPERIMENTS[saved.kind]
    config = from_dict(experiment.config, saved.config)
    title = f"{saved.kind}: {_problem(config)}"
    if not (folder / "results.json").exists():
        return f"{title}\nnot finished\n{_so_far(folder)}\nthe same command with --out {folder} goes on from there"
    content = read_result(folder)
    try:
        tables = (experiment.text or text.by_seed)(content)
    except (KeyError, TypeError, IndexError, AttributeError):
        raise damaged(folder / "results.json", "its rows do not make a table") from None
    return f"{title}\n\n{tables}" + ("\n\n" + _again(folder, config) if again else "")


def _problem(config: Any) -> str:
    parts = [f"m = {config.m}, d = {config.d}", f"{config.features().name} active", config.activation]
    if config.d0 is not None:
        parts.append(f"features in d0 = {config.d0} dimensions ({config.frame or 'random'} frame)")
    return ", ".join(parts + [f"layer_{name} = {value}" for name, value in getattr(config, "knobs", {}).items()])


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


def _again(folder: Path, config: Any) -> str:
    """Compare each stored network's worst error, as recorded, with that measured now from its file."""
    from toymodels.core.readoffs import READOFFS
    from toymodels.registry import parse_call

    rows = []
    device = config.device if torch.device(config.device).type == "cpu" or torch.cuda.is_available() else "cpu"
    for record in sorted(folder.rglob("*.json")):
        name = parse_call(record.stem.rpartition("-")[2])[0]
        kept = name not in READOFFS or READOFFS[name].kept
        if kept and record.parent != folder and not _network_of(record).exists():
            rows.append((str(_network_of(record).relative_to(folder)), "", "", "missing"))
    for path in sorted(folder.rglob("*.safetensors")):
        record = path.parent / "result.json" if path.name == "network.safetensors" else path.with_suffix(".json")
        if not record.exists():
            continue  # the run was stopped before it measured this network
        recorded = read_json(record, ("seed", "evaluation"))
        network, task, _ = load_network(path)
        features = config.features()
        if "worst_error_inputs" in recorded["evaluation"]:  # a minimax readoff, whose method used every input
            inputs = features.enumerate(device=device)
        else:
            inputs = evaluation_inputs(features, task, config.eval_inputs, recorded["seed"], device)
        measured = evaluate(network, task, inputs)
        old = recorded["evaluation"]["worst_error"]
        same = "identical" if old == measured.worst_error else f"differs by {abs(old - measured.worst_error):.1e}"
        rows.append((str(path.relative_to(folder)), f"{old:.9f}", f"{measured.worst_error:.9f}", same))
    return text.render(("network", "recorded worst error", "measured again", ""), rows, right=(1, 2))
