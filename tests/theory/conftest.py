"""One rule for every Monte Carlo comparison in this folder."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm

FALSE_ALARM = 1e-3
"""Chance that a right formula fails one call of `disagreement` under a fresh seed, however many numbers it compares."""


@pytest.fixture
def disagreement() -> Callable[..., float]:
    """disagreement(samples, predicted): the largest |z|, over its Bonferroni limit; above 1 is a failure.

    samples: (draws, …) iid over the first axis; predicted: the exact means of the other axes. A column without any
    spread must match to rounding. "Three standard errors" would be exceeded by chance in 1 of 370 comparisons.
    """

    def measure(samples: np.ndarray, predicted: np.ndarray) -> float:
        samples = samples.reshape(len(samples), -1)
        mean, spread = samples.mean(axis=0), samples.std(axis=0)
        gap = np.abs(mean - np.ravel(predicted))
        z = np.where(
            spread > 1e-9, gap / np.maximum(spread, 1e-9) * np.sqrt(len(samples)), np.where(gap < 1e-9, 0, np.inf)
        )
        return float(z.max() / norm.isf(FALSE_ALARM / 2 / len(z)))

    return measure
