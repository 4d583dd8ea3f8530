"""The figure of feasible targeted gates, at toy size: measured, stored, gone on with, drawn again from the file alone."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from toymodels import InputError

SCRIPT = Path(__file__).parents[2] / "analysis" / "targeted_gates.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("targeted_gates", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["targeted_gates"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_measures_stores_and_draws(script, tmp_path):
    settings = script.TargetedGates(out=tmp_path, m=(8, 12), d=(32, 128), seeds=2)
    text = script.main(settings)
    rows = [json.loads(line) for line in (tmp_path / "targeted_gates.jsonl").read_text().splitlines()]
    assert [(row["m"], row["d"]) for row in rows] == [(m, d) for m in (8, 12) for d in (32, 128)]
    for row in rows:
        assert len(row["own"]) == len(row["common"]) == 2
        assert all(0 <= number <= row["pairs"] for number in row["own"] + row["common"] + [row["predicted"]])
    for kind in ("png", "pdf"):
        assert (tmp_path / f"targeted_gates.{kind}").stat().st_size > 10_000
    assert "predicted, own" in text
    assert "worst error < 1/2" in text
    assert "over seeds\u00a00, 1;" in text
    # Again, with one line lost: only that one is measured, to the same numbers.
    whole = (tmp_path / "targeted_gates.jsonl").read_text()
    (tmp_path / "targeted_gates.jsonl").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert script.main(settings) == text
    assert (tmp_path / "targeted_gates.jsonl").read_text() == whole


@pytest.mark.long
def test_wrong_settings_are_refused_before_anything_is_written(script, tmp_path):
    for settings, words in (
        ({"m": (3,)}, "one to four m"),
        ({"d": (32,)}, "two widths"),
        ({"d": (0, 32)}, "at least 2"),
        ({"d": (1, 16)}, "at least 2"),
        ({"d": (16, 16, 32)}, "twice"),
        ({"m": (8, 8)}, "twice"),
        ({"plot_only": True}, "measure first"),
    ):
        with pytest.raises(InputError, match=words):
            script.main(script.TargetedGates(out=tmp_path / "out", **settings))
    (tmp_path / "file").touch()
    for settings in ({"out": tmp_path / "file"}, {"out": tmp_path / "out", "figures": tmp_path / "file"}):
        with pytest.raises(InputError, match="cannot be written"):
            script.main(script.TargetedGates(**settings))
    assert not (tmp_path / "out").exists()
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out", tmp_path / "out", "--plot-only"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "out").exists()
    done = subprocess.run(
        [sys.executable, SCRIPT, "--out", tmp_path / "out", "--m", "3"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("targeted_gates: ")
