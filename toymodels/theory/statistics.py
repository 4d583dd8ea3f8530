"""Means with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None]:
    """(mean, half-width of Student's t interval); the half-width is None for a single value.

    Assumes independent values, as those of different seeds are.
    """
    from scipy import stats  # a second to import, and wanted only here

    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5
    return mean, float(stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * error
