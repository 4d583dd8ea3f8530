"""Search for the smallest width that is enough."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable

from toymodels.errors import InputError

WIDEST = 10**12
"""Neurons beyond which the search gives up."""


def smallest_width(enough: Callable[[int], bool], least: int = 1, widest: int = WIDEST) -> int:
    """Find the smallest d >= least with enough(d), which must stay true from there on, by doubling and bisection.

    Raises InputError if it is above `widest`.
    """
    low, high = least, max(least, 1)
    while not enough(high):
        if high >= widest:
            raise InputError(f"more than {widest:,} neurons")
        low, high = high + 1, min(2 * high, widest)
    return bisect.bisect_left(range(high), True, low, key=enough)


def width_of_floors(floors: Callable[[int], Iterable[float]], epsilon: float) -> int:
    """Find the smallest d at which no floor of an error is above epsilon. Raises InputError unless epsilon > 0.

    Thin layers have very many floors, and the first ones tell.
    """
    if not epsilon > 0:
        raise InputError(f"an error to reach is a positive number, got {epsilon:g}")
    return smallest_width(lambda d: not any(floor > epsilon for floor in floors(d)))
