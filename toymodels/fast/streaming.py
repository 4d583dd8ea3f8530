"""Measure errors of readoffs by rule on Gaussian layers too wide to hold, drawing and discarding neurons in blocks.

A readoff by rule reads neuron i of the pair (k, l) with weight η(w_ki, w_li)/d: the analytic readoff, and every readoff
of `toymodels.theory` that is a function of a pair's own weights. It needs memory for inputs × pairs, for any m and d.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.core.features import Inputs, SparseFeatures, even
from toymodels.core.seeds import seeded
from toymodels.core.tasks import PairTask
from toymodels.errors import check_whole
from toymodels.theory.gates import Gate
from toymodels.theory.quadrants import readoff_coefficients

Rule = Callable[[Tensor, Tensor], Tensor]
"""η(weights on x_k, weights on x_l): takes two tensors of one shape, and returns a third one."""

_ENTRIES = 2**21  # of pairs × neurons and inputs × neurons held at once


def analytic_rule(gate: Gate, s: int) -> Rule:
    """Return the four-quadrant readoff of `readoffs.analytic` as a rule. Raises InputError for s < 2."""
    eta = readoff_coefficients(gate, s).tolist()

    def rule(u: Tensor, v: Tensor) -> Tensor:
        on_u, on_v = (u > 0).to(u.dtype), (v > 0).to(v.dtype)
        both = on_u * on_v * (eta[3] - eta[2] - eta[1] + eta[0])
        return both.add_(on_u, alpha=eta[2] - eta[0]).add_(on_v, alpha=eta[1] - eta[0]).add_(eta[0])

    return rule


def rule_of(eta: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Rule:
    """Make a rule from a function of NumPy arrays, such as those of `theory.optimal` and `theory.kernel`."""
    return lambda u, v: torch.from_numpy(eta(u.double().numpy(), v.double().numpy())).to(u.dtype)


@torch.no_grad()
def stream_outputs(
    rule: Rule, d: int, task: PairTask, inputs: Inputs, seed: int, block: int | None = None, bias: float = 0.0
) -> Float[Tensor, "inputs pairs"]:
    """Return the outputs (float64) that a rule reads for the task's pairs from a Gaussian ReLU layer of d ≥ 1 neurons.

    Every neuron has the same bias. Products in float32, sums over blocks in float64, `block` neurons at a time (default: as
    memory allows). The layer depends on the seed and on the block size.
    """
    check_whole(1, d=d)
    largest = max(len(inputs), task.n_outputs, task.m)
    size = block or max(16, min(d, _ENTRIES // largest // 16 * 16))
    outputs = torch.zeros(len(inputs), task.n_outputs, dtype=torch.float64)
    generator = seeded(seed)
    for start in range(0, d, size):
        # Drawn with one row per neuron; then one row per feature, and a row of zeros for the padding of the inputs.
        weight = torch.randn(min(size, d - start), task.m, generator=generator).T.contiguous()
        padded = torch.cat([weight, weight.new_zeros(1, weight.shape[1])])
        active = weight.new_full((len(inputs), weight.shape[1]), bias)
        for column in inputs.indices.T:
            active += padded[column]
        outputs += active.relu_() @ rule(weight[task.pairs[:, 0]], weight[task.pairs[:, 1]]).T
    return outputs / d


@dataclass(frozen=True)
class CaseErrors:
    """Errors on one layer, by the input case 00, 01, 10, 11 of the pair."""

    count: Int[np.ndarray, " 4"]
    """Number of (input, pair)s in each case."""
    mean_square: Float[np.ndarray, " 4"]
    """Mean of error²; 0 for a case that does not occur."""
    worst: float
    """Largest |error| over all."""


def case_errors(outputs: Float[Tensor, "inputs pairs"], task: PairTask, inputs: Inputs) -> CaseErrors:
    """Measure the errors of outputs; every (input, pair) counts once."""
    x = inputs.dense(dtype=torch.float64)
    case = task.cases(x).reshape(-1)
    error = (outputs - task.targets(x)).reshape(-1)
    count = torch.bincount(case, minlength=4)
    square = torch.bincount(case, error.square(), 4)
    return CaseErrors(count.numpy(), (square / count.clamp(min=1)).numpy(), float(error.abs().max()))


def sample_cases(m: int, s: int, gate: Gate, n: int, seed: int) -> tuple[Inputs, PairTask]:
    """Draw n inputs with exactly s of m active, and pairs among which every case that s can produce occurs often.

    For each input: a random pair and, if they exist, a pair with both features on and one with one of them on (a random
    pair is rarely on: s²/m²). Pairs have k < l and are kept once. The choice of pairs does not depend on the layer, so errors
    *given their case* have the same distribution as over all inputs and pairs; the shares of the cases have not.
    """
    nothing = torch.zeros(n, 0, dtype=torch.int64)
    empty = Inputs(m, nothing, even(n, nothing.device), False, "the empty input")
    inputs = SparseFeatures.exactly(m, s).sampled(n, seed) if s else empty
    order = torch.rand(n, m, generator=seeded(seed))
    x = inputs.dense()
    on, off = (order + x).argsort(1, descending=True), (order - x).argsort(1, descending=True)
    pairs = [order.argsort(1)[:, :2]]
    if s >= 2:
        pairs.append(on[:, :2])
    if 1 <= s < m:
        pairs.append(torch.stack([on[:, 0], off[:, 0]], 1))
    return inputs, PairTask(m, gate, torch.unique(torch.cat(pairs).sort(1).values, dim=0))
