"""Describe a run from its record alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from toymodels.core.evaluation import evaluate
from toymodels.core.features import make_features
from toymodels.core.readoffs import READOFFS
from toymodels.errors import InputError, notice
from toymodels.experiments.registry import EXPERIMENTS
from toymodels.runs import text
from toymodels.runs.identity import KNOB
from toymodels.runs.record import (
    Busy,
    ChangedCopyError,
    load_config,
    load_network,
    load_saved_plugins,
    locked,
    read_metrics,
    saved_settings,
)
from toymodels.runs.settings import evaluation_inputs
from toymodels.runs.solved import ENDING, count
from toymodels.runs.storage import damaged, read_json
from toymodels.runs.table import read_result

_ROUNDING = 1e-6
"""Differences, in units of the error, that another processor or library makes."""


def describe(folder: Path, again: bool = False) -> str:
    """Write the run's tables, or how far it got. Needs neither the plugins of the run nor its first layers.

    With `again`, the table of `evaluate_again` follows.
    Raises InputError for a folder without a run, and for a record that is damaged or of another version.
    """
    if not (folder / "config.json").exists() and (folder / "sweep.json").exists():
        raise InputError(f"{folder} is the folder of a sweep: toymodels results {folder} prints its runs")
    if folder.is_file():
        network, table = f"`toymodels evaluate {folder} --task and`", f"`toymodels results {folder}`"
        ways = f"{network} measures a network that was made elsewhere, {table} prints a table (.csv, .jsonl)"
        raise InputError(f"{folder} is a file, and show prints the record of a run, which is a folder: {ways}")
    saved = load_config(folder)
    try:
        load_saved_plugins(folder, saved)
    except ChangedCopyError as error:
        notice(str(error))
    except InputError:  # a plugin that is gone: it may not be needed
        pass
    title = f"{saved.kind}: {_problem(saved.config)}"
    if not (folder / "results.json").exists():
        resume = f"the same command with --out {folder} goes on from there"
        return f"{title}\nnot finished{_stopped(folder)}\n{_so_far(folder)}\n{resume}"
    content = read_result(folder)
    try:
        write = EXPERIMENTS[saved.kind].text if saved.kind in EXPERIMENTS else None
        tables = (write or text.by_seed)(content)
    except Exception as error:  # of a damaged file, or of somebody's own function
        reason = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{folder / 'results.json'} does not make the table of a {saved.kind} ({reason}): toymodels results {folder} "
            "prints its rows"
        ) from None
    early = {row["stopped_at"] for row in content["rows"] if row.get("stopped_at") is not None}
    note = f"\n\nstopped early, at step {', '.join(map(str, sorted(early)))}" if early else ""
    return f"{title}\n\n{tables}{note}" + (f"\n\n{evaluate_again(folder)[0]}" if again else "")


def _problem(values: Mapping[str, Any]) -> str:
    """Describe the problem of a run by the settings in its record."""
    inputs, m, s, law = (values.get(name) for name in ("inputs", "m", "s", "values"))
    try:
        features = make_features(str(inputs), int(m or 0), s or 0, law or "one").name
    except Exception:  # inputs or values of somebody's own, or settings that are wrong
        features = f"s = {s} (inputs {inputs}, values {law})"
    parts = [f"m = {values.get('m')}, d = {values.get('d')}", f"{features} active", str(values.get("activation"))]
    if values.get("d0") is not None:
        parts.append(f"features in d0 = {values['d0']} dimensions ({values.get('frame') or 'random'} frame)")
    knobs = {name: value for name, value in values.items() if name.startswith(KNOB) and value is not None}
    return ", ".join([*parts, *(f"{name} = {value}" for name, value in knobs.items())])


def _stopped(folder: Path) -> str:
    """Say whether a process is at work in an unfinished run."""
    try:
        with locked(folder):
            return ": stopped, no process is at work on it"
    except Busy:
        return ": a process is at work on it"
    except OSError:  # somebody else's folder
        return ""


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
    for path in sorted(folder.rglob(f"*{ENDING}")):
        name = str(path.relative_to(folder)).removesuffix(ENDING)
        lines.append(f"{name}: {count(path):,} outputs solved")
    return "\n".join(lines) or "no step recorded yet"


def evaluate_again(folder: Path) -> tuple[str, bool]:
    """Rebuild every network from the record alone, measure it, and compare with what is recorded: (table, whether all agree).

    Raises InputError for a run that is not finished, or whose plugins or members are not there.
    """
    saved = load_config(folder)
    load_saved_plugins(folder, saved)
    if saved.kind not in EXPERIMENTS:
        raise InputError(
            f"{folder} holds a run of the kind {saved.kind!r}: this version knows {', '.join(EXPERIMENTS)}"
        )
    config = saved_settings(folder, saved, EXPERIMENTS[saved.kind].config)
    device = config.device if torch.device(config.device).type == "cpu" or torch.cuda.is_available() else "cpu"
    lines = [
        (str(network.relative_to(folder)), *_compared(network, record, config, device))
        for network, record in _expected(folder, saved.kind, read_result(folder)["rows"])
    ]
    table = text.render(("network", "recorded worst error", "measured again", ""), lines, right=(1, 2))
    missing = sum(verdict.endswith("missing") for *_, verdict in lines)
    differ = sum(verdict.startswith("differs") and not verdict.endswith("(rounding)") for *_, verdict in lines)
    counts = {"with another error": differ, "missing": missing}
    wrong = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return f"{table}\n\nnetworks: {len(lines):,}, {wrong or 'all with the recorded errors'}", not wrong


def _expected(folder: Path, kind: str, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Path, Path]]:
    """Return (network, its row in the record) of each network that a finished run has."""
    files: dict[Path, Path] = {}
    for row in rows:
        if kind == "train":
            inner = folder / f"seed-{row['seed']}"
            files[inner / "network.safetensors"] = inner / "result.json"
        elif kind == "compare" and (row["readoff"] not in READOFFS or READOFFS[row["readoff"]].kept):
            record = folder / f"{row['task']}-seed-{row['seed']}" / f"{row['first_layer']}-{row['readoff']}.json"
            files[record.with_suffix(".safetensors")] = record
    for path in sorted(folder.rglob("*.safetensors")):  # those of a kind of run of somebody's own
        record = path.parent / "result.json" if path.name == "network.safetensors" else path.with_suffix(".json")
        if record.exists():
            files.setdefault(path, record)
    return sorted(files.items())


def _compared(path: Path, record: Path, config: Any, device: str) -> tuple[str, str, str]:
    """Return (recorded worst error, that measured now, in words how they compare) of one network."""
    if not (path.exists() and record.exists()):
        return "", "", "missing" if record.exists() else f"{record.name} is missing"
    old = new = ""
    try:
        recorded = read_json(record, ("seed", "evaluation"))
        evaluation, seed = recorded["evaluation"], recorded["seed"]
        worst = float(evaluation["worst_error"])
        old = f"{worst:.9f}"
        network, task, _ = load_network(path)
        features = config.features()
        if "worst_error_inputs" in evaluation:  # a minimax readoff, whose method used every input
            inputs = features.enumerate(device=device)
        else:
            inputs = evaluation_inputs(features, task, config.eval_inputs, seed, device)
        measured = evaluate(network, task, inputs).worst_error
        new = f"{measured:.9f}"
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file leads to
        raise damaged(record, f"{type(error).__name__}: {error}", advice="repeat the run in another folder") from None
    if worst == measured:
        return old, new, "identical"
    rounding = " (rounding)" if abs(worst - measured) <= _ROUNDING * max(1.0, worst) else ""
    return old, new, f"differs by {abs(worst - measured):.1e}{rounding}"
