import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from toymodels.errors import InputError
from toymodels.theory.gates import CASES, Gate, bilinear

ALL_GATES = ["".join(digits) for digits in itertools.product("01", repeat=4)]


@pytest.mark.parametrize("table", ALL_GATES)
def test_every_truth_table_has_a_name_and_its_bilinear_form_gives_it_back(table):
    gate = Gate.parse(table)
    alpha, beta, gamma, delta = gate.coefficients
    assert [alpha + beta * x + gamma * y + delta * x * y for x, y in CASES] == [int(digit) for digit in table]
    assert Gate.parse(gate.name) == gate


def test_names():
    assert Gate.parse("U-AND").truth == Gate.parse("and").truth == (0, 0, 0, 1)
    assert Gate.parse("XOR").truth == (0, 1, 1, 0)
    assert Gate.parse("or").coefficients == (0, 1, 1, -1)


@pytest.mark.parametrize("table", ALL_GATES)
def test_affine_floor_is_the_best_worst_error_of_an_affine_function(table):
    gate = Gate.parse(table)
    # min t subject to |c0 + c1 x + c2 y − f| ≤ t in the four cases: a linear program of its own.
    rows, bounds = [], []
    for (x, y), value in zip(CASES, gate.truth, strict=True):
        rows += [[1, x, y, -1], [-1, -x, -y, -1]]
        bounds += [value, -value]
    best = linprog([0, 0, 0, 1], rows, bounds, bounds=[(None, None)] * 3 + [(0, None)]).fun
    assert best == pytest.approx(gate.affine_floor, abs=1e-9)


@pytest.mark.parametrize("text", ["", "nope", "01", "0120", "00010"])
def test_unknown_gates_are_refused(text):
    with pytest.raises(InputError, match="unknown gate"):
        Gate.parse(text)


def test_truth_table_must_be_boolean():
    with pytest.raises(InputError, match="truth table"):
        Gate((0, 0, 0, 2))


def test_bilinear_interpolates_any_four_values():
    values = np.random.default_rng(0).normal(size=4).tolist()
    a, b, c, d = bilinear(values)
    assert [a + b * x + c * y + d * x * y for x, y in CASES] == pytest.approx(values)
