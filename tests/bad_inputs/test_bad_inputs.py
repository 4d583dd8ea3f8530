"""Every wrong input of table.py gets an answer: a sentence for each problem, exit status 2, nothing written, within seconds."""

import dataclasses
import time

import pytest

from tests.bad_inputs.table import COMMANDS, JSON, PYTHON, SWEEPS
from toymodels.cli import main
from toymodels.errors import InputError
from toymodels.experiments.train import TrainConfig

pytestmark = pytest.mark.bad_inputs
SECONDS = 10


def named(value):
    return repr(value)[:50] if not isinstance(value, list) else " ".join(value)[:50]


@pytest.fixture
def answer(tmp_path, monkeypatch, capsys):
    """A function that gives the words to the command line and returns what it says, after the checks that hold for all."""
    monkeypatch.chdir(tmp_path)

    def ask(words):
        before, began = sorted(tmp_path.rglob("*")), time.monotonic()
        assert main(words) == 2
        said = capsys.readouterr()
        assert time.monotonic() - began < SECONDS
        assert sorted(tmp_path.rglob("*")) == before
        assert said.out == ""
        assert said.err.startswith("toymodels: ")
        assert "Traceback" not in said.err
        assert all(line.strip() and len(line) < 1200 for line in said.err.splitlines())
        return said.err

    return ask


@pytest.mark.parametrize(("words", "expected"), COMMANDS, ids=named)
def test_commands(words, expected, answer):
    said = answer(words)
    assert expected in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("text", "expected"), SWEEPS, ids=named)
def test_sweep_files(text, expected, answer, tmp_path):
    (tmp_path / "s.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    said = answer(["sweep", "s.yaml", "--out", "o"])
    assert expected in said


@pytest.mark.parametrize(("text", "expected"), JSON, ids=named)
def test_json_files(text, expected, answer, tmp_path):
    (tmp_path / "c.json").write_bytes(text.encode() if isinstance(text, str) else text)
    assert expected in answer(["run", "train", "c.json"])


@pytest.mark.parametrize(("settings", "expected"), PYTHON, ids=named)
def test_settings_in_python(settings, expected):
    config = object.__new__(
        TrainConfig
    )  # made as by its own __init__, without the type checks that tests put around it
    for name, value in {**dataclasses.asdict(TrainConfig()), **settings}.items():
        object.__setattr__(config, name, value)
    with pytest.raises(InputError) as refusal:
        config.__post_init__()
    assert expected in str(refusal.value)
