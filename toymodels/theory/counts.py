"""How many features are active, as a law over 0..m; given the count, the active set is uniform.

Every symmetric source of sparse boolean inputs is one of these: exactly s, at most s, independent with probability p.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError


def check_whole(**numbers: Any) -> None:
    """Raise InputError for the first of these numbers, given by name, that is not whole; an int, or one of numpy's, is."""
    for name, number in numbers.items():
        try:
            operator.index(number)
        except TypeError:
            raise InputError(f"{name} = {number!r}: it must be a whole number, an int") from None


def check_features(m: int, least: int = 2) -> None:
    """Raise InputError unless there are at least `least` features (two: a pair)."""
    if m < least:
        raise InputError(f"this needs at least {least} features, got m = {m}")


def exactly(m: int, s: int) -> Float[np.ndarray, " counts"]:
    """The law of "exactly s of m active": P(count = j) for j = 0..m. 0 <= s <= m."""
    check_features(m)
    if not 0 <= s <= m:
        raise InputError(f"the number of active features lies between 0 and m = {m}, got s = {s}")
    law = np.zeros(m + 1)
    law[s] = 1
    return law


def at_most(m: int, s: int) -> Float[np.ndarray, " counts"]:
    """All inputs with at most s of m active, equally likely: P(count = j) proportional to C(m, j) for j <= s."""
    exactly(m, s)
    sizes = [math.comb(m, j) if j <= s else 0 for j in range(m + 1)]
    total = sum(sizes)
    return np.array([size / total for size in sizes])


def independent(m: int, p: float) -> Float[np.ndarray, " counts"]:
    """Each of m features active with probability p on its own."""
    check_features(m)
    if not 0 <= p <= 1:
        raise InputError(f"a probability lies between 0 and 1, got {p}")
    from scipy.stats import binom  # a second to import, and wanted only here

    return binom.pmf(np.arange(m + 1), m, p)


def pattern_probability(law: Float[np.ndarray, " counts"], size: int, ones: int) -> float:
    """P(of `size` given features, a given set of `ones` of them are active and the others not), exact integers inside.

    P = Σ_s P(s)·C(m − size, s − ones)/C(m, s). 0 <= ones <= size <= m.
    """
    m = len(law) - 1
    if not 0 <= ones <= size <= m:
        raise InputError(f"a pattern has 0 <= ones <= size <= m = {m}, got size {size} with {ones} ones")
    total = 0.0
    for s, probability in enumerate(law):
        if probability > 0 and ones <= s <= m - size + ones:
            total += float(probability) * (math.comb(m - size, s - ones) / math.comb(m, s))
    return total


def case_counts(m: int, s: int) -> tuple[int, float, float, int]:
    """Pairs k < l in the cases 00, 01, 10, 11 on an input with exactly s of m active (01 and 10: mean over inputs)."""
    exactly(m, s)
    one = s * (m - s) / 2
    return math.comb(m - s, 2), one, one, math.comb(s, 2)
