"""Plugins: members from a file of one's own, wherever a run is done, and in its record."""

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.members import own
from toymodels import registry
from toymodels.cli import main
from toymodels.core.layers import LAYERS
from toymodels.core.readoffs import READOFFS
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig
from toymodels.experiments.registry import EXPERIMENTS, summary_of
from toymodels.experiments.train import TrainConfig
from toymodels.figures.table import settings_of, varied
from toymodels.runs.identity import from_dict, identity, short_hash
from toymodels.runs.record import open_record
from toymodels.runs.storage import read_json
from toymodels.runs.table import describe, read_table

LAB = '''
"""A layer of zeros and ones, a readoff that says nothing, and a kind of run that counts."""
from dataclasses import dataclass

import torch

from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.readoffs import READOFFS, LinearReadoff
from toymodels.experiments.registry import EXPERIMENTS
from toymodels.runs.settings import ProblemSettings, RunSettings


@LAYERS("sparse", source="this test")
def sparse(m: int, d: int, seed: int, *, density: float = 0.4) -> FirstLayer:
    """Draw weights 1 with probability `density`, else 0."""
    weight = (torch.rand(d, m, generator=torch.Generator().manual_seed(seed)) < density).float()
    return FirstLayer(weight, torch.zeros(d), "relu", "sparse")


@READOFFS("silent", applies=lambda combination: combination.layer.name == "sparse")
def silent(task, width: int) -> LinearReadoff:
    """Predict 0."""
    return LinearReadoff.constant(task.n_outputs, width)


@dataclass(frozen=True)
class CountConfig(RunSettings, ProblemSettings):
    """Count the inputs."""

    times: int = 1
    """How often they are counted."""

    def __post_init__(self) -> None:
        ProblemSettings.__post_init__(self)
        RunSettings.__post_init__(self)


@EXPERIMENTS("count", config=CountConfig, measures=("change",))
def count(config, folder, report):
    """Count the inputs of a problem."""
    return [
        {
            "task": None, "first_layer": None, "readoff": None, "seed": seed,
            "worst_error": float(config.features().n_inputs * config.times), "covered": "all", "n_pairs": 1,
            "change": 4.5 * seed - 4,
        }
        for seed in config.seeds
    ]
'''

COMPARE = ["compare", "--m", "5", "--d", "4", "--task", "and", "--frozen-layer", "sparse", "--layers", "sparse"]
COMPARE += ["--readoffs", "silent", "minimax", "--no-figures"]


@pytest.fixture
def fresh(monkeypatch):
    """Forget all plugins, as a new process would: now, after the test, and each time it is called."""
    for family in (LAYERS, READOFFS, EXPERIMENTS):
        own(monkeypatch, family)
    before = {family: dict(family._members) for family in (LAYERS, READOFFS, EXPERIMENTS)}

    def forget():
        monkeypatch.setattr(registry, "_plugins", {})
        for family, members in before.items():
            monkeypatch.setattr(family, "_members", dict(members))

    forget()
    return forget


@pytest.fixture
def lab(tmp_path):
    path = tmp_path / "lab.py"
    path.write_text(LAB)
    return path


def test_processes_of_their_own_see_the_members(lab, tmp_path):
    """The command's own process, and on more than one core a worker for each of two seeds."""
    command = [sys.executable, "-m", "toymodels", "--plugin", str(lab), *COMPARE, "--seeds", "0", "1", "--threads", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path / "run")], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    rows = read_table(tmp_path / "run")
    assert [(row["first_layer"], row["readoff"], row["seed"]) for row in rows] == [
        ("sparse", readoff, seed) for seed in (0, 1) for readoff in ("silent", "minimax")
    ]
    assert {row["worst_error"] for row in rows if row["readoff"] == "silent"} == {1.0}
    assert "sparse" not in LAYERS  # it was not by this process that they were seen


def test_a_configuration_brings_its_members_into_a_worker(lab, fresh):
    import pickle

    config = CompareConfig(m=5, d=4, frozen_layer="sparse", plugin=(lab,))
    sent = pickle.dumps(config)
    fresh()
    assert "sparse" not in LAYERS
    assert pickle.loads(sent) == config
    assert "sparse" in LAYERS


def test_a_changed_copy_in_a_record_is_noticed(lab, fresh, tmp_path, capsys):
    run = tmp_path / "run"
    command = ["--plugin", str(lab), *COMPARE, "--out", str(run)]
    assert main(command) == 0
    (copy,) = (run / "plugins").iterdir()
    copy.write_text(LAB.replace("float()", "float() * 2"))
    said = f"{copy} was changed, and is not the code that the run in {run} used"
    assert main(["show", str(run)]) == 0
    assert said in capsys.readouterr().err
    for words in (["show", str(run), "--evaluate"], ["export", str(run), str(tmp_path / "net")]):
        assert main(words) == 2, words
        assert said in capsys.readouterr().err
    assert main(command) == 0  # mends the copy
    assert copy.read_text() == LAB


def test_workers_load_the_plugins_that_are_still_there(lab, fresh):
    registry.load_plugins([lab])
    assert registry.loaded_plugins() == [lab.resolve()]
    lab.unlink()
    assert registry.loaded_plugins() == []


def test_a_plugin_counts_by_its_code_and_not_by_its_path(lab, tmp_path, fresh):
    (tmp_path / "elsewhere").mkdir()
    same = tmp_path / "elsewhere" / "notes.py"
    same.write_text(LAB)
    other = tmp_path / "other.py"
    other.write_text("X = 1\n")
    of_lab, of_same, both, turned, without = (
        TrainConfig(m=5, d=4, plugin=plugins) for plugins in ((lab,), (same,), (lab, other), (other, same), ())
    )
    assert short_hash(of_lab) == short_hash(of_same)
    assert short_hash(both) == short_hash(turned)
    assert len({short_hash(config) for config in (of_lab, both, without)}) == 3
    before = identity(of_lab)
    lab.write_text(LAB + "# a comment\n")
    assert identity(of_lab) != before
    assert identity(of_lab).keys() == before.keys()


def test_a_folder_belongs_to_the_code_of_its_plugins(lab, tmp_path, fresh):
    config = TrainConfig(m=5, d=4, plugin=(lab,))
    folder = open_record("train", config, tmp_path / "run")
    assert [path.read_text() for path in (folder / "plugins").iterdir()] == [LAB]
    assert open_record("train", config, folder) == folder
    lab.write_text(LAB + "# a comment\n")
    with pytest.raises(InputError, match="the code of a plugin has changed"):
        open_record("train", TrainConfig(m=5, d=4, plugin=(lab,)), folder)
    with pytest.raises(InputError, match="another plugin is named"):
        open_record("train", TrainConfig(m=5, d=4), folder)


def test_two_plugins_of_one_name_are_both_kept(lab, tmp_path, fresh):
    (tmp_path / "elsewhere").mkdir()
    second = tmp_path / "elsewhere" / "lab.py"
    second.write_text("X = 1\n")
    folder = open_record("train", TrainConfig(m=5, d=4, plugin=(lab, second)), tmp_path / "run")
    assert {path.read_text() for path in (folder / "plugins").iterdir()} == {LAB, "X = 1\n"}


@pytest.mark.parametrize("change", ["deleted", "changed"])
def test_a_record_is_rebuilt_from_its_copy_of_the_plugin(change, lab, tmp_path, fresh, capsys):
    assert main([*COMPARE, "--plugin", str(lab), "--out", str(tmp_path / "run")]) == 0
    if change == "deleted":
        lab.unlink()
    else:
        lab.write_text(LAB.replace('"sparse"', '"dense"'))
    fresh()
    capsys.readouterr()
    assert main(["show", str(tmp_path / "run"), "--evaluate"]) == 0
    said = capsys.readouterr().out
    assert said.count("identical") == 2
    assert "sparse" in LAYERS
    assert "dense" not in LAYERS


def test_results_are_read_without_the_plugin(lab, tmp_path, fresh):
    assert main([*COMPARE, "--plugin", str(lab), "--out", str(tmp_path / "run")]) == 0
    lab.unlink()
    fresh()
    assert [row["first_layer"] for row in read_table(tmp_path / "run")] == ["sparse", "sparse"]
    assert "sparse" not in LAYERS


BAD = [
    (None, "lab.py", "there is no file"),
    ("x = 1", "lab.txt", "is no Python file: give a file"),
    ("1 / 0", "lab.py", "ZeroDivisionError: division by zero"),
    ("raise RuntimeError('one\\ntwo')", "lab.py", "RuntimeError: one two"),
    ("def", "lab.py", "SyntaxError"),
    ("raise SystemExit(0)", "lab.py", "SystemExit"),
    ("import nowhere_at_all", "lab.py", "ModuleNotFoundError"),
    ("from toymodels.core.layers import LAYERS\n@LAYERS('gaussian')\ndef mine(m): ...", "lab.py", "two members 'gaussian'"),
    ("from toymodels.core.layers import LAYERS\n@LAYERS('a b')\ndef mine(m): ...", "lab.py", "a name is made of letters"),
]  # fmt: skip


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(("code", "name", "words"), BAD)
def test_a_plugin_that_will_not_do_is_one_sentence(
    code, name, words, first, tmp_path, fresh, capsys, monkeypatch, recwarn
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    if code is not None:
        (tmp_path / name).write_text(code)
    plugin = ["--plugin", str(tmp_path / name)]
    assert main([*plugin, *COMPARE] if first else [*COMPARE, *plugin]) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.startswith("toymodels: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert list(Path().iterdir()) == []


def test_what_is_no_python_file_is_refused_in_python_too(tmp_path):
    (tmp_path / "lab.txt").write_text("x = 1")
    with pytest.raises(InputError, match=r"lab.txt is no Python file: name one that ends in .py"):
        TrainConfig(m=5, d=4, plugin=(tmp_path / "lab.txt",))


def test_a_kind_of_run_of_ones_own(lab, tmp_path, fresh, capsys):
    assert main(["--plugin", str(lab), "--help"]) == 0
    assert re.search(r"count +Count the inputs of a problem\.", capsys.readouterr().out)
    command = ["count", "--m", "5", "--d", "4", "--times", "2", "--seeds", "0", "1", "--plugin", str(lab)]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert "32.0000" in capsys.readouterr().out
    assert summary_of(EXPERIMENTS["count"], read_json(tmp_path / "run" / "results.json"))["change"] == -1.75
    assert main(["results", str(tmp_path / "run"), "--out", str(tmp_path / "table.csv")]) == 0
    lab.unlink()
    fresh()
    assert [(row["kind"], row["times"], row["worst_error"]) for row in read_table(tmp_path)] == [("count", 2, 32.0)] * 2
    # What it measures is known without it, and its mean over seeds is taken; what it does not name is a setting.
    for table in (tmp_path / "run", tmp_path / "table.csv"):
        assert "change" not in settings_of(read_table(table))
        assert re.search(r"2 +32\.0000 ±0\.0000 +-1\.7500 ±28\.5", describe(table))
    rows = [{**row, "measures": None} for row in read_table(tmp_path)]
    assert varied(rows) == ["change"]
    assert main(["show", str(tmp_path / "run")]) == 0
    assert "32.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("measures", "words"),
    [
        (("rare", "times"), "count cannot measure 'times', the name of a setting"),
        (("seed",), "cannot measure 'seed'"),
        ("change", "it must be a tuple of names"),
    ],
)
def test_a_measure_is_no_setting(measures, words, lab, fresh):
    registry.load_plugins([lab])
    with pytest.raises(InputError, match=words):
        dataclasses.replace(EXPERIMENTS["count"], measures=measures)


def test_a_run_from_a_file_names_its_plugin_there_or_beside(lab, tmp_path, fresh, capsys):
    arguments = tmp_path / "args.json"
    settings = {"m": 5, "d": 4, "times": 3}
    arguments.write_text(json.dumps({**settings, "plugin": [str(lab)]}))
    assert main(["run", "count", str(arguments), "--out", str(tmp_path / "there")]) == 0
    fresh()
    arguments.write_text(json.dumps(settings))
    assert main(["run", "count", str(arguments), "--plugin", str(lab), "--out", str(tmp_path / "beside")]) == 0
    there, beside = (read_json(tmp_path / name / "config.json") for name in ("there", "beside"))
    assert there["plugin_code"] == beside["plugin_code"] != []
    fresh()
    assert main(["run", "count", str(arguments)]) == 2
    assert "unknown kind of run 'count'" in capsys.readouterr().err
    arguments.write_text(json.dumps({**settings, "plugin": str(lab)}))
    assert main(["run", "train", str(arguments)]) == 2
    assert "unknown key 'times'" in capsys.readouterr().err  # a single file is a list of one


def test_settings_of_a_record_name_the_plugin(lab, fresh):
    with pytest.raises(InputError, match="unknown first layer 'sparse'"):
        from_dict(TrainConfig, {"m": 5, "d": 4, "layer": "sparse"})
    config = from_dict(TrainConfig, {"m": 5, "d": 4, "layer": "sparse", "layer_density": 0.25, "plugin": [str(lab)]})
    assert config.knobs == {"density": 0.25}


def test_a_plugin_runs_as_it_stands(tmp_path, monkeypatch):
    """Python's cache would lie beside the file, and a change within a second to code of the same size would not be seen."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(registry, "_plugins", {})
    file = tmp_path / "mine.py"
    for value in (1, 2):
        file.write_text(f"import sys\nsys.seen_by_the_test = {value}\n")
        os.utime(file, (1e9, 1e9))
        registry.load_plugins([file])
        assert sys.seen_by_the_test == value
    del sys.seen_by_the_test
    assert list(tmp_path.iterdir()) == [file]
