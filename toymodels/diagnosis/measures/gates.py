"""Measures of networks that compute a gate of many pairs of features: U-AND, U-XOR, …

The limit of a layer is the least worst error that any linear readoff of it can have, by linear programs (core.minimax): it
tells what the layer knows, whatever its own readoff makes of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from toymodels.core.layers import make_layer
from toymodels.core.minimax import minimax
from toymodels.core.seeds import derive_seed
from toymodels.diagnosis.registry import DRAWS, MEASURES, ON, Subject

RIGHT = 0.5
"""An output with a smaller |error| is right when it is rounded."""
_GATES, _INPUTS = 24, 6_000
"""Gates, drawn at random, for which a layer's limit is computed; inputs up to which it is."""
_EXACT = 1e-6
"""Certificates are exact to this: ratios to smaller errors would compare rounding errors."""


def computed_gates(subject: Subject) -> np.ndarray:
    """Return which gates have a worst error below that of every affine map of the inputs, |δ|/4 (1/4 for AND, 1/2 for XOR)."""
    return subject.worst < subject.gate_task.gate.affine_floor * (1 - 1e-6)


@MEASURES(
    "gate_worst", source="definition", order=10, of="gates",
    tells="Below 1/4 (AND) or 1/2 (XOR) every gate is computed better than any affine map of the inputs can.",
    cannot="One bad gate decides it, and it is that of the inputs given: with more active features it may be larger.",
)  # fmt: skip
def gate_worst(subject: Subject) -> float:
    """Compute the largest |error| over gates and inputs, ε."""
    return float(subject.worst.max())


@MEASURES(
    "gates_right", source="definition", order=11, of="gates",
    tells="Near 1 the network answers right when its outputs are rounded.",
    cannot="Affine maps of the inputs have 1 for AND as well: see gates_computed.",
)  # fmt: skip
def gates_right(subject: Subject) -> float:
    """Compute the share of gates whose error is below 1/2 on every input."""
    return float((subject.worst < RIGHT).mean())


@MEASURES(
    "gates_computed", source="docs/theory.md, section 2", order=12, of="gates",
    tells="Above d over the number of gates, more gates are computed than there are neurons: computation in superposition.",
    cannot="A gate with an error a little above the affine floor on one input counts as not computed.",
)  # fmt: skip
def gates_computed(subject: Subject) -> float:
    """Compute the share of gates with a worst error below the affine floor."""
    return float(computed_gates(subject).mean())


def dedicated_gates(subject: Subject) -> np.ndarray:
    """Return which gates have a neuron of their own.

    Its weights are on (registry.ON) for the two features of the gate alone, and it makes 1 − ON or more of the step of the output
    from no active feature to both.
    """
    layers, pairs = subject.layers, subject.gate_task.pairs.numpy()
    both = np.zeros((len(pairs), subject.n))
    both[np.arange(len(pairs))[:, None], pairs] = 1

    def activations(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.maximum(x @ layers.w_in.T + layers.b_in, 0))

    shares = layers.w_out * (activations(both) - activations(np.zeros((1, subject.n))))
    alone = subject.on.sum(1) == 2
    own = alone & (subject.on.astype(int) @ both.T == 2).T  # gates × neurons
    step = shares.sum(1, keepdims=True)
    return np.asarray((own & (np.sign(step) * shares >= (1 - ON) * np.abs(step)) & (step != 0)).any(1))


@MEASURES(
    "dedicated_gates", source="derived here", order=26, of="gates",
    tells="Near 1 the gates that are computed have a neuron each: the naive network; near 0 none has.",
    cannot="A gate may be made of two neurons of its own, which this does not count.",
)  # fmt: skip
def dedicated(subject: Subject) -> float:
    """Compute the share of computed gates that have a neuron of their own."""
    computed = computed_gates(subject)
    return float(dedicated_gates(subject)[computed].mean()) if computed.any() else float("nan")


def few_inputs(subject: Subject) -> bool:
    """Say whether linear programs over all inputs of the subject are small enough."""
    return len(subject.inputs) <= _INPUTS


def sampled_gates(subject: Subject) -> np.ndarray:
    """Draw up to 24 gates by the subject's seed."""
    count = subject.task.n_outputs
    return np.sort(np.random.default_rng(subject.seed).permutation(count)[:_GATES])


def limit_of(subject: Subject, layer: torch.nn.Module) -> float:
    """Compute the mean over sampled gates of the least worst error of a linear readoff of a layer."""
    fitted = minimax(layer, subject.task.subset(torch.from_numpy(sampled_gates(subject))), subject.inputs)
    return float(np.mean([certificate.worst_error for certificate in fitted.certificates]))


@MEASURES(
    "limit", source="docs/theory.md, section 5", order=13, of="gates", applies=few_inputs,
    tells="Below the affine floor (1/4 for AND, 1/2 for XOR) the layer computes; near it, it hands the inputs on.",
    cannot="It speaks of the layer, not of the network's own readoff, and of 24 gates drawn at random; of 6,000 inputs at most.",
)  # fmt: skip
def limit(subject: Subject) -> float:
    """Compute the least worst error of a linear readoff of the layer, mean over 24 gates."""
    return limit_of(subject, subject.network.layer)


@MEASURES(
    "own_readoff", source="docs/theory.md, section 5", order=14, of="gates", applies=few_inputs,
    tells="Near 1 the network reads its layer as well as can be; more is due to the readoff, not to the layer.",
    cannot="A readoff trained on another loss than the worst error has more than 1 without being bad at its own.",
)  # fmt: skip
def own_readoff(subject: Subject) -> float:
    """Compute the network's own worst error over the limit of its layer, mean over the same 24 gates."""
    known = subject.value("limit")
    return float(subject.worst[sampled_gates(subject)].mean()) / known if known > _EXACT else float("nan")


@MEASURES(
    "gaussian_ratio", source="docs/results/genericity.md", order=15, of="gates", applies=few_inputs,
    tells="Above 1 the layer is better than Gaussian ones of its size: training, or a construction, has found something.",
    cannot="1 does not say that the layer is random: a construction may be as good as a random layer.",
)  # fmt: skip
def gaussian_ratio(subject: Subject) -> float:
    """Compute the limit of Gaussian layers of the same size over the layer's own: mean of 3."""
    seeds = [derive_seed(subject.seed + 1000 + k, "frozen layer") for k in range(DRAWS)]
    return _ratio(subject, [make_layer("gaussian", subject.n, subject.d, seed) for seed in seeds])


@MEASURES(
    "shuffled_ratio", source="null model", order=16, of="gates", applies=few_inputs,
    tells="Above 1 the arrangement of the weights matters: the same weights in random places do worse.",
    cannot="Weights that are drawn at random have 1 however well they do.",
)  # fmt: skip
def shuffled_ratio(subject: Subject) -> float:
    """Compute the limit of layers of the same weights and biases in random places over the layer's own: mean of 3."""
    return _ratio(subject, subject.shuffled_layers())


def _ratio(subject: Subject, others: Sequence[torch.nn.Module]) -> float:
    known = subject.value("limit")
    return float(np.mean([limit_of(subject, layer) for layer in others])) / known if known > _EXACT else float("nan")
