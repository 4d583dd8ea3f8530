import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from toymodels.errors import InputError, check_whole
from toymodels.theory import counts
from toymodels.theory.counts import (
    at_most,
    binomial,
    case_counts,
    case_shares,
    exactly,
    independent,
    pattern_probability,
)
from toymodels.theory.gates import CASES


def test_probabilities_of_the_number_active():
    for chances in (exactly(9, 3), at_most(9, 3), independent(9, 0.2)):
        assert chances.shape == (10,)
        assert chances.sum() == pytest.approx(1)
    assert at_most(9, 2)[2] == pytest.approx(36 / 46)
    assert independent(9, 0.2)[0] == pytest.approx(0.8**9)


@pytest.mark.parametrize("chances", [exactly(6, 2), at_most(6, 3), independent(6, 0.3)])
def test_patterns_agree_with_complete_enumeration(chances):
    chance = {x: chances[sum(x)] / math.comb(6, sum(x)) for x in itertools.product((0, 1), repeat=6)}
    for size in (2, 3, 4):
        for pattern in itertools.product((0, 1), repeat=size):
            exact = sum(p for x, p in chance.items() if x[:size] == pattern)
            assert pattern_probability(chances, size, sum(pattern)) == pytest.approx(exact, abs=1e-14)
    assert pattern_probability(independent(6, 0.3), 2, 1) == pytest.approx(0.21)


def test_binomial_probabilities_are_those_of_scipy():
    for n, p in ((0, 0.3), (3, 0.0), (3, 1.0), (50, 0.02), (1000, 0.5), (20_000, 0.09)):
        np.testing.assert_allclose(binomial(n, p), binom.pmf(np.arange(n + 1), n, p), rtol=1e-9, atol=1e-300)


def test_large_numbers_of_features_are_exact():
    assert pattern_probability(exactly(2000, 64), 2, 2) == pytest.approx(64 * 63 / 2000 / 1999, rel=1e-12)


def test_pairs_in_each_case():
    m, s = 7, 3
    counts = np.zeros(4)
    for on in itertools.combinations(range(m), s):
        for k, l in itertools.combinations(range(m), 2):
            counts[CASES.index((int(k in on), int(l in on)))] += 1 / math.comb(m, s)
    np.testing.assert_allclose(case_counts(m, s), counts)
    np.testing.assert_allclose(case_shares(m, s), counts / 21)


@pytest.mark.parametrize(
    "call",
    [
        lambda: exactly(1, 1),
        lambda: exactly(5, 6),
        lambda: at_most(5, -1),
        lambda: independent(5, 1.5),
        lambda: binomial(5, float("nan")),
        lambda: pattern_probability(exactly(5, 2), 6, 1),
        lambda: pattern_probability(exactly(5, 2), 2, 3),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()


def test_at_most_is_the_shares_to_the_last_bit_and_sums_the_sizes_once(monkeypatch):
    sums = []
    monkeypatch.setattr(counts, "sum", lambda sizes: sums.append(1) or sum(sizes), raising=False)
    for m, s in ((2, 0), (9, 9), (60, 30), (300, 4)):
        sums.clear()
        found = at_most(m, s)
        assert len(sums) <= 1  # one for each size is minutes at m = 1,000,000
        total = sum(math.comb(m, j) for j in range(s + 1))
        assert found.tolist() == [math.comb(m, j) / total if j <= s else 0 for j in range(m + 1)]


@pytest.mark.parametrize("number", [2.5, 2.0, float("nan"), "2", None])
def test_what_is_not_whole_is_named(number):
    check_whole(m=3, s=np.int64(2))
    with pytest.raises(InputError, match=r"s = .* whole number"):
        check_whole(m=3, s=number)
