"""Least-squares readoffs: exact minimisers of the (weighted) mean squared error over given inputs, in float64.

This is the plain form: one least-squares problem for all outputs, or one for each. Activations are first scaled to mean square
1; if they are linearly dependent (dead neurons, d above the number of inputs), the solution is the one of least norm.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.dispatch import dispatched
from toymodels.core.features import Inputs, Source
from toymodels.core.layers import apply, check_problem
from toymodels.core.losses import case_weights
from toymodels.core.readoffs import READOFFS, Combination, LinearReadoff
from toymodels.core.tasks import Task
from toymodels.errors import InputError

RANK = 1e-6
"""Singular values of the scaled activations below this share of the largest count as 0."""


def frozen(combination: Combination) -> bool:
    """Whether the layer is a hidden layer that is not trained."""
    return combination.layer.role not in ("none", "trained")


@READOFFS(
    "least_squares", order=20, colour="#009E73", marker="^", applies=frozen, default=True,
    source="docs/theory.md, section 5",
)  # fmt: skip
@torch.no_grad()
def least_squares(layer: nn.Module, task: Task, inputs: Inputs) -> LinearReadoff:
    """Minimise the mean squared error: R = C G⁻¹ with G = E[ã ãᵀ], C = E[f ãᵀ], ã the activations and a constant 1.

    Unweighted: on sparse inputs almost every target of U-AND is 0, and the readoff is close to 0.
    """
    return linear_readoff(solve_all(_checked(layer, task, inputs), task, inputs))


@READOFFS(
    "balanced", order=30, colour="#56B4E9", marker="D", applies=frozen, default=True, source="docs/theory.md, section 5"
)
@torch.no_grad()
def balanced(
    layer: nn.Module, task: Task, features: Source, inputs: Inputs, *, weight: str | float | int = "case"
) -> LinearReadoff:
    """Minimise the squared error with the weights of `losses.case_weights`: by default every input case weighs the same."""
    layer = _checked(layer, task, inputs)
    weights = case_weights(weight, task.truth, task.case_probabilities(features))
    return linear_readoff(solve_weighted(layer, task, inputs, weights))


def _checked(layer: nn.Module, task: Task, inputs: Inputs) -> nn.Module:
    """Return the layer in float64. Raises InputError unless it takes the inputs, and returns finite numbers for them."""
    check_problem(layer, task, inputs)
    layer = copy.deepcopy(layer).double().eval()
    apply(layer, inputs.m, "layer")
    returned = layer(inputs.dense(slice(0, 1), torch.float64))
    if returned.dtype != torch.float64 or not bool(returned.isfinite().all()):
        raise InputError("the layer returns numbers that are not finite, or no float64 for inputs in float64")
    return layer


def extended(layer: nn.Module, inputs: Inputs, rows: slice = slice(None)) -> tuple[Tensor, Tensor]:
    """Return (inputs, activations with a constant 1 appended) of some rows, in float64."""
    x = inputs.dense(rows, torch.float64)
    a = layer(x)
    return x, torch.cat([a, a.new_ones(len(a), 1)], 1)


def linear_readoff(solution: Float[Tensor, "outputs extended"]) -> LinearReadoff:
    """Turn weights whose last one is the offset's into a readoff."""
    return LinearReadoff(solution[:, :-1].contiguous(), solution[:, -1].contiguous())


@dispatched
def solve_all(layer: nn.Module, task: Task, inputs: Inputs) -> Float[Tensor, "outputs extended"]:
    """Solve one least-squares problem for all outputs."""
    x, a = extended(layer, inputs)
    return _solve(a, task.targets(x), inputs.probabilities[:, None])


@dispatched
def solve_weighted(
    layer: nn.Module, task: Task, inputs: Inputs, weights: Sequence[float]
) -> Float[Tensor, "outputs extended"]:
    """Solve one least-squares problem for each output, with inputs weighted by their case."""
    x, a = extended(layer, inputs)
    targets, shares = task.targets(x), task.by_case(x, weights) * inputs.probabilities[:, None]
    return torch.cat([_solve(a, targets[:, i, None], shares[:, i, None]) for i in range(task.n_outputs)])


def _solve(a: Tensor, targets: Tensor, shares: Tensor) -> Float[Tensor, "outputs extended"]:
    size = (shares * a.square()).sum(0).sqrt()
    scale = torch.where(size > 0, 1 / size, 0.0)
    root = shares.sqrt()
    solution = torch.linalg.lstsq((root * a * scale).cpu(), (root * targets).cpu(), rcond=RANK, driver="gelsd").solution
    return (scale.cpu()[:, None] * solution).T.to(a.device)
