"""The scaling figure, at toy size: measured, stored, gone on with, drawn again from the file alone."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from toymodels import InputError

SCRIPT = Path(__file__).parents[2] / "analysis" / "analytic_scaling.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("analytic_scaling", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["analytic_scaling"] = module
    spec.loader.exec_module(module)
    return module


def test_quick_run_measures_stores_fits_and_draws(script, tmp_path):
    text = script.main(script.Scaling(out=tmp_path, quick=True))
    lines = [json.loads(line) for line in (tmp_path / "analytic_scaling.jsonl").read_text().splitlines()]
    assert [(row["m"], row["s"], row["d"]) for row in lines] == [(64, s, d) for s in (2, 3) for d in (64, 256, 1024)]
    assert all(len(row["worst"]) == row["layers"] == len(row["seeds"]) == 8 for row in lines)
    fits = [json.loads(line) for line in (tmp_path / "analytic_scaling_fits.jsonl").read_text().splitlines()]
    for fit in fits:  # the seeds are fixed: this holds or does not, and at 8 layers the intervals are wide
        assert abs(fit["slope"] - fit["slope_theory"]) < 2 * fit["slope_interval"]
        assert abs(fit["constant"] - fit["constant_theory"]) < 2 * fit["constant_interval"]
    assert "RMS at zeros" in text
    for kind in ("png", "pdf"):
        assert (tmp_path / f"analytic_scaling.{kind}").stat().st_size > 10_000
    # Again, with one line lost: only that one is measured, to the same numbers, and the rest is left as it was.
    whole = (tmp_path / "analytic_scaling.jsonl").read_text()
    (tmp_path / "analytic_scaling.jsonl").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert script.main(script.Scaling(out=tmp_path, quick=True)) == text
    assert (tmp_path / "analytic_scaling.jsonl").read_text() == whole


def test_fits_find_a_known_law(script):
    d = np.array([64.0, 256.0, 1024.0])
    values = 3 * d**-0.7
    assert script.slope(d, values, 0.01 * values, 15) == pytest.approx(
        (-0.7, 2.131 * 0.01 / np.log(4) / 2**0.5), rel=1e-3
    )
    assert script.weighted_mean(np.array([1.0, 2.0]), np.array([1.0, 1e6]), 15)[0] == pytest.approx(1)


@pytest.mark.long
def test_wrong_settings_are_refused_before_anything_is_written(script, tmp_path):
    out = tmp_path / "out"
    for settings, words in (
        ({"plot_only": True}, "measure first"),
        ({"s": (1,)}, "s lies between 2"),
        ({"layers": 1}, "at least 2 layers"),
        ({"task": "nope"}, "unknown gate"),
    ):
        with pytest.raises(InputError, match=words):
            script.main(script.Scaling(out=out, **settings))
    done = subprocess.run([sys.executable, SCRIPT, "--out", out, "--layers", "1"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert not out.exists()
