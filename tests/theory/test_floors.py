import itertools
import math

import numpy as np
import pytest
from scipy.optimize import linprog

from toymodels.errors import InputError
from toymodels.theory.counts import at_most, exactly, independent
from toymodels.theory.floors import (
    choice_bits,
    counting_width,
    square_floor,
    target_spectrum,
    welch_bound,
    zero_predictor,
)
from toymodels.theory.gates import CASES, Gate

AND, XOR = Gate.parse("and"), Gate.parse("xor")
M = 6


def all_targets(gate: Gate, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets of every pair on every input, and the inputs' probabilities, by complete enumeration."""
    inputs = np.array(list(itertools.product((0, 1), repeat=M)))
    chance = np.array([counts[x.sum()] / math.comb(M, x.sum()) for x in inputs])
    k, l = np.triu_indices(M, 1)
    return np.array(gate.truth)[2 * inputs[:, k] + inputs[:, l]].astype(float), chance


@pytest.mark.parametrize("counts", [exactly(M, 3), at_most(M, 2), independent(M, 0.3)])
@pytest.mark.parametrize("name", ["and", "xor", "or", "nor", "first_and_not_second", "second"])
def test_floors_agree_with_complete_enumeration(name, counts):
    gate = Gate.parse(name)
    targets, chance = all_targets(gate, counts)
    mean = chance @ targets
    for centred in (False, True):
        matrix = (targets * chance[:, None]).T @ targets - centred * np.outer(mean, mean)
        exact = np.linalg.eigvalsh(matrix)[::-1]
        spectrum = target_spectrum(gate, counts, centred)
        np.testing.assert_allclose(np.repeat(spectrum.values, spectrum.multiplicities), exact, atol=1e-12)
        for d in (1, 4, 7):
            assert spectrum.beyond(d) == pytest.approx(exact[d:].clip(0).sum(), abs=1e-12)
            floor = square_floor(gate, counts, d, offset=centred)
            assert floor.per_output == pytest.approx(exact[d:].clip(0).sum() / len(exact), abs=1e-12)
    zero = zero_predictor(gate, counts)
    assert zero.mean_square == pytest.approx(float((chance @ targets).mean()), abs=1e-12)
    assert zero.worst == targets[chance > 0].max()


def test_the_floor_is_reached_by_the_best_readout_of_the_best_layer():
    counts = exactly(M, 3)
    targets, chance = all_targets(AND, counts)
    weighted = targets[chance > 0] * np.sqrt(chance[chance > 0])[:, None]
    left, size, right = np.linalg.svd(weighted, full_matrices=False)
    for d in (2, 5):
        error = weighted - (left[:, :d] * size[:d]) @ right[:d]
        assert square_floor(AND, counts, d, offset=False).per_output == pytest.approx((error**2).sum() / 15)


def test_known_shares_of_the_zero_predictor():
    for d, share in ((100, 0.960), (2000, 0.584)):
        assert square_floor(AND, exactly(100, 3), d, offset=False).share == pytest.approx(share, abs=5e-4)
    assert square_floor(AND, exactly(100, 3), 4950).per_output == 0
    assert math.isnan(square_floor(Gate.parse("false"), exactly(100, 3), 10).share)


def test_affine_floor_is_the_optimum_of_its_linear_program():
    for index in range(16):
        gate = Gate.parse(f"{index:04b}")
        rows, sides = [], []
        for (x_k, x_l), value in zip(CASES, gate.truth, strict=True):
            for sign in (1, -1):
                rows.append([sign, sign * x_k, sign * x_l, -1])
                sides.append(sign * value)
        best = linprog([0, 0, 0, 1], A_ub=rows, b_ub=sides, bounds=[(None, None)] * 4).fun
        assert gate.affine_floor == pytest.approx(best, abs=1e-9)


def test_welch_bound():
    for d in (2, 5, 20):  # the simplex meets it
        assert welch_bound(d + 1, d) == pytest.approx(1 / d)
    assert welch_bound(10, 10) == 0
    assert welch_bound(10_000, 20, order=2) > welch_bound(10_000, 20)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((200, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    largest = np.abs(vectors @ vectors.T - np.eye(200)).max()
    assert all(welch_bound(200, 8, order) <= largest for order in (1, 2, 3, 4))


def test_counting_bound():
    assert choice_bits(10, 7) == pytest.approx(math.log2(math.comb(45, 7)))
    assert counting_width(10, 7, 4.0) == pytest.approx(math.sqrt(math.log2(math.comb(45, 7)) / 4))
    assert counting_width(10, 7, 4.0, layers=4) == pytest.approx(counting_width(10, 7, 4.0) / 2)
    assert counting_width(10, 45, 4.0) == pytest.approx(0, abs=1e-6)
    # Ω(√(m' log m')) when m' is a small power of the number of pairs.
    assert counting_width(10_000, 10_000, 1.0) == pytest.approx(math.sqrt(1e4 * math.log2(math.e * 5e3)), rel=0.01)


@pytest.mark.parametrize(
    "call",
    [
        lambda: square_floor(AND, exactly(10, 3), 0),
        lambda: target_spectrum(AND, exactly(3, 2)),
        lambda: target_spectrum(Gate.parse("first"), exactly(61, 2)),
        lambda: welch_bound(1, 3),
        lambda: welch_bound(5, 0),
        lambda: welch_bound(5, 2, 0),
        lambda: choice_bits(10, 46),
        lambda: counting_width(10, 7, 0.0),
        lambda: counting_width(10, 7, 1.0, 0),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()
