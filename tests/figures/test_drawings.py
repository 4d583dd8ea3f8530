"""Figures show what the table holds: the points drawn are its means, theory stands where it holds, numbers are right."""

import dataclasses
import math

import numpy as np
import pytest

from tests.figures import standin
from toymodels.errors import InputError
from toymodels.figures.error_over import error_over, fits_everything
from toymodels.figures.maps import error_map, genericity_map, loss_map
from toymodels.figures.parameters import parameters
from toymodels.figures.registry import FIGURES, figure
from toymodels.figures.report import drawings
from toymodels.figures.style import embedded, save
from toymodels.theory.extremes import max_error_distribution
from toymodels.theory.gates import Gate
from toymodels.theory.quadrants import error_std
from toymodels.theory.rank import least_width, worst_error_floor


def cells(text, *start):
    """The rest of the line of a plain table that starts with these cells."""
    for line in text.splitlines():
        words = [word for word in line.split("  ") if word]
        if tuple(word.strip() for word in words[: len(start)]) == start:
            return [word.strip() for word in words[len(start) :]]
    raise AssertionError(f"no line starts with {start} in\n{text}")


def lines(axis):
    return {line.get_label(): line for line in axis.get_lines() if not str(line.get_label()).startswith("_")}


def points(axis, label):
    """(x, y) of an errorbar line."""
    container = next(c for c in axis.containers if c.get_label() == label)
    return container.lines[0].get_data()


def test_points_are_geometric_means_and_laws_are_found():
    rows = standin.widths()
    drawing = error_over(rows)
    axes = np.array(drawing.figure.axes).reshape(2, 2)
    assert [axis.get_title() for axis in axes.flat] == [
        "U-AND, m = 16", "U-AND, m = 24", "U-XOR, m = 16", "U-XOR, m = 24"]  # fmt: skip
    x, y = points(axes[1, 0], "trained layer, minimax")
    assert list(x) == [8, 16, 32, 64]
    for d, value in zip(x, y, strict=True):
        errors = [r["worst_error"] for r in rows if (r["task"], r["m"], r["d"]) == ("xor", 16, d)
                  and (r["first_layer"], r["readoff"]) == ("trained", "minimax")]  # fmt: skip
        assert len(errors) == 3
        assert value == pytest.approx(math.exp(np.log(errors).mean()), rel=1e-12)
    # The law is within its own scatter: factors of 0.03 over three seeds at four widths, log d spread by 0.775.
    found = cells(drawing.text, "xor", "16", "trained layer, minimax")
    exponent = float(found[0].split()[0])
    assert abs(exponent + 0.6) < 4 * 0.03 / math.sqrt(3 * 4) / (math.log(2) * math.sqrt(1.25))
    title = drawing.figure.get_suptitle().replace("\n", " ")
    assert "Worst error over d: exactly 2 active, all inputs, all pairs, seeds\u00a00–2" in title
    assert "Fitted readoffs" not in title


def test_the_width_at_which_the_affine_level_is_reached():
    drawing = error_over(standin.widths(d=(8, 16, 32, 64, 128)))
    # 1.6·d^−0.6 = 1/4 at d = 6.4^(5/3) = 22.1; linear in log d between 16 and 32 it is read off a chord instead.
    y = 1.6 * np.array([16.0, 32.0]) ** -0.6
    chord = 16 * 2 ** ((y[0] - 0.25) / (y[0] - y[1]))
    found = cells(drawing.text, "and", "24", "trained layer, minimax")[-1]
    assert float(found.split()[0]) == pytest.approx(chord, rel=0.1)  # noise of 3 % over an exponent of 0.6, twice over
    assert cells(drawing.text, "and", "24", "frozen gaussian, analytic")[-1] == "> 128"


def test_theory_stands_where_it_holds():
    rows = standin.widths(m=(16,))
    axis = error_over(rows).figure.axes[0]
    drawn = lines(axis)
    x, y = drawn["analytic: predicted median"].get_data()
    place = list(x).index(32)
    assert y[place] == pytest.approx(max_error_distribution(Gate.parse("and"), 16, 2, 32, 120).quantile(0.5))
    x, y = drawn["no layer can be below"].get_data()
    assert y[list(x).index(16)] == pytest.approx(worst_error_floor(Gate.parse("and"), 16, 2, 16))
    assert drawn["affine readoff, no layer"].get_ydata()[0] == 0.25
    assert axis.get_ylim()[0] < 0.25
    rms = error_over(rows, x="d", metric="rms_ones").figure.axes[1]  # U-XOR: the ones are the cases 01 and 10
    x, y = lines(rms)["analytic: σ/√d"].get_data()
    sigma = error_std(Gate.parse("xor"), 2)
    assert sigma[1] == pytest.approx(sigma[2])
    assert np.array(y) * np.sqrt(x) == pytest.approx(np.full(len(x), sigma[1]))
    # For at most 2 active the analytic readoff is biased: no line. Other activations: none either.
    for change in ({"inputs": "at_most"}, {"activation": "gelu"}, {"layer_bias": 1.0}):
        labels = lines(error_over([{**row, **change} for row in rows]).figure.axes[0])
        assert "analytic: predicted median" not in labels
    # A floor needs every pair.
    labels = lines(error_over([{**row, "pairs": ((0, 1),)} for row in rows]).figure.axes[0])
    assert "no layer can be below" not in labels


def test_layers_wide_enough_for_every_input_are_left_out():
    rows = standin.widths(d=(32, 64, 119, 200), m=(16,))
    kept = {(r["readoff"], r["d"]) for r in rows if not fits_everything(r)}
    assert ("minimax", 64) in kept
    assert ("minimax", 119) not in kept  # 119 weights and a constant for 120 inputs
    assert ("analytic", 200) in kept
    drawing = error_over(rows)
    assert "Fitted readoffs are left out" in drawing.figure.get_suptitle().replace("\n", " ")
    assert "36 rows are left out" in drawing.text  # 3 fitted lines, 2 widths, 2 gates, 3 seeds


def test_other_settings_must_not_vary():
    rows = [*standin.widths(), *standin.widths(steps=20)]
    with pytest.raises(InputError, match=r"steps varies too"):
        error_over(rows)
    with pytest.raises(InputError, match="one value, 16"):
        error_over(standin.widths(d=(16,)))
    with pytest.raises(InputError, match="unknown metric 'seconds'"):
        error_over(standin.widths(), x="d", metric="seconds")
    with pytest.raises(InputError, match="has no m"):
        error_over([{**row, "m": None} for row in standin.widths()])


def test_stopped_runs_stand_in_no_curve():
    rows = standin.widths(m=(16,))
    bad = [{**row, "stopped_at": 5, "worst_error": 100.0} for row in standin.widths(d=(48,), m=(16,))]
    x, _ = points(error_over([*rows, *bad]).figure.axes[0], "trained layer, minimax")
    assert list(x) == [8, 16, 32, 64]
    with pytest.raises(InputError, match="stopped early"):
        error_over(bad)


def test_one_seed_has_no_bars():
    drawing = error_over(standin.widths(seeds=(3,), m=(16,)))
    assert "intervals" not in drawing.figure.get_suptitle()
    assert "seed\u00a03" in drawing.figure.get_suptitle()
    assert "[" not in cells(drawing.text, "and", "16", "trained layer, trained")[0]


def test_error_map():
    rows = standin.widths(d=(8, 16, 32, 64), m=(12, 16, 24))
    drawing = error_map(rows)
    panels = {axis.get_title(): axis for axis in drawing.figure.axes if axis.get_title()}
    assert set(panels) == {f"U-{g}, {k}, minimax" for g in ("AND", "XOR") for k in ("frozen gaussian", "trained layer")}
    grid = panels["U-XOR, frozen gaussian, minimax"].images[0].get_array()
    chosen = [r["worst_error"] for r in rows if (r["task"], r["m"], r["d"]) == ("xor", 24, 16)
              and (r["first_layer"], r["readoff"]) == ("gaussian", "minimax")]  # fmt: skip
    assert grid[1, 2] == pytest.approx(np.mean(chosen))  # d = 16 is the second line, m = 24 the third column
    assert panels["U-AND, trained layer, minimax"].texts[0].get_text() == f"{grid_of(panels, 'AND')[0, 0]:.3f}"
    # 1.6·d^−0.6 passes 1/4 between 16 and 32: the line of each m lies between their places, 1 and 2.
    across, up = lines(panels["U-AND, trained layer, minimax"])["0.25: affine, no layer"].get_data()
    assert list(across) == [0, 1, 2]
    assert all(1 < y < 2 for y in up)
    found = cells(drawing.text, "and", "16", "trained layer, minimax")
    assert 16 < float(found[0].split()[0]) < 32
    assert int(found[1]) == least_width(Gate.parse("and"), 16, 2, 0.25)
    width = int(found[2].replace(",", ""))
    median = [max_error_distribution(Gate.parse("and"), 16, 2, d, 120).quantile(0.5) for d in (width - 1, width)]
    assert median[1] <= 0.25 < median[0]
    with pytest.raises(InputError, match="needs minimax readoffs"):
        error_map([row for row in rows if row["readoff"] != "minimax"])
    with pytest.raises(InputError, match="m has one value"):
        error_map(standin.widths(m=(16,)))


def grid_of(panels, gate):
    return panels[f"U-{gate}, trained layer, minimax"].images[0].get_array()


def test_genericity_map():
    rows = standin.widths(d=(8, 16), m=(12, 16))
    # Ratios of each seed, then their mean: not the ratio of means.
    for row in rows:
        if row["readoff"] == "minimax":
            row["worst_error"] = {"gaussian": (0.2, 0.4, 0.9), "trained": (0.1, 0.4, 0.3)}.get(
                row["first_layer"], (1, 1, 1)
            )[row["seed"]]
    drawing = genericity_map(rows)
    assert drawing.figure.axes[0].images[0].get_array()[0, 0] == pytest.approx(2.0)
    assert cells(drawing.text, "and", "12", "8")[0].startswith("2.000")
    # Where a trained layer reads every target exactly there is no ratio.
    exact = [
        {**r, "worst_error": 0.0} if (r["m"], r["d"], r["first_layer"]) == (16, 16, "trained") else r for r in rows
    ]
    grid = genericity_map(exact).figure.axes[0].images[0].get_array()
    assert np.isnan(np.ma.filled(grid, np.nan)[1, 1])
    with pytest.raises(InputError, match="of a trained one"):
        genericity_map([row for row in rows if row["first_layer"] != "trained"])


def test_loss_map():
    rows = standin.losses()
    drawing = loss_map(rows)
    panel = drawing.figure.axes[1]
    assert panel.get_title() == "U-AND, 400 steps"
    assert [t.get_text() for t in drawing.figure.axes[0].get_yticklabels()] == ["2", "8", "2→4→8"]
    assert [t.get_text() for t in panel.get_xticklabels()] == ["1", "case", "value"]
    chosen = [r["worst_error"] for r in rows if (r["p"], r["weight"], r["steps"]) == ((8.0,), "case", 400)]
    assert panel.images[0].get_array()[1, 1] == pytest.approx(np.mean(chosen))
    frame = panel.patches[0]
    assert (round(frame.get_x()), round(frame.get_y())) == (1, 1)  # 1 − 0.47 and 1 − 0.45: the cell of the least
    first = drawing.text.splitlines()[2].split()
    assert first[:4] == ["and", "400", "8", "case"]
    with pytest.raises(InputError, match="no trained network"):
        loss_map([{**row, "readoff": "minimax"} for row in rows])
    with pytest.raises(InputError, match="needs more"):
        loss_map([row for row in rows if (row["p"], row["weight"]) == ((8.0,), "case")])


def test_parameters():
    rows = standin.draws()
    rows[3]["stopped_at"] = 7
    drawing = parameters(rows)
    lr, schedule = drawing.figure.axes
    assert lr.get_xscale() == "log"
    x, y = lines(lr)["trained layer, trained"].get_data()
    assert sorted(zip(x, y, strict=True)) == sorted((row["lr"], row["worst_error"]) for row in rows)
    assert list(lines(lr)["stopped early"].get_xdata()) == [rows[3]["lr"]]
    assert [label.get_text() for label in schedule.get_xticklabels()] == ["constant", "cosine"]
    best = min(rows, key=lambda row: row["worst_error"])
    assert drawing.text.splitlines()[2].split()[4] == f"{best['lr']:g}"
    with pytest.raises(InputError, match="no setting varies"):
        parameters(rows[:1])


def test_parameters_say_when_settings_are_left_out():
    two = [{**row, "task": task} for task in ("and", "xor") for row in standin.draws(20)]
    assert "best of each task" not in parameters(two).text  # 40 settings, but no task has more than 30
    assert "The 30 best of each task." in parameters(standin.draws(31)).text


def test_a_report_has_the_figures_that_a_table_allows():
    # (another test module registers a figure of a user's)
    names = [item.name for item in drawings(standin.widths()) if item.name != "error_by_seed"]
    assert names == ["error_over_d-worst_error", "error_over_d-rms_zeros", "error_over_m-worst_error",
                     "error_map-worst_error", "genericity_map-worst_error"]  # fmt: skip
    assert [item.name for item in drawings(standin.draws())] == ["parameters-worst_error"]
    assert list(drawings(standin.widths(d=(8,), m=(16,)))) == []
    # One figure for each combination of what it does not show, up to a number; beyond, none, and that is said.
    found = list(drawings([*standin.widths(m=(16,)), *standin.widths(m=(16,), steps=20)]))
    over_d = [item for item in found if item.name.startswith("error_over_d-worst")]
    assert [item.name for item in over_d] == ["error_over_d-worst_error-1", "error_over_d-worst_error-2"]
    assert "steps = 20" in over_d[1].figure.get_suptitle()
    found = list(drawings(standin.losses()))
    assert [item.name for item in found if not isinstance(item, str)] == ["loss_map-worst_error"]
    assert [item[:28] for item in found if isinstance(item, str)] == ["Worst error over steps is le"]


def test_a_figure_that_fails_costs_a_report_nothing_else():
    def broken(rows):
        """Fail."""
        return {}["no key"]

    def asks(rows):
        """Fail when asked."""

    try:
        figure("broken")(broken)
        figure("asks", applies=lambda rows: rows[0]["no column"])(asks)
        found = list(drawings(standin.draws()))
    finally:
        for name in ("broken", "asks"):
            del FIGURES._members[name]
    assert "parameters-worst_error" in [item.name for item in found if not isinstance(item, str)]
    assert [item for item in found if isinstance(item, str)] == [
        "The figure broken is left out: KeyError: 'no key'.", "The figure asks is left out: KeyError: 'no column'."
    ]  # fmt: skip


def test_files_are_the_same_each_time(tmp_path):
    drawing = error_over(standin.widths(m=(16,)))
    again = error_over(standin.widths(m=(16,)))
    assert embedded(drawing) == embedded(again)
    files = save(dataclasses.replace(drawing, name="figure"), tmp_path / "new")
    assert [path.name for path in files] == ["figure.pdf", "figure.png"]
    assert files[0].read_bytes().startswith(b"%PDF")
    assert files[1].read_bytes().startswith(b"\x89PNG")
