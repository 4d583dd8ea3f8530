"""The table and figure of connection probabilities, at toy size."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from toymodels.theory.bernoulli import asymptotic_probability, median_worst_error, probability_grid

SCRIPT = Path(__file__).parents[2] / "analysis" / "bernoulli_probability.py"


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


@pytest.mark.long
def test_table_and_figure(tmp_path):
    done = run("--out", tmp_path, "--m", 20, "--s", 2, 3, "--d", 100, 50)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "bernoulli_probability.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["m"], row["s"], row["d"]) for row in rows] == [("20", s, d) for s in "23" for d in ("50", "100")]
    for row in rows:
        size = (20, int(row["d"]), int(row["s"]))
        worst, asymptotic = float(row["median_worst_error"]), asymptotic_probability(*size[:2])
        assert worst == pytest.approx(median_worst_error(*size, float(row["best_p"])), abs=2e-4)
        assert worst <= 1.01 * min(median_worst_error(*size, p) for p in probability_grid(*size[:2]))
        assert float(row["asymptotic_p"]) == pytest.approx(asymptotic, rel=1e-5)
        assert (row["median_worst_error_asymptotic"] == "") == (asymptotic >= 1)
    assert "no probability" in done.stdout
    for kind in ("pdf", "png"):
        assert (tmp_path / f"bernoulli_probability.{kind}").stat().st_size > 10_000


@pytest.mark.long
@pytest.mark.parametrize("wrong", [("--s", 1), ("--d", 1), ("--kind", "magic"), ("--m", 10, 20, 30, "--s", 2, 3)])
def test_a_wrong_input_is_one_sentence(wrong, tmp_path):
    done = run("--out", tmp_path / "out", *wrong)
    assert done.returncode == 2
    assert done.stderr.startswith("bernoulli_probability: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
