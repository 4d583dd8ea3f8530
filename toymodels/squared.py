"""The weighted squared loss without its outputs.

With targets and weights that are bilinear in (x_k, x_l) — every gate, every weight by case — the mean of w (o − f)² over
all outputs o = r·ã is a sum of quadratic forms,

    Σ_x P w (o − f)² = r (α G + β G_k + γ G_l + δ G_kl) rᵀ − 2 r·(α' μ + β' μ_k + γ' μ_l + δ' μ_kl) + const,

G = E[ã ãᵀ] and μ = E[ã] over the batch, with a subscript over the inputs in which that feature (those features) is on,
(α … δ) the bilinear form of the weights and (α' … δ') that of weights times targets (`gates.bilinear`). G costs
batch·d² instead of batch·pairs·d, G_k is needed only where weights or targets treat 01 or 10 apart from 00, and G_kl is
a sum over the few pairs that are on together. Exact: the value and the gradients are those of the dense form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.gates import Gate, bilinear
from toymodels.tasks import PairTask


def squared_loss(
    activations: Float[Tensor, "batch neurons"],
    weight: Float[Tensor, "outputs neurons"],
    bias: Float[Tensor, " outputs"],
    task: PairTask,
    indices: Int[Tensor, "batch width"],
    probabilities: Float[Tensor, " batch"],
    case_weights: Sequence[float],
) -> Float[Tensor, ""]:
    """mean over outputs of Σ_x P(x) w_case (o − f)², differentiable in activations, weight and bias.

    `indices` are the batch's active features, padded with m; `probabilities` its inputs' P(x).
    """
    p = probabilities.to(activations.dtype)
    a = torch.cat([activations, activations.new_ones(len(activations), 1)], 1)
    r = torch.cat([weight, bias[:, None]], 1)
    valued = [w * f for w, f in zip(case_weights, task.truth, strict=True)]
    alpha, beta, gamma, delta = bilinear(case_weights)
    alpha1, beta1, gamma1, delta1 = bilinear(valued)
    weighted = a * p[:, None]
    total = ((r @ (weighted.T @ a)) * r).sum() * alpha - 2 * alpha1 * (r @ weighted.sum(0)).sum()
    if beta or gamma or beta1 or gamma1:
        total = total + _one_on(a, weighted, r, task, indices, (beta, gamma), (beta1, gamma1))
    if delta or delta1:
        rows, outputs = PairTask(task.m, Gate((0, 0, 0, 1)), task.pairs).ones(indices)
        both = (a[rows] * r[outputs]).sum(1)
        total = total + (p[rows] * (delta * both**2 - 2 * delta1 * both)).sum()
    mass = _mass(task, indices, p, valued)
    return (total + mass) / task.n_outputs


def _one_on(
    a: Tensor,
    weighted: Tensor,
    r: Tensor,
    task: PairTask,
    indices: Tensor,
    square: tuple[float, float],
    cross: tuple[float, float],
) -> Tensor:
    """Σ over features k of r G_k rᵀ and r·μ_k, over the outputs that read k first (β, β') or second (γ, γ').

    The outputs that read one feature are few, and so are the inputs with it on: their own products are the cheap way.
    """
    total = a.new_zeros(())
    first, second = task.pairs[:, 0].to(a.device), task.pairs[:, 1].to(a.device)
    for k in range(task.m):
        rows = (indices == k).any(1).nonzero()[:, 0]
        for readers, s, c in ((first == k, square[0], cross[0]), (second == k, square[1], cross[1])):
            if (s or c) and len(rows):
                out = a[rows] @ r[readers].T
                share = weighted[rows, -1:]  # the last activation is 1, so this is P(x)
                total = total + (share * (s * out**2 - 2 * c * out)).sum()
    return total


def _mass(task: PairTask, indices: Tensor, p: Tensor, valued: Sequence[float]) -> Tensor:
    """Σ P w f²: what the loss of predicting 0 everywhere would be; f² = f."""
    alpha, beta, gamma, delta = bilinear(valued)
    on = torch.zeros(len(indices), task.m + 1, dtype=p.dtype, device=p.device).scatter_(1, indices, 1)[:, : task.m]
    count = torch.zeros(2, task.m, dtype=p.dtype, device=p.device)
    for line, column in zip(count, task.pairs.T.to(p.device), strict=True):
        line += torch.bincount(column, minlength=task.m)
    total = alpha * p.sum() * task.n_outputs + (p @ on) @ (beta * count[0] + gamma * count[1])
    if delta:
        rows, _ = PairTask(task.m, Gate((0, 0, 0, 1)), task.pairs).ones(indices)
        total = total + delta * p[rows].sum()
    return total
