"""Wrong calls in Python: (name, words that the answer must hold, the call)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toymodels import (
    FirstLayer,
    IdentityLayer,
    Inputs,
    LinearReadoff,
    Network,
    PairTask,
    SparseFeatures,
    Trainer,
    TrainingSettings,
    balanced,
    evaluate,
    gaussian,
    least_squares,
    make_layer,
    make_task,
    minimax,
)
from toymodels.core.features import make_features

TASK, FEATURES, NAN = PairTask(6, "and"), SparseFeatures.at_most(6, 2), float("nan")
INPUTS = FEATURES.enumerate()


def net(dtype: torch.dtype = torch.float32, outputs: int = 15) -> Network:
    return Network(gaussian(6, 4, 0), nn.Linear(4, outputs)).to(dtype)


def returns(function: Any) -> nn.Module:
    """A module that returns something wrong."""

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return function(x)

    return Wrong()


def complex_net() -> nn.Module:
    layer = nn.Linear(6, 15)
    layer.weight = nn.Parameter(torch.ones(15, 6, dtype=torch.complex64))
    return layer


def frozen() -> Network:
    return net().requires_grad_(False)


def with_nan() -> Network:
    network = net()
    network.layer.weight.data[0, 0] = NAN
    network.layer.bias.data[0] = NAN
    network.readoff.bias.data[0] = NAN
    return network


def train(**changes: Any) -> Any:
    given = {"network": net(), "task": TASK, "features": FEATURES, "settings": TrainingSettings(steps=3), "seed": 0}
    return Trainer(**(given | changes))


def finished() -> Any:
    trainer = train()
    while True:
        trainer.advance()


EYE = torch.eye(6)
OF_EVALUATE: list[tuple[str, str, Any]] = [
    ("network None", "network is of the kind NoneType", lambda: evaluate(None, TASK, INPUTS)),
    ("network a state", "network is of the kind OrderedDict", lambda: evaluate(net().state_dict(), TASK, INPUTS)),
    ("network a function", "network is of the kind function", lambda: evaluate(lambda x: x, TASK, INPUTS)),
    ("network a class", "network is of the kind type", lambda: evaluate(nn.Linear, TASK, INPUTS)),
    ("network and task swapped", "network is of the kind PairTask", lambda: evaluate(TASK, net(), INPUTS)),
    ("task a text", "task is of the kind str", lambda: evaluate(net(), "and", INPUTS)),
    ("inputs a tensor", "inputs is of the kind Tensor", lambda: evaluate(net(), TASK, EYE)),
    ("inputs an array", "inputs is of the kind ndarray", lambda: evaluate(net(), TASK, np.eye(6))),
    ("inputs features", "inputs is of the kind SparseFeatures", lambda: evaluate(net(), TASK, FEATURES)),
    ("no inputs", "there are no inputs", lambda: evaluate(net(), TASK, Inputs.of(torch.zeros(0, 6)))),
    ("other features", "they must be the same", lambda: evaluate(net(), PairTask(5, "and"), INPUTS)),
    ("dtype whole", "floating-point", lambda: evaluate(net(), TASK, INPUTS, torch.int64)),
    ("dtype complex", "floating-point", lambda: evaluate(net(), TASK, INPUTS, torch.complex64)),
    ("dtype text", "dtype is of the kind str", lambda: evaluate(net(), TASK, INPUTS, "float64")),
    ("tolerance below 0", "tolerances = -1", lambda: evaluate(net(), TASK, INPUTS, tolerances=(-1,))),
    ("tolerance NaN", "tolerances = nan", lambda: evaluate(net(), TASK, INPUTS, tolerances=(NAN,))),
    ("tolerance text", "tolerances = '0.1'", lambda: evaluate(net(), TASK, INPUTS, tolerances=("0.1",))),
    ("tolerance alone", "tolerances is of the kind float", lambda: evaluate(net(), TASK, INPUTS, tolerances=0.1)),
    ("complex weights", "complex numbers", lambda: evaluate(complex_net(), TASK, INPUTS)),
    ("weights without values", "device meta", lambda: evaluate(net().to("meta"), TASK, INPUTS)),
    ("NaN weights", "not a finite number", lambda: evaluate(with_nan(), TASK, INPUTS)),
    ("returns complex", "of complex numbers", lambda: evaluate(returns(lambda x: torch.ones(len(x), 15) * 1j), TASK, INPUTS)),
    ("returns an array", "a ndarray", lambda: evaluate(returns(lambda x: np.zeros((len(x), 15))), TASK, INPUTS)),
    ("returns None", "a NoneType", lambda: evaluate(returns(lambda x: None), TASK, INPUTS)),
    ("returns a vector", "shape (2,)", lambda: evaluate(returns(lambda x: x[:, 0]), TASK, INPUTS)),
    ("returns two rows", " inputs", lambda: evaluate(returns(lambda x: torch.zeros(2, 15)), TASK, INPUTS)),
    ("returns few outputs", "another number of outputs", lambda: evaluate(net(outputs=3), TASK, INPUTS)),
    ("takes nothing", "does not take a batch", lambda: evaluate(nn.Module(), TASK, INPUTS)),
    ("takes other features", "does not take a batch", lambda: evaluate(nn.Linear(5, 15), TASK, INPUTS)),
]  # fmt: skip
OF_READOFFS: list[tuple[str, str, Any]] = [
    (f"{name}: {what}", expected, lambda fit=fit, arguments=arguments: fit(*arguments))
    for name, fit in (("minimax", minimax), ("least_squares", least_squares))
    for what, expected, arguments in (
        ("layer None", "layer is of the kind NoneType", (None, TASK, INPUTS)),
        ("task a text", "task is of the kind str", (gaussian(6, 4, 0), "and", INPUTS)),
        ("inputs features", "inputs is of the kind SparseFeatures", (gaussian(6, 4, 0), TASK, FEATURES)),
        ("swapped", "task is of the kind Inputs", (gaussian(6, 4, 0), INPUTS, TASK)),
        ("other features", "does not take a batch", (gaussian(5, 4, 0), TASK, INPUTS)),
        ("returns NaN", "finite", (returns(lambda x: x * NAN), TASK, INPUTS)),
        ("returns complex", "of complex numbers", (returns(lambda x: x * 1j), TASK, INPUTS)),
        ("returns a vector", "shape (2,)", (returns(lambda x: x[:, 0]), TASK, INPUTS)),
        ("returns half numbers", "float64", (returns(lambda x: x.half()), TASK, INPUTS)),
        ("returns whole numbers", "float64", (returns(lambda x: x.long()), TASK, INPUTS)),
    )
] + [
    ("balanced: task a text", "task is of the kind str", lambda: balanced(gaussian(6, 4, 0), "and", FEATURES, INPUTS)),
    ("minimax: no process", "processes = 0", lambda: minimax(gaussian(6, 4, 0), TASK, INPUTS, processes=0)),
]  # fmt: skip
OF_TRAINER: list[tuple[str, str, Any]] = [
    (f"Trainer: {what}", expected, lambda changes=changes: train(**{k: v() if callable(v) else v for k, v in changes.items()}))
    for what, expected, changes in (
        ("network None", "network is of the kind NoneType", {"network": None}),
        ("a module alone", "it must be a Network", {"network": lambda: nn.Sequential(nn.Linear(6, 15))}),
        ("task a text", "task is of the kind str", {"task": "and"}),
        ("a list of inputs", "features is of the kind Inputs", {"features": INPUTS}),
        ("settings a dictionary", "settings is of the kind dict", {"settings": {"steps": 3}}),
        ("seed a text", "seed = '0'", {"seed": "0"}),
        ("seed below 0", "seed = -1", {"seed": -1}),
        ("seed a generator", "seed = <torch", {"seed": torch.Generator()}),
        ("unknown device", "is not there", {"device": "gpu"}),
        ("other features", "they must be the same", {"features": SparseFeatures.at_most(5, 2)}),
        ("other layer", "does not take a batch", {"network": lambda: Network(gaussian(5, 4, 0), nn.Linear(4, 15))}),
        ("other readoff", "does not take a batch", {"network": lambda: Network(gaussian(6, 4, 0), nn.Linear(5, 15))}),
        ("one output", "the network has 1 outputs", {"network": lambda: net(outputs=1)}),
        ("nothing to train", "nothing can be trained", {"network": frozen}),
        ("NaN weights", "not finite", {"network": with_nan}),
        ("weights without values", "device meta", {"network": lambda: net().to("meta")}),
    )
] + [("Trainer: a step more", "all 3 steps are done", finished)]  # fmt: skip
OF_MODULES: list[tuple[str, str, Any]] = [
    ("Network: None", "layer is of the kind NoneType", lambda: Network(None, None)),
    ("Network: layer a name", "layer is of the kind str", lambda: Network("gaussian", nn.Linear(4, 15))),
    ("Network: readoff a matrix", "readoff is of the kind Tensor", lambda: Network(gaussian(6, 4, 0), torch.ones(15, 4))),
    ("Network: readoff a solution", "readoff is of the kind Minimax",
     lambda: Network(gaussian(6, 4, 0), minimax(gaussian(6, 4, 0), PairTask(6, "and", [[0, 1]]), INPUTS))),
    ("FirstLayer: lists", "weight is of the kind list", lambda: FirstLayer([[1.0]], [0.0])),
    ("FirstLayer: arrays", "weight is of the kind ndarray", lambda: FirstLayer(np.ones((3, 2)), np.ones(3))),
    ("FirstLayer: a vector", "must be a matrix", lambda: FirstLayer(torch.ones(3), torch.ones(3))),
    ("FirstLayer: whole numbers", "of floats", lambda: FirstLayer(torch.ones(3, 2, dtype=torch.int64), torch.ones(3))),
    ("FirstLayer: complex", "of floats", lambda: FirstLayer(torch.ones(3, 2) * 1j, torch.ones(3))),
    ("FirstLayer: a longer bias", "for each of its rows", lambda: FirstLayer(torch.ones(3, 2), torch.ones(4))),
    ("FirstLayer: activation None", "activation is of the kind NoneType",
     lambda: FirstLayer(torch.ones(3, 2), torch.ones(3), None)),
    ("FirstLayer: activation a list", "activation is of the kind list",
     lambda: FirstLayer(torch.ones(3, 2), torch.ones(3), ["relu"])),
    ("LinearReadoff: lists", "weight is of the kind list", lambda: LinearReadoff([[1.0]], [1.0])),
    ("LinearReadoff: a shorter bias", "for each of its rows", lambda: LinearReadoff(torch.ones(3, 4), torch.ones(2))),
    ("IdentityLayer: 0", "m = 0", lambda: IdentityLayer(0)),
    ("IdentityLayer: text", "m = '6'", lambda: IdentityLayer("6")),
    ("make_layer: None", "name is of the kind NoneType", lambda: make_layer(None, 6, 4, 0)),
    ("make_layer: ''", "unknown first layer ''", lambda: make_layer("", 6, 4, 0)),
    ("make_layer: m text", "m = '6'", lambda: make_layer("gaussian", "6", 4, 0)),
    ("make_layer: m = 0", "m = 0", lambda: make_layer("gaussian", 0, 4, 0)),
    ("make_layer: d = -1", "d = -1", lambda: make_layer("gaussian", 6, -1, 0)),
    ("make_layer: d true", "d = True", lambda: make_layer("gaussian", 6, True, 0)),
    ("make_layer: bernoulli(p=true)", "got 'true'", lambda: make_layer("bernoulli(p=true)", 6, 4, 0)),
    ("make_layer: seed 1.5", "seed = 1.5", lambda: make_layer("gaussian", 6, 4, 1.5)),
    ("make_layer: seed None", "seed = None", lambda: make_layer("gaussian", 6, 4, None)),
    ("make_layer: seed true", "seed = True", lambda: make_layer("gaussian", 6, 4, True)),
    ("make_layer: seed 2^70", "at most", lambda: make_layer("gaussian", 6, 4, 2**70)),
    ("gaussian: m = 6.0", "m = 6.0", lambda: gaussian(6.0, 4, 0)),
    ("gaussian: scale '1'", "scale = '1'", lambda: gaussian(6, 4, 0, scale="1")),
]  # fmt: skip
OF_FEATURES: list[tuple[str, str, Any]] = [
    ("Inputs.of: a list", "x is of the kind list", lambda: Inputs.of([[1, 0]])),
    ("Inputs.of: an array", "x is of the kind ndarray", lambda: Inputs.of(np.eye(6))),
    ("Inputs.of: a vector", "a row for each input", lambda: Inputs.of(torch.ones(3))),
    ("Inputs.of: complex", "real numbers", lambda: Inputs.of(EYE * 1j)),
    ("Inputs.of: NaN", "not a finite number", lambda: Inputs.of(EYE * NAN)),
    ("Inputs.of: without values", "device meta", lambda: Inputs.of(EYE.to("meta"))),
    ("Inputs.of: probabilities below 0", "none below 0", lambda: Inputs.of(torch.eye(2), torch.tensor([-1.0, 2.0]))),
    ("Inputs.of: probabilities NaN", "with sum nan", lambda: Inputs.of(torch.eye(2), torch.tensor([NAN, 1.0]))),
    ("Inputs.of: too few probabilities", "need as many", lambda: Inputs.of(EYE, [1.0])),
    ("at_most: m text", "m = '6'", lambda: SparseFeatures.at_most("6", 2)),
    ("at_most: m = 6.0", "m = 6.0", lambda: SparseFeatures.at_most(6.0, 2)),
    ("at_most: s = 2.5", "s = 2.5", lambda: SparseFeatures.at_most(6, 2.5)),
    ("at_most: s NaN", "s = nan", lambda: SparseFeatures.at_most(6, NAN)),
    ("at_most: s true", "from 1 to m = 6", lambda: SparseFeatures.at_most(6, True)),
    ("at_most: s None", "s is of the kind NoneType", lambda: SparseFeatures.at_most(6, None)),
    ("independent: text", "p is of the kind str", lambda: SparseFeatures.independent(6, "0.1")),
    ("independent: tensor", "p is of the kind Tensor", lambda: SparseFeatures.independent(6, torch.ones(2))),
    ("independent: NaN", "strictly between 0 and 1", lambda: SparseFeatures.independent(6, NAN)),
    ("exactly: values None", "name is of the kind NoneType", lambda: SparseFeatures.exactly(6, 2, values=None)),
    ("exactly: values misspelt", "did you mean 'uniform'", lambda: SparseFeatures.exactly(6, 2, values="unifrm")),
    ("counts NaN", "with sum nan", lambda: SparseFeatures(6, (NAN, 1.0), "x")),
    ("counts empty", "got 0 numbers", lambda: SparseFeatures(6, (), "x")),
    ("counts a list", "counts is of the kind list", lambda: SparseFeatures(6, [1.0], "x")),
    ("make_features: s text", "s is of the kind str", lambda: make_features("at_most", 6, "2")),
    ("make_features: 3", "name is of the kind int", lambda: make_features(3, 6, 2)),
    ("sampled: none", "n = 0", lambda: FEATURES.sampled(0, 0)),
    ("sampled: 2.5", "n = 2.5", lambda: FEATURES.sampled(2.5, 0)),
    ("sampled: true", "n = True", lambda: FEATURES.sampled(True, 0)),
    ("sampled: seed text", "seed = '0'", lambda: FEATURES.sampled(5, "0")),
    ("sampled: device", "is not there", lambda: FEATURES.sampled(5, 0, "cdua")),
    ("sample: below 0", "n = -1", lambda: FEATURES.sample(-1, torch.Generator())),
    ("sample: a seed", "generator is of the kind int", lambda: FEATURES.sample(3, 0)),
    ("enumerate: limit", "more than the limit of 3", lambda: FEATURES.enumerate(limit=3)),
    ("enumerate: limit text", "limit = '3'", lambda: FEATURES.enumerate(limit="3")),
    ("enumerate: device", "is not there", lambda: FEATURES.enumerate(device="gpu")),
]  # fmt: skip
OF_TASKS: list[tuple[str, str, Any]] = [
    (f"PairTask{arguments!r}"[:60], expected, lambda arguments=arguments: PairTask(*arguments))
    for arguments, expected in (
        (("6", "and"), "m = '6'"), ((6.0, "and"), "m = 6.0"), ((1, "and"), "at least 2"), ((True, "and"), "m = True"),
        ((6, None), "name is of the kind NoneType"), ((6, 3), "name is of the kind int"), ((6, "adn"), "unknown gate"),
        ((6, "00012"), "unknown gate"), ((6, "and", []), "list of pairs is empty"), ((6, "and", [[0]]), "a list of pairs"),
        ((6, "and", [[0, -1]]), "out of range"), ((6, "and", "01"), "a list of pairs"), ((6, "and", 5), "a list of pairs"),
        ((6, "and", [[0.5, 1]]), "a list of pairs"), ((6, "and", [[NAN, 1]]), "a list of pairs"),
        ((6, "and", [[0, 1, 2]]), "a list of pairs"), ((6, "and", {(0, 1)}), "a list of pairs"),
        ((6, "and", [["0", "1"]]), "a list of pairs"), ((6, "and", [[0, None]]), "a list of pairs"),
        ((6, "and", [[2**70, 1]]), "a list of pairs"), ((6, "and", np.zeros((1, 2))), "k = l"),
    )
] + [
    (f"make_task{arguments!r}", expected, lambda arguments=arguments: make_task(*arguments))
    for arguments, expected in (
        (("and_of(k=0)", 6), "at least 2"), (("and_of(k=2.5)", 6), "whole number"), (("and_of(k=true)", 6), "finite number"),
        (("relu", 0), "m = 0"), (("relu", "6"), "m = '6'"), ((None, 6), "name is of the kind NoneType"),
        ((["and"], 6), "name is of the kind list"), (("product(k=-1)", 6), "no knob 'k'"), (("and(", 6), "no name with knobs"),
        (("(and)", 6), "no name with knobs"), (("and and", 6), "did you mean 'and'"), (("relu", 6, [[0, 1]]), "leave pairs out"),
    )
]  # fmt: skip
CALLS = [*OF_EVALUATE, *OF_READOFFS, *OF_TRAINER, *OF_MODULES, *OF_FEATURES, *OF_TASKS]
