"""Starts, ensembles and the search: gradients, halving, and what a search can never do worse than."""

import numpy as np
import pytest
import torch

from toymodels.atlas.cells import Cell
from toymodels.atlas.ensemble import Ensemble, lbfgs, train
from toymodels.atlas.entries import CLOSE, Entry, prove
from toymodels.atlas.search import improve, inherited, polish, solve, solved
from toymodels.atlas.starts import STARTS
from toymodels.errors import InputError
from toymodels.theory.relu import relu_floor

SMALL = Cell("and", 2, 4, 3)


@pytest.mark.parametrize("name", list(STARTS))
@pytest.mark.parametrize("size", [(2, 1), (3, 2), (5, 9), (16, 6)])
def test_a_start_is_a_finite_layer_that_its_seed_determines(name, size):
    m, d = size

    def draw(seed):
        return STARTS[name].call({"m": m, "d": d, "s": 2, "rng": np.random.default_rng(seed)})

    assert draw(0).shape == (d, m + 1)
    assert np.isfinite(draw(0)).all()
    assert np.array_equal(draw(0), draw(0))
    assert not np.array_equal(draw(0), draw(1))


def starts(cell, number, seed=0):
    kinds, rng = STARTS.values(), np.random.default_rng(seed)
    return [kinds[i % len(kinds)].call({"m": cell.m, "d": cell.d, "s": cell.s, "rng": rng}) for i in range(number)]


@pytest.mark.parametrize("exponent", [2.0, 8.0, 64.0])
@pytest.mark.parametrize(
    "cell", [SMALL, Cell("xor", 2, 4, 3), Cell("and_of(k=3)", 3, 4, 2)], ids=lambda cell: cell.name
)
def test_the_loss_of_an_ensemble_is_that_of_its_members_and_its_gradient_that_of_autograd(cell, exponent):
    ensemble = Ensemble(cell)
    vectors = ensemble.begin(starts(cell, 3))
    values, slopes, largest = ensemble.loss(exponent)(vectors)
    x, f = torch.from_numpy(cell.x().copy()), torch.from_numpy(cell.targets().copy())
    for i, vector in enumerate(vectors):
        vector = vector.clone().requires_grad_(True)
        split = cell.d * (cell.m + 1)
        layer, readoff = vector[:split].view(cell.d, -1), vector[split:].view(cell.outputs, -1)
        a = torch.relu(x @ layer[:, :-1].T + layer[:, -1])
        error = (a @ readoff[:, :-1].T + readoff[:, -1] - f).abs()
        weights = torch.full_like(f, 1 / f.numel())
        if exponent <= 8:
            weights = f / f.sum() / 2 + (1 - f) / (1 - f).sum() / 2
        loss = (weights * error**exponent).sum() ** (1 / exponent)
        loss.backward()
        assert float(values[i]) == pytest.approx(loss.item(), rel=1e-9)
        assert float(largest[i]) == pytest.approx(error.max().item(), rel=1e-12)
        assert torch.allclose(slopes[i], vector.grad, rtol=1e-6, atol=1e-10)


def test_the_steps_of_an_ensemble_minimise_each_member_apart():
    scale = torch.tensor([[1.0, 10.0, 100.0], [5.0, 1.0, 1.0]], dtype=torch.float64)
    best = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, 1.0]], dtype=torch.float64)

    def function(at):
        which = at[:, 3].round().long()  # the last parameter tells members apart, and has no slope
        offset, size = at[:, :3] - best[which], scale[which]
        value = (size * offset**2).sum(1)
        return value, torch.cat([2 * size * offset, torch.zeros(len(at), 1, dtype=at.dtype)], 1), value

    begin = torch.zeros(2, 4, dtype=torch.float64)
    begin[1, 3] = 1
    at, value = lbfgs(function, begin, 40)
    assert torch.allclose(at[:, :3], best, atol=1e-4)
    assert float(value.max()) < 1e-6


def test_halving_keeps_the_best_and_says_which_start_they_come_from():
    drawn = starts(SMALL, 24)
    reached = train(SMALL, drawn, (2.0, 8.0, 16.0), 15, kept=3)
    every = train(SMALL, drawn, (2.0, 8.0, 16.0), 15, kept=24)
    assert 3 <= len(reached) < 12
    assert len(every) == 24
    assert [error for error, *_ in reached] == sorted(error for error, *_ in reached)
    assert reached[0][0] <= np.median([error for error, *_ in every])
    assert {number for *_, number in every} == set(range(24))
    for error, layer, _ in reached:
        assert solve(SMALL, layer).worst_error <= error + 1e-9  # the best readoffs are no worse than the trained ones
    with pytest.raises(InputError, match="a power of 2"):
        train(SMALL, drawn, (3.0,))
    with pytest.raises(InputError, match="starts must be"):
        train(SMALL, [])


def solved_like(cell):
    """An entry of the right shapes, whose readoffs nobody looks at."""
    nothing = np.zeros(0)
    outputs = np.zeros((cell.outputs, cell.d))
    return Entry(
        cell, np.eye(cell.d, cell.m), np.zeros(cell.d), outputs, outputs[:, 0], nothing.astype(int), nothing, 0
    )


def test_inherited_layers_are_no_worse_in_their_new_cell():
    known = {}
    for cell in (Cell("and", 2, 5, 3), Cell("and", 3, 4, 4), Cell("and", 2, 4, 2)):
        known[cell] = solved(cell, starts(cell, 1)[0], {})
    cell = Cell("and", 2, 4, 4)
    took = {}
    for source in (Cell("and", 3, 4, 4), Cell("and", 2, 4, 2)):
        for how, layer, _ in inherited(cell, {source: known[source]}):
            took[how] = True
            assert solve(cell, layer).worst_error <= prove(known[source]).worst_error + CLOSE
    for how, layer, _ in inherited(Cell("and", 2, 4, 3), {Cell("and", 2, 5, 3): known[Cell("and", 2, 5, 3)]}):
        took[how] = True
        assert solve(Cell("and", 2, 4, 3), layer).worst_error <= prove(known[Cell("and", 2, 5, 3)]).worst_error + CLOSE
    assert len(took) == 3
    # a neighbour that would have too many inputs is no reason to stop
    wide = Cell("and", 2, 40, 41)
    narrow = Cell("and", 2, 40, 40)
    assert [how for how, *_ in inherited(wide, {narrow: solved_like(narrow)})] == ["dead neurons more than d = 40"]


def test_a_search_finds_a_layer_far_below_a_random_one_and_is_never_above_what_is_known():
    found = improve(SMALL, {}, seed=0, seconds=0.6)
    assert prove(found).worst_error < 0.33
    assert abs(prove(found).gap) < CLOSE
    again = improve(SMALL, {SMALL: found}, seed=1, seconds=0.3)
    assert again is None or prove(again).worst_error < prove(found).worst_error - CLOSE
    wide = improve(Cell("and", 2, 5, 5), {}, seed=0, seconds=0.3)
    assert prove(wide).worst_error <= 0.25 + CLOSE
    with pytest.raises(InputError, match="seconds"):
        improve(SMALL, {}, seconds=0)


def test_polishing_never_makes_a_layer_worse():
    layer = starts(SMALL, 1)[0]
    before = solve(SMALL, layer, "drawn")
    after = polish(SMALL, before, 10, 5.0)
    assert after.worst_error < before.worst_error
    assert solve(SMALL, after.layer).worst_error == pytest.approx(after.worst_error, abs=1e-9)
    assert after.how == "drawn, descended"


@pytest.mark.parametrize(("m", "d"), [(4, 5), (6, 2)])
def test_searches_and_descents_end_above_the_floor_of_relu(m, d):
    cell = Cell("and", 2, m, d)
    found = improve(cell, {}, seed=1, seconds=0.3)
    lower = polish(cell, solve(cell, np.column_stack([found.weight, found.bias])), 10, 0.3).worst_error
    assert relu_floor(m, 2, d) - 1e-9 <= lower < 0.5 + 1e-9
