"""Print the laws: `toymodels bounds`, with measurements beside them where asked for, and `toymodels width`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

from threadpoolctl import threadpool_limits

from toymodels.errors import InputError
from toymodels.laws.measuring import DrawnLayers, list_seeds
from toymodels.laws.registry import LAWS, PREDICTION, WIDTH, Law, Problem, known
from toymodels.laws.sizes import BoundsConfig, SizeSettings, WidthConfig
from toymodels.parallel.progress import Bar
from toymodels.runs.text import render
from toymodels.theory.gates import Gate

_BOUNDS_FOOTER = (
    "error: output − target. RMS: root mean square over the draw of the layer and the inputs of that case or target value;\n"
    "worst error: largest |error| over all pairs and the inputs named. Layers are Gaussian (N(0, 1), no bias, ReLU) unless\n"
    "said. A floor cannot be beaten, a prediction is what to expect, a baseline is what doing nothing gives. What minimax\n"
    "readoffs reach is not predicted, it is measured: --check, or toymodels compare."
)
_WIDTH_FOOTER = (
    "error: output − target. Widths by a readoff's law are predictions for a frozen Gaussian layer (N(0, 1), no bias, ReLU)\n"
    "unless said, and reach ε in the sense of their row: an RMS error of ε is far from a worst error of ε (largest |error|\n"
    "over all pairs and inputs). A lower bound holds for every layer. The widths at which minimax readoffs, which have the\n"
    "smallest worst error of all, reach ε are not predicted: they must be measured, by toymodels compare.\n"
)


@dataclass(frozen=True)
class Row:
    """One number of a table."""

    name: str
    value: float | None
    """None: not known for this problem, `note` says why."""
    kind: str
    about: str
    inputs: str
    source: str
    note: str


@dataclass(frozen=True)
class Check:
    """The measurement beside a row."""

    measured: float | None
    interval: tuple[float, float] | None
    """95 %, over layers; None where there is nothing random, or too few layers."""
    coverage: str
    """Which layers, inputs and pairs it covers, or why nothing was measured."""


def make_rows(problem: Problem, epsilon: float | None = None) -> list[Row]:
    """Compute every number of `bounds` for one gate, or (with ε) every width; unknown ones have a note that says why."""

    def row(law: Law) -> Row:
        value, note = known(lambda: law.predict(problem) if epsilon is None else law.width(problem, epsilon))
        kind = law.kind if epsilon is None else "readoff's law" if law.kind == PREDICTION else WIDTH
        return Row(law.name, value, kind, law.about, problem.domain(law.inputs), law.source, note)

    with threadpool_limits(1, "blas"):
        return [row(law) for law in laws_of(problem, "bounds" if epsilon is None else "width")]


def laws_of(problem: Problem, table: str) -> list[Law]:
    """List the laws that `bounds` or `width` has a row for (in the table of widths readoffs stand before floors)."""
    laws = [law for law in LAWS.values() if table in law.tables and law.applies(problem)]
    return laws if table == "bounds" else sorted(laws, key=lambda law: law.kind != PREDICTION)


def check_rows(problem: Problem) -> list[Check]:
    """Measure the law of every row of `bounds` on the layers of the problem's seeds."""

    def check(law: Law) -> Check:
        try:
            measured = law.measure(drawn)
        except InputError as reason:
            return Check(None, None, f"not measured: {reason}")
        return Check(*measured.estimate, measured.coverage)

    drawn, laws = DrawnLayers(problem), laws_of(problem, "bounds")
    return [check(law) for law in Bar(f"{problem.gate.name}: measuring", len(laws), "law").over(laws)]


def run_bounds(config: BoundsConfig) -> str:
    """Make the tables of `bounds`, as text; also write them as JSON where asked."""

    def title(problem: Problem) -> str:
        measured = f"; measured on a layer per seed, seeds {list_seeds(problem.seeds)}" if problem.seeds else ""
        return f"m = {problem.m} features, {problem.domain()} active, d = {problem.d} neurons{measured}"

    return f"{_tables(config, title, ('value', 'of what'), _number)}\n\n{_BOUNDS_FOOTER}"


def run_width(config: WidthConfig) -> str:
    """Make the tables of `width`, as text; also write them as JSON where asked."""

    def title(problem: Problem) -> str:
        size = f"m = {problem.m} features, {problem.domain()} active"
        return f"neurons d for an error ε = {config.epsilon:g}, {size}"

    tables = _tables(config, title, ("d", "error"), lambda width: f"{math.ceil(width):,}", config.epsilon)
    return f"{tables}\n\n{_WIDTH_FOOTER}"


def _tables(
    config: SizeSettings,
    title: Callable[[Problem], str],
    columns: tuple[str, str],
    number: Callable[[float], str],
    epsilon: float | None = None,
) -> str:
    """Make a table for each gate; `columns` are the headers of the number and of what it is about."""
    blocks, records = [], []
    for gate in map(Gate.parse, config.task):
        problem, notes, cells = config.problem(gate), _Notes(), []
        rows = make_rows(problem, epsilon)
        checks = check_rows(problem) if problem.seeds else [None] * len(rows)
        for row, check in zip(rows, checks, strict=True):
            line = [row.name, "–" if row.value is None else number(row.value)]
            if check:
                line += ["–" if check.measured is None else number(check.measured)]
                line += [" … ".join(map(number, check.interval or ())), notes.mark(check.coverage)]
            cells.append([*line, row.kind, row.about, row.inputs, row.source, notes.mark(row.note)])
            records.append({"task": gate.name, **asdict(row), **(asdict(check) if check else {})})
        measured = ["measured", "95 % interval", "covered"] if problem.seeds else []
        header = ["name", columns[0], *measured, "kind", columns[1], "inputs", "source", "note"]
        table = render(header, cells, right=(1, 2) if problem.seeds else (1,))
        blocks.append("\n".join([f"U-{gate.name.upper()}: {title(problem)}", table, *notes.lines()]))
    if config.json is not None:
        from toymodels.runs.identity import to_dict
        from toymodels.runs.storage import write_json

        settings = {key: value for key, value in to_dict(config).items() if key != "json"}
        write_json(config.json, {"rows": records, "config": settings})
    return "\n\n".join(blocks)


class _Notes:
    """The notes below a table, each written once under a number."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, note: str) -> str:
        """Return the number of a note; nothing for an empty one."""
        return self._marks.setdefault(note, f"[{len(self._marks) + 1}]") if note else ""

    def lines(self) -> list[str]:
        """Return the notes behind their numbers."""
        return [f"{mark} {note}" for note, mark in self._marks.items()]


def _number(value: float) -> str:
    """Write four decimals, or three significant digits for what would be lost in them."""
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 1e5 else f"{value:.2e}"
