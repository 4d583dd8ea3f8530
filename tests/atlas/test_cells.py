"""Cells: their names, and inputs and targets that are those of the core."""

import numpy as np
import pytest
import torch

from toymodels.atlas.cells import Cell, cell_of
from toymodels.atlas.floors import floor_of
from toymodels.atlas.search import problem
from toymodels.errors import InputError
from toymodels.theory.gates import Gate
from toymodels.theory.rank import worst_error_floor

SOME = [
    Cell("and", 2, 5, 3),
    Cell("xor", 2, 4, 9),
    Cell("first", 2, 4, 1),
    Cell("and_of(k=3)", 3, 5, 12),
    Cell("and", 3, 6, 4),
]


@pytest.mark.parametrize("cell", SOME, ids=lambda cell: cell.name)
def test_inputs_and_targets_are_those_of_the_core(cell):
    task, inputs = problem(cell)
    x = inputs.dense(dtype=torch.float64)
    assert np.array_equal(cell.x(), x.numpy())
    assert np.array_equal(cell.targets(), task.targets(x).numpy())
    assert (cell.inputs, cell.outputs) == (len(inputs), task.n_outputs)
    assert cell_of(cell.name) == cell


def test_the_floor_is_the_larger_one():
    assert floor_of(Cell("and", 2, 4, 3)) == 0.25 > worst_error_floor(Gate.parse("and"), 4, 2, 3)
    assert floor_of(Cell("and", 2, 6, 8)) == pytest.approx(worst_error_floor(Gate.parse("and"), 6, 2, 8))
    assert floor_of(Cell("and", 2, 6, 3)) > worst_error_floor(Gate.parse("and"), 6, 2, 3) + 0.05
    # three-input gates: the same proof with sets of three
    assert floor_of(Cell("and_of(k=3)", 3, 4, 2)) == 0.25
    assert floor_of(Cell("and_of(k=3)", 2, 4, 2)) == 0  # no output is ever 1
    by_rank = worst_error_floor(Gate.parse("xor"), 16, 2, 20)
    assert by_rank > 0.1
    assert floor_of(Cell("xor", 2, 16, 20)) == pytest.approx(by_rank)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Cell("relu", 2, 5, 3), "task = 'relu'"),
        (lambda: Cell("and", 6, 5, 3), "s = 6: it must be at most 5"),
        (lambda: Cell("and", 2, 1, 3), "m = 1"),
        (lambda: Cell("and", 2, 5, 0), "d = 0"),
        (lambda: Cell("and_of(k=3)", 2, 2, 3), "needs 3 features"),
        (lambda: Cell("and", 3, 200, 3), "take fewer features"),
        (lambda: cell_of("best"), "no name of a cell"),
    ],
)
def test_what_is_no_cell_is_refused(make, match):
    with pytest.raises(InputError, match=match):
        make()


@pytest.mark.parametrize(
    ("written", "task"), [("and_of", "and_of(k=3)"), ("xor()", "xor"), ("and_of(k=3)", "and_of(k=3)")]
)
def test_a_task_has_one_spelling(written, task):
    cell = Cell(written, 3, 5, 4)
    assert cell == Cell(task, 3, 5, 4) == cell_of(cell.name)
    assert np.array_equal(cell.targets(), Cell(task, 3, 5, 4).targets())
