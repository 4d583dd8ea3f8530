"""Sources of inputs by name in records, sweeps and figures: a list of inputs stays with its run."""

import dataclasses
import pickle

import pytest

from toymodels import InputError, registry
from toymodels.cli import main
from toymodels.core.tasks import PairTask
from toymodels.experiments.train import TrainConfig
from toymodels.figures.error_over import error_over
from toymodels.figures.maps import error_map
from toymodels.figures.table import coverage
from toymodels.readoffs.random_labels import _note
from toymodels.runs.identity import from_dict, short_hash, to_dict
from toymodels.runs.record import load_config

LIST = "a,b,c,d,probability\n1,1,0,0,0.5\n0,0,1,1,0.25\n0,0,0,0,0.25\n"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Work in a folder with a list of inputs; files that a test loads are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_plugins", {})
    (tmp_path / "inputs.csv").write_text(LIST)
    return tmp_path


def config(inputs, **settings):
    return TrainConfig(m=4, d=3, steps=2, inputs=inputs, **settings)


def test_a_record_keeps_the_list_that_its_run_was_made_with(files, capsys, monkeypatch):
    words = ["--m", "4", "--d", "3", "--steps", "2", "--inputs", "listed(file=inputs.csv)", "--out", "run"]
    assert main(["train", *words]) == 0
    (files / "inputs.csv").write_text(LIST.replace("0.5", "0.25").replace("1,1,0.25", "1,1,0.5"))
    monkeypatch.setattr(registry, "_plugins", {})  # as in another process
    (files / "away").mkdir()
    monkeypatch.chdir(files / "away")
    capsys.readouterr()
    assert main(["show", "../run", "--evaluate"]) == 0
    shown = capsys.readouterr().out
    assert "one of 3 inputs of inputs.csv" in shown
    assert "identical" in shown
    saved = load_config(files / "run").config
    again = from_dict(TrainConfig, {key: value for key, value in saved.items() if key not in ("out", "json")})
    assert again.features().enumerate().probabilities.tolist() == [0.25, 0.25, 0.5]
    assert "elsewhere" not in str(saved["inputs"])


def test_a_run_is_known_by_the_content_of_its_list_and_not_by_its_place(files):
    (files / "other").mkdir()
    (files / "other" / "inputs.csv").write_text(LIST)
    (files / "changed").mkdir()
    (files / "changed" / "inputs.csv").write_text(LIST.replace("1,1,0,0", "1,0,1,0"))
    first, same, changed = (config(f"listed(file={f}inputs.csv)") for f in ("", "other/", "changed/"))
    assert first.inputs.startswith("listed(file=inputs.csv,version=v")
    assert short_hash(first) == short_hash(same) != short_hash(changed)
    assert dataclasses.replace(first, steps=3).features().n_inputs == 3  # settings made from others
    assert pickle.loads(pickle.dumps(first)).features().name == first.features().name  # a worker's
    assert from_dict(TrainConfig, {**to_dict(first), "out": None}) == first
    (files / "changed" / "inputs.csv").write_text("gone")
    with pytest.raises(InputError, match="was changed since"):
        changed.features()


def test_standard_names_make_one_run():
    assert config("couples(size=2,together=1)").inputs == "couples"
    assert short_hash(config("couples(together=1.0)")) == short_hash(config("couples"))
    assert config("at_most").inputs == "at_most"


def test_data_that_nothing_reads_is_no_plugin(files):
    with pytest.raises(InputError, match=r"no Python file: name data where it is read, as in listed\(file="):
        config("at_most", plugin=(files / "inputs.csv",))
    with pytest.raises(InputError, match=r"there is no file .*nowhere\.csv"):
        config("listed(file=nowhere.csv)")


ROWS = [
    {
        "kind": "compare", "run": "r", "task": "and", "first_layer": "gaussian", "readoff": "minimax", "seed": 0, "m": m,
        "d": d, "s": 2, "worst_error": 3 / d, "mean_worst_error": 2 / d, "covered": "all 64", "n_pairs": 28, "pairs": None,
        "d0": None, "activation": "relu", "frozen_layer": "gaussian",
    }
    for m in (8, 12)
    for d in (10, 20, 40)
]  # fmt: skip


@pytest.mark.parametrize(("inputs", "laws"), [("at_most", True), ("couples", False), ("unequal", False)])
def test_figures_draw_laws_and_levels_only_for_inputs_that_they_speak_about(inputs, laws):
    """1/4 is what affine readoffs reach over all pairs; the AND of a couple that fires together is a feature itself."""
    rows = [{**row, "inputs": inputs} for row in ROWS]
    over, field = error_over(rows), error_map(rows)
    labels = {label for axis in over.figure.axes for label in axis.get_legend_handles_labels()[1]}
    assert ("affine readoff, no layer" in labels) == ("no layer can be below" in labels) == laws
    assert ("d at the affine level" in over.text) == laws
    labels = {label for axis in field.figure.axes for label in axis.get_legend_handles_labels()[1]}
    assert ("0.25: affine, no layer" in labels) == laws
    assert ("(rank bound)" in field.text) == laws
    assert coverage(rows).startswith("at most 2 active" if laws else f"inputs {inputs}, s = 2")


def test_the_note_on_random_labels_is_one_on_all_sets_of_two():
    tasks = [PairTask(4, "and")]
    assert "another pair" in _note(2, "at_most", tasks)
    assert "another pair" not in _note(2, "couples", tasks)
    assert "another pair" not in _note(2, "unequal", tasks)
