"""The gradient of the minimax error against finite differences, a one-sided inequality at ties, and the descent."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from toymodels.core.features import SparseFeatures
from toymodels.core.layers import FirstLayer, IdentityLayer
from toymodels.core.minimax import minimax
from toymodels.core.tasks import PairTask, make_task
from toymodels.core.worst_case import SUMMARIES, descend, layer_gradient, output_weights
from toymodels.errors import InputError

M, D = 5, 6
INPUTS = SparseFeatures.at_most(M, 2).enumerate()
AND = PairTask(M, "and")


def drawn(seed, activation="relu", m=M, d=D):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(d, m, generator=generator, dtype=torch.float64)
    return FirstLayer(weight, torch.randn(d, generator=generator, dtype=torch.float64), activation)


def errors(layer, task=AND, inputs=INPUTS):
    return np.array([known.worst_error for known in minimax(layer, task, inputs).certificates])


def moved(layer, direction, length):
    """The layer after a step along a direction, which has a tensor for each parameter."""
    layer = copy.deepcopy(layer)
    with torch.no_grad():
        for name, value in layer.named_parameters():
            value += length * direction[name]
    return layer


def directions(layer, number, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(number):
        yield {n: torch.randn(v.shape, generator=generator, dtype=torch.float64) for n, v in layer.named_parameters()}


def along(gradient, direction):
    return sum(float((gradient[name] * direction[name]).sum()) for name in direction)


@pytest.mark.parametrize(("activation", "task"), [("relu", "and"), ("relu", "xor"), ("tanh", "and")])
def test_the_gradient_is_that_of_finite_differences(form, activation, task):
    layer, task = drawn(0, activation), make_task(task, M)
    weights = np.random.default_rng(0).random(task.n_outputs)
    gradient = layer_gradient(layer, task, INPUTS, minimax(layer, task, INPUTS).certificates, weights)
    size, step = max(float(value.abs().max()) for value in gradient.values()), 1e-5
    for direction in directions(layer, 4):
        above, below = (weights @ errors(moved(layer, direction, sign * step), task) for sign in (1, -1))
        assert (above - below) / (2 * step) == pytest.approx(along(gradient, direction), abs=1e-5 * max(1, size))
    assert size > 0.01


def test_a_gradient_of_other_multipliers_is_not_that_of_finite_differences():
    layer = drawn(0)
    known = minimax(layer, AND, INPUTS).certificates
    wrong = [dataclasses.replace(one, multipliers=np.roll(one.multipliers, 1)) for one in known]
    direction = next(directions(layer, 1))
    true = (errors(moved(layer, direction, 1e-5)).sum() - errors(moved(layer, direction, -1e-5)).sum()) / 2e-5
    assert abs(along(layer_gradient(layer, AND, INPUTS, wrong), direction) - true) > 1e-2


def test_where_certificates_are_tied_the_error_falls_no_faster_than_any_of_them_says(form):
    """Features 2, 3 and 4 have the same weights: inputs tie, any of them may carry the certificate, and the error has a kink.

    With one best readoff, the derivative along a direction is the largest over certificates (Danskin): each bounds it from below.
    """
    layer = drawn(3, d=4)
    with torch.no_grad():
        layer.weight[:, 3:] = layer.weight[:, 2:3]
    known = minimax(layer, AND, INPUTS).certificates
    before, first = np.array([one.worst_error for one in known]), np.eye(AND.n_outputs)[0]
    step, larger = 1e-5, 0
    for direction in directions(layer, 12):
        slope = along(layer_gradient(layer, AND, INPUTS, known, first), direction)
        rise = (errors(moved(layer, direction, step))[0] - before[0]) / step
        assert rise >= slope - 1e-3  # the curvature's share of a step of 1e-5
        larger += rise > slope + 0.05
    assert larger >= 3  # it is a kink: no slope is right on all sides


@pytest.mark.parametrize("summary", SUMMARIES)
def test_a_descent_lowers_the_error_and_keeps_the_best_layer(summary):
    layer = drawn(1)
    before = copy.deepcopy(layer.state_dict())
    reached = []
    found = descend(layer, AND, INPUTS, 15, summary, after=lambda here: reached.append(here.worst_error))
    assert found.worst[0] == pytest.approx(errors(layer).max(), abs=1e-9)
    assert found.worst_error < found.worst[0] - 0.02
    assert list(found.worst) == sorted(found.worst, reverse=True)
    assert errors(found.layer).max() == pytest.approx(found.worst_error, abs=1e-9)
    assert reached == list(found.worst[1:])
    assert found.fitted.proved
    assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())


def test_a_descent_ends_where_there_is_no_error_left():
    pairs = AND.pairs
    weight = torch.zeros(len(pairs), M, dtype=torch.float64)
    weight[torch.arange(len(pairs))[:, None], pairs] = 1
    found = descend(FirstLayer(weight, -torch.ones(len(pairs), dtype=torch.float64)), AND, INPUTS, 5)
    assert found.worst_error == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("summary", ["soft", "mean", "largest"])
def test_a_descent_from_no_error_at_all_stays_there(summary):
    """With one feature active at most every AND is 0, and so is the error."""
    inputs = SparseFeatures.at_most(M, 1).enumerate()
    found = descend(FirstLayer(torch.zeros(2, M), torch.zeros(2)).requires_grad_(True), AND, inputs, 5, summary)
    assert found.worst_error == 0


def test_any_module_has_a_gradient_and_frozen_parameters_have_none():
    layer = nn.Sequential(nn.Linear(M, 4), nn.GELU(), nn.Linear(4, D), nn.Tanh()).double()
    layer[0].weight.requires_grad_(False)
    gradient = layer_gradient(layer, AND, INPUTS, minimax(layer, AND, INPUTS).certificates)
    assert set(gradient) == {"0.bias", "2.weight", "2.bias"}


def test_a_soft_maximum_lies_above_the_largest_and_its_weights_are_its_slope():
    values = np.array([0.1, 0.3, 0.29])
    soft, weights = output_weights(values, 0.02)
    assert 0.3 <= soft <= 0.3 + 0.02 * np.log(3)
    assert weights.sum() == pytest.approx(1)
    for i, step in enumerate(np.eye(3) * 1e-6):
        slope = (output_weights(values + step, 0.02)[0] - output_weights(values - step, 0.02)[0]) / 2e-6
        assert slope == pytest.approx(weights[i], abs=1e-6)


def test_wrong_arguments_are_refused():
    layer = drawn(0)
    known = minimax(layer, AND, INPUTS).certificates
    with pytest.raises(InputError, match="9 certificates for 10 outputs"):
        layer_gradient(layer, AND, INPUTS, known[:-1])
    with pytest.raises(InputError, match="weights must be a finite number"):
        layer_gradient(layer, AND, INPUTS, known, np.ones(3))
    few = SparseFeatures.at_most(M, 1).enumerate()
    with pytest.raises(InputError, match="it is of other inputs"):
        layer_gradient(layer, AND, few, known)
    with pytest.raises(InputError, match="nothing to differentiate"):
        layer_gradient(IdentityLayer(M), AND, INPUTS, known)
    with pytest.raises(InputError, match="nothing to train"):
        descend(IdentityLayer(M), AND, INPUTS)
    with pytest.raises(InputError, match="unknown summary 'max'"):
        descend(layer, AND, INPUTS, summary="max")
    with pytest.raises(InputError, match="temperature"):
        output_weights(np.ones(2), 0.0)
