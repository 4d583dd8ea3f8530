"""One computing layer: exact gates where nothing else is active, the law of its errors elsewhere."""

import pytest
import torch

from toymodels import Gate, InputError, SparseFeatures
from toymodels.circuits.circuit import GateLayer
from toymodels.circuits.computing import computing_layer


def gates(names, pairs):
    kinds = tuple(Gate.parse(name) for name in dict.fromkeys(names))
    order = list(dict.fromkeys(names))
    return GateLayer(torch.tensor(pairs), torch.tensor([order.index(name) for name in names]), kinds)


@pytest.mark.parametrize("name", ["and", "or", "xor"])
def test_a_gate_alone_is_exact_in_all_cases(name):
    """One gate: its neurons see nothing else, and the others see nothing."""
    layer = gates([name], [[0, 1]])
    x = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    torch.testing.assert_close(computing_layer(layer, 3, 32, 1, 0)(x), layer.run(x))


def test_gates_of_three_kinds_with_disjoint_inputs_are_exact_one_at_a_time():
    """Only one gate's inputs active: other gates read the same mean inside their sets and outside but for overlaps."""
    layer = gates(["and", "or", "xor"], [[0, 1], [2, 3], [4, 5]])
    network = computing_layer(layer, 6, 400, 2, 0, size=1)  # sets of one unit among 100 and more: disjoint at this seed
    for k, l in layer.pairs.tolist():
        x = torch.zeros(3, 6)
        x[0, k] = x[1, l] = x[2, k] = x[2, l] = 1
        error = network(x) - layer.run(x)
        assert error.abs().max() <= 2 / 99  # what the means over the rest take off: at most 2 from 1 unit of 100


def test_inactive_ands_err_by_exactly_two_hits_and_nothing_else():
    """An AND of inactive features reads (1/h)·Σ(hits − 1)⁺ over its set, minus the same mean over the rest: naive sum."""
    m, d, size = 12, 40, 4
    pairs = [[k, (k + 1) % m] for k in range(m)]
    layer = gates(["and"] * m, pairs)
    network = computing_layer(layer, m, d, 2, 3, size)
    wiring = network.layer.weight
    x = SparseFeatures.at_most(m, 3).enumerate().dense()
    hits = (wiring[None] * x[:, None]).sum(2)
    activations = (hits - 1).clamp(min=0)
    sets = network.readoff.weight > 0
    assert (sets.sum(1) == size).all()
    # Column k of the weights is the union of the sets of the two gates that read k, each 1.
    for k in range(m):
        assert torch.equal(wiring[:, k] == 1, sets[k] | sets[k - 1])
    want = torch.stack([activations[:, s].mean(1) - activations[:, ~s].mean(1) for s in sets], 1)
    torch.testing.assert_close(network(x), want)


@pytest.mark.parametrize(
    ("names", "d", "size", "words"),
    [
        (["nand"], 40, None, "gate nand"),
        (["first"], 40, None, "gate first"),
        (["and"], 7, None, "at least 8"),
        (["and", "or"], 40, 10, "from 1 to 9"),
        (["and"], 40, 0, "from 1 to 39"),
    ],
)
def test_what_cannot_be_made_is_refused(names, d, size, words):
    layer = gates(names, [[0, 1]] * len(names))
    with pytest.raises(InputError, match=words):
        computing_layer(layer, 2, d, 1, 0, size)
