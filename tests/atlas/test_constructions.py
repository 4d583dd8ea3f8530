"""Layers that are written down: each reaches what it promises, and the combinatorics on which that rests."""

import itertools

import numpy as np
import pytest
import torch

from toymodels.atlas.cells import Cell
from toymodels.atlas.constructions import CODES, constructions, labels, of_code, of_labels, on_a_plane
from toymodels.atlas.floors import floor_of
from toymodels.atlas.search import as_module, problem, solve
from toymodels.core.minimax import minimax
from toymodels.errors import InputError

CELLS = [
    Cell("and", 2, 4, 7),
    Cell("and", 2, 5, 4),
    Cell("and", 2, 6, 5),
    Cell("and", 2, 9, 8),
    Cell("and", 2, 20, 19),
    Cell("and", 2, 7, 14),
    Cell("and", 2, 8, 14),
    Cell("and", 2, 12, 27),
    Cell("and", 2, 15, 45),
    Cell("and", 2, 16, 28),
    Cell("xor", 2, 5, 6),
    Cell("and", 3, 5, 10),
    Cell("and_of(k=3)", 3, 4, 4),
]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_each_reaches_what_it_promises_and_no_floor_is_above(cell):
    made = list(constructions(cell))
    assert made
    for one in made:
        layer = one.layer()
        assert len(layer) <= cell.d
        reached = solve(Cell(cell.task, cell.s, cell.m, len(layer)), layer, one.how, one.moves).worst_error
        assert reached <= one.error + 1e-7, one.how
        assert one.error >= floor_of(cell) - 1e-12


@pytest.mark.parametrize(("m", "number", "error"), [(8, 1, 1 / 6), (32, 1, 1 / 6), (32, 2, 1 / 8), (15, 2, 1 / 8)])
def test_labellings_reach_their_error_exactly(m, number, error):
    layer = of_labels(m, number)
    cell = Cell("and", 2, m, len(layer))
    moves = next(one.moves for one in constructions(cell) if "labelling" in one.how)
    assert solve(cell, layer, "", moves).worst_error == pytest.approx(error, abs=1e-7)


@pytest.mark.long
@pytest.mark.parametrize(("number", "error"), [(3, 3 / 14), (4, 1 / 5)])
def test_labellings_reach_their_error_at_most_3_active_too(number, error):
    cell = Cell("and", 3, 32, 31 * (number + 1))
    made = next(one for one in constructions(cell) if "labelling" in one.how)
    assert made.error == pytest.approx(error)
    assert solve(cell, made.layer(), "", made.moves).worst_error == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize("m", [8, 12, 15, 16, 31, 32, 63, 64])
def test_no_two_pairs_have_equal_sums_in_two_labellings(m):
    pairs = list(itertools.combinations(range(m), 2))
    for label in labels(m):
        assert len(set(label)) == m
    for first, second in itertools.combinations(labels(m), 2):
        sums = {(first[i] ^ first[j], second[i] ^ second[j]) for i, j in pairs}
        assert len(sums) == len(pairs)


def test_two_labellings_that_collide_reach_less():
    """The first labelling twice has the error of one: pairs with equal sums have them in both."""
    layer = of_labels(15, 2)
    layer[30:] = layer[:15]  # the second labelling is the first
    assert solve(Cell("and", 2, 15, 45), layer).worst_error == pytest.approx(1 / 6, abs=1e-7)


def test_64_features_have_the_second_labelling_of_dillon_which_no_multiplication_maps_to_itself():
    """Of the outputs a few are solved: all of them take a minute."""
    made = next(one for one in constructions(Cell("and", 2, 64, 189)) if "labelling" in one.how)
    assert (made.error, made.moves) == (1 / 8, None)
    task, inputs = problem(Cell("and", 2, 64, 189))
    some = minimax(as_module(made.layer()), task.subset(torch.tensor([0, 100, 2015])), inputs)
    assert [one.worst_error for one in some.certificates] == pytest.approx([1 / 8] * 3, abs=1e-7)


def test_wrong_sizes_are_refused():
    with pytest.raises(InputError, match="m = 4"):
        on_a_plane(4)
    with pytest.raises(InputError, match="number = 3"):
        of_labels(16, 3)
    with pytest.raises(InputError, match="m = 257: it must be at most 256"):
        of_labels(257, 1)
    assert [one.how for one in constructions(Cell("and", 2, 4, 3))] == []
    assert all("plane" not in one.how for one in constructions(Cell("and", 3, 9, 8)))


def test_codes_have_weights_that_are_close():
    for n, codes in CODES.items():
        for code in codes:
            layer = of_code(2**n, code)[2**n :, :-1]
            weights = (layer[:, 1:] < 0).sum(0)
            assert weights.max() < 2 * weights.min()
            assert len(layer) - weights.min() < 2 * weights.min()
            assert np.array_equal(layer[:, 3], layer[:, 1] * layer[:, 2])  # word 3 is word 1 plus word 2
