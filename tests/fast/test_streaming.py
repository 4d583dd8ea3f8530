"""Outputs read in blocks of neurons equal those of a layer and readoff that are held whole."""

import math

import numpy as np
import pytest
import torch

from toymodels import FirstLayer, Gate, InputError, Network, PairTask, SparseFeatures, analytic, evaluate
from toymodels.fast.streaming import analytic_rule, case_errors, rule_of, sample_cases, stream_outputs
from toymodels.theory.counts import case_counts
from toymodels.theory.optimal import optimal_readoff
from toymodels.theory.quadrants import error_std

M, S, D, BLOCK = 8, 3, 50, 16


def whole_layer(seed):
    """The layer that blocks of 16 neurons make, in one piece."""
    generator = torch.Generator().manual_seed(seed)
    blocks = [torch.randn(min(BLOCK, D - start), M, generator=generator) for start in range(0, D, BLOCK)]
    return FirstLayer(torch.cat(blocks), torch.zeros(D), "relu", "gaussian")


@pytest.mark.parametrize("name", ["and", "xor", "first_and_not_second", "nor"])
def test_equals_the_readoff_and_evaluation_of_a_layer_held_whole(name):
    task = PairTask(M, name)
    inputs = SparseFeatures.exactly(M, S).enumerate()
    outputs = stream_outputs(analytic_rule(task.gate, S), D, task, inputs, seed=3, block=BLOCK)
    layer = whole_layer(3)
    network = Network(layer, analytic(layer, task, S))
    torch.testing.assert_close(outputs, network(inputs.dense()).double(), rtol=1e-5, atol=1e-5)
    found, whole = case_errors(outputs, task, inputs), evaluate(network, task, inputs)
    assert found.worst == pytest.approx(whole.worst_error, rel=1e-5)
    np.testing.assert_allclose(np.sqrt(found.mean_square), [case.rms for case in whole.cases.values()], rtol=1e-5)
    np.testing.assert_allclose(found.count / len(inputs), case_counts(M, S))


def test_any_function_of_a_pairs_weights_is_a_rule():
    task, inputs = PairTask(M, "and"), SparseFeatures.exactly(M, S).enumerate()
    best = optimal_readoff(task.gate, S)
    rule = rule_of(lambda u, v: best.eta(u, v, np.zeros_like(u)))
    outputs = stream_outputs(rule, D, task, inputs, seed=3, block=BLOCK)
    layer = whole_layer(3)
    w = layer.weight.detach().double().numpy()
    k, l = task.pairs.T.numpy()
    eta = best.eta(w[:, k], w[:, l], np.zeros((D, len(k))))
    expected = layer(inputs.dense()).detach().double().numpy() @ eta / D
    np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("s", [0, 1, 2, 3])
def test_a_sample_holds_every_case_that_s_can_produce(s):
    inputs, task = sample_cases(40, s, Gate.parse("xor"), 50, seed=1)
    found = case_errors(torch.zeros(len(inputs), task.n_outputs, dtype=torch.float64), task, inputs)
    assert [count > 10 for count in found.count] == [True, s >= 1, s >= 1, s >= 2]
    assert bool((task.pairs[:, 0] < task.pairs[:, 1]).all())
    assert len(torch.unique(task.pairs, dim=0)) == task.n_outputs
    assert bool((inputs.dense().sum(1) == s).all())


def test_errors_of_a_sample_have_the_predicted_size():
    gate, d = Gate.parse("and"), 512
    squares = []
    for seed in range(40):
        inputs, task = sample_cases(200, 2, gate, 50, seed)
        outputs = stream_outputs(analytic_rule(gate, 2), d, task, inputs, 1000 + seed)
        squares.append(case_errors(outputs, task, inputs).mean_square)
    z = (np.mean(squares, axis=0) - error_std(gate, 2) ** 2 / d) / (np.std(squares, axis=0) / math.sqrt(40))
    assert np.abs(z).max() < 4.0  # four cases, 40 layers: a right formula is this far off once in 1,000 sets of seeds


def test_a_layer_without_neurons_is_refused():
    task, inputs = PairTask(M, "and"), SparseFeatures.exactly(M, S).enumerate()
    with pytest.raises(InputError, match="at least 1"):
        stream_outputs(analytic_rule(task.gate, S), 0, task, inputs, seed=0)
