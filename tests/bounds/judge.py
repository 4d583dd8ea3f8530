"""What a checked statement is here, and how it is judged.

A statement measures something with the library, compares it with a closed form or a bound, and returns its *strain*: at most
1 where it holds. A planted fault changes what is measured or what is predicted, never the tolerance.

False alarms. Inequalities and identities have no chance in them: their tolerance is rounding, derived where it is used.
Every statistical one has FALSE_ALARM of false alarm under a fresh seed, by Bonferroni over all of its comparisons; with
at most 20 of them that is 2e-4 for the folder. Standard errors are taken over independent layers (errors of one layer are
correlated) and limits from Student's t; what is averaged is skewed, which can make the far tail several times heavier
than t's, so the rate stated for the whole folder is FALSE_ALARM_OF_ALL, five times as much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from toymodels.laws.checks import FALSE_ALARM, strain_of, strain_of_p  # noqa: F401 (statements take them from here)
from toymodels.laws.registry import LAWS, Problem

FALSE_ALARM_OF_ALL = 1e-3
"""Chance, at most, that any test of this folder fails under fresh seeds while library and theory are right."""
HEAVY_TAILS = 5
"""Allowance for what is not normal."""


@dataclass(frozen=True)
class Statement:
    """A statement that is checked, and the faults that its check is shown to catch."""

    statement: str
    check: Callable[[str, int], float]
    """(fault, "" for none; seed) to strain."""
    faults: tuple[str, ...]
    statistical: bool


STATEMENTS: dict[str, Statement] = {}


def statement(
    statement: str, faults: Sequence[str], statistical: bool = True
) -> Callable[[Callable[[str, int], float]], Callable[[str, int], float]]:
    """Register a check under its function's name."""

    def register(check: Callable[[str, int], float]) -> Callable[[str, int], float]:
        STATEMENTS[check.__name__] = Statement(statement, check, tuple(faults), statistical)
        return check

    return register


def predicted(name: str, problem: Problem) -> float:
    """The number that a law of `toymodels.laws` predicts."""
    value = LAWS[name].predict(problem)
    return float(value[0] if isinstance(value, tuple) else value)


def largest(*values: float) -> float:
    """The largest; not a number if any is not, unlike Python's max."""
    return float(np.max(values))


def z_scores(samples: np.ndarray, predicted: np.ndarray | float) -> list[float]:
    """(mean − predicted)/standard error of each column; samples are independent over the first axis."""
    columns = samples.reshape(len(samples), -1)
    error = columns.std(axis=0, ddof=1) / math.sqrt(len(columns))
    return list((columns.mean(axis=0) - np.broadcast_to(predicted, samples.shape[1:]).ravel()) / error)
