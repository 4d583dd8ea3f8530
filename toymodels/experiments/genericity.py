"""What the rows of a comparison say together: means over seeds, and the ratio of frozen to trained errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toymodels.experiments.bench import FIGURES, Row
from toymodels.theory.statistics import mean_interval


def aggregate(rows: Sequence[Row]) -> list[Row]:
    """One row per (task, layer, readoff): means over seeds, with the half-width of their 95 % t interval and each seed's figures.

    `proved` says whether the certificates of every seed hold; `seconds` is the mean.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
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


def genericity(rows: Sequence[Row], frozen_layer: str) -> dict[str, Any]:
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
