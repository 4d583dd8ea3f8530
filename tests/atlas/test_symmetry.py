"""Permutations of the features: layers with them, readoffs carried by them, and files that hold one output of each orbit."""

import dataclasses

import numpy as np
import pytest

from toymodels.atlas.cells import Cell
from toymodels.atlas.ensemble import train
from toymodels.atlas.entries import entry_bytes, prove, read_entry, read_tensors
from toymodels.atlas.search import improve, solve, solved
from toymodels.atlas.symmetry import Cycle, draw_cycle, neurons_moved, outputs_moved, representatives
from toymodels.errors import InputError

CELL = Cell("and", 2, 7, 11)
CYCLE = Cycle((1, 2, 3, 4, 5, 0, 6), (6, 3, 2))


def layer(seed=0):
    places = CYCLE.parameters()
    return np.random.default_rng(seed).standard_normal(places.max() + 1)[places]


def test_the_activations_of_a_permuted_input_are_those_of_the_neurons_to_which_neurons_go():
    drawn, move = layer(), np.array(CYCLE.move)
    to, x = neurons_moved(drawn, move), CELL.x()
    moved = np.empty_like(x)
    moved[:, move] = x

    def activations(x):
        return np.maximum(x @ drawn[:, :-1].T + drawn[:, -1], 0)

    assert np.allclose(activations(moved)[:, to], activations(x), atol=1e-12)
    targets = CELL.targets()
    rows = [int(np.flatnonzero((x == row).all(1))[0]) for row in moved]
    assert np.array_equal(targets[rows][:, outputs_moved(CELL, move)], targets)
    drawn[0, 0] += 1
    with pytest.raises(InputError, match="does not carry the neurons"):
        neurons_moved(drawn, move)


def test_one_output_of_each_orbit_stands_for_all():
    moves = CYCLE.moves
    assert len(representatives(CELL, moves)) == 4 < CELL.outputs
    whole, part = solve(CELL, layer()), solve(CELL, layer(), moves=moves)
    assert len(part.certificates) == 4
    assert part.worst_error == pytest.approx(whole.worst_error, abs=1e-7)
    entry = solved(CELL, layer(), {}, moves)
    assert abs(prove(entry).gap) < 1e-7
    assert prove(entry).worst_error == pytest.approx(whole.worst_error, abs=1e-7)


def test_a_file_with_moves_holds_fewer_readoffs_and_all_are_proved(tmp_path):
    entry = solved(CELL, layer(), {}, CYCLE.moves)
    path = tmp_path / f"{CELL.name}.safetensors"
    path.write_bytes(entry_bytes(entry))
    assert len(read_tensors(path)[0]["readoff"]) == 4
    assert prove(read_entry(path)).worst_error == pytest.approx(prove(entry).worst_error, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda e: {"moves": e.moves[:, :-1]}, "a row of 7"),
        (lambda e: {"moves": e.moves * 0}, "permutations of the features 0 to 6"),
        (lambda e: {"moves": e.moves + 0.5}, "moves must be whole numbers"),
        (lambda e: {"moves": np.array([[0, 2, 3, 4, 5, 6, 1]])}, "does not carry the neurons"),
        (lambda e: {"moves": np.arange(7)[None]}, "one of each orbit"),
    ],
)
def test_wrong_moves_in_a_file_are_refused(change, match, tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / f"{CELL.name}.safetensors"
    path.write_bytes(entry_bytes(solved(CELL, layer(), {}, CYCLE.moves)))
    tensors = read_tensors(path)[0]
    entry = solved(CELL, layer(), {}, CYCLE.moves)
    save_file({**tensors, **change(entry)}, path)
    with pytest.raises(InputError, match=match):
        read_entry(path)


def test_training_keeps_the_symmetry_and_lowers_the_error():
    reached = train(CELL, [layer(seed) for seed in range(4)], (2.0, 8.0, 32.0), 20, 2, CYCLE)
    for _, trained, _ in reached:
        neurons_moved(trained, np.array(CYCLE.move))
    error, trained, number = reached[0]
    found = solve(CELL, trained, moves=CYCLE.moves).worst_error
    assert found <= error + 1e-9
    assert found < solve(CELL, layer(number), moves=CYCLE.moves).worst_error - 0.02


@pytest.mark.parametrize(("m", "d"), [(16, 23), (8, 8), (31, 40), (4, 2)])
def test_cycles_that_are_drawn_fit(m, d):
    for seed in range(10):
        cycle = draw_cycle(Cell("and", 2, m, d), np.random.default_rng(seed))
        places = cycle.parameters()
        assert places.shape == (d, m + 1)
        drawn = np.random.default_rng(seed).standard_normal(places.max() + 1)[places]
        assert sorted(neurons_moved(drawn, np.array(cycle.move))) == list(range(d))
    assert draw_cycle(Cell("and", 2, m, 1), np.random.default_rng(0)) is None


def test_a_search_of_a_larger_cell_finds_a_layer_with_symmetry():
    cell = Cell("and", 2, 12, 20)
    found = improve(cell, {}, seed=0, seconds=1.0)
    assert "cycles of" in found.facts["how"]  # it keeps its symmetry if there was no time for a descent after it
    assert prove(found).worst_error < 0.245
    forged = dataclasses.replace(found, readoff=np.roll(found.readoff, 1, 0))
    assert prove(forged).worst_error > prove(found).worst_error + 0.1
