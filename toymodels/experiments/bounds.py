"""`toymodels bounds`: predictions and floors in one table, and measurements beside them where asked for."""

from __future__ import annotations

import dataclasses

from toymodels.experiments.checks import Checked, check
from toymodels.experiments.predictions import Row, rows, span
from toymodels.experiments.sizes import BoundsConfig
from toymodels.runs import text as tables
from toymodels.runs.identity import to_dict
from toymodels.runs.storage import write_json
from toymodels.theory.gates import Gate


def run_bounds(config: BoundsConfig) -> str:
    """The tables, as text; also written as JSON where asked."""
    blocks, records = [], []
    for name in config.task:
        gate = Gate.parse(name)
        found = rows(config, gate)
        measured: list[Checked] = []
        if config.check:
            found, measured = check(config, gate, found)
        blocks.append(_table(config, gate, found, measured))
        for index, row in enumerate(found):
            extra = dataclasses.asdict(measured[index]) if config.check else {}
            records.append({"task": gate.name, **dataclasses.asdict(row), **extra})
    blocks.append(_FOOTER)
    if config.json is not None:
        settings = {key: value for key, value in to_dict(config).items() if key != "json"}
        write_json(config.json, {"rows": records, "config": settings})
    return "\n\n".join(blocks)


_FOOTER = (
    "error: output − target. RMS: root mean square over the draw of the layer and the inputs of that case or target value;\n"
    "worst error: largest |error| over all pairs and the inputs named. Layers are Gaussian (N(0, 1), no bias, ReLU) unless\n"
    "said. A floor cannot be beaten, a prediction is what to expect, a baseline is what doing nothing gives. What minimax\n"
    "readoffs reach is not predicted, it is measured: --check, or toymodels compare."
)


def _table(config: BoundsConfig, gate: Gate, found: list[Row], measured: list[Checked]) -> str:
    legend: dict[str, str] = {}

    def mark(text: str) -> str:
        return legend.setdefault(text, f"[{len(legend) + 1}]") if text else ""

    header = ["name", "value"]
    if measured:
        header += ["measured", "95 % interval", "covered"]
    header += ["kind", "of what", "inputs", "source", "note"]
    cells = []
    for index, row in enumerate(found):
        line = [row.name, "–" if row.value is None else figure(row.value)]
        if measured:
            seen = measured[index]
            line += ["–" if seen.measured is None else figure(seen.measured)]
            line += ["" if seen.interval is None else f"{figure(seen.interval[0])} … {figure(seen.interval[1])}"]
            line += [mark(seen.coverage)]
        cells.append([*line, row.kind, row.about, row.inputs, row.source, mark(row.note)])
    title = f"U-{gate.name.upper()}: m = {config.m} features, {config.domain} active, d = {config.d} neurons"
    if measured:
        title += f"; measured on a layer per seed, seeds {span(config.seeds)}"
    notes = "\n".join(f"{number} {text}" for text, number in legend.items())
    table = tables.render(header, cells, right=(1, 2) if measured else (1,))
    return f"{title}\n{table}" + (f"\n{notes}" if notes else "")


def figure(value: float) -> str:
    """Four decimals, or three significant digits for what would be lost in them."""
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 1e5 else f"{value:.2e}"
