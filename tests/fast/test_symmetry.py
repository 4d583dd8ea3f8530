"""The identity layer's minimax readoffs, solved for one pair and permuted for the others."""

import dataclasses

import numpy as np
import pytest
import torch

import toymodels
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.layers import IdentityLayer
from toymodels.core.minimax import GAP, minimax
from toymodels.core.tasks import PairTask
from toymodels.fast.symmetry import interchangeable
from toymodels.layers.random import gaussian


@pytest.mark.parametrize("gate", ["and", "xor", "0010"])
@pytest.mark.parametrize("features", [SparseFeatures.at_most(6, 3), SparseFeatures.exactly(5, 2)])
def test_permuted_readoffs_are_as_good_as_solved_ones_and_proved(gate, features, wing):
    task, inputs = PairTask(features.m, gate), features.enumerate()
    # Of these pairs, (0, 1) goes to (1, 2) by a cycle of three features, whose inverse is another permutation.
    task = task.subset(torch.tensor([0, 5, 3, 9, 4, 7]))
    assert interchangeable(IdentityLayer(features.m), task, inputs)
    found = minimax(IdentityLayer(features.m), task, inputs)
    with toymodels.plain():
        plain = minimax(IdentityLayer(features.m), task, inputs)
    assert found.proved
    x = inputs.dense(dtype=torch.float64)
    errors = (found.readoff(x) - task.targets(x)).abs().amax(0)
    for certificate, expected, error in zip(found.certificates, plain.certificates, errors.tolist(), strict=True):
        assert certificate.worst_error == pytest.approx(expected.worst_error, abs=2 * GAP)
        assert certificate.worst_error == pytest.approx(error, abs=1e-12)
        moments = certificate.multipliers @ x.numpy()[certificate.rows]
        assert np.abs(moments).max() < 1e-9
        assert abs(certificate.multipliers.sum()) < 1e-9


def test_only_inputs_closed_under_permutations_are_interchangeable():
    task, layer = PairTask(5, "and"), IdentityLayer(5)
    inputs = SparseFeatures.at_most(5, 2).enumerate()
    assert interchangeable(layer, task, inputs)
    assert not interchangeable(gaussian(5, 5, 0), task, inputs)
    x = inputs.dense()
    assert not interchangeable(layer, task, Inputs.of(x[1:7], enumerated=True))
    doubled = torch.cat([x[:-1], x[-2:-1]])  # as many inputs with two active features, but one of them twice
    assert not interchangeable(layer, task, Inputs.of(doubled, enumerated=True))
    assert not interchangeable(layer, task, dataclasses.replace(inputs, values=torch.ones(inputs.indices.shape)))
