"""A sweep on one page: its question, figures, tables, failures and environment, in one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from toymodels.errors import InputError
from toymodels.figures.gallery import Skipped, drawings
from toymodels.figures.style import Drawing, embedded, series_name
from toymodels.figures.table import KEYS, SETTINGS, Row, domain, load_table, require, show, values, varied
from toymodels.runs import text as tables
from toymodels.runs.record import load_config
from toymodels.runs.storage import check_writable, read_json, write_atomically
from toymodels.theory.statistics import mean_interval

FIGURES = ("worst_error", "mean_worst_error", "rms_ones", "rms_zeros", "within_quarter")
HEADER = ("worst error", "mean over pairs", "RMS at ones", "RMS at zeros", "within 1/4")
SHOWN = 60
"""Rows of a table that is not folded."""

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
    """The page of a sweep's folder (or of any folder of runs), written to `path`.

    No scripts, nothing loaded from elsewhere, every text escaped. Raises InputError, before anything is written, for a
    folder without runs that have finished or failed, a damaged record, or a place that cannot be written to.
    """
    folder, path = Path(folder), Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name that of a sweep or a run")
    check_writable(path)
    failed = _failures(folder)
    try:
        rows = load_table(folder)
    except InputError:
        if not failed:
            raise
        rows = []
    require(rows, numbers=FIGURES)
    name, question, source = _sweep(folder)
    parts = [
        _paragraphs(question),
        _state(folder, rows, failed),
        _best(rows) if rows else "",
        *(_figure(item) for item in drawings(rows, folder)),
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
    write_atomically(path, lambda part: part.write_text(page, encoding="utf-8"))
    return path


def _sweep(folder: Path) -> tuple[str, str, str]:
    """(name, question, text of the sweep file) of a sweep's folder; the folder's name alone for another."""
    if not (folder / "sweep.json").exists():
        return folder.resolve().name, "", ""
    content = read_json(folder / "sweep.json", ("file",))
    source = str(content["file"])
    lines = []
    for line in source.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return folder.resolve().name, "\n".join(lines).strip(), source


def _failures(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """(run, {"reason", "config", "traceback"}) of each failed run."""
    return [(path.stem, read_json(path, ("reason", "config"))) for path in sorted(folder.glob("failed/*.json"))]


def _runs(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.rglob("config.json"))


def _state(folder: Path, rows: Sequence[Row], failed: Sequence[Any]) -> str:
    """How many runs have finished, failed or not ended."""
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
        about += f" {domain(rows).capitalize()}. {seconds:,.0f} s of training and fitting, added over rows."
        about += " Error: output − target; worst error: its largest absolute value over pairs and inputs covered."
    return f"<p>{escape(about)}</p>"


def _groups(rows: Sequence[Row]) -> dict[tuple[Any, ...], list[Row]]:
    """Rows that differ in the seed alone, by gate, first layer, readoff and varied settings."""
    names = varied(rows)
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        stopped = "" if row.get("stopped_at") is None else f", stopped at {row['stopped_at']:,}"
        key = (row["task"], row["first_layer"], row["readoff"] + stopped, *(row.get(name) for name in names))
        groups.setdefault(key, []).append(row)
    return groups


def _cells(key: tuple[Any, ...], members: Sequence[Row]) -> list[str]:
    settings = ["–" if value is None else show(value) for value in key[3:]]
    figures = [tables.number(*mean_interval([row[figure] for row in members])) for figure in FIGURES]
    seconds = tables.number(mean_interval([row.get("seconds") or 0 for row in members])[0], None, ".1f")
    unproved = sum(row.get("proved") is False for row in members)
    return [
        key[0],
        series_name(key[1], key[2]) + (f" ({unproved} not proved)" if unproved else ""),
        *settings,
        *figures,
        seconds,
        str(len(members)),
        ", ".join(map(str, values(members, "covered"))),
    ]


def _header(names: Sequence[str]) -> list[str]:
    return ["gate", "first layer, readoff", *names, *HEADER, "seconds", "seeds", "inputs covered"]


def _best(rows: Sequence[Row]) -> str:
    """For each gate, first layer and readoff the settings of the smallest mean worst error."""
    whole = [row for row in rows if row.get("stopped_at") is None]
    best: dict[tuple[Any, ...], tuple[float, list[str]]] = {}
    for key, members in _groups(whole).items():
        mean = mean_interval([row["worst_error"] for row in members])[0]
        if key[:3] not in best or mean < best[key[:3]][0]:
            best[key[:3]] = (mean, _cells(key, members))
    names = varied(whole)
    title = "Least worst error of each first layer and readoff" if names else "Results"
    note = (
        "Means over seeds ± 95 % t intervals; runs stopped early are left out."
        if len(whole) < len(rows)
        else ("Means over seeds ± 95 % t intervals.")
    )
    note += " The best of several settings flatters: its error is the least of those measured." if names else ""
    return _section(title, _table(_header(names), [cells for _, cells in best.values()]) + _note(note))


def _tables(rows: Sequence[Row]) -> str:
    names = varied(rows)
    body = [_cells(key, members) for key, members in _groups(rows).items()]
    means = _table(_header(names), body)
    if len(body) > SHOWN:
        means = _folded(f"All {len(body):,} settings, means over seeds ± 95 % t intervals", means)
    columns = [*KEYS, *names, *FIGURES, "seconds", "covered", "n_pairs", "proved", "stopped_at", "run"]
    columns = [column for column in columns if any(row.get(column) is not None for row in rows)]
    full = _table(columns, [[_word(row.get(column)) for column in columns] for row in rows])
    fixed = [(name, values(rows, name)) for name in SETTINGS if name not in names]
    same = ", ".join(f"{name} = {show(found[0])}" for name, found in fixed if found)
    return _section(
        "Results",
        means
        + _folded(f"Every row ({len(rows):,}): each run and seed", full)
        + _note(f"The same in all runs: {same}."),
    )


def _word(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else show(value)


def _figure(item: Drawing | Skipped) -> str:
    if isinstance(item, Skipped):
        return _note(item.reason)
    text = _folded("Numbers", f"<pre>{escape(item.text)}</pre>") if item.text else ""
    title = escape(item.title)
    return (
        f'<figure>\n<h2>{title}</h2>\n<img alt="{title}" src="{embedded(item)}">\n'
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
    """What the runs ran on; several lines where they ran on several."""
    found: Counter[str] = Counter()
    for run in _runs(folder):
        load_config(run)
        if (run / "environment.json").exists():
            content = read_json(run / "environment.json")
            flat = {**{k: v for k, v in content.items() if k != "packages"}, **content.get("packages", {})}
            found[", ".join(f"{key} {value}" for key, value in flat.items() if value is not None)] += 1
    lines = [[f"{count:,}", words] for words, count in found.most_common()]
    return _section("Environment", _table(["runs", "environment"], lines)) if lines else ""


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
    """Numbers flush right."""
    return ' class="n"' if cell[:1].isdigit() and cell.split(" ±")[0].replace(".", "").isdigit() else ""
