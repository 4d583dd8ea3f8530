"""Circuits against a naive evaluator, and the activity of random ones."""

import itertools

import jaxtyping
import pytest
import torch

from toymodels import Gate, InputError, SparseFeatures
from toymodels.circuits.circuit import Circuit, GateLayer

NAIVE = {
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
    "xor": lambda a, b: a != b,
    "nand": lambda a, b: not (a and b),
    "first_and_not_second": lambda a, b: a and not b,
}


def naive(circuit, bits):
    """Every layer's values, gate by gate in plain Python."""
    values = []
    for layer in circuit.layers:
        names = [layer.gates[kind].name for kind in layer.kinds.tolist()]
        bits = [bool(NAIVE[name](bits[k], bits[l])) for name, (k, l) in zip(names, layer.pairs.tolist(), strict=True)]
        values.append(bits)
    return values


def test_gates_are_evaluated_exactly_on_every_input():
    generator = torch.Generator().manual_seed(0)
    gates = tuple(Gate.parse(name) for name in NAIVE)
    layers = tuple(
        GateLayer(
            torch.randint(0, 6, (6, 2), generator=generator),
            torch.randint(0, len(gates), (6,), generator=generator),
            gates,
        )
        for _ in range(3)
    )
    circuit = Circuit(6, layers)
    x = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6)))
    values = circuit.run(x)
    for row, bits in enumerate(x.bool().tolist()):
        assert [layer[row].bool().tolist() for layer in values] == naive(circuit, bits)


def test_a_random_circuit_is_evaluated_exactly_on_every_sparse_input():
    circuit = Circuit.random(12, 4, 1)
    x = SparseFeatures.at_most(12, 3).enumerate().dense()
    values = circuit.run(x)
    for row, bits in enumerate(x.bool().tolist()):
        assert [layer[row].bool().tolist() for layer in values] == naive(circuit, bits)


def test_random_gates_have_fan_in_two_and_fan_out_two():
    circuit = Circuit.random(20, 3, 0)
    for layer in circuit.layers:
        assert (layer.pairs[:, 0] != layer.pairs[:, 1]).all()
        assert torch.equal(layer.pairs.flatten().bincount(minlength=20), torch.full((20,), 2))
        assert [layer.gates[kind].name for kind in layer.kinds.tolist()].count("and") == 10


def test_one_source_keeps_its_activity_at_any_depth():
    """One active single makes a pair, a pair one single: 1, 2, 1, 2, … without any coincidence."""
    circuit = Circuit.random(30, 6, 2, doubles=("or",))
    x = torch.eye(30)[:15]
    for depth, values in enumerate(circuit.run(x), 1):
        assert torch.equal(values.sum(1), torch.full((15,), 1.0 + depth % 2))


def test_activity_neither_dies_nor_spreads():
    """At m = 2,000 a coincidence has a chance of about s²/m = 2 % a layer: 3 active on average, within 5 %, at depth 10."""
    circuit = Circuit.random(2000, 10, 0)
    x = circuit.sample(200, 3, 0)
    assert (x.sum(1) == 3).all()
    for values in circuit.run(x):
        assert abs(float(values.sum(1).mean()) - 3) < 0.15


@pytest.mark.parametrize(("s", "active"), [(1, 1), (2, 2), (4, 4), (6, 6)])
def test_samples_have_at_most_s_active_and_are_reproducible(s, active):
    circuit = Circuit.random(40, 1, 0)
    x = circuit.sample(300, s, 3)
    assert float(x.sum(1).max()) == active
    assert torch.equal(x, circuit.sample(300, s, 3))
    assert not torch.equal(x, circuit.sample(300, s, 4))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Circuit.random(1, 1, 0), "m = 1"),
        (lambda: Circuit.random(7, 1, 0), "even"),
        (lambda: Circuit.random(8, 0, 0), "depth = 0"),
        (lambda: Circuit.random(8, 1, 0, doubles=("nand",)), "or, xor"),
        (lambda: Circuit.random(8, 1, 0).sample(1, 5, 0), "from 1 to m/2 = 4"),
        (lambda: Circuit.random(8, 1, 0).sample(1, 0, 0), "from 1 to m/2 = 4"),
        (lambda: Circuit.random(8, 1, 0).sample(0, 1, 0), "n = 0: it must be at least 1"),
        (lambda: Circuit(8, ()), "at least 1 layer"),
        (lambda: Circuit(7, Circuit.random(8, 1, 0).layers), "outside the 7"),
    ],
)
def test_wrong_circuits_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


AND = (Gate.parse("and"),)
PAIRS, KINDS = torch.tensor([[0, 1], [1, 2]]), torch.tensor([0, 0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: GateLayer(PAIRS[:0], KINDS[:0], AND), "without nodes"),
        (lambda: GateLayer(PAIRS, KINDS + 1, AND), "kinds are the numbers of gates"),
        (lambda: GateLayer(PAIRS, KINDS - 1, AND), "kinds are the numbers of gates"),
        (lambda: GateLayer(PAIRS.float(), KINDS, AND), "pairs of a layer .* whole numbers"),
        (lambda: GateLayer(PAIRS.tolist(), KINDS, AND), "pairs of a layer .* whole numbers"),
        (lambda: GateLayer(PAIRS, KINDS.bool(), AND), "kinds of a layer .* whole numbers"),
        (lambda: GateLayer(PAIRS.T.repeat(2, 2)[:, :3], KINDS, AND), "shape"),
        (lambda: GateLayer(PAIRS, KINDS[:1], AND), "shape"),
        (lambda: GateLayer(PAIRS, KINDS, AND).run(torch.zeros(4, 2)), "nodes up to 2"),
        (lambda: Circuit(3.5, (GateLayer(PAIRS, KINDS, AND),)), "m = 3.5"),
        (lambda: Circuit(4, (GateLayer(PAIRS, KINDS, AND),)).run(torch.zeros(4, 3)), "m = 4"),
        (lambda: Circuit(4, (GateLayer(PAIRS, KINDS, AND),)).run(torch.zeros(4, 5)), "m = 4"),
        (lambda: Circuit(4, (GateLayer(PAIRS, KINDS, AND),)).run(torch.zeros(4)), "m = 4"),
        (lambda: Circuit(4, (GateLayer(PAIRS, KINDS, AND),)).run(torch.full((1, 4), 0.5)), "0 and 1"),
        (lambda: Circuit.random(8, 1.5, 0), "depth = 1.5"),
        (lambda: Circuit.random(8.0, 1, 0), "m = 8.0"),
        (lambda: Circuit.random(8, 1, -1), "seed = -1"),
        (lambda: Circuit.random(8, 1, 0).sample(2, 1, -1), "seed = -1"),
        (lambda: Circuit.random(8, 1, 0).sample(2, 1.5, 0), "s = 1.5"),
        (lambda: Circuit.random(8, 1, 0).sample(2.5, 1, 0), "n = 2.5"),
    ],
)
def test_wrong_tensors_and_numbers_are_refused_in_a_sentence(make, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in use, where types are not checked
    with pytest.raises(InputError, match=words):
        make()
