"""Records of the version before (format 1): what was finished is read, shown and left as it is.

fixtures/format_1.tar.gz was written by commit 9a73484:

    toymodels compare --m 6 --d 5 --steps 5 --seeds 0 1 --task 0001 --layers gaussian bernoulli trained --layer-p 0.4 \
        --readoffs own trained minimax random_labels --minimax-pairs 4 --no-figures --threads 1 --out compare
    toymodels train --m 6 --d 5 --steps 5 --task 1000 --seeds 0 1 --layer-scale 0.5 --d0 4 --average apart --threads 1 \
        --out train
    toymodels results . --out table.csv
"""

import csv
import json
import tarfile
from pathlib import Path

import pytest

from toymodels.cli import main
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.genericity import summary
from toymodels.runs.record import load_config, load_network
from toymodels.runs.storage import read_json
from toymodels.runs.table import describe, read_result, read_table

PROBLEM = ["--m", "6", "--d", "5", "--steps", "5", "--seeds", "0", "1", "--threads", "1"]
COMPARE = ["compare", *PROBLEM, "--task", "0001", "--layers", "gaussian", "bernoulli", "trained", "--layer-p", "0.4",
           "--readoffs", "own", "trained", "minimax", "random_labels", "--minimax-pairs", "4", "--no-figures"]  # fmt: skip
TRAIN = ["train", *PROBLEM, "--task", "1000", "--layer-scale", "0.5", "--d0", "4", "--loss", "lp_apart"]


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The folder that holds the records compare and train; the current folder, as they name themselves by it."""
    with tarfile.open(Path(__file__).parent / "fixtures" / "format_1.tar.gz") as file:
        file.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_the_table_is_that_of_the_version_before(old):
    """Number for number, where both have a column; settings under their names of today."""
    with open(old / "table.csv", newline="") as file:
        before = {(r["kind"], r["task"], r["first_layer"], r["readoff"], r["seed"]): r for r in csv.DictReader(file)}
    rows = [row for name in ("compare", "train") for row in read_table(old / name)]
    assert len(rows) == len(before) == 22
    for row in rows:
        old_row = before[row["kind"], row["task"], row["first_layer"], row["readoff"], str(row["seed"])]
        shared = row.keys() & old_row.keys() - {"run"}
        assert len(shared) > 30
        for name in shared:
            value = row[name] if isinstance(row[name], str) else json.dumps(row[name])
            assert value == old_row[name], name
        # Named otherwise, or new: the settings by which that version worked.
        assert row["loss"] == ("lp" if row["kind"] == "compare" else "lp_apart")
        assert row["values"] == "one"
        assert "average" not in row
        assert row["threads"] is None
    assert {row["layer_p"] for row in read_table(old / "compare")} == {0.4}
    assert {row["layer_scale"] for row in read_table(old / "train")} == {0.5}
    assert not {"layer_scale", "layer_bias"} & read_table(old / "compare")[0].keys()  # at their defaults


def test_they_are_shown(old, capsys):
    assert main(["show", "compare"]) == 0
    said = capsys.readouterr().out
    header = next(line for line in said.splitlines() if line.startswith("layer "))
    assert header.split()[:5] == ["layer", "readoff", "worst", "error", "mean"]
    assert "interval" not in header
    assert "bernoulli  own            1.3333 ±0.0000" in said
    assert "Genericity of U-AND: the worst error on the frozen random layer is 1.00 ± 0.03 times" in said
    assert "layer_p = 0.4" in said
    assert main(["show", "train"]) == 0
    assert "0.9926" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "networks"), [("compare", 2 * 7), ("train", 2)])
def test_every_network_is_measured_again(name, networks, old, capsys):
    assert main(["show", name, "--evaluate"]) == 0
    said = capsys.readouterr().out
    assert said.count("identical") == networks
    assert "differs" not in said
    assert "missing" not in said


@pytest.mark.parametrize(("command", "name"), [(COMPARE, "compare"), (TRAIN, "train")])
def test_the_same_command_finds_them_finished(command, name, old, capsys):
    before = written(old / name)
    assert main([*command, "--out", name]) == 0
    said = capsys.readouterr().out
    assert written(old / name) == before
    assert main(["show", name]) == 0
    assert said == capsys.readouterr().out + f"\nrecord: {name}\n"


def test_their_numbers_are_written_to_a_file_that_is_asked_for(old):
    assert main([*COMPARE, "--out", "compare", "--json", "all.json"]) == 0
    assert read_json(old / "all.json") == read_result(old / "compare")


def test_another_command_does_not_take_their_folder(old, capsys):
    before = written(old)
    assert main([*COMPARE, "--out", "compare", "--weight", "value"]) == 2
    assert "weight is case there and value here" in capsys.readouterr().err
    assert main([*TRAIN[:-2], "--out", "train"]) == 2
    assert "loss is lp_apart there and lp here" in capsys.readouterr().err
    assert written(old) == before


@pytest.mark.parametrize(("command", "name"), [(COMPARE, "compare"), (TRAIN, "train")])
def test_an_unfinished_one_is_refused_and_left_alone(command, name, old, capsys):
    (old / name / "results.json").unlink()
    before = written(old / name)
    assert main([*command, "--out", name]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "the unfinished run in" in said.err
    assert "delete it and repeat the run" in said.err
    assert written(old / name) == before
    assert main(["show", name]) == 0
    assert "not finished" in capsys.readouterr().out


def test_old_and_new_runs_make_one_table(old):
    """One row of means for two versions of the same settings."""
    config = CompareConfig(m=6, d=5, steps=5, seeds=(2,), task=("and",), layers=("gaussian", "bernoulli", "trained"),
                           knobs={"p": 0.4}, readoffs=("own",), minimax_pairs=4, figures=False, out=Path("new"))  # fmt: skip
    run_compare(config)
    for path in (old / "train").rglob("results.json"):
        path.unlink()
    rows = read_table(old)
    own = [row for row in rows if row["readoff"] == "own"]
    assert [row["seed"] for row in own] == [0, 1, 2]
    said = describe(old)
    assert said.splitlines()[0].split()[:3] == ["first_layer", "readoff", "seeds"]  # nothing else varies
    (line,) = [line for line in said.splitlines() if " own " in line]
    assert line.split()[2] == "3"


def test_the_numbers_by_which_sweeps_compare_runs(old):
    numbers = summary(read_result(old / "compare"))
    assert numbers["and/bernoulli/own"]["worst_error"] == pytest.approx(4 / 3)
    assert numbers["genericity"]["and"] == pytest.approx(0.9979, abs=1e-4)


def test_a_damaged_one_is_one_sentence(old):
    for content in ("[]", '{"rows": [{}]}', "{}"):
        (old / "compare" / "results.json").write_text(content)
        with pytest.raises(InputError, match="is damaged"):
            read_result(old / "compare")
    assert load_config(old / "compare").format == 1


def test_a_training_that_was_stopped_early_and_shares_within_tolerances(old):
    path = old / "train" / "results.json"
    content = read_json(path)
    content["seeds"][1]["stopped_at"] = 3
    content["seeds"][0]["evaluation"]["within"] = {"0.05": 0.1, "0.1": 0.2, "0.25": 0.3, "0.5": 0.4}
    path.write_text(json.dumps(content))
    rows = read_table(old / "train")
    assert [row["stopped_at"] for row in rows] == [None, 3]
    assert rows[0]["within_quarter"] == 0.3


def test_networks_say_how_their_layers_came_about(old):
    folder = old / "compare" / "and-seed-0"
    for name in ("gaussian", "bernoulli", "trained"):
        network, task, extra = load_network(folder / f"{name}-minimax.safetensors")
        assert network.layer.origin == name
        assert (task.name, task.m, task.n_outputs) == ("and", 6, 4)
        assert len(extra["certificate_offsets"]) == 5
    network, task, _ = load_network(old / "train" / "seed-0" / "network.safetensors")
    assert (network.layer.layer.origin, network.layer.layer.scale, network.layer.frame.shape) == (
        "trained",
        0.5,
        (4, 6),
    )
    assert task.name == "nor"
