"""Errors over the seconds of training."""

import pytest

from toymodels.errors import InputError
from toymodels.figures.registry import FIGURES


def row(**given):
    base = {
        "task": "and",
        "first_layer": "trained",
        "readoff": "trained",
        "m": 8,
        "d": 6,
        "s": 2,
        "inputs": "at_most",
        "covered": "all 37",
    }
    return {**base, "seed": 0, "optimiser": "kfac", "steps": 100, "seconds": 1.0, "worst_error": 0.3, **given}


ROWS = [
    row(optimiser=optimiser, steps=steps, seed=seed, seconds=seconds * (1 + seed), worst_error=error + 0.01 * seed)
    for optimiser, steps, seconds, error in (("kfac", 100, 1.0, 0.3), ("kfac", 500, 5.0, 0.2), ("lbfgs", 100, 0.5, 0.4))
    for seed in (0, 1)
]


def test_points_are_means_over_seeds():
    (drawing,) = FIGURES["error_over_seconds"].draw(ROWS)
    (axis,) = drawing.figure.axes
    lines = {part.get_label(): part.lines[0].get_xydata().tolist() for part in axis.containers}
    assert lines["kfac"] == [[1.5, pytest.approx(0.305)], [7.5, pytest.approx(0.205)]]
    assert lines["lbfgs"] == [[0.75, pytest.approx(0.405)]]
    # The t interval of two values is 12.7 times their standard error, 0.005.
    assert "0.3050 ±0.0635" in drawing.text
    single = [one for one in ROWS if one["seed"] == ROWS[0]["seed"]]
    assert "±" not in FIGURES["error_over_seconds"].draw(single)[0].text


def test_what_more_varies_is_refused():
    with pytest.raises(InputError, match="weight varies too"):
        FIGURES["error_over_seconds"].draw([*(one | {"weight": 1} for one in ROWS), row(weight=2)])
    with pytest.raises(InputError, match="several first layers"):
        FIGURES["error_over_seconds"].draw([*ROWS, row(first_layer="gaussian")])


def test_it_is_drawn_of_itself_where_optimisers_and_steps_vary():
    member = FIGURES["error_over_seconds"]
    assert member.fits(ROWS)
    assert not member.fits([one for one in ROWS if one["steps"] == 100])


def test_seeds_that_were_not_timed_count_for_the_error_only():
    some = [{**one, "seconds": one["seconds"] if one["seed"] == 0 else None} for one in ROWS]
    (drawing,) = FIGURES["error_over_seconds"].draw(some)
    (axis,) = drawing.figure.axes
    lines = {part.get_label(): part.lines[0].get_xydata().tolist() for part in axis.containers}
    assert lines["kfac"] == [[1.0, pytest.approx(0.305)], [5.0, pytest.approx(0.205)]]
    with pytest.raises(InputError, match="no seconds"):
        FIGURES["error_over_seconds"].draw([*some, row(optimiser="lbfgs", steps=500, seconds=None)])
