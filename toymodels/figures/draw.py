"""Draw a registered figure by its name: `toymodels draw NAME TABLE`. Imports neither torch nor matplotlib until it draws."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from toymodels.errors import InputError
from toymodels.registry import load_plugins
from toymodels.runs.storage import check_writable

if TYPE_CHECKING:
    from toymodels.figures.registry import Figure
    from toymodels.figures.style import Drawing


@dataclass(frozen=True)
class DrawConfig:
    """Draw a figure from a table of results or from the record of a run, as PDF and PNG; without a name, list all figures.

    A figure's own knobs are options, too: `toymodels draw error_over runs/widths --x m --metric rms_zeros`. A name without a
    table prints what the figure shows, and its knobs; a table without a name, the figures that fit it.
    """

    name: tyro.conf.Positional[str] = ""
    """The figure; knobs may stand in brackets: error_over(x=m)."""
    table: tyro.conf.Positional[Path | None] = None
    """Folder of a sweep or a run, or a .jsonl or .csv table of `toymodels results`."""
    out: Path = Path(".")
    """Folder of the files, NAME.pdf and NAME.png."""
    where: tuple[str, ...] = ()
    """Only rows with COLUMN=VALUE, as in --where steps=750 task=and."""
    run: str | None = None
    """Name of the run in a sweep, for a figure that is drawn from one run; default the last run that has what is drawn."""
    knobs: tuple[str, ...] = ()
    """The figure's knobs as KNOB=VALUE; the same as --KNOB VALUE. Lists: KNOB=1,2,3."""
    list: bool = False
    """List all figures, a line each."""
    plugin: tuple[Path, ...] = ()
    """Python files of your own that register figures."""


def with_knobs(arguments: Sequence[str]) -> list[str]:
    """Turn the options of `toymodels draw` that DrawConfig does not know, --x m, into --knobs x=m, which it reads."""
    own = {f"--{field.name}" for field in fields(DrawConfig)} | {"--no-list", "--help", "-h"}
    others: list[str] = []
    values: dict[str, list[str]] = {}
    knob = ""
    for word in arguments:
        option, equals, value = word.partition("=")
        if word.startswith("--") and (option not in own or option == "--knobs"):
            knob = option.removeprefix("--").replace("-", "_")
            values[knob] = [value] if equals else []
        elif word.startswith("-") and not word[1:2].isdigit():
            knob = ""
            others.append(word)
        else:
            (values[knob] if knob else others).append(word)
    knobs = [*values.pop("knobs", []), *(f"{name}={','.join(words)}" for name, words in values.items())]
    return [*others, "--knobs", *knobs] if knobs else others


def draw(config: DrawConfig) -> list[Path]:
    """Draw the figure that the settings name, and return its files.

    Raises InputError for an unknown figure or knob, and for a table or run that the figure cannot be drawn from.
    """
    return [path for _, files in _draw_and_save(config) for path in files]


def draw_run(run: Path) -> list[Path]:
    """Draw what belongs to every run (`Figure.after_run`) from its record into its folder; returns the files."""
    from toymodels.figures.registry import FIGURES
    from toymodels.figures.style import save

    members = [member for member in FIGURES.values() if member.after_run and member.fits(run)]
    return [path for member in members for drawing in member.draw(run) for path in save(drawing, run)]


def run_draw(config: DrawConfig) -> str:
    """Do the command: draw and return titles, numbers and files; or the list of figures; or the help of one."""
    load_plugins(config.plugin)
    if config.list or not config.name:
        return list_figures()
    if config.table is None:
        return fitting(Path(config.name)) if _is_source(config.name) else describe(config.name)
    drawn = _draw_and_save(config)
    return "\n\n".join("\n".join(filter(None, [item.title, item.text, *map(str, files)])) for item, files in drawn)


def _is_source(name: str) -> bool:
    from toymodels.figures.registry import FIGURES

    return Path(name).exists() and name.partition("(")[0] not in FIGURES


def fitting(path: Path) -> str:
    """Return the figures that a report of this table or folder has, a line each, or a sentence that there is none."""
    from toymodels.figures.networks import finished_runs
    from toymodels.figures.registry import FIGURES
    from toymodels.figures.report import NO_FIGURE
    from toymodels.figures.table import load_table

    sources: dict[str, Sequence[Any]] = {
        "rows": [load_table(path)],
        "run": finished_runs(path) if path.is_dir() else [],
    }

    def fits(member: Figure) -> bool:
        found = sources[member.source_kind]
        return any(member.fits(source, **knobs) for knobs in member.variants for source in found)

    names = [name for name, member in FIGURES.items() if fits(member)]
    return list_figures(names) if names else f"{path}: {NO_FIGURE}"


def list_figures(names: Sequence[str] | None = None) -> str:
    """Return figures, all if none are named, in plain text, a line each."""
    from toymodels.figures.registry import FIGURES
    from toymodels.runs import text as tables

    members = [FIGURES[name] for name in names or FIGURES]
    lines = [(m.name, "a run" if m.source_kind == "run" else "a table", m.purpose) for m in members]
    return tables.render(("figure", "from", "what it does"), lines)


def describe(name: str) -> str:
    """Return the help of one figure: its docstring and its knobs. Raises InputError for an unknown one."""
    from toymodels.figures.registry import FIGURES
    from toymodels.runs.text import listed

    member, _ = FIGURES.named(name)
    knobs = ", ".join(f"--{knob} (default {listed(default, 'none')})" for knob, default in member.knobs.items())
    return f"{member.name}: {inspect.getdoc(member.function) or ''}\n\nKnobs: {knobs or 'none'}."


def _draw_and_save(config: DrawConfig) -> list[tuple[Drawing, list[Path]]]:
    """Draw, then save: nothing is written where drawing fails."""
    from toymodels.figures.style import save

    try:
        return [(drawing, save(drawing, config.out)) for drawing in _drawings(config)]
    except (InputError, OSError):
        raise
    except Exception as error:  # a damaged file of a run, or somebody's own figure
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"the figure {config.name} cannot be drawn from {config.table} ({reason})") from error


def _drawings(config: DrawConfig) -> list[Drawing]:
    load_plugins(config.plugin)
    from toymodels.figures.registry import FIGURES

    if config.table is None:
        raise InputError(
            "name a figure and a table: toymodels draw NAME TABLE (toymodels draw --list lists the figures)"
        )
    member, knobs = FIGURES.named(config.name)
    knobs |= _read_knobs(member, config.knobs)
    if member.source_kind == "run":
        if config.where:
            raise InputError(
                f"{member.name} is drawn from one run, not from rows: choose it with --run, without --where"
            )
        drawings = member.draw(_choose_run(member, config.table, config.run, knobs), **knobs)
    else:
        from toymodels.figures.table import filter_rows, load_table

        if config.run is not None:
            raise InputError(
                f"{member.name} is drawn from rows, not from one run: leave out --run, choose with --where"
            )
        drawings = member.draw(filter_rows(load_table(config.table), config.where), **knobs)
    for drawing in drawings:
        check_writable(config.out / f"{drawing.name}.png")
    return drawings


def _read_knobs(member: Figure, words: Sequence[str]) -> dict[str, Any]:
    """Read knobs from KNOB=VALUE; several values, with commas between, make a list where the knob takes one."""
    from toymodels.runs.table import parse_value

    knobs: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise InputError(f"the knob {word!r} is not KNOB=VALUE")
        several = isinstance(member.knobs.get(name), tuple)
        knobs[name] = tuple(map(parse_value, text.split(","))) if several else parse_value(text)
    return knobs


def _choose_run(member: Figure, folder: Path, name: str | None, knobs: dict[str, Any]) -> Path:
    """Return the run of this name, or the last that has what the figure draws. Raises InputError for a folder without."""
    from toymodels.figures.networks import finished_runs

    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: {member.name} is drawn from the folder of a run or a sweep")
    runs = [run for run in finished_runs(folder) if name in (None, run.name)]
    if not runs:
        which = "" if name is None else f" of the name {name}"
        raise InputError(f"{folder} holds no finished run{which}: name the folder of a run or a sweep")
    return next((run for run in reversed(runs) if member.fits(run, **knobs)), runs[-1])
