"""Register figures: one function each, from a table of results or from the record of a run to a drawing.

    @figure("error_by_seed", columns=("d",))
    def error_by_seed(rows, *, metric="worst_error"):
        \"\"\"Draw each seed's error.\"\"\"
        figure = new_figure(3)
        axis = figure.subplots()
        axis.plot([row["seed"] for row in rows], [row[metric] for row in rows], "o")
        axis.set(xlabel="seed", ylabel=error_label(metric))
        return figure

`rows` is the table: a list of dicts, as `toymodels.figures.table.load_table` returns it. A function whose first parameter is
named `run` gets the folder of a finished run instead. Keyword-only parameters are the figure's knobs. The same decorator works in
a file of your own (`toymodels draw error_by_seed TABLE --plugin mylab.py`); the report then has the figure, too.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toymodels.errors import InputError
from toymodels.figures.style import Drawing, default_style, heading
from toymodels.figures.table import Row, coverage, require, title_of
from toymodels.registry import Member, Registry
from toymodels.runs.metrics import check_metric


@dataclass(frozen=True, kw_only=True)
class Figure(Member):
    """A figure. Its function returns a Drawing, a matplotlib Figure, a list of drawings, or a dict from names to Figures."""

    columns: tuple[str, ...] = ()
    """Columns that every row must have a value in; drawing refuses a table without. (A knob `metric` names one more.)"""
    applies: Callable[..., bool] | None = None
    """Function of `rows` (or `run`), and of those of the knobs that it names: whether a report should have this figure."""
    variants: tuple[Mapping[str, Any], ...] = ({},)
    """Knobs of the drawings in a report, one drawing each."""
    after_run: bool = False
    """Whether a command that does a run draws this figure of it into the run's folder."""

    @property
    def source_kind(self) -> str:
        """What the figure is drawn from: "rows" (a table) or "run" (the folder of a finished run)."""
        return "run" if "run" in self.parameters else "rows"

    def fits(self, source: Sequence[Row] | Path, **knobs: Any) -> bool:
        """Return whether a report of this table, or run, should have the figure with these knobs."""
        offered = {self.source_kind: source, **self.knobs, **knobs}
        try:
            if isinstance(source, Path):
                check_source(self, source)
            else:
                check_rows(source, self.columns, offered)
        except InputError:
            return False
        if self.applies is None:
            return True
        return self.applies(**{name: offered[name] for name in inspect.signature(self.applies).parameters})

    def draw(self, source: Sequence[Row] | Path, **knobs: Any) -> list[Drawing]:
        """Draw the figure in matplotlib's default style.

        Raises InputError for a table or run that it cannot be drawn from, and for an unknown or unfit knob.
        """
        check_source(self, source)
        unknown = [name for name in knobs if name not in self.knobs]
        if unknown:
            has = f"its knobs are {', '.join(self.knobs)}" if self.knobs else "it has none"
            raise InputError(f"the figure {self.name} has no knob {unknown[0]!r}: {has}")
        read = {name: self._fitted(name, value) for name, value in knobs.items()}
        with default_style():
            result = self.call({self.source_kind: source}, read)
            if isinstance(result, Mapping):
                parts = [self._drawing(part, source, read, f"{self.name}-{name}") for name, part in result.items()]
            elif isinstance(result, list | tuple):
                parts = [self._drawing(part, source, read, f"{self.name}-{i}") for i, part in enumerate(result, 1)]
            else:
                parts = [self._drawing(result, source, read, self.name)]
        return parts

    def _fitted(self, name: str, value: Any) -> Any:
        """Return a knob's value as its default has it: a list where that is one, a number where that is one."""
        default = self.knobs[name]
        if isinstance(default, tuple):
            value = value if isinstance(value, tuple) else (value,)
        pairs = zip(value, default * len(value), strict=False) if isinstance(default, tuple) else [(value, default)]
        for item, example in pairs:
            if isinstance(example, int | float) and (isinstance(item, bool) or not isinstance(item, int | float)):
                raise InputError(f"{name} = {item!r}: this knob of the figure {self.name} is a number")
        return value

    def _drawing(self, result: Any, source: Any, knobs: Mapping[str, Any], name: str) -> Drawing:
        """Give a plain matplotlib Figure a name, and a title that names the error, the inputs covered and the seeds."""
        if isinstance(result, Drawing):
            return result
        if not hasattr(result, "savefig"):
            raise InputError(
                f"the figure {self.name} returned {type(result).__name__}: it must return a matplotlib Figure, a Drawing, a "
                "list of them, or a dict from names to Figures"
            )
        title = result.get_suptitle() or self.purpose.rstrip(".")
        if not result.get_suptitle():
            heading(result, title)
        if self.source_kind == "rows":
            metric = {**self.knobs, **knobs}.get("metric")
            heading(result, ", ".join([*([title_of(metric)] if metric else []), coverage(source)]))
        return Drawing(name, title, result)


FIGURES: Registry[Figure] = Registry("figure", Figure, "toymodels.figures")
"""Every figure by name."""


def figure(name: str, **about: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: register a function as a figure. `about`: fields of `Figure` (columns, applies, variants, order, source, …).

    The function itself, too, then checks its table and draws in matplotlib's default style.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def draw(*arguments: Any, **knobs: Any) -> Any:
            bound = signature.bind(*arguments, **knobs)
            bound.apply_defaults()
            if "rows" in bound.arguments:
                check_rows(bound.arguments["rows"], about.get("columns", ()), bound.arguments)
            with default_style():
                return function(*arguments, **knobs)

        FIGURES.add(Figure(name=name, function=draw, **about))
        return draw

    return register


def check_rows(rows: Sequence[Row], columns: Sequence[str], knobs: Mapping[str, Any]) -> None:
    """Raise InputError for a table that lacks a column, and for a knob `metric` that is no error, and not measured either."""
    metric = knobs.get("metric")
    if metric is not None:
        check_metric(metric, rows)
    if not rows:
        raise InputError("the table has no rows: there is nothing to draw")
    require(rows, columns, (metric,) if metric is not None else ())


def check_source(member: Figure, source: Sequence[Row] | Path) -> None:
    """Raise InputError if a figure of a run is asked for from a table, or the other way round."""
    if isinstance(source, Path) != (member.source_kind == "run"):
        needs = "the folder of a finished run" if member.source_kind == "run" else "a table of results"
        raise InputError(f"the figure {member.name} is drawn from {needs}: name one")
