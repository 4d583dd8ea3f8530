"""Sparse boolean circuits: layers of two-input gates, and random ones whose activity neither dies out nor spreads.

With ANDs of random pairs of sparse features everything is 0 after one layer: P(AND) = (s/m)². Activity that goes on
needs ANDs whose inputs occur together, and here they do by a common cause. `Circuit.random` splits the m nodes of
every layer in halves, singles and doubles, and gives every gate fan-in 2, every node fan-out 2:

* the doubles of the next layer: h = m/2 gates OR (or XOR) of neighbours on a random cycle through the singles,
  D'_j = S_π(j) ∨ S_π(j+1), a fresh π for every layer, so one active single makes two neighbouring doubles active;
* the singles of the next layer: h ANDs of neighbours on the cycle of the doubles, S'_j = D_j ∧ D_(j+1).

So `a` active singles and `b` active pairs of neighbouring doubles become b singles and a pairs: a + 2b active nodes, then
b + 2a, and so on at any depth, constant where a = b. What this tests: half of all gates are ANDs, and in every layer an
active pair of doubles sends one AND its 1 and two ANDs the case 01, the hardest; coincidences (two active singles with
one neighbour between them) make further gates active, and `run` counts them exactly. Nothing is a mere copy, but the
two layers together are close to a permutation: a test of errors that add up, not of what a circuit can express.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.core.features import SparseFeatures, dense
from toymodels.errors import InputError, check_whole
from toymodels.theory.gates import Gate


def check_seed(seed: int) -> None:
    """Raises InputError unless the seed is a whole number from 0 up."""
    check_whole(seed=seed)
    if seed < 0:
        raise InputError(f"seed = {seed}: it must be a whole number from 0 up")


@dataclass(frozen=True)
class GateLayer:
    """One layer of a circuit: node g is `gates[kinds[g]]` of the nodes `pairs[g]` of the layer before.

    Raises InputError for a layer without nodes, pairs or kinds that are not integer tensors of such shapes, or a kind that is
    no index of `gates`.
    """

    pairs: Int[Tensor, "nodes 2"]
    """The two nodes of the layer before that each gate reads."""
    kinds: Int[Tensor, " nodes"]
    """Which of `gates` each node is."""
    gates: tuple[Gate, ...]
    """The gates that occur."""

    def __post_init__(self) -> None:
        for name, values in (("pairs", self.pairs), ("kinds", self.kinds)):
            # Other dtypes are no index: uint8 and bool would choose by mask.
            if not (isinstance(values, Tensor) and values.dtype in (torch.int32, torch.int64)):
                raise InputError(f"{name} of a layer of gates are whole numbers, in an integer tensor")
        if self.pairs.ndim != 2 or self.pairs.shape[1] != 2 or self.kinds.shape != self.pairs.shape[:1]:
            shapes = f"{tuple(self.pairs.shape)} and {tuple(self.kinds.shape)}"
            raise InputError(f"a layer of gates has pairs of the shape (nodes, 2) and kinds (nodes,); got {shapes}")
        if len(self.kinds) == 0:
            raise InputError("a layer without nodes computes nothing: give it at least 1 gate")
        if self.kinds.min() < 0 or self.kinds.max() >= len(self.gates):
            raise InputError(
                f"kinds are the numbers of gates, from 0 to below {len(self.gates)}, as many as were given"
            )

    def run(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch nodes"]:
        """The 0/1 values of the nodes from those of the layer before. Raises InputError where nodes that it reads are missing."""
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

    Raises InputError for no layers, or one that reads nodes that the layer before it does not have.
    """

    m: int
    """Number of inputs."""
    layers: tuple[GateLayer, ...]
    """The first reads the inputs, each other the one before it."""

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
        """Number of layers L."""
        return len(self.layers)

    @classmethod
    def random(cls, m: int, depth: int, seed: int, doubles: Sequence[str] = ("or", "xor")) -> Circuit:
        """A random circuit of m nodes a layer as in the module's docstring; its doubles are gates of these kinds, at random.

        Raises InputError for m odd or below 6 (cycles of three nodes), depth < 1, a seed below 0, one of these that is not a
        whole number, or a kind other than or and xor.
        """
        check_whole(m=m, depth=depth)
        check_seed(seed)
        if m < 6 or m % 2:
            raise InputError(f"m = {m} nodes a layer: halves that form cycles need m even and at least 6")
        if depth < 1:
            raise InputError(f"depth = {depth}: a circuit has at least 1 layer")
        if not doubles or set(doubles) - {"or", "xor"}:
            raise InputError(f"doubles are gates of the kinds or, xor; got {', '.join(doubles) or 'none'}")
        generator, half = torch.Generator().manual_seed(seed), m // 2
        gates = (Gate.parse("and"), *(Gate.parse(name) for name in doubles))
        place = torch.arange(half)
        neighbours = torch.stack([half + place, half + place.roll(-1)], 1)  # doubles j and j + 1, read by the single j
        layers = []
        for _ in range(depth):
            cycle = torch.randperm(half, generator=generator)
            kinds = torch.randint(1, len(gates), (half,), generator=generator)
            # The double j reads the singles π(j − 1) and π(j), so that π(j) turns on the doubles j and j + 1.
            pairs = torch.cat([neighbours, torch.stack([cycle.roll(1), cycle], 1)])
            layers.append(GateLayer(pairs, torch.cat([torch.zeros_like(kinds), kinds]), gates))
        return cls(m, tuple(layers))

    def run(self, x: Float[Tensor, "batch m"]) -> list[Float[Tensor, "batch nodes"]]:
        """The 0/1 values of every layer, from the first gates to the last, for 0/1 inputs.

        Raises InputError for inputs of other than m features, or of other values than 0 and 1.
        """
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
        """n inputs of a random circuit with at most s active nodes: ⌊s/3⌋ random pairs of neighbouring doubles, else singles.

        Two pairs may share a double. For s a multiple of 3 activity stays at s from layer to layer, but for coincidences;
        s = 1, 2, 4, 5 alternates with 2, 4, 5, 7. Raises InputError for n < 1, s outside 1 … m/2, a seed below
        0, or one of these that is not a whole number.
        """
        check_whole(n=n, s=s)
        check_seed(seed)
        half = self.m // 2
        if n < 1:
            raise InputError(f"a sample needs at least 1 input, got {n}")
        if not 1 <= s <= half:
            raise InputError(f"s = {s} active nodes: it must be from 1 to m/2 = {half}")
        generator, pairs = torch.Generator().manual_seed(seed), s // 3
        singles = SparseFeatures.exactly(half, s - 2 * pairs).sample(n, generator).indices
        x = torch.zeros(n, self.m)
        x[:, :half] = dense(singles, half)
        if pairs:
            first = dense(SparseFeatures.exactly(half, pairs).sample(n, generator).indices, half)
            x[:, half:] = torch.maximum(first, first.roll(1, 1))
        return x
