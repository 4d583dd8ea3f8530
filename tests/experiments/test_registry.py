"""What surrounds every kind of run: results.json, the file beside it, and figures that may fail."""

import sys
from types import ModuleType

import pytest

from toymodels.cli import main
from toymodels.experiments.compare import CompareConfig
from toymodels.experiments.registry import EXPERIMENTS, Result, run, summary_of
from toymodels.experiments.train import TrainConfig
from toymodels.runs.storage import read_json
from toymodels.runs.table import read_result, read_table

WORDS = ["compare", "--m", "5", "--d", "4", "--steps", "5", "--task", "and", "--readoffs", "minimax"]


@pytest.fixture
def drawing(monkeypatch):
    """A stand-in for figures.draw, and the calls of its `draw_run`."""
    stub, calls = ModuleType("toymodels.figures.draw"), []
    stub.draw_run = lambda *arguments: calls.append(arguments) or []
    monkeypatch.setitem(sys.modules, "toymodels.figures.draw", stub)
    return stub, calls


def test_figures_are_drawn_into_the_folder_of_a_finished_run(drawing, tmp_path):
    _, calls = drawing
    assert main([*WORDS, "--out", str(tmp_path / "run")]) == 0
    assert calls
    assert all(tmp_path / "run" in arguments for arguments in calls)
    calls.clear()
    assert main([*WORDS, "--no-figures", "--out", str(tmp_path / "without")]) == 0
    assert calls == []


@pytest.mark.parametrize("how", ["raises", "no module"])
def test_a_figure_that_fails_costs_a_sentence_and_no_result(how, drawing, tmp_path, monkeypatch, capsys):
    stub, _ = drawing

    def fail(*_):
        assert (tmp_path / "run" / "results.json").exists()  # first the results
        raise RuntimeError("no fonts\nat all")

    stub.draw_run = fail
    if how == "no module":
        monkeypatch.setitem(sys.modules, "toymodels.figures.draw", None)
    assert main([*WORDS, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "record: " in said.out
    last = said.err.splitlines()[-1].rpartition("\r")[2]
    assert "no figure was drawn (" in last
    assert last.endswith("the results are complete")
    assert ("RuntimeError: no fonts)" if how == "raises" else "ModuleNotFoundError: ") in last
    assert len(read_table(tmp_path / "run")) == 3


def test_results_hold_the_rows_that_results_prints(tmp_path):
    """The same rows in results.json, in the file beside it, in `results`, and in what a script gets."""
    config = CompareConfig(
        m=5, d=4, steps=5, task=("and", "xor"), readoffs=("minimax", "trained"), figures=False,
        json=tmp_path / "beside.json", out=tmp_path / "run",
    )  # fmt: skip
    content = read_json(run("compare", config) / "results.json")
    assert content["format"] == 2
    assert content == read_json(tmp_path / "beside.json") == read_result(tmp_path / "run")
    assert content.keys() >= {"rows", "genericity", "notes"}
    assert read_table(tmp_path / "run") == content["rows"]
    assert main(["results", str(tmp_path / "run"), "--out", str(tmp_path / "t.jsonl")]) == 0
    assert read_table(tmp_path / "t.jsonl") == content["rows"]
    for row in content["rows"]:
        assert "evaluation" not in row
        assert (row["kind"], row["run"], row["m"], row["d"], row["loss"]) == ("compare", "run", 5, 4, "lp")
        assert not {"seeds", "out", "readoffs", "layers", "wandb", "plugin"} & row.keys()


def test_two_kinds_in_one_table(tmp_path):
    run(
        "compare",
        CompareConfig(m=5, d=4, steps=5, task=("and",), readoffs=("minimax",), figures=False, out=tmp_path / "c"),
    )
    run("train", TrainConfig(m=5, d=4, steps=5, task="xor", layer="kaiming", out=tmp_path / "t"))
    rows = read_table(tmp_path)
    assert [(row["kind"], row["task"], row["first_layer"]) for row in rows] == [
        *(("compare", "and", layer) for layer in ("identity", "gaussian", "trained")), ("train", "xor", "trained")
    ]  # fmt: skip
    assert len({tuple(row) for row in rows}) == 1  # the same columns
    of_compare, of_train = rows[0], rows[-1]
    assert (of_compare["train_first"], of_compare["minimax_pairs"], of_compare["layer"]) == (None, 2000, "gaussian")
    assert (of_train["train_first"], of_train["minimax_pairs"], of_train["layer"]) == (True, None, "kaiming")
    alone = [read_json(tmp_path / name / "results.json")["rows"] for name in ("c", "t")]
    for row, before in zip(rows, [row for table in alone for row in table], strict=True):
        assert {name: row[name] for name in before} == before


def test_a_kind_without_a_summary_is_compared_by_means_over_its_rows():
    content = {"rows": [
        {"seed": 0, "worst_error": 1.0, "rms_odd": 0.5, "rms_ones": None, "lower_bound": 9.0},
        {"seed": 1, "worst_error": 2.0, "rms_odd": 1.5, "rms_ones": 0.25, "lower_bound": 9.0},
    ]}  # fmt: skip
    own = EXPERIMENTS["train"].__class__(name="mine", function=lambda: Result([]), config=TrainConfig)
    assert summary_of(own, content) == {"worst_error": 1.5, "rms_odd": 1.0, "rms_ones": 0.25}
    rows = [{"seed": seed, "worst_error": seed + 1.0, "seconds": 1.0} for seed in (0, 1)]
    numbers = summary_of(EXPERIMENTS["train"], {"rows": rows})
    assert numbers["worst_error"] == 1.5
    assert numbers["seed-1"]["worst_error"] == 2.0
