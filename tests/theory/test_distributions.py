import itertools
import math

import numpy as np
import pytest
from scipy.stats import binom

from toymodels.errors import InputError
from toymodels.theory.classes import solve_readoff
from toymodels.theory.distributions import RADEMACHER, WeightDistribution, bernoulli_weights, finite_classes
from toymodels.theory.gates import CASES, Gate

AND, XOR = Gate.parse("and"), Gate.parse("xor")
SKEW = WeightDistribution((-1.0, 0.0, 2.0), (0.5, 0.3, 0.2), 0.25)


def enumerated(distribution: WeightDistribution, s: int) -> tuple[dict, dict]:
    """First and second moments by (case, u, v), summed over every assignment of weights to the features involved."""
    first, second = {}, {}
    for case, (x_k, x_l) in enumerate(CASES):
        for rest in itertools.product(range(len(distribution.values)), repeat=2 + s - x_k - x_l):
            chance = math.prod(distribution.probabilities[i] for i in rest)
            weights = [distribution.values[i] for i in rest]
            active = max(x_k * weights[0] + x_l * weights[1] + sum(weights[2:]) + distribution.bias, 0)
            key = (case, weights[0], weights[1])
            first[key] = first.get(key, 0) + chance * active
            second[key] = second.get(key, 0) + chance * active**2
    return first, second


@pytest.mark.parametrize("distribution", [RADEMACHER, bernoulli_weights(0.3), bernoulli_weights(0.5, 0.0), SKEW])
@pytest.mark.parametrize("s", [2, 3, 5])
def test_moments_equal_those_of_complete_enumeration(distribution, s):
    classes = finite_classes(distribution, s)
    first, second = enumerated(distribution, s)
    for case in range(4):
        for index, (u, v) in enumerate(classes.labels):
            assert classes.first[case, index] == pytest.approx(first[case, u, v], abs=1e-12)
            assert classes.second[case, index] == pytest.approx(second[case, u, v], abs=1e-12)
    assert classes.probability.sum() == pytest.approx(1)


@pytest.mark.parametrize(("s", "c", "sigma"), [(2, 2, 2), (3, 4, math.sqrt(24)), (4, 4, math.sqrt(32)), (8, 6.4, 12.8)])
def test_rademacher_constants(s, c, sigma):
    readoff = solve_readoff(finite_classes(RADEMACHER, s), AND)
    np.testing.assert_allclose(readoff.eta, c * np.array([1, -1, -1, 1]), atol=1e-9)
    np.testing.assert_allclose(readoff.sigma, [sigma, sigma, sigma, math.sqrt(sigma**2 - 1)], rtol=1e-9)


def test_unbiased_on_every_distribution_that_has_enough_classes(disagreement):
    rng = np.random.default_rng(0)
    for distribution in (bernoulli_weights(0.3), SKEW):
        readoff = solve_readoff(finite_classes(distribution, 3), XOR)
        labels = finite_classes(distribution, 3).labels
        for case, (x_k, x_l) in enumerate(CASES):
            w = rng.choice(distribution.values, p=distribution.probabilities, size=(100_000, 5))
            z = w[:, 0] * x_k + w[:, 1] * x_l + w[:, 2 : 5 - x_k - x_l].sum(axis=1) + distribution.bias
            which = np.array([labels.index((u, v)) for u, v in itertools.product(distribution.values, repeat=2)])
            u, v = (np.searchsorted(distribution.values, w[:, i]) for i in (0, 1))
            index = which[len(distribution.values) * u + v]
            part = readoff.eta[index] * np.maximum(z, 0)
            value = XOR.truth[case]
            samples = np.stack([part, (part - value) ** 2], axis=1)
            assert disagreement(samples, np.array([value, readoff.sigma[case] ** 2])) < 1


def test_more_classes_never_cost_variance():
    by_sign = solve_readoff(finite_classes(SKEW, 3, by="sign"), AND)
    by_value = solve_readoff(finite_classes(WeightDistribution((-2.0, -1.0, 1.0, 2.0), (0.25,) * 4), 3), AND)
    merged = solve_readoff(finite_classes(WeightDistribution((-2.0, -1.0, 1.0, 2.0), (0.25,) * 4), 3, by="sign"), AND)
    assert (by_value.sigma**2).sum() < (merged.sigma**2).sum()
    np.testing.assert_allclose(by_sign.sigma, solve_readoff(finite_classes(SKEW, 3), AND).sigma)


def test_sum_of_bernoulli_weights_is_binomial():
    points, mass = bernoulli_weights(0.3).of_sum(40)
    np.testing.assert_allclose(mass, binom.pmf(points, 40, 0.3), atol=1e-14)


@pytest.mark.parametrize(
    "call",
    [
        lambda: finite_classes(RADEMACHER, 1),
        lambda: finite_classes(RADEMACHER, 3, by="colour"),
        lambda: bernoulli_weights(0.0),
        lambda: bernoulli_weights(1.0),
        lambda: WeightDistribution((), ()),
        lambda: WeightDistribution((1.0, 1.0), (0.5, 0.5)),
        lambda: WeightDistribution((1.0, -1.0), (0.5, 0.6)),
        lambda: WeightDistribution((1.0, -1.0), (1.5, -0.5)),
        lambda: solve_readoff(finite_classes(WeightDistribution((1.0,), (1.0,)), 3), AND),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()
