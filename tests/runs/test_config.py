import pytest
import torch

from toymodels.core.seeds import derive_seed
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError, check_device
from toymodels.experiments.compare import CompareConfig
from toymodels.experiments.train import TrainConfig
from toymodels.runs.identity import from_dict, identity, short_hash, to_dict
from toymodels.runs.settings import evaluation_inputs


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
        ({"inputs": "dense"}, "unknown kind of inputs"),
        ({"d": 0}, "at least 1"),
        ({"activation": "swish"}, "unknown activation"),
        ({"layer": "nope"}, "unknown first layer"),
        ({"layer_scale": 0}, "must be from 1e-6"),
        ({"layer_bias": float("inf")}, "the bias a finite number"),
        ({"layer": "kaiming", "layer_bias": 1}, "layer_bias is for gaussian.* leave it out"),
        ({"task": "nope"}, "unknown task 'nope'.*and, xor"),
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
        ({"wandb": "maybe"}, "unknown wandb 'maybe'.*offline"),
        ({"neurons": 5}, "unknown key 'neurons'"),
        ({"m": "many"}, "m = 'many': it must be a whole number"),
        ({"pairs": [[0, 1, 2]]}, "must be a list of pairs of whole numbers, such as"),
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
        ({"readoffs": ["psychic"]}, "unknown readoff 'psychic'.*minimax"),
        ({"minimax_pairs": 0}, "at least 1"),
        ({"frozen_layer": "identity"}, "name a random layer"),
        ({"frozen_layer": "nope"}, "unknown first layer"),
        ({"layers": ()}, "layers is empty"),
        ({"layers": ("gaussian", "nope")}, "unknown first layer 'nope'.*bernoulli"),
        ({"layers": ("shuffled",)}, "shuffled is made from the trained layer: add trained"),
        ({"layers": ("quadratic",), "d": 50}, "d = 50 is no square.*49 or 64"),
        ({"layers": ("bernoulli",), "layer_p": 1.5}, "p = 1.5: it must be above 0 and at most 1"),
        ({"layers": ("bernoulli",), "layer_p": 0}, "p = 0: it must be above 0"),
        ({"layers": ("bernoulli",), "layer_p": "asymptotic"}, "needs d > ln⁴"),
        ({"layers": ("ternary",), "layer_p": "asymptotic"}, "a number in"),
        ({"layers": ("bernoulli",), "layer_p": 1}, "makes all neurons of a bernoulli layer equal"),
        ({"layers": ("ternary",), "layer_p": 1e-7}, "hardly a weight"),
        ({"layers": ("all",), "layer_p": "asymptotic"}, "needs d > ln⁴"),
        ({"layers": ("gaussian", "gaussian")}, "layers names a first layer twice"),
        ({"readoffs": ("minimax", "minimax")}, "readoffs names a readoff twice"),
        ({"layers": ("gaussian", "trained"), "frozen_layer": "bernoulli"}, "not among layers: name it there"),
        ({"layers": ("gaussian",), "layer": "kaiming"}, "name trained in layers"),
        ({"layer": "identity"}, "nothing to train"),
        ({"frozen_layer": "shuffled"}, "shuffled.* name a random layer"),
        ({"readoffs": ("own",)}, "no first layer of this comparison .identity, gaussian, trained. has a readoff own"),
        ({"readoffs": ("own",), "layers": ("targeted",), "task": ("xor",)}, "has a readoff own of xor"),
        ({"readoffs": ("by_class",), "d0": 5}, "by_class: no embedding"),
        ({"d": 10**8, "readoffs": ("minimax",)}, "weights, more than 1e.10: take fewer"),
        ({"layer_p": 0.3}, "layer_p is for bernoulli, ternary.*layers, and there is none here: leave it out"),
        ({"frozen_layer": "rademacher", "activation": "gelu"}, "activation of its own"),
        ({"readoffs": ("random_labels",), "m": 400, "s": 3}, "leave"),
        ({"d0": 51}, "d0 = 51: it must be at most 50"),
        ({"d0": 0}, "d0 = 0"),
        ({"frame": "optimised"}, "it needs d0"),
        ({"d0": 20, "frame": "magic"}, "one of random, optimised"),
        ({"m": 400, "s": 3, "inputs": "exactly"}, "make 10,586,800, more than 3,000,000.*leave minimax out"),
    ],
)
def test_wrong_comparisons_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        from_dict(CompareConfig, change)


def test_comparisons_without_minimax_take_any_number_of_inputs():
    config = CompareConfig(m=200, s=3, inputs="exactly", readoffs=("analytic",))
    inputs = evaluation_inputs(config.features(), config.make_task("and"), 500, 0, "cpu")
    assert inputs.description.startswith("500 sampled (seed ")


def test_small_problems_are_covered_whole():
    config = TrainConfig()
    assert evaluation_inputs(config.features(), PairTask(50, "and"), 10, 0, "cpu").enumerated


def test_a_device_that_is_not_there_is_refused():
    for device in ("cuda:77", "teapot"):
        with pytest.raises(InputError, match="is not there"):
            check_device(device)
    check_device("cpu")


def test_streams_of_one_seed_differ():
    roles = ["trained layer", "frozen layer", "batches", "evaluation", "pairs", "fit", "frame", "labels"]
    seeds = {derive_seed(seed, role) for seed in range(50) for role in roles}
    assert len(seeds) == 400
    assert torch.Generator().manual_seed(max(seeds)).initial_seed() == max(seeds)


def test_a_setting_left_out_is_the_run_of_before_it_was_there():
    saved = to_dict(TrainConfig(m=6, d=4))
    before = {key: value for key, value in saved.items() if key not in ("d0", "frame", "values", "loss", "plugin")}
    assert short_hash(from_dict(TrainConfig, before)) == short_hash(TrainConfig(m=6, d=4))
    assert short_hash(from_dict(TrainConfig, {**before, "d0": 3})) != short_hash(TrainConfig(m=6, d=4))
    # A setting that is None does nothing, and stands in no identity.
    assert not {"d0", "frame", "steps"} & identity(TrainConfig(m=6, d=4)).keys()


def test_the_best_share_is_the_one_by_default():
    best = CompareConfig(layers=("bernoulli",), knobs={"p": "best"})
    assert best == CompareConfig(layers=("bernoulli",))
