import math

import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.theory.gates import CASES, Gate
from toymodels.theory.optimal import optimal_limit, optimal_readoff
from toymodels.theory.quadrants import error_std

AND, XOR = Gate.parse("and"), Gate.parse("xor")


@pytest.mark.parametrize(("s", "sigma", "gain"), [(2, 3.2804, 1.3044), (3, 5.3419, 1.3597), (8, 14.4150, 1.4775)])
def test_how_far_the_four_quadrants_are_from_optimal(s, sigma, gain):
    best = optimal_readoff(AND, s)
    assert best.worst == pytest.approx(sigma, abs=5e-5)
    assert error_std(AND, s).max() / best.worst == pytest.approx(gain, abs=5e-5)


@pytest.mark.parametrize("name", ["and", "or", "xor", "first_and_not_second", "nand"])
@pytest.mark.parametrize("s", [2, 5])
def test_certified_optimal_and_no_worse_than_the_quadrants(name, s):
    gate = Gate.parse(name)
    best = optimal_readoff(gate, s)
    assert best.solution.bound <= best.worst**2 * (1 + 1e-9)
    assert best.worst**2 <= best.solution.bound * (1 + 1e-5)
    assert best.worst < error_std(gate, s).max()
    assert optimal_readoff(gate, s, offset=None).worst <= best.worst * (1 + 1e-6)


@pytest.mark.parametrize(
    ("gate", "s", "biases"), [(AND, 2, (0.0,)), (XOR, 4, (0.0,)), (AND, 3, (-1.0,)), (XOR, 3, (0.5, -2.0))]
)
def test_sampled_neurons_give_the_predicted_mean_and_variance(gate, s, biases, disagreement):
    best = optimal_readoff(gate, s, biases)
    rng = np.random.default_rng(s)
    u, v, rest = rng.standard_normal((3, 200_000))
    b = rng.choice(biases, size=len(u))
    samples, predicted = [], []
    for case, (x_k, x_l) in enumerate(CASES):
        z = x_k * u + x_l * v + math.sqrt(s - x_k - x_l) * rest + b
        part = best.eta(u, v, b) * np.maximum(z, 0)
        samples += [part, (part - gate.truth[case]) ** 2]
        predicted += [gate.truth[case], best.sigma[case] ** 2]
    assert disagreement(np.stack(samples, axis=1), np.array(predicted)) < 1
    assert disagreement(np.stack(samples, axis=1), 1.2 * np.array(predicted)) > 1


def test_a_free_offset_is_part_of_the_output(disagreement):
    best = optimal_readoff(Gate.parse("nand"), 3, offset=None)
    rng = np.random.default_rng(5)
    u, v, rest = rng.standard_normal((3, 200_000))
    outputs = []
    for x_k, x_l in CASES:
        z = x_k * u + x_l * v + math.sqrt(3 - x_k - x_l) * rest
        outputs.append(best.eta(u, v, np.zeros_like(u)) * np.maximum(z, 0) + best.offset)
    assert disagreement(np.stack(outputs, axis=1), np.array([1, 1, 1, 0])) < 1
    assert best.worst == pytest.approx(optimal_readoff(AND, 3, offset=None).worst, rel=1e-5)


def test_limit_of_many_active_features():
    s = 3000
    for gate in (AND, XOR):
        assert optimal_readoff(gate, s).worst / s == pytest.approx(optimal_limit(gate), rel=0.005)
        assert error_std(gate, s).max() / optimal_readoff(gate, s).worst == pytest.approx(math.pi / 2, rel=0.005)


def test_a_negative_bias_beats_every_readoff_of_the_layer_without_bias():
    assert optimal_readoff(AND, 2, (-1.0,)).worst == pytest.approx(2.7179, abs=1e-4)
    assert optimal_readoff(AND, 3, (-1.0,)).worst < optimal_readoff(AND, 3).worst


def test_wrong_inputs_are_refused():
    with pytest.raises(InputError):
        optimal_readoff(AND, 1)
    with pytest.raises(InputError):
        optimal_readoff(AND, 2, ())
