import math

import numpy as np
import pytest
from scipy.stats import norm

from toymodels.errors import InputError
from toymodels.theory.extremes import error_shape, max_error_distribution
from toymodels.theory.gates import CASES, Gate
from toymodels.theory.quadrants import error_std, readoff_coefficients

AND, XOR = Gate.parse("and"), Gate.parse("xor")


def sampled_maxima(gate: Gate, m: int, s: int, d: int, layers: int, inputs: int) -> np.ndarray:
    """Largest |error| over all pairs of some inputs, one number for each fresh Gaussian layer."""
    rng = np.random.default_rng([m, s, d])
    eta = readoff_coefficients(gate, s)
    signs = np.array([[1, u, v, u * v] for u, v in ((-1, -1), (-1, 1), (1, -1), (1, 1))])
    one, first, second, both = np.linalg.solve(signs, eta)
    pairs = np.triu_indices(m, 1)
    found = np.zeros(layers)
    for layer in range(layers):
        weights = rng.standard_normal((d, m))
        sign = np.sign(weights)
        for _ in range(inputs):
            x = np.isin(np.arange(m), rng.choice(m, s, replace=False)).astype(int)
            active = np.maximum(weights @ x, 0)
            row = active @ sign
            output = one * active.sum() + first * row[:, None] + second * row + both * (sign.T * active) @ sign
            error = output / d - np.array(gate.truth)[2 * x[:, None] + x]
            found[layer] = max(found[layer], np.abs(error[pairs]).max())
    return found


def test_cumulants_agree_with_sampling(disagreement):
    rng = np.random.default_rng(0)
    shape = error_shape(XOR, 3)
    eta = readoff_coefficients(XOR, 3)
    np.testing.assert_allclose(shape.sigma, error_std(XOR, 3))
    for case, (x_k, x_l) in enumerate(CASES):
        u, v, rest = rng.standard_normal((3, 400_000))
        z = x_k * u + x_l * v + math.sqrt(3 - x_k - x_l) * rest
        part = (eta[2 * (u > 0) + (v > 0)] * np.maximum(z, 0) - XOR.truth[case]) / shape.sigma[case]
        predicted = np.array([shape.skewness[case], shape.excess[case] + 3])
        assert disagreement(np.stack([part**3, part**4], axis=1), predicted) < 1
        assert disagreement(np.stack([part**3, part**4], axis=1), 1.1 * predicted) > 1
    np.testing.assert_allclose(error_shape(AND, 5).excess[:3], 3)  # E[(z⁺)⁴]/E[(z⁺)²]² − 3


@pytest.mark.parametrize(
    ("gate", "m", "s", "d", "inputs"),
    [(AND, 40, 2, 100, 1), (XOR, 40, 3, 100, 1), (AND, 40, 8, 200, 1), (AND, 40, 2, 100, 20)],
)
def test_quantiles_agree_with_sampled_layers(gate, m, s, d, inputs):
    # 400 (or 100) layers: a sampled median is off by 1.25 % of itself or less in 999 of 1,000 draws, the 5 % and 95 %
    # points by twice that; the rest of the allowance is the model's own error, stated as 3 %.
    found = sampled_maxima(gate, m, s, d, 400 if inputs == 1 else 100, inputs)
    predicted = max_error_distribution(gate, m, s, d, inputs)
    for level, allowance in ((0.05, 0.06), (0.5, 0.045), (0.95, 0.06)):
        assert np.quantile(found, level) == pytest.approx(predicted.quantile(level), rel=allowance)
    leading = predicted.shape.sigma.max() * math.sqrt(2 * math.log(math.comb(m, 2) * inputs) / d)
    assert inputs > 1 or leading > 1.08 * np.median(found)  # the formula it replaces would fail


def test_the_prediction_is_a_distribution():
    predicted = max_error_distribution(XOR, 50, 3, 200, inputs=5)
    levels = [predicted.cdf(t) for t in np.linspace(-0.1, 8, 60).tolist()]
    assert levels == sorted(levels)
    assert levels[0] == 0
    assert levels[-1] > 1 - 1e-6
    for q in (0.01, 0.5, 0.999):
        assert predicted.cdf(predicted.quantile(q)) == pytest.approx(q, abs=1e-6)
    assert max_error_distribution(XOR, 50, 3, 200, inputs=10).quantile(0.5) > predicted.quantile(0.5)


def test_wide_layers_tend_to_independent_normals():
    predicted = max_error_distribution(AND, 30, 3, 10_000_000)
    # The median of the largest of n independent |N(0, σ²)|.
    normal = predicted.shape.sigma[0] / math.sqrt(predicted.d) * norm.isf((1 - 0.5 ** (1 / math.comb(30, 2))) / 2)
    assert predicted.quantile(0.5) == pytest.approx(normal, rel=1e-3)


def test_the_largest_error_has_a_spread_however_many_the_inputs():
    """2·10^19 inputs: P(no error beyond t on one of them) rounds to 1, so its complement must be what is kept."""
    predicted = max_error_distribution(AND, 1000, 8, 10_000, math.comb(1000, 8))
    low, middle, high = (predicted.quantile(q) for q in (0.05, 0.5, 0.95))
    assert 1.005 < middle / low < high / low < 1.1
    assert [predicted.cdf(predicted.quantile(q)) for q in (0.05, 0.95)] == pytest.approx([0.05, 0.95], abs=1e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: max_error_distribution(AND, 50, 1, 100),
        lambda: max_error_distribution(AND, 5, 6, 100),
        lambda: max_error_distribution(AND, 50, 2, 5),
        lambda: max_error_distribution(AND, 50, 2, 100, 0),
        lambda: max_error_distribution(AND, 50, 2, 100).quantile(1.0),
        lambda: error_shape(Gate.parse("false"), 3),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()
