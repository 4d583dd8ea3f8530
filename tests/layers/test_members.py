"""What every first layer of the registry must hold to, and which readoff belongs to each construction."""

import pytest
import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.layers import LAYERS, layer_width, make_layer
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.layers import four_class, iid, ternary
from toymodels.layers.fan_in import fan_in_readoff, inclusion_exclusion_readoff
from toymodels.layers.quadratic import quadratic_readoff
from toymodels.layers.targeted import targeted_readoff
from toymodels.readoffs.by_class import class_readoff, mean_readoff
from toymodels.tasks.sets import conjunction
from toymodels.theory.distributions import RADEMACHER

M, D, S = 10, 36, 3
DRAWN = [
    name
    for name, member in LAYERS.items()
    if not member.uses_trained and member.role not in ("none", "trained") and "seed" in member.parameters
]
CONSTRUCTIONS = [name for name in DRAWN if LAYERS[name].role == "construction"]
AND, AND3 = PairTask(M, "and"), conjunction(M, 3)


def offered(task=AND, seed=0):
    return {
        "m": M,
        "d": D,
        "s": S,
        "seed": seed,
        "activation": "relu",
        "task": task,
        "features": SparseFeatures.at_most(M, S),
    }


def task_for(name):
    return next(task for task in (AND, AND3) if LAYERS.named(name)[0].fits(task))


def drawn(name, seed=0):
    return make_layer(name, **offered(task_for(name), seed))


def own(name, layer):
    member, knobs = LAYERS.named(name)
    return member.aside(member.own_readoff, {**offered(task_for(name)), "layer": layer}, knobs)


PAIRWISE = ["bernoulli", "ternary", "rademacher", "targeted", "quadratic", "four_class"]


@pytest.mark.parametrize("name", DRAWN)
def test_a_layer_is_drawn_from_its_seed_and_takes_features(name):
    layer, again, other = drawn(name), drawn(name), drawn(name, seed=1)
    x = SparseFeatures.at_most(M, 4).enumerate().dense()
    activations = layer(x)
    assert activations.shape == (len(x), D)
    assert layer_width(layer, M) == D
    assert layer.origin == {"fan_in": "fan-in", "inclusion_exclusion": "fan-in"}.get(name, name)
    assert torch.equal(activations, again(x))
    assert not torch.equal(activations, other(x))
    assert activations.dtype == torch.float32
    assert LAYERS[name].source
    assert LAYERS[name].purpose


def test_constructions_stand_in_the_order_of_tables():
    assert [*PAIRWISE, "fan_in", "inclusion_exclusion"] == CONSTRUCTIONS
    assert list(LAYERS)[:3] == ["identity", "gaussian", "kaiming"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bernoulli(p=0.4)", lambda layer: mean_readoff(layer, AND, S, 0.4, "affine")),
        ("bernoulli", lambda layer: mean_readoff(layer, AND, S, iid.connection_probability("best", M, D, S), "affine")),
        ("ternary(p=0.6)", lambda layer: class_readoff(layer, AND, S, iid.ternary_weights(0.6))),
        ("ternary", lambda layer: class_readoff(layer, AND, S, iid.ternary_weights(ternary.best_ternary(S)))),
        ("rademacher", lambda layer: class_readoff(layer, AND, S, RADEMACHER)),
        ("targeted", lambda layer: targeted_readoff(layer, AND)),
        ("quadratic", lambda layer: quadratic_readoff(layer, AND)),
        ("fan_in", lambda layer: fan_in_readoff(layer, AND3, S)),
        ("inclusion_exclusion", lambda layer: inclusion_exclusion_readoff(layer, AND3)),
        ("four_class", lambda layer: class_readoff(layer, AND, S, four_class.four_class_weights(S, AND.gate))),
    ],
)
def test_the_own_readoff_of_a_construction_is_its_authors(name, expected):
    layer = drawn(name)
    readoff, wanted = own(name, layer), expected(layer)
    torch.testing.assert_close(readoff.weight, wanted.weight)
    torch.testing.assert_close(readoff.bias, wanted.bias)
    assert readoff.weight.any()


def test_an_own_readoff_is_made_where_it_computes_the_task():
    computes = {gate: [n for n in CONSTRUCTIONS if LAYERS[n].reads(PairTask(M, gate))] for gate in ("and", "xor")}
    assert computes["and"] == PAIRWISE
    assert computes["xor"] == ["ternary", "rademacher", "quadratic", "four_class"]
    assert [n for n in CONSTRUCTIONS if LAYERS[n].reads(AND3)] == ["fan_in", "inclusion_exclusion"]
    assert not LAYERS["targeted"].fits(AND3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bernoulli(p=1)", "all neurons of a bernoulli layer equal"),
        ("bernoulli(p=2)", "at most 1"),
        ("bernoulli(p=most)", "best"),
        ("bernoulli(p=1e-4)", "hardly a weight"),
        ("ternary(p=0)", "above 0"),
        ("ternary(p=most)", "or best"),
        ("rademacher(bias=some)", "must be a finite number"),
    ],
)
def test_knobs_out_of_range_are_refused(name, words):
    with pytest.raises(InputError, match=words):
        drawn(name)


def test_a_layer_chooses_its_own_knobs_for_a_problem():
    for name, p in (("bernoulli", iid.connection_probability("best", M, D, S)), ("ternary", ternary.best_ternary(S))):
        member, knobs = LAYERS.named(name)
        assert member.aside(member.chosen, offered(), knobs) == {"p": p}
        assert member.aside(member.chosen, offered(), {"p": 0.3}) == {}
    assert iid.connection_probability("best", M, D, S) != iid.connection_probability("best", M, D, S, "shift")
