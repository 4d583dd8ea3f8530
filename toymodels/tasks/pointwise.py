"""Tasks that are pointwise functions of real-valued features, with an optional mixing matrix: y = f(x) + M x.

Two papers use them: y = ReLU(x) + M x of n features in fewer neurons (Bhagat et al., arXiv:2606.14673), and y = ReLU(x) without
M (da Silva & Heimersheim, arXiv:2607.04800).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.core.seeds import seeded
from toymodels.core.tasks import ALL, TASKS, Task
from toymodels.errors import InputError, NoEffectError, check_choice, check_positive, check_whole


class PointwiseTask(Task):
    """Output i is f(x_i) + (M x)_i, one for each feature. Cases: whether feature i is active."""

    def __init__(
        self, m: int, function: Callable[[Tensor], Tensor], name: str, mixing: Float[Tensor, "m m"] | None = None
    ):
        """Take a function of each feature, and a mixing matrix M (m × m, finite) or None for no mixing."""
        check_whole(least=1, m=m)
        if mixing is not None and (mixing.shape != (m, m) or not bool(mixing.isfinite().all())):
            raise InputError(f"a mixing matrix of shape {tuple(mixing.shape)}: it must be {m} × {m} and finite")
        self.m = self.n_outputs = m
        self.name, self.function, self.mixing = name, function, mixing

    @property
    def outputs_in_words(self) -> str:
        """Say that there is one for each feature."""
        return f"one for each of {self.m} features"

    def cases(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Int[Tensor, "batch outputs"]:
        """Return 1 where the output's feature is active, else 0."""
        return (x[:, outputs] != 0).long()

    def targets(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Float[Tensor, "batch outputs"]:
        """Return f(x_i) + (M x)_i."""
        values = self.function(x[:, outputs])
        return values if self.mixing is None else values + x @ self.mixing.to(x)[outputs].T

    def stored(self) -> dict[str, Tensor]:
        """Return the mixing matrix, if there is one."""
        return {} if self.mixing is None else {"matrix": self.mixing}


MIXING = ("none", "asymmetric", "symmetric", "embedding", "low_rank")
"""Kinds of mixing matrices."""
SIGMA = 0.02
"""The default standard deviation of their entries."""


def mixing_matrix(
    kind: str, m: int, sigma: float | int, seed: int, rank: int | None = None
) -> Float[Tensor, "m m"] | None:
    """Draw a mixing matrix (float32); None for "none", which papers call clean.

    asymmetric: iid N(0, σ²). symmetric: N(0, σ²) on and above the diagonal, mirrored. embedding: W_E W_Eᵀ − 1 with m random unit
    rows of W_E in 1/σ² dimensions, so that entries off the diagonal have standard deviation σ; the diagonal is 0. low_rank:
    c U Vᵀ with U and V of `rank` random orthonormal columns each (m/2 if None), a flat spectrum; c = σm/√rank, so that ‖M‖² =
    σ²m² as for asymmetric.
    Raises InputError for another kind, a σ that is not positive, finite and (embedding) at most 1, or a rank that does not fit.
    """
    check_choice(MIXING, mixing=kind)
    check_whole(least=1, m=m)
    if rank is not None:
        if kind != "low_rank":
            raise InputError(f"rank = {rank}: only mixing = low_rank has one; leave it out")
        check_whole(1, m, rank=rank)
    if kind == "none":
        return None
    check_positive(most=1 if kind == "embedding" else math.inf, sigma=sigma)
    generator = seeded(seed)
    if kind == "embedding":
        rows = torch.randn(m, round(1 / sigma**2), generator=generator)
        unit = rows / rows.norm(dim=1, keepdim=True)
        return (unit @ unit.T).fill_diagonal_(0)
    if kind == "low_rank":
        r = rank or max(1, m // 2)
        left, right = (torch.linalg.qr(torch.randn(m, r, generator=generator))[0] for _ in range(2))
        return sigma * m / r**0.5 * left @ right.T
    drawn = sigma * torch.randn(m, m, generator=generator)
    return drawn if kind == "asymmetric" else drawn.triu() + drawn.triu(1).T


def _pointwise(name: str, order: int, function: Callable[[Tensor], Tensor], words: str) -> None:
    def make(
        m: int, seed: int, matrix: Tensor | None, *, mixing: str = "none", sigma: float | int = SIGMA, rank: int = 0
    ) -> PointwiseTask:
        if mixing == "none" and sigma != SIGMA:
            raise NoEffectError(f"sigma = {sigma}: without mixing it has no effect, leave it out or name a mixing")
        if matrix is None:
            matrix = mixing_matrix(mixing, m, sigma, seed, rank or None)
        return PointwiseTask(m, function, name, matrix)

    make.__doc__ = (
        f"Compute {words} of each feature, plus M x with a mixing matrix M "
        "(none, asymmetric, symmetric, embedding, low_rank)."
    )
    make.__qualname__ = f"pointwise_{name}"
    TASKS(name, order=order, source="arXiv:2606.14673; arXiv:2607.04800")(make)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu, "abs": torch.abs, "square": torch.square, "copy": lambda x: x,
}  # fmt: skip
"""The functions of each feature, by the names of their tasks; copy is the identity."""

for _order, (_name, _words) in enumerate({"relu": "ReLU(x)", "abs": "|x|", "square": "x²", "copy": "x itself"}.items()):
    _pointwise(_name, 20 + _order, FUNCTIONS[_name], _words)
