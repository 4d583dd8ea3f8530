import math

import numpy as np
from scipy.stats import binom

from toymodels.theory.statistics import quantile_interval, root_interval


def test_intervals_hold_what_they_should():
    generator = np.random.default_rng(0)
    samples = generator.exponential(size=(2000, 20))
    medians = [quantile_interval(row.tolist(), 0.5) for row in samples]
    held = np.mean([low <= math.log(2) <= high for _, (low, high) in medians])
    # Order statistics 6 and 15 of 20 hold the median with probability 0.9586; 2,000 draws, limits of 1 in 1,000.
    exact = binom.cdf(14, 20, 0.5) - binom.cdf(5, 20, 0.5)
    assert abs(held - exact) < 3.3 * math.sqrt(exact * (1 - exact) / 2000)
    assert quantile_interval([1.0, 2.0, 3.0], 0.5)[1] is None
    assert quantile_interval(samples[0].tolist(), 0.05)[1] is None
    assert root_interval([4.0]) == (2.0, None)
    value, (low, high) = root_interval([3.0, 5.0])
    assert (value, low) == (2.0, 0.0)
    assert high > 2
