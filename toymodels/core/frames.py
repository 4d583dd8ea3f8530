"""Frames: features embedded in superposition, as m directions in fewer than m dimensions.

Column k is the unit vector of feature k (an "f-vector" of the 2024 post); the layer reads F x. The coherence is the largest
|cosine| of two directions; no frame has less than Welch's bound (`theory.floors.welch_bound`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.core.seeds import seeded
from toymodels.errors import check_whole


def check_frame(m: int, d0: int) -> None:
    """Raise InputError unless 1 ≤ d0 ≤ m."""
    check_whole(m=m)
    check_whole(1, m, d0=d0)


def random_frame(m: int, d0: int, seed: int) -> Float[Tensor, "d0 m"]:
    """Draw m independent uniform unit vectors in R^d0. Raises InputError unless 1 ≤ d0 ≤ m."""
    check_frame(m, d0)
    return _unit(torch.randn(d0, m, generator=seeded(seed)))


def optimised_frame(m: int, d0: int, seed: int) -> Float[Tensor, "d0 m"]:
    """Make m unit vectors in R^d0 of low coherence, starting from random ones. Raises InputError unless 1 ≤ d0 ≤ m.

    The largest squared cosine is approximated by ever sharper soft maxima (log-sum-exp), each minimised by L-BFGS. This is a
    local minimum: compare `coherence` with Welch's bound.
    """
    return _optimised(m, d0, seed).clone()


# A comparison asks for the same frame once for each first layer.
@functools.lru_cache(maxsize=8)
def _optimised(m: int, d0: int, seed: int) -> Float[Tensor, "d0 m"]:
    raw = random_frame(m, d0, seed).double().requires_grad_()
    row, column = torch.triu_indices(m, m, 1)
    for sharpness in (10.0, 30.0, 100.0, 300.0, 1000.0):
        optimiser = torch.optim.LBFGS([raw], max_iter=60, history_size=10, line_search_fn="strong_wolfe")

        def soft_maximum(sharpness: float = sharpness, optimiser: torch.optim.LBFGS = optimiser) -> Tensor:
            optimiser.zero_grad()
            frame = _unit(raw)
            squares = (frame.T @ frame)[row, column].square()
            loss = torch.logsumexp(sharpness * squares, 0) / sharpness
            loss.backward()
            return loss

        optimiser.step(soft_maximum)
    return _unit(raw.detach()).float()


def coherence(frame: Float[Tensor, "d0 m"]) -> float:
    """Return the largest |cosine| of two different features' directions; 0 for a single feature."""
    cosines = (_unit(frame).T @ _unit(frame)).abs()
    return float(cosines.fill_diagonal_(0).max())


def _unit(vectors: Float[Tensor, "d0 m"]) -> Float[Tensor, "d0 m"]:
    return vectors / vectors.norm(dim=0, keepdim=True)


FRAMES: dict[str, Callable[[int, int, int], Tensor]] = {"random": random_frame, "optimised": optimised_frame}
"""Frames by name: a function of (m, d0, seed)."""
