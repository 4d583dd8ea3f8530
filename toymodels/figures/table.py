"""Tables of results: read, checked and cut down so that like is compared with like.

A table is a list of rows, one for each (run, seed, task, first layer, readoff), with every configuration field under its
own name and the errors measured; `toymodels results` writes it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig
from toymodels.experiments.train import TrainConfig
from toymodels.runs.config import NOT_IN_IDENTITY
from toymodels.runs.table import read_table

Row = dict[str, Any]

ERRORS = {
    "worst_error": "worst error",
    "mean_worst_error": "mean over pairs of the worst error",
    "rms_ones": "RMS error where the target is 1",
    "rms_zeros": "RMS error where the target is 0",
}
"""Columns of errors (output − target), and what they are."""


def title_of(error: str) -> str:
    """What an error is, at the start of a title."""
    return ERRORS[error][0].upper() + ERRORS[error][1:]


KEYS = ("task", "seed", "first_layer", "readoff")
# The gate, the seed, the first layer and the readoff have columns of their own in a row.
_NOT_SETTINGS = NOT_IN_IDENTITY | {"task", "seeds", "train_first", "readoffs", "layers"}
SETTINGS = tuple(
    dict.fromkeys(
        field.name
        for config in (CompareConfig, TrainConfig)
        for field in dataclasses.fields(config)
        if field.name not in _NOT_SETTINGS
    )
)
"""Configuration fields that change a result and stand in a row under their own name."""


def load_table(path: Path) -> list[Row]:
    """The rows of all finished runs below a folder, or of a table file (.jsonl, .csv); lists become tuples.

    Raises InputError where there is nothing, no finished run, or a file that is no such table.
    """
    if not path.exists():
        raise InputError(f"{path} is not there: name a sweep's folder, or a table written by toymodels results")
    if path.is_file() and path.suffix not in (".jsonl", ".csv"):
        raise InputError(f"{path} is no table: name a sweep's folder, or a .jsonl or .csv file of toymodels results")
    rows = read_table(path)
    if not rows:
        raise InputError(f"{path} holds no finished run: there is nothing to draw")
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is not a table of results: write one with toymodels results")
    return [{key: _hashable(value) for key, value in row.items()} for row in rows]


def parse_value(text: str) -> Any:
    """A value on the command line: JSON (numbers, true, lists), or else text as it stands."""
    try:
        return _hashable(json.loads(text))
    except json.JSONDecodeError:
        return text


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def require(rows: Sequence[Row], columns: Iterable[str] = (), numbers: Iterable[str] = ()) -> None:
    """Raises InputError for a column that is missing, or a number that is not a finite one (errors: 0 or more)."""
    numbers = tuple(numbers)
    for column in (*KEYS, *columns, *numbers):
        number = next((i for i, row in enumerate(rows, 1) if row.get(column) is None), None)
        if number is not None:
            raise InputError(f"row {number} of the table has no {column}: this needs it in every row")
    for column in numbers:
        for number, row in enumerate(rows, 1):
            value = row[column]
            real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if not real or value < 0:
                raise InputError(f"row {number} of the table has {column} = {value!r}: it must be a number from 0 up")


def where(rows: Sequence[Row], conditions: Iterable[str]) -> list[Row]:
    """The rows that meet every condition NAME=VALUE. Raises InputError for one that is none, or that no row meets."""
    chosen = list(rows)
    for condition in conditions:
        name, equals, text = condition.partition("=")
        if not equals or not any(name in row for row in rows):
            known = ", ".join(dict.fromkeys(key for row in rows for key in row))
            raise InputError(f"the condition {condition!r} is not NAME=VALUE with a column of the table: {known}")
        value = parse_value(text)
        there = values(chosen, name)
        chosen = [row for row in chosen if row.get(name) == value]
        if not chosen:
            raise InputError(f"no row has {condition}: {name} is {', '.join(map(show, there))}")
    return chosen


def values(rows: Iterable[Row], column: str) -> list[Any]:
    """The distinct values of a column, in order; none for a column that is not there."""
    found = dict.fromkeys(row[column] for row in rows if row.get(column) is not None)
    return sorted(found, key=_order)


def _order(value: Any) -> tuple[int, Any]:
    """Numbers, then lists by their length and content, then words."""
    if isinstance(value, tuple):
        return 1, (len(value), tuple(map(_order, value)))
    return (2, value) if isinstance(value, str) else (0, value)


def varied(rows: Sequence[Row]) -> list[str]:
    """The settings that take more than one value."""
    return [name for name in SETTINGS if len(values(rows, name)) > 1]


def split(rows: Sequence[Row], axes: Iterable[str]) -> list[tuple[str, list[Row]]]:
    """(settings in words, rows) for each combination of the varied settings that no axis shows."""
    names = [name for name in varied(rows) if name not in set(axes)]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(name) for name in names), []).append(row)
    return [
        (", ".join(f"{name} = {show(value)}" for name, value in zip(names, key, strict=True)), members)
        for key, members in groups.items()
    ]


def single(rows: Sequence[Row], axes: Iterable[str]) -> list[Row]:
    """The rows of runs that were not stopped early, which must not vary in any setting that no axis shows.

    Raises InputError that names the setting, or if all were stopped.
    """
    everything, rows = rows, [row for row in rows if row.get("stopped_at") is None]
    if everything and not rows:
        raise InputError("all runs of this table were stopped early: errors along a setting need runs that were not")
    for name in varied(rows):
        if name not in set(axes):
            there = values(rows, name)
            raise InputError(
                f"{name} varies too ({', '.join(map(show, there))}), and the figure does not show it: choose one value, "
                f"--where {name}={json.dumps(there[0]) if isinstance(there[0], tuple) else there[0]}"
            )
    return rows


def show(value: Any) -> str:
    """A value in words: numbers short, exponents as 2→4→8."""
    if isinstance(value, tuple):
        return "→".join(map(show, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def series(rows: Iterable[Row]) -> list[tuple[str, str]]:
    """The (first layer, readoff) pairs: no layer, frozen layers, the trained one; readoffs from the simplest up."""
    order = ["constant", "analytic", "least_squares", "balanced", "trained", "minimax"]

    def place(key: tuple[str, str]) -> tuple[int, str, int, str]:
        layer, readoff = key
        rank = order.index(readoff) if readoff in order else len(order)
        return {"identity": 0, "trained": 2}.get(layer, 1), layer, rank, readoff

    return sorted({(str(row["first_layer"]), str(row["readoff"])) for row in rows}, key=place)


def of_series(rows: Iterable[Row], task: str, key: tuple[str, str]) -> list[Row]:
    """The rows of one gate, first layer and readoff."""
    return [row for row in rows if (row["task"], row["first_layer"], row["readoff"]) == (task, *key)]


def by_seed(rows: Sequence[Row], axis: str, error: str) -> tuple[list[Any], Float[np.ndarray, "seeds places"]]:
    """(values of the axis, errors of each seed there), nan where a seed has none."""
    places, seeds = values(rows, axis), values(rows, "seed")
    found = np.full((len(seeds), len(places)), np.nan)
    for row in rows:
        found[seeds.index(row["seed"]), places.index(row[axis])] = row[error]
    return places, found


def span(numbers: Sequence[int]) -> str:
    """Seeds in words: seed 3, seeds 0–4, or seeds 0, 2, 5."""
    run = list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
    if len(numbers) == 1:
        return f"seed\u00a0{numbers[0]}"
    words = f"{numbers[0]}–{numbers[-1]}" if run and len(numbers) > 2 else ", ".join(map(str, numbers))
    return f"seeds\u00a0{words}"


def domain(rows: Sequence[Row]) -> str:
    """Which inputs, how covered, which pairs and which seeds, in words; what the table does not say is left out."""
    laws = {"exactly": "exactly {} active", "at_most": "at most {} active", "independent": "{} active in expectation"}
    kinds, counts = values(rows, "inputs"), values(rows, "s")
    parts = []
    if len(kinds) == 1 and kinds[0] in laws:
        parts.append(laws[kinds[0]].format("s" if len(counts) != 1 else show(counts[0])))
    covered = [str(text) for text in values(rows, "covered")]
    if covered:
        full = [text.startswith("all ") for text in covered]
        some = "; ".join(text for text, every in zip(covered, full, strict=True) if not every)
        shown = covered[0] + " inputs" if len(covered) == 1 else "all inputs" if all(full) else some
        parts.append(shown + (" or all inputs" if any(full) and not all(full) else ""))
    if all("n_pairs" in row and "m" in row for row in rows):
        every = all(row["n_pairs"] == math.comb(row["m"], 2) for row in rows)
        parts.append("all pairs" if every else "all pairs, or those chosen or sampled")
    return ", ".join([*parts, span(values(rows, "seed"))])
