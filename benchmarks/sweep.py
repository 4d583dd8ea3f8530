"""How much faster are two workers than one on a sweep of independent runs?

Trainings of U-AND, at most 2 of m features active, a seed each; from `toymodels sweep` to its end, starts of processes included.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.harness import Case, Row, Spread, matmul, peak_mib
from toymodels.runs.table import read_table
from toymodels.sweeps.runner import SweepConfig, run_sweep

WANTED = 1.7
FILE = """method: grid
command: ["${{env}}", "toymodels", "run", "train", "${{args_json_file}}"]
parameters:
  m: {{value: {m}}}
  d: {{value: {d}}}
  steps: {{value: {steps}}}
  seeds: {{values: {seeds}}}
"""


def cases(quick: bool) -> list[Case]:
    """12 runs of some 5 s; --quick: 2 of less than a second."""
    arguments = {"m": 6, "d": 8, "steps": 20, "runs": 2} if quick else {"m": 24, "d": 48, "steps": 2000, "runs": 12}
    return [Case("sweep", two_against_one, arguments)]


def two_against_one(m: int, d: int, steps: int, runs: int) -> list[Row]:
    """The same sweep by one worker and by two, which must find the same errors."""
    seconds, tables = {}, {}
    for workers in (2, 1):
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "sweep.yaml"
            file.write_text(FILE.format(m=m, d=d, steps=steps, seeds=[[seed] for seed in range(runs)]))
            started = time.perf_counter()
            folder, failed = run_sweep(SweepConfig(file, Path(name) / "out", workers=workers))
            seconds[workers] = time.perf_counter() - started
            tables[workers] = {row["seed"]: row for row in read_table(folder)}
            if failed or len(tables[workers]) != runs:
                raise ArithmeticError(f"{failed} of {runs} runs failed")
    if any(tables[1][seed]["worst_error"] != tables[2][seed]["worst_error"] for seed in range(runs)):
        raise ArithmeticError("one worker and two find different errors")
    each = {workers: Spread.of([row["seconds"] for row in table.values()]) for workers, table in tables.items()}
    product = matmul()
    return [
        Row(
            f"{runs} runs, m = {m}, d = {d}, {steps:,} steps: two workers", "s", Spread.of([seconds[2]]),
            Spread.of([product() for _ in range(5)]), peak_mib(), "one worker", Spread.of([seconds[1]]),
            Spread.of([seconds[1] / seconds[2]]), WANTED,
            note=f"a training takes {each[1].median:.1f} s alone and {each[2].median:.1f} s beside another",
        )
    ]  # fmt: skip
