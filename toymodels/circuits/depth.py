"""Many layers: a circuit emulated in superposition, with and without error correction between its layers.

Every module is a layer of d neurons and a linear readoff of m values; the next module's neurons read those. Folded
together, weight = (next layer's weight)·(readoff), it is a plain ReLU network of width d (`fold`): m values are never
held anywhere. With correction it has 2L layers of d neurons for the L of the circuit (Theorem 8 of arXiv:2408.05451).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.circuits.circuit import Circuit, check_seed
from toymodels.circuits.computing import computing_layer
from toymodels.circuits.correction import correction_layer
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.errors import InputError, check_whole


class Stage(NamedTuple):
    """One layer of a circuit, emulated: takes the values of the layer before to those of this one."""

    computing: Network
    correction: Network | None

    def forward(self, values: Float[Tensor, "batch m"]) -> Float[Tensor, "batch nodes"]:
        """The values read after the stage: after its correction, if it has one."""
        values = self.computing(values)
        return values if self.correction is None else self.correction(values)


def stages(
    circuit: Circuit,
    d: int,
    s: int,
    seed: int,
    correct: bool = True,
    size: int | None = None,
    correction_size: int | None = None,
) -> Iterator[Stage]:
    """The stages one by one, as deep circuits of thousands of features want it; see `emulate`."""
    sizes = {"size": size, "correction_size": correction_size}
    check_whole(d=d, s=s, **{name: value for name, value in sizes.items() if value is not None})
    check_seed(seed)
    seeds = iter(np.random.SeedSequence([seed, circuit.m, d]).generate_state(2 * circuit.depth).tolist())
    nodes = circuit.m
    for layer in circuit.layers:
        # Two seeds a layer in any case: the same seed makes the same computing layers with and without correction.
        computing = computing_layer(layer, nodes, d, s, next(seeds), size)
        nodes, correction_seed = len(layer.pairs), next(seeds)
        correction = correction_layer(nodes, d, s, correction_seed, correction_size) if correct else None
        yield Stage(computing, correction)


def emulate(
    circuit: Circuit,
    d: int,
    s: int,
    seed: int,
    correct: bool = True,
    size: int | None = None,
    correction_size: int | None = None,
) -> nn.ModuleList:
    """The networks in order: a computing layer for each layer of the circuit, each followed by a correction if asked for.

    s is the number of active nodes that sets are sized for and ones are gauged at; `size` and `correction_size` are the
    sizes of the sets of both kinds of layers, default √(units/s). Raises InputError as `computing_layer` and
    `correction_layer` do, for a seed below 0, and for one of these numbers that is not whole.
    """
    made = stages(circuit, d, s, seed, correct, size, correction_size)
    return nn.ModuleList(network for stage in made for network in stage if network is not None)


def fold(networks: Iterable[nn.Module]) -> nn.Sequential:
    """The same function as a plain network of width d: readoffs multiplied into the weights of the layers after them."""
    parts = [(cast(FirstLayer, network.layer), cast(LinearReadoff, network.readoff)) for network in networks]
    if not parts:
        raise InputError("no networks to fold: give at least 1")
    layers: list[nn.Module] = [parts[0][0]]
    for (_, readoff), (layer, _) in pairwise(parts):
        weight = layer.weight @ readoff.weight
        layers.append(FirstLayer(weight, layer.weight @ readoff.bias + layer.bias, layer.activation, "folded"))
    return nn.Sequential(*layers, parts[-1][1]).requires_grad_(False)


class DepthErrors(NamedTuple):
    """Errors, value read − value of the circuit, after one layer, over all inputs given and all nodes."""

    depth: int
    """Layers of the circuit so far."""
    worst: float
    """Largest |error|."""
    rms: float
    """Root mean square error."""
    wrong: float
    """Share of inputs on which some node is on the wrong side of 1/2."""
    active: float
    """Mean number of nodes that are 1."""


@torch.no_grad()
def errors_by_depth(circuit: Circuit, emulation: Iterable[Stage], x: Float[Tensor, "batch m"]) -> list[DepthErrors]:
    """Errors after each stage, on the same inputs all the way; the first stage gets them exactly.

    `emulation` is what `stages` makes. Raises InputError for elements that are no `Stage` (`emulate` returns networks, of
    which one or two are a stage), more or fewer stages than the circuit has layers, or inputs that `Circuit.run` refuses.
    """
    values, found = x, []
    truths = circuit.run(x)
    for depth, stage in enumerate(emulation, 1):
        if not isinstance(stage, Stage) or depth > circuit.depth:
            raise InputError(
                f"errors by depth take what `stages` makes, one Stage for each of the circuit's {circuit.depth} layers; number "
                f"{depth} here is " + ("one too many" if isinstance(stage, Stage) else f"a {type(stage).__name__}")
            )
        values, truth = stage.forward(values), truths[depth - 1]
        error = values - truth
        wrong = ((values > 0.5) != (truth > 0.5)).any(1).double().mean()
        worst, rms = float(error.abs().max()), float(error.double().square().mean().sqrt())
        found.append(DepthErrors(depth, worst, rms, float(wrong), float(truth.sum(1).mean())))
    if len(found) < circuit.depth:
        raise InputError(
            f"the emulation has {len(found)} stages, the circuit {circuit.depth} layers: emulate all of it"
        )
    return found


def failing_depth(errors: Iterable[DepthErrors]) -> int | None:
    """The first depth with a worst error above 1/2 (no threshold at 1/2 is safe any more); None if there is none."""
    return next((found.depth for found in errors if not found.worst <= 0.5), None)
