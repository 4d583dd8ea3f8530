"""Write a sweep on one page: question, figures, tables, failures and environment, in one HTML file that needs nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import islice
from pathlib import Path
from typing import Any

from toymodels.errors import InputError
from toymodels.figures.networks import finished_runs
from toymodels.figures.parameters import by_setting
from toymodels.figures.registry import FIGURES, Figure
from toymodels.figures.style import Drawing, embedded, heading
from toymodels.figures.table import (
    Row,
    Varies,
    coverage,
    format_value,
    levels,
    load_table,
    require,
    settings_of,
    split_by,
    varied,
)
from toymodels.runs import table
from toymodels.runs import text as tables
from toymodels.runs.metrics import KEYS, metric_columns, title
from toymodels.runs.record import read_sessions
from toymodels.runs.storage import check_writable, read_json, write_text
from toymodels.theory.statistics import mean_interval

SHOWN = 60
"""Rows of a table that is not folded."""
MOST = 4
"""Drawings of one figure, of a table that varies in more than the figure shows."""

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #111; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; font-size: 12px; font-variant-numeric: tabular-nums; }
th, td { padding: 0.15rem 0.6rem; text-align: left; vertical-align: top; border-bottom: 1px solid #e4e4e4; }
th { border-bottom: 1px solid #888; } td.n, th.n { text-align: right; white-space: nowrap; }
.wide { overflow-x: auto; } figure { margin: 1.2rem 0; break-inside: avoid; } img { max-width: 100%; height: auto; }
figcaption, .note { font-size: 13px; color: #444; } pre { font-size: 11px; overflow-x: auto; }
summary { cursor: pointer; } p.question { white-space: pre-line; }
@media print {
  body { max-width: none; margin: 0; font-size: 10pt; } table { font-size: 7.5pt; }
  pre { white-space: pre-wrap; font-size: 6.5pt; }
  tr { break-inside: avoid; } thead { display: table-header-group; } .wide, pre { overflow: visible; }
}
"""


def write_report(folder: Path, path: Path) -> Path:
    """Write the page of a sweep's folder, or of any folder of runs, to `path`; returns the path.

    The page has no scripts, loads nothing from elsewhere, and every text in it is escaped. Raises InputError, before anything is
    written, for a folder without runs that have finished or failed, a damaged record, or a path that cannot be written to.
    """
    folder, path = Path(folder), Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name that of a sweep or a run")
    check_writable(path)
    failed = _failures(folder)
    try:
        rows = load_table(folder)
        left_out = [str(error) for error in table.finished_runs(folder)[1]]
        whole = [row for row in rows if all(row.get(name) is not None for name in (*KEYS, "worst_error"))]
        if len(whole) < len(rows):
            require(whole or rows, numbers=("worst_error",))  # at least one row can be compared with others
            left_out.append(
                f"{len(rows) - len(whole):,} rows without a task, seed, first layer, readoff or worst error"
            )
        rows = whole
    except InputError:
        if not failed:
            raise
        rows, left_out = [], []
    name, question, source = _sweep(folder)
    parts = [
        _paragraphs(question),
        _state(folder, rows, failed),
        *(_note(f"Left out: {sentence}.") for sentence in left_out),
        _best(rows) if rows else "",
        *map(_figure, drawings(rows, folder)),
        _tables(rows) if rows else "",
        _failed_section(failed),
        _section("Sweep file", f"<pre>{escape(source)}</pre>") if source else "",
        _environment(folder),
    ]
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(name)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<h1>{escape(name)}</h1>\n"
        + "\n".join(part for part in parts if part)
        + "\n</body>\n</html>\n"
    )
    write_text(path, page)
    return path


def drawings(rows: Sequence[Row], folder: Path | None = None) -> Iterator[Drawing | str]:
    """Draw every figure that applies to the table, or to the last finished run that has what it needs.

    Where settings vary that a figure does not show, it is drawn once for each of their combinations, if they are not too many.
    A sentence stands for a figure that is left out or that failed.
    """
    runs = finished_runs(folder)[::-1] if folder is not None else []
    for member in FIGURES.values():
        for knobs in member.variants:
            sources: Sequence[Sequence[Row] | Path] = runs if member.source_kind == "run" else [rows] if rows else []
            parts = (list(islice(_draw_parts(member, source, knobs), MOST + 1)) for source in sources)
            drawn = next(filter(None, parts), [])
            if len(drawn) <= MOST:
                yield from (_numbered(*part, number) for number, part in enumerate(drawn, 1))
            else:
                first = drawn[0][1]
                yield (
                    f"{first.title if isinstance(first, Drawing) else member.name} is left out: more than {MOST} combinations "
                    f"of other settings would each have a figure of their own. Draw any of them with toymodels draw "
                    f"{member.name} FOLDER --where NAME=VALUE."
                )


def _draw_parts(
    member: Figure, source: Sequence[Row] | Path, knobs: Mapping[str, Any], words: str = ""
) -> Iterator[tuple[str, Drawing | str]]:
    """Draw a figure of the table, or of its parts where a setting varies: (settings of the part in words, drawing)."""
    try:
        drawn = member.draw(source, **knobs) if member.fits(source, **knobs) else []
    except Varies as varies:
        for value, part in split_by(source, varies.setting):  # type: ignore[arg-type]  # only tables vary
            yield from _draw_parts(member, part, knobs, f"{words}, {value}" if words else value)
    except Exception as error:  # a figure that fails costs the page nothing else
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        yield words, f"The figure {member.name} is left out{f' for {words}' if words else ''}: {reason}."
    else:
        yield from ((words, drawing) for drawing in drawn)


def _numbered(words: str, drawing: Drawing | str, number: int) -> Drawing | str:
    """Give the drawing of a part of the table a title and name of its own."""
    if not words or isinstance(drawing, str):
        return drawing
    heading(drawing.figure, words)
    return dataclasses.replace(drawing, name=f"{drawing.name}-{number}", title=f"{drawing.title} ({words})")


def _sweep(folder: Path) -> tuple[str, str, str]:
    """Return (name, question, text of the sweep file) of a sweep's folder; the folder's name alone for another."""
    try:
        content = read_json(folder / "sweep.json", ("file",))
    except InputError:  # no sweep, or a damaged file, which holds no results
        return folder.resolve().name, "", ""
    source = str(content["file"])
    lines = []
    for line in source.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return folder.resolve().name, "\n".join(lines).strip(), source


def _failures(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return (run, {"reason", "config", "traceback"}) of each failed run."""
    failed = []
    for path in sorted(folder.glob("failed/*.json")):
        try:
            failed.append((path.stem, read_json(path, ("reason", "config"))))
        except InputError as error:
            failed.append((path.stem, {"reason": str(error), "config": {}}))
    return failed


def _runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("config.json"))


def _state(folder: Path, rows: Sequence[Row], failed: Sequence[Any]) -> str:
    """Write how many runs have finished, failed or not ended."""
    runs = _runs(folder)
    done = [run for run in runs if (run / "results.json").exists()]
    names = {name for name, _ in failed}
    open_ = [run for run in runs if run not in done and run.name not in names]
    counts = [f"{len(done):,} finished", f"{len(failed):,} failed"]
    if open_:
        counts.append(f"{len(open_):,} not finished (the same command goes on with them)")
    seconds = sum(row.get("seconds") or 0 for row in rows)
    about = f"Runs: {', '.join(counts)}."
    if rows:
        about += f" {coverage(rows).capitalize()}. {seconds:,.0f} s of training and fitting, added over rows."
        about += " Error: output − target; worst error: its largest absolute value over pairs and inputs covered."
    return f"<p>{escape(about)}</p>"


def _cells(key: tuple[Any, ...], members: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """Write the line of one setting: means over its seeds."""
    task, line, *settings = key
    unproved = sum(row.get("proved") is False for row in members)
    numbers = []
    for metric in metrics:
        known = [row[metric] for row in members if row.get(metric) is not None]
        mean, half = mean_interval(known) if known else (None, None)
        seconds = metric == "seconds"
        form, half = (".1f", None) if seconds else (".4f", half)
        numbers.append("–" if mean is None else tables.number(mean, half, form))
    return [
        task,
        line + (f" ({unproved} not proved)" if unproved else ""),
        *("–" if value is None else format_value(value) for value in settings),
        *numbers,
        str(len(members)),
        ", ".join(map(str, levels(members, "covered"))),
    ]


def _header(names: Sequence[str], metrics: Sequence[str]) -> list[str]:
    return ["task", "first layer, readoff", *names, *map(title, metrics), "seeds", "inputs covered"]


def _best(rows: Sequence[Row]) -> str:
    """Write, for each task, first layer and readoff, the settings of the smallest mean worst error."""
    finished = [row for row in rows if row.get("stopped_at") is None]
    names, metrics = varied(finished), metric_columns(rows)
    best: dict[tuple[Any, ...], tuple[float, list[str]]] = {}
    for key, members in by_setting(finished, names).items():
        mean = mean_interval([row["worst_error"] for row in members])[0]
        if key[:2] not in best or mean < best[key[:2]][0]:
            best[key[:2]] = (mean, _cells(key, members, metrics))
    title = "Least worst error of each first layer and readoff" if names else "Results"
    note = "Means over seeds ± 95 % t intervals" + (
        "; runs stopped early are left out." if len(finished) < len(rows) else "."
    )
    note += " The best of several settings flatters: its error is the least of those measured." if names else ""
    return _section(title, _table(_header(names, metrics), [cells for _, cells in best.values()]) + _note(note))


def _tables(rows: Sequence[Row]) -> str:
    """Write the means over seeds of every setting, and every row."""
    names, metrics = varied(rows), metric_columns(rows)
    body = [_cells(key, members, metrics) for key, members in by_setting(rows, names).items()]
    means = _table(_header(names, metrics), body)
    if len(body) > SHOWN:
        means = _folded(f"All {len(body):,} settings, means over seeds ± 95 % t intervals", means)
    columns = [*KEYS, *names, *metrics, "covered", "n_pairs", "proved", "stopped_at", "run"]
    columns = [column for column in columns if any(row.get(column) is not None for row in rows)]
    full = _table(columns, [[_word(row.get(column)) for column in columns] for row in rows])
    fixed = [(name, levels(rows, name)) for name in settings_of(rows) if name not in names]
    same = ", ".join(f"{name} = {format_value(found[0])}" for name, found in fixed if found)
    return _section(
        "Results",
        means
        + _folded(f"Every row ({len(rows):,}): each run and seed", full)
        + _note(f"The same in all runs: {same}."),
    )


def _word(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else format_value(value)


def _figure(item: Drawing | str) -> str:
    if isinstance(item, str):
        return _note(item)
    try:
        image = embedded(item)
    except Exception as error:  # a figure that fails costs the page nothing else
        return _note(f"The figure {item.name} is left out: {type(error).__name__}: {error}.")
    text = _folded("Numbers", f"<pre>{escape(item.text)}</pre>") if item.text else ""
    title = escape(item.title)
    return (
        f'<figure>\n<h2>{title}</h2>\n<img alt="{title}" src="{image}">\n'
        f"<figcaption>{title}</figcaption>\n</figure>\n{text}"
    )


def _failed_section(failed: Sequence[tuple[str, dict[str, Any]]]) -> str:
    if not failed:
        return ""
    body = [[name, str(content["reason"]), json.dumps(content["config"])] for name, content in failed]
    traces = "".join(
        _folded(f"Traceback of {name}", f"<pre>{escape(str(content['traceback']))}</pre>")
        for name, content in failed
        if content.get("traceback")
    )
    return _section(f"Failed runs ({len(failed):,})", _table(["run", "reason", "configuration"], body) + traces)


def _environment(folder: Path) -> str:
    """Write what the runs ran on; several lines where environments differ."""
    environments: Counter[str] = Counter()
    for run in _runs(folder):
        try:
            sessions = read_sessions(run / "environment.json")
        except InputError:  # it is missing or damaged: no result depends on it
            continue
        for content in sessions:
            flat = {**{k: v for k, v in content.items() if k not in ("packages", "began")}, **content["packages"]}
            environments[", ".join(f"{key} {value}" for key, value in flat.items() if value is not None)] += 1
    lines = [[f"{count:,}", words] for words, count in environments.most_common()]
    return _section("Environment", _table(["sessions", "environment"], lines)) if lines else ""


def _paragraphs(text: str) -> str:
    return "".join(f'<p class="question">{escape(part)}</p>\n' for part in text.split("\n\n") if part)


def _section(title: str, body: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def _folded(summary: str, body: str) -> str:
    return f"<details>\n<summary>{escape(summary)}</summary>\n{body}\n</details>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>'


def _table(header: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}{_right(cell)}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    lines = "\n".join(line(cells, "td") for cells in body)
    return f'<div class="wide">\n<table>\n<thead>{line(header, "th")}</thead>\n<tbody>\n{lines}\n</tbody>\n</table>\n</div>'


def _right(cell: str) -> str:
    """Return the class of a number, which stands flush right."""
    return ' class="n"' if cell[:1].isdigit() and cell.split(" ±")[0].replace(".", "").isdigit() else ""
