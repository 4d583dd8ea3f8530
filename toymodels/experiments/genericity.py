"""Compute the ratios of frozen to trained errors, which answer the question of genericity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from toymodels.core.tasks import Task
from toymodels.experiments.compare import CompareConfig
from toymodels.experiments.registry import Row
from toymodels.runs.metrics import metric_columns, within_names
from toymodels.runs.text import aggregate
from toymodels.theory.statistics import mean_interval


def genericity(rows: Sequence[Row], frozen_layer: str) -> dict[str, Any]:
    """Compare, for each task, worst errors of the frozen layer with those of the trained one, both by minimax readoffs.

    Per seed: the ratio of the two worst errors over all sampled pairs, and the ratios pair by pair.
    """
    answer = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        worst = {
            (row["first_layer"], row["seed"]): np.array(row["evaluation"]["output_worst"])
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


def summary(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers by which sweeps compare runs: {"and/trained/minimax": {…}, …, "genericity": {"and": …}}."""
    rows = {
        f"{row['task']}/{row['first_layer']}/{row['readoff']}": {name: row[name] for name in metric_columns([row])}
        for row in aggregate(content["rows"])
    }
    return {**rows, "genericity": {task: answer["ratio"] for task, answer in content["genericity"].items()}}


def summary_names(config: CompareConfig) -> list[str]:
    """Return the names of these numbers, from the configuration alone."""
    names = []
    for task in config.tasks():
        for layer in config.rows():
            for readoff in config.readoffs_of(layer, task):
                names += [f"{task.name}/{layer}/{readoff}.{name}" for name in metric_names(task, config.tolerances)]
        if "minimax" in (config.readoffs or ("minimax",)) and {config.frozen_layer, "trained"} <= set(config.rows()):
            names.append(f"genericity.{task.name}")
    return names


def metric_names(task: Task, tolerances: Sequence[float | int] | None = None) -> list[str]:
    """Return the metrics of a task's rows."""
    groups = [f"rms_{name}" for name in task.groups]
    return ["worst_error", "mean_worst_error", "rms", *groups, "within_quarter", *within_names(tolerances), "seconds"]


def _ratios(frozen: Sequence[np.ndarray], trained: Sequence[np.ndarray]) -> dict[str, Any]:
    """Return ratios of worst errors, per seed and per pair.

    None if the trained layer reads every output exactly, or for the ratios per pair, some output.
    """
    names = ("mean", "min", "max", "quartiles")
    found: dict[str, Any] = dict.fromkeys(
        ("ratio", "ratio_interval", "ratio_by_seed", *(f"pair_ratio_{n}" for n in names))
    )
    # Certificates are exact to 1e-6: ratios of smaller errors would compare rounding errors.
    if min(t.max() for t in trained) > 1e-6:
        ratios = [float(f.max() / t.max()) for f, t in zip(frozen, trained, strict=True)]
        found["ratio"], found["ratio_interval"] = mean_interval(ratios)
        found["ratio_by_seed"] = ratios
    if min(t.min() for t in trained) > 1e-6:
        by_pair = np.concatenate([f / t for f, t in zip(frozen, trained, strict=True)])
        found |= {f"pair_ratio_{name}": float(getattr(by_pair, name)()) for name in ("mean", "min", "max")}
        found["pair_ratio_quartiles"] = np.quantile(by_pair, [0.25, 0.75]).tolist()
    return found
