"""How many features fit is read off where the law says, crowding follows its law, and the scripts refuse what is wrong."""

import dataclasses
import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.figures import standin
from toymodels import PairTask
from toymodels.errors import InputError
from toymodels.figures.series import Method
from toymodels.figures.superposed import (
    Line,
    exponent,
    lines_of,
    superposed,
)
from toymodels.figures.table import load_table
from toymodels.runs.table import read_table
from toymodels.theory.crowding import crowded_rms_zeros

FOLDER = Path(__file__).parents[2] / "analysis"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


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


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("measure_superposed", FOLDER / "measure_superposed.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_runs_are_measured_once_and_make_the_figure(script, tmp_path, monkeypatch):
    for name in ("gaussian", "no_layer"):
        monkeypatch.setitem(script.METHODS, name, dataclasses.replace(script.METHODS[name], most_inputs=600))
    config = script.SuperposedConfig(
        out=tmp_path, methods=("gaussian", "no_layer"), d=(16,), seeds=(0,), pairs=3, crowding_d0=(8,), crowding_pairs=4
    )
    assert script.measure(config) == tmp_path
    rows = read_table(tmp_path)
    searched = [row for row in rows if row["inputs"] == "at_most"]
    assert all((row["d0"] == 16) == (row["m"] > 16) for row in searched)
    assert {row["m"] for row in rows if row["inputs"] == "exactly"} == {8, 11, 16, 23, 32, 45, 64, 91, 128}
    assert {row["n_pairs"] for row in searched} == {3}
    gaussian = {row["m"]: row["worst_error"] for row in searched if row["first_layer"] == "gaussian"}
    assert min(gaussian.values()) <= 0.25 < max(gaussian.values())
    assert "gaussian" in superposed(rows).text
    monkeypatch.setattr(script, "run_compare", lambda config: pytest.fail("a finished run was done again"))
    script.measure(config)


def test_every_method_is_a_configuration(script):
    for name, method in script.METHODS.items():
        for d in method.d:
            grid = script.sizes(method, d)
            assert d in grid
            assert grid == sorted(grid)
            assert max(grid) <= 40 * math.sqrt(d)
            for m in (grid[0], grid[-1]):
                config = script.superposed(script.SuperposedConfig(), name, m, d, 0)
                assert (config.d0, config.rows()) == (d if m > d else None, (method.layer,))
                assert config.minimax_pairs == 12


def test_all_methods_read_the_same_pairs(script):
    # As a comparison draws them (minimax_pairs): with a trained layer all pairs are learned, and the same ones read.
    small = script.SuperposedConfig(pairs=5, steps=3)
    chosen = script.sample(12, 5, 3)
    assert script.superposed(small, "gaussian", 12, 16, 3).pairs == chosen
    from toymodels.core.seeds import derive_seed

    order = torch.randperm(66, generator=torch.Generator().manual_seed(derive_seed(3, "pairs")))[:5].sort().values
    assert PairTask(12, "and").subset(order).pairs.tolist() == [list(pair) for pair in chosen]
    learned = script.superposed(small, "trained", 12, 16, 3)
    assert (learned.pairs, learned.minimax_pairs, learned.steps) == (None, 5, 3)


def run(name, *arguments):
    command = [sys.executable, FOLDER / f"{name}.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": ("psychic",)}, "unknown method 'psychic'"),
        ({"epsilon": (0.0,)}, "between 0 and 1"),
        ({"d": (4,)}, "from 8 up"),
        ({"crowding_pairs": 0}, "from 1 up"),
        ({"seeds": ()}, "at least one"),
        ({"seeds": (0, -1)}, "from 0 up"),
        ({"steps": 0}, "steps = 0"),
        ({"methods": (), "crowding_d0": ()}, "nothing to measure"),
        ({"methods": ("trained",), "d": (512,), "crowding_d0": ()}, "nothing to measure"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_measured(script, change, words, tmp_path):
    with pytest.raises(InputError, match=words):
        script.measure(script.SuperposedConfig(out=tmp_path / "runs", **change))
    assert not (tmp_path / "runs").exists()


def test_the_measuring_script_refuses_in_one_sentence(tmp_path):
    done = run("measure_superposed", "--pairs", "0", "--out", tmp_path / "runs")
    assert done.returncode == 2
    assert done.stderr.startswith("measure_superposed: pairs and crowding_pairs")
    assert done.stderr.count("\n") == 1
