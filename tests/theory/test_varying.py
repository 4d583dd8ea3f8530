import math

import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.theory.gates import CASES, Gate
from toymodels.theory.optimal import optimal_readoff
from toymodels.theory.population import Condition
from toymodels.theory.quadrants import and_scale, error_std, quadrant_moment, readoff_coefficients
from toymodels.theory.varying import (
    conditions_up_to,
    tune_biases,
    varying_class_readoff,
    varying_readoff,
)

AND, XOR, NOR = Gate.parse("and"), Gate.parse("xor"), Gate.parse("nor")


def draw(condition: Condition, biases: tuple[float, ...], seed: int, count: int = 100_000):
    rng = np.random.default_rng([seed, condition.s, condition.case])
    u, v, rest = rng.standard_normal((3, count))
    b = rng.choice(biases, size=count)
    x_k, x_l = CASES[condition.case]
    return u, v, b, np.maximum(x_k * u + x_l * v + math.sqrt(condition.s - x_k - x_l) * rest + b, 0)


def test_cases_exist_where_there_are_features_enough():
    assert conditions_up_to(2) == tuple(
        Condition(*pair) for pair in [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (2, 3)]
    )
    assert len(conditions_up_to(5, 2)) == 16


def test_a_readoff_made_for_another_number_of_active_features_is_biased():
    for s, used in ((2, 3), (3, 2), (4, 8)):
        mean = quadrant_moment(used, 3, 1) @ readoff_coefficients(AND, s)
        assert mean == pytest.approx(and_scale(s) / and_scale(used), abs=1e-9)


@pytest.mark.parametrize(
    ("gate", "most", "biases", "least"),
    [
        (AND, 2, (0.0,), 0),
        (AND, 3, (0.0,), 0),
        (XOR, 3, (-1.0,), 0),
        (AND, 4, (-1.5,), 2),
        (NOR, 3, (0.5, -1.0), 0),
        (NOR, 2, (0.0,), 0),
    ],
)
def test_unbiased_for_every_number_of_active_features_with_the_predicted_variance(
    gate, most, biases, least, disagreement
):
    readoff = varying_readoff(gate, most, biases, least)
    samples, predicted = [], []
    for condition, sigma in zip(readoff.conditions, readoff.sigma, strict=True):
        u, v, b, active = draw(condition, biases, seed=most)
        output = readoff.eta(u, v, b) * active + readoff.offset
        value = gate.truth[condition.case]
        samples += [output, (output - value) ** 2]
        predicted += [value, sigma**2]
    assert disagreement(np.stack(samples, axis=1), np.array(predicted)) < 1
    wrong = np.array(predicted) + np.tile([0.2, 0.0], len(readoff.conditions))
    assert disagreement(np.stack(samples, axis=1), wrong) > 1
    if least == 0 and max(biases) <= 0:
        assert readoff.offset == gate.truth[0]


def test_whole_layers_at_every_number_of_active_features(disagreement):
    rng = np.random.default_rng(7)
    d, layers, biases = 64, 1500, (-1.0,)
    readoff = varying_readoff(AND, 3, biases)
    weights, b = rng.standard_normal((layers, d, 5)), np.full((layers, d), -1.0)
    eta = readoff.eta(weights[:, :, 0], weights[:, :, 1], b)
    errors = []
    for s, case in readoff.conditions:
        x_k, x_l = CASES[case]
        on = [0] * x_k + [1] * x_l + [2, 3, 4][: s - x_k - x_l]
        active = np.maximum(weights[:, :, on].sum(axis=2) + b, 0)
        errors.append((eta * active).mean(axis=1) - AND.truth[case])
    squares = np.stack(errors, axis=1) ** 2
    assert disagreement(squares, readoff.sigma**2 / d) < 1


def test_price_of_not_knowing():
    for most, biases, worst in ((2, (0.0,), 3.3083), (3, (0.0,), 7.0407), (4, (0.0,), 18.254), (3, (-1.144,), 4.475)):
        readoff = varying_readoff(AND, most, biases)
        assert readoff.worst == pytest.approx(worst, rel=1e-3)
        assert readoff.worst**2 <= readoff.solution.bound * (1 + 1e-4)
        for s in range(2, most + 1):  # not knowing s costs, on the same layer
            here = [condition.s == s for condition in readoff.conditions]
            assert readoff.sigma[here].max() >= optimal_readoff(AND, s, biases).worst * (1 - 1e-6)
    # At the best bias, serving every s <= 3 costs less than the four quadrants do at s = 3 alone without bias.
    assert readoff.worst < error_std(AND, 3).max()


def test_class_readoffs(disagreement):
    alone = varying_class_readoff(AND, 2, (0.0,))
    np.testing.assert_allclose(alone.eta[0], readoff_coefficients(AND, 2), atol=1e-6)
    with pytest.raises(InputError):
        varying_class_readoff(AND, 3, (0.0,))
    biases = (-1.0, 0.0, -2.0)
    found = varying_class_readoff(AND, 3, biases)
    assert found.sigma.max() == pytest.approx(6.0377, abs=1e-3)
    assert found.sigma.max() >= varying_readoff(AND, 3, biases).worst
    samples, predicted = [], []
    for condition, sigma in zip(found.conditions, found.sigma, strict=True):
        u, v, b, active = draw(condition, biases, seed=11)
        row = np.array([biases.index(value) for value in b.tolist()])
        output = found.eta[row, 2 * (u > 0) + (v > 0)] * active + found.offset
        samples += [output, (output - AND.truth[condition.case]) ** 2]
        predicted += [AND.truth[condition.case], sigma**2]
    assert disagreement(np.stack(samples, axis=1), np.array(predicted)) < 1


def test_tuned_biases_are_no_worse_than_their_neighbours():
    (bias,) = tune_biases(AND, 2)
    assert bias == pytest.approx(-0.90, abs=0.03)
    best = varying_readoff(AND, 2, (bias,)).worst
    assert all(varying_readoff(AND, 2, (bias + step,)).worst >= best - 1e-4 for step in (-0.3, 0.3))
    pair = tune_biases(XOR, 3, 2)
    assert varying_readoff(XOR, 3, pair).worst < varying_readoff(XOR, 3, tune_biases(XOR, 3)).worst


@pytest.mark.parametrize(
    "call",
    [
        lambda: varying_readoff(AND, 1),
        lambda: varying_readoff(AND, 3, least=4),
        lambda: varying_readoff(AND, 3, ()),
        lambda: varying_class_readoff(AND, 2, (0.0, 0.0)),
        lambda: tune_biases(AND, 2, 0),
        lambda: tune_biases(AND, 1),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()
