"""Any module is measured as it is: evaluated as a network of a first layer and a readoff, whatever it is made of."""

import pytest
import torch
from torch import nn

from toymodels import (
    InputError,
    LinearReadoff,
    Network,
    PairTask,
    SparseFeatures,
    evaluate,
    least_squares,
    make_task,
    minimax,
)
from toymodels.core.layers import IdentityLayer
from toymodels.core.network import AllOutputs, as_network
from toymodels.layers.random import gaussian

TASK = PairTask(6, "and")
INPUTS = SparseFeatures.at_most(6, 2).enumerate()


class OwnNet(nn.Module):
    """Two hidden layers, and a linear readoff that its code applies last."""

    def __init__(self):
        super().__init__()
        self.readout, self.first, self.second = nn.Linear(5, 15), nn.Linear(6, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.readout(torch.relu(self.second(torch.tanh(self.first(x)))))


class Squared(nn.Module):
    """The last step is no linear layer."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 15)

    def forward(self, x):
        return self.linear(x) ** 2


class Twice(nn.Module):
    """One linear layer is used twice: it cannot be taken out."""

    def __init__(self):
        super().__init__()
        self.first, self.same = nn.Linear(6, 15), nn.Linear(15, 15)

    def forward(self, x):
        return self.same(torch.relu(self.same(self.first(x))))


def modules():
    """Modules by name, and the width of the hidden layer before the readoff (None: none is found)."""
    torch.manual_seed(0)
    frozen = nn.Linear(4, 15).requires_grad_(False)
    return {
        "sequential": (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 15)), 4),
        "with dropout": (nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Dropout(0.5), nn.Linear(4, 15, bias=False)), 4),
        "frozen": (nn.Sequential(nn.Linear(6, 4), nn.GELU(), frozen), 4),
        "linear": (nn.Linear(6, 15), 6),
        "own": (OwnNet(), 5),
        "nested": (nn.Sequential(nn.Flatten(), OwnNet()), 5),
        "squared": (Squared(), None),
        "twice": (Twice(), None),
        "network": (Network(gaussian(6, 4, 0), LinearReadoff(torch.randn(15, 4), torch.randn(15))), 4),
        "parts": (Network(nn.Sequential(nn.Linear(6, 4), nn.ReLU()), nn.Linear(4, 15)), 4),
        "general readoff": (Network(gaussian(6, 4, 0), nn.Sequential(nn.Linear(4, 15), nn.Tanh())), 4),
    }


@pytest.mark.parametrize("name", modules())
def test_a_module_is_measured_as_it_is(name, form):
    module, width = modules()[name]
    found = evaluate(module, TASK, INPUTS)
    x = INPUTS.dense(dtype=torch.float64)
    reference = modules()[name][0].double().eval()
    error = (reference(x) - TASK.targets(x)).detach().abs()
    assert found.worst_error == pytest.approx(float(error.max()), rel=1e-12)
    assert torch.allclose(found.output_worst, error.amax(0), rtol=1e-12)
    assert next(module.parameters()).dtype == torch.float32  # the user's module is as it was
    assert module.training
    network = as_network(reference, 6)
    hidden = network.layer(x)
    assert hidden.shape[1] == (15 if width is None else width)
    assert torch.allclose(network(x, slice(3, 7)), reference(x)[:, 3:7])
    if width is not None and isinstance(network.readoff, LinearReadoff):
        best = evaluate(Network(network.layer, minimax(network.layer, TASK, INPUTS).readoff), TASK, INPUTS)
        assert best.worst_error <= found.worst_error + 1e-9


def test_a_linear_readoff_keeps_its_parameters():
    linear = nn.Linear(4, 15).requires_grad_(False)
    network = Network(gaussian(6, 4, 0), linear)
    assert network.readoff.weight is linear.weight
    assert not network.readoff.bias.requires_grad
    assert isinstance(Network(IdentityLayer(4), nn.Sequential(linear)).readoff, AllOutputs)


def test_dropout_is_off_where_readoffs_are_fitted():
    layer = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Dropout(0.9))
    first, second = (least_squares(layer, TASK, INPUTS).weight for _ in range(2))
    assert torch.equal(first, second)
    assert minimax(layer, PairTask(6, "and", [(0, 1)]), INPUTS).proved
    assert layer.training


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Linear(5, 15), "does not take a batch of inputs with m = 6 features: mat1"),
        (nn.Linear(6, 10), r"the task has 15, one for each pair k < l, in the order \(0, 1\), \(0, 2\), …, \(4, 5\)"),
        (nn.Bilinear(6, 6, 15), "does not take a batch of inputs"),
        (nn.LSTM(6, 15), "returns a tuple for 2 inputs"),
        (nn.Sequential(nn.Linear(6, 15), nn.Flatten(0)), r"returns shape \(30,\) for 2 inputs"),
        (Network(gaussian(5, 4, 0), nn.Linear(4, 15)), "does not take a batch of inputs with m = 6"),
    ],
    ids=["features", "outputs", "arguments", "tuple", "flat", "layer"],
)
def test_a_module_that_does_not_fit_is_refused_in_a_sentence(module, words, form):
    with pytest.raises(InputError, match=words):
        evaluate(module, TASK, INPUTS)


def test_which_outputs_a_task_has_is_said():
    assert make_task("and_of(k=3)", 5).outputs_in_words.endswith("in the order (0, 1, 2), (0, 1, 3), …, (2, 3, 4)")
    assert PairTask(6, "and", [(3, 1), (0, 2)]).outputs_in_words.endswith("of its list, in the order (3, 1), (0, 2)")
    assert make_task("relu", 6).outputs_in_words == "one for each of 6 features"
    with pytest.raises(InputError, match="m = 6 features"):
        minimax(nn.Linear(5, 4), TASK, INPUTS)
