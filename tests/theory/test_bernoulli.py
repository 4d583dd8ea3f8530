import itertools
import math

import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.theory.bernoulli import (
    activation_moments,
    asymptotic_probability,
    bernoulli_errors,
    best_p,
    debias,
    empty_probability,
    formula_p,
    least_rms,
    least_worst_error,
    mean_reciprocal,
    median_worst_error,
    probability_grid,
    smallest_probability,
)
from toymodels.theory.gates import CASES


@pytest.mark.parametrize(
    ("k", "s", "p"), [(2, 2, 0.1), (2, 3, 0.4), (2, 6, 0.25), (3, 3, 0.3), (3, 5, 0.4), (4, 2, 0.5)]
)
def test_moments_equal_those_of_complete_enumeration(k, s, p):
    moments = activation_moments(s, p, k)
    for on in range(min(k, s) + 1):
        first = second = 0.0
        for others in itertools.product((0, 1), repeat=s - on):
            chance = math.prod(p if bit else 1 - p for bit in others)
            active = max(on + sum(others) - (k - 1), 0)
            first, second = first + chance * active, second + chance * active**2
        assert moments.mean[on] == pytest.approx(first, abs=1e-12)
        assert moments.variance[on] == pytest.approx(second - first**2, abs=1e-12)
    assert np.isnan(moments.mean[min(k, s) + 1 :]).all()


def test_mean_reciprocal_by_hand():
    q = 0.3**2
    both = 2 * q * (1 - q) * 1 + q**2 / 2
    assert mean_reciprocal(2, 0.3) == pytest.approx(both / (1 - (1 - q) ** 2))
    assert mean_reciprocal(10_000, 0.3) == pytest.approx(1 / 900, rel=0.01)
    assert empty_probability(2, 0.3) == pytest.approx((1 - q) ** 2)


@pytest.mark.parametrize("kind", ["none", "shift", "affine"])
def test_errors_agree_with_sampled_layers(kind, disagreement):
    d, s, p, layers = 60, 4, 0.25, 20_000
    rng = np.random.default_rng(0)
    weights = rng.random((layers, d, 6)) < p
    correction = debias(s, p, kind)
    predicted = bernoulli_errors(d, s, p, kind)
    for x_k, x_l in CASES:
        on = [0] * x_k + [1] * x_l + [2, 3, 4, 5][: s - x_k - x_l]
        active = np.maximum(weights[:, :, on].sum(axis=2) - 1.0, 0)
        both = weights[:, :, 0] & weights[:, :, 1]
        size = both.sum(axis=1)
        output = correction.gain * (active * both).sum(axis=1) / np.maximum(size, 1) - correction.shift
        error = output - x_k * x_l
        held = error[size > 0]
        j = x_k + x_l
        samples = np.stack([held, (held - predicted.bias[j]) ** 2], axis=1)
        assert disagreement(samples, np.array([predicted.bias[j], predicted.std[j] ** 2])) < 1
        assert disagreement(samples, np.array([predicted.bias[j], 1.1 * predicted.std[j] ** 2])) > 1
        assert disagreement(error[:, None] ** 2, predicted.rms[j : j + 1] ** 2) < 1


def test_debiasing_takes_the_largest_bias_down():
    for s, p in ((2, 0.2), (3, 0.3), (6, 0.5)):
        largest = [np.abs(bernoulli_errors(500, s, p, kind).bias).max() for kind in ("none", "shift", "affine")]
        assert largest[0] > largest[1] >= largest[2]
        bias = bernoulli_errors(500, s, p, "affine").bias
        np.testing.assert_allclose(bias, bias[0] * np.array([1, -1, 1]), atol=1e-12)


@pytest.mark.parametrize(("k", "s"), [(3, 3), (3, 5), (4, 4)])
def test_the_closed_forms_of_the_upper_cases_and_the_correction(k, s):
    p = 0.35
    mean = activation_moments(s, p, k).mean
    t = s - np.array([k, k - 1, k - 2])
    expected = [1 + t[0] * p, t[1] * p, t[2] * p - 1 + (1 - p) ** t[2]]
    assert mean[[k, k - 1, k - 2]].tolist() == pytest.approx(expected, abs=1e-12)
    gain, shift = debias(s, p, k=k)
    bias = gain * mean - shift - (np.arange(k + 1) == k)
    largest = abs(bias[0])
    assert [bias[0], bias[k - 1], bias[k]] == pytest.approx([-largest, largest, -largest], abs=1e-12)
    assert (np.abs(bias) <= largest + 1e-12).all()
    # No line does better: a grid around the correction.
    for g, c in itertools.product((0.95, 1, 1.05), (-0.02, 0, 0.02)):
        other = gain * g * mean - shift - c - (np.arange(k + 1) == k)
        assert np.abs(other).max() >= largest - 1e-12


@pytest.mark.parametrize(
    ("m", "d", "s", "p", "k", "low", "high"),
    [
        # As the docstring says: 0 to 12 % lower where d·p^k >= 20, …
        (30, 300, 3, 0.3, 2, 0.88, 1.0),
        (40, 150, 3, 0.37, 2, 0.88, 1.0),
        (100, 400, 2, 0.378, 2, 0.87, 1.0),
        (12, 400, 4, 0.46, 3, 0.88, 1.0),
        # … and up to 29 % where neurons are fewer: the 2 to 10 % that stood here before is wrong at this size.
        (40, 150, 3, 0.3, 2, 0.71, 0.9),
    ],
)
def test_median_of_the_worst_error_against_sampled_layers(m, d, s, p, k, low, high):
    layers = 300
    rng = np.random.default_rng(1)
    x = (np.arange(m) < s).astype(np.float32)
    sets = np.array(list(itertools.combinations(range(m), k)))
    correction = debias(s, p, k=k)
    worst = []
    for _ in range(layers):
        weights = (rng.random((d, m)) < p).astype(np.float32)
        active = np.maximum(weights @ x - (k - 1.0), 0)
        seen = weights[:, sets].all(axis=2).astype(np.float32)
        output = correction.gain * (active @ seen) / np.maximum(seen.sum(axis=0), 1) - correction.shift
        worst.append(np.abs(output - x[sets].all(axis=1)).max())
    predicted = median_worst_error(m, d, s, p, k=k)
    # Below 1 in 1,000 by chance: half the layers, but for 3.3 standard errors of a binomial count, lie on either side.
    spread = 3.3 * math.sqrt(layers) / 2
    assert np.sum(np.array(worst) > low * predicted) > layers / 2 - spread
    assert np.sum(np.array(worst) < high * predicted) > layers / 2 - spread
    # A fault planted: half the layers neither exceed a prediction 20 % too high, nor lie below one 20 % too low.
    assert np.sum(np.array(worst) > low * 1.25 * predicted) < layers / 2 - spread or high < 1
    assert np.sum(np.array(worst) < high * 0.8 * predicted) < layers / 2 - spread


def test_pairs_that_cannot_be_read_make_the_worst_error_one():
    assert median_worst_error(100, 100, 2, 0.1, "none") == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("m", "d"), [(16, 100), (16, 16_384), (100, 5000)])
def test_the_best_probability_leaves_hardly_a_pair_unseen(m, d):
    """On one input with 2 active a single pair is on: its worst error alone would choose 1/√d, and a third of the pairs lost."""
    p = least_worst_error(m, d, 2, grid=12).p
    assert m * (m - 1) / 2 * empty_probability(d, p) <= 0.5 * (1 + 1e-9)


def test_best_probability_lies_inside_and_far_from_the_asymptotic_one():
    best = least_worst_error(100, 500, 2, grid=25)
    assert best.error == median_worst_error(100, 500, 2, best.p)
    assert all(median_worst_error(100, 500, 2, best.p * factor) >= best.error for factor in (0.6, 1.5))
    assert asymptotic_probability(100, 500) == pytest.approx(math.log(100) ** 2 / math.sqrt(500))
    assert best.p < asymptotic_probability(100, 500) / 2
    assert best.error < least_worst_error(100, 500, 2, kind="none", grid=25).error


@pytest.mark.parametrize(("m", "d", "s"), [(20, 50, 2), (50, 200, 3), (100, 1000, 2)])
def test_the_search_looks_at_a_third_of_the_grid_and_finds_its_least_value_to_a_per_cent(m, d, s):
    values, looked = probability_grid(m, d), []
    found = best_p(lambda p: looked.append(p) or median_worst_error(m, d, s, p), values)
    assert len(looked) <= 20
    assert found == least_worst_error(m, d, s)
    assert found.error <= 1.01 * min(median_worst_error(m, d, s, p) for p in values)
    rms = least_rms(d, s)
    every = {p: bernoulli_errors(d, s, p, "affine").rms.max() for p in np.geomspace(1 / math.sqrt(d), 0.95, 60)}
    assert rms.error == min(every.values()) == every[rms.p]


@pytest.mark.parametrize(("m", "d"), [(50, 100), (50, 400), (100, 500)])
def test_the_formula_of_p_is_nearly_the_best_for_pairs(m, d):
    """By `median_worst_error`: within 3 % of the least worst error on a grid of p."""
    best = least_worst_error(m, d, 2, "none", grid=25)
    found = median_worst_error(m, d, 2, formula_p(m, d), "none")
    assert found < 1.03 * best.error
    assert median_worst_error(m, d, 2, 2 * formula_p(m, d), "none") > 1.03 * best.error


def test_the_formula_of_p_stays_within_its_limits():
    # The formula asks for more than 1/2 in both narrow layers; on one neuron even the least p is larger.
    assert formula_p(50, 50, 4) == max(0.5, smallest_probability(50, 50, 4))
    assert formula_p(10, 1, 2) == smallest_probability(10, 1, 2) > 0.5
    # z² (k − 1)²/(4d) by hand: 2 ln(45 · 2 · 8)/4000.
    assert formula_p(10, 1000, 2) == pytest.approx((2 * math.log(720) / 4000) ** (1 / 3))


def test_the_asymptotic_probability_is_one_at_the_fourth_power_of_the_logarithm():
    assert asymptotic_probability(1000, 2277) == pytest.approx(1, abs=1e-3)
    assert asymptotic_probability(1000, 1000) > 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: activation_moments(0, 0.3),
        lambda: activation_moments(2, 0.3, 0),
        lambda: debias(1, 0.3),
        lambda: debias(2, 0.3, k=3),
        lambda: activation_moments(2, 1.0),
        lambda: empty_probability(0, 0.3),
        lambda: debias(2, 0.3, "magic"),
        lambda: median_worst_error(5, 100, 6, 0.3),
        lambda: median_worst_error(5, 100, 1, 0.3),
        lambda: least_worst_error(100, 1, 2),
        lambda: least_rms(1, 2),
        lambda: asymptotic_probability(100, 0),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()
