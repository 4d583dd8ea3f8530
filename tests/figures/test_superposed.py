"""How many features fit is read off where the law says, and crowding follows its law."""

import math
from pathlib import Path

import numpy as np
import pytest

from tests.figures import standin
from toymodels.errors import InputError
from toymodels.figures.series import Method
from toymodels.figures.superposed import Line, exponent, lines_of, superposed
from toymodels.figures.table import load_table
from toymodels.theory.crowding import crowded_rms_zeros

FOLDER = Path(__file__).parents[2] / "analysis"


def crowds(d0s=(16, 32), p=0.25):
    """Crowding rows: RMS at zeros a tenth above the law."""
    rows = []
    for d0 in d0s:
        for ratio in (1, 2, 4):
            row = standin.row("and", 0, "bernoulli", "own", 3.0, m=ratio * d0, d=d0, d0=d0, inputs="exactly", layer_p=p)
            rows.append({**row, "rms_zeros": 1.1 * crowded_rms_zeros(ratio * d0, d0, d0, 2, p)})
    return rows


def test_the_number_of_features_and_its_exponent_are_the_laws():
    found = lines_of(standin.superposed())
    for layer, (constant, power) in standin.CAPACITY.items():
        lines = found[Method(layer, "minimax")]
        for d, line in lines.items():
            # Linear in log m, and so is the interpolation: exact but for rounding.
            assert line.capacity(0.25).x == pytest.approx(constant * d**power, rel=1e-9)
            low, high = line.capacity(0.25).interval
            assert low == pytest.approx(constant * d**power * 2 ** (-1 / 8), rel=1e-9)
            assert high == pytest.approx(constant * d**power * 2 ** (1 / 8), rel=1e-9)
        law, used = exponent(lines, 0.25)
        assert used == [16, 32, 64]
        assert law.exponent == pytest.approx(power, rel=1e-9)
        assert law.constant == pytest.approx(constant, rel=1e-9)


def test_what_lies_outside_of_the_sizes_measured_is_said():
    line = Line((8, 16, 32), np.array([[0.2, 0.3, 0.4]]))
    assert line.capacity(0.5).x == math.inf
    assert line.capacity(0.1).x == 0
    assert line.capacity(0.25).x == pytest.approx(8 * math.sqrt(2))
    assert np.isnan(line.capacity_by_seed(0.5)).all()
    # Errors that rise above and come back: only sizes below which nothing was above count.
    assert Line((8, 16, 32), np.array([[0.2, 0.4, 0.1]])).capacity(0.3).x == pytest.approx(8 * math.sqrt(2))


def test_seeds_whose_searches_end_at_different_sizes_count_with_their_last_error():
    line = Line((8, 16, 32), np.array([[math.nan, 0.2, 0.4], [0.2, 0.3, math.nan]]))
    assert line.filled().tolist() == [[0.2, 0.2, 0.4], [0.2, 0.3, 0.3]]
    two = dict.fromkeys((8, 16), line)
    assert exponent(two, 0.25) is None


def test_features_up_to_the_width_count_for_every_frame():
    rows = standin.superposed(layers=("gaussian",), d=(16,))
    optimised = [{**row, "frame": "optimised", "worst_error": 0.9} for row in rows if row["d0"] is not None]
    found = lines_of(rows + optimised)
    random, low = (found[Method("gaussian", "minimax", (), frame)][16] for frame in ("random", "optimised"))
    assert random.m == low.m
    place = low.m.index(16)
    assert (low.errors[:, : place + 1] == random.errors[:, : place + 1]).all()
    assert (low.errors[:, place + 1 :] == 0.9).all()


def test_the_figure_shows_and_says_everything():
    drawing = superposed(standin.superposed() + crowds())
    assert drawing.figure.get_figwidth() <= 7
    for words in ("exponent 1.25", "exponent 1.00", "trained layer, minimax", "most measured", "mp/d0"):
        assert words in drawing.text
    titles = [axis.get_title(loc="left") for axis in drawing.figure.axes]
    assert [title[:3] for title in titles] == ["(a)", "(b)", "(c)", "(d)"]
    crowding = drawing.figure.axes[3]
    points, law = crowding.get_lines()[:2]
    assert np.array(points.get_ydata()) == pytest.approx(1.1 * np.array(law.get_ydata()))
    assert list(points.get_xdata()) == [0.25, 0.5, 1.0]
    assert "exponent" not in superposed(crowds()).text
    none = superposed([{**row, "worst_error": 0.4} for row in standin.superposed(d=(16,))]).text
    assert "fewest measured" in none
    assert "exponent" not in none
    assert "mp/d0" not in superposed(standin.superposed()).text


def test_the_title_names_the_errors_of_its_panels():
    searched, crowding = standin.superposed(), crowds()

    def title(rows, error="worst_error"):
        return " ".join(superposed(rows, metric=error).figure.get_suptitle().split())

    ac, d = "(a–c) worst error, at most 2 active, all inputs", "(d) RMS error at zeros, exactly 2 active, all inputs"
    both = title(searched + crowding)
    assert ac in both
    assert d in both
    assert "sampled pairs" in both
    assert d not in title(searched)
    assert "(a–c)" not in title(crowding)
    assert "(a–c) RMS error where the target is 1, at most" in title(searched, "rms_ones")


def test_the_slope_is_named_clear_of_all_points():
    """In the shipped figure."""
    figure = superposed(load_table(FOLDER / "results" / "superposed.csv")).figure
    figure.canvas.draw()
    axis = figure.axes[2]
    (label,) = [text for text in axis.texts if "slope" in text.get_text()]
    box = label.get_window_extent()
    inside = axis.get_window_extent()
    assert inside.contains(box.x0, box.y0)
    assert inside.contains(box.x1, box.y1)
    box = box.padded(3.4 / 2 * figure.dpi / 72)  # half a marker's size
    marked = [line for line in axis.lines if line.get_marker() not in (None, "None", "")]
    points = np.concatenate([axis.transData.transform(line.get_xydata()) for line in marked if len(line.get_xdata())])
    assert len(points) >= 6
    assert not any(box.contains(*point) for point in points)


def test_tables_that_make_no_figure_are_refused():
    rows = standin.superposed(d=(16,))
    with pytest.raises(InputError, match="task varies too"):
        superposed([*rows, {**rows[0], "task": "xor"}])
    with pytest.raises(InputError, match="d0 = d where m > d"):
        superposed([{**row, "d0": 8} for row in rows if row["m"] > 16])
    with pytest.raises(InputError, match="d0 = d where m > d"):
        superposed([{**row, "d0": None} for row in rows])
    with pytest.raises(InputError, match="neither"):
        superposed([{**row, "inputs": "exactly"} for row in rows])
    with pytest.raises(InputError, match="one given layer_p"):
        superposed(crowds() + crowds(p=0.5))
    with pytest.raises(InputError, match="of other widths"):
        superposed([{**row, "d": 2 * row["d"]} for row in crowds()])
