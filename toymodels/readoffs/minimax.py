"""Minimax readoffs: the smallest worst-case error that any linear readoff of a layer can reach, with its proof."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from toymodels.errors import InputError
from toymodels.features import Inputs, SparseFeatures, count_in_words
from toymodels.readoffs.chebyshev import Chebyshev, ChebyshevSolver
from toymodels.readoffs.linear import LinearReadoff
from toymodels.tasks import Task

MINIMAX_LIMIT = 200_000
"""Inputs; a linear program needs every admissible input, and each costs d numbers of memory."""


@dataclass(frozen=True)
class Minimax:
    """A minimax readoff and, for each output, the certificate that no linear readoff of this layer does better."""

    readoff: LinearReadoff
    """The readoff, in float64."""
    certificates: tuple[Chebyshev, ...]
    """One per output: its measured worst error ε and a signed measure μ on inputs (rows, multipliers) with
    Σ|μ| = 1, Σ μ a = 0, Σ μ = 0, so that every readoff errs by at least Σ μ f somewhere."""

    @property
    def proved(self) -> bool:
        """Whether every output's worst error equals its lower bound (to 1e-6)."""
        return all(certificate.proved for certificate in self.certificates)


def check_minimax(features: SparseFeatures, limit: int = MINIMAX_LIMIT) -> None:
    """Raises InputError, with the count and what to do, where inputs are too many for a minimax readoff."""
    if features.n_inputs > limit:
        raise InputError(
            f"a minimax readoff needs all inputs, and {features.name} active features make "
            f"{count_in_words(features.n_inputs)}, more than {limit:,}: take fewer (active) features, or leave "
            "minimax out and name the other readoffs"
        )


@torch.no_grad()
def minimax(
    layer: nn.Module,
    task: Task,
    inputs: Inputs,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Minimax:
    """For each output i, min over (r, c) of max over inputs |r·a(x) + c − f_i(x)| (theory, section 5).

    Computed and measured in float64 over the inputs given: over all admissible inputs the result is the layer's own
    limit ε*; over a sample its lower bound still holds for all inputs, its upper bound for the sample only.
    `progress` may wrap the loop over outputs (a progress bar).
    Raises InputError for activations that are not finite.
    """
    certificates = []
    x = inputs.dense(dtype=torch.float64)
    # Its matrix products are too short for threads: a second one makes them many times slower where cores are busy.
    with threadpool_limits(1, "blas"):
        solver = ChebyshevSolver(_activations(layer, inputs))
        for i in progress(range(task.n_outputs)):
            target = task.targets(x, slice(i, i + 1))[:, 0].cpu().numpy()
            certificates.append(solver.solve(target))
    weight = torch.from_numpy(np.stack([c.coefficients for c in certificates]))
    bias = torch.tensor([c.offset for c in certificates], dtype=torch.float64)
    return Minimax(LinearReadoff(weight, bias).to(x.device), tuple(certificates))


def _activations(layer: nn.Module, inputs: Inputs) -> np.ndarray:
    layer = copy.deepcopy(layer).double()
    blocks = [layer(inputs.dense(rows, torch.float64)) for rows in inputs.blocks(4096)]
    return torch.cat(blocks).cpu().numpy()
