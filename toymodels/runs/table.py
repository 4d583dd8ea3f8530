"""Read the results of any number of runs as one tidy table: the rows that each run wrote, one after the other.

Columns: kind, run, every setting by its name (knobs of first layers that some run sets as layer_KNOB; lists of seeds, tasks,
readoffs and first layers have become rows), task, seed, first_layer, readoff, the metrics, covered (which inputs), n_pairs
(outputs measured), all_pairs (outputs of the task), proved and lower_bound (of minimax rows), threads, stopped_at (the step at
which early termination ended the run), measures (the columns that its kind of run measures beside the metrics). A column that a
row does not have is None.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toymodels.errors import InputError, notice
from toymodels.given import read_text
from toymodels.runs.identity import KNOB, NOT_IN_IDENTITY
from toymodels.runs.metrics import ABOUT, KEYS, OWN, Row, all_metrics, metric_columns, title, wrong_value
from toymodels.runs.old import SILENT, rows_of_old_run
from toymodels.runs.record import OLD_FORMAT, load_config
from toymodels.runs.storage import check_writable, damaged, read_json, write_text
from toymodels.runs.text import mean_cell, render

_BECOME_ROWS = frozenset({"seeds", "task", "readoffs", "layers", "tolerances"})
_NEEDED = frozenset({"kind", "run", "seed"})
"""Columns that every row of a run has."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a text that begins with one of these for a formula."""


def tidy(
    kind: str, run: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], measures: Sequence[str] = ()
) -> list[Row]:
    """Add a run's settings to each of its rows, and the names of what its kind measures, if it names any."""
    common = {key: value for key, value in settings.items() if key not in NOT_IN_IDENTITY | _BECOME_ROWS}
    about = dict.fromkeys(name for name in ABOUT if name != "run")
    own = {OWN: list(measures)} if measures else {}
    return [{"kind": kind, "run": run, **common, **about, **own, **row} for row in rows]


def read_result(folder: Path) -> dict[str, Any]:
    """Read the results of a finished run, as tidy rows also if an earlier version wrote them.

    Raises InputError for a run that is not finished, and for a damaged record.
    """
    saved = load_config(folder)
    content: dict[str, Any] = read_json(folder / "results.json")
    if saved.format == OLD_FORMAT and isinstance(content, dict):
        try:
            rows = rows_of_old_run(saved, content)
        except (KeyError, TypeError, AttributeError, ValueError):
            rows = []
        extra = {key: content.get(key, empty) for key, empty in (("genericity", {}), ("notes", []))}
        settings = {key: value for key, value in saved.config.items() if key not in NOT_IN_IDENTITY}
        name = f"{saved.kind} {json.dumps(settings, sort_keys=True)}"
        tidy_rows = tidy(saved.kind, folder.name, {**SILENT, **saved.config}, rows)
        content = {"format": OLD_FORMAT, "name": name, "rows": tidy_rows, **extra}
    table = content.get("rows") if isinstance(content, dict) and "name" in content else None
    whole = isinstance(table, list) and all(isinstance(row, dict) and row.keys() >= _NEEDED for row in table)
    if not table or not whole or not isinstance(content["name"], str):
        raise damaged(folder / "results.json", "its rows are not those of a run")
    wrong = next(filter(None, map(wrong_value, table)), "")
    if wrong:
        raise damaged(folder / "results.json", wrong)
    return content


def finished_runs(folder: Path) -> tuple[dict[Path, dict[str, Any]], list[InputError]]:
    """Return the results of all finished runs below a folder, and what is wrong with those that cannot be read."""
    results: dict[Path, dict[str, Any]] = {}
    left_out: list[InputError] = []
    for run in sorted(path.parent for path in folder.rglob("config.json") if (path.parent / "results.json").exists()):
        try:
            results[run] = read_result(run)
        except InputError as error:
            left_out.append(error)
    return results, left_out


def read_table(folder: Path | str) -> list[Row]:
    """Read the rows of all finished runs below a folder, or of a table written by `write` (.csv or .jsonl).

    All rows have the same keys. A run with two records (alone and in a sweep, say) counts once. A run that cannot be read is left
    out, and a sentence on standard error says so.
    Raises InputError for a folder without a finished run that can be read, and for a file that is not such a table.
    """
    folder = Path(folder)
    if folder.is_file():
        return _from_file(folder)
    if not folder.is_dir():
        state = "is a pipe or a device" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {state}: name the folder of a run or a sweep, or a table (.csv, .jsonl)")
    results, left_out = finished_runs(folder)
    if left_out and not results:
        raise left_out[0]
    for error in left_out:
        notice(f"left out of the table: {error}")
    distinct: dict[str, dict[str, Any]] = {}
    for content in results.values():
        distinct.setdefault(content["name"], content)
    runs = list(distinct.values())
    if not runs:
        raise InputError(f"{folder} holds no finished run: name the folder of a run or a sweep")
    columns = list(dict.fromkeys(key for content in runs for row in content["rows"] for key in row))
    return [
        {column: row[column] if column in row else _knob(content, row, column) for column in columns}
        for content in runs
        for row in content["rows"]
    ]


def _knob(content: Mapping[str, Any], row: Row, column: str) -> Any:
    """Return a knob of a row's first layer that its run left at the default, for the column of other runs that set it."""
    known = content.get("knobs")
    knobs = known.get(row.get("first_layer")) if column.startswith(KNOB) and isinstance(known, dict) else None
    return knobs.get(column.removeprefix(KNOB)) if isinstance(knobs, dict) else None


def read_frame(folder: Path | str) -> Any:
    """Read the table as a pandas DataFrame. Raises InputError if pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise InputError("a DataFrame needs the package pandas: pip install pandas, or use read_table") from None
    return pandas.DataFrame(read_table(folder))


def write(folder: Path, path: Path) -> str:
    """Write the table as CSV or JSON lines, by the file's ending; return a sentence about it."""
    if path.suffix not in (".csv", ".jsonl"):
        raise InputError(f"{path}: the table is written as .csv or as .jsonl, name a file with one of these endings")
    check_writable(path)
    rows = read_table(folder)
    write_text(path, csv_text(rows) if path.suffix == ".csv" else "".join(json.dumps(row) + "\n" for row in rows))
    runs = len({(row["kind"], row["run"]) for row in rows})
    return f"{path}: rows: {len(rows):,}, runs: {runs:,}"


def csv_text(rows: Sequence[Row]) -> str:
    """Write rows of the same keys as CSV that `read_table` reads back, and no spreadsheet takes for formulas."""
    buffer = io.StringIO(newline="")
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(map(_cell, rows[0]))
    table.writerows([[_cell(value) for value in row.values()] for row in rows])
    return buffer.getvalue()


def _cell(value: Any) -> str:
    """Write a text as it is if it is read back as this text, anything else as JSON: lists, truth values, a gate "true"."""
    plain = isinstance(value, str) and _parsed(value) == value and not value.startswith(_FORMULA)
    return str(value) if plain else json.dumps(value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def parse_value(text: str) -> Any:
    """Parse a value of the command line: JSON (numbers, true, null, lists as tuples), or else the text itself."""
    return hashable(_parsed(text))


def hashable(value: Any) -> Any:
    """Turn lists into tuples, and mappings into JSON, so that values of settings can be counted."""
    if isinstance(value, list | tuple):
        return tuple(map(hashable, value))
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def _from_file(path: Path) -> list[Row]:
    try:
        text = read_text(path, "a table of results (.csv or .jsonl)", 2**31)
        rows = _from_csv(text) if path.suffix == ".csv" else list(map(_from_json, filter(str.strip, text.splitlines())))
    except InputError:
        raise
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        raise InputError(f"{path} is not a table of results ({error}): write one with `toymodels results`") from None
    missing = sorted((_NEEDED | {"worst_error"}) - set(rows[0] if rows else ()))
    what = f"it lacks {', '.join(missing)}" if missing else ""
    if any(row.keys() != rows[0].keys() for row in rows):
        what = what or "its rows have different columns"
    what = what or next((f"row {i}: {wrong}" for i, row in enumerate(rows, 1) if (wrong := wrong_value(row))), "")
    if what:
        raise InputError(f"{path} is not a table of results ({what}): write one with `toymodels results`")
    return rows


def _from_csv(text: str) -> list[Row]:
    header, *lines = [*filter(None, csv.reader(io.StringIO(text, newline=""), strict=True))] or [[]]
    names = _different([str(_parsed(name)) for name in header])
    for position, line in enumerate(lines, 1):
        if len(line) != len(names):
            raise ValueError(f"row {position} has {len(line)} cells, and there are {len(names)} columns")
    return [dict(zip(names, map(_parsed, line), strict=True)) for line in lines]


def _from_json(line: str) -> Row:
    def row(pairs: list[tuple[str, Any]]) -> Row:
        _different([name for name, _ in pairs])
        return dict(pairs)

    content = json.loads(line, object_pairs_hook=row)
    if not isinstance(content, dict):
        raise ValueError(f"a line is not an object: {line[:40]}")
    return content


def _different(names: list[str]) -> list[str]:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"there are two columns {twice}")
    return names


def describe(folder: Path) -> str:
    """Write the table as text: means over seeds with 95 % t intervals, and the columns of the settings that differ."""
    rows = read_table(folder)
    measured = {*all_metrics(rows), *ABOUT, OWN}
    names = [key for key in rows[0] if key not in measured]
    varying = [name for name in names if len({json.dumps(row[name]) for row in rows}) > 1]
    groups: dict[str, dict[int, Row]] = {}
    settings = [name for name in varying if name not in KEYS]  # layers and readoffs keep the order of their run
    for row in sorted(rows, key=lambda row: [_order(row[name]) for name in settings]):
        # A seed may be in two runs, alone and with others: it is the same network.
        groups.setdefault(json.dumps([row[name] for name in varying]), {})[row["seed"]] = row
    metrics = [name for name in metric_columns(rows) if name not in ("seconds", "rms")]
    header = (*varying, "seeds", *map(title, metrics))
    lines = []
    for members in map(dict.values, groups.values()):
        cells = [_shown(next(iter(members))[name]) for name in varying]
        lines.append((*cells, str(len(members)), *(mean_cell(members, name) for name in metrics)))
    coverage = ", ".join(sorted({str(row["covered"]) for row in rows if row.get("covered") is not None})) or "not named"
    worst = f"worst error: largest |output − target| over all outputs and inputs covered ({coverage})"
    note = f"{worst}; ± 95 % t intervals over seeds"
    stopped = len({(row["kind"], row["run"]) for row in rows if row.get("stopped_at") is not None})
    if stopped:
        note += f"\nruns stopped early: {stopped:,}"
    failed = len(list(Path(folder).rglob("failed/*.json")))
    if failed:
        note += f"\nfailed runs, not in the table: {failed:,} (reasons in {Path(folder)}/…/failed)"
    return f"{render(header, lines, right=range(len(varying), len(header)))}\n\n{note}"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_shown, value))
    return "-" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def levels(rows: Iterable[Row], column: str) -> list[Any]:
    """Return the distinct values of a column, in order; rows without a value count for nothing."""
    return sorted(dict.fromkeys(row[column] for row in rows if row.get(column) is not None), key=_order)


def _order(value: Any) -> tuple[int, Any]:
    """Sort missing values first, then numbers, lists by their length and items, and texts."""
    if value is None:
        return 0, 0
    if isinstance(value, list | tuple):
        return 2, (len(value), tuple(map(_order, value)))
    return (3, value) if isinstance(value, str) else (1, value)
