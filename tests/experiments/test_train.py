"""Trainings as runs: each seed's network, its row, and what each stream of random numbers is for."""

import json

import pytest
import torch

from toymodels.core.evaluation import evaluate
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import derive_seed
from toymodels.core.training import Trainer
from toymodels.experiments.build import STOP
from toymodels.experiments.train import TrainConfig, run_train
from toymodels.layers.random import gaussian
from toymodels.runs.loop import train
from toymodels.runs.record import load_network
from toymodels.runs.settings import evaluation_inputs
from toymodels.runs.storage import read_json
from toymodels.runs.table import read_table

ADAM = {"m": 6, "d": 5, "steps": 12, "optimiser": "adam", "batch": 4, "lr": 0.05}


def by_hand(config, purpose, batches):
    """The network of seed 3, from the trainer alone."""
    layer = gaussian(6, 5, derive_seed(3, purpose)).requires_grad_(config.train_first)
    task = config.make_task("and")
    network = Network(layer, LinearReadoff.constant(task.n_outputs, 5))
    train(Trainer(network, task, config.features(), config, batches, "cpu"))
    return network.state_dict()


@pytest.mark.parametrize(("train_first", "purpose"), [(True, "trained layer"), (False, "frozen layer")])
def test_layer_and_batches_are_drawn_from_streams_of_their_own(train_first, purpose, tmp_path):
    config = TrainConfig(**ADAM, seeds=(3,), train_first=train_first, out=tmp_path / "run")
    kept = load_network(run_train(config) / "seed-3" / "network.safetensors")[0].state_dict()
    right = by_hand(config, purpose, derive_seed(3, "batches"))
    assert kept.keys() == right.keys()
    assert all(torch.equal(kept[name], right[name]) for name in right)
    for other in (3, derive_seed(3, purpose), derive_seed(3, "evaluation")):  # a test that could not tell them apart
        assert not torch.equal(by_hand(config, purpose, other)["readoff.weight"], right["readoff.weight"])


def test_a_row_holds_what_was_measured(tmp_path, monkeypatch):
    """On a sample of its own stream; the seconds are those of the training."""
    monkeypatch.setattr("toymodels.runs.settings.EXHAUSTIVE_LIMIT", 10)
    config = TrainConfig(**ADAM, seeds=(3, 4), eval_inputs=50, out=tmp_path / "run")
    rows = read_table(run_train(config))
    assert [row["seed"] for row in rows] == [3, 4]
    for row in rows:
        network, task, extra = load_network(tmp_path / "run" / f"seed-{row['seed']}" / "network.safetensors")
        inputs = config.features().sampled(50, derive_seed(row["seed"], "evaluation"))
        measured = evaluate(network, task, inputs)
        assert row["worst_error"] == measured.worst_error
        assert row["mean_worst_error"] == pytest.approx(measured.output_worst.mean().item())
        assert row["rms"] == measured.rms
        assert (row["rms_ones"], row["rms_zeros"]) == (measured.ones.rms, measured.zeros.rms)
        assert row["within_quarter"] == measured.within["0.25"] != measured.within["0.5"]
        assert row["covered"] == inputs.description
        assert (row["n_pairs"], row["all_pairs"]) == (15, 15)
        assert row["seconds"] == extra["seconds"].item() > 0
        assert row["threads"] == torch.get_num_threads()
        assert row["stopped_at"] is None


def test_samples_for_each_purpose_differ():
    config = TrainConfig(m=300, s=4, inputs="exactly", pairs=((0, 1),), optimiser="adam")
    task = config.make_task("and")
    drawn = [
        evaluation_inputs(config.features(), task, 20, seed, "cpu", purpose).indices.tolist()
        for seed in (0, 1)
        for purpose in ("evaluation", "fit")
    ]
    assert all(drawn[i] != drawn[j] for i in range(4) for j in range(i))
    again = evaluation_inputs(config.features(), task, 20, 0, "cpu")
    assert again.indices.tolist() == drawn[0]


def test_a_training_that_is_stopped_early_says_at_which_step(tmp_path, monkeypatch):
    monkeypatch.setattr("toymodels.experiments.build._LOOK_SECONDS", 0.0)
    config = TrainConfig(m=6, d=5, steps=500, seeds=(0, 1), out=tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / f".{STOP}").touch()  # a name of its own is no sign
    folder = run_train(config)
    assert [row["stopped_at"] for row in read_table(folder)] == [None, None]
    for name in ("results.json", "seed-1/result.json", "seed-1/network.safetensors"):
        (folder / name).unlink()
    (folder / STOP).touch()
    first, second = read_table(run_train(config))
    assert first["stopped_at"] is None
    assert second["stopped_at"] < 500
    steps = [json.loads(line)["step"] for line in (folder / "seed-1" / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == second["stopped_at"]


def test_a_finished_seed_is_read_and_not_trained_again(tmp_path, monkeypatch):
    config = TrainConfig(m=6, d=5, steps=5, seeds=(0, 1), out=tmp_path / "run")
    before = read_json(run_train(config) / "results.json")
    for name in ("results.json", "seed-1/result.json"):
        (tmp_path / "run" / name).unlink()
    monkeypatch.setattr(Trainer, "advance", lambda *_: pytest.fail("a finished training was done again"))
    assert read_json(run_train(config) / "results.json") == before
