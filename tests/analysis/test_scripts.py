"""The scripts, as they are run: figures and numbers from stored results, and one sentence for a wrong input."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.figures import standin
from toymodels.experiments.compare import CompareConfig, run_compare

FOLDER = Path(__file__).parents[2] / "analysis"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def run(script, *arguments):
    command = [sys.executable, FOLDER / f"{script}.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)


TABLES = {
    "error_over_d": (standin.widths(d=(8, 16), m=(16,)), ["worst_error", "rms_zeros"], "exponent of d"),
    "error_over_m": (standin.widths(d=(8,), m=(12, 16)), ["worst_error", "rms_zeros"], "exponent of m"),
    "error_over_s": (
        standin.widths(d=(8,), m=(12,)) + standin.widths(d=(8,), m=(12,), s=3),
        ["worst_error", "rms_zeros"],
        "exponent of s",
    ),
    "error_over_steps": (
        standin.widths(d=(8,), m=(12,)) + standin.widths(d=(8,), m=(12,), steps=20),
        ["worst_error"],
        "exponent of steps",
    ),
    "error_map": (standin.widths(d=(8, 16), m=(12, 16)), ["worst_error"], "rank bound"),
    "genericity_map": (standin.widths(d=(8, 16), m=(12, 16)), ["worst_error"], "ratio"),
    "loss_map": (standin.losses(), ["worst_error"], "2→4→8"),
    "parameters": (standin.draws(), ["worst_error"], "lr_schedule"),
}
RUNS = ("error_histogram", "trained_weights")
MEASURED = ("analytic_scaling", "bernoulli_probability", "depth", "measure_superposed", "measure_width_needed", "superposed",
            "targeted_gates", "width_needed")  # fmt: skip
"""Tested elsewhere: what they measure is no table of runs, or takes a table of its own."""


def test_every_script_is_tested():
    there = {path.stem for path in FOLDER.glob("*.py")}
    assert there == {*TABLES, *RUNS, *MEASURED, "common"}


@pytest.mark.parametrize("script", TABLES)
def test_a_figure_from_a_table(script, tmp_path):
    rows, errors, words = TABLES[script]
    table = standin.write(rows, tmp_path / "table.jsonl")
    done = run(script, table, "--figures", tmp_path / "figures")
    assert done.returncode == 0, done.stderr
    assert words in done.stdout
    made = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert made == sorted(f"{script}-{error}.{kind}" for error in errors for kind in ("pdf", "png"))
    for name in made:
        assert str(tmp_path / "figures" / name) in done.stdout


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A folder of one compare run."""
    folder = tmp_path_factory.mktemp("runs")
    run_compare(CompareConfig(m=6, d=8, steps=3, task=("and",), threads=1, figures=False, out=folder / "one"))
    return folder


@pytest.mark.parametrize(
    ("script", "name"), [("error_histogram", "error_histogram-and"), ("trained_weights", "weights-and")]
)
def test_a_figure_from_a_run(script, name, compared, tmp_path):
    done = run(script, compared, "--figures", tmp_path, "--run", "one")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.pdf", f"{name}.png"}


def test_conditions_choose_rows(tmp_path):
    rows = standin.widths(d=(8, 16), m=(16,)) + standin.widths(d=(8, 16), m=(16,), steps=20)
    table = standin.write(rows, tmp_path / "table.jsonl")
    refused = run("error_over_d", table, "--figures", tmp_path / "figures")
    assert refused.returncode == 2
    assert "steps varies too (10, 20)" in refused.stderr
    done = run("error_over_d", table, "--figures", tmp_path / "figures", "--where", "steps=20", "task=and")
    assert done.returncode == 0, done.stderr
    assert "xor" not in done.stdout


@pytest.mark.parametrize("script", ["error_over_d", "error_histogram"])
def test_a_wrong_input_is_one_sentence(script, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jsonl").write_text("{")
    lacking = [{k: v for k, v in row.items() if k != "d"} for row in standin.widths(d=(8,), m=(16,))]
    standin.write(lacking, tmp_path / "lacking.jsonl")
    for name in ("nowhere", "empty", "broken.jsonl", "lacking.jsonl"):
        done = run(script, tmp_path / name, "--figures", tmp_path / "figures")
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith(f"{script}: ")
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "figures").exists()
