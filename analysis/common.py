"""What every script here does: read a table of stored results, draw, save, print; wrong input is one sentence and status 2."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from toymodels.arguments import parse
from toymodels.errors import InputError
from toymodels.figures.networks import finished_runs
from toymodels.figures.style import Drawing, save
from toymodels.figures.table import Row, load_table, where


@dataclass(frozen=True)
class FromTable:
    """From a sweep's folder, a run's, or a table file of `toymodels results`."""

    results: tyro.conf.Positional[Path]
    """Folder of the runs, or a .jsonl or .csv table."""
    figures: Path = Path(".")
    """Folder of the figures, NAME.pdf and NAME.png."""
    error: tuple[str, ...] = ()
    """Errors, a figure each: worst_error mean_worst_error rms_ones rms_zeros. Default: as the script has it."""
    where: tuple[str, ...] = ()
    """Only rows with NAME=VALUE, as in --where steps=750 task=and."""


@dataclass(frozen=True)
class FromRuns:
    """From the stored networks and histograms of a run."""

    results: tyro.conf.Positional[Path]
    """Folder of the run, or of a sweep."""
    figures: Path = Path(".")
    """Folder of the figures, NAME.pdf and NAME.png."""
    run: str | None = None
    """Name of the run's folder in a sweep; default the last that has what is drawn."""


def from_table(
    draw: Callable[[Sequence[Row], str], Drawing], description: str | None, errors: tuple[str, ...] = ("worst_error",)
) -> None:
    """The script of a figure from a table; `draw` takes (rows, error)."""

    def work() -> None:
        settings = parse(FromTable, description)
        rows = where(load_table(settings.results), settings.where)
        _publish([draw(rows, error) for error in settings.error or errors], settings.figures)

    _main(work)


def from_runs(draw: Callable[[Path], list[Drawing]], description: str | None) -> None:
    """The script of figures from one run; `draw` takes its folder."""

    def work() -> None:
        settings = parse(FromRuns, description)
        _publish(_of_one(draw, settings), settings.figures)

    _main(work)


def _of_one(draw: Callable[[Path], list[Drawing]], settings: FromRuns) -> list[Drawing]:
    runs = finished_runs(settings.results)
    if settings.run is not None:
        runs = [run for run in runs if run.name == settings.run]
    if not runs:
        which = "" if settings.run is None else f" of the name {settings.run}"
        raise InputError(f"{settings.results} holds no finished run{which}: name the folder of a run or a sweep")
    reason: InputError | None = None
    for run in reversed(runs):
        try:
            return draw(run)
        except InputError as error:
            reason = reason or error
    raise reason or InputError("no run")


def _publish(drawings: Sequence[Drawing], folder: Path) -> None:
    for drawing in drawings:
        print("\n".join([drawing.title, drawing.text, *map(str, save(drawing, folder)), ""]))


def _main(work: Callable[[], None]) -> None:
    try:
        work()
    except (InputError, OSError) as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(2)
