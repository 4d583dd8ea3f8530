"""Solve the program of `core.minimax` for many targets over the same activations, with a proof of optimality.

Method: Mehrotra's predictor-corrector interior point (SIAM J. Optim. 2, 1992), which needs about 15 linear systems of d + 2
unknowns; the simplex method, as in exchange algorithms, needs several hundred pivots. Most of the cost would be the Gram
matrix of each system; it is computed from the few inputs with the largest weights, and the others enter with their mean
weight (after Tits, Absil & Woessner, "Constraint reduction for linear programs with many inequality constraints", SIAM J.
Optim. 17, 2006). If that fails, a simplex method (HiGHS) is used.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import highspy
import numpy as np
from jaxtyping import Float
from scipy.linalg import blas, lapack
from scipy.optimize import nnls

from toymodels.core.minimax import GAP, Chebyshev, check_activations, check_target, measured

_RANK = 1e-10  # singular values below this share of the largest are rounding: using them would need coefficients ≥ 1e10
_INDEPENDENT = 1e-6  # reciprocal condition number from which Gram matrices are good enough
_EXACT = 1e-11  # a least-squares fit this close, in units of half the target's range, has error 0 but for rounding
_CONVERGED = 1e-10  # the interior point stops at this gap, in units of the least-squares residual
_SHARE = 1 - 1e-3  # a step may go this share of the way to the nearest bound
_FIRST = 2000  # inputs of the simplex method's first program
_KEEP = 3  # inputs per unknown that enter a Gram matrix one by one; more if the direction is too inexact


class ChebyshevSolver:
    """Solves for many targets over the same inputs and activations.

    The activations are factorised once. Columns are centred (the offset corrects for it) and scaled, dead and constant ones
    left out, and the others replaced by an orthonormal basis of their span, so that dependent columns do no harm.

    A target takes about 20 passes over the basis, which are too short for threads to help: run one process per core, each
    with one thread (OMP_NUM_THREADS=1).
    """

    def __init__(self, activations: Float[np.ndarray, "inputs neurons"]):
        """Factorise the activations. Raises InputError unless they are a finite float64 matrix with at least one row."""
        check_activations(activations)
        self._activations = activations
        size = np.abs(activations).max(0)
        self.measured = functools.partial(measured, activations, size=size)
        """`core.minimax.measured` on these activations."""
        centred = activations - activations.mean(0)
        spread = np.abs(centred).max(0)
        live = np.flatnonzero(spread > 1e-13 * size)
        columns, to_columns = _orthonormal(centred[:, live] / spread[live])
        n, rank = columns.shape
        # Columns of mean square 1, the constant last: the Gram matrix of the basis is n times the identity.
        self._basis = np.empty((n, rank + 1))
        np.multiply(columns, np.sqrt(n), out=self._basis[:, :rank])
        self._basis[:, rank] = 1
        self._to_coefficients = np.zeros((activations.shape[1], rank))
        self._to_coefficients[live] = to_columns * np.sqrt(n) / spread[live, None]

    def solve(self, target: Float[np.ndarray, " inputs"]) -> Chebyshev:
        """Return the minimax readoff of one target, proved optimal or with the best known bounds (see `proved`).

        Raises InputError for a target of another length than the activations, or not finite.
        """
        f = np.asarray(target, np.float64)
        check_target(f, len(self._activations))
        G = self._basis
        centred = f - (f.max() / 2 + f.min() / 2)
        size = float(np.abs(centred).max())
        fit = G.T @ centred / len(f)
        residual = centred - G @ fit
        unit = float(np.abs(residual).max())
        best: Chebyshev | None = None
        if unit <= GAP * size:
            fit += G.T @ residual / len(f)  # a second time: the residual of an exact fit is then only rounding
            residual = centred - G @ fit
            unit = float(np.abs(residual).max())
            best = self._result(f, fit, np.zeros(len(f)), 0, "exact")
            if unit <= _EXACT * size:
                return best
        residual /= unit
        count = 0
        attempts: list[tuple[str, Callable[[], _Point]]] = [
            ("interior point", lambda: _interior_point(G, residual, _KEEP * G.shape[1])),
            ("interior point", lambda: _interior_point(G, residual, len(f))),
            ("simplex", lambda: _simplex(G, residual)),
        ]
        for method, attempt in attempts:
            y, measure, steps = attempt()
            count += steps
            if not np.isfinite(y).all():
                continue
            solution = self._result(f, fit + unit * y, _annihilating(G, measure), count, method)
            if solution.proved:
                return self._thinned(f, solution)
            if best is None or solution.gap < best.gap:
                best = solution
        return best or self._result(f, fit, np.zeros(len(f)), count, "least squares")

    def _result(self, f: np.ndarray, y: np.ndarray, measure: np.ndarray, iterations: int, method: str) -> Chebyshev:
        coefficients = self._to_coefficients @ y[:-1]
        rows = np.flatnonzero(measure)
        prediction = self._activations @ coefficients - f
        # The best offset for these coefficients, without the rounding error of a mean of large activations.
        offset = -float(prediction.max() / 2 + prediction.min() / 2)
        return self.measured(f, coefficients, offset, rows, measure[rows], iterations, method)

    def _thinned(self, f: np.ndarray, full: Chebyshev) -> Chebyshev:
        """Return the same proof on few inputs, if ties have spread it over many (Carathéodory: rank + 2 are enough).

        A non-negative least-squares solution is a vertex: it has at most as many entries as there are equations.
        """
        rows, signs = full.rows, np.sign(full.multipliers)
        few = self._basis.shape[1] + 2
        if len(rows) <= few:
            return full
        equations = np.vstack([self._basis[rows].T, f[rows], signs]) * signs
        wanted = np.zeros(few)
        wanted[-2:] = full.lower_bound, 1
        try:
            mass, _ = nnls(equations, wanted)
        except RuntimeError:  # no convergence: keep the many
            return full
        kept = np.flatnonzero(mass)
        mu = (mass * signs)[kept]
        thin = self.measured(f, full.coefficients, full.offset, rows[kept], mu, full.iterations, full.method)
        return thin if thin.proved else full


def _orthonormal(A: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (Q, T) with Q = A T, orthonormal columns that span those of A.

    Cholesky factors of the Gram matrix, twice, where the columns are independent enough for them (Yamamoto et al. 2015,
    "Roundoff error analysis of the CholeskyQR2 algorithm"): at 8,000 × 1,000 a third of the time of a QR factorisation.
    """
    first, failed = lapack.dpotrf(A.T @ A, clean=1) if A.shape[1] else (np.eye(0), 1)
    if not failed and lapack.dtrcon(first)[0] > _INDEPENDENT:
        q = A.copy()
        blas.dtrsm(1.0, first, q.T, trans_a=1, overwrite_b=1)
        second, failed = lapack.dpotrf(q.T @ q, clean=1)
        if not failed:
            blas.dtrsm(1.0, second, q.T, trans_a=1, overwrite_b=1)
            return q, lapack.dtrtri(second @ first)[0]
    q, upper = np.linalg.qr(A)
    u, sigma, vt = np.linalg.svd(upper, full_matrices=False)
    rank = int((sigma > _RANK * sigma[0]).sum()) if len(sigma) else 0
    return q @ u[:, :rank], vt[:rank].T / sigma[:rank]


_Point = tuple[np.ndarray, np.ndarray, int]  # readoff in the basis, measure on all inputs, iterations


def _interior_point(G: np.ndarray, f: np.ndarray, keep: int, limit: int = 60) -> _Point:
    """Minimise t with |G y − f| ≤ t, for G with GᵀG = n·1 and max|f| = 1.

    Slacks t ∓ e of e = G y − f, multipliers u, v of the two sides; the measure is v − u.
    """
    n, k = G.shape
    y, t = np.zeros(k), 1.2
    above, below = t + f, t - f
    u, v = 1 / above, 1 / below
    mass = u.sum() + v.sum()
    u, v = u / mass, v / mass
    H = np.empty((k + 1, k + 1))
    best = y, v - u
    count, predicted = 0, np.zeros(k)
    with np.errstate(all="ignore"):  # after a breakdown numbers are not finite, which is checked below
        while count < limit:
            complementarity = u @ above + v @ below
            p, q = u / above, v / below
            # One pass over G: the dual residual, and the coupling of y and t in the linear system.
            dual, coupling = np.stack([u - v, p - q]) @ G
            surplus = u.sum() + v.sum() - 1
            if not np.isfinite(complementarity):
                break
            best = y, v - u
            if complementarity < _CONVERGED:
                break
            # The dual residual added by the last step shows how inexact its Gram matrix was.
            if np.abs(dual - predicted).max() / complementarity > 0.1:
                keep = min(2 * keep, n)
            factor = None
            while factor is None:
                factor = _factorised(G, p + q, coupling, keep, H)
                if factor is None:
                    if keep >= n:
                        return *best, count
                    keep *= 2
            count += 1

            # Predictor: towards complementarity 0. Its right-hand side is known without a pass over G.
            rhs = np.zeros(k + 1)
            rhs[k] = -1
            _, d_above, d_below, du, dv = _step(G, factor, p, q, rhs, -u, -v)
            primal = min(_longest(above, d_above), _longest(below, d_below))
            length = min(_longest(u, du), _longest(v, dv))
            reached = (u + length * du) @ (above + primal * d_above) + (v + length * dv) @ (below + primal * d_below)
            centre = (reached / complementarity) ** 3 * complementarity / (2 * n)
            # Corrector: towards the central path, with the predictor's second-order term.
            into_u = (centre - du * d_above) / above - u
            into_v = (centre - dv * d_below) / below - v
            rhs[:k] = (into_v - into_u) @ G - dual
            rhs[k] = surplus + into_u.sum() + into_v.sum()
            z, d_above, d_below, du, dv = _step(G, factor, p, q, rhs, into_u, into_v)
            share = min(max(0.95, 1 - complementarity), _SHARE)
            primal = min(1.0, share * min(_longest(above, d_above), _longest(below, d_below)))
            length = min(1.0, share * min(_longest(u, du), _longest(v, dv)))
            y, t = y + primal * z[:k], t + primal * z[k]
            above, below = above + primal * d_above, below + primal * d_below
            u, v = u + length * du, v + length * dv
            predicted = (1 - length) * dual
    return *best, count


def _step(
    G: np.ndarray,
    factor: np.ndarray,
    p: np.ndarray,
    q: np.ndarray,
    rhs: np.ndarray,
    into_u: np.ndarray,
    into_v: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Take Newton's step (z, above, below, u, v) for u·above and v·below to change by into_u·above and into_v·below.

    p = u/above and q = v/below.
    """
    z = lapack.dpotrs(factor, rhs)[0]
    de = G @ z[:-1]
    d_above, d_below = z[-1] - de, z[-1] + de
    return z, d_above, d_below, into_u - p * d_above, into_v - q * d_below


def _factorised(G: np.ndarray, weight: np.ndarray, coupling: np.ndarray, keep: int, H: np.ndarray) -> np.ndarray | None:
    """Return the Cholesky factor of [[Σ w g gᵀ, −coupling], [−coupling, Σ w]]; None if it is not positive definite.

    Only the `keep` largest weights enter one by one. All others enter by their mean w̄: since Σ g gᵀ = n·1 over all
    inputs, w̄ n·1 + Σ_kept (w − w̄) g gᵀ. Near the solution, where precision is needed, they are negligible.
    """
    n, k = G.shape
    if keep < n:
        kept = np.argpartition(weight, n - keep)[n - keep :]
        rest = max((weight.sum() - weight[kept].sum()) / (n - keep), 0.0)
        rows = G[kept]
        rows *= np.sqrt(np.maximum(weight[kept] - rest, 0))[:, None]
    else:
        rest, rows = 0.0, G * np.sqrt(weight)[:, None]
    H[:k, :k] = rows.T @ rows
    H.flat[: -1 : k + 2] += rest * n
    H[k, :k] = H[:k, k] = -coupling
    H[k, k] = weight.sum()
    H.flat[:: k + 2] *= 1 + 1e-14  # if there are many solutions, this picks one of them
    factor, failed = lapack.dpotrf(H)
    return None if failed else factor


def _longest(x: np.ndarray, step: np.ndarray) -> float:
    """Return the largest length ≤ 1 with x + length·step ≥ 0, for x > 0."""
    return float(1 / max(1.0, (-step / x).max()))


def _annihilating(G: np.ndarray, measure: np.ndarray) -> np.ndarray:
    """Return a measure close to the given one, with nearly all of its signs and Gᵀμ = 0 to rounding; 0 if it has none."""
    size = np.abs(measure)
    mass = size.sum()
    if not (np.isfinite(mass) and mass > 0):
        return np.zeros(len(measure))
    mu = np.where(size > 1e-9 * mass, measure, 0) / mass
    rows = np.flatnonzero(mu)
    part, mu = G[rows], mu[rows]
    # Each multiplier may change in proportion to its size: large ones absorb the error, small ones keep their sign.
    size = np.abs(mu)
    gram = (part * size[:, None]).T @ part
    gram.flat[:: len(gram) + 1] += 1e-13 * gram.diagonal().max()  # for dependent inputs; repeating removes its effect
    factor, failed = lapack.dpotrf(gram)
    for _ in range(0 if failed else 10):
        moments = part.T @ mu
        if np.abs(moments).max() < 1e-15:
            break
        mu = mu - size * (part @ lapack.dpotrs(factor, moments)[0])
    result = np.zeros(len(measure))
    result[rows] = mu
    return result


def _simplex(G: np.ndarray, f: np.ndarray, limit: int = 60) -> _Point:
    """Solve the same program by HiGHS, on the inputs where |f| is largest first, then adding the most violated ones."""
    n, k = G.shape
    lp = highspy.Highs()
    lp.setOptionValue("output_flag", False)
    lp.setOptionValue("threads", 1)
    lp.setOptionValue("primal_feasibility_tolerance", 1e-9)
    lp.setOptionValue("dual_feasibility_tolerance", 1e-9)
    free = np.full(k, highspy.kHighsInf)
    lp.addCols(k, np.zeros(k), -free, free, 0, np.zeros(k, np.int32), np.zeros(0, np.int32), np.zeros(0))
    lp.addCol(1.0, 0.0, highspy.kHighsInf, 0, np.zeros(0, np.int32), np.zeros(0))
    y, measure, count = np.full(k, np.nan), np.zeros(n), 0
    members, signs = np.zeros(0, np.intp), np.zeros(0)  # of the program's rows: sign·(G[member] y − f) + t ≥ 0
    rows = np.argsort(-np.abs(f), kind="stable")[: max(_FIRST, 4 * k)]
    for _ in range(limit):
        for sign in (1.0, -1.0):
            block = np.column_stack([sign * G[rows], np.ones(len(rows))])
            starts = np.arange(len(rows), dtype=np.int32) * np.int32(k + 1)
            columns = np.tile(np.arange(k + 1, dtype=np.int32), len(rows))
            upper = np.full(len(rows), highspy.kHighsInf)
            lp.addRows(len(rows), sign * f[rows], upper, block.size, starts, columns, block.ravel())
            members, signs = np.concatenate([members, rows]), np.concatenate([signs, np.full(len(rows), sign)])
        lp.run()
        if lp.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            break
        count += max(int(lp.getInfo().simplex_iteration_count), 0)
        solution = lp.getSolution()
        values = np.array(solution.col_value)
        y, t = values[:k], float(values[k])
        measure = np.zeros(n)
        np.add.at(measure, members, signs * np.array(solution.row_dual))
        error = np.abs(G @ y - f)
        error[members] = 0
        rows = np.argsort(-error)[: 4 * k]
        rows = rows[error[rows] > t + 1e-10]
        if not len(rows):
            break
    return y, measure, count
