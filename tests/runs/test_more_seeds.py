"""The same command with more seeds: what is there is kept, and the numbers are those of a run made at once."""

import dataclasses
import json
from pathlib import Path

import pytest

from toymodels.errors import InputError
from toymodels.experiments import build, comparison
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.train import TrainConfig, run_train
from toymodels.runs.record import locked
from toymodels.runs.table import read_table

CONFIG = CompareConfig(m=5, d=4, steps=3, task=("and",), readoffs=("minimax",), figures=False, seeds=(0,))
MORE = dataclasses.replace(CONFIG, seeds=(0, 1))
NOT_MEASURED = ("seconds", "run")


def numbers(folder):
    return [{k: v for k, v in row.items() if k not in NOT_MEASURED} for row in read_table(folder)]


@pytest.fixture
def measured(monkeypatch):
    """The seeds for which rows are measured."""
    seeds, real = [], comparison.RowMaker._measured
    monkeypatch.setattr(
        comparison.RowMaker, "_measured", lambda self, *rest: seeds.append(self.seed) or real(self, *rest)
    )
    return seeds


@pytest.mark.parametrize("out", ["here", None])
def test_only_the_new_seeds_are_measured(out, measured, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, more = (dataclasses.replace(config, out=out and tmp_path / out) for config in (CONFIG, MORE))
    run_compare(first)
    measured.clear()
    folder = run_compare(more)
    assert set(measured) == {1}
    assert numbers(folder) == numbers(run_compare(dataclasses.replace(MORE, out=tmp_path / "at once")))
    assert len(json.loads((folder / "environment.json").read_text())) == (2 if out else 1)


def test_a_named_folder_does_not_forget_seeds(tmp_path):
    folder = run_compare(dataclasses.replace(MORE, out=tmp_path / "run"))
    before = (folder / "results.json").read_bytes()
    for seeds in ((0,), (0, 2)):
        with pytest.raises(InputError, match=r"another run \(seeds is \[0, 1\] there"):
            run_compare(dataclasses.replace(CONFIG, seeds=seeds, out=folder))
    with pytest.raises(InputError, match="another run"):
        run_compare(dataclasses.replace(MORE, seeds=(0, 1, 2), d=5, out=folder))
    with locked(folder), pytest.raises(InputError, match="another process is at work"):
        run_compare(dataclasses.replace(MORE, seeds=(0, 1, 2), out=folder))
    assert (folder / "results.json").read_bytes() == before


def test_a_training_goes_on_with_more_seeds(tmp_path, monkeypatch):
    config = TrainConfig(m=5, d=4, steps=3, seeds=(1,), out=tmp_path / "run")
    run_train(config)
    trained, real = [], build.train_network
    monkeypatch.setattr(build, "train_network", lambda *given: trained.append(given[3]) or real(*given))
    run_train(dataclasses.replace(config, seeds=(0, 1)))
    assert trained == [0]
    assert [row["seed"] for row in read_table(tmp_path)] == [0, 1]


@pytest.mark.parametrize(("kind", "killed_in"), [("compare", 1), ("train", 0)])
def test_seeds_are_taken_over_after_a_kill_while_they_are_copied(kind, killed_in, measured, tmp_path, monkeypatch):
    """A kill leaves half a seed's folder under a hidden name, and what comes after it is not there."""
    monkeypatch.chdir(tmp_path)
    config = CONFIG if kind == "compare" else TrainConfig(m=5, d=4, steps=3)
    run = run_compare if kind == "compare" else run_train
    two, three = (dataclasses.replace(config, seeds=tuple(range(count))) for count in (2, 3))
    run(two)
    renamed, real = [], Path.rename

    def kill(path, target):
        if len(renamed) == killed_in:
            (path / "network.safetensors").unlink(missing_ok=True)
            raise KeyboardInterrupt
        renamed.append(real(path, target))

    monkeypatch.setattr(Path, "rename", kill)
    with pytest.raises(KeyboardInterrupt):
        run(three)
    monkeypatch.setattr(Path, "rename", real)
    new = next(
        path.parent for path in Path("runs").glob("*/config.json") if not (path.parent / "results.json").exists()
    )
    assert len(renamed) == killed_in
    assert len(list(new.glob(".*seed-*"))) == 1
    measured.clear()
    trained, train = [], build.train_network
    monkeypatch.setattr(build, "train_network", lambda *given: trained.append(given[3]) or train(*given))
    assert run(three) == new
    assert set(measured if kind == "compare" else trained) == {2}
    assert sorted(path.name[-6:] for path in new.glob("*seed-*")) == ["seed-0", "seed-1", "seed-2"]
    assert not list(new.glob(".*seed-*"))
    assert numbers(new) == numbers(run(dataclasses.replace(three, out=tmp_path / "at once")))
