"""The code of arXiv:2607.04800 as a first layer of the bench: a plugin."""

import importlib

import torch

from tests.members import own
from toymodels import LAYERS, PairTask, SparseFeatures, make_task
from toymodels.compressed.codes import biregular


def test_it_is_the_designed_code_with_one_weight_between_features(monkeypatch):
    own(monkeypatch, LAYERS)
    module = importlib.import_module("analysis.code_layer")
    features = SparseFeatures.independent(12, 0.1, "symmetric")
    layer = module.code_layer(12, 6, 3, features, k=3)
    assert layer.weight.shape == (6, 12)
    support = biregular(12, 6, 3, 3).T
    on, off = layer.weight[support != 0], layer.weight[support == 0]
    assert len(on.unique()) == 1
    assert len(off.unique()) == 1
    assert float(on[0]) > abs(float(off[0]))
    assert torch.equal(module.code_layer(12, 6, 3, features, k=3).weight, layer.weight)
    assert module.is_relu(make_task("relu", 12))
    assert not module.is_relu(PairTask(12, "and"))
