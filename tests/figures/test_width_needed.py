import math

import numpy as np
import pytest

from tests.figures import standin
from toymodels.errors import InputError
from toymodels.figures.readable import values_drawn
from toymodels.figures.width_needed import needed_widths, searched_far_enough, width_needed


def test_the_width_is_where_the_law_says():
    widths = needed_widths(standin.search(), "worst_error", 0.25)
    for method, crossed in ((method, found) for method, sizes in widths.items() for found in sizes.values()):
        constant, exponent = standin.LAWS[method.layer, method.readoff]
        if method.readoff == "analytic":
            assert crossed.x == math.inf  # 20/√d is 1.25 at d = 256
        else:
            want = (constant / 0.25) ** (-1 / exponent)
            # The errors carry 3 % of noise over three seeds, 2 % in the mean: 4 % in d for an exponent of −1/2 at one
            # standard error. Linear interpolation of a power between d and 2d is off by 6 % at most.
            assert crossed.x == pytest.approx(want, rel=3 * 0.04 + 0.06)


def test_seeds_that_end_at_different_widths_count_with_their_last_error():
    rows = [
        {**row, "worst_error": error, "d": d, "seed": seed}
        for row in standin.search()[:1]
        for seed, line in enumerate(((0.4, 0.2, None), (0.5, 0.4, 0.2)))
        for d, error in zip((8, 16, 32), line, strict=True)
        if error is not None
    ]
    ((crossed,),) = (sizes.values() for sizes in needed_widths(rows, "worst_error", 0.25).values())
    assert 16 < crossed.x < 32  # means 0.45, 0.3, 0.2: without the fill the last one is a seed alone


def test_the_figure_has_every_method_and_says_what_was_not_reached():
    drawing = width_needed(standin.search())
    for words in ("trained layer, minimax", "frozen gaussian, analytic", "> 256", "0.25", "0.1"):
        assert words in drawing.text
    assert "at most 2 active" in drawing.figure.axes[0].get_title()
    assert "seeds" in drawing.figure.get_suptitle()
    _, values = values_drawn(drawing.figure)  # those that a report lists beside the figure
    assert {"trained layer, minimax", "no layer below (rank bound)"} <= {series for _, series, *_ in values}


def test_layers_that_differ_in_a_knob_are_lines_of_their_own():
    rows = standin.search(d=(8, 16, 32))
    sparse = [{**row, "first_layer": "bernoulli", "layer_p": p} for p in (0.25, 0.5) for row in rows]
    names = {method.name for method in needed_widths(sparse, "worst_error", 0.25)}
    assert {"frozen bernoulli (p = 0.25), minimax", "frozen bernoulli (p = 0.5), minimax"} <= names


def test_tables_that_make_no_figure_are_refused():
    with pytest.raises(InputError, match="task varies too"):
        width_needed(standin.widths(d=(8, 16), m=(12,)))
    with pytest.raises(InputError, match="at least one error, above 0"):
        width_needed(standin.search(), epsilons=())


def test_a_seed_that_was_searched_for_a_larger_error_says_nothing_of_a_smaller_one():
    nan = np.nan
    errors = np.array([[0.4, 0.2, 0.15, 0.09], [0.4, 0.2, nan, nan], [0.5, 0.3, 0.25, 0.2]])
    assert np.array_equal(searched_far_enough(errors, 0.1), errors[[0, 2]], equal_nan=True)
    assert np.array_equal(searched_far_enough(errors, 0.25), errors, equal_nan=True)
    assert np.array_equal(searched_far_enough(errors[1:2], 0.1), errors[1:2], equal_nan=True)
