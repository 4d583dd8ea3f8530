"""Power laws and crossings are found where they are known, and their intervals cover as often as they say."""

import math

import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.figures import fits
from toymodels.figures.fits import EXACT, Crossing, _middle, crossing, in_words, power_law

D = np.array([8.0, 16.0, 32.0, 64.0])


def test_an_exact_law_is_found():
    errors = np.stack([3 * D**-0.7, 3 * D**-0.7])
    law = power_law(D, errors)
    assert law.exponent == pytest.approx(-0.7, abs=1e-12)
    assert law.constant == pytest.approx(3, abs=1e-11)
    assert law.exponent_interval == pytest.approx((-0.7, -0.7), abs=1e-12)
    assert law.misfit == pytest.approx(1, abs=1e-12)
    assert law.sizes == 4


def test_least_squares_is_of_mean_logarithms():
    errors = np.exp(np.random.default_rng(1).normal(0, 0.3, (5, 4))) * D**-0.5
    slope, level = np.polyfit(np.log(D), np.log(errors).mean(0), 1)
    law = power_law(D, errors)
    assert law.exponent == pytest.approx(slope, abs=1e-12)
    assert law.constant == pytest.approx(math.exp(level), rel=1e-12)
    residual = np.log(errors).mean(0) - level - slope * np.log(D)
    assert law.misfit == pytest.approx(math.exp(abs(residual).max()), rel=1e-12)


def test_missing_and_exact_errors_are_left_out():
    errors = np.stack([2 / D, 2 / D])
    errors[0, 0], errors[:, 3] = np.nan, EXACT
    law = power_law(D, errors)
    assert law.exponent == pytest.approx(-1, abs=1e-12)
    assert law.sizes == 3
    with pytest.raises(InputError, match="two sizes"):
        power_law(D, np.full((2, 4), 1e-9))


@pytest.mark.parametrize("sizes", [1, 2, 3])
def test_draws_in_which_sizes_are_missing_have_the_same_law(sizes):
    """Seed 1 has few sizes: where it alone is drawn, the law rests on these, or on nothing if there is only one."""
    errors = np.stack([3 * D**-0.7] * 2)
    errors[1, sizes:] = np.nan
    law = power_law(D, errors)
    assert law.exponent_interval == pytest.approx((-0.7, -0.7), abs=1e-12)
    assert law.constant_interval == pytest.approx((3, 3), rel=1e-12)
    assert law.sizes == 4


def test_a_seed_without_errors_is_not_counted():
    errors = np.stack([3 * D**-0.7, np.full(4, np.nan)])
    assert power_law(D, errors) == power_law(D, errors[:1])
    assert power_law(D, errors).exponent_interval is None
    assert crossing(D, errors, 0.3) == crossing(D, errors[:1], 0.3)


def test_an_interval_leaves_out_a_fortieth_on_each_side():
    low, high = _middle(np.append(np.random.default_rng(0).permutation(2001).astype(float), np.nan))
    assert abs(low - 50) <= 1
    assert abs(high - 1950) <= 1


def test_one_seed_has_no_interval():
    law = power_law(D, (2 / D)[None])
    assert law.exponent_interval is None
    assert law.constant_interval is None
    assert in_words(law.exponent, law.exponent_interval) == "-1.000"


def test_intervals_cover_the_truth(monkeypatch):
    """With 40 seeds a percentile interval covers nearly 95 %: over 200 tables, within 4 binomial standard errors of the
    93.6 % that n = 40 normal values give (z·sqrt(39/40) for a normal quantile: P(|t_39| < 1.96·0.987))."""
    from scipy import stats

    monkeypatch.setattr(fits, "RESAMPLES", 1000)
    expected = 1 - 2 * stats.t.sf(1.96 * math.sqrt(39 / 40), 39)
    rng, n = np.random.default_rng(0), 200
    hits = 0
    for _ in range(n):
        # A common factor of each seed, and one at each width: only resampling whole seeds gets both right.
        logs = rng.normal(0, 0.5, (40, 1)) * np.log(D) + rng.normal(0, 0.2, (40, 4)) - 0.5 * np.log(D)
        low, high = power_law(D, np.exp(logs)).exponent_interval
        hits += low <= -0.5 <= high
    # Percentiles that are measured values are a resample coarser: another 1/1000 on each side, far below the error.
    assert abs(hits / n - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_bootstrap_is_the_same_each_time():
    errors = np.exp(np.random.default_rng(1).normal(0, 0.3, (20, 4))) * D**-0.5
    assert power_law(D, errors) == power_law(D, errors)


def test_crossings():
    errors = np.array([[0.5, 0.4, 0.2, 0.1]])
    found = crossing(D, errors, 0.25)
    assert found.x == pytest.approx(16 * 2**0.75, rel=1e-12)  # three quarters of the way in log d
    assert found.interval is None
    assert crossing(D, errors, 0.6).x == 0
    assert crossing(D, errors, 0.05).x == math.inf
    # It must stay below: a dip does not count.
    assert crossing(D, np.array([[0.5, 0.2, 0.3, 0.1]]), 0.25).x == pytest.approx(32 * 2 ** (0.05 / 0.2), rel=1e-12)
    # At the level, within what certificates prove, is not below it.
    assert crossing(D, np.array([[0.25, 0.25 - 1e-8, 0.25, 0.1]]), 0.25).x == pytest.approx(32, rel=1e-6)
    assert crossing(D, np.array([[0.5, 0.4, 0.25 - 9e-7, 0.1]]), 0.25).x == pytest.approx(32, rel=1e-12)
    assert crossing(D, np.array([[0.5, 0.4, 0.25 - 2e-6, 0.1]]), 0.25).x < 32 * (1 - 1e-6)
    # Sizes without errors are stepped over.
    gap = np.array([[0.5, 0.4, np.nan, 0.1]])
    assert crossing(D, gap, 0.25).x == pytest.approx(16 * 4**0.5, rel=1e-12)


@pytest.mark.parametrize(
    ("x", "interval", "words"),
    [
        (22.4, (20.0, 2500.6), "22 [20, 2,501]"),
        (22.4, None, "22"),
        (0.0, (0.0, 0.0), "≤ 8"),
        (0.0, (0.0, 12.0), "≤ 8 [≤ 8, 12]"),
        (math.inf, (math.inf, math.inf), "> 2,560"),
        (900.0, (22.4, math.inf), "900 [22, > 2,560]"),
        (22.4, (22.4, 22.4), "22"),
        (22.4, (22.4, 30.0), "22 [22, 30]"),
    ],
)
def test_a_crossing_in_words(x, interval, words):
    assert Crossing(x, interval).words(8, 2560) == words


def test_a_crossing_of_draws_in_which_sizes_are_missing():
    errors = np.array([[0.5, 0.4, 0.2, 0.1], [0.5, 0.2, np.nan, np.nan]])
    low, high = crossing(D, errors, 0.25).interval
    assert low == pytest.approx(8 * 2 ** (0.25 / 0.3), rel=1e-12)  # seed 1 alone
    assert high == pytest.approx(16 * 2**0.75, rel=1e-12)  # seed 0 alone


def test_numbers_in_words():
    assert Crossing(22.4, None).words(8, 256, ".1f") == "22.4"
    assert in_words(-1.0, (-1.25, -0.5)) == "-1.000 [-1.250, -0.500]"
    assert in_words(2.0, (1.0, 3.0), ".1f") == "2.0 [1.0, 3.0]"


def test_the_interval_of_a_crossing_reaches_from_seed_to_seed():
    errors = np.array([[0.5, 0.4, 0.2, 0.1], [0.5, 0.2, 0.1, 0.1]])
    low, high = crossing(D, errors, 0.25).interval
    assert low == pytest.approx(crossing(D, errors[1:], 0.25).x)
    assert high == pytest.approx(crossing(D, errors[:1], 0.25).x)
    with pytest.raises(InputError, match="one size"):
        crossing(D, np.full((1, 4), np.nan), 0.25)
