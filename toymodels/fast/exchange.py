"""Find minimax readoffs for millions of inputs by an active-set (Remez exchange) method.

At most d + 2 inputs determine an optimum. So each target is solved (`ChebyshevSolver`) on a subset of about ten times d
inputs and measured on all; then the inputs with the largest errors join the subset, and those far below the worst error
leave it. A measure that proves an optimum on a subset is also a measure on all inputs: from the first round on its value
bounds the error of every readoff from below, and grows; the error measured on all inputs is the upper bound. Activations
are computed block by block in each round, and never all held.

This is the exchange of many points at once for linear semi-infinite programs, after Remez (Hettich & Kortanek, "Semi-
infinite programming: theory, methods, and applications", SIAM Review 35, 1993).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from toymodels.core.minimax import GAP, ORTHOGONALITY, Chebyshev
from toymodels.errors import InputError
from toymodels.fast.interior_point import ChebyshevSolver

_START = 6  # inputs drawn for the first round, per unknown
_JOIN = 8  # inputs that join in a round at most, per unknown
_STAY = 0.8  # share of the subset's worst error: an input with a smaller error leaves
_ROUNDS = 60  # 5 to 8 are usual

Look = Callable[[slice | np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Activations (inputs, neurons) and targets (inputs, targets), in float64, of the inputs in a slice or of these numbers."""

Share = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""`map`, or a function that does the same in parallel."""


@dataclass(frozen=True)
class _Subset:
    """One target's subset of inputs in a round."""

    column: int
    """The target's number."""
    rows: Int[np.ndarray, " subset"]
    """Numbers of the inputs that it is solved on."""
    best: Chebyshev | None = None
    """The best readoff and certificate so far, both for all inputs."""


def exchange(look: Look, n: int, size: int, share: Share = map) -> list[Chebyshev]:
    """Return for each target the minimax readoff over inputs 0 … n − 1, proved or with the best known bounds (see `proved`).

    In each round `look` is called for every input once, `size` of them at a time. Results do not depend on `share`.
    Raises InputError for activations or targets that are not finite.
    """
    activations, targets = look(slice(0, 1))
    unknowns = activations.shape[1] + 1
    blocks = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    first = np.sort(np.random.default_rng(0).choice(n, min(n, _START * unknowns), replace=False))
    subsets = [_Subset(column, first) for column in range(targets.shape[1])]
    # One array for all rounds: small ones, allocated between the blocks, would keep the blocks' memory from being freed.
    errors = np.empty((len(subsets), n))
    best: list[Chebyshev | None] = [None] * len(subsets)
    for _ in range(_ROUNDS):
        solved = list(share(lambda subset: _solve(look, subset), subsets))
        spans = list(share(lambda block: _measure(look, block, subsets, solved, errors), blocks))  # noqa: B023 (called at once)
        half_ranges = (np.max([high for _, high in spans], 0) - np.min([low for low, _ in spans], 0)) / 2
        for i, subset in enumerate(subsets):
            subsets[i] = _next(subset, solved[i], errors[i], float(half_ranges[i]), _JOIN * unknowns)
            best[subset.column] = subsets[i].best
        subsets = [subset for subset in subsets if len(subset.rows)]
        if not subsets:
            break
    return [solution for solution in best if solution is not None]


def _solve(look: Look, subset: _Subset) -> tuple[Chebyshev, Float[np.ndarray, " subset"]]:
    """Return the optimum on the subset, and |error| on each of its inputs."""
    activations, targets = look(subset.rows)
    target = targets[:, subset.column]
    solution = ChebyshevSolver(activations).solve(target)
    return solution, np.abs(activations @ solution.coefficients + solution.offset - target)


def _measure(
    look: Look, block: slice, subsets: list[_Subset], solved: list[tuple[Chebyshev, np.ndarray]], errors: np.ndarray
) -> tuple[list[float], list[float]]:
    """Write each readoff's errors on one block of all inputs into a row of `errors`; return least and largest targets."""
    activations, targets = look(block)
    targets = targets[:, [subset.column for subset in subsets]]
    with np.errstate(all="ignore"):  # `_next` checks whether errors are finite
        outputs = activations @ np.stack([chebyshev.coefficients for chebyshev, _ in solved], 1)
    outputs += np.array([chebyshev.offset for chebyshev, _ in solved]) - targets
    errors[: len(subsets), block] = outputs.T
    return targets.min(0).tolist(), targets.max(0).tolist()


def _next(
    subset: _Subset,
    solved: tuple[Chebyshev, np.ndarray],
    error: Float[np.ndarray, " inputs"],
    half_range: float,
    most: int,
) -> _Subset:
    """Choose the inputs of the next round: none if the readoff is proved, or if no input is worse than the subset's worst.

    Raises InputError for an error that is not finite.
    """
    solution, sizes = solved
    least, largest = float(error.min()), float(error.max())
    if not np.isfinite(largest - least):
        raise InputError("activations and targets must be finite, but some are infinite or not a number")
    over_all = dataclasses.replace(
        solution,
        offset=solution.offset - (least + largest) / 2,  # the best one over all inputs
        worst_error=(largest - least) / 2,
        half_range=half_range,
        rows=subset.rows[solution.rows],
        iterations=solution.iterations + (subset.best.iterations if subset.best else 0),
    )
    best = _better(subset.best, over_all)
    size = np.abs(error)
    worse = np.flatnonzero(size > solution.worst_error)
    joining = np.setdiff1d(worse[np.argsort(-size[worse], kind="stable")[:most]], subset.rows)
    if best.proved or not len(joining):
        return _Subset(subset.column, joining[:0], best)
    # If many readoffs are optimal on the subset, each round may find another one without a better bound: then all stay.
    grown = subset.best is None or solution.lower_bound > subset.best.lower_bound + GAP * half_range
    staying = subset.rows[sizes >= _STAY * solution.worst_error] if grown else subset.rows
    return _Subset(subset.column, np.union1d(staying, joining), best)


def _better(old: Chebyshev | None, new: Chebyshev) -> Chebyshev:
    """Combine the readoff of the smaller error with the certificate of the larger lower bound."""
    if old is None:
        return new
    best = min(new, old, key=lambda c: c.worst_error)

    def proof(c: Chebyshev) -> float:
        holds = c.orthogonality <= ORTHOGONALITY and c.lower_bound <= best.worst_error + GAP * c.half_range
        return c.lower_bound if holds else 0.0

    proved = max(new, old, key=proof)
    certificate = {part: getattr(proved, part) for part in ("lower_bound", "rows", "multipliers", "orthogonality")}
    return dataclasses.replace(best, iterations=new.iterations, half_range=new.half_range, **certificate)
