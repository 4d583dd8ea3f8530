"""Sparse boolean circuits: layers of two-input gates, and random circuits whose activity neither dies out nor spreads.

With ANDs of random pairs of sparse features nearly everything is 0 after one layer: P(AND) = (s/m)². For activity to
continue, the inputs of an AND must often be 1 together; here they are, because the same node turns on both.
`Circuit.random` splits the m nodes of every layer in two halves, singles and doubles; every gate has fan-in 2, every node
fan-out 2:

* the doubles of the next layer: h = m/2 gates OR (or XOR) of neighbours on a random cycle through the singles,
  D'_j = S_π(j) ∨ S_π(j+1), a fresh π for every layer, so one active single makes two neighbouring doubles active;
* the singles of the next layer: h ANDs of neighbours on the cycle of the doubles, S'_j = D_j ∧ D_(j+1).

So `a` active singles and `b` active pairs of neighbouring doubles become b singles and a pairs: a + 2b active nodes, then
b + 2a, and so on at any depth, constant where a = b. Half of all gates are ANDs, and in every layer an active pair of
doubles gives one AND the case 11 and two ANDs the case 01, the hardest. Coincidences (two active singles with one neighbour
between them) make further gates active, and `run` includes them exactly. No layer copies its inputs, but two layers
together are close to a permutation: such circuits test how errors add up, not what a circuit can express.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.core.features import SparseFeatures, dense
from toymodels.core.seeds import seeded
from toymodels.errors import InputError, check_whole
from toymodels.theory.gates import Gate


@dataclass(frozen=True)
class GateLayer:
    """One layer of a circuit: node g is `gates[kinds[g]]` of the nodes `pairs[g]` of the layer before.

    Raises InputError for wrong shapes or types, a layer without nodes, or a kind that is not an index of `gates`.
    """

    pairs: Int[Tensor, "nodes 2"]
    """The two nodes of the layer before that each gate reads."""
    kinds: Int[Tensor, " nodes"]
    """For each node, the index of its gate in `gates`."""
    gates: tuple[Gate, ...]
    """The different gates of the layer."""

    def __post_init__(self) -> None:
        for name, values in (("pairs", self.pairs), ("kinds", self.kinds)):
            # Indexing with uint8 or bool would select by mask.
            if not (isinstance(values, Tensor) and values.dtype in (torch.int32, torch.int64)):
                raise InputError(f"{name} of a layer of gates are whole numbers, in an integer tensor")
        if self.pairs.ndim != 2 or self.pairs.shape[1] != 2 or self.kinds.shape != self.pairs.shape[:1]:
            shapes = f"{tuple(self.pairs.shape)} and {tuple(self.kinds.shape)}"
            raise InputError(f"a layer of gates has pairs of the shape (nodes, 2) and kinds (nodes,); got {shapes}")
        if len(self.kinds) == 0:
            raise InputError("a layer without nodes computes nothing: give it at least 1 gate")
        if self.kinds.min() < 0 or self.kinds.max() >= len(self.gates):
            raise InputError(f"kinds are the numbers of gates, from 0 to {len(self.gates) - 1} here")

    def run(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch nodes"]:
        """Compute the 0/1 values of the nodes from those of the layer before."""
        if x.ndim != 2 or x.shape[1] <= self.pairs.max():
            raise InputError(
                f"values of the shape {tuple(x.shape)}: the layer reads nodes up to {int(self.pairs.max())}, one column each"
            )
        truth = torch.tensor([gate.truth for gate in self.gates], dtype=x.dtype)[self.kinds]
        case = (2 * x[:, self.pairs[:, 0]] + x[:, self.pairs[:, 1]]).long()
        return truth.expand(len(x), -1, -1).gather(2, case[:, :, None])[:, :, 0]


@dataclass(frozen=True)
class Circuit:
    """A boolean circuit with m inputs and layers of gates; build a random one with `Circuit.random`.

    Raises InputError without layers, or if a layer reads nodes that the layer before it does not have.
    """

    m: int
    """Number of inputs."""
    layers: tuple[GateLayer, ...]
    """The layers in order; the first one reads the inputs."""

    def __post_init__(self) -> None:
        check_whole(m=self.m)
        nodes = self.m
        if not self.layers:
            raise InputError("a circuit of depth 0 computes nothing: give it at least 1 layer")
        for t, layer in enumerate(self.layers, 1):
            if layer.pairs.min() < 0 or layer.pairs.max() >= nodes:
                raise InputError(f"layer {t} reads nodes outside the {nodes} of the layer before it (0 to {nodes - 1})")
            nodes = len(layer.pairs)

    @property
    def depth(self) -> int:
        """The number of layers L."""
        return len(self.layers)

    @classmethod
    def random(cls, m: int, depth: int, seed: int, doubles: Sequence[str] = ("or", "xor")) -> Circuit:
        """Draw a circuit of m nodes a layer as described at the top of the module; each double is one of the given gates.

        m is even and at least 6 (cycles of three nodes), depth at least 1, `doubles` are "or" and "xor" or one of them.
        """
        check_whole(m=m)
        check_whole(1, depth=depth)
        check_whole(0, seed=seed)
        if m < 6 or m % 2:
            raise InputError(f"m = {m} nodes a layer: halves that form cycles need m even and at least 6")
        if not doubles or set(doubles) - {"or", "xor"}:
            raise InputError(f"doubles are gates of the kinds or, xor; got {', '.join(doubles) or 'none'}")
        generator, half = seeded(seed), m // 2
        gates = (Gate.parse("and"), *(Gate.parse(name) for name in doubles))
        j = torch.arange(half)
        neighbours = torch.stack([half + j, half + j.roll(-1)], 1)  # doubles j and j + 1, read by the single j
        layers = []
        for _ in range(depth):
            cycle = torch.randperm(half, generator=generator)
            kinds = torch.randint(1, len(gates), (half,), generator=generator)
            # The double j reads the singles π(j − 1) and π(j), so that π(j) turns on the doubles j and j + 1.
            pairs = torch.cat([neighbours, torch.stack([cycle.roll(1), cycle], 1)])
            layers.append(GateLayer(pairs, torch.cat([torch.zeros_like(kinds), kinds]), gates))
        return cls(m, tuple(layers))

    def run(self, x: Float[Tensor, "batch m"]) -> list[Float[Tensor, "batch nodes"]]:
        """Return the 0/1 values of every layer, from the first to the last, for 0/1 inputs."""
        if x.ndim != 2 or x.shape[1] != self.m:
            raise InputError(f"inputs of the shape {tuple(x.shape)}: the circuit takes (batch, m), m = {self.m}")
        if bool(((x != 0) & (x != 1)).any()):
            raise InputError("inputs of a boolean circuit are 0 and 1; these have other values")
        values = []
        for layer in self.layers:
            x = layer.run(x)
            values.append(x)
        return values

    def sample(self, n: int, s: int, seed: int) -> Float[Tensor, "n m"]:
        """Draw n ≥ 1 inputs of a random circuit with at most s active nodes, s from 1 to m/2.

        ⌊s/3⌋ random pairs of neighbouring doubles are active, and singles for the rest; two pairs may share a double. If s is a
        multiple of 3, s nodes are active in every layer, except for coincidences; s = 1, 2, 4, 5 alternates with 2, 4, 5, 7.
        """
        half = self.m // 2
        check_whole(1, n=n)
        check_whole(0, seed=seed)
        check_whole(s=s)
        if not 1 <= s <= half:
            raise InputError(f"s = {s} active nodes: it must be from 1 to m/2 = {half}")
        generator, pairs = seeded(seed), s // 3
        singles = SparseFeatures.exactly(half, s - 2 * pairs).sample(n, generator).indices
        x = torch.zeros(n, self.m)
        x[:, :half] = dense(singles, half)
        if pairs:
            first = dense(SparseFeatures.exactly(half, pairs).sample(n, generator).indices, half)
            x[:, half:] = torch.maximum(first, first.roll(1, 1))
        return x
