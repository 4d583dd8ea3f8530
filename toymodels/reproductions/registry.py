"""Register reproductions: a published figure or table measured again, ours beside the published number, with a verdict.

A reproduction lists cases (`keys`), measures one of them (its function), and compares what was measured with what was published
(`lines`). Every case is a line of a JSON lines file, so a stopped reproduction goes on where it was. Each has a reduced size,
minutes on one core, and the full size of the paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toymodels.registry import Member, Registry
from toymodels.theory.statistics import mean_interval

Row = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One number, ours beside the published one."""

    what: str
    ours: Sequence[float | int]
    """One for each seed, with data of its own."""
    published: float | int | None = None
    """None if nobody has published it."""
    reading: float | int = 0.0
    """How far the published number may be off: half a unit of its last digit, or the accuracy of reading a figure."""

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return mean_interval(self.ours)[0]

    @property
    def half(self) -> float | None:
        """Half of the 95 % t interval over seeds; None for one seed."""
        return mean_interval(self.ours)[1]

    @property
    def verdict(self) -> str:
        """agree, if the intervals of both meet; else by how much they differ; "not published" if there is nothing to compare."""
        if self.published is None:
            return "not published"
        distance = self.mean - self.published
        if abs(distance) <= (self.half or 0.0) + self.reading:
            return "agree"
        share = f" ({distance / self.published:+.1%})" if self.published else ""
        return f"differ by {distance:+.3g}{share}"

    def to_dict(self) -> Row:
        """Return plain values, for JSON."""
        half = self.half
        known = {"published": self.published, "reading": self.reading} if self.published is not None else {}
        return {
            "what": self.what, "ours": self.mean, "half_interval": half if half is None or math.isfinite(half) else None,
            "by_seed": list(map(float, self.ours)), **known, "verdict": self.verdict,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Reproduction(Member):
    """A figure or table by name: `function(key)` measures one case, for all seeds at once, and returns its numbers."""

    shows: str
    """What of which paper."""
    reduced: Mapping[str, int]
    """Size by default: part of every key."""
    full: Mapping[str, int]
    """Size of the paper."""
    keys: Callable[[Mapping[str, int], tuple[int, ...]], list[Row]]
    """Lists the cases for a size and seeds."""
    lines: Callable[[Sequence[Row]], list[Line]]
    """Compares the rows of all cases with what was published."""
    draw: Callable[[Sequence[Row]], Any] | None = None
    """Draws the rows: a matplotlib Figure."""
    answer: Callable[[Sequence[Row]], str] | None = None
    """Says in a sentence or two what follows from the rows."""
    minutes: float | int = 5
    """About how long the reduced size takes on one core."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Seeds by default."""


def of_cases(cases: Iterable[Row]) -> Callable[[Mapping[str, int], tuple[int, ...]], list[Row]]:
    """Return the `keys` of a reproduction that measures these cases at every size, each for all seeds."""
    listed = list(cases)
    return lambda size, seeds: [{**case, **size, "seeds": list(seeds)} for case in listed]


def columns(found: Sequence[Row]) -> Row:
    """Turn the numbers of each network, by name, into a list for each name."""
    return {name: [one[name] for one in found] for name in found[0]}


REPRODUCTIONS = Registry("reproduction", Reproduction, "toymodels.reproductions")
"""Reproductions by name."""
