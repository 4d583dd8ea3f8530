"""The floor by Chebyshev polynomials: above the one by rank, and below every set of points that was tried."""

import math

import numpy as np
import pytest

from tests.theory.test_convex import reached
from toymodels.errors import InputError
from toymodels.theory.gates import Gate
from toymodels.theory.polynomial import identity_floor, least_width, polynomial_floor
from toymodels.theory.rank import least_width as rank_width
from toymodels.theory.rank import worst_error_floor

AND, XOR = Gate.parse("and"), Gate.parse("xor")


def polygon(corners):
    """The corners of a regular polygon, with its centre in front."""
    angles = 2 * np.pi * np.arange(corners) / corners
    return np.vstack([np.zeros(2), np.column_stack([np.cos(angles), np.sin(angles)])])


@pytest.mark.parametrize("corners", [5, 6, 9, 15])
def test_a_polygon_which_is_good_in_two_dimensions_is_not_below_it(corners):
    """Its error is known: with c = cos(2π/n) an affine function is in ±1 on all other corners, and (3 − c)/(1 + c) on one."""
    c = math.cos(2 * math.pi / corners) if corners % 2 == 0 else None
    error = reached(polygon(corners))
    assert c is None or error == pytest.approx(1 / (1 + (3 - c) / (1 + c)), abs=1e-9)
    assert identity_floor(corners, 2) <= error
    # a floor 1.5 times as large would be above it: the check can fail
    assert corners < 6 or 1.5 * identity_floor(corners, 2) > error


@pytest.mark.parametrize(("outputs", "d"), [(8, 2), (12, 3), (20, 3)])
def test_no_points_that_were_tried_are_below_it(outputs, d):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((8, outputs + 1, d))
    points /= np.linalg.norm(points, axis=2, keepdims=True)
    assert min(map(reached, points)) >= identity_floor(outputs, d)


@pytest.mark.parametrize("gate", [AND, XOR, Gate.parse("first_and_not_second")])
@pytest.mark.parametrize(("m", "s"), [(5, 2), (8, 3), (16, 2), (64, 2)])
def test_it_is_never_below_the_floor_by_rank(gate, m, s):
    floors = [(polynomial_floor(gate, m, s, d), worst_error_floor(gate, m, s, d)) for d in (1, 2, 3, 5, 8, 13, 40)]
    assert all(new >= old - 1e-12 for new, old in floors)
    assert (
        m < 16 or gate != AND or any(new > old + 0.05 for new, old in floors)
    )  # of others the features take up the rank


def test_widths_for_a_quarter():
    """By hand at degree 2, with t = 1/3 and T_2(3) = 17: C(d + 2, 2) is at least P/(1 + (P − 1)/289)."""
    for m, width in ((16, 12), (32, 18), (64, 21)):
        pairs = math.comb(m, 2)
        by_hand = next(d for d in range(1, 100) if math.comb(d + 2, 2) >= pairs / (1 + (pairs - 1) / 289) - 1e-9)
        assert least_width(AND, m, 2, 0.25) == by_hand == width > rank_width(AND, m, 2, 0.25)


def test_gates_without_a_product_have_no_floor_and_wrong_numbers_are_refused():
    assert polynomial_floor(Gate.parse("first"), 8, 2, 1) == 0
    assert identity_floor(1, 1) == identity_floor(6, 6) == 0
    for call in (
        lambda: polynomial_floor(AND, 8, 1, 3),
        lambda: polynomial_floor(AND, 8, 9, 3),
        lambda: polynomial_floor(AND, 8, 2, 0),
        lambda: least_width(AND, 8, 2, 0.0),
        lambda: identity_floor(0, 1),
    ):
        with pytest.raises(InputError):
            call()
