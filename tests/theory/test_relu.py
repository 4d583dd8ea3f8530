"""Floors of ReLU layers: layers that are made to beat them, and activations that are no ReLU and do."""

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import linprog

from tests.theory.test_convex import reached
from toymodels.atlas.cells import Cell
from toymodels.atlas.known import _shipped
from toymodels.atlas.search import solve
from toymodels.errors import InputError
from toymodels.theory.relu import CONSTANT, relu_floor


def cells_below(floor):
    """The entries of the atlas whose worst error is below a floor of (m, k, d)."""
    sizes = {"and": 2, "and_of(k=3)": 3}
    for cell, error in _shipped().items():
        size = sizes.get(cell.task, math.inf)
        if cell.s >= size and error < floor(cell.m, size, cell.d) - 1e-6:
            yield cell.name


def test_no_entry_of_the_atlas_is_below_it_and_exaggerated_floors_are_refuted():
    assert list(cells_below(relu_floor)) == []
    assert "and-at_most_2-m04-d005" in cells_below(lambda m, k, d: 1.3 * relu_floor(m, k, d))
    assert "and-at_most_2-m05-d002" in cells_below(lambda m, k, d: relu_floor(m + 1, k, d))
    assert "and-at_most_2-m07-d003" in cells_below(lambda m, k, d: 0.5 * (d == 3 and m >= 7))


def test_other_activations_beat_the_floor_one_neuron_short():
    """0 and the unit vectors without their mean direction: 1/12 with 5 neurons for 6 pairs, where ReLU has 1/10 at least."""
    points = np.vstack([np.zeros(5), np.linalg.svd(np.ones((1, 6)))[2][1:].T])
    assert reached(points) < 0.09 < relu_floor(4, 2, 5) == 0.1


def blocked(edges):
    """Whether two features have three neighbours in common: six sums of pairs in a plane, whose hull has five corners."""
    near = [{sum(edge) - i for edge in edges if i in edge} for i in range(6)]
    return any(len(near[i] & near[j]) >= 3 for i, j in itertools.combinations(range(6), 2))


def test_eleven_pairs_of_six_features_are_never_apart_in_a_plane():
    pairs = list(itertools.combinations(range(6), 2))
    assert all(blocked(edges) for edges in itertools.combinations(pairs, 11))
    assert not all(blocked(edges) for edges in itertools.combinations(pairs, 10))


def every_pair_apart(points):
    """Whether each two of the points are on one side of some plane, and all others on the other."""

    def apart(pair):
        sign = np.where(np.isin(np.arange(len(points)), pair), -1, 1)
        sides = sign[:, None] * np.column_stack([points, np.ones(len(points))])
        return linprog(np.zeros(sides.shape[1]), sides, -np.ones(len(points)), bounds=[(None, None)] * 4).status == 0

    return all(apart(pair) for pair in itertools.combinations(range(len(points)), 2))


def test_six_points_of_space_do_not_have_every_pair_apart_but_five_do():
    corners = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    assert every_pair_apart(np.vstack([corners, np.zeros(3)]))
    rng = np.random.default_rng(0)
    assert not any(every_pair_apart(np.vstack([corners, 0.3 * rng.standard_normal((2, 3))])) for _ in range(40))
    # features that no neuron, one, two or all three see, in pairs: so many at most for each choice of these neurons
    assert CONSTANT[3] == 1 + sum(math.comb(3, n) * most for n, most in enumerate((2, 2, 4, 5)))


def test_four_neurons_are_below_one_half_for_many_features():
    m = 12
    t = np.linspace(0.5, 1.5, m)
    layer = np.column_stack([np.stack([t, t**2, t**3, t**4]), np.zeros(4)])
    assert solve(Cell("and", 2, m, 4), layer).worst_error < 0.5 - 1e-6


def test_known_values_and_wrong_numbers():
    assert [relu_floor(m, 2, 2) for m in (5, 6, 40)] == [1 / 18, 0.5, 0.5]
    assert [relu_floor(m, 2, 3) for m in (25, 26)] == [1 / 598, 0.5]
    assert relu_floor(5, 3, 9) == pytest.approx(1 / 18)
    assert relu_floor(4, 3, 3) == relu_floor(4, 2, 6) == 0
    for wrong in ((1, 2, 1), (4, 5, 1), (4, 2, 0)):
        with pytest.raises(InputError):
            relu_floor(*wrong)
