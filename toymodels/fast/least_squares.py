"""Least-squares readoffs: exact minimisers of the (weighted) mean squared error over given inputs."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.losses import case_weights
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.theory.gates import bilinear

_ROWS, _COLUMNS = 1024, 1024


@torch.no_grad()
def least_squares(layer: nn.Module, task: Task, inputs: Inputs) -> LinearReadoff:
    """R = C G⁻¹ with G = E[ã ãᵀ], C = E[f ãᵀ], ã the activations and a constant 1 (theory, section 5).

    One factorisation serves all outputs. Unweighted: on sparse inputs almost every target of U-AND is 0, and the
    readoff is close to 0. Activations that depend on each other linearly (dead neurons, d above the number of
    inputs) get the solution of least norm. In float64.
    """
    layer = _double(layer)
    second: Tensor | float = 0.0
    mixed: list[Tensor] | None = None
    blocks = _output_blocks(task)
    for rows in inputs.blocks(_ROWS):
        x, a = _activations(layer, inputs, rows)
        weighted = a * inputs.probabilities[rows, None]
        second = second + a.T @ weighted
        products = [task.targets(x, outputs).T @ weighted for outputs in blocks]
        mixed = products if mixed is None else [total.add_(more) for total, more in zip(mixed, products, strict=True)]
    assert isinstance(second, Tensor)  # there is at least one input
    assert mixed is not None
    solution = torch.cat(mixed) @ _inverse(second)
    return _readoff(solution)


@torch.no_grad()
def balanced(
    layer: nn.Module,
    task: Task,
    features: SparseFeatures,
    inputs: Inputs,
    weight: str | float | int = "case",
) -> LinearReadoff:
    """Least squares with the weights of `losses.case_weights`: by default every input case weighs the same.

    Each output has second moments of its own. For a gate on pairs they differ from the common ones only on the few
    inputs in which the pair takes part, and split into moments given one feature and given both:

        E[w ã ãᵀ] = w00 G + (w10 − w00) G_k + (w01 − w00) G_l + (w11 − w10 − w01 + w00) G_kl,

    G_k = E[x_k ã ãᵀ] (found once per feature), G_kl = E[x_k x_l ã ãᵀ] (over the few inputs with both on). One factorisation of
    (d + 1)³/3 operations per output remains; updating a common factorisation instead would cost more, because the
    inputs with one of two features on outnumber the neurons at every size of interest.
    """
    layer = _double(layer)
    weights = case_weights(weight, task.truth, task.case_probabilities(features))
    if not isinstance(task, PairTask):
        return _readoff(_balanced_direct(layer, task, inputs, weights))
    moments = _PairMoments(layer, inputs)
    valued = [w * f for w, f in zip(weights, task.truth, strict=True)]
    rows = []
    for k, l in task.pairs.tolist():
        # The last row of E[ã ãᵀ] is E[ãᵀ], because the last entry of ã is 1.
        rows.append(_solve(moments.weighted(k, l, weights), moments.weighted(k, l, valued)[-1]))
    return _readoff(torch.stack(rows))


class _PairMoments:
    """Second moments of the activations, weighted by a value for each input case of a pair."""

    def __init__(self, layer: nn.Module, inputs: Inputs):
        blocks = [_activations(layer, inputs, rows) for rows in inputs.blocks(_ROWS)]
        self._activations = torch.cat([a for _, a in blocks])
        self._probabilities = inputs.probabilities
        self._on = torch.cat([x for x, _ in blocks]).bool().T.contiguous()
        self._all = self._given(torch.ones(len(inputs), dtype=torch.bool, device=self._on.device))
        self._one: dict[int, Tensor] = {}

    def weighted(self, k: int, l: int, values: Sequence[float]) -> Float[Tensor, "extended extended"]:
        """E[values[case] ã ãᵀ] over the cases of the pair (k, l)."""
        alpha, beta, gamma, delta = bilinear(values)
        return (
            alpha * self._all
            + beta * self._given_one(k)
            + gamma * self._given_one(l)
            + delta * self._given(self._on[k] & self._on[l])
        )

    def _given_one(self, k: int) -> Tensor:
        if k not in self._one:
            self._one[k] = self._given(self._on[k])
        return self._one[k]

    def _given(self, chosen: Tensor) -> Tensor:
        a = self._activations[chosen]
        return a.T @ (a * self._probabilities[chosen, None])


def _balanced_direct(
    layer: nn.Module, task: Task, inputs: Inputs, weights: Sequence[float]
) -> Float[Tensor, "outputs extended"]:
    """Any task: weighted second moments of each output in turn."""
    blocks = [_activations(layer, inputs, rows) for rows in inputs.blocks(_ROWS)]
    x, a = torch.cat([x for x, _ in blocks]), torch.cat([a for _, a in blocks])
    rows = []
    for outputs in _output_blocks(task):
        share = task.by_case(x, weights, outputs) * inputs.probabilities[:, None]
        target = task.targets(x, outputs)
        for i in range(share.shape[1]):
            weighted = a * share[:, i, None]
            rows.append(_solve(a.T @ weighted, target[:, i] @ weighted))
    return torch.stack(rows)


def _double(layer: nn.Module) -> nn.Module:
    """A float64 copy of the layer."""
    return copy.deepcopy(layer).double()


def _activations(layer: nn.Module, inputs: Inputs, rows: slice) -> tuple[Tensor, Tensor]:
    """(inputs, activations with a constant 1 appended) of some rows, in float64."""
    x = inputs.dense(rows, torch.float64)
    a = layer(x)
    return x, torch.cat([a, a.new_ones(len(a), 1)], 1)


def _output_blocks(task: Task) -> list[slice]:
    return [slice(i, min(i + _COLUMNS, task.n_outputs)) for i in range(0, task.n_outputs, _COLUMNS)]


def _inverse(second: Float[Tensor, "extended extended"]) -> Float[Tensor, "extended extended"]:
    """(Pseudo-)inverse of second moments, each activation first scaled to mean square 1 (a dead one stays 0)."""
    size = second.diagonal().sqrt()
    scale = torch.where(size > 0, 1 / size, 0.0)
    return scale[:, None] * torch.linalg.pinv(second * scale * scale[:, None], rtol=1e-12, hermitian=True) * scale


def _solve(second: Float[Tensor, "extended extended"], mixed: Float[Tensor, " extended"]) -> Float[Tensor, " extended"]:
    size = second.diagonal().sqrt()
    scale = torch.where(size > 0, 1 / size, 0.0)
    scaled = second * scale * scale[:, None]
    factor, failed = torch.linalg.cholesky_ex(scaled)
    # A failed or nearly failed factorisation means dependent activations: take the solution of least norm.
    if int(failed) or float(factor.diagonal().min()) < 1e-6:
        return scale * (torch.linalg.pinv(scaled, rtol=1e-12, hermitian=True) @ (scale * mixed))
    return scale * torch.cholesky_solve((scale * mixed)[:, None], factor)[:, 0]


def _readoff(solution: Float[Tensor, "outputs extended"]) -> LinearReadoff:
    return LinearReadoff(solution[:, :-1].contiguous(), solution[:, -1].contiguous())
