"""Solve least squares with shared work: one factorisation for all outputs, and moments that pairs share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.dispatch import fast_form
from toymodels.core.features import Inputs
from toymodels.core.least_squares import extended, solve_all, solve_weighted
from toymodels.core.tasks import PairTask, Task
from toymodels.theory.gates import bilinear

_ROWS, _COLUMNS = 1024, 1024


@fast_form(solve_all, lambda *_: True)
def shared_solve_all(layer: nn.Module, task: Task, inputs: Inputs) -> Float[Tensor, "outputs extended"]:
    """Solve R = C G⁻¹ with one factorisation of G = E[ã ãᵀ], from blocks of inputs."""
    second: Tensor | float = 0.0
    mixed: list[Tensor] | None = None
    starts = range(0, task.n_outputs, _COLUMNS)
    blocks = [slice(start, min(start + _COLUMNS, task.n_outputs)) for start in starts]
    for rows in inputs.blocks(_ROWS):
        x, a = extended(layer, inputs, rows)
        weighted = a * inputs.probabilities[rows, None]
        second = second + a.T @ weighted
        products = [task.targets(x, outputs).T @ weighted for outputs in blocks]
        mixed = products if mixed is None else [total.add_(more) for total, more in zip(mixed, products, strict=True)]
    assert isinstance(second, Tensor)  # there is at least one input
    assert mixed is not None
    return torch.cat(mixed) @ _inverse(second)


@fast_form(solve_weighted, lambda layer, task, inputs, weights: type(task) is PairTask and inputs.values is None)
def pair_solve_weighted(
    layer: nn.Module, task: PairTask, inputs: Inputs, weights: Sequence[float]
) -> Float[Tensor, "outputs extended"]:
    """Solve each pair from moments that pairs share.

    Each output has second moments of its own. For a gate on pairs they differ from the common ones only on the few
    inputs in which the pair takes part, and split into moments given one feature and given both:

        E[w ã ãᵀ] = w00 G + (w10 − w00) G_k + (w01 − w00) G_l + (w11 − w10 − w01 + w00) G_kl,

    G_k = E[x_k ã ãᵀ] (computed once per feature), G_kl = E[x_k x_l ã ãᵀ] (over the few inputs with both on). One factorisation
    of (d + 1)³/3 operations per output remains; updating a common factorisation instead would cost more, because the
    inputs with one of two features on outnumber the neurons at every size of interest. If there are fewer inputs than
    unknowns, they are fitted exactly, and the factorised matrix has a row for each input.
    """
    moments = _PairMoments(layer, inputs)
    square, cross = bilinear(weights), bilinear([w * f for w, f in zip(weights, task.truth, strict=True)])
    rows = []
    for k, l in task.pairs.tolist():
        solution = moments.exact(k, l, weights, task.truth)
        if solution is None:
            parts = moments.parts(k, l)
            # The last row of E[ã ãᵀ] is E[ãᵀ], because the last entry of ã is 1.
            solution = _solve(_sum(square, parts), _sum(cross, [part[-1] for part in parts]))
        rows.append(solution)
    return torch.stack(rows)


class _PairMoments:
    """Second moments of the activations, over the inputs of each case of a pair."""

    def __init__(self, layer: nn.Module, inputs: Inputs):
        blocks = [extended(layer, inputs, rows) for rows in inputs.blocks(_ROWS)]
        self._activations = torch.cat([a for _, a in blocks])
        self._probabilities = inputs.probabilities
        self._on = torch.cat([x for x, _ in blocks]).bool().T.contiguous()
        self._all = self._given(torch.ones(len(inputs), dtype=torch.bool, device=self._on.device))
        self._one: dict[int, Tensor] = {}

    def parts(self, k: int, l: int) -> list[Float[Tensor, "extended extended"]]:
        """Return E[ã ãᵀ], E[x_k ã ãᵀ], E[x_l ã ãᵀ] and E[x_k x_l ã ãᵀ]."""
        return [self._all, self._given_one(k), self._given_one(l), self._given(self._on[k] & self._on[l])]

    def exact(
        self, k: int, l: int, weights: Sequence[float], truth: Sequence[float] | Sequence[int]
    ) -> Float[Tensor, " extended"] | None:
        """Return the solution of least norm that fits every input, if there are few enough; else None."""
        a = self._activations
        if len(a) >= a.shape[1]:
            return None
        case = 2 * self._on[k].long() + self._on[l].long()
        root = (a.new_tensor(weights)[case] * self._probabilities).sqrt()
        rows = root[:, None] * a
        size = torch.linalg.vector_norm(rows, dim=0)
        scale = torch.where(size > 0, 1 / size, 0.0)
        rows = rows * scale
        factor, failed = torch.linalg.cholesky_ex(rows @ rows.T)
        if int(failed) or not float(factor.diagonal().min()) > 1e-6 * float(factor.diagonal().max()):
            return None  # equal inputs, or of no weight, may not be fitted
        return scale * (rows.T @ torch.cholesky_solve((root * a.new_tensor(truth)[case])[:, None], factor)[:, 0])

    def _given_one(self, k: int) -> Tensor:
        if k not in self._one:
            self._one[k] = self._given(self._on[k])
        return self._one[k]

    def _given(self, chosen: Tensor) -> Tensor:
        a = self._activations[chosen]
        return a.T @ (a * self._probabilities[chosen, None])


def _sum(coefficients: Sequence[float], parts: Sequence[Tensor]) -> Tensor:
    total = coefficients[0] * parts[0]
    for coefficient, part in zip(coefficients[1:], parts[1:], strict=True):
        if coefficient:
            total.add_(part, alpha=coefficient)
    return total


def _inverse(second: Float[Tensor, "extended extended"]) -> Float[Tensor, "extended extended"]:
    """Return the (pseudo-)inverse of second moments, each activation first scaled to mean square 1 (a dead one stays 0)."""
    scale, scaled = _scaled(second)
    return scale[:, None] * torch.linalg.pinv(scaled, rtol=1e-12, hermitian=True) * scale


def _scaled(second: Float[Tensor, "extended extended"]) -> tuple[Tensor, Tensor]:
    size = second.diagonal().sqrt()
    scale = torch.where(size > 0, 1 / size, 0.0)
    return scale, second * scale * scale[:, None]


def _solve(second: Float[Tensor, "extended extended"], mixed: Float[Tensor, " extended"]) -> Float[Tensor, " extended"]:
    scale, scaled = _scaled(second)
    factor, failed = torch.linalg.cholesky_ex(scaled)
    # A failed or nearly failed factorisation means dependent activations: take the solution of least norm.
    if int(failed) or float(factor.diagonal().min()) < 1e-6:
        return scale * (torch.linalg.pinv(scaled, rtol=1e-12, hermitian=True) @ (scale * mixed))
    return scale * torch.cholesky_solve((scale * mixed)[:, None], factor)[:, 0]
