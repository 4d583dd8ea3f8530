"""Rows of a comparison: what is measured, on which inputs, and what a minimax row may claim."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from toymodels.core.evaluation import evaluate
from toymodels.core.seeds import derive_seed
from toymodels.core.tasks import PairTask
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.experiments.rows import RowMaker
from toymodels.experiments.show import describe
from toymodels.layers.iid import bernoulli
from toymodels.layers.random import gaussian
from toymodels.readoffs.by_class import mean_readoff
from toymodels.runs.record import load_network
from toymodels.runs.storage import read_json
from toymodels.runs.table import read_table

SMALL = {"m": 8, "d": 9, "steps": 5, "task": ("and",), "minimax_pairs": 5, "figures": False}


def rows_of(folder):
    return {(row["first_layer"], row["readoff"]): row for row in read_table(folder)}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A comparison measured on all 37 inputs, and the same one on samples of 2."""
    folder = tmp_path_factory.mktemp("rows")
    settings = {**SMALL, "readoffs": ("least_squares", "minimax", "random_labels"), "eval_inputs": 2}
    run_compare(CompareConfig(**settings, out=folder / "all"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("toymodels.runs.settings.EXHAUSTIVE_LIMIT", 2 * 5)
        run_compare(CompareConfig(**settings, out=folder / "sample"))
    return folder / "all", folder / "sample"


@pytest.mark.parametrize("layer", ["identity", "gaussian", "trained"])
def test_a_minimax_row_measured_on_a_sample_shows_the_certified_error(layer, folders):
    everything, sample = (rows_of(folder)[layer, "minimax"] for folder in folders)
    assert sample["worst_error"] == pytest.approx(everything["worst_error"], rel=1e-12)
    assert sample["mean_worst_error"] == pytest.approx(everything["mean_worst_error"], rel=1e-12)
    assert sample["proved"] is everything["proved"] is True
    assert sample["worst_error"] >= sample["lower_bound"] > 0
    assert sample["worst_error"] == pytest.approx(sample["lower_bound"], abs=1e-6)
    assert sample["covered"].startswith("2 sampled")
    assert sample["covered"].endswith("; worst errors all 37")
    bounds = load_file(folders[1] / "and-seed-0" / f"{layer}-minimax.safetensors")["extra.lower_bounds"]
    assert sample["lower_bound"] == bounds.max().item()


def test_the_sample_alone_would_have_claimed_too_little(folders):
    """Otherwise the test above could not fail."""
    network, task, _ = load_network(folders[1] / "and-seed-0" / "gaussian-minimax.safetensors")
    config = CompareConfig(**SMALL)
    inputs = config.features().sampled(2, derive_seed(0, "evaluation"))
    row = rows_of(folders[1])["gaussian", "minimax"]
    assert evaluate(network, task, inputs).worst_error < row["lower_bound"] - 0.01
    assert row["rms"] == evaluate(network, task, inputs).rms  # what is no worst error is the sample's


def test_the_ratio_of_genericity_is_that_of_certified_errors(folders):
    everything, sample = (read_json(folder / "results.json")["genericity"]["and"] for folder in folders)
    assert sample.keys() == everything.keys()
    for name in everything.keys() - {"ratio_interval"}:
        assert sample[name] == pytest.approx(everything[name], rel=1e-9), name
    rows = rows_of(folders[1])
    ratio = rows["gaussian", "minimax"]["worst_error"] / rows["trained", "minimax"]["worst_error"]
    assert sample["ratio"] == pytest.approx(ratio)


def test_random_labels_are_measured_on_the_inputs_that_have_them(folders):
    for folder in folders:
        assert {row["covered"] for row in read_table(folder) if row["readoff"] == "random_labels"} == {"all 37"}


def test_certified_errors_are_measured_again(folders):
    for folder in folders:
        said = describe(folder, again=True)
        assert "missing" not in said
        recorded, again = np.array([
            [float(cell) for cell in line.split()[1:3]] for line in said.splitlines() if "-minimax.safetensors" in line
        ]).T  # fmt: skip
        assert len(recorded) == 3
        assert np.abs(recorded - again).max() < 1e-12


def test_fitted_readoffs_see_a_sample_of_their_own(folders):
    row = rows_of(folders[1])["gaussian", "least_squares"]
    assert row["covered"] == CompareConfig(**SMALL).features().sampled(2, derive_seed(0, "evaluation")).description
    network, _, _ = load_network(folders[1] / "and-seed-0" / "gaussian-least_squares.safetensors")
    whole, _, _ = load_network(folders[0] / "and-seed-0" / "gaussian-least_squares.safetensors")
    assert not torch.equal(network.readoff.weight, whole.readoff.weight)


def test_the_frozen_layer_and_the_outputs_of_minimax_have_streams_of_their_own(folders):
    network, task, _ = load_network(folders[0] / "and-seed-0" / "gaussian-minimax.safetensors")
    assert torch.equal(network.layer.weight, gaussian(8, 9, derive_seed(0, "frozen layer")).weight)
    assert torch.equal(task.pairs, PairTask(8, "and").sample(5, derive_seed(0, "pairs")).pairs)


def test_the_own_readoff_of_embedded_features_is_made_for_the_frozen_layer(tmp_path):
    config = CompareConfig(
        m=8, d=9, d0=6, task=("and",), readoffs=("own",), layers=("bernoulli(p=0.5)",), figures=False
    )
    task, name = config.make_task("and"), "bernoulli(p=0.5)"
    maker = RowMaker(config, task, task, 0, tmp_path, 0)
    layers = [bernoulli(8, 9, seed, 0.5) for seed in (derive_seed(0, "frozen layer"), 0)]
    right, other = (mean_readoff(layer, task, 2, 0.5, "affine").weight for layer in layers)
    assert torch.equal(maker._own_readoff(name, maker.layer(name)).weight, right)
    assert not torch.equal(right, other)


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_say_how_many_threads_made_them(threads, tmp_path, monkeypatch):
    before = torch.get_num_threads()
    config = CompareConfig(**SMALL, readoffs=("minimax", "trained"), threads=threads, out=tmp_path / "run")
    rows = read_table(run_compare(config))
    torch.set_num_threads(before)
    assert {row["threads"] for row in rows} == {threads}


def test_seconds_of_a_trained_row_are_those_of_the_training(tmp_path):
    folder = run_compare(
        CompareConfig(**SMALL, readoffs=("trained",), layers=("trained", "gaussian"), out=tmp_path / "run")
    )
    for (layer, _), row in rows_of(folder).items():
        _, _, extra = load_network(folder / "and-seed-0" / f"{layer}-training" / "network.safetensors")
        assert row["seconds"] == extra["seconds"].item() > 0


def test_the_frozen_layer_is_not_the_start_of_the_trained_one(tmp_path):
    """Two streams of one seed: otherwise the ratio would compare a layer with itself."""
    config = CompareConfig(
        **{**SMALL, "steps": 1}, optimiser="adam", lr=1e-9, readoffs=("minimax",), out=tmp_path / "run"
    )
    folder = run_compare(config) / "and-seed-0"
    frozen, trained = (
        load_network(folder / f"{name}-minimax.safetensors")[0].layer.weight for name in ("gaussian", "trained")
    )
    assert (frozen - trained).abs().max() > 0.1
