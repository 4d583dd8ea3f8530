"""What every registered figure must do, a user's own among them: draw, label, say what it shows, refuse what it cannot draw."""

import re
from pathlib import Path

import matplotlib
import pytest

from tests.figures import standin
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.figures.registry import FIGURES, figure
from toymodels.figures.style import embedded, new_figure, save
from toymodels.registry import load_plugins
from toymodels.runs.metrics import ERRORS, KEYS

load_plugins([Path(__file__).with_name("plugin.py")])
NAMES = list(FIGURES)
OF_TABLES = [name for name in NAMES if FIGURES[name].source_kind == "rows"]
OF_RUNS = [name for name in NAMES if FIGURES[name].source_kind == "run"]


def table_for(name):
    """A table that the figure applies to."""
    return next(rows for rows in standin.TABLES.values() if FIGURES[name].fits(rows))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a small comparison."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    run_compare(CompareConfig(m=6, d=8, steps=3, task=("and",), threads=1, figures=False, out=folder))
    return folder


def test_the_library_and_the_plugin_are_registered():
    assert set(NAMES) >= {"error_over", "error_map", "genericity_map", "loss_map", "parameters", "width_needed", "superposed",
                          "histogram", "weights", "error_by_seed"}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_it_is_labelled_says_what_it_shows_and_becomes_files(name, run, tmp_path):
    drawings = FIGURES[name].draw(run if name in OF_RUNS else table_for(name))
    assert drawings
    for drawing in drawings:
        panels = [axis for axis in drawing.figure.axes if axis.axison and axis.get_subplotspec() is not None]
        assert panels
        for axis in panels:
            place = axis.get_subplotspec()
            assert axis.get_xlabel() or not place.is_last_row()
            assert axis.get_ylabel() or not place.is_first_col()
        title = " ".join(drawing.figure.get_suptitle().split())
        assert re.search(r"seeds? \d", title)
        if name != "weights":  # these are no errors
            assert "inputs" in title
            assert "worst error" in title.lower()
        assert drawing.name.startswith(name)
        pdf, png = save(drawing, tmp_path)
        assert pdf.read_bytes().startswith(b"%PDF")
        assert png.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", OF_TABLES)
def test_it_shows_the_metric_asked_for(name):
    drawings = FIGURES[name].draw(table_for(name), metric="rms_zeros")
    assert ERRORS["rms_zeros"].lower() in " ".join(drawings[0].figure.get_suptitle().lower().split())
    with pytest.raises(InputError, match="unknown metric 'seconds'"):
        FIGURES[name].draw(table_for(name), metric="seconds")


@pytest.mark.parametrize("name", OF_TABLES)
def test_it_refuses_a_table_that_lacks_a_column(name):
    rows = table_for(name)
    for column in (*KEYS, *FIGURES[name].columns, "worst_error"):
        lacking = [{key: value for key, value in row.items() if key != column} for row in rows]
        assert not FIGURES[name].fits(lacking)
        with pytest.raises(InputError, match=f"no {column}: ") as refusal:
            FIGURES[name].draw(lacking)
        assert "\n" not in str(refusal.value)
    for wrong in ([], [{"m": 3}]):
        assert not FIGURES[name].fits(wrong)
        with pytest.raises(InputError):
            FIGURES[name].draw(wrong)


@pytest.mark.parametrize("name", NAMES)
def test_it_refuses_the_other_kind_of_source(name, run):
    with pytest.raises(InputError, match="is drawn from"):
        FIGURES[name].draw(standin.TABLES["widths"] if name in OF_RUNS else run)


@pytest.mark.parametrize("name", OF_RUNS)
def test_it_refuses_a_folder_without_what_it_draws(name, tmp_path):
    with pytest.raises(InputError) as refusal:
        FIGURES[name].draw(tmp_path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", NAMES)
def test_it_refuses_an_unknown_knob(name):
    with pytest.raises(InputError, match=f"{name} has no knob 'colour'"):
        FIGURES[name].draw(Path() if name in OF_RUNS else [], colour="red")


@pytest.mark.parametrize("name", NAMES)
def test_its_help_is_a_sentence(name):
    assert re.fullmatch(r"[A-Z].*[.]", FIGURES[name].purpose)


@pytest.mark.parametrize("name", NAMES)
def test_a_users_style_changes_nothing(name, run):
    plain = embedded(FIGURES[name].draw(run if name in OF_RUNS else table_for(name))[0])
    loud = {"font.size": 30, "lines.linewidth": 9, "axes.facecolor": "red", "figure.dpi": 33, "text.color": "green"}
    with matplotlib.rc_context(loud):
        assert embedded(FIGURES[name].draw(run if name in OF_RUNS else table_for(name))[0]) == plain
        assert matplotlib.rcParams["font.size"] == 30  # as it was


def test_an_error_of_drawing_reaches_the_caller():
    @figure("breaks")
    def breaks(rows):
        """Divide by zero."""
        return 1 / 0

    try:
        with pytest.raises(ZeroDivisionError):
            FIGURES["breaks"].draw(standin.TABLES["draws"])
    finally:
        del FIGURES._members["breaks"]


def test_several_figures_have_names():
    def both(rows):
        """Draw two."""
        return {"left": new_figure(2), "right": new_figure(2)}

    try:
        figure("pair")(both)
        assert [drawing.name for drawing in FIGURES["pair"].draw(standin.draws())] == ["pair-left", "pair-right"]
    finally:
        del FIGURES._members["pair"]


def test_what_is_no_figure_is_refused():
    try:
        figure("words")(lambda rows: "words")
        with pytest.raises(InputError, match="returned str: it must return a matplotlib Figure"):
            FIGURES["words"].draw(standin.draws())
    finally:
        del FIGURES._members["words"]
