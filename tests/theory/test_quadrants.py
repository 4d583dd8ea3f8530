import math

import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.theory.gates import CASES, Gate
from toymodels.theory.quadrants import (
    QUADRANTS,
    and_scale,
    error_std,
    error_std_limit,
    gaussian_classes,
    quadrant_moment,
    readoff_coefficients,
)

AND, OR, XOR = Gate.parse("and"), Gate.parse("or"), Gate.parse("xor")
SPARSITIES = (2, 3, 4, 8, 16, 32, 64)


def neurons(s: int, case: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sampled quadrant index and activation of `count` Gaussian neurons."""
    rng = np.random.default_rng([seed, s, case])
    u, v, rest = rng.standard_normal((3, count))
    x_k, x_l = CASES[case]
    z = x_k * u + x_l * v + math.sqrt(s - x_k - x_l) * rest
    return 2 * (u > 0) + (v > 0), np.maximum(z, 0)


@pytest.mark.parametrize(
    ("s", "c", "zero", "one", "xor"),
    [
        (2, 4.2791, 4.2791, 4.1606, (9.2633, 7.0498, 4.8570)),
        (3, 5.9307, 7.2637, 7.1945, (15.1622, 12.9296, 10.6984)),
        (8, 10.6490, 21.2979, 21.2744, (43.1818, 40.9329, 38.6824)),
    ],
)
def test_known_constants(s, c, zero, one, xor):
    assert and_scale(s) == pytest.approx(c, abs=5e-5)
    np.testing.assert_allclose(readoff_coefficients(AND, s), and_scale(s) * np.array([1, -1, -1, 1]), atol=1e-9)
    np.testing.assert_allclose(error_std(AND, s), [zero, zero, zero, one], atol=5e-5)
    np.testing.assert_allclose(error_std(XOR, s)[[0, 1, 3]], xor, atol=5e-5)


def test_quadrant_moments_agree_with_sampling(disagreement):
    samples, predicted = [], []
    for s in (2, 3, 8, 64):
        for case in range(4):
            quadrant, active = neurons(s, case, 100_000, seed=1)
            for power in (1, 2, 3, 4):
                samples.append((active / math.sqrt(s))[:, None] ** power * (quadrant[:, None] == np.arange(4)))
                predicted.append(quadrant_moment(s, case, power) / s ** (power / 2))
    samples, predicted = np.concatenate(samples, axis=1), np.concatenate(predicted)
    assert disagreement(samples, predicted) < 1
    assert disagreement(samples, 1.03 * predicted) > 1


@pytest.mark.parametrize("gate", [AND, OR, XOR])
def test_readoff_is_unbiased_with_the_predicted_variance_from_2_to_64_active(gate, disagreement):
    samples, predicted = [], []
    for s in SPARSITIES:
        eta, sigma = readoff_coefficients(gate, s), error_std(gate, s)
        for case, value in enumerate(gate.truth):
            quadrant, active = neurons(s, case, 100_000, seed=2)
            part = eta[quadrant] * active
            samples += [part, (part - value) ** 2]
            predicted += [value, sigma[case] ** 2]
    samples, predicted = np.stack(samples, axis=1), np.array(predicted)
    assert disagreement(samples, predicted) < 1
    # A constant 5 % off: seen.
    assert disagreement(samples * np.tile([1.0, 1.05**2], samples.shape[1] // 2), predicted) > 1


def test_rms_error_of_whole_layers(disagreement):
    rng = np.random.default_rng(3)
    d, s, layers = 64, 3, 1500
    weights = rng.standard_normal((layers, d, 5))
    active = np.maximum(weights[:, :, :s].sum(axis=2), 0)  # features 0, 1, 2 are on
    pairs = {3: (0, 1), 2: (0, 3), 1: (4, 2), 0: (3, 4)}
    for gate in (AND, XOR):
        eta = readoff_coefficients(gate, s)
        errors = np.empty((layers, 4))
        for case, (k, l) in pairs.items():
            quadrant = 2 * (weights[:, :, k] > 0) + (weights[:, :, l] > 0)
            errors[:, case] = (eta[quadrant] * active).mean(axis=1) - gate.truth[case]
        assert disagreement(errors**2, error_std(gate, s) ** 2 / d) < 1
        assert disagreement(errors, np.zeros(4)) < 1


@pytest.mark.parametrize("s", [2, 5, 64])
def test_every_gate_is_read_without_bias_and_linearly(s):
    first = gaussian_classes(s).first
    for index in range(16):
        gate = Gate.parse(f"{index:04b}")
        eta = readoff_coefficients(gate, s)
        np.testing.assert_allclose(first @ eta, gate.truth, atol=1e-9)
        alpha, beta, gamma, delta = gate.coefficients
        parts = [readoff_coefficients(Gate.parse(name), s) for name in ("true", "first", "second", "and")]
        np.testing.assert_allclose(eta, np.array([alpha, beta, gamma, delta]) @ parts, atol=1e-7)


def test_small_numbers_of_active_features_by_hand():
    first, second = (
        quadrant_moment(1, 2, power) for power in (1, 2)
    )  # z = u: half of E[u⁺] in each quadrant with u > 0
    half = 1 / (2 * math.sqrt(2 * math.pi))
    np.testing.assert_allclose(first, [0, 0, half, half], atol=1e-12)
    np.testing.assert_allclose(second, [0, 0, 0.25, 0.25], atol=1e-12)
    assert not quadrant_moment(0, 0, 1).any()
    # s = 2, both on, signs +, +: E[(u + v); u, v > 0] = 2·E[u⁺]/2.
    assert quadrant_moment(2, 3, 1)[QUADRANTS.index((1, 1))] == pytest.approx(2 * half)
    assert quadrant_moment(2, 3, 1)[QUADRANTS.index((-1, -1))] == pytest.approx(0, abs=1e-12)


def test_moments_over_all_quadrants_do_not_depend_on_the_case():
    for s in (2, 3, 64):
        for power, half in (
            (0, 0.5),
            (1, 1 / math.sqrt(2 * math.pi)),
            (2, 0.5),
            (3, 2 / math.sqrt(2 * math.pi)),
            (4, 1.5),
        ):
            totals = [quadrant_moment(s, case, power).sum() for case in range(4)]
            np.testing.assert_allclose(totals, half * s ** (power / 2), rtol=1e-12)


def test_limit_constants():
    s = 10**6
    assert and_scale(s) == pytest.approx(math.pi / 2 * math.sqrt(2 * math.pi * s), rel=1e-5)
    for index in range(1, 16):
        gate = Gate.parse(f"{index:04b}")
        for case in range(4):
            growth = error_std_limit(gate, case)
            assert error_std(gate, s)[case] / s**growth.power == pytest.approx(growth.constant, rel=3e-3)
    assert error_std_limit(AND, 0).constant == pytest.approx(2.784, abs=5e-4)


@pytest.mark.parametrize(
    "call",
    [
        lambda: and_scale(1),
        lambda: error_std(AND, 1),
        lambda: readoff_coefficients(AND, 0),
        lambda: quadrant_moment(1, 3, 1),
        lambda: quadrant_moment(0, 1, 1),
        lambda: quadrant_moment(3, 4, 1),
        lambda: quadrant_moment(3, 0, -1),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()
