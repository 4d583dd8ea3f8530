import pytest
import torch

from toymodels.config import check_device, cover, derive_seed, from_dict, identity, short_hash, to_dict
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig
from toymodels.experiments.train import TrainConfig
from toymodels.tasks import PairTask


@pytest.mark.parametrize("config", [TrainConfig(m=9, pairs=((0, 3), (2, 1)), weight=3, p=(2,)), CompareConfig(s=1)])
def test_a_configuration_comes_back_from_its_record(config):
    assert from_dict(type(config), to_dict(config)) == config


def test_equal_numbers_make_equal_runs():
    assert short_hash(TrainConfig(s=2, p=(4,), weight=3)) == short_hash(TrainConfig(s=2.0, p=(4.0,), weight=3.0))
    assert short_hash(TrainConfig(s=2)) != short_hash(TrainConfig(s=3))
    assert identity(TrainConfig(threads=1)) == identity(TrainConfig(threads=2))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"m": 1}, "at least 2"),
        ({"m": 4, "s": 5}, "from 1 to m = 4"),
        ({"s": 0}, "from 1"),
        ({"s": 1.5}, "whole number"),
        ({"inputs": "independent", "s": 50}, "strictly between 0 and m = 50"),
        ({"inputs": "independent", "s": 0}, "strictly between 0 and m = 50"),
        ({"inputs": "dense"}, "unknown inputs"),
        ({"d": 0}, "at least 1"),
        ({"activation": "swish"}, "unknown activation"),
        ({"layer": "nope"}, "unknown first layer"),
        ({"layer_scale": 0}, "must be from 1e-6"),
        ({"layer_bias": float("inf")}, "a finite one"),
        ({"layer": "kaiming", "layer_bias": 1}, "leave them out"),
        ({"task": "nope"}, "unknown gate or task"),
        ({"optimiser": "sgd"}, "unknown optimiser"),
        ({"p": [0.5]}, "exponent"),
        ({"weight": 0}, "positive"),
        ({"pairs": [[0, 50]]}, "out of range"),
        ({"pairs": [[3, 3]]}, "k = l"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [1, 1]}, "different"),
        ({"seeds": [-1]}, "from 0 up"),
        ({"threads": 0}, "at least 1"),
        ({"eval_inputs": 0}, "at least 1"),
        ({"wandb": "maybe"}, "unknown wandb mode"),
        ({"neurons": 5}, "unknown key 'neurons'"),
        ({"m": "many"}, "'many' of 'm'"),
        ({"pairs": [[0, 1, 2]]}, "of 'pairs'"),
    ],
)
def test_wrong_configurations_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        from_dict(TrainConfig, change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": []}, "task is empty"),
        ({"task": ["and", "0001"]}, "twice"),
        ({"readoffs": ["psychic"]}, "unknown readoff psychic"),
        ({"minimax_pairs": 0}, "at least 1"),
        ({"frozen_layer": "identity"}, "name a random layer"),
        ({"frozen_layer": "nope"}, "unknown first layer"),
        ({"m": 200, "s": 3, "inputs": "exactly"}, "make 1,313,400, more than 200,000.*leave minimax out"),
    ],
)
def test_wrong_comparisons_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        from_dict(CompareConfig, change)


def test_comparisons_without_minimax_take_any_number_of_inputs():
    config = CompareConfig(m=200, s=3, inputs="exactly", readoffs=("analytic",))
    inputs = cover(config.features(), config.make_task("and"), 500, 0, "cpu")
    assert inputs.description.startswith("500 sampled (seed ")


def test_small_problems_are_covered_whole():
    config = TrainConfig()
    assert cover(config.features(), PairTask(50, "and"), 10, 0, "cpu").enumerated


def test_a_device_that_is_not_there_is_refused():
    for device in ("cuda:77", "teapot"):
        with pytest.raises(InputError, match="is not there"):
            check_device(device)
    check_device("cpu")


def test_streams_of_one_seed_differ():
    roles = ["trained layer", "frozen layer", "batches", "evaluation", "pairs"]
    seeds = {derive_seed(seed, role) for seed in range(50) for role in roles}
    assert len(seeds) == 250
    assert torch.Generator().manual_seed(max(seeds)).initial_seed() == max(seeds)
