"""The command descend: it lowers the error, can be stopped at any step, and refuses what it cannot use."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from toymodels.cli import main
from toymodels.core import worst_case
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import FirstLayer
from toymodels.core.minimax import minimax
from toymodels.core.tasks import PairTask
from toymodels.experiments.train import TrainConfig, run_train

SEED = 4


@pytest.fixture
def layer(tmp_path, monkeypatch):
    """A layer of positive weights and negative biases in a file of the working folder."""
    monkeypatch.chdir(tmp_path)
    drawn = np.random.default_rng(SEED).random((4, 6))
    save_file(
        {"weight": torch.from_numpy(drawn[:, :5].copy()), "bias": torch.from_numpy(-drawn[:, 5])}, "layer.safetensors"
    )
    return drawn


def error_of(file, activation="relu"):
    tensors = load_file(file)
    known = minimax(
        FirstLayer(tensors["weight"], tensors["bias"], activation),
        PairTask(5, "and"),
        SparseFeatures.at_most(5, 2).enumerate(),
    )
    return max(one.worst_error for one in known.certificates)


def test_the_layer_that_is_written_has_the_error_that_is_printed(layer, capsys):
    before = error_of("layer.safetensors")
    assert main(["descend", "layer.safetensors", "--steps", "12"]) == 0
    said = capsys.readouterr().out
    after = error_of("descended.safetensors")
    assert f"worst error {before:.6f} before, {after:.6f} after (proved)" in said
    assert after < before - 0.02
    assert main(["atlas", "submit", "descended.safetensors", "--task", "and", "--folder", "mine"]) == 2
    assert f"its worst error is {after:.6f}, and 0.25" in capsys.readouterr().err


def test_a_stopped_descent_goes_on_and_ends_no_higher(layer, capsys, monkeypatch):
    words = ["descend", "layer.safetensors", "--steps", "8"]
    true, calls = worst_case._Descent.step, []

    def stops(self, *arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return true(self, *arguments)

    monkeypatch.setattr(worst_case._Descent, "step", stops)
    assert main(words) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    stopped = error_of("descended.safetensors")
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "went on after 4 steps" in said
    assert f"worst error {error_of('layer.safetensors'):.6f} before" in said
    assert error_of("descended.safetensors") <= stopped
    assert main(words) == 0
    assert "has all 8 steps already" in capsys.readouterr().out


def test_it_starts_from_the_network_of_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_train(TrainConfig(m=5, d=6, steps=20, task="and", activation="tanh", threads=1, out=tmp_path / "run"))
    assert main(["descend", "run/seed-0/network.safetensors", "--steps", "3"]) == 0
    before = float(capsys.readouterr().out.partition("worst error ")[2].partition(" ")[0])
    assert error_of("descended.safetensors", "tanh") <= before + 1e-9


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["descend", "nowhere.safetensors"], "nowhere.safetensors is not there"),
        (["descend", "layer.safetensors", "--out", "x.pt"], "name a file that ends in .safetensors"),
        (["descend", "layer.safetensors", "--out", "layer.safetensors"], "is the file to start from"),
        (["descend", "layer.safetensors", "--summary", "max"], "unknown summary 'max'"),
        (["descend", "layer.safetensors", "--steps", "0"], "steps = 0"),
        (["descend", "layer.safetensors", "--out", "other.safetensors"], "not of this descent"),
        (["descend", "nan.safetensors"], "weight and bias must be finite"),
        (["descend", "matrix.safetensors"], "it must have weight (d, m) and bias (d)"),
        (["descend", "layer.safetensors", "--task", "nand2"], "unknown task 'nand2'"),
    ],
)
def test_wrong_settings_are_refused_in_one_sentence_and_nothing_is_written(words, match, layer, tmp_path, capsys):
    save_file({"weight": torch.zeros(4, 5), "bias": torch.zeros(4)}, "other.safetensors")
    save_file({"weight": torch.full((6, 5), np.nan), "bias": torch.zeros(6)}, "nan.safetensors")
    save_file({"w": torch.zeros(6, 5)}, "matrix.safetensors")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(words) == 2
    said = capsys.readouterr().err
    assert match in said
    assert said.count("\n") == 1
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
