import math

import jaxtyping
import numpy as np
import pytest
import torch

from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.layers.iid import iid, rademacher
from toymodels.readoffs.by_class import class_readoff
from toymodels.theory.classes import solve_readoff
from toymodels.theory.distributions import RADEMACHER, WeightDistribution, bernoulli_weights, finite_classes
from toymodels.theory.gates import CASES, Gate
from toymodels.theory.quadrants import error_std
from toymodels.theory.two_valued import (
    and_limit,
    best_sign_weights,
    fit,
    sign_readoff,
    threshold_classes,
    two_valued_weights,
)

pytestmark = pytest.mark.unchecked

AND, XOR = Gate.parse("and"), Gate.parse("xor")


@pytest.mark.parametrize(("q", "threshold"), [(0.3, 0.6), (0.5, 1.0), (0.8, 2.4)])
@pytest.mark.parametrize("values", [(1.0, None), (1.0, 0.0), (2.0, 0.5), (1.0, -1.0), (-0.5, -3.0)])
def test_every_two_valued_weights_is_a_threshold(q, threshold, values):
    """Activations are (u − v) times those of {0, 1} weights with bias −θ, for any two values and the bias to match."""
    for s in (3, 5):
        distribution = two_valued_weights(s, q, threshold, *values)
        found, plain = finite_classes(distribution, s), threshold_classes(s, q, threshold)
        scale = distribution.values[1] - distribution.values[0]
        np.testing.assert_allclose(found.first, scale * plain.first, atol=1e-8 * scale)
        np.testing.assert_allclose(found.second, scale**2 * plain.second, atol=1e-8 * scale**2)
        np.testing.assert_allclose(found.probability, plain.probability)


def test_bernoulli_and_rademacher_are_points_of_the_strip():
    for s in (2, 3, 8):
        one = solve_readoff(threshold_classes(s, 0.3, 1.0), AND)
        np.testing.assert_allclose(one.sigma, solve_readoff(finite_classes(bernoulli_weights(0.3), s), AND).sigma)
        half = solve_readoff(threshold_classes(s, 0.5, s / 2), AND)
        np.testing.assert_allclose(half.sigma, solve_readoff(finite_classes(RADEMACHER, s), AND).sigma)


@pytest.mark.parametrize(
    ("s", "threshold", "sigma"), [(2, 1.0, 2.0), (3, 2.0, math.sqrt(8)), (4, 3.0, 4.0), (8, 62 / 11, 8.4822)]
)
def test_the_fitted_weights_of_and(s, threshold, sigma):
    found = fit(s)
    assert found.q == 0.5
    assert found.threshold == pytest.approx(threshold, abs=1e-6)
    assert found.weights.bias == 0
    assert found.weights.values[0] == pytest.approx(-threshold / (s - threshold), abs=1e-5)
    np.testing.assert_allclose(found.readoff.sigma, [sigma, sigma, sigma, math.sqrt(sigma**2 - 1)], rtol=1e-5)
    ratio = found.readoff.eta / found.readoff.eta[0]
    np.testing.assert_allclose(ratio, [1, -1, -1, 1], atol=1e-5)  # A − B1 − B2 + C
    assert found.worst <= solve_readoff(finite_classes(RADEMACHER, s), AND).sigma.max() + 1e-9
    assert found.worst < error_std(AND, s).max() / 2


@pytest.mark.parametrize(("s", "gate"), [(3, "and"), (5, "and"), (2, "xor"), (3, "xor"), (3, "first_and_not_second")])
def test_no_two_valued_weights_of_a_fine_grid_is_better(s, gate):
    """Values, odds and bias varied for themselves, with no use of the threshold."""
    found, parsed = fit(s, gate), Gate.parse(gate)
    rng, best = np.random.default_rng(0), math.inf
    for low, q, bias in zip(
        rng.uniform(-4, 0.9, 300), rng.uniform(0.02, 0.98, 300), rng.uniform(-3, 3, 300), strict=True
    ):
        try:
            readoff = solve_readoff(finite_classes(WeightDistribution((low, 1.0), (1 - q, q), bias), s), parsed)
        except InputError:
            continue
        best = min(best, float(readoff.sigma.max()))
    assert found.worst <= best < 1.2 * found.worst


@pytest.mark.parametrize(
    ("s", "gate", "biased"), [(2, "and", False), (3, "and", True), (4, "and", False), (3, "xor", False)]
)
def test_layers_drawn_from_the_fitted_weights_have_its_error(s, gate, biased):
    """Mean and variance of the errors of actual layers, in each case, to 3 standard errors; σ/√d at a width of 48."""
    found, d, layers = fit(s, gate), 48, 1000
    distribution = two_valued_weights(s, found.q, found.threshold, 1.0, -1.0) if biased else found.weights
    task, x = PairTask(s + 2, gate, [(0, 1)]), torch.zeros(4, s + 2)
    for row, (k, l) in zip(x, CASES, strict=True):
        row[0], row[1] = k, l
        row[2 : 2 + s - k - l] = 1
    errors = []
    for seed in range(layers):
        # The Rademacher layer with the bias s − 2θ is the same layer.
        bias = s - 2 * found.threshold
        layer = rademacher(s + 2, d, seed, bias=bias) if biased else iid(distribution, s + 2, d, seed)
        output = class_readoff(layer, task, s, distribution)(layer(x)).detach()[:, 0]
        errors.append((output - torch.tensor(task.truth)).numpy())
    sample, square = np.array(errors), np.array(errors) ** 2 * d
    for values, predicted in ((sample, 0.0), (square, found.readoff.sigma**2)):
        assert np.abs((values.mean(0) - predicted) / (values.std(0, ddof=1) / math.sqrt(layers))).max() < 3
    wrong = solve_readoff(threshold_classes(s, 0.4, found.threshold), Gate.parse(gate)).sigma ** 2
    fault = (square.mean(0) - wrong) / (square.std(0, ddof=1) / math.sqrt(layers))
    assert np.abs(fault).max() > 3


def test_large_numbers_of_active_features():
    """σ/s tends to the limit from above at the best threshold, and with no bias to that of the optimal Gaussian readoff."""
    best, none = and_limit(), and_limit(0)
    assert none.constant == pytest.approx(math.sqrt(math.pi))
    assert best.constant == pytest.approx(1.12472, abs=1e-5)
    assert all(and_limit(best.bias + step).constant > best.constant for step in (-0.01, 0.01))
    for limit, rate in ((best, 3), (none, 2)):
        gaps = []
        for s in (100, 400):
            threshold = s / 2 - limit.bias * math.sqrt(s) / 2
            sigma = solve_readoff(threshold_classes(s, 0.5, threshold), AND).sigma.max()
            gaps.append(abs(sigma / s - limit.constant))
        assert gaps[1] < gaps[0] < rate / 100 * limit.constant * 2
        assert gaps[1] < rate / 400 * limit.constant * 2


def test_sign_readoff_by_hand_and_for_any_bias():
    for s, c, sigma in ((2, 2, 2.0), (3, 4, math.sqrt(24)), (4, 4, math.sqrt(32)), (8, 6.4, 12.8)):
        found = sign_readoff(RADEMACHER, s)
        assert found.c == pytest.approx(c)
        np.testing.assert_allclose(found.sigma, [sigma, sigma, sigma, math.sqrt(sigma**2 - 1)])
    distribution = WeightDistribution((-2.0, -1.0, 0.0, 1.0, 2.0), (0.1, 0.25, 0.3, 0.25, 0.1), -0.7)
    found, classes = sign_readoff(distribution, 3), finite_classes(distribution, 3)
    eta = found.c * np.array([np.sign(u) * np.sign(v) for u, v in classes.labels])
    np.testing.assert_allclose(classes.first @ eta, AND.truth, atol=1e-12)
    np.testing.assert_allclose(np.sqrt(classes.second @ eta**2 - np.array(AND.truth)), found.sigma)


def test_at_two_active_no_symmetric_weights_beat_rademacher():
    """The lower bound of the docstring, 2√E[u²]/E[min(|u|, |v|)] >= 2, and its formula, on random laws without bias."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        sizes, mass = rng.uniform(0.1, 3, 4), rng.dirichlet(np.ones(4))
        distribution = WeightDistribution((*(-sizes).tolist(), *sizes.tolist()), tuple(np.tile(mass / 2, 2).tolist()))
        least = np.minimum.outer(sizes, sizes) @ mass @ mass
        found = sign_readoff(distribution, 2)
        assert found.c == pytest.approx(2 / least)
        assert found.sigma[0] == pytest.approx(2 * math.sqrt(sizes**2 @ mass) / least)
        assert found.sigma.max() > 2
    assert best_sign_weights(2, 2, zero=True, starts=2).worst == pytest.approx(2)


def test_at_three_active_a_few_zeros_beat_rademacher_and_a_bias_beats_both():
    """1/c = p²(1 − p/2)/2 and σ² = c²p²(2p + 1)/2 at 01, c²p²(p + 2)/2 − 1 at 11, for ternary weights, p not zero."""
    found = best_sign_weights(3, 1, zero=True, starts=2)
    p = 1 - found.weights.probabilities[found.weights.values.index(0.0)]
    c = 2 / (p**2 * (1 - p / 2))
    sigma = np.sqrt([c**2 * p**3 * 1.5, c**2 * p**2 * (2 * p + 1) / 2, c**2 * p**2 * (p + 2) / 2 - 1])
    np.testing.assert_allclose(found.readoff.sigma[[0, 1, 3]], sigma)
    assert p == pytest.approx(0.87865, abs=1e-4)
    assert found.worst == pytest.approx(4.76683, abs=1e-4)
    assert found.worst < sign_readoff(RADEMACHER, 3).sigma.max()
    assert best_sign_weights(3, 1, bias=True, starts=1).worst == pytest.approx(fit(3).worst)


@pytest.mark.parametrize(
    "call",
    [
        lambda: fit(1),
        lambda: fit(3, "nope"),
        lambda: fit(3, probabilities=1),
        lambda: threshold_classes(3, 0.0, 1.0),
        lambda: threshold_classes(3, 0.5, 3.0),
        lambda: threshold_classes(3, 0.5, -0.1),
        lambda: two_valued_weights(3, 0.5, 1.0, 1.0, 1.0),
        lambda: sign_readoff(WeightDistribution((-1.0, 2.0), (0.5, 0.5)), 3),
        lambda: sign_readoff(WeightDistribution((-1.0, 1.0), (0.4, 0.6)), 3),
        lambda: sign_readoff(WeightDistribution((-1.0, 1.0), (0.5, 0.5), 9.0), 3),
        lambda: best_sign_weights(1),
        lambda: best_sign_weights(3, 0),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit(2.5), "s = 2.5"),
        (lambda: fit(float("nan")), "s = nan"),
        (lambda: fit(3, steps=2.5), "steps = 2.5"),
        (lambda: threshold_classes(2.5, 0.5, 1.0), "s = 2.5"),
        (lambda: sign_readoff(RADEMACHER, 2.5), "s = 2.5"),
        (lambda: best_sign_weights(3, 1.5), "magnitudes = 1.5"),
        (lambda: and_limit(float("nan")), "got nan"),
        (lambda: and_limit(float("inf")), "got inf"),
        (lambda: and_limit(-40), "got -40"),
    ],
)
def test_numbers_that_are_not_whole_or_not_finite_are_refused(call, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in use, where types are not checked
    with pytest.raises(InputError, match=words):
        call()


def test_the_limit_is_a_number_at_both_ends_of_its_range():
    for bias in (-37, 37):
        assert math.isfinite(and_limit(bias).constant)
