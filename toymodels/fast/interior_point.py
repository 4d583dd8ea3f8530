"""Solve the program of `core.minimax` for many targets over the same activations, with a proof of optimality.

Method: Mehrotra's predictor-corrector interior point (SIAM J. Optim. 2, 1992) with Gondzio's centrality correctors, which
needs about 10 linear systems of d + 2 unknowns; the simplex method, as in exchange algorithms, needs several hundred pivots.
Most of the cost would be the Gram matrix of each system; it is computed in float32 while that is exact enough, and from the
few inputs with the largest weights, while the others enter with their mean weight (after Tits, Absil & Woessner, "Constraint
reduction for linear programs with many inequality constraints", SIAM J. Optim. 17, 2006). As soon as the inputs with the
largest weights are those of the solution, it is computed from them, which saves the last systems, in float64. Where there are
few more inputs than unknowns, systems have the size of the difference (`fast.null_space`). If the method fails, a simplex
method (HiGHS) is used.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import highspy
import numpy as np
from jaxtyping import Float
from scipy.linalg import blas, lapack
from scipy.optimize import nnls

from toymodels.core.minimax import GAP, Chebyshev, check_activations, check_target, measured
from toymodels.fast import newton, systems
from toymodels.fast.null_space import NullSpace

_RANK = 1e-10  # singular values below this share of the largest are rounding: using them would need coefficients ≥ 1e10
_INDEPENDENT = 1e-6  # reciprocal condition number from which Gram matrices are good enough
_EXACT = 1e-11  # a least-squares fit this close, in units of half the target's range, has error 0 but for rounding
_CONVERGED = 1e-9  # the interior point stops at this gap, in units of the least-squares residual
_NEAR = 1.0  # from a gap of this / unknowns² on, the solution is tried at the inputs with the largest weights (cost: unknowns³)
_SHARE = 1 - 1e-3  # a step may go this share of the way to the nearest bound
_FIRST = 2000  # inputs of the simplex method's first program
_SHORT = 48  # unknowns from which Gram matrices are computed in float32 first
_CORRECTORS = 150  # unknowns for each centrality corrector of a step, beside the first
_STEPS = 60  # at most
_STEPS_IN_NULL_SPACE = 15  # where rounding can stop a target that many inputs hold, which is then left to factors
_KEEP = 3  # inputs per unknown that enter a Gram matrix one by one; more if the direction is too inexact


class _Fitted(NamedTuple):
    """Where the solution of a target begins."""

    fit: np.ndarray
    """The least-squares readoff in the basis."""
    residual: np.ndarray
    """What it leaves of the target, in units of its largest entry."""
    unit: float
    exact: Chebyshev | None
    """The fit as a result, if it leaves next to nothing."""
    done: bool
    """Whether what it leaves is only rounding."""


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
        self._bases: systems.Bases = {np.float64: self._basis, np.float32: self._basis.astype(np.float32)}
        self._null = NullSpace(self._basis) if NullSpace.pays(n, rank + 1) else None
        self._to_coefficients = np.zeros((activations.shape[1], rank))
        self._to_coefficients[live] = to_columns * np.sqrt(n) / spread[live, None]

    def solve(self, target: Float[np.ndarray, " inputs"]) -> Chebyshev:
        """Return the minimax readoff of one target (see `solve_all`)."""
        return self.solve_all(target[None])[0]

    def solve_all(self, targets: Float[np.ndarray, "targets inputs"]) -> list[Chebyshev]:
        """Return the minimax readoff of each target, proved optimal or with the best known bounds (see `proved`).

        What is found depends, in the last digits, on which targets are solved together.
        Raises InputError for targets of another length than the activations, or not finite.
        """
        begun = [self._fitted(np.asarray(target, np.float64)) for target in targets]
        waiting = [number for number, fitted in enumerate(begun) if not fitted.done]
        best = [fitted.exact for fitted in begun]
        counts = [0] * len(begun)
        keep, n, null = _KEEP * self._basis.shape[1], len(self._basis), self._null
        for attempt in ("interior point", "interior point", "simplex"):
            if not waiting:
                break
            residuals = np.stack([begun[number].residual for number in waiting])
            if attempt == "simplex":
                points = [_simplex(self._basis, residual) for residual in residuals]
            else:
                points = _interior_points(self._bases, residuals, keep, null)
            left = []
            for number, (y, measure, heavy, steps) in zip(waiting, points, strict=True):
                f, fitted, known = np.asarray(targets[number], np.float64), begun[number], best[number]
                counts[number] += steps
                found = known
                for part in (np.where(heavy, measure, 0), measure) if np.isfinite(y).all() else ():
                    balanced = _annihilating(self._basis, part)
                    found = self._result(f, fitted.fit + fitted.unit * y, balanced, counts[number], attempt)
                    if found.proved:
                        break
                # Where many inputs hold the solution, rounding in the null space can be larger than elsewhere.
                close = math.inf if null is None else _CONVERGED * fitted.unit
                if found is not None and found is not known and found.proved and found.gap <= close:
                    best[number] = self._thinned(f, found)
                    continue
                if known is None or (found is not None and found.gap < known.gap):
                    best[number] = found
                left.append(number)
            waiting, keep, null = left, n, None
        return [
            one or self._result(f, begun[number].fit, np.zeros(len(f)), counts[number], "least squares")
            for number, (one, f) in enumerate(zip(best, np.asarray(targets, np.float64), strict=True))
        ]

    def _fitted(self, f: Float[np.ndarray, " inputs"]) -> _Fitted:
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
        return _Fitted(fit, residual / (unit or 1.0), unit, best, unit <= _EXACT * size)

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
        wanted = np.zeros(few)
        wanted[-2:] = full.lower_bound, 1
        heaviest = np.argsort(-np.abs(full.multipliers), kind="stable")
        # The heaviest are mostly enough, at a fraction of the cost.
        for tried in sorted({min(size, len(rows)) for size in (4 * few, 16 * few, len(rows))}):
            chosen = heaviest[:tried]
            equations = np.vstack([self._basis[rows[chosen]].T, f[rows[chosen]], signs[chosen]]) * signs[chosen]
            try:
                mass, _ = nnls(equations, wanted)
            except RuntimeError:  # no convergence
                continue
            kept = chosen[mass > 0]
            mu = (mass * signs[chosen])[mass > 0]
            thin = self.measured(f, full.coefficients, full.offset, rows[kept], mu, full.iterations, full.method)
            if thin.proved:
                return thin
        return full


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


_Point = tuple[np.ndarray, np.ndarray, np.ndarray, int]
"""Readoff in the basis, measure on all inputs, inputs whose multipliers are not on their way to 0, iterations."""


def _interior_points(
    bases: systems.Bases,
    targets: Float[np.ndarray, "targets inputs"],
    keep: int,
    null: NullSpace | None = None,
) -> list[_Point]:
    """Minimise t with |G y − f| ≤ t for each target f, for G with GᵀG = n·1 and max|f| = 1.

    Slacks t ∓ e of e = G y − f, multipliers u, v of the two sides; the measure is v − u. All targets take their steps together,
    because a pass over G for many costs hardly more than for one; a target that has ended leaves the others. Given `null`,
    systems are solved there.
    """
    G = bases[np.float64]
    n, k = G.shape
    limit = _STEPS if null is None else _STEPS_IN_NULL_SPACE
    solved: list[_Point] = [(np.full(k, np.nan), np.zeros(n), np.zeros(n, bool), 0)] * len(targets)
    with np.errstate(all="ignore"):  # after a breakdown numbers are not finite, which is checked below
        s = _State.at_start(G, targets, keep)
        for count in range(limit + 1):
            measure = s.weigh(G)
            finite = np.isfinite(s.gaps)
            s.best_y[finite], s.best_measure[finite] = s.y[finite], measure[finite]
            s.heavy[finite] = s.weights[finite] > 1 / k
            ended = ~finite | (s.gaps < _CONVERGED) | (count == limit)
            # The dual residual added by the last step shows how inexact its Gram matrix was.
            inexact = np.abs(s.dual - s.predicted).max(1) / s.gaps > 0.1
            s.refine(inexact & (s.short | (s.keep < n)))
            factors: list[np.ndarray | None] = []
            for i in np.flatnonzero(~ended & (s.gaps * k * k < _NEAR)):
                at = targets[s.number[i]], s.weights[i], measure[i]
                vertex = _vertex(G, *at) if null is None else null.vertex(*at, _CONVERGED)
                if vertex is not None:
                    s.best_y[i], s.best_measure[i] = vertex
                    s.heavy[i], ended[i] = vertex[1] != 0, True
            if null is None:
                even = systems.even(G, s.weights)
                for i in np.flatnonzero(~ended):
                    factor = None
                    while not even[i] and factor is None and s.keep[i] <= n:
                        basis = bases[np.float32 if s.short[i] else np.float64]
                        factor = systems.factorised(basis, s.weights[i], s.coupling[i], int(s.keep[i]))
                        if factor is None:
                            s.refine(np.array([i]))
                    ended[i] = factor is None and not even[i]
                    factors += [] if ended[i] else [factor]
            for i in np.flatnonzero(ended):
                solved[s.number[i]] = s.best_y[i], s.best_measure[i], s.heavy[i], count
            if ended.all():
                return solved
            if ended.any():
                s = s.some(~ended)
            if null is None:
                solve = systems.solver(bases, factors, s.weights, s.coupling)
            else:
                errors = (s.slacks[:, 1] - s.slacks[:, 0]) / 2
                solve = null.solver(s.ratios, s.weights, errors + targets[s.number])
            _advance(G, s, solve)
    return solved


def _vertex(
    G: Float[np.ndarray, "inputs basis"], f: np.ndarray, weight: np.ndarray, measure: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the readoff whose errors are equal in size at the k + 1 inputs with the largest weights, and its measure.

    These are the inputs that hold a single solution, and close to it they are known before the last steps of the interior
    point, which cost most. None unless the measure has the signs that prove the readoff to be the solution.
    """
    n, k = G.shape
    if n <= k:
        return None
    rows = np.argpartition(weight, n - k - 1)[n - k - 1 :]
    # Errors G y − f are ±t, opposite in sign to the measure: (y, t) solves G y + sign t = f there.
    system = np.column_stack([G[rows], np.sign(measure[rows])])
    factors, pivots, failed = lapack.dgetrf(system)
    if failed:
        return None
    unit = np.zeros(k + 1)
    unit[k] = 1
    solution, mass = lapack.dgetrs(factors, pivots, f[rows])[0], lapack.dgetrs(factors, pivots, unit, trans=1)[0]
    if not (mass * system[:, k] > 0).all():
        return None
    y, t = solution[:k], solution[k]
    if not np.abs(G @ y - f).max() <= t * (1 + _CONVERGED):
        return None
    mass += lapack.dgetrs(factors, pivots, unit - system.T @ mass, trans=1)[0]  # rounding, once
    balanced = np.zeros(n)
    balanced[rows] = mass
    return y, balanced


@dataclass
class _State:
    """Where the solutions of some targets are; the first axis counts targets, and the second of slacks the two sides."""

    number: np.ndarray
    y: np.ndarray
    slacks: np.ndarray
    multipliers: np.ndarray
    keep: np.ndarray
    short: np.ndarray
    predicted: np.ndarray
    best_y: np.ndarray
    best_measure: np.ndarray
    heavy: np.ndarray
    ratios: np.ndarray
    weights: np.ndarray
    gaps: np.ndarray
    masses: np.ndarray
    dual: np.ndarray
    coupling: np.ndarray

    @classmethod
    def at_start(cls, G: np.ndarray, targets: np.ndarray, keep: int) -> _State:
        """Begin in the middle: with t = 1.2, above every |f|, and multipliers that are the slacks' inverses."""
        count, (n, k) = len(targets), G.shape
        slacks = np.stack([1.2 + targets, 1.2 - targets], 1)
        multipliers = 1 / slacks
        multipliers /= multipliers.sum((1, 2), keepdims=True)
        y, keeps, short = np.zeros((count, k)), np.full(count, min(keep, n)), np.full(count, k >= _SHORT)
        best = y.copy(), np.zeros((count, n)), np.zeros((count, n), bool)
        sums = np.empty((count, n)), np.empty(count), np.empty(count), y, y
        return cls(np.arange(count), y, slacks, multipliers, keeps, short, y, *best, np.empty_like(slacks), *sums)

    def weigh(self, G: np.ndarray) -> np.ndarray:
        """Compute weights, gaps, dual residuals, and the coupling of y and t in the linear system; return the measure."""
        count = len(self.y)
        differences = np.empty((2 * count, len(G)))
        newton.weigh(self.slacks, self.multipliers, self.ratios, self.weights, differences, self.gaps, self.masses)
        both = differences @ G
        self.dual, self.coupling = both[:count], both[count:]
        return -differences[:count]

    def refine(self, chosen: np.ndarray) -> None:
        """Make Gram matrices of some targets more exact: float64 for float32 first, then twice the inputs."""
        n, keep, short = self.slacks.shape[2], self.keep[chosen], self.short[chosen]
        self.keep[chosen] = np.where(short, keep, np.where(keep < n, np.minimum(2 * keep, n), n + 1))
        self.short[chosen] = False

    def some(self, chosen: np.ndarray) -> _State:
        """Return the state of some of the targets."""
        return _State(*(getattr(self, field.name)[chosen] for field in fields(self)))


def _advance(G: np.ndarray, s: _State, solve: systems.Solve) -> None:
    """Take a predictor, a corrector and some centrality correctors for every target."""
    count, (n, k) = len(s.number), G.shape
    now = s.slacks, s.multipliers
    wanted, differences, totals, centres = -s.multipliers, np.empty((count, n)), np.empty(count), np.empty(count)
    measure = s.multipliers[:, 1] - s.multipliers[:, 0]
    room = np.empty_like(measure)

    def step(b: np.ndarray | None, last: np.ndarray) -> _Step:
        z, moves = solve(b, last)
        made = _Step(z, z[:, k].copy(), moves, np.empty_like(s.slacks), np.ones((count, 2)))
        newton.change(*now, s.ratios, wanted, *made[1:])
        return made

    def corrected() -> _Step:
        return step(np.add(differences, measure, out=room), s.masses - 1 + totals)

    # Predictor: towards complementarity 0. What it wants of the inputs cancels.
    newton.towards_centre(*now, *step(None, np.full(count, -1.0))[1:], s.gaps, wanted, differences, totals, centres)
    best = corrected()
    # A step with another right-hand side costs little beside the factorisation.
    for _ in range(1 + k // _CORRECTORS):
        newton.towards_longer(*now, *best[1:], centres, wanted, differences, totals)
        tried = corrected()
        better = tried.lengths.sum(1) > best.lengths.sum(1) + 0.02
        if not better.any():
            break
        for old, new in zip(best, tried, strict=True):
            old[better] = new[better]
    best.lengths[:] *= np.minimum(np.maximum(0.95, 1 - s.gaps), _SHARE)[:, None]
    s.y = s.y + best.lengths[:, :1] * best.z[:, :k]
    newton.take(*now, *best[1:])
    s.predicted = (1 - best.lengths[:, 1:]) * s.dual


class _Step(NamedTuple):
    """A step of some targets (first axis); see `fast.newton`."""

    z: np.ndarray
    """Changes of y and t."""
    up: np.ndarray
    moves: np.ndarray
    changes: np.ndarray
    lengths: np.ndarray


def _annihilating(G: np.ndarray, measure: np.ndarray) -> np.ndarray:
    """Return a measure close to the given one, with nearly all of its signs and Gᵀμ = 0 to rounding; 0 if it has none."""
    size = np.abs(measure)
    mass = size.sum()
    if not (np.isfinite(mass) and mass > 0):
        return np.zeros(len(measure))
    mu = np.where(size > 1e-9 * mass, measure, 0) / mass
    rows = np.flatnonzero(mu)
    part, mu = G[rows], mu[rows]
    size, factor = np.abs(mu), None
    for repeat in range(10):
        moments = part.T @ mu
        if np.abs(moments).max() < 1e-15:
            break
        if repeat == 0:
            # Each multiplier may change in proportion to its size: large ones absorb the error, small ones keep their sign.
            gram = systems.gram(part * np.sqrt(size)[:, None])
            ridge = 1e-13 * gram.diagonal().max()  # for dependent inputs; repeating removes its effect
            gram.T.flat[:: len(gram) + 1] += ridge
            factor = systems.cholesky(gram)
        if factor is None:
            break
        mu = mu - size * (part @ systems.backwards(factor, moments))
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
    return y, measure, measure != 0, count
