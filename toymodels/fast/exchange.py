"""Find minimax readoffs for millions of inputs by an active-set (Remez exchange) method.

An optimum rests on at most d + 2 inputs. So each target is solved (`chebyshev`) on some ten times d inputs and measured on
all; the inputs that err most join the few, those far from the worst error leave. A measure that proves an optimum on some
inputs is one on all of them: its value bounds the error of every readoff from the first round on, and grows; the error
measured on all inputs is the upper bound. Activations are made block by block in each round, and never held.

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
_STAY = 0.8  # of the worst error on the few: an input that errs less leaves
_ROUNDS = 60  # 5 to 8 are usual

Look = Callable[[slice | np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Activations (inputs, neurons) and targets (inputs, targets), in float64, of the inputs in a slice or of these numbers."""

Share = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""`map`, or one that does the work side by side."""


@dataclass(frozen=True)
class _Few:
    """One target's inputs in a round."""

    column: int
    """The target's number."""
    rows: Int[np.ndarray, " few"]
    """Numbers of the inputs that it is solved on."""
    best: Chebyshev | None = None
    """The best readoff and certificate so far, both for all inputs."""


def exchange(look: Look, n: int, size: int, share: Share = map) -> list[Chebyshev]:
    """Return for each target the minimax readoff over inputs 0 … n − 1, proved or with the best bounds there are (see `proved`).

    In each round `look` is asked for every input once, `size` of them at a time. What `share` does side by side changes no
    result.
    Raises InputError for activations or targets that are not finite.
    """
    activations, targets = look(slice(0, 1))
    unknowns = activations.shape[1] + 1
    blocks = [slice(start, min(start + size, n)) for start in range(0, n, size)]
    first = np.sort(np.random.default_rng(0).choice(n, min(n, _START * unknowns), replace=False))
    going = [_Few(column, first) for column in range(targets.shape[1])]
    # One piece of memory for all rounds: small ones, kept while blocks come and go, would keep the blocks' memory, too.
    errors = np.empty((len(going), n))
    best: list[Chebyshev | None] = [None] * len(going)
    for _ in range(_ROUNDS):
        solved = list(share(lambda few: _solve(look, few), going))
        spans = list(share(lambda block: _measure(look, block, going, solved, errors), blocks))  # noqa: B023 (called at once)
        half_ranges = (np.max([high for _, high in spans], 0) - np.min([low for low, _ in spans], 0)) / 2
        for place, few in enumerate(going):
            going[place] = _next(few, solved[place], errors[place], float(half_ranges[place]), _JOIN * unknowns)
            best[few.column] = going[place].best
        going = [few for few in going if len(few.rows)]
        if not going:
            break
    return [found for found in best if found is not None]


def _solve(look: Look, few: _Few) -> tuple[Chebyshev, Float[np.ndarray, " few"]]:
    """Return the optimum on the few, and |error| on each of them."""
    activations, targets = look(few.rows)
    target = targets[:, few.column]
    found = ChebyshevSolver(activations).solve(target)
    return found, np.abs(activations @ found.coefficients + found.offset - target)


def _measure(
    look: Look, block: slice, going: list[_Few], solved: list[tuple[Chebyshev, np.ndarray]], errors: np.ndarray
) -> tuple[list[float], list[float]]:
    """Write each readoff's errors on one block of all inputs into a row of `errors`; return least and largest targets."""
    activations, targets = look(block)
    targets = targets[:, [few.column for few in going]]
    with np.errstate(all="ignore"):  # what is not finite is looked for
        found = activations @ np.stack([chebyshev.coefficients for chebyshev, _ in solved], 1)
    found += np.array([chebyshev.offset for chebyshev, _ in solved]) - targets
    errors[: len(going), block] = found.T
    return targets.min(0).tolist(), targets.max(0).tolist()


def _next(
    few: _Few, solved: tuple[Chebyshev, np.ndarray], error: Float[np.ndarray, " inputs"], half_range: float, most: int
) -> _Few:
    """Choose the inputs of the next round: none where the readoff is proved, or no input is worse than those of this round.

    Raises InputError for an error that is not finite.
    """
    found, sizes = solved
    least, largest = float(error.min()), float(error.max())
    if not np.isfinite(largest - least):
        raise InputError("activations and targets must be finite, but some are infinite or not a number")
    here = dataclasses.replace(
        found,
        offset=found.offset - (least + largest) / 2,  # the best one over all inputs
        worst_error=(largest - least) / 2,
        half_range=half_range,
        rows=few.rows[found.rows],
        iterations=found.iterations + (few.best.iterations if few.best else 0),
    )
    best = _better(few.best, here)
    size = np.abs(error)
    worse = np.flatnonzero(size > found.worst_error)
    new = np.setdiff1d(worse[np.argsort(-size[worse], kind="stable")[:most]], few.rows)
    if best.proved or not len(new):
        return _Few(few.column, new[:0], best)
    # Where many readoffs are optimal on the few, each round may find another, and no bound may grow: then all stay.
    grown = few.best is None or found.lower_bound > few.best.lower_bound + GAP * half_range
    return _Few(few.column, np.union1d(few.rows[sizes >= _STAY * found.worst_error] if grown else few.rows, new), best)


def _better(one: Chebyshev | None, other: Chebyshev) -> Chebyshev:
    """Join the readoff that errs less with the certificate that proves more."""
    if one is None:
        return other

    best = min(other, one, key=lambda c: c.worst_error)

    def proof(c: Chebyshev) -> float:
        holds = c.orthogonality <= ORTHOGONALITY and c.lower_bound <= best.worst_error + GAP * c.half_range
        return c.lower_bound if holds else 0.0

    shown = max(other, one, key=proof)
    parts = ("lower_bound", "rows", "multipliers", "orthogonality")
    return dataclasses.replace(
        best, iterations=other.iterations, half_range=other.half_range, **{part: getattr(shown, part) for part in parts}
    )
