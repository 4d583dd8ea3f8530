"""Measure speed, memory and large sizes against plain references in the same run.

python -m benchmarks                     # everything, into benchmarks/RESULTS.md
python -m benchmarks --only train-mse minimax
python -m benchmarks --quick             # small sizes, to try it: printed, stored only where --out says
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import analytic, evaluation, learning, minimax, report, samplers, sweep, training
from benchmarks.harness import Case, run_case
from toymodels.errors import InputError

QUESTIONS = (
    "train-mse",
    "train-lp",
    "scaling",
    "samplers",
    "first-layer",
    "pair-sampling",
    "large",
    "minimax",
    "evaluation",
    "analytic",
    "sweep",
)
MODULES: tuple[Callable[[bool], list[Case]], ...] = (
    training.cases, samplers.cases, learning.cases, minimax.cases, evaluation.cases, analytic.cases,
    sweep.cases,
)  # fmt: skip


@dataclass(frozen=True)
class Benchmarks:
    """Measure speed, memory and large sizes against plain references in the same run."""

    only: tuple[str, ...] = ()
    """Questions to ask, of train-mse, train-lp, scaling, samplers, first-layer, pair-sampling, large, minimax, evaluation,
    analytic, sweep; default all."""
    quick: bool = False
    """Small sizes and few repeats, to try the benchmarks."""
    out: Path | None = None
    """Folder of results.jsonl and RESULTS.md; default benchmarks, and none with --quick. Questions that do not run keep
    their figures."""


def run(settings: Benchmarks) -> None:
    """Ask the questions one after the other; figures are printed and stored as soon as a question is answered.

    Raises InputError for an unknown question.
    """
    for name in settings.only:
        if name not in QUESTIONS:
            raise InputError(f"unknown question {name!r}: choose from {', '.join(QUESTIONS)}")
    out = settings.out or (None if settings.quick else Path(__file__).parent)
    where = report.machine()
    print(f"{where}\n{report.LEGEND}", flush=True)
    cases = [case for module in MODULES for case in module(settings.quick)]
    for question in QUESTIONS:
        if settings.only and question not in settings.only:
            continue
        lines = []
        for case in (case for case in cases if case.question == question):
            lines += [report.line(question, row, settings.quick, where) for row in run_case(case)]
        if lines:
            print(f"\n{question}\n{report.table(lines)}", flush=True)
            if out is not None:
                report.store(out, lines, QUESTIONS)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: done; 2: a wrong input, in one sentence; 130: stopped by Ctrl-C."""
    try:
        run(tyro.cli(Benchmarks, args=arguments, prog="python -m benchmarks"))
    except InputError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: stopped; what was answered is stored", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
