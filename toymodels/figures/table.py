"""Read, check and cut down tables of results, so that like is compared with like.

A table is a list of rows, one for each (run, seed, task, first layer, readoff), with every setting of the run in a column of its
own and the errors measured; `toymodels results` writes it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.figures.series import Key, Method, format_value, gate_of, seeds_in_words
from toymodels.runs.metrics import KEYS, NOT_SETTINGS, Row, all_metrics, error_label
from toymodels.runs.table import hashable, levels, parse_value, read_table
from toymodels.runs.text import grouped


class Varies(InputError):  # noqa: N818
    """A setting takes several values in rows of which a figure shows one."""

    def __init__(self, setting: str, message: str):
        super().__init__(message)
        self.setting = setting


def load_table(path: Path) -> list[Row]:
    """Read the rows of all finished runs below a folder, or of a table file (.jsonl, .csv); lists become tuples.

    Raises InputError where nothing is, where no run has finished, and for a file that is no such table.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist: name a sweep's folder, or a table written by toymodels results")
    if path.is_file() and path.suffix not in (".jsonl", ".csv"):
        raise InputError(f"{path} is no table: name a sweep's folder, or a .jsonl or .csv file of toymodels results")
    return [{column: hashable(value) for column, value in row.items()} for row in read_table(path)]


def title_of(metric: str) -> str:
    """Name an error at the start of a title."""
    label = error_label(metric)
    return label[0].upper() + label[1:]


def require(rows: Sequence[Row], columns: Iterable[str] = (), numbers: Iterable[str] = ()) -> None:
    """Check that every row has a value in these columns, and in `numbers` a finite number from 0 up.

    Raises InputError that names the first row and column that lack it.
    """
    numbers = tuple(numbers)
    for column in dict.fromkeys((*KEYS, *columns, *numbers)):
        missing = next((i for i, row in enumerate(rows, 1) if row.get(column) is None), None)
        if missing is not None:
            raise InputError(
                f"row {missing} of the table has no {column}: the figure needs it in every row (choose rows with --where)"
            )
    for column in numbers:
        for i, row in enumerate(rows, 1):
            value = row[column]
            real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not real or value < 0:
                raise InputError(f"row {i} of the table has {column} = {value!r}: it must be a number from 0 up")


def filter_rows(rows: Sequence[Row], conditions: Iterable[str]) -> list[Row]:
    """Keep the rows that meet every condition NAME=VALUE.

    Raises InputError if a condition is malformed or matches no row.
    """
    kept = list(rows)
    for condition in conditions:
        name, equals, text = condition.partition("=")
        if not equals or not any(name in row for row in rows):
            known = ", ".join(dict.fromkeys(column for row in rows for column in row))
            raise InputError(f"the condition {condition!r} is not NAME=VALUE with a column of the table: {known}")
        before, value = kept, parse_value(text)
        kept = [row for row in kept if row.get(name) == value]
        if not kept:
            known = ", ".join(map(format_value, levels(before, name)))
            raise InputError(f"no row has {condition}: {name} is {known}")
    return kept


def settings_of(rows: Iterable[Row]) -> list[str]:
    """Return the columns that are settings of the runs."""
    rows = list(rows)
    others = {*all_metrics(rows), *NOT_SETTINGS}
    return [column for column in dict.fromkeys(c for row in rows for c in row) if column not in others]


def varied(rows: Sequence[Row]) -> list[str]:
    """Return the settings that take more than one value; within one kind of run, none at all is a value, too."""
    names = []
    for name in settings_of(rows):
        of_kind: dict[Any, set[Any]] = {}
        for row in rows:
            of_kind.setdefault(row.get("kind"), set()).add(row.get(name))
        if len(levels(rows, name)) > 1 or any(len(found) > 1 for found in of_kind.values()):
            names.append(name)
    return names


def split_by(rows: Sequence[Row], column: str) -> list[tuple[str, list[Row]]]:
    """Split rows by a column: (NAME = VALUE in words, rows) for each of its values."""
    groups = grouped(rows, lambda row: row.get(column))
    return [(f"{column} = {format_value(value)}", members) for value, members in groups.items()]


def require_one(rows: Sequence[Row], *columns: str) -> list[Any]:
    """Return the one value that each column has in all rows. Raises Varies for a column with several."""
    for name in columns:
        found: list[Any] = levels(rows, name)
        if len({row.get(name) for row in rows}) > 1:
            example = found[0] if not isinstance(found[0], tuple) else json.dumps(found[0])
            words = [format_value(value) for value in (*([None] if len(found) == 1 else []), *found)]
            raise Varies(
                name,
                f"{name} varies too ({', '.join(words)}), and the figure does not show it: choose one value, "
                f"--where {name}={example}",
            )
    return [rows[0].get(name) for name in columns]


def require_fixed(rows: Sequence[Row], axes: Iterable[str]) -> list[Row]:
    """Return the rows of runs that were not stopped early, which must not vary in any setting that no axis shows.

    Raises Varies, an InputError that names the setting, and InputError if all runs were stopped.
    """
    finished = [row for row in rows if row.get("stopped_at") is None]
    if rows and not finished:
        raise InputError("all runs of this table were stopped early: errors along a setting need runs that were not")
    for name in varied(finished):
        if name not in set(axes):
            require_one(finished, name)
    return finished


def select_series(rows: Iterable[Row], task: str, key: Key) -> list[Row]:
    """Return the rows of one task, first layer and readoff."""
    return [row for row in rows if (row["task"], row["first_layer"], row["readoff"]) == (task, *key)]


def errors_by_seed(
    rows: Sequence[Row], axis: str, metric: str
) -> tuple[list[Any], Float[np.ndarray, "seeds positions"]]:
    """Return (values of the axis, errors of each seed at each of them), nan where a seed has none."""
    positions, seeds = levels(rows, axis), levels(rows, "seed")
    errors = np.full((len(seeds), len(positions)), np.nan)
    for row in rows:
        errors[seeds.index(row["seed"]), positions.index(row[axis])] = row[metric]
    return positions, errors


def layer_knobs(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the columns layer_… of first layers' knobs in which rows differ (none at all is a value, too)."""
    return tuple(
        name for name in settings_of(rows) if name.startswith("layer_") and len({row.get(name) for row in rows}) > 1
    )


def method_of(row: Row, columns: Iterable[str]) -> Method:
    """Return the method of a row; `columns` are those of the first layers' knobs, as `layer_knobs` returns them."""
    knobs = tuple((column.removeprefix("layer_"), row.get(column)) for column in columns)
    return Method(row["first_layer"], row["readoff"], knobs)


ALL_SETS = {"exactly": "exactly {} active", "at_most": "at most {} active", "independent": "{} active in expectation"}
"""Inputs in which all sets of some size are active, each as often as another: laws and affine levels hold for these alone."""


def laws_hold(rows: Sequence[Row]) -> bool:
    """Whether laws and affine levels speak about the inputs of all rows."""
    return all(row.get("inputs") is None or row["inputs"] in ALL_SETS for row in rows)


def active_in_words(row: Mapping[str, Any], s: str | None = None) -> str:
    """Say how many features are active, "exactly 2 active", by the columns inputs and s; empty where they do not say."""
    inputs, number = row.get("inputs"), s or format_value(row.get("s"))
    if inputs is None or inputs in ALL_SETS:
        return ALL_SETS.get(str(inputs), "").format(number)
    return f"inputs {inputs}, s = {number}"


def covered_in_words(rows: Sequence[Row]) -> str:
    """Say whether all inputs were covered, or a sample of them."""
    full = [str(text).startswith("all ") for text in levels(rows, "covered")]
    return "all inputs" if all(full) else "all inputs or a sample of them" if any(full) else "a sample of the inputs"


def coverage(rows: Sequence[Row]) -> str:
    """Say which inputs count, how they are covered, which outputs and which seeds; what the table lacks is left out."""
    counts, parts = levels(rows, "s"), []
    if len(levels(rows, "inputs")) == 1 and (words := active_in_words(rows[0], None if len(counts) == 1 else "s")):
        parts.append(words)
    if covered := [str(text) for text in levels(rows, "covered")]:
        sampled = [text for text in covered if not text.startswith("all ")]
        if len(covered) == 1:
            parts.append(f"{covered[0]} inputs")
        else:
            some = ["; ".join(sampled) + " inputs"] if sampled else []
            parts.append(" or ".join([*some, *(["all inputs"] if len(sampled) < len(covered) else [])]))
    if all(row.get("n_pairs") and row.get("m") and gate_of(row["task"]) for row in rows):
        every = all(row["n_pairs"] == math.comb(row["m"], 2) for row in rows)
        parts.append("all pairs" if every else "all pairs, or those chosen or sampled")
    return ", ".join([*parts, seeds_in_words(levels(rows, "seed"))])
