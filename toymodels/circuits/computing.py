"""One layer of a circuit on linearly read features: targeted superpositional AND, and OR and XOR built like it.

Section 1.3 of Vaintrob, Mendel, Hänni (2024) and Theorem 11 of arXiv:2408.05451: every gate has a random set of neurons;
weight column k is the union of the sets of the gates that read k; bias −1. A neuron in the set of AND(x_k, x_l) outputs
(x_k + x_l + others − 1)⁺, which is the gate's value if no other feature of the neuron is active.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from toymodels.circuits.circuit import GateLayer
from toymodels.circuits.sets import contrast, default_size, random_sets
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import seeded
from toymodels.errors import InputError


def computing_layer(layer: GateLayer, m: int, d: int, s: int, seed: int, size: int | None = None) -> Network:
    """Make the network of d neurons that computes a layer's gates, approximately, from m values near 0 or 1.

    ANDs share a pool of single neurons. With y = x_k + x_l, (y − 1)⁺ is 0 at 01, so a gate that is 1 there needs more: ORs and
    XORs share a pool of pairs of neurons on the same features, one of weight 2, (2y − 1)⁺ = 0, 1, 3 at y = 0, 1, 2, one of
    weight 1, (y − 1)⁺ = 0, 0, 1, and a gate with values 0, f1, f1, f2 is f1·(2y − 1)⁺ + (f2 − 3·f1)·(y − 1)⁺ (derived here).
    Every bias is −1, and a unit outputs 0 if all features that it reads are off, up to noise of 1/2. Each pool has half of the
    neurons, or all if the other is empty. A gate is read by `contrast` from its set of `size` units, by default `default_size`
    of its pool.

    d is at least 8; every gate must be symmetric and 0 at 00.
    """
    first, both = _values(layer)
    if d < 8:
        raise InputError(f"d = {d} neurons: sets of units, and units outside them, need at least 8")
    ands = first == 0
    single = 0 if not bool(ands.any()) else d if bool(ands.all()) else d // 2
    generator = seeded(seed)
    weight, readoff = torch.zeros(d, m), torch.zeros(len(ands), d)
    for gates, start, n in ((ands, 0, single), (~ands, single, (d - single) // 2)):
        if not bool(gates.any()):
            continue
        sets = random_sets(len(layer.pairs[gates]), default_size(n, s) if size is None else size, n, generator)
        wiring, rows = _union(sets, layer.pairs[gates], m), contrast(sets)
        weight[start : start + n] = wiring
        readoff[gates, start : start + n] = (both - 3 * first)[gates][:, None] * rows
        if start or not single:  # the second neurons of the pairs, of weight 2
            weight[start + n : start + 2 * n] = 2 * wiring
            readoff[gates, start + n : start + 2 * n] = first[gates][:, None] * rows
    neurons = FirstLayer(weight, torch.full((d,), -1.0), origin="computing")
    return Network(neurons, LinearReadoff(readoff, torch.zeros(len(ands)))).requires_grad_(False)


def _union(sets: Bool[Tensor, "gates n"], pairs: Int[Tensor, "gates 2"], m: int) -> Float[Tensor, "n m"]:
    """Return 1 where a unit is in the set of a gate that reads the feature, and 1 also if several such gates are."""
    gate, unit = sets.nonzero(as_tuple=True)
    wiring = torch.zeros(sets.shape[1], m)
    for side in (0, 1):
        wiring[unit, pairs[gate, side]] = 1.0
    return wiring


def _values(layer: GateLayer) -> tuple[Float[Tensor, " nodes"], Float[Tensor, " nodes"]]:
    """Return each gate's values with one input on and with both on."""
    for gate in (layer.gates[kind] for kind in layer.kinds.unique().tolist()):
        if gate.truth[0] != 0 or gate.truth[1] != gate.truth[2]:
            raise InputError(
                f"gate {gate.name} cannot be emulated by neurons of bias −1 on sums: it must be 0 at 00 and symmetric "
                "(and, or, xor)"
            )
    truth = torch.tensor([gate.truth for gate in layer.gates], dtype=torch.float32)[layer.kinds]
    return truth[:, 1], truth[:, 3]
