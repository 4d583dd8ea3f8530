"""The depth figure, at toy size: measured, stored, gone on with, drawn again from the file alone."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from toymodels import InputError

SCRIPT = Path(__file__).parents[2] / "analysis" / "depth.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("depth_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["depth_script"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.long
def test_quick_run_measures_stores_and_draws(script, tmp_path):
    text = script.main(script.Depth(out=tmp_path, quick=True))
    lines = [json.loads(line) for line in (tmp_path / "depth.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["correction"] * 12 + ["depth"] * 12
    assert all(len(line["worst"]) == 2 for line in lines)
    assert "worst > 1/2 at" in text
    assert "predicted c = 0.7" in text
    for kind in ("png", "pdf"):
        assert (tmp_path / f"depth.{kind}").stat().st_size > 10_000
    # Again, with one line lost: only that one is measured, to the same numbers, and the rest is left as it was.
    whole = (tmp_path / "depth.jsonl").read_text()
    (tmp_path / "depth.jsonl").write_text("".join(whole.splitlines(keepends=True)[:-1]))
    with pytest.raises(InputError, match="lacks kind = depth"):
        script.main(script.Depth(out=tmp_path, quick=True, plot_only=True))
    assert script.main(script.Depth(out=tmp_path, quick=True)) == text
    assert (tmp_path / "depth.jsonl").read_text() == whole
    assert script.main(script.Depth(out=tmp_path, quick=True, plot_only=True)) == text


def test_a_crossing_is_found_to_two_per_cent(script):
    assert script._crossing(lambda x: x > 0.123) == pytest.approx(0.123, rel=0.02)
    assert script._crossing(lambda x: True) == 0


@pytest.mark.long
def test_wrong_settings_are_refused_before_anything_is_written(script, tmp_path):
    out = tmp_path / "out"
    for settings, words in (
        ({"plot_only": True}, "measure first"),
        ({"m": (7,)}, "even"),
        ({"s": 0}, "s = 0"),
        ({"layers": 0}, "depth = 0"),
        ({"d": (4,)}, "at least 2"),
        ({"seeds": 1}, "at least 2 seeds"),
        ({"corrections": ()}, "at least one size"),
        ({"corrections": ((2, 1000, 3),)}, "s from 1 to m"),
        ({"m": (200, 200)}, "m names a size twice"),
    ):
        with pytest.raises(InputError, match=words):
            script.main(script.Depth(out=out, **settings))
    (tmp_path / "file").touch()
    for settings in ({"out": tmp_path / "file"}, {"out": out, "figures": tmp_path / "file"}):
        with pytest.raises(InputError, match="cannot be written"):
            script.main(script.Depth(quick=True, **settings))
    done = subprocess.run([sys.executable, SCRIPT, "--out", out, "--seeds", "1"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert not out.exists()


def test_damaged_results_are_refused(script, tmp_path):
    for content in (b"{", b"5\n", b"\xff\xfe"):
        (tmp_path / "depth.jsonl").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            script.main(script.Depth(out=tmp_path, quick=True, plot_only=True))


def test_the_legend_names_every_line(script):
    """In a column for each m: two columns for nine lines would part those of one m."""
    settings = script.Depth(out=Path(), layers=1, corrections=((500, 1000, 3),), seeds=2)
    errors = {"epsilon": [0.1], "worst": [[0.2], [0.3]], "rms": [[0.1], [0.1]], "wrong": [[0.0], [0.0]]}
    errors |= {"tolerance": [0.2, 0.3], "halves": [0.2, 0.3], "fails": [None, None]}
    rows = [{**key, **errors} for key in script.Depth.keys(settings)]
    axis = script.plot(settings, rows).figure.axes[1]
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names == [f"{m:,}, {mode}" for m in (400, 800, 1600) for mode in ("with", "without", "without, 2d")]
    assert axis.get_legend()._ncols == 3
