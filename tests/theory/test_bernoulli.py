import itertools
import math

import numpy as np
import pytest
from scipy.stats import binomtest

from toymodels.errors import InputError
from toymodels.theory.bernoulli import (
    activation_moments,
    asymptotic_probability,
    bernoulli_errors,
    best_probability,
    debias,
    empty_probability,
    mean_reciprocal,
    median_worst_error,
)
from toymodels.theory.gates import CASES


@pytest.mark.parametrize(("s", "p"), [(2, 0.1), (3, 0.4), (6, 0.25)])
def test_moments_equal_those_of_complete_enumeration(s, p):
    moments = activation_moments(s, p)
    for case, (x_k, x_l) in enumerate(CASES):
        first = second = 0.0
        for others in itertools.product((0, 1), repeat=s - x_k - x_l):
            chance = math.prod(p if bit else 1 - p for bit in others)
            active = max(x_k + x_l + sum(others) - 1, 0)
            first, second = first + chance * active, second + chance * active**2
        assert moments.mean[case] == pytest.approx(first, abs=1e-12)
        assert moments.variance[case] == pytest.approx(second - first**2, abs=1e-12)


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
    for case, (x_k, x_l) in enumerate(CASES):
        on = [0] * x_k + [1] * x_l + [2, 3, 4, 5][: s - x_k - x_l]
        active = np.maximum(weights[:, :, on].sum(axis=2) - 1.0, 0)
        both = weights[:, :, 0] & weights[:, :, 1]
        size = both.sum(axis=1)
        output = correction.gain * (active * both).sum(axis=1) / np.maximum(size, 1) - correction.shift
        error = output - x_k * x_l
        held = error[size > 0]
        samples = np.stack([held, (held - predicted.bias[case]) ** 2], axis=1)
        assert disagreement(samples, np.array([predicted.bias[case], predicted.std[case] ** 2])) < 1
        assert disagreement(samples, np.array([predicted.bias[case], 1.1 * predicted.std[case] ** 2])) > 1
        assert disagreement(error[:, None] ** 2, predicted.rms[case : case + 1] ** 2) < 1


def test_debiasing_takes_the_largest_bias_down():
    for s, p in ((2, 0.2), (3, 0.3), (6, 0.5)):
        largest = [np.abs(bernoulli_errors(500, s, p, kind).bias).max() for kind in ("none", "shift", "affine")]
        assert largest[0] > largest[1] >= largest[2]
        bias = bernoulli_errors(500, s, p, "affine").bias
        np.testing.assert_allclose(bias, bias[0] * np.array([1, -1, -1, 1]), atol=1e-12)


def test_median_of_the_worst_error_against_sampled_layers():
    m, d, s, p, layers = 30, 300, 3, 0.3, 150
    rng = np.random.default_rng(1)
    x = np.arange(m) < s
    k, l = np.triu_indices(m, 1)
    correction = debias(s, p)
    worst = []
    for _ in range(layers):
        weights = (rng.random((d, m)) < p).astype(float)
        active = np.maximum(weights @ x - 1, 0)
        sums, sizes = (weights * active[:, None]).T @ weights, weights.T @ weights
        output = correction.gain * sums / np.maximum(sizes, 1) - correction.shift
        worst.append(np.abs(output - np.outer(x, x))[k, l].max())
    predicted = median_worst_error(m, d, s, p)
    assert 0.88 * predicted < np.median(worst) < 1.02 * predicted
    # Not a bound on each layer: some lie above. A median 15 % lower would have none of its half below.
    below = int((np.array(worst) < 0.85 * predicted).sum())
    assert binomtest(below, layers, 0.5, alternative="less").pvalue < 1e-3


def test_pairs_that_cannot_be_read_make_the_worst_error_one():
    assert median_worst_error(100, 100, 2, 0.1, "none") == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("m", "d"), [(16, 100), (16, 16_384), (100, 5000)])
def test_the_best_probability_leaves_hardly_a_pair_unseen(m, d):
    """On one input with 2 active a single pair is on: its worst error alone would choose 1/√d, and a third of the pairs lost."""
    p = best_probability(m, d, 2, grid=12).p
    assert m * (m - 1) / 2 * empty_probability(d, p) <= 0.5 * (1 + 1e-9)


def test_best_probability_lies_inside_and_far_from_the_asymptotic_one():
    best = best_probability(100, 500, 2, grid=25)
    assert best.worst == median_worst_error(100, 500, 2, best.p)
    assert all(median_worst_error(100, 500, 2, best.p * factor) >= best.worst for factor in (0.6, 1.5))
    assert best.asymptotic == pytest.approx(math.log(100) ** 2 / math.sqrt(500))
    assert best.p < best.asymptotic / 2
    published = best_probability(100, 500, 2, kind="none", grid=25)
    assert best.worst < published.worst


def test_the_asymptotic_probability_is_one_at_the_fourth_power_of_the_logarithm():
    assert asymptotic_probability(1000, 2277) == pytest.approx(1, abs=1e-3)
    assert asymptotic_probability(1000, 1000) > 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: activation_moments(1, 0.3),
        lambda: activation_moments(2, 1.0),
        lambda: empty_probability(0, 0.3),
        lambda: debias(2, 0.3, "magic"),
        lambda: median_worst_error(5, 100, 6, 0.3),
        lambda: best_probability(100, 1, 2),
        lambda: asymptotic_probability(100, 0),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()
