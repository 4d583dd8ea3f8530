"""Fast gradients against automatic differentiation of the dense formula, in float64."""

import itertools

import pytest
import torch

from toymodels.core import training
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import IdentityLayer
from toymodels.core.losses import LpLoss, case_weights
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask
from toymodels.core.training import Trainer, TrainingSettings, train
from toymodels.fast import gradients
from toymodels.fast import gram as squared
from toymodels.fast import pair_lp as pair_loss
from toymodels.fast.gradients import pair_gradients
from toymodels.fast.pair_lp import Rows
from toymodels.layers.random import gaussian

GATES = ["".join(digits) for digits in itertools.product("01", repeat=4)]
PAIRS = [(0, 3), (3, 0), (2, 5), (0, 3), (4, 1)]


def random_network(task, layer=None, seed=0):
    rng = torch.Generator().manual_seed(seed)
    layer = layer or gaussian(task.m, 4, seed, bias=-0.3)
    width = layer.width
    readoff = LinearReadoff(
        torch.randn(task.n_outputs, width, generator=rng), torch.randn(task.n_outputs, generator=rng)
    )
    return Network(layer, readoff).double()


def dense_loss(network, task, inputs, weights, p, root):
    x = inputs.dense(dtype=torch.float64)
    error = (network(x) - task.targets(x)).abs()
    mean = (inputs.probabilities[:, None] * task.by_case(x, weights) * error**p).sum() / task.n_outputs
    return mean ** (1 / p) if root else mean


def check(network, task, inputs, weights, p, root, squared=True):
    loss = LpLoss(p, root)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    slow = dense_loss(network, task, inputs, weights, p, root)
    expected = torch.autograd.grad(slow, parameters)
    network.zero_grad()
    sums = pair_gradients(network, loss, task, list(Rows.of(inputs, torch.float64)), weights, squared=squared)
    assert loss.value(sums) == pytest.approx(slow.item(), rel=1e-11)
    for parameter, gradient in zip(parameters, expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-9, atol=1e-11 * gradient.abs().max())
    if p != 2 or not squared:
        x = inputs.dense(dtype=torch.float64)
        assert sums.largest == pytest.approx((network(x) - task.targets(x)).abs().max().item(), rel=1e-12)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("pairs", [None, PAIRS])
@pytest.mark.parametrize("balance", ["case", "value", 7.0])
def test_value_and_gradients_are_those_of_the_dense_form(gate, pairs, balance):
    law, task = SparseFeatures.independent(6, 0.3), PairTask(6, gate, pairs)
    weights = case_weights(balance, task.truth, task.case_probabilities(law))
    sampled, enumerated = law.sampled(33, seed=1), law.enumerate()
    for p, root, quick in (
        (2.0, True, True),
        (2.0, False, True),
        (2.0, True, False),
        (3.0, True, True),
        (4.0, False, True),
    ):
        check(random_network(task), task, sampled, weights, p, root, quick)
        check(random_network(task), task, enumerated, weights, p, root, quick)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 5.0, 8.0, 31.0, 70.5])
@pytest.mark.parametrize("gate", ["and", "xor"])
@pytest.mark.parametrize("threads", [1, 3])
def test_any_block_size_and_number_of_threads(p, gate, threads, monkeypatch):
    monkeypatch.setattr(pair_loss, "_ROWS", 10)
    monkeypatch.setattr(pair_loss, "_ENTRIES", 1)  # the least there is: eight pairs
    monkeypatch.setattr(squared, "_BLOCK", 5)
    monkeypatch.setattr(squared, "_ENTRIES", 50)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for law in (SparseFeatures.independent(9, 0.25), SparseFeatures.at_most(9, 3)):
            task = PairTask(9, gate)
            weights = case_weights("case", task.truth, task.case_probabilities(law))
            check(random_network(task), task, law.sampled(37, seed=0), weights, p, True)
            check(random_network(task), task, law.enumerate(), weights, p, True)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_a_frozen_layer_and_no_layer():
    law, task = SparseFeatures.at_most(7, 3), PairTask(7, "xor")
    for layer in (gaussian(7, 5, 0).requires_grad_(False), IdentityLayer(7)):
        for p in (2.0, 4.0):
            check(random_network(task, layer), task, law.enumerate(), (1.0, 2.0, 0.5, 3.0), p, True)


def test_a_case_that_never_occurs_weighs_nothing():
    law, task = SparseFeatures.exactly(6, 6), PairTask(6, "xor")
    weights = case_weights("case", task.truth, task.case_probabilities(law))
    assert weights == (0.0, 0.0, 0.0, 1.0)
    for p in (2.0, 4.0):
        check(random_network(task), task, law.enumerate(), weights, p, True)


@pytest.mark.parametrize("p", [16.0, 40.0])
def test_errors_far_beyond_those_of_the_probe_do_not_overflow_float32(p):
    task, inputs = PairTask(30, "and"), SparseFeatures.exactly(30, 2).enumerate()
    # Errors are 1e-3 (and 1 at ones) but for feature 29, which no input of the probe has on.
    assert not bool((inputs.indices[:: len(inputs) // gradients._PROBE] == 29).any())
    readoff = LinearReadoff.constant(task.n_outputs, 30, 1e-3)
    with torch.no_grad():
        readoff.weight[:, 29] = 500.0
    network, loss = Network(IdentityLayer(30), readoff), LpLoss(p)
    sums = pair_gradients(network, loss, task, list(Rows.of(inputs, torch.float32)), (1.0,) * 4)
    found = network.readoff.weight.grad.double()
    network = network.double()
    slow = dense_loss(network, task, inputs, (1.0,) * 4, p, True)
    (expected,) = torch.autograd.grad(slow, [network.readoff.weight])
    assert sums.largest == pytest.approx(500.0, rel=1e-5)
    # Float32 keeps 2^-24 of an error; its power p, p times that.
    assert loss.value(sums) == pytest.approx(slow.item(), rel=p * 2**-23)
    assert torch.allclose(found, expected, rtol=p * 2**-20, atol=p * 2**-20 * expected.abs().max())


@pytest.mark.parametrize("gate", ["and", "xor", "nand"])
@pytest.mark.parametrize("p", [2.0, 3.0])
def test_a_sample_of_pairs_is_unbiased(gate, p):
    """Over all 15 samples of 2 of 6 pairs, loss and gradients are on average those of all pairs: exactly, not by chance."""
    law, task = SparseFeatures.independent(4, 0.4), PairTask(4, gate)
    inputs, weights = law.sampled(20, seed=3), (0.5, 1.0, 1.5, 2.0)
    network, loss = random_network(task), LpLoss(p, root=False)
    rows = list(Rows.of(inputs, torch.float64))
    slow = dense_loss(network, task, inputs, weights, p, root=False)
    expected = torch.autograd.grad(slow, list(network.parameters()))
    total, samples = [torch.zeros_like(g) for g in expected], list(itertools.combinations(range(6), 2))
    value = 0.0
    for sample in samples:
        network.zero_grad()
        sums = pair_gradients(network, loss, task, rows, weights, torch.tensor(sample))
        value += loss.value(sums) / len(samples)
        for share, parameter in zip(total, network.parameters(), strict=True):
            share += parameter.grad.to_dense() / len(samples)
        assert network.readoff.weight.grad.is_sparse
    assert value == pytest.approx(slow.item(), rel=1e-10)
    for share, gradient in zip(total, expected, strict=True):
        assert torch.allclose(share, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [2.0, 4.0])
@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("gate", ["and", "xor"])
@pytest.mark.parametrize("batch", [64, "all"])
def test_training_by_it_is_training_by_the_dense_form(p, root, gate, batch, monkeypatch):
    task, features, ends = PairTask(10, gate), SparseFeatures.at_most(10, 3), []
    for fast in (True, False):
        monkeypatch.setattr(training, "pairs_apply", lambda *_, fast=fast: fast)
        network = Network(gaussian(10, 12, 0), LinearReadoff.constant(task.n_outputs, 12)).double()
        if not fast:
            monkeypatch.setattr(training.Inputs, "dense", double_dense)
        settings = TrainingSettings(optimiser="adam", steps=30, p=(p,), root=root, batch=batch)
        train(Trainer(network, task, features, settings, 0))
        ends.append(network.state_dict())
    for name in ends[0]:
        assert torch.allclose(ends[0][name], ends[1][name], rtol=1e-6, atol=1e-8)


def double_dense(self, rows=slice(None), dtype=torch.float64):
    from toymodels.core.features import dense as make

    return make(self.indices[rows], self.m, torch.float64)
