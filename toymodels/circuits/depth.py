"""Emulate a circuit of many layers in superposition, with or without error correction between its layers.

Every network is a layer of d neurons and a linear readoff of m values, which the next network's neurons read. With the
readoffs multiplied into the next layers' weights it is a plain ReLU network of width d (`fold`), in which no layer holds m
values. With correction it has 2L layers of d neurons for the L of the circuit (Theorem 8 of arXiv:2408.05451).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.circuits.circuit import Circuit
from toymodels.circuits.computing import computing_layer
from toymodels.circuits.correction import correction_layer
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.errors import InputError, check_whole


class Stage(NamedTuple):
    """One layer of a circuit, emulated: it computes the values of this layer from those of the layer before."""

    computing: Network
    correction: Network | None

    @property
    def networks(self) -> list[Network]:
        """The one or two networks in order."""
        return [network for network in self if network is not None]

    def forward(self, values: Float[Tensor, "batch m"]) -> Float[Tensor, "batch nodes"]:
        """Return the values read after the stage: after its correction, if it has one."""
        for network in self.networks:
            values = network(values)
        return values


def stages(circuit: Circuit, d: int, s: int, seed: int, correct: bool = True) -> Iterator[Stage]:
    """Yield the stages one by one, to save memory: a computing layer for each layer of the circuit, and a correction.

    s is the number of active nodes for which sets are sized and ones are exact on average. See `computing_layer` and
    `correction_layer` for the limits of all numbers.
    """
    check_whole(d=d, s=s)
    check_whole(0, seed=seed)
    seeds = iter(np.random.SeedSequence([seed, circuit.m, d]).generate_state(2 * circuit.depth).tolist())
    nodes = circuit.m
    for layer in circuit.layers:
        # Always two seeds a layer, so that the computing layers are the same with and without correction.
        computing = computing_layer(layer, nodes, d, s, next(seeds))
        nodes, correction_seed = len(layer.pairs), next(seeds)
        correction = correction_layer(nodes, d, s, correction_seed) if correct else None
        yield Stage(computing, correction)


def fold(emulation: Iterable[Stage]) -> nn.Sequential:
    """Make a plain network of width d that computes the same: multiply readoffs into the next layers' weights."""
    networks = [network for stage in emulation for network in stage.networks]
    parts = [(cast(FirstLayer, network.layer), cast(LinearReadoff, network.readoff)) for network in networks]
    layers: list[nn.Module] = [parts[0][0]]
    for (_, readoff), (layer, _) in pairwise(parts):
        weight = layer.weight @ readoff.weight
        layers.append(FirstLayer(weight, layer.weight @ readoff.bias + layer.bias, layer.activation, "folded"))
    return nn.Sequential(*layers, parts[-1][1]).requires_grad_(False)


class DepthErrors(NamedTuple):
    """Errors (value read − value of the circuit) after one layer, over all given inputs and all nodes."""

    depth: int
    """Number of layers of the circuit up to here."""
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
    """Measure the errors after each stage; each stage reads the values of the one before, the first one exact inputs.

    Raises InputError if the emulation has more or fewer stages than the circuit has layers.
    """
    values, errors = x, []
    truths = circuit.run(x)
    for depth, stage in enumerate(emulation, 1):
        if depth > circuit.depth:
            raise InputError(
                f"the emulation has more stages than the circuit's {circuit.depth} layers: emulate this circuit"
            )
        values, truth = stage.forward(values), truths[depth - 1]
        error = values - truth
        wrong = ((values > 0.5) != (truth > 0.5)).any(1).double().mean()
        worst, rms = float(error.abs().max()), float(error.double().square().mean().sqrt())
        errors.append(DepthErrors(depth, worst, rms, float(wrong), float(truth.sum(1).mean())))
    if len(errors) < circuit.depth:
        raise InputError(
            f"the emulation has {len(errors)} stages, the circuit {circuit.depth} layers: emulate all of it"
        )
    return errors


def failing_depth(errors: Iterable[DepthErrors]) -> int | None:
    """Return the first depth with a worst error above 1/2, where a threshold at 1/2 may fail; None if there is none."""
    return next((error.depth for error in errors if not error.worst <= 0.5), None)
