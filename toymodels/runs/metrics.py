"""The numbers of a row: which there are, how they are made from an evaluation, and how a table calls them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One number of a row."""

    name: str
    """The column."""
    title: str
    """The heading in a table that a person reads."""


METRICS = (
    Metric("worst_error", "worst error"),
    Metric("mean_worst_error", "mean over outputs"),
    Metric("rms", "RMS"),
    Metric("rms_ones", "RMS at ones"),
    Metric("rms_zeros", "RMS at zeros"),
    Metric("rms_active", "RMS at active"),
    Metric("rms_inactive", "RMS at inactive"),
    Metric("within_quarter", "within 1/4"),
    Metric("seconds", "seconds"),
)
"""Largest |error|; mean over outputs of each output's largest; root mean square over all and in each group of the task; share of
outputs within 1/4; seconds to make the readoff. A task of your own may add groups of other names (rms_NAME)."""

ABOUT = ("run", "seed", "covered", "n_pairs", "all_pairs", "proved", "lower_bound", "threads", "stopped_at")
"""Columns that say nothing of what was varied, and are no errors either."""


def is_metric(column: str) -> bool:
    """Whether a column holds a number of METRICS, or the RMS error of a group."""
    return column in {metric.name for metric in METRICS} or column.startswith("rms_")


def title(column: str) -> str:
    """Return the heading of a metric's column."""
    known = {metric.name: metric.title for metric in METRICS}
    return known.get(column, column.replace("rms_", "RMS at ").replace("_", " "))


def metric_columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that some row has, in the order of METRICS, then those of other groups."""
    present = dict.fromkeys(column for row in rows for column in row if row[column] is not None and is_metric(column))
    known = [metric.name for metric in METRICS if metric.name in present]
    return known[:-1] + [column for column in present if column not in known] + known[-1:]


def metrics_of(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics of an evaluation (as `Evaluation.to_dict` writes it), and how its inputs were covered."""
    worst = evaluation["output_worst"]
    return {
        "worst_error": evaluation["worst_error"],
        "mean_worst_error": sum(worst) / len(worst),
        "rms": evaluation["rms"],
        **{f"rms_{name}": group["rms"] for name, group in evaluation["groups"].items()},
        "within_quarter": evaluation["within"]["0.25"],
        "covered": evaluation["inputs"],
        "n_pairs": evaluation["n_outputs"],
    }
