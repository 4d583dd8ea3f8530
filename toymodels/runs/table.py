"""Results of any number of runs as one tidy table: a row for each run, seed, gate, first layer and readoff.

Columns: kind, run, every field of the configuration by its own name (but `task`, the row's own gate, and the lists of
seeds, gates and readoffs, which have become rows), seed, first_layer, readoff, the figures, covered (how inputs were
covered), n_pairs, proved (of minimax rows), stopped_at (the step at which early termination ended the run). Where kinds are
mixed, a field that a kind does not have is None.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toymodels.runs import text as tables
from toymodels.runs.config import NOT_IN_IDENTITY, from_dict, to_dict
from toymodels.errors import InputError
from toymodels.experiments.bench import FIGURES
from toymodels.experiments.kinds import kind_of
from toymodels.experiments.train import headline
from toymodels.theory.gates import Gate
from toymodels.runs.record import load_config, run_name
from toymodels.theory.statistics import mean_interval
from toymodels.runs.storage import check_writable, read_json, write_atomically

_ROWS = frozenset({"seeds", "task", "readoffs", "layers"})
_ABOUT = ("run", "seed", "covered", "n_pairs", "proved", "stopped_at")
"""Columns that say nothing of what was varied."""
_COLUMNS = frozenset({"kind", "task", "first_layer", "readoff", *FIGURES, *_ABOUT})
"""Columns that every table has."""


def read_table(folder: Path | str) -> list[dict[str, Any]]:
    """The rows of all finished runs below a folder, or of a table written by `write` (.csv or .jsonl).

    All rows have the same keys. A run that stands there twice (alone and in a sweep, say) counts once.
    Raises InputError for a folder without a finished run, for a damaged record, and for a file that is no such table.
    """
    folder = Path(folder)
    if folder.is_file():
        return _from_file(folder)
    runs = sorted(path.parent for path in folder.rglob("config.json") if (path.parent / "results.json").exists())
    by_name: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        name, rows = _of_run(run)
        by_name.setdefault(name, rows)
    table = [row for rows in by_name.values() for row in rows]
    if not table:
        raise InputError(f"{folder} holds no finished run: name the folder of a run or a sweep")
    columns = list(dict.fromkeys(key for row in table for key in row))
    return [{column: row.get(column) for column in columns} for row in table]


def read_frame(folder: Path | str) -> Any:
    """`read_table` as a pandas DataFrame. Raises InputError if pandas is not installed."""
    try:
        import pandas
    except ImportError:
        raise InputError("a DataFrame needs the package pandas: pip install pandas, or use read_table") from None
    return pandas.DataFrame(read_table(folder))


def _of_run(folder: Path) -> tuple[str, list[dict[str, Any]]]:
    """(name made from the configuration alone, rows)."""
    saved = load_config(folder)
    kind = kind_of(saved["kind"])
    result = read_json(folder / "results.json", kind.needs)
    made = from_dict(kind.config, saved["config"])
    config = to_dict(made)
    fields = {key: value for key, value in config.items() if key not in NOT_IN_IDENTITY | _ROWS}
    common = {"kind": saved["kind"], "run": folder.name, **fields}
    rows = _of_compare if saved["kind"] == "compare" else _of_train
    try:
        return run_name(saved["kind"], made), [{**common, **row} for row in rows(config, result)]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise InputError(f"{folder / 'results.json'} is damaged: delete the run's folder and repeat the run") from None


def _of_compare(_: dict[str, Any], result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for row in result["rows"]:
        about = {"first_layer": row["layer"], "readoff": row["readoff"]}
        covered = {"covered": row["inputs"], "n_pairs": row["pairs"], "proved": row.get("proved"), "stopped_at": None}
        for seed in row["by_seed"]:
            figures = {name: seed[name] for name in FIGURES}
            yield {"task": row["task"], "seed": seed["seed"], **about, **figures, **covered}


def _of_train(config: dict[str, Any], result: dict[str, Any]) -> Iterator[dict[str, Any]]:
    law = "trained" if config["train_first"] else config["layer"]
    for seed in result["seeds"]:
        figures = {"seconds": seed["training_seconds"], **headline(seed["evaluation"])}
        covered = {"covered": figures["inputs"], "n_pairs": figures["pairs"], "proved": None}
        about = {"seed": seed["seed"], "first_layer": law, "readoff": "trained"}
        figures = {name: figures[name] for name in FIGURES}
        gate = Gate.parse(config["task"]).name
        yield {"task": gate, **about, **figures, **covered, "stopped_at": seed.get("stopped_at")}


def write(folder: Path, path: Path) -> str:
    """Write the table as CSV or JSON lines, by the file's ending; returns what was written, in words."""
    if path.suffix not in (".csv", ".jsonl"):
        raise InputError(f"{path}: the table is written as .csv or as .jsonl, name a file with one of these endings")
    check_writable(path)
    rows = read_table(folder)
    buffer = io.StringIO(newline="")
    if path.suffix == ".jsonl":
        for row in rows:
            buffer.write(json.dumps(row) + "\n")
    else:
        table = csv.writer(buffer, lineterminator="\n")
        table.writerow(rows[0])
        table.writerows([[_cell(value) for value in row.values()] for row in rows])
    write_atomically(path, lambda temporary: temporary.write_text(buffer.getvalue()))
    return f"{path}: {len(rows):,} rows of {len({(row['kind'], row['run']) for row in rows}):,} runs"


def _cell(value: Any) -> str:
    """Plain text where it is read back as what it is, otherwise JSON: lists, truth values, and a gate named "true"."""
    return value if isinstance(value, str) and _parsed(value) == value else json.dumps(value)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _from_file(path: Path) -> list[dict[str, Any]]:
    try:
        if path.suffix == ".csv":
            with open(path, newline="") as file:
                cells = list(csv.reader(file, strict=True))
            header = cells[0] if cells else []
            rows = [dict(zip(header, map(_parsed, line), strict=True)) for line in cells[1:]]
        else:
            rows = [dict(json.loads(line)) for line in path.read_text().splitlines()]
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path} is not a table of results ({error}): write one with `toymodels results`") from None
    missing = sorted(_COLUMNS - set(rows[0] if rows else ()))
    if missing or any(row.keys() != rows[0].keys() for row in rows):
        what = f"it lacks {', '.join(missing)}" if missing else "its rows have different columns"
        raise InputError(f"{path} is not a table of results ({what}): write one with `toymodels results`")
    return rows


def describe(folder: Path) -> str:
    """The table in words: means over seeds with 95 % t intervals, and the columns of the configuration that differ."""
    rows = read_table(folder)
    names = [key for key in rows[0] if key not in (*FIGURES, *_ABOUT)]
    varying = [name for name in names if len({json.dumps(row[name]) for row in rows}) > 1]
    groups: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        # The same seed in two runs, alone and among others, is the same network.
        groups.setdefault(json.dumps([row[name] for name in varying]), {})[row["seed"]] = row
    header = (*varying, "seeds", "worst error", "mean over pairs", "RMS at ones", "RMS at zeros", "within 1/4")
    lines = []
    for members in map(dict.values, groups.values()):
        means = [tables.number(*mean_interval([m[figure] for m in members])) for figure in FIGURES[:-1]]
        cells = [_shown(next(iter(members))[name]) for name in varying]
        lines.append((*cells, str(len(members)), *means))
    coverage = ", ".join(sorted({str(row["covered"]) for row in rows}))
    note = f"worst error: largest |output − target| over all pairs and inputs covered ({coverage}); ± 95 % t intervals over seeds"
    stopped = len({(row["kind"], row["run"]) for row in rows if row["stopped_at"] is not None})
    if stopped:
        note += f"\n{stopped:,} runs were stopped early"
    failed = len(list(Path(folder).rglob("failed/*.json")))
    if failed:
        note += f"\n{failed:,} runs failed and are not in the table (reasons in {Path(folder)}/…/failed)"
    return f"{tables.render(header, lines, right=range(len(varying), len(header)))}\n\n{note}"


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else "-" if value is None else str(value)
