"""The bench of dictionaries: its rows, its record, its table, and what it refuses."""

import json

import pytest

from toymodels import InputError
from toymodels.cli import main
from toymodels.experiments.dictionary import DictionaryConfig

SMALL = ["--m", "5", "--d", "8", "--s", "2", "--methods", "neurons", "topk(k=2,steps=4)", "--steps", "2", "--samples", "60",
         "--layers", "gaussian", "trained", "--threads", "1"]  # fmt: skip


def test_a_bench_makes_a_row_for_each_layer_and_dictionary(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("toymodels.parallel.processes.cores", lambda: 1)
    command = ["dictionary", *SMALL, "--seeds", "0", "1", "--latents", "4", "9", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    shown = capsys.readouterr().out
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    said = [(row["seed"], row["first_layer"], row["dictionary"], row["latents"]) for row in rows]
    one = [("neurons", 8), ("topk(k=2,steps=4)", 4), ("topk(k=2,steps=4)", 9)]
    assert said == [(seed, layer, *about) for seed in (0, 1) for layer in ("gaussian", "trained") for about in one]
    assert all(row["worst_error"] == row["clean_worst_error"] for row in rows if row["dictionary"] == "neurons")
    assert all(row["worst_error"] > row["clean_worst_error"] for row in rows if row["dictionary"] != "neurons")
    mean = sum(row["l0"] for row in rows if row["latents"] == 8 and row["first_layer"] == "gaussian") / 2
    line = next(line for line in shown.splitlines() if line.startswith("gaussian  neurons"))
    assert f"{mean:.3f} ±" in line
    before = (tmp_path / "run" / "results.json").read_text()
    (tmp_path / "run" / "results.json").unlink()
    assert main(command) == 0  # from the rows in the record
    assert (tmp_path / "run" / "results.json").read_text() == before
    assert main(["show", str(tmp_path / "run"), "--evaluate"]) == 0
    assert "all with the recorded errors" in capsys.readouterr().out
    assert main(["results", str(tmp_path / "run")]) == 0
    assert "topk(k=2,steps=4)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"methods": ("nope",)}, "unknown sparse dictionary"),
        ({"methods": ("topk(k=9)",), "latents": (4,)}, "k = 9: it must be at most 4"),
        ({"methods": ()}, "methods is empty"),
        ({"methods": ("l1", "l1(l1=0.03)")}, "twice"),
        ({"layers": ("gaussian", "gaussian")}, "twice"),
        ({"layers": ("nope",)}, "unknown first layer"),
        ({"readoff": "nope"}, "unknown readoff"),
        ({"readoff": "own"}, "is not for the first layer gaussian"),
        ({"latents": (0,)}, "it must be at least 1"),
        ({"latents": (3, 3)}, "twice"),
        ({"samples": 0}, "samples = 0"),
        ({"threshold": 1.5}, "threshold = 1.5"),
        ({"device": "cuda"}, "leave device at cpu"),
    ],
)
def test_wrong_settings_are_refused(settings, words):
    with pytest.raises(InputError, match=words):
        DictionaryConfig(**settings)


def test_a_row_of_another_run_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("toymodels.parallel.processes.cores", lambda: 1)
    command = ["dictionary", *SMALL, "--seeds", "0", "--latents", "4", "--out", str(tmp_path / "run")]
    assert main(command) == 0
    (tmp_path / "run" / "results.json").unlink()
    path = tmp_path / "run" / "and-seed-0" / "gaussian-neurons-4.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "of": {**content["of"], "samples": 7}}))
    capsys.readouterr()
    assert main(command) == 2
    assert "samples is 7 there and 60 here" in capsys.readouterr().err
