"""Count active features: P(j features are active) for j = 0..m; given the number, the active set is uniform.

Every symmetric source of sparse boolean inputs is one of these: exactly s, at most s, independent with probability p.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln, xlog1py, xlogy

from toymodels.errors import InputError


def check_features(m: int, least: int = 2) -> None:
    """Raise InputError unless there are at least `least` features (two: a pair)."""
    if m < least:
        raise InputError(f"this needs at least {least} features, got m = {m}")


def check_width(d: int) -> None:
    """Raise InputError unless a layer has a neuron."""
    if d < 1:
        raise InputError(f"a layer has at least one neuron, got d = {d}")


def exactly(m: int, s: int) -> Float[np.ndarray, " counts"]:
    """Return P(j active), j = 0..m, for exactly s of m active. 0 <= s <= m."""
    check_features(m)
    if not 0 <= s <= m:
        raise InputError(f"the number of active features lies between 0 and m = {m}, got s = {s}")
    counts = np.zeros(m + 1)
    counts[s] = 1
    return counts


def at_most(m: int, s: int) -> Float[np.ndarray, " counts"]:
    """Return P(j active) where all inputs with at most s of m active are equally likely: C(m, j) over their number."""
    counts = exactly(m, s)
    sizes = [math.comb(m, j) for j in range(s + 1)]
    total = sum(sizes)
    counts[: s + 1] = [size / total for size in sizes]
    return counts


def independent(m: int, p: float) -> Float[np.ndarray, " counts"]:
    """Return P(j active) where each of m features is active with probability p on its own."""
    check_features(m)
    return binomial(m, p)


def binomial(n: int, p: float) -> Float[np.ndarray, " outcomes"]:
    """Return P(j of n independent events of probability p happen), j = 0..n, to 1e-10 of each for n up to 100,000."""
    if not 0 <= p <= 1:
        raise InputError(f"a probability lies between 0 and 1, got {p}")
    j = np.arange(n + 1.0)
    ways = gammaln(n + 1) - gammaln(j + 1) - gammaln(n - j + 1)
    return np.exp(ways + xlogy(j, p) + xlog1py(n - j, -p))


def pattern_probability(counts: Float[np.ndarray, " counts"], size: int, ones: int) -> float:
    """Return P(of `size` given features, a given set of `ones` of them are active and the others not), by exact integers.

    It is Σ_s P(s)·C(m − size, s − ones)/C(m, s). 0 <= ones <= size <= m.
    """
    m = len(counts) - 1
    if not 0 <= ones <= size <= m:
        raise InputError(f"a pattern has 0 <= ones <= size <= m = {m}, got size {size} with {ones} ones")
    total = 0.0
    for s in np.flatnonzero(counts > 0).tolist():
        if ones <= s <= m - size + ones:
            total += float(counts[s]) * (math.comb(m - size, s - ones) / math.comb(m, s))
    return total


def case_counts(m: int, s: int) -> tuple[int, float, float, int]:
    """Count the pairs k < l in the cases 00, 01, 10, 11 on an input with exactly s of m active (01 and 10: mean over inputs)."""
    exactly(m, s)
    one = s * (m - s) / 2
    return math.comb(m - s, 2), one, one, math.comb(s, 2)


def case_shares(m: int, s: int) -> Float[np.ndarray, " 4"]:
    """Return the shares of the cases 00, 01, 10, 11 among all pairs on inputs with exactly s of m active."""
    number = np.array(case_counts(m, s), dtype=float)
    return number / number.sum()
