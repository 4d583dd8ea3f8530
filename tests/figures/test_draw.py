"""`toymodels draw`: by name, with knobs and conditions, from tables and runs; wrong input is one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import toymodels
from tests.figures import standin
from toymodels.arguments import parse
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.train import TrainConfig, run_train
from toymodels.figures.draw import DrawConfig, draw, draw_run, run_draw, with_knobs
from toymodels.figures.registry import FIGURES

ROOT = Path(toymodels.__file__).parent


def command(*words):
    """What the command line makes of `toymodels draw …`."""
    return parse(DrawConfig, with_knobs([str(word) for word in words]), "toymodels draw")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rows = standin.widths(d=(8, 16), m=(12, 16), seeds=(0, 1)) + standin.widths(d=(8, 16), m=(12,), steps=20)
    return standin.write(rows, tmp_path_factory.mktemp("table") / "table.jsonl")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder of a comparison and a training."""
    folder = tmp_path_factory.mktemp("runs")
    run_compare(CompareConfig(m=6, d=8, steps=3, task=("and",), threads=1, figures=False, out=folder / "one"))
    run_train(TrainConfig(m=6, d=9, steps=3, threads=1, out=folder / "two"))
    return folder


def test_options_become_knobs():
    assert with_knobs(["error_over", "t.csv", "--x", "m", "--out", "docs"]) == [
        "error_over", "t.csv", "--out", "docs", "--knobs", "x=m"]  # fmt: skip
    assert with_knobs(["w", "t.csv", "--epsilons", "0.25", "0.1", "--where", "task=and", "s=2"]) == [
        "w", "t.csv", "--where", "task=and", "s=2", "--knobs", "epsilons=0.25,0.1"]  # fmt: skip
    assert with_knobs(["f", "t", "--my-knob=-3", "--knobs", "a=1", "b=2"]) == [
        "f", "t", "--knobs", "a=1", "b=2", "my_knob=-3"]  # fmt: skip
    assert with_knobs(["f", "t", "--low", "-1", "--list"]) == ["f", "t", "--list", "--knobs", "low=-1"]
    assert with_knobs(["--help"]) == ["--help"]


def test_a_figure_from_a_table(table, tmp_path):
    config = command(
        "error_over", table, "--x", "m", "--metric", "rms_zeros", "--where", "steps=10", "task=and", "--out", tmp_path
    )
    files = draw(config)
    assert [path.name for path in files] == ["error_over_m-rms_zeros.pdf", "error_over_m-rms_zeros.png"]
    assert {path.parent for path in files} == {tmp_path}
    text = run_draw(config)
    assert "exponent of m" in text
    assert "xor" not in text
    assert all(str(path) in text for path in files)
    # The same in one word.
    (tmp_path / "again").mkdir()
    draw(
        command(
            "error_over(m, metric=rms_zeros)", table, "--where", "steps=10", "task=and", "--out", tmp_path / "again"
        )
    )
    assert (tmp_path / "again" / files[1].name).read_bytes() == files[1].read_bytes()


def test_figures_from_a_run(runs, tmp_path):
    names = [path.name for path in draw(command("histogram", runs, "--out", tmp_path))]
    assert names == ["histogram-and.pdf", "histogram-and.png"]
    assert "run" in run_draw(command("weights", runs, "--run", "one", "--task", "and", "--out", tmp_path))
    assert "d = 9" in draw_title(runs, "weights")  # the last run that has what is drawn
    with pytest.raises(InputError, match="no finished run of the name three"):
        draw(command("weights", runs, "--run", "three"))
    with pytest.raises(InputError, match="is a run of train"):
        draw(command("histogram", runs, "--run", "two"))
    with pytest.raises(InputError, match="without --where"):
        draw(command("weights", runs, "--where", "m=6"))


def draw_title(runs, name):
    from toymodels.figures.draw import _choose_run

    drawing = FIGURES[name].draw(_choose_run(FIGURES[name], runs, None, {}))[0]
    return drawing.figure.get_suptitle()


def test_figures_after_a_run(runs):
    files = draw_run(runs / "one")
    assert [path.name for path in files] == ["histogram-and.pdf", "histogram-and.png"]
    assert all(path.parent == runs / "one" for path in files)
    assert draw_run(runs / "two") == []


def test_the_list_and_the_help():
    assert run_draw(command()) == run_draw(command("--list"))
    lines = run_draw(command()).splitlines()
    for name, member in FIGURES.items():
        (line,) = (line for line in lines if line.split()[0] == name)
        assert member.purpose in line
    text = run_draw(command("width_needed"))
    assert "How many neurons does each construction need" in text
    assert "--epsilons (default 0.25,0.2,0.1)" in text


def test_a_table_alone_names_the_figures_that_fit(table, runs, tmp_path):
    lines = run_draw(command(runs / "two")).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["weights"]
    named = {line.split()[0] for line in run_draw(command(table)).splitlines()[2:]}
    assert {"error_over", "error_map"} <= named
    assert not named & {"histogram", "weights"}
    single = standin.write(standin.widths(d=(8,), m=(12,), seeds=(0,)), tmp_path / "single.jsonl")
    assert "no figure fits these runs" in run_draw(command(single))


def test_a_figure_of_ones_own(table, tmp_path):
    plugin = Path(__file__).with_name("plugin.py")
    files = draw(command("error_by_seed", table, "--size", "5", "--plugin", plugin, "--out", tmp_path))
    assert [path.name for path in files] == ["error_by_seed.pdf", "error_by_seed.png"]
    with pytest.raises(InputError, match="size = 'large': this knob of the figure error_by_seed is a number"):
        draw(command("error_by_seed", table, "--size", "large", "--plugin", plugin))


def test_a_wrong_input_is_one_sentence_and_writes_nothing(table, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "broken.jsonl").write_text("{")
    out = tmp_path / "figures"
    for words, message in (
        (["nothing", table], "unknown figure 'nothing': choose one of"),
        (["error_over", table], "steps varies too"),
        (["error_over", table, "--colour", "red"], "no knob 'colour'"),
        (["error_over(colour=red)", table], "no knob 'colour'"),
        (["error_over", table, "--where", "steps=7"], "steps is 10, 20"),
        (["error_over", table, "--run", "one"], "leave out --run"),
        (["error_over", table, "--knobs", "x"], "not KNOB=VALUE"),
        (["error_over", table, "--x", "taste"], "no setting 'taste'"),
        (["error_over", tmp_path / "nowhere"], "does not exist"),
        (["error_over", tmp_path / "empty"], "no finished run"),
        (["error_over", tmp_path / "broken.jsonl"], "not a table"),
        (["histogram", tmp_path / "nowhere"], "not a folder"),
        (["histogram", tmp_path / "empty"], "no finished run"),
        (["histogram", table], "not a folder"),
    ):
        with pytest.raises(InputError, match=message) as refusal:
            draw(command(*words, "--out", out))
        assert "\n" not in str(refusal.value)
    with pytest.raises(InputError, match="toymodels draw NAME TABLE"):
        draw(command())
    with pytest.raises(InputError, match="cannot be written"):
        draw(command("error_over", table, "--where", "steps=10", "--out", tmp_path / "file"))
    assert not out.exists()


def test_the_command_is_light():
    """Its settings are read without torch and matplotlib."""
    code = (
        "import sys, types; package = types.ModuleType('toymodels'); package.__path__ = [sys.argv[1]]; "
        "sys.modules['toymodels'] = package; import toymodels.figures.draw; "
        "print([name for name in ('torch', 'matplotlib', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_no_backend_is_taken_from_the_environment(table, tmp_path):
    code = (
        "import os, sys; from toymodels.figures.draw import DrawConfig, draw; from pathlib import Path; "
        "draw(DrawConfig('error_map', Path(sys.argv[1]), out=Path(sys.argv[2]), where=('steps=10', 'task=and'))); "
        "print(os.environ['MPLBACKEND'], 'matplotlib.pyplot' in sys.modules)"
    )
    environment = {**os.environ, "MPLBACKEND": "no_such_backend", "PYTHONPATH": str(ROOT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, table, tmp_path], capture_output=True, text=True, env=environment
    )
    assert done.stdout.strip() == "no_such_backend False", done.stderr
    assert (tmp_path / "error_map-worst_error.png").exists()
