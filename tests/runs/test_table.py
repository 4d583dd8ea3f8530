"""The table of results: one row for each run, seed, gate, first layer and readoff, wherever the runs are."""

import csv
import dataclasses
import json
import shutil
import sys
import types

import pytest

from toymodels.cli import main
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.train import TrainConfig, run_train
from toymodels.runs import table as results
from toymodels.runs.metrics import METRICS
from toymodels.runs.storage import read_json
from toymodels.runs.table import read_frame, read_table, write

SMALL = {"m": 5, "d": 4, "steps": 20}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A comparison of two gates and two seeds, and trainings of a gate whose name, "true", is a word of JSON."""
    folder = tmp_path_factory.mktemp("results")
    run_compare(CompareConfig(**SMALL, task=("and", "0001"[::-1]), seeds=(0, 1), figures=False, out=folder / "compare"))
    run_train(TrainConfig(**SMALL, task="true", seeds=(0,), out=folder / "train"))
    run_train(TrainConfig(**SMALL, seeds=(0, 1), pairs=((0, 1), (2, 3)), train_first=False, out=folder / "frozen"))
    return folder


def test_rows_hold_the_numbers_of_each_network(runs):
    """Against the evaluation that stands beside each network of the records."""
    table = read_table(runs)
    assert len({tuple(row) for row in table}) == 1
    evaluated = {
        path: read_json(path) for path in runs.rglob("*.json") if path.parent.name not in ("compare", "train", "frozen")
    }
    assert len(table) == len(evaluated) == 2 * 2 * 9 + 3
    for path, one in evaluated.items():
        run = path.relative_to(runs).parts[0]
        about = {name: one[name] for name in ("task", "first_layer", "readoff", "seed")}
        (found,) = [row for row in table if row.items() >= {"run": run, **about}.items()]
        measured = one["evaluation"]
        zeros = measured["groups"]["zeros"]
        assert {metric.name: found.get(metric.name) for metric in METRICS} == {
            "worst_error": measured["worst_error"],
            "mean_worst_error": pytest.approx(sum(measured["output_worst"]) / measured["n_outputs"]),
            "rms": measured["rms"],
            "rms_ones": measured["groups"]["ones"]["rms"],
            "rms_zeros": zeros["rms"] if run != "train" else None,  # the gate "true" has no zeros
            "rms_active": None,
            "rms_inactive": None,
            "within_quarter": measured["within"]["0.25"],
            "seconds": one["seconds"],
        }
        assert (found["covered"], found["n_pairs"], found["threads"]) == ("all 16", 2 if run == "frozen" else 10, 1)
        assert (found["train_first"] is None) == (run == "compare")
        assert found["proved"] is (True if about["readoff"] == "minimax" else None)
    frozen = [row for row in table if row["run"] == "frozen"]
    assert [row["seed"] for row in frozen] == [0, 1]
    assert {row["first_layer"] for row in frozen} == {"gaussian"}
    assert frozen[0]["pairs"] == [[0, 1], [2, 3]]
    assert frozen[0]["frozen_layer"] is None
    assert {row["task"] for row in table} == {"and", "nor", "true"}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("below", ["", "compare", "train", "frozen"])
def test_what_is_written_is_read_back(runs, ending, below, tmp_path, capsys):
    path = tmp_path / f"table.{ending}"
    assert main(["results", str(runs / below), "--out", str(path)]) == 0
    table = read_table(runs / below)
    assert read_table(path) == table
    assert [type(value) for value in read_table(path)[0].values()] == [type(value) for value in table[0].values()]
    assert f"rows: {len(table)}, runs: {len({row['run'] for row in table})}" in capsys.readouterr().out
    again = tmp_path / f"again.{ending}"
    write(path, again)
    assert again.read_bytes() == path.read_bytes()


def test_other_programs_read_the_files(runs, tmp_path):
    write(runs, tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["worst_error"]) for row in rows] == [row["worst_error"] for row in read_table(runs)]
    assert {row["activation"] for row in rows} == {"relu"}


def test_figures_in_words(runs, capsys):
    assert main(["results", str(runs / "frozen")]) == 0
    said = capsys.readouterr().out
    a, b = (row["worst_error"] for row in read_table(runs / "frozen"))
    assert f"{(a + b) / 2:.4f} ±" in said
    assert "all 16" in said
    assert main(["results", str(runs)]) == 0
    said = capsys.readouterr().out
    # Two columns of the gates and three runs: everything that differs stands there, a field that a kind has not as -.
    header = said.splitlines()[0].split("  ")
    assert {"kind", "task", "first_layer", "readoff", "pairs"} <= {name.strip() for name in header}
    assert len(said.split("\n\n")[0].splitlines()) == 2 + 2 * 9 + 2


def test_the_same_run_in_two_places_counts_once(runs, tmp_path):
    run_train(TrainConfig(**SMALL, seeds=(0, 1), out=tmp_path / "one"))
    alone = read_table(tmp_path)
    run_train(TrainConfig(**SMALL, seeds=(0, 1), threads=1, out=tmp_path / "sweep" / "runs" / "two"))
    assert read_table(tmp_path) == alone
    run_train(TrainConfig(**SMALL, seeds=(1,), out=tmp_path / "three"))
    assert len(read_table(tmp_path)) == 3  # a run of its own, but no new seed
    assert results.describe(tmp_path).splitlines()[2].split()[0] == "2"


DAMAGES = [
    ("results.json", '{"rows": [', "truncated or damaged"),
    ("results.json", '{"rows": [{}]}', "is damaged"),
    ("results.json", '{"rows": []}', "is damaged"),
    ("results.json", '{"rows": 3}', "is damaged"),
    ("results.json", "[]", "is damaged"),
    ("config.json", "{", "truncated or damaged"),
    ("config.json", '{"format": 0}', "format 0"),
    ("config.json", '{"format": 2, "kind": "train"}', "it lacks kind, config"),
    ("config.json", '{"format": 2, "kind": "train", "config": 3}', "is damaged"),
    ("config.json", '{"format": 2, "kind": "train", "config": {"plugin": ["lab.py"]}}', "is damaged"),
    ("config.json", '{"format": 1, "kind": "dance", "config": {}}', "is damaged"),
    ("config.json", '{"format": 1, "kind": "train", "config": {"mm": 1}}', "is damaged"),
]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The record of a training of one seed."""
    return run_train(TrainConfig(**SMALL, out=tmp_path_factory.mktemp("one") / "run"))


@pytest.mark.parametrize("command", ["results", "show"])
@pytest.mark.parametrize(("name", "content", "words"), DAMAGES)
def test_a_damaged_record_is_one_sentence(name, content, words, command, one, tmp_path, capsys):
    shutil.copytree(one, tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    capsys.readouterr()
    assert main([command, str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


FILES = [
    ("t.csv", ""),
    ("t.csv", "a,b\n1,2\n"),
    ("t.csv", "a,b\n1,2,3\n"),
    ("t.csv", '"a\n'),
    ("t.jsonl", ""),
    ("t.jsonl", "{}\n"),
    ("t.jsonl", "[1]\n"),
    ("t.jsonl", "{\n"),
    ("t.jsonl", "3\n"),
    ("t.jsonl", "\x80\n"),
]


@pytest.mark.parametrize(("name", "content"), FILES)
def test_a_file_that_is_no_table_is_one_sentence(name, content, tmp_path, capsys):
    (tmp_path / name).write_text(content, encoding="latin-1")
    assert main(["results", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert "is not a table of results" in said or "save the file in UTF-8" in said
    assert said.count("\n") == 1


def test_a_table_that_lacks_a_column_or_a_cell_is_one_sentence(runs, tmp_path):
    rows = read_table(runs / "train")
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps({key: value for key, value in rows[0].items() if key != "worst_error"}))
    with pytest.raises(InputError, match="it lacks worst_error"):
        read_table(path)
    path.write_text(f"{json.dumps(rows[0])}\n{json.dumps({**rows[0], 'more': 1})}\n")
    with pytest.raises(InputError, match="different columns"):
        read_table(path)


def test_nothing_to_show_is_one_sentence(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "absent"):
        assert main(["results", str(folder)]) == 2
        said = "does not exist" if folder.name == "absent" else "holds no finished run"
        assert said in capsys.readouterr().err
    assert main(["results", str(tmp_path), "--out", str(tmp_path / "t.xlsx")]) == 2
    assert "as .csv or as .jsonl" in capsys.readouterr().err
    assert main(["results", str(tmp_path), "--out", str(tmp_path / "t.csv")]) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_frame(runs, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        read_frame(runs)
    try:
        monkeypatch.delitem(sys.modules, "pandas")
        import pandas
    except ImportError:  # not among what we install: a frame is what its constructor makes of the rows
        pandas = types.SimpleNamespace(DataFrame=lambda rows: types.SimpleNamespace(to_dict=lambda _: rows))
        monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert read_frame(runs / "frozen").to_dict("records") == read_table(runs / "frozen")


def odd(folder, how):
    """Put a run, or what looks like one, that cannot be read beside others."""
    shutil.copytree(folder / "one", folder / "odd")
    path = folder / "odd" / "results.json"
    content = read_json(path)
    row = content["rows"][0]
    changed = {
        "damaged": "{",
        "nan": json.dumps({**content, "rows": [{**row, "worst_error": float("nan")}]}),
        "negative": json.dumps({**content, "rows": [{**row, "rms_ones": -0.1}]}),
        "infinite": json.dumps({**content, "rows": [{**row, "rms_ones": 1}]}).replace(
            '"rms_ones": 1', '"rms_ones": 1e999'
        ),
        "text": json.dumps({**content, "rows": [{**row, "worst_error": "small"}]}),
        "nested": "[" * 100_000,
        "digits": '{"name": ' + "9" * 5_000 + "}",
        "foreign": '{"loss": 0.3}',
    }
    path.write_text(changed.get(how, path.read_text()))
    config = folder / "odd" / "config.json"
    if how == "old":
        config.write_text(json.dumps({**read_json(config), "format": 0}))
    if how == "foreign":
        config.write_text('{"batch": 3}')


@pytest.mark.parametrize(
    "how", ["damaged", "nan", "negative", "infinite", "text", "nested", "digits", "foreign", "old"]
)
def test_an_odd_run_is_left_out_and_blocks_no_table(how, one, tmp_path, capsys):
    shutil.copytree(one, tmp_path / "one")
    odd(tmp_path, how)
    capsys.readouterr()
    assert main(["results", str(tmp_path)]) == 0
    table = capsys.readouterr()
    assert table.err.count("\n") == 1
    assert table.err.startswith(f"toymodels: left out of the table: {tmp_path / 'odd'}")
    assert main(["results", str(tmp_path / "one")]) == 0
    assert table.out == capsys.readouterr().out
    assert main(["show", str(tmp_path / "odd")]) == 2  # alone it is refused, in a sentence
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "results"])
def test_tables_need_no_constructor(command, one, tmp_path, capsys):
    """Of a first layer, a task and a kind of run that nobody knows here."""
    shutil.copytree(one, tmp_path / "run")
    path = tmp_path / "run" / "config.json"
    content = read_json(path)
    content["config"] |= {"layer": "cosines", "values": "mine", "inputs": "mine", "plugin": []}
    path.write_text(json.dumps({**content, "kind": "dance"}))
    capsys.readouterr()
    assert main([command, str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert f"{read_json(one / 'results.json')['rows'][0]['worst_error']:.4f}" in said.out
    assert said.err == ""


def test_numbers_are_sorted_as_numbers_and_written_short(one, tmp_path, capsys):
    content = read_json(one / "results.json")
    for m, lr in ((12, 0.014690201941874481), (8, 0.5), (100, 0.014690201941874481)):
        shutil.copytree(one, tmp_path / f"m{m}")
        rows = [{**row, "m": m, "lr": lr} for row in content["rows"]]
        (tmp_path / f"m{m}" / "results.json").write_text(json.dumps({**content, "name": f"m{m}", "rows": rows}))
    assert main(["results", str(tmp_path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0][:2] == ["m", "lr"]
    assert [line[:2] for line in lines[2:5]] == [["8", "0.5"], ["12", "0.0146902"], ["100", "0.0146902"]]


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-x", "@SUM(1)"])
def test_no_cell_of_a_csv_is_a_formula(name, one, tmp_path):
    shutil.copytree(one, tmp_path / "run")
    content = read_json(tmp_path / "run" / "results.json")
    rows = [{**row, "run": name, name: 1} for row in content["rows"]]
    (tmp_path / "run" / "results.json").write_text(json.dumps({**content, "rows": rows}))
    write(tmp_path / "run", tmp_path / "table.csv")
    with open(tmp_path / "table.csv", newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "-x"))]
    assert read_table(tmp_path / "table.csv")[0]["run"] == name
    assert read_table(tmp_path / "table.csv") == read_table(tmp_path / "run")


@pytest.mark.parametrize("change", ["worst", "deleted", "row deleted"])
def test_measuring_again_ends_with_a_verdict_and_a_status(change, one, tmp_path, capsys):
    shutil.copytree(one, tmp_path / "run")
    (network,) = (tmp_path / "run").rglob("network.safetensors")
    row = network.with_name("result.json")
    capsys.readouterr()
    assert main(["show", str(tmp_path / "run"), "--evaluate"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "networks: 1, all with the recorded errors"
    if change == "worst":
        content = read_json(row)
        content["evaluation"]["worst_error"] += 1e-3
        row.write_text(json.dumps(content))
    else:
        (network if change == "deleted" else row).unlink()
    assert main(["show", str(tmp_path / "run"), "--evaluate"]) == 1
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"networks: 1, 1 {'with another error' if change == 'worst' else 'missing'}"
    assert ("differs by 1.0e-03" if change == "worst" else "missing") in said


def test_a_group_without_outputs_has_no_error(tmp_path, capsys):
    """At most one active feature: no AND is 1."""
    run_train(TrainConfig(m=5, d=4, s=1, steps=5, threads=1, out=tmp_path / "run"))
    assert read_table(tmp_path)[0]["rms_ones"] is None
    assert main(["show", str(tmp_path / "run")]) == 0
    assert "RMS at ones" not in capsys.readouterr().out


def test_a_knob_at_its_default_stands_in_the_column_of_runs_that_set_it(tmp_path):
    small = {"m": 5, "d": 4, "steps": 2}
    for bias in (0.0, -1.0):
        run_train(TrainConfig(**small, knobs={"bias": bias}, out=tmp_path / f"{bias}"))
    own = CompareConfig(**small, task=("and",), layers=("gaussian(bias=0.5)", "identity"), readoffs=("minimax",))
    run_compare(dataclasses.replace(own, figures=False, out=tmp_path / "own"))
    found = {(row["run"], row["first_layer"]): row["layer_bias"] for row in read_table(tmp_path)}
    assert found == {
        ("0.0", "trained"): 0.0, ("-1.0", "trained"): -1.0,
        ("own", "gaussian(bias=0.5)"): 0.5, ("own", "identity"): None,
    }  # fmt: skip
    assert "layer_bias" not in read_table(tmp_path / "0.0")[0]
