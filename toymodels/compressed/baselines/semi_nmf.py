"""Networks with W_in ≥ 0 that copy T = 1 + M for positive features: the floor, and semi-NMF as published and with its transpose
right.

The published code of arXiv:2606.14673 factors T as U V with U ≥ 0, and computes ReLU(x U) V: for a row x that is the network
W_in = Uᵀ, W_out = Vᵀ, whose answer to feature j is row j of T, while its labels have column j. It copies Mᵀ in place of M.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from jaxtyping import Float

from toymodels.compressed.registry import BASELINES, Compressed
from toymodels.compressed.stack import network
from toymodels.core.network import Network
from toymodels.errors import InputError, check_kind, check_whole
from toymodels.theory import compressed as theory

ROUNDS, MULTIPLICATIVE = 200, 500
"""Rounds of the factoring, and multiplicative steps before them; published: 500 and 5,000."""


def semi_nmf(
    matrix: Float[np.ndarray, "n n"], d: int, seed: int, rounds: int = ROUNDS, multiplicative: int = MULTIPLICATIVE
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "d n"]]:
    """Factor a matrix T as U V with U ≥ 0, as arXiv:2606.14673 does.

    U starts from a non-negative factoring of |T| (multiplicative steps of Lee & Seung 2001 from a random start); then in each
    round V = pinv(U) T, and U takes 5 projected gradient steps on ‖UV − T‖², divided by ‖V‖²'s largest eigenvalue, with a step on
    a cosine from 0.1 to 0.001 (times 10: relative to the largest stable step), U ≥ 1e-8.
    """
    check_kind(np.ndarray, "a NumPy matrix", matrix=matrix)
    theory.check_sizes(len(matrix), d)
    theory.check_mixing(matrix, len(matrix))
    if not matrix.any():
        raise InputError("all entries of the matrix are 0: there is nothing to factor")
    check_whole(0, seed=seed)
    check_whole(1, rounds=rounds)
    check_whole(0, multiplicative=multiplicative)
    rng = np.random.default_rng(seed)
    size = np.abs(matrix)
    scale = math.sqrt(size.mean() / d)
    U, V = (scale * np.abs(rng.standard_normal(shape)) for shape in ((len(matrix), d), (d, len(matrix))))
    for _ in range(multiplicative):
        V *= (U.T @ size) / (U.T @ U @ V + 1e-12)
        U *= (size @ V.T) / (U @ (V @ V.T) + 1e-12)
    U = np.maximum(U, 1e-8)
    for round_ in range(rounds):
        V = _right(U, matrix)
        step = 0.01 + (1 - 0.01) * (1 + math.cos(math.pi * round_ / rounds)) / 2
        gram, cross = V @ V.T, matrix @ V.T
        step /= float(np.linalg.eigvalsh(gram)[-1])
        for _ in range(5):
            U = np.maximum(U - step * (U @ gram - cross), 1e-8)
    return U, _right(U, matrix)


def _right(U: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Compute pinv(U) T."""
    return np.linalg.lstsq(U, matrix, rcond=1e-10)[0]


@functools.lru_cache(maxsize=16)
def _factored(content: bytes, n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return semi_nmf(np.frombuffer(content).reshape(n, n), d, seed)


def factor_network(problem: Compressed, seed: int, published: bool = False) -> Network:
    """Make the network of a factoring: with the transpose right it answers feature j by column j of T ≈ U V.

    As published it factors T itself and answers by rows; right, it factors Tᵀ.
    """
    matrix = problem.target if published else problem.target.T
    U, V = _factored(np.ascontiguousarray(matrix).tobytes(), problem.n, problem.d, seed)
    return network(torch.from_numpy(U.T.copy()), torch.from_numpy(V.T.copy()))


def right_network(problem: Compressed, seed: int) -> Network:
    """Make the network with its transpose right from start 0, which the predicted number speaks of."""
    return factor_network(problem, 0)


def published_network(problem: Compressed, seed: int) -> Network:
    """Make the network as published, which copies Mᵀ, from start 0."""
    return factor_network(problem, 0, published=True)


def _floor_samples(problem: Compressed, seed: int) -> list[float]:
    """Factor from three starts: networks of the floor's domain, which lie above it."""
    return [problem.one_active(factor_network(problem, seed + start)) for start in range(3)]


@BASELINES(
    "non_negative", kind="floor", about="W_in ≥ 0: least L/p", domain="exactly one feature active, W_in ≥ 0, every M",
    single=True, measure=_floor_samples, reach=1.25, source="derived here (theory.compressed)", order=10,
)  # fmt: skip
def non_negative(problem: Compressed) -> float:
    """Compute the floor for non-negative first layers: the best matrix of rank d for 1 + M."""
    return theory.non_negative(problem.n, problem.d, problem.mixing)


@BASELINES(
    "semi_nmf", about="semi-NMF of 1 + M: L/p", domain="exactly one feature active, every M",
    single=True, build=right_network, source="arXiv:2606.14673, with its transpose right", order=11,
)  # fmt: skip
def semi_nmf_right(problem: Compressed) -> float:
    """Compute the loss of the semi-NMF network from its matrices, start 0."""
    return problem.one_active(right_network(problem, 0))


@BASELINES(
    "semi_nmf_published", about="semi-NMF as published, a copy of Mᵀ: L/p", domain="exactly one feature active, every M",
    single=True, build=published_network, source="arXiv:2606.14673, as its code has it", order=12,
)  # fmt: skip
def semi_nmf_published(problem: Compressed) -> float:
    """Compute the loss of the published semi-NMF network from its matrices, start 0."""
    return problem.one_active(published_network(problem, 0))
