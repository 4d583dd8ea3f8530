"""Compute what no readoff, no layer or no code of a given size can beat.

Each function states what its bound bounds, and where it holds. `counts` is P(j features are active), j = 0..m: see
`toymodels.theory.counts`. docs/theory.md, sections 2, 6 and 7.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.theory.counts import check_features, check_width, pattern_probability
from toymodels.theory.gates import CASES, Gate


class Predictor(NamedTuple):
    """Errors of one trivial predictor."""

    worst: float
    """Largest |error| over the cases that occur."""
    mean_square: float
    """E(error²) of one output."""


def zero_predictor(gate: Gate, counts: Float[np.ndarray, " counts"]) -> Predictor:
    """Compute the errors of the output 0: a baseline, because with sparse inputs almost every target is 0 anyway."""
    odds = [pattern_probability(counts, 2, sum(case)) for case in CASES]
    wrong = sum(chance for chance, value in zip(odds, gate.truth, strict=True) if value)
    return Predictor(float(any(p > 0 and f for p, f in zip(odds, gate.truth, strict=True))), wrong)


def _product_mean(gate: Gate, counts: Float[np.ndarray, " counts"], second: tuple[int, int]) -> float:
    """Return E[gate(x_0, x_1)·gate(x_a, x_b)] with (a, b) = second; features 0..3 are distinct."""
    used = max(2, max(second) + 1)
    total = 0.0
    for bits in itertools.product((0, 1), repeat=used):
        value = gate.truth[2 * bits[0] + bits[1]] * gate.truth[2 * bits[second[0]] + bits[second[1]]]
        if value:
            total += value * pattern_probability(counts, used, sum(bits))
    return total


class Spectrum(NamedTuple):
    """Eigenvalues of the targets' P×P second-moment (or covariance) matrix, P = m(m − 1)/2."""

    values: Float[np.ndarray, " distinct"]
    """Descending."""
    multiplicities: tuple[int, ...]

    def beyond(self, d: int) -> float:
        """Return the sum of all eigenvalues but the d largest."""
        left, total = d, 0.0
        for value, count in zip(self.values, self.multiplicities, strict=True):
            kept = max(count - left, 0)
            left = max(left - count, 0)
            total += kept * max(float(value), 0.0)
        return total


def target_spectrum(gate: Gate, counts: Float[np.ndarray, " counts"], centred: bool = False) -> Spectrum:
    """Compute the spectrum of E[f fᵀ] (centred: of the covariance) over all pairs k < l of m >= 4 features.

    Symmetric gates: closed form by the Johnson scheme J(m, 2) (docs/theory.md, section 6): with e_j = E[f f'] of two pairs
    sharing 2 − j features, e_0 + 2(m−2)e_1 + C(m−2,2)e_2 once, e_0 + (m−4)e_1 − (m−3)e_2 (m − 1 times) and
    e_0 − 2e_1 + e_2. Other gates depend on the order k < l: numerically, for m <= 60.
    """
    return _spectrum(gate, len(counts) - 1, tuple(np.trim_zeros(counts, "b").tolist()), centred)


@functools.lru_cache(maxsize=16)
def _spectrum(gate: Gate, m: int, shares: tuple[float, ...], centred: bool) -> Spectrum:
    check_features(m, 4)
    counts = np.zeros(m + 1)
    counts[: len(shares)] = shares
    mean = sum(f * pattern_probability(counts, 2, sum(case)) for case, f in zip(CASES, gate.truth, strict=True))
    shift = mean**2 if centred else 0.0
    if gate.truth[1] == gate.truth[2]:
        e0, e1, e2 = (_product_mean(gate, counts, second) - shift for second in ((0, 1), (0, 2), (2, 3)))
        top = e0 + 2 * (m - 2) * e1 + math.comb(m - 2, 2) * e2
        pairs = [(top, 1), (e0 + (m - 4) * e1 - (m - 3) * e2, m - 1), (e0 - 2 * e1 + e2, math.comb(m, 2) - m)]
        pairs.sort(reverse=True)
        return Spectrum(np.array([value for value, _ in pairs]), tuple(count for _, count in pairs))
    if m > 60:
        raise InputError(f"the floor of a gate that is not symmetric is computed for at most 60 features, got m = {m}")
    k, l = np.triu_indices(m, 1)
    # Two different pairs share k, or l, or one's k is the other's l, or nothing.
    matrix = np.full((len(k), len(k)), _product_mean(gate, counts, (2, 3)))
    for first, other, second in ((k, k, (0, 2)), (l, l, (2, 1)), (k, l, (2, 0)), (l, k, (1, 2))):
        matrix[first[:, None] == other] = _product_mean(gate, counts, second)
    np.fill_diagonal(matrix, _product_mean(gate, counts, (0, 1)))
    values = np.linalg.eigvalsh(matrix - shift)[::-1]
    return Spectrum(values, (1,) * len(values))


class SquareFloor(NamedTuple):
    """The least mean squared error of any layer of this width."""

    per_output: float
    """Mean over the pairs of E(error²)."""
    share: float
    """That, as a share of the zero predictor's; nan for the gate that is always 0."""


def square_floor(gate: Gate, counts: Float[np.ndarray, " counts"], d: int, offset: bool = True) -> SquareFloor:
    """Compute the mean squared error that no layer of d activations with a linear readoff beats (docs/theory.md, section 6).

    The outputs R·a(x) have rank d, so E|f − o|² is at least the eigenvalues of E[f fᵀ] beyond the d largest (Eckart and
    Young 1936). With a constant per output (offset) the same holds for the covariance of f. d >= 1, m >= 4. Says
    nothing of the worst case.
    """
    check_width(d)
    count = math.comb(len(counts) - 1, 2)
    floor = target_spectrum(gate, counts, centred=offset).beyond(d) / count
    zero = zero_predictor(gate, counts).mean_square
    return SquareFloor(floor, floor / zero if zero > 0 else math.nan)


def welch_bound(m: int, d: int, order: int = 1) -> float:
    """Return the |inner product| that some pair of any m unit vectors in R^d reaches (Welch 1974); 0 where it says nothing.

    order k >= 1: max |⟨·,·⟩|^{2k} >= (m/C(d+k−1, k) − 1)/(m − 1); order 1 is √((m − d)/(d(m − 1))). Higher orders are
    stronger for m far beyond d. m >= 2, d >= 1.
    """
    check_features(m)
    if d < 1 or order < 1:
        raise InputError(f"the Welch bound needs d >= 1 and order >= 1, got d = {d}, order = {order}")
    inside = (m / math.comb(d + order - 1, order) - 1) / (m - 1)
    return max(inside, 0.0) ** (1 / (2 * order))


def choice_bits(m: int, outputs: int) -> float:
    """Return log2 C(P, outputs): bits that say which `outputs` of the P = m(m − 1)/2 pairs are computed. 0 <= outputs <= P."""
    check_features(m)
    pairs = math.comb(m, 2)
    if not 0 <= outputs <= pairs:
        raise InputError(f"between 0 and {pairs} of the pairs of {m} features can be chosen, got {outputs}")
    return (math.lgamma(pairs + 1) - math.lgamma(outputs + 1) - math.lgamma(pairs - outputs + 1)) / math.log(2)


def counting_width(m: int, outputs: int, bits_per_weight: float, layers: int = 1) -> float:
    """Return the neurons n that `layers` n×n weight matrices need to compute some choice of `outputs` pairwise gates.

    Adler and Shavit, arXiv:2409.15318 (parameter-description bound, Ω(√(m' log m')) neurons): networks that compute
    different choices have different weights, so layers·n²·bits_per_weight >= log2 C(P, outputs). Holds for the hardest
    choice, with zero error and a decoding that does not depend on the choice; says nothing of one fixed task: for all
    pairs (U-AND) there is one choice, and the bound is 0.
    """
    if bits_per_weight <= 0 or layers < 1:
        raise InputError(
            f"weights have a positive number of bits and layers number 1 or more, got {bits_per_weight}, {layers}"
        )
    return math.sqrt(choice_bits(m, outputs) / (bits_per_weight * layers))
