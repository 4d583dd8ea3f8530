"""The metrics of a row: their names, how they are computed from an evaluation, and how tables label them."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toymodels.errors import check_choice

Row = dict[str, Any]
"""Of a table of results: what was measured, the settings and the metrics, by the names of columns."""


@dataclass(frozen=True)
class Metric:
    """One number of a row. An error is output − target."""

    name: str
    """The name of its column."""
    title: str
    """The heading of its column in a printed table."""
    label: str
    """Its name in a sentence and on an axis: "RMS error where the target is 1"."""
    is_error: bool = True
    """Whether it is the size of an error, 0 or more, and so can be drawn on a logarithmic axis."""


METRICS = (
    Metric("worst_error", "worst error", "worst error"),
    Metric("mean_worst_error", "mean over outputs", "mean over outputs of the worst error"),
    Metric("rms", "RMS", "RMS error"),
    Metric("rms_ones", "RMS at ones", "RMS error where the target is 1"),
    Metric("rms_zeros", "RMS at zeros", "RMS error where the target is 0"),
    Metric("rms_active", "RMS at active", "RMS error of outputs with an active feature"),
    Metric("rms_inactive", "RMS at inactive", "RMS error of outputs without an active feature"),
    Metric("within_quarter", "within 1/4", "share of outputs with an error of at most 1/4", is_error=False),
    Metric("seconds", "seconds", "seconds of training and fitting", is_error=False),
)
"""Largest |error|; mean over outputs of each output's largest; root mean square over all and in each group of the task; share of
outputs within 1/4; seconds to make the readoff. A task of your own may add groups of other names (rms_NAME)."""

ABOUT = ("run", "seed", "covered", "n_pairs", "all_pairs", "proved", "lower_bound", "threads", "stopped_at")
"""Columns that are neither settings nor errors."""

OWN = "measures"
"""Column of the rows of a kind of run that measures more than METRICS: the names of these columns (`Experiment.measures`)."""

ERRORS = {metric.name: metric.label for metric in METRICS if metric.is_error}
"""Columns of errors, and their labels."""

KEYS = ("task", "seed", "first_layer", "readoff")
"""Columns that say which network a row measures."""

NOT_SETTINGS = ("kind", "train_first", OWN, *KEYS, *ABOUT)
"""Columns that are neither metrics nor settings of the run (`first_layer` says the same as `train_first`)."""


def is_metric(column: str) -> bool:
    """Whether a column holds one of METRICS, the RMS error of a group or a share within a tolerance; no interval of one."""
    group = column.startswith(("rms_", "within_")) and not column.endswith("_interval")
    return group or column in {metric.name for metric in METRICS}


def all_metrics(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the columns of rows that are measured: those of `is_metric`, and those that the rows' kinds of runs name."""
    columns: dict[str, None] = {}
    own: dict[tuple[str, ...], None] = {}
    for row in rows:
        columns.update(dict.fromkeys(row))
        own[tuple(row.get(OWN) or ())] = None
    named = {name for names in own for name in names}
    return [column for column in columns if column in named or is_metric(column)]


def wrong_value(row: Mapping[str, Any]) -> str:
    """Describe the first value that a row of results cannot have; "" if it can have all. A missing value (None) is no error.

    Metrics are finite numbers from 0 up, what a kind of run measures beside them any finite numbers.
    """
    whole = ("m", "d", "seed", "n_pairs", "all_pairs", "threads", "stopped_at")
    texts = ("kind", "run", "task", "first_layer", "readoff", "covered")
    own = row.get(OWN) or ()
    if not isinstance(own, list | tuple) or not all(isinstance(name, str) for name in own):
        return f"{OWN} is {reprlib.repr(own)}"
    for column, value in row.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
        right = not _holds_other(value)
        if column in whole:
            right = isinstance(value, int) and number and value >= 0
        elif column in texts:
            right = isinstance(value, str)
        elif is_metric(column):
            right = number and value >= 0
        elif column == "lower_bound" or column in own:
            right = number
        elif column == "proved":
            right = isinstance(value, bool)
        if value is not None and not right:
            return f"{column} is {reprlib.repr(value)}"
    return ""


def _holds_other(value: Any) -> bool:
    """Whether a value is, or a list holds, a mapping or a number that is not finite."""
    if isinstance(value, list | tuple):
        return any(map(_holds_other, value))
    return isinstance(value, dict) or (isinstance(value, float) and not math.isfinite(value))


def title(column: str) -> str:
    """Return the heading of a metric's column."""
    known = {metric.name: metric.title for metric in METRICS}
    return known.get(column, column.replace("rms_", "RMS at ").replace("_", " "))


def within_names(tolerances: Sequence[float | int] | None) -> list[str]:
    """Return the columns of the shares of outputs within tolerances of one's own."""
    return [f"within_{tolerance:.10g}" for tolerance in tolerances or ()]


def error_label(column: str) -> str:
    """Return the label of an error, or of what a kind of run measures beside errors, for a sentence or an axis."""
    return ERRORS.get(column, column.replace("rms_", "RMS error at ").replace("_", " "))


def is_error(column: str) -> bool:
    """Whether a column is the size of an error, 0 or more."""
    return column in ERRORS or (column.startswith("rms_") and is_metric(column))


def check_metric(column: str, rows: Iterable[Mapping[str, Any]] = ()) -> None:
    """Raise InputError for a column that is neither an error nor named by the rows' kinds of runs as one that they measure."""
    if not is_error(column):
        check_choice([*ERRORS, *dict.fromkeys(name for row in rows for name in row.get(OWN) or ())], metric=column)


def metric_columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the metrics that some row has, in the order of METRICS, then those of other groups and of kinds, seconds last."""
    rows = list(rows)
    present = [name for name in all_metrics(rows) if any(row.get(name) is not None for row in rows)]
    known = [metric.name for metric in METRICS if metric.name in present and metric.name != "seconds"]
    others = [column for column in present if column not in (*known, "seconds")]
    return [*known, *others, *(["seconds"] if "seconds" in present else [])]


def metrics_of(evaluation: Mapping[str, Any], tolerances: Sequence[float | int] | None = None) -> dict[str, Any]:
    """Return the metrics of an evaluation (as `Evaluation.to_dict` writes it), and which inputs and outputs it covers."""
    worst = evaluation["output_worst"]
    # A group without any outputs has no error.
    groups = {name: group["rms"] if group["share"] > 0 else None for name, group in evaluation["groups"].items()}
    return {
        "worst_error": evaluation["worst_error"],
        "mean_worst_error": sum(worst) / len(worst),
        "rms": evaluation["rms"],
        **{f"rms_{name}": rms for name, rms in groups.items()},
        "within_quarter": evaluation["within"]["0.25"],
        **{name: evaluation["within"][name.removeprefix("within_")] for name in within_names(tolerances)},
        "covered": evaluation["inputs"],
        "n_pairs": evaluation["n_outputs"],
    }
