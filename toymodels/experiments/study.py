"""Measure a list of cases and write each as a line of a JSON lines file; a stopped study can be continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from toymodels.errors import InputError
from toymodels.parallel.progress import Bar
from toymodels.runs.metrics import Row
from toymodels.runs.storage import write_atomically


def study(path: Path, keys: Iterable[Mapping[str, Any]], measure: Callable[[Row], Mapping[str, Any]]) -> list[Row]:
    """Return one row for each key, in the order of the keys: read from the file, or measured now and added to it at once.

    A key is a dict of the settings that identify a case; `measure(key)` returns the measured numbers, and a row has both. Rows of
    other keys stay in the file. Raises InputError for a damaged file.
    """
    wanted = [dict(key) for key in keys]
    rows = load(path) if path.exists() else []
    missing = [key for key in wanted if _find(rows, key) is None]
    for key in Bar("measuring", len(missing), "case", leave=True).over(missing):
        rows.append({**key, **measure(key)})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(path, partial(Path.write_text, data=text))
    return stored(path, wanted) if wanted else []


def stored(path: Path, keys: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return the row of each key, in the order of the keys, without measuring.

    Raises InputError for a file that is missing, damaged or lacks a row.
    """
    rows, result = load(path), []
    for key in keys:
        row = _find(rows, key)
        if row is None:
            missing = ", ".join(f"{name} = {value}" for name, value in key.items())
            raise InputError(f"{path} lacks {missing}: measure it first")
        result.append(row)
    return result


def load(path: Path) -> list[Row]:
    """Read all rows of the file. Raises InputError for a file that is missing or damaged."""
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError:
        raise InputError(f"{path} is missing: measure first") from None
    except (ValueError, RecursionError) as error:  # not JSON, or not text
        raise InputError(f"{path} is damaged ({error}): delete it and measure again") from None
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path} is damaged (a line is no JSON object): delete it and measure again")
    return rows


def _find(rows: Iterable[Row], key: Mapping[str, Any]) -> Row | None:
    return next((row for row in rows if all(row.get(name) == value for name, value in key.items())), None)
