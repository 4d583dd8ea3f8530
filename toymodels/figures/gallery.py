"""All figures that a table and its runs allow."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from toymodels.errors import InputError
from toymodels.figures.curves import AXES, error_over
from toymodels.figures.maps import error_map, genericity_map, loss_map
from toymodels.figures.networks import finished_runs, histograms, weights
from toymodels.figures.parameters import parameters
from toymodels.figures.style import Drawing, heading
from toymodels.figures.table import Row, split, varied

MOST = 4
"""Figures of one sort, of tables that vary in more than a figure shows."""


@dataclasses.dataclass(frozen=True)
class Skipped:
    """Figures that were left out."""

    reason: str


def drawings(rows: Sequence[Row], folder: Path | None = None) -> Iterator[Drawing | Skipped]:
    """Every figure that the table allows, and those of one of the folder's runs (the last one that has them).

    Where settings vary that a figure does not show, one for each of their combinations; none if they are more than MOST.
    """
    sorts: list[tuple[tuple[str, ...], Callable[[list[Row]], Drawing]]] = []
    for x in AXES:
        for error in ("worst_error", "rms_zeros") if x == "d" else ("worst_error",):
            sorts.append(((x, AXES[x][1]), lambda part, x=x, error=error: error_over(part, x, error)))  # type: ignore[misc]
    sorts += [(("m", "d"), error_map), (("m", "d"), genericity_map), (("p", "weight", "steps"), loss_map)]
    drawn = 0
    for axes, draw in sorts:
        made = []
        for words, part in split(rows, axes):
            try:
                made.append((words, draw(part)))
            except InputError:
                continue  # this table does not allow it
            if len(made) > MOST:
                yield Skipped(
                    f"{made[0][1].title} is left out: more than {MOST} combinations of other settings would each have a figure "
                    "of their own. The scripts of analysis/ draw any of them, with --where."
                )
                made = []
                break
        yield from (_named(drawing, words, number) for number, (words, drawing) in enumerate(made))
        drawn += len(made)
    shown = {axis for axes, _ in sorts for axis in axes}
    if varied(rows) and (not drawn or set(varied(rows)) - shown):
        yield parameters(rows)
    if folder is not None:
        for kind, make in (("compare", histograms), (None, weights)):
            found = _last(folder, kind, make)
            yield from found


def _named(drawing: Drawing, words: str, number: int) -> Drawing:
    if not words:
        return drawing
    heading(drawing.figure, words)
    return dataclasses.replace(drawing, name=f"{drawing.name}-{number + 1}", title=f"{drawing.title} ({words})")


def _last(folder: Path, kind: str | None, make: Callable[[Path], list[Drawing]]) -> list[Drawing]:
    for run in reversed(finished_runs(folder, kind)):
        try:
            return make(run)
        except InputError:
            continue
    return []
