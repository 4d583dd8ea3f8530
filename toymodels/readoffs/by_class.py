"""Readoffs of layers with iid weights on finitely many values: a neuron's readoff depends on its two weights alone."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.core.features import Inputs, Source
from toymodels.core.layers import FirstLayer
from toymodels.core.losses import case_weights
from toymodels.core.readoffs import READOFFS, LinearReadoff
from toymodels.core.tasks import PairTask, Task, pair_task
from toymodels.errors import InputError
from toymodels.theory.bernoulli import debias
from toymodels.theory.classes import solve_readoff
from toymodels.theory.distributions import WeightDistribution, finite_classes
from toymodels.theory.gates import Gate

_BLOCK = 2**22
"""Entries of a block of outputs, so that index tables stay small beside the readoff itself."""


@torch.no_grad()
def mean_readoff(layer: nn.Module, task: Task, s: int, p: float | int, kind: str = "none") -> LinearReadoff:
    """Read a pair as gain · (mean activation over S_k ∩ S_l) − shift, S_k the neurons with weight 1 on feature k.

    Construction 1.2 of Vaintrob, Mendel, Hänni (2024), Theorem 1 of arXiv:2408.05451; gain and shift from
    `toymodels.theory.bernoulli.debias(s, p, kind)`, kind "none" (as published), "shift" or "affine". A pair with an
    empty intersection outputs −shift. Weights float64, (outputs, d).

    Raises InputError unless the task is U-AND, the layer a ReLU layer of weights 0 and 1 with bias −1, s ≥ 2, 0 < p < 1.
    """
    name = "the mean over common neurons"
    layer, task = _checked(layer, task, name)
    if task.gate.name != "and":
        raise InputError(f"{name} computes the gate and, not {task.gate.name}")
    weight = layer.weight
    if not bool(((weight == 0) | (weight == 1)).all()) or not bool((layer.bias == -1).all()):
        raise InputError(f"{name} reads only layers of weights 0 and 1 with bias −1")
    correction = debias(s, p, kind)
    on = (weight > 0).T
    pairs = task.pairs.to(weight.device)
    both = (on[pairs[:, 0]] & on[pairs[:, 1]]).double()
    both *= correction.gain / both.sum(1, keepdim=True).clamp(min=1)
    return LinearReadoff(both, both.new_full((len(pairs),), -correction.shift))


@torch.no_grad()
def class_readoff(
    layer: nn.Module, task: Task, s: int, weights: WeightDistribution, by: str = "value"
) -> LinearReadoff:
    """Read neuron i with η/d, η by the class of its weights on the pair: unbiased in all four cases at exactly s active.

    η is `solve_readoff(finite_classes(weights, s, by), gate)`; over the draw of the layer the standard deviation of every error
    is σ/√d with its σ. by = "value": a class for each pair of weight values; by = "sign": for each pair of their signs.
    On a Rademacher layer both are c·sign(w_k)·sign(w_l)/d for AND (docs/theory.md, section 3); a ternary layer has nine
    classes, and its zeros are read too, which leaves less error than the product of signs. Weights float64, (outputs, d).

    Raises InputError unless the task is a gate on pairs that these classes can compute, s ≥ 2, and the layer a ReLU layer
    with these values and this bias.
    """
    layer, task = _checked(layer, task, "the readoff by class")
    eta = _coefficients(weights, s, by, task.gate)
    which = _which_value(layer, weights)
    table = torch.tensor(eta, dtype=torch.float64, device=which.device) / layer.width
    n = len(weights.values)
    pairs = task.pairs.to(which.device)
    weight = torch.empty(len(pairs), layer.width, dtype=torch.float64, device=which.device)
    rows = max(1, _BLOCK // layer.width)
    for start in range(0, len(pairs), rows):
        part = pairs[start : start + rows]
        torch.take(table, which[part[:, 0]] * n + which[part[:, 1]], out=weight[start : start + rows])
    return LinearReadoff(weight, weight.new_zeros(len(pairs)))


@READOFFS(
    "by_class", order=40, colour="black", marker="*", source="Newgas 2025, arXiv:2507.09816; fitted here",
    applies=lambda c: isinstance(c.task, PairTask) and c.layer.role != "none" and not c.embedded,
    note=lambda embedded: "by_class is left out: with an embedding a weight is not one on a feature." if embedded else "",
)  # fmt: skip
@torch.no_grad()
def fitted_class_readoff(layer: nn.Module, task: Task, features: Source, inputs: Inputs) -> LinearReadoff:
    """Fit one value for each sign class of a neuron's two weights, and an offset, for all pairs at once: A − B1 − B2 + C.

    Readoff i of the pair (k, l) is α + β sign(w_ik) + γ sign(w_il) + δ sign(w_ik) sign(w_il); the five numbers (with the
    offset) minimise the squared error over all pairs and inputs, in which every input case has the same weight. Five numbers
    cannot adapt to a single pair: a layer with small errors here computes by the four-class algorithm (Newgas,
    arXiv:2507.09816; the four-quadrant readoff of docs/theory.md, section 3). A weight of 0 counts as negative. Weights float64.

    Raises InputError unless the task is a gate on pairs and the layer a FirstLayer.
    """
    if not isinstance(layer, FirstLayer):
        raise InputError("the readoff by sign class reads a FirstLayer's weights: use a fitted readoff here")
    task = pair_task(task, "the readoff by sign class", layer.weight.shape[1])
    sign = torch.where(layer.weight > 0, 1.0, -1.0).double().T.contiguous()
    first, second = task.pairs.to(sign.device).T
    weights = case_weights("case", task.truth, task.case_probabilities(features))
    layer = copy.deepcopy(layer).double().eval()
    moments, mixed = torch.zeros(5, 5, dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for rows in inputs.blocks(max(1, _BLOCK // task.n_outputs)):
        x = inputs.dense(rows, torch.float64)
        a = layer(x)
        total, single = a.sum(1, keepdim=True), a @ sign.T
        parts = [total.expand(-1, len(first)), single[:, first], single[:, second], a @ (sign[first] * sign[second]).T]
        terms = torch.stack([*parts, torch.ones_like(parts[0])], -1).reshape(-1, 5)
        share = (task.by_case(x, weights) * inputs.probabilities[rows, None]).reshape(-1, 1)
        moments += (terms.T @ (terms * share)).cpu()
        mixed += ((share * terms).T @ task.targets(x).reshape(-1)).cpu()
    # Dead layers and gates without an interaction do not fix all five: gelsd gives the solution of least norm.
    alpha, beta, gamma, delta, offset = torch.linalg.lstsq(moments, mixed, driver="gelsd").solution.tolist()
    u, v = sign[first], sign[second]
    weight = alpha + beta * u + gamma * v + delta * u * v
    return LinearReadoff(weight, weight.new_full((len(first),), offset))


@functools.lru_cache(maxsize=64)
def _coefficients(weights: WeightDistribution, s: int, by: str, gate: Gate) -> tuple[float, ...]:
    """Return η of every ordered pair of the values, in the order of the distribution. Raises InputError as `class_readoff`."""
    classes = finite_classes(weights, s, by)
    eta = solve_readoff(classes, gate).eta.tolist()
    names = [float((value > 0) - (value < 0)) if by == "sign" else float(value) for value in weights.values]
    position = {label: index for index, label in enumerate(classes.labels)}
    return tuple(eta[position[a, b]] for a in names for b in names)


def _which_value(layer: FirstLayer, weights: WeightDistribution) -> Int[Tensor, "m neurons"]:
    """Return the index of each weight's value. Raises InputError for weights or biases that the distribution does not have."""
    values: Float[Tensor, " values"] = _single(weights.values, layer.weight)
    which = torch.zeros(layer.weight.T.shape, dtype=torch.int64, device=layer.weight.device)
    known = torch.zeros_like(which, dtype=torch.bool)
    for index, value in enumerate(values):
        equal = layer.weight.T.eq(value)
        known |= equal
        which[equal] = index
    if not bool(known.all()):
        raise InputError(f"the layer has weights other than {weights.values}: give the distribution it was drawn from")
    if not bool((layer.bias == _single((weights.bias,), layer.bias)).all()):
        raise InputError(f"the layer's biases are not {weights.bias:g}: give the distribution it was drawn from")
    return which


def _single(values: Sequence[float], like: Tensor) -> Float[Tensor, " values"]:
    """Round numbers to single precision, as a layer's weights were when it was drawn, in the precision that it has now."""
    return torch.tensor(values, dtype=torch.float32).to(like)


def _checked(layer: nn.Module, task: Task, name: str) -> tuple[FirstLayer, PairTask]:
    if not (isinstance(layer, FirstLayer) and layer.activation == "relu"):
        raise InputError(f"{name} holds for a layer of iid weights with ReLU only: use a fitted readoff here")
    return layer, pair_task(task, name, layer.weight.shape[1])
