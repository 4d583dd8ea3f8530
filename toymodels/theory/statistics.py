"""Estimate means and quantiles with confidence intervals, from one number for each seed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None]:
    """Return (mean, half-width of Student's t interval); the half-width is None for a single value.

    Assumes independent values, as those of different seeds are.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean, float(stdtrit(len(values) - 1, (1 + confidence) / 2)) * error


def root_interval(mean_squares: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Return the root of the mean of some mean squares, and of the ends of its t interval (None for a single one)."""
    mean, half = mean_interval(mean_squares)
    if half is None:
        return math.sqrt(mean), None
    return math.sqrt(mean), (math.sqrt(max(mean - half, 0)), math.sqrt(mean + half))


def quantile_interval(
    values: Sequence[float], q: float, confidence: float = 0.95
) -> tuple[float, tuple[float, float] | None]:
    """Return the sample's q-quantile, and two of its values that enclose the distribution's with this confidence.

    Assumes nothing but independence. The interval is None where so few values have no such pair.
    """
    from scipy.stats import binom  # half a second to import, and wanted only here

    ordered, n = sorted(values), len(values)
    tail = (1 - confidence) / 2
    # P(the quantile lies below the r-th smallest) = P(fewer than r values are below it).
    low = int(binom.ppf(tail, n, q))
    high = int(binom.isf(tail, n, q)) + 1
    value = float(np.quantile(ordered, q))
    if low < 1 or high > n:
        return value, None
    return value, (ordered[low - 1], ordered[high - 1])
