"""Entries: what stored numbers prove, and faults planted in them."""

import dataclasses

import numpy as np
import pytest

from toymodels.atlas.cells import Cell
from toymodels.atlas.entries import CLOSE, TENSORS, Entry, entry_bytes, prove, read_entry, read_tensors
from toymodels.atlas.search import solve, solved
from toymodels.errors import InputError

CELL = Cell("and", 2, 5, 6)


@pytest.fixture(scope="module")
def entry():
    """A random layer with its readoffs."""
    layer = np.random.default_rng(0).standard_normal((CELL.d, CELL.m + 1))
    return solved(CELL, layer, {"how": "drawn", "seed": 0})


def test_the_bounds_of_an_entry_meet_and_are_those_of_the_solver(entry):
    proof = prove(entry)
    layer = np.column_stack([entry.weight, entry.bias])
    assert abs(proof.gap) < CLOSE / 10
    assert proof.worst_error == pytest.approx(solve(CELL, layer).worst_error, abs=CLOSE / 10)


def test_a_file_holds_all_of_an_entry(entry, tmp_path):
    path = tmp_path / f"{CELL.name}.safetensors"
    path.write_bytes(entry_bytes(entry))
    again = read_entry(path)
    assert again.cell == CELL
    assert dict(again.facts) == dict(entry.facts)
    assert prove(again) == prove(entry)
    assert set(read_tensors(path)[0]) == set(TENSORS)


def test_the_worst_error_is_that_of_the_readoff_which_is_stored(entry):
    offset = entry.offset.copy()
    offset[3] += 0.4
    assert prove(dataclasses.replace(entry, offset=offset)).worst_error > prove(entry).worst_error + 0.1
    weight = entry.weight.copy()
    weight[0, 0] += 1
    with pytest.raises(InputError, match="the certificate proves nothing: it leaks"):
        prove(dataclasses.replace(entry, weight=weight))


def put(array, value):
    array = np.array(array, dtype=float)
    array.flat[0] = value
    return array


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda e: {"weight": put(e.weight, np.nan)}, "weight must be finite"),
        (lambda e: {"bias": put(e.bias, np.inf)}, "bias must be finite"),
        (lambda e: {"readoff": put(e.readoff, np.nan)}, "readoff must be finite"),
        (lambda e: {"weight": np.full_like(e.weight, 1e308)}, "so large that an output is"),
        (lambda e: {"readoff": np.full_like(e.readoff, 1e308, dtype=float)}, "so large that an output is"),
        (lambda e: {"rows": np.array(3)}, "rows must be numbers of inputs"),
        (lambda e: {"weight": e.weight.T}, r"weight has the shape \(5, 6\): it must be \(6, 5\)"),
        (lambda e: {"readoff": e.readoff[:-1]}, "readoff has the shape"),
        (lambda e: {"offset": e.offset[:-1]}, "offset has the shape"),
        (lambda e: {"weight": e.weight.astype(complex)}, "weight must be an array of real numbers"),
        (lambda e: {"rows": e.rows + CELL.inputs}, "rows must be numbers of inputs"),
        (lambda e: {"rows": e.rows - 5 * CELL.inputs}, "rows must be numbers of inputs"),
        (lambda e: {"rows": e.rows.astype(float)}, "rows must be numbers of inputs"),
        (lambda e: {"multipliers": 2 * e.multipliers}, "sum to 2, not to 1"),
        (lambda e: {"multipliers": np.abs(e.multipliers)}, "it leaks"),
        (lambda e: {"multipliers": e.multipliers[:-1]}, "multipliers has the shape"),
        (lambda e: {"output": CELL.outputs}, "output = 10"),
    ],
)
def test_a_planted_fault_is_refused_in_one_sentence(entry, change, match):
    with pytest.raises(InputError, match=match) as refusal:
        prove(dataclasses.replace(entry, **change(entry)))
    assert "\n" not in str(refusal.value)


def test_large_coefficients_that_cancel_are_stored_in_full():
    """Feature 1 is seen only as 1e-5 of a difference of two neurons: coefficients of 45,000, which float32 rounds by 0.004."""
    layer = np.eye(CELL.d, CELL.m + 1)
    layer[0, 0] = 0.7
    layer[1] = [0.7, 1.1e-5, 0, 0, 0, 0]
    entry = solved(CELL, layer, {})
    assert prove(entry).worst_error == pytest.approx(0.25, abs=1e-7)
    assert entry.readoff.dtype == np.float64
    assert prove(entry).gap < CLOSE


def test_files_that_are_no_entries_are_refused(tmp_path):
    path = tmp_path / "and-at_most_2-m05-d006.safetensors"
    with pytest.raises(InputError, match="there is no file"):
        read_entry(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"no \.safetensors file that can be read"):
        read_entry(path)
    from safetensors.numpy import save_file

    save_file({"weight": np.zeros((6, 5))}, path)
    with pytest.raises(InputError, match="has no bias, readoff"):
        read_entry(path)
    with pytest.raises(InputError, match="a layer is a matrix"):
        solved(CELL, np.zeros(3), {})
    with pytest.raises(InputError, match="weight must be finite"):
        solved(CELL, np.full((6, 6), np.nan), {})


def test_numbers_that_overflow_prove_nothing():
    """Infinity times 0 is not a number, which is larger than no limit."""
    cell = Cell("xor", 2, 4, 5)
    huge, none = np.full((5, 4), 1e308), np.zeros(0)
    forged = Entry(cell, huge, np.zeros(5), np.zeros((6, 5)), np.zeros(6), none.astype(int), none, 0)
    with pytest.raises(InputError, match="so large that an output is"):
        prove(forged)
