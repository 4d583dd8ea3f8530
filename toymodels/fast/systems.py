"""Solve the linear systems of `fast.interior_point`: by a factor of each, or by conjugate gradients of all together.

The system of a target, for changes of a readoff y and of t, is [[GᵀWG, −c], [−cᵀ, Σ w]] with weights w of the inputs and the
coupling c of y and t. At the start weights are nearly equal, and it is nearly Σ w times the identity, because GᵀG = n·1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.linalg import blas, lapack

Bases = dict[type, np.ndarray]
"""A basis G of activations by its precision: float64, and float32 for what need not be more exact."""
Solve = Callable[[np.ndarray | None, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Takes b (targets × inputs; None if it is 0) and t's right-hand sides; returns changes of (y, t), and of the errors G y."""

_SPREAD = 8  # mean over least weight up to which few conjugate gradients are enough
_ENOUGH = 1e-2  # share of the right-hand side that they may leave: the next step takes it away
_MOST = 30  # of them
_UNKNOWNS, _TALL = 64, 4  # they cost less from this number of unknowns on, up to so many inputs for each


def even(G: Float[np.ndarray, "inputs basis"], weights: Float[np.ndarray, "targets inputs"]) -> np.ndarray:
    """Return for which targets conjugate gradients cost less than a factor."""
    n, k = G.shape
    near: np.ndarray = weights.mean(1) < _SPREAD * weights.min(1)
    return near & (k >= _UNKNOWNS) & (n <= _TALL * k)


def solver(
    bases: Bases,
    factors: Sequence[np.ndarray | None],
    weights: Float[np.ndarray, "targets inputs"],
    coupling: Float[np.ndarray, "targets basis"],
) -> Solve:
    """Return the function that solves the systems of a step, those without a factor by conjugate gradients."""
    G, short = bases[np.float64], bases[np.float32]
    by_gradients = [i for i, factor in enumerate(factors) if factor is None]
    w, c = (part[by_gradients].astype(np.float32) for part in (weights, coupling))

    def solve(b: np.ndarray | None, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rhs = np.zeros((len(last), G.shape[1] + 1))
        if b is not None:
            rhs[:, :-1] = b @ G
        rhs[:, -1] = last
        z = np.empty_like(rhs)
        for i, factor in enumerate(factors):
            if factor is not None:
                z[i] = backwards(factor, rhs[i])
        if by_gradients:
            z[by_gradients] = _conjugate_gradients(short, w, c, rhs[by_gradients].astype(np.float32))
        return z, z[:, :-1] @ G.T

    return solve


def _conjugate_gradients(G: np.ndarray, w: np.ndarray, c: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """Solve the systems of some targets together: a pass over G for many costs hardly more than for one."""
    total = w.sum(1, keepdims=True)

    def product(z: np.ndarray) -> np.ndarray:
        y, t = z[:, :-1], z[:, -1:]
        return np.hstack([(y @ G.T * w) @ G - c * t, total * t - (c * y).sum(1, keepdims=True)])

    z = rhs / total
    left = rhs - product(z)
    direction, size, enough = left.copy(), _squares(left), _ENOUGH**2 * _squares(rhs)
    tiny = np.finfo(rhs.dtype).tiny  # for targets of which nothing is left
    for _ in range(_MOST):
        if (size <= enough).all():
            break
        image = product(direction)
        length = size / np.maximum((direction * image).sum(1, keepdims=True), tiny)
        z += length * direction
        left -= length * image
        before, size = size, _squares(left)
        direction = left + size / np.maximum(before, tiny) * direction
    return z


def _squares(rows: np.ndarray) -> np.ndarray:
    sums: np.ndarray = np.square(rows).sum(1, keepdims=True)
    return sums


def factorised(
    G: Float[np.ndarray, "inputs basis"], weight: np.ndarray, coupling: np.ndarray, keep: int
) -> np.ndarray | None:
    """Return the Cholesky factor of a system; None if it is not positive definite.

    Only the `keep` largest weights enter one by one. All others enter by their mean w̄: since Σ g gᵀ = n·1 over all
    inputs, w̄ n·1 + Σ_kept (w − w̄) g gᵀ. Near the solution, where precision is needed, they are negligible.
    """
    n, k = G.shape
    rest = 0.0
    kept: np.ndarray | slice = slice(None)
    if keep < n:
        kept = np.argpartition(weight, n - keep)[n - keep :]
        rest = max((weight.sum() - weight[kept].sum()) / (n - keep), 0.0)
    rows = np.empty((keep, k + 1), G.dtype)
    rows[:, k] = 0  # the column of t is filled in below
    np.multiply(G[kept], np.sqrt(np.maximum(weight[kept] - rest, 0)).astype(G.dtype)[:, None], out=rows[:, :k])
    H = gram(rows)
    H.T.flat[: -1 : k + 2] += rest * n
    H[k, :k] = -coupling
    H[k, k] = weight.sum()
    # If there are many solutions, this picks one of them.
    H.T.flat[:: k + 2] *= 1 + (1e-14 if G.dtype == np.float64 else 1e-6)
    return cholesky(H)


def gram(rows: np.ndarray) -> np.ndarray:
    """Return the lower triangle of rowsᵀ rows, in the order of LAPACK, which can then overwrite it."""
    return (blas.dsyrk if rows.dtype == np.float64 else blas.ssyrk)(1.0, rows.T, lower=1)


def cholesky(matrix: np.ndarray) -> np.ndarray | None:
    """Return the Cholesky factor of a matrix by its lower triangle, in its place; None if it is not positive definite."""
    routine = lapack.dpotrf if matrix.dtype == np.float64 else lapack.spotrf
    factor, failed = routine(matrix, lower=1, clean=0, overwrite_a=1)
    return None if failed else factor


def backwards(factor: np.ndarray, rhs: np.ndarray) -> np.ndarray:
    """Solve a system by its Cholesky factor."""
    return (lapack.dpotrs if factor.dtype == np.float64 else lapack.spotrs)(factor, rhs, lower=1)[0]
