"""Write a sweep on one page: question, figures, tables, failures and environment, in one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import dataclasses
import functools
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from toymodels.errors import InputError, notice
from toymodels.figures.networks import finished_runs
from toymodels.figures.parameters import by_setting
from toymodels.figures.readable import values_drawn
from toymodels.figures.registry import FIGURES, Figure
from toymodels.figures.style import Drawing, embedded, heading
from toymodels.figures.table import (
    Row,
    Varies,
    coverage,
    format_value,
    load_table,
    require,
    settings_of,
    split_by,
    varied,
)
from toymodels.runs import table
from toymodels.runs import text as tables
from toymodels.runs.metrics import KEYS, metric_columns, title
from toymodels.runs.record import load_config, read_sessions
from toymodels.runs.storage import check_writable, read_json, write_text
from toymodels.runs.table import levels
from toymodels.theory.statistics import mean_interval

SHOWN = 60
"""Rows of a table that is not folded."""
MOST = 4
"""Drawings of one figure, of a table that varies in more than the figure shows."""

VALUES = 400
"""Values of a figure that stand beside it."""
NO_FIGURE = (
    "no figure fits these runs: most show an error over a setting that varies; toymodels draw NAME says what it needs"
)


@dataclass(frozen=True)
class Link:
    """A cell that leads somewhere, or holds a command."""

    text: str
    link: str = ""
    code: bool = False


@dataclass(frozen=True)
class Table:
    """A table; columns of numbers stand flush right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | Link]]
    ids: Sequence[str] = ()
    """Names of the rows, which links lead to."""
    kind: ClassVar[str] = "table"

    @functools.cached_property
    def right(self) -> list[bool]:
        """Say of each column whether it holds numbers."""
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.header)
        return [any(map(_is_number, column)) for column in columns]


@dataclass(frozen=True)
class Words:
    """A note, or text as it is."""

    text: str
    kind: str = "note"


@dataclass(frozen=True)
class Block:
    """A part of the page under a title: a section, one that is folded, or a picture with its values."""

    title: str
    items: Sequence[Any]
    kind: str = "section"
    address: str = ""
    """Of the picture."""


def write_report(folder: Path, path: Path) -> Path:
    """Write the page of a sweep's folder, or of any folder of runs, to `path`; returns the path.

    The page loads nothing from elsewhere, runs no script but its own, and every text in it is escaped.
    Raises InputError, before anything is written, for a folder without runs that have finished or failed, a damaged record, or a
    path that cannot be written to.
    """
    folder, path = Path(folder), Path(path)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name that of a sweep or a run")
    check_writable(path)
    if path.suffix not in (".html", ".htm"):
        raise InputError(f"{path}: a report is a page: name a file that ends in .html")
    failed = _failures(folder)
    try:
        rows = load_table(folder)
        left_out = [str(error) for error in table.finished_runs(folder)[1]]
        whole = [row for row in rows if all(row.get(name) is not None for name in (*KEYS, "worst_error"))]
        if len(whole) < len(rows):
            require(whole or rows, numbers=("worst_error",))  # at least one row can be compared with others
            lacking = "without a task, seed, first layer, readoff or worst error"
            left_out.append(f"{len(rows) - len(whole):,} rows {lacking}")
        rows = whole
    except InputError:
        if not failed:
            raise
        rows, left_out = [], []
    name, question, source = _sweep(folder)
    names = {run: f"run-{number}" for number, run in enumerate(_runs(folder))}
    best = [_best(rows)] if rows and (varied(rows) or any(row.get("stopped_at") is not None for row in rows)) else []
    results = [_tables(rows, names)] if rows else []
    pictures = list(map(_figure, drawings(rows, folder)))
    if rows and not pictures:
        pictures = [Words(f"{NO_FIGURE[0].upper()}{NO_FIGURE[1:]}.")]
        notice(NO_FIGURE)
    page = _render(
        name=name,
        question=[part for part in question.split("\n\n") if part],
        state=_state(folder, rows, failed),
        items=[
            *(Words(f"Left out: {sentence}.") for sentence in left_out),
            *(best or results),
            *pictures,
            *(results if best else []),
            *_failed_section(failed),
            *_commands(names, path),
            *([Block("Sweep file", [Words(source, "text")])] if source else []),
            *_environment(folder),
        ],
    )
    write_text(path, page)
    return path


def _render(**content: Any) -> str:
    """Fill the page's template. Everything is escaped but our own style and script, the only ones that a browser accepts."""
    import jinja2
    import markupsafe

    def digest(text: str) -> str:
        return "sha256-" + base64.b64encode(hashlib.sha256(str(text).encode()).digest()).decode()

    here = Path(__file__)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["digest"] = digest
    own = {
        name: markupsafe.Markup("\n" + here.with_name(f"report.{ending}").read_text(encoding="utf-8"))
        for name, ending in (("style", "css"), ("script", "js"))
    }
    template = environment.from_string(here.with_name("report.html.j2").read_text(encoding="utf-8"))
    return template.render(**content, **own).lstrip() + "\n"


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
    return about


def _cells(key: tuple[Any, ...], members: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """Write the line of one setting: means over its seeds."""
    task, line, *settings = key
    unproved = sum(row.get("proved") is False for row in members)
    cells = [task, line + (f" ({unproved} not proved)" if unproved else "")]
    cells += ["–" if value is None else format_value(value) for value in settings]
    for metric in metrics:
        known = [row[metric] for row in members if row.get(metric) is not None]
        mean, half = mean_interval(known) if known else (None, None)
        number = tables.number(mean, None, ".1f") if metric == "seconds" else tables.number(mean, half)
        cells.append("–" if mean is None else number)
    return [*cells, str(len(members)), ", ".join(map(str, levels(members, "covered")))]


def _header(names: Sequence[str], metrics: Sequence[str]) -> list[str]:
    return ["task", "first layer, readoff", *names, *map(title, metrics), "seeds", "inputs covered"]


def _best(rows: Sequence[Row]) -> Block:
    """Write, for each task, first layer and readoff, the settings of the smallest mean worst error."""
    finished = [row for row in rows if row.get("stopped_at") is None]
    names, metrics = varied(finished), metric_columns(rows)
    best: dict[tuple[Any, ...], tuple[float, list[str]]] = {}
    for key, members in by_setting(finished, names).items():
        mean = mean_interval([row["worst_error"] for row in members])[0]
        if key[:2] not in best or mean < best[key[:2]][0]:
            best[key[:2]] = (mean, _cells(key, members, metrics))
    title = "Least worst error of each first layer and readoff"
    title = title if names else "Results of runs that were not stopped early"
    note = "Means over seeds ± 95 % t intervals"
    note += "; runs stopped early are left out." if len(finished) < len(rows) else "."
    note += " The best of several settings flatters: its error is the least of those measured." if names else ""
    return Block(title, [Table(_header(names, metrics), [cells for _, cells in best.values()]), Words(note)])


def _tables(rows: Sequence[Row], runs: Mapping[Path, str]) -> Block:
    """Write the means over seeds of every setting, and every row, with a link to its run in the list of commands."""
    names, metrics = varied(rows), metric_columns(rows)
    body = [_cells(key, members, metrics) for key, members in by_setting(rows, names).items()]
    means: Table | Block = Table(_header(names, metrics), body)
    if len(body) > SHOWN:
        means = Block(f"All {len(body):,} settings, means over seeds ± 95 % t intervals", [means], "folded")
    columns = [*KEYS, *names, *metrics, "covered", "n_pairs", "proved", "stopped_at", "run"]
    columns = [column for column in columns if any(row.get(column) is not None for row in rows)]
    links = {run.name: name for run, name in runs.items()}

    def cell(row: Row, column: str) -> str | Link:
        known = column == "run" and str(row["run"]) in links
        return Link(str(row["run"]), f"#{links[row['run']]}") if known else _word(row.get(column))

    full = Table(columns, [[cell(row, column) for column in columns] for row in rows])
    fixed = [(name, levels(rows, name)) for name in settings_of(rows) if name not in names]
    same = ", ".join(f"{name} = {format_value(found[0])}" for name, found in fixed if found)
    every = Block(f"Every row ({len(rows):,}): each run and seed", [full], "folded")
    return Block("Results", [means, every, Words(f"The same in all runs: {same}.")])


def _commands(runs: Mapping[Path, str], page: Path) -> list[Block]:
    """Write a line for each run: a link to its record from the page's place, and the command that repeats it."""
    body, ids = [], []
    for run, name in runs.items():
        try:
            saved = load_config(run)
        except InputError:  # it is counted above, and has no command
            continue
        address = "./" + quote(Path(os.path.relpath(run.resolve(), page.resolve().parent)).as_posix()) + "/"
        body.append([Link(run.name, address), Link(tables.command(saved.kind, saved.config), code=True)])
        ids.append(name)
    note = "The links work where the page lies beside the runs. A command writes into a new folder below runs/."
    table = Table(["record", "command that repeats it"], body, ids)
    return [Block("Runs and commands", [table, Words(note)])] if body else []


def _word(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else format_value(value)


def _figure(item: Drawing | str) -> Block | Words:
    """Write a figure with its numbers and the values that are drawn."""
    if isinstance(item, str):
        return Words(item)
    try:
        image = embedded(item)
    except Exception as error:  # a figure that fails costs the page nothing else
        return Words(f"The figure {item.name} is left out: {type(error).__name__}: {error}.")
    beside = [Block("Numbers", [Words(item.text, "text")], "folded")] if item.text else []
    header, values = values_drawn(item.figure)
    if values:
        more = [Words(f"The first {VALUES:,} of {len(values):,} values.")] if len(values) > VALUES else []
        beside.append(Block("Values drawn", [Table(header, values[:VALUES]), *more], "folded"))
    return Block(item.title, beside, "picture", image)


def _failed_section(failed: Sequence[tuple[str, dict[str, Any]]]) -> list[Block]:
    if not failed:
        return []
    body = [[name, str(content["reason"]), json.dumps(content["config"])] for name, content in failed]
    traces = [
        Block(f"Traceback of {name}", [Words(str(content["traceback"]), "text")], "folded")
        for name, content in failed
        if content.get("traceback")
    ]
    return [Block(f"Failed runs ({len(failed):,})", [Table(["run", "reason", "configuration"], body), *traces])]


def _environment(folder: Path) -> list[Block]:
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
    return [Block("Environment", [Table(["sessions", "environment"], lines)])] if lines else []


def _is_number(cell: str | Link) -> bool:
    if isinstance(cell, Link):
        return False
    return cell[:1].isdigit() and cell.split(" ±")[0].replace(".", "").isdigit()
