"""Targeted AND: compute only the gates of a given graph of pairs, each on neurons of its own.

Section 1.3 ("targeted superpositional AND") of Vaintrob, Mendel, Hänni (2024); Theorem 11 of arXiv:2408.05451. Each gate
{k, l} draws n = `per_gate` of the d neurons at random; feature k has weight 1 on every neuron of a gate that contains it and
0 elsewhere, every bias is −1, and the gate is read as a mean over neurons that see both its features.

On a gate's own neuron x_k + x_l − 1 is correct, and every other active feature with weight 1 on it adds 1. A feature of g
gates has weight 1 on such a neuron with probability q = 1 − (1 − n/d)^g, so with t others active the error of the mean is
about t q on average, with standard deviation √(t q (1 − q)/n): with q ≈ n g/d the spread √(t g/d) does not depend on n, the
bias t n g/d grows with n. Hence about m d ε²/2 gates (mean degree g = 2 gates/m) at RMS error ε, the published Õ(d0 d) with
d0 = m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from toymodels.core.evaluation import evaluate
from toymodels.core.features import Inputs
from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import seeded
from toymodels.core.tasks import PairTask, Task, pair_task
from toymodels.errors import InputError, check_whole
from toymodels.layers.bernoulli import is_pair_and
from toymodels.layers.iid import features_seen

ORIGIN = "targeted"
_ROWS = 1024  # gates drawn at a time; another number would change the layer of a seed

Pairs = Int[Tensor, "pairs 2"] | Sequence[Sequence[int]]
"""A graph: its edges, ordered pairs of features (k, l), k ≠ l."""


def targeted(
    m: int, d: int, seed: int, pairs: Pairs, per_gate: int | None = None, activation: str = "relu", s: int = 2
) -> FirstLayer:
    """Make the layer for the AND of every listed pair; `per_gate` ≤ d neurons a gate, default `best_per_gate` for s active."""
    table = PairTask(m, "and", pairs).pairs
    if per_gate is None:
        per_gate = best_per_gate(m, d, table, s)
    neurons = gate_neurons(m, d, seed, table, per_gate)
    weight = torch.zeros(m, d)
    for feature in table.T:
        weight[feature[:, None].expand_as(neurons), neurons] = 1.0
    return FirstLayer(weight.T.contiguous(), torch.full((d,), -1.0), activation, ORIGIN)


def gate_neurons(m: int, d: int, seed: int, pairs: Pairs, per_gate: int) -> Int[Tensor, "pairs per_gate"]:
    """Draw each gate's own neurons without replacement: those that `targeted` uses with the same arguments."""
    table = PairTask(m, "and", pairs).pairs
    _check_sizes(d, per_gate)
    generator = seeded(seed)
    ranks = [
        torch.rand(min(_ROWS, len(table) - start), d, generator=generator, dtype=torch.float64).topk(per_gate).indices
        for start in range(0, len(table), _ROWS)
    ]
    return torch.cat(ranks)


@torch.no_grad()
def targeted_readoff(
    layer: nn.Module, task: Task, neurons: Int[Tensor, "pairs per_gate"] | None = None
) -> LinearReadoff:
    """Read the mean over all neurons that see both features, or over the listed ones (`gate_neurons`: as published). Float64.

    The default is all neurons that see both, because its worst error is smaller: neurons that see a pair because of two other
    gates are averaged, too. Worst errors of single gates over all inputs with at most 2 active, mean over gates and 3
    seeds, all common neurons against the gate's own: 0.41 and 0.42 (m = 100, d = 200, 100 gates, 5 neurons each), 0.56 and
    0.69 (400 gates), 0.49 and 0.74 (d = 400, 1,000 gates). In sparse graphs the RMS errors differ by at most 3 %.

    Raises InputError unless `targeted` made the layer, with ReLU, and the task is AND on pairs that some neuron sees.
    """
    if not (isinstance(layer, FirstLayer) and layer.origin == ORIGIN):
        raise InputError("this needs the layer of the targeted construction: use a fitted readoff here")
    seen = features_seen(layer)
    if layer.activation != "relu":
        raise InputError("the targeted readoff holds for a ReLU layer only: use a fitted readoff here")
    task = pair_task(task, "the targeted readoff", seen.shape[1])
    if task.gate.name != "and":
        raise InputError(f"the targeted construction computes the AND of pairs of features; the task is {task.name}")
    pairs = task.pairs.to(seen.device)
    if neurons is None:
        weight = (seen[:, pairs[:, 0]] * seen[:, pairs[:, 1]]).T.contiguous()
    else:
        if len(neurons) != len(pairs):
            raise InputError(f"there are neurons for {len(neurons)} gates and {len(pairs)} pairs: give one row a pair")
        weight = torch.zeros(len(pairs), len(seen), dtype=torch.float64, device=seen.device)
        weight.scatter_(1, neurons.to(seen.device), 1.0)
    number = weight.sum(1, keepdim=True)
    for k, l in pairs[number[:, 0] == 0].tolist():
        raise InputError(f"no neuron sees both features of the pair ({k}, {l}): the layer was not made for this gate")
    return LinearReadoff(weight / number, weight.new_zeros(len(pairs)))


@LAYERS(
    "targeted", role="construction", order=23, reads=is_pair_and, fits=lambda task: isinstance(task, PairTask),
    source="Vaintrob, Mendel, Hänni 2024, section 1.3; arXiv:2408.05451, Theorem 11", own_readoff=targeted_readoff,
    own_source="mean over the neurons that see both (Vaintrob et al. 2024, section 1.3)",
)  # fmt: skip
def targeted_layer(m: int, d: int, seed: int, task: PairTask, s: int) -> FirstLayer:
    """Give each of the task's pairs neurons of its own."""
    return targeted(m, d, seed, task.pairs, s=s)


class Prediction(NamedTuple):
    """Estimate of the largest error of the published readoff over all gates and inputs."""

    worst_error: float
    number: float
    """Expected number of errors of at least this size; above ln 2."""


def predicted_worst_error(m: int, d: int, pairs: Pairs, per_gate: int, s: int = 2) -> Prediction:
    """Estimate the worst error with at most s of m features active, 2 ≤ s ≤ m, for `best_per_gate` (derived here).

    With one feature of the gate and t = s − 1 others on, each other feature has weight 1 on a neuron with probability
    q = 1 − (1 − n/d)^g, g its gates, so the n neurons add up to about Bin(n t, q), averaged over features. There are
    N = gates · C(m − 2, t) such sums; taken as independent, the median of their largest is the least e with
    N · P(sum > n e) ≤ ln 2.
    """
    from scipy.stats import binom  # half a second to import, and wanted only here

    table = PairTask(m, "and", pairs).pairs
    _check_sizes(d, per_gate)
    check_whole(2, m, s=s)
    t, n = s - 1, per_gate
    degrees, features = np.unique(torch.bincount(table.reshape(-1), minlength=m).numpy(), return_counts=True)
    tails = binom.sf(np.arange(n * t + 1)[:, None] - 1, n * t, 1 - (1 - n / d) ** degrees) @ (features / m)
    sums = min(len(table) * max(1, math.comb(m - 2, t)), 10**300)  # must fit in a float
    count = float(sums) * np.append(tails, 0.0)  # expected number of sums of at least 0, 1, …, n t + 1
    largest = int(np.argmax(count <= math.log(2))) - 1
    return Prediction(largest / n, float(count[largest]))


def best_per_gate(m: int, d: int, pairs: Pairs, s: int = 2) -> int:
    """Return the number of neurons a gate, from 1 to d, of least `predicted_worst_error`; of equals, that of fewest errors.

    The published log⁴(m) exceeds d at laboratory sizes (449 at m = 100). Few neurons average too little, and many are shared
    by too many gates. Tries sizes in steps of a tenth.
    """
    _check_sizes(d, 1)
    sizes = {round(size) for size in np.geomspace(1, d, 1 + math.ceil(math.log(d) / math.log(1.1)))} | {1, d}
    return min(sorted(sizes), key=lambda size: predicted_worst_error(m, d, pairs, size, s))


def random_graph(m: int, gates: int, seed: int) -> Int[Tensor, "gates 2"]:
    """Draw different pairs k < l of m features, uniformly at random; `gates` is from 1 to m(m − 1)/2."""
    check_whole(2, m=m)
    number = m * (m - 1) // 2
    check_whole(1, number, gates=gates)
    chosen = torch.randperm(number, generator=seeded(seed))[:gates]
    return torch.triu_indices(m, m, 1).T[chosen]


def feasible_gates(
    d: int, inputs: Inputs, seed: int, worst_error: float | int = 0.5, own: bool = False, ratio: float = 1.03
) -> int:
    """Find how many gates of a random graph keep the worst error below a limit, up to a factor `ratio` above 1.

    Over the given inputs, for a layer and a graph drawn from the seed, with `best_per_gate` neurons a gate. `own`: read only the
    gates' own neurons, as published, instead of all that see both features. Below 1/2 a threshold tells zeros and ones apart. All
    m(m − 1)/2 pairs are tried first, then the logarithm of the number of gates is bisected. The error grows with the gates on the
    whole, but not at every step, so there may be other crossings.
    """
    if not (worst_error > 0 and ratio > 1):
        raise InputError(f"a limit of errors lies above 0 and a ratio above 1, got {worst_error:g} and {ratio:g}")

    def good(gates: int) -> bool:
        pairs = random_graph(inputs.m, gates, seed)
        size = best_per_gate(inputs.m, d, pairs)
        layer, task = targeted(inputs.m, d, seed, pairs, size), PairTask(inputs.m, "and", pairs)
        readoff = targeted_readoff(layer, task, gate_neurons(inputs.m, d, seed, pairs, size) if own else None)
        # Errors are ratios of whole numbers: one that equals the limit must not pass by rounding.
        return evaluate(Network(layer, readoff), task, inputs).worst_error < worst_error * (1 - 1e-9)

    low, high = 1, inputs.m * (inputs.m - 1) // 2  # a single gate has no error
    if good(high):
        return high
    while high - low > 1 and high > ratio * low:
        middle = min(max(round(math.sqrt(low * high)), low + 1), high - 1)
        low, high = (middle, high) if good(middle) else (low, middle)
    return low


def _check_sizes(d: int, per_gate: int) -> None:
    check_whole(1, d=d)
    check_whole(1, d, per_gate=per_gate)
