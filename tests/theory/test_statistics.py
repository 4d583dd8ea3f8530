import math

import numpy as np
import pytest
from scipy.stats import binom

from toymodels.theory.statistics import mean_interval, quantile_interval, root_interval

# Quantiles of Student's t with 2 degrees of freedom have a closed form: t = (2q − 1)·√(2/(4q(1 − q))).
T95, T50 = ((2 * q - 1) * math.sqrt(2 / (4 * q * (1 - q))) for q in (0.975, 0.75))


def test_an_interval_of_the_mean_is_students():
    values = [6.0, 1.0, 2.0]  # standard deviation √7
    assert mean_interval(values) == pytest.approx((3.0, T95 * math.sqrt(7 / 3)), rel=1e-12)
    assert mean_interval(values, confidence=0.5) == pytest.approx((3.0, T50 * math.sqrt(7 / 3)), rel=1e-12)
    assert mean_interval([1.0, 1.0]) == (1.0, 0.0)
    assert mean_interval([4.0]) == (4.0, None)


def test_an_interval_of_the_root_has_the_roots_of_both_ends():
    value, ends = root_interval([99.0, 100.0, 101.0])
    half = T95 / math.sqrt(3)
    assert (value, *ends) == pytest.approx((10.0, math.sqrt(100 - half), math.sqrt(100 + half)), rel=1e-12)
    assert root_interval([4.0]) == (2.0, None)
    value, (low, high) = root_interval([3.0, 5.0])
    assert (value, low) == (2.0, 0.0)  # the mean's interval reaches below 0
    assert high > 2


def test_an_interval_of_a_quantile_may_reach_to_the_ends_of_the_sample():
    """Of 6 values the median lies outside with probability 2/64, below 5 %; of 5 values with 2/32."""
    assert quantile_interval([6.0, 2.0, 3.0, 5.0, 4.0, 1.0], 0.5) == (3.5, (1.0, 6.0))
    assert quantile_interval([2.0, 3.0, 5.0, 4.0, 1.0], 0.5) == (3.0, None)
    assert quantile_interval([2.0, 3.0, 5.0, 4.0, 1.0], 0.5, confidence=0.9) == (3.0, (1.0, 5.0))
    # Only one end is missing: of 20 values none is surely below the 5 % quantile, or above the 95 % quantile.
    values = [float(i) for i in range(20)]
    assert quantile_interval(values, 0.5) == (9.5, (5.0, 14.0))  # P(fewer than 6 lie below) = 0.0207, than 7 = 0.0577
    assert quantile_interval(values, 0.1)[1] is None
    assert quantile_interval(values, 0.9)[1] is None


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
