"""The measured numbers of a row of results: their columns, and their words in tables and figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """One measured number of a row. Error: output − target."""

    name: str
    """Its column."""
    title: str
    """Over its column in a printed table."""
    label: str
    """In a sentence and on an axis: "RMS error where the target is 1"."""
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
"""In the order of tables. A row has None where its task has no such outputs; old tables lack some columns."""

ERRORS = {metric.name: metric.label for metric in METRICS if metric.is_error}
"""Columns of errors, and their words."""

KEYS = ("task", "seed", "first_layer", "readoff")
"""Columns that say what a row measures; every row has them."""

ABOUT = ("kind", "run", "train_first", *KEYS, "covered", "n_pairs", "proved", "stopped_at")
"""Columns that are neither metrics nor settings of the run (`train_first` is told by `first_layer`)."""
