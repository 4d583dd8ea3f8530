"""Fit power laws, and find where an error falls to a level, with intervals over seeds.

Intervals are percentiles of the bootstrap over seeds: whole seeds are drawn again, with all their points, because points of
one seed need not be independent. Over few seeds (below about ten) such intervals are too narrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError

RESAMPLES = 2000
"""Bootstrap samples of seeds."""
EXACT = 1e-6
"""Errors up to this count as 0 (what certificates are proved to), and have no place on a logarithmic axis."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class PowerLaw:
    """A fit of error ≈ constant · x^exponent."""

    exponent: float
    exponent_interval: Interval | None
    """95 %, over seeds; None for a single seed."""
    constant: float
    """The error at x = 1, extrapolated."""
    constant_interval: Interval | None
    misfit: float
    """Largest factor, 1 or more, between a geometric mean over seeds and the law."""
    sizes: int
    """Number of values of x that the fit rests on."""


def power_law(x: Float[np.ndarray, " sizes"], errors: Float[np.ndarray, "seeds sizes"]) -> PowerLaw:
    """Fit the mean log error over seeds to log x by least squares; every x > 0 counts the same.

    Errors that are nan or at most EXACT are left out. Raises InputError if fewer than two x have errors.
    """
    logs = np.log(np.where(errors > EXACT, errors, np.nan))
    used = ~np.isnan(logs).all(axis=0)
    if used.sum() < 2:
        raise InputError("a power law needs errors above 0 at two sizes at least")
    seen = ~np.isnan(logs).all(axis=1)
    log_x, logs = np.log(x[used]), logs[seen][:, used]
    n = len(logs)
    exponent, level = _lines(log_x, logs, np.ones((1, n)))[:, 0]
    intervals: list[Interval | None] = [None, None]
    if n > 1:
        slopes, levels = _lines(log_x, logs, _draws(n))
        intervals = [_middle(slopes), _middle(np.exp(levels))]
    misfit = float(np.exp(np.abs(np.nanmean(logs, axis=0) - level - exponent * log_x).max()))
    return PowerLaw(float(exponent), intervals[0], float(np.exp(level)), intervals[1], misfit, int(used.sum()))


def _draws(n: int) -> Float[np.ndarray, "resamples seeds"]:
    """Return how often each seed is drawn in each bootstrap sample."""
    return np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)


def _lines(
    log_x: Float[np.ndarray, " sizes"], logs: Float[np.ndarray, "seeds sizes"], draws: Float[np.ndarray, "n seeds"]
) -> Float[np.ndarray, "2 n"]:
    """Return (slope, intercept) of each draw; nan where it leaves fewer than two sizes."""
    known = ~np.isnan(logs)
    count = draws @ known
    y = np.divide(draws @ np.where(known, logs, 0.0), count, out=np.zeros_like(count), where=count > 0)
    weight = (count > 0).astype(float)
    total = weight.sum(axis=1)
    mean_x, mean_y = weight @ log_x / total, (weight * y).sum(axis=1) / total
    centred = weight * (log_x - mean_x[:, None])
    spread = (centred**2).sum(axis=1)
    slope = np.divide((centred * y).sum(axis=1), spread, out=np.full_like(spread, np.nan), where=spread > 0)
    return np.stack([slope, mean_y - slope * mean_x])


def _middle(values: Float[np.ndarray, " n"]) -> Interval:
    # Observed values as percentiles: between a finite and an infinite one nothing can be interpolated.
    low, high = np.quantile(values[~np.isnan(values)], (0.025, 0.975), method="closest_observation")
    return float(low), float(high)


@dataclass(frozen=True)
class Crossing:
    """The x from which on an error is below a level."""

    x: float
    """0: the error is below at the smallest x already; inf: it is not at the largest. Where it equals the level at one x and is
    below at the next, as minimax errors may, x is the first of the two."""
    interval: Interval | None
    """95 %, over seeds; None for a single seed. An end may be 0 or inf, too."""

    def words(self, smallest: float | int, largest: float | int, form: str = ",.0f") -> str:
        """Write the crossing with its interval, given the smallest and largest x measured: "≤ 8", "> 256", "22 [20, 25]"."""

        def word(x: float) -> str:
            return f"≤ {smallest:,g}" if x == 0 else f"> {largest:,g}" if x == math.inf else f"{x:{form}}"

        if self.interval is None or self.interval[0] == self.interval[1] == self.x:
            return word(self.x)
        return f"{word(self.x)} [{word(self.interval[0])}, {word(self.interval[1])}]"


def crossing(x: Float[np.ndarray, " sizes"], errors: Float[np.ndarray, "seeds sizes"], level: float) -> Crossing:
    """Find the x from which on the mean error over seeds is below `level`, by more than EXACT, at every x measured.

    `x` ascends; between two of them the error is taken as linear in log x. Raises InputError if no x has errors.
    """
    used, seen = ~np.isnan(errors).all(axis=0), ~np.isnan(errors).all(axis=1)
    if not used.any():
        raise InputError("a crossing needs errors at one size at least")
    log_x, chosen = np.log(x[used]), errors[seen][:, used]
    n = len(chosen)
    value = float(_crossings(log_x, chosen, np.ones((1, n)), level)[0])
    drawn = _crossings(log_x, chosen, _draws(n), level) if n > 1 else None
    return Crossing(value, None if drawn is None else _middle(drawn))


def _crossings(
    log_x: Float[np.ndarray, " sizes"],
    errors: Float[np.ndarray, "seeds sizes"],
    draws: Float[np.ndarray, "n seeds"],
    level: float,
) -> Float[np.ndarray, " n"]:
    """Return the crossing of each draw of seeds."""
    known = ~np.isnan(errors)
    crossings = np.empty(len(draws))
    for i, draw in enumerate(draws):
        count = draw @ known
        kept = count > 0
        y, at = (draw @ np.where(known, errors, 0.0))[kept] / count[kept], log_x[kept]
        above = np.flatnonzero(y > level - EXACT)
        if not len(above):
            crossings[i] = 0.0
        elif above[-1] == len(y) - 1:
            crossings[i] = math.inf
        else:
            j = above[-1]
            share = max(y[j] - level, 0.0) / (y[j] - y[j + 1])
            crossings[i] = math.exp(at[j] + (at[j + 1] - at[j]) * share)
    return crossings


def in_words(value: float, interval: Interval | None, form: str = ".3f") -> str:
    """Write a number with its interval in brackets."""
    return f"{value:{form}}" + (f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else "")
