"""Read results of an earlier version (format 1) as tidy rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toymodels.runs.record import Saved
from toymodels.theory.gates import Gate

SILENT = {"loss": "lp", "values": "one"}
"""Settings that this version did not have, with the values that describe what it did."""
_METRICS = ("worst_error", "mean_worst_error", "rms_ones", "rms_zeros", "within_quarter", "seconds")


def rows_of_old_run(saved: Saved, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a comparison or a training. Raises KeyError or a similar error for other content."""
    return list(_of_comparison(content) if saved.kind == "compare" else _of_training(saved.config, content))


def _of_comparison(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "task": row["task"],
            "first_layer": row["layer"],
            "readoff": row["readoff"],
            "seed": seed["seed"],
            **{name: seed[name] for name in _METRICS},
            "covered": row["inputs"],
            "n_pairs": row["pairs"],
            "all_pairs": row["all_pairs"],
            "proved": row.get("proved"),
        }
        for row in content["rows"]
        for seed in row["by_seed"]
    ]


def _of_training(config: Mapping[str, Any], content: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for seed in content["seeds"]:
        evaluation = seed["evaluation"]
        worst = evaluation["output_worst"]
        rows.append(
            {
                "task": Gate.parse(config["task"]).name,
                "first_layer": "trained" if config["train_first"] else config["layer"],
                "readoff": "trained",
                "seed": seed["seed"],
                "worst_error": evaluation["worst_error"],
                "mean_worst_error": sum(worst) / len(worst),
                "rms": evaluation["rms"],
                "rms_ones": evaluation["ones"]["rms"],
                "rms_zeros": evaluation["zeros"]["rms"],
                "within_quarter": evaluation["within"]["0.25"],
                "seconds": seed["training_seconds"],
                "covered": evaluation["inputs"],
                "n_pairs": evaluation["n_outputs"],
                "stopped_at": seed.get("stopped_at"),
            }
        )
    return rows
