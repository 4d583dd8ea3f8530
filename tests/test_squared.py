import itertools

import pytest
import torch

from toymodels import training
from toymodels.features import SparseFeatures
from toymodels.layers import gaussian
from toymodels.losses import case_weights
from toymodels.network import Network
from toymodels.readoffs.linear import LinearReadoff
from toymodels.squared import squared_loss
from toymodels.tasks import PairTask
from toymodels.training import Trainer, TrainingSettings, train

GATES = ["".join(digits) for digits in itertools.product("01", repeat=4)]
PAIRS = [(0, 3), (3, 0), (2, 5), (0, 3), (4, 1)]


def dense(a, weight, bias, task, inputs, weights):
    x = inputs.dense(dtype=a.dtype)
    error = a @ weight.T + bias - task.targets(x)
    return (inputs.probabilities[:, None] * task.by_case(x, weights) * error**2).sum() / task.n_outputs


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("pairs", [None, PAIRS])
@pytest.mark.parametrize("balance", ["case", "value", 7.0])
def test_value_and_gradients_are_those_of_the_dense_form(gate, pairs, balance):
    law, task = SparseFeatures.independent(6, 0.3), PairTask(6, gate, pairs)
    inputs = law.sampled(33, seed=1)
    weights = case_weights(balance, task.truth, task.case_probabilities(law))
    rng = torch.Generator().manual_seed(0)
    shapes = ((33, 4), (task.n_outputs, 4), (task.n_outputs,))
    parts = [torch.randn(*s, dtype=torch.float64, generator=rng, requires_grad=True) for s in shapes]
    fast = squared_loss(*parts, task, inputs.indices, inputs.probabilities, weights)
    slow = dense(*parts, task, inputs, weights)
    assert fast.item() == pytest.approx(slow.item(), rel=1e-12, abs=1e-14)
    for a, b in zip(torch.autograd.grad(fast, parts), torch.autograd.grad(slow, parts), strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-13)


def test_inputs_with_nothing_on():
    task, inputs = PairTask(6, "xor"), SparseFeatures(6, (1.0,), "none").sampled(3, seed=0)
    parts = [torch.ones(3, 2, dtype=torch.float64), torch.ones(15, 2, dtype=torch.float64), torch.zeros(15).double()]
    assert squared_loss(*parts, task, inputs.indices, inputs.probabilities, (1.0,) * 4).item() == pytest.approx(4.0)


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("gate", ["and", "xor"])
def test_training_by_it_is_training_by_the_dense_form(root, gate, monkeypatch):
    task, features, ends = PairTask(10, gate), SparseFeatures.independent(10, 0.2), []
    for fast in (True, False):
        monkeypatch.setattr(training, "squared_applies", lambda *_, fast=fast: fast)
        network = Network(gaussian(10, 12, 0), LinearReadoff.constant(task.n_outputs, 12)).double()
        monkeypatch.setattr(training.Inputs, "dense", double_dense)
        settings = TrainingSettings(optimiser="adam", steps=30, p=(2.0,), root=root, batch=64)
        train(Trainer(network, task, features, settings, 0))
        ends.append(network.state_dict())
    for name in ends[0]:
        assert torch.allclose(ends[0][name], ends[1][name], rtol=1e-6, atol=1e-8)


def double_dense(self, rows=slice(None), dtype=torch.float64):
    from toymodels.features import dense as make

    return make(self.indices[rows], self.m, torch.float64)
