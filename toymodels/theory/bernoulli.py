"""The sparse Bernoulli construction of U-AND: weights 1 with probability p, bias −1, readoff the mean over S_k ∩ S_l.

Construction 1.2 of Vaintrob, Mendel, Hänni (2024), Theorem 1 of arXiv:2408.05451; S_k is the set of neurons with weight
1 on feature k. All moments are over the draw of the layer, on a fixed input with s active features, and exact: each
neuron of S_k ∩ S_l has activation (x_k + x_l + T − 1)⁺ with T ~ Bin(t, p) from the t = s − x_k − x_l others, and
n = |S_k ∩ S_l| ~ Bin(d, p²).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import binom

from toymodels.errors import InputError
from toymodels.theory.classes import check_active
from toymodels.theory.counts import case_counts, check_features
from toymodels.theory.gates import CASES, Gate

_AND = np.array(Gate.parse("and").truth, dtype=float)


def _check(d: int, p: float) -> None:
    if d < 1:
        raise InputError(f"a layer has at least one neuron, got d = {d}")
    if not 0 < p < 1:
        raise InputError(f"the probability of a weight lies strictly between 0 and 1, got p = {p}")


class ActivationMoments(NamedTuple):
    """Activation of one neuron of S_k ∩ S_l, in the four cases."""

    mean: Float[np.ndarray, " 4"]
    variance: Float[np.ndarray, " 4"]


def activation_moments(s: int, p: float) -> ActivationMoments:
    """Mean tp − 1 + (1−p)^t at 00, tp at 01 and 10, 1 + tp at 11 (theory section 4), and the exact variances. s >= 2.

    11 and 01 add a constant to T, so their variance is tp(1 − p); at 00, (T − 1)⁺ has second moment
    tp(1−p) + (tp − 1)² − (1−p)^t.
    """
    check_active(s)
    _check(1, p)
    t = s - np.array([sum(case) for case in CASES])
    spread = t * p * (1 - p)
    none = (1 - p) ** t[0]
    mean = np.array([t[0] * p - 1 + none, t[1] * p, t[2] * p, 1 + t[3] * p])
    variance = spread.astype(float)
    variance[0] += (t[0] * p - 1) ** 2 - none - mean[0] ** 2
    return ActivationMoments(mean, variance)


def empty_probability(d: int, p: float) -> float:
    """P(S_k ∩ S_l is empty) = (1 − p²)^d: that pair cannot be read at all."""
    _check(d, p)
    return (1 - p**2) ** d


def mean_reciprocal(d: int, p: float) -> float:
    """E[1/n | n > 0] for n = |S_k ∩ S_l| ~ Bin(d, p²), by the exact sum; about 1/(d·p²) where that is small."""
    _check(d, p)
    n = np.arange(1, d + 1)
    mass = binom.pmf(n, d, p**2)
    return float(mass @ (1 / n) / mass.sum())


class Debias(NamedTuple):
    """The output is gain·(mean over S_k ∩ S_l) − shift."""

    gain: float
    shift: float


def debias(s: int, p: float, kind: str = "affine") -> Debias:
    """The correction of the readoff whose largest bias over the cases is smallest, for s active features known.

    "none": (1, 0), the construction as published. "shift": gain 1, shift the middle of the range of the three biases.
    "affine": gain 1/(μ11 − μ00), with biases ε, −ε, ε at 00, 01, 11 (Chebyshev), ε = −(μ01 − μ00)/(2(μ11 − μ00)).
    No correction of this form is unbiased in all cases: for that let neurons outside the intersection be read too
    (`classes.solve_readoff` on `laws.finite_classes(laws.bernoulli_law(p), s)`).
    """
    mean = activation_moments(s, p).mean
    if kind == "none":
        return Debias(1.0, 0.0)
    if kind == "shift":
        bias = mean - _AND
        return Debias(1.0, float(bias.max() + bias.min()) / 2)
    if kind == "affine":
        gain = 1 / (mean[3] - mean[0])
        return Debias(float(gain), float(gain * (mean[0] + mean[1]) / 2))
    raise InputError(f'a readoff is debiased by "none", "shift" or "affine", got {kind!r}')


class BernoulliErrors(NamedTuple):
    """Errors of the readoff given a non-empty intersection, and without that condition, in the four cases."""

    bias: Float[np.ndarray, " 4"]
    std: Float[np.ndarray, " 4"]
    """Over random supports, given a non-empty intersection: gain·√(variance·E[1/n | n > 0])."""
    rms: Float[np.ndarray, " 4"]
    """Empty intersections included, which output −shift."""


def bernoulli_errors(d: int, s: int, p: float, kind: str = "none") -> BernoulliErrors:
    """Exact bias, standard deviation and RMS error of the U-AND readoff at width d, s >= 2 active features."""
    moments, correction, empty = activation_moments(s, p), debias(s, p, kind), empty_probability(d, p)
    bias = correction.gain * moments.mean - correction.shift - _AND
    std = correction.gain * np.sqrt(moments.variance * mean_reciprocal(d, p))
    rms = np.sqrt((1 - empty) * (bias**2 + std**2) + empty * (correction.shift + _AND) ** 2)
    return BernoulliErrors(bias, std, rms)


def median_worst_error(m: int, d: int, s: int, p: float, kind: str = "affine") -> float:
    """Median, over layers, of the largest |error| over all pairs on one input with exactly s of m active.

    The law of each error is exact (the sum over the intersection by convolution; beyond 128 likely sizes of it they are
    taken in groups). Pairs are taken as independent; they share neurons, and simulation gives 2 to 10 % less. Returned
    to 1e-4. Raises InputError for s < 2, s > m, d < 1 or p outside (0, 1).
    """
    _check(d, p)
    check_active(s)
    check_features(m)
    correction = debias(s, p, kind)
    sizes = np.arange(d + 1)
    weight = binom.pmf(sizes, d, p**2)
    sizes, weight = sizes[weight > 1e-13], weight[weight > 1e-13]
    starts = np.arange(0, len(sizes), -(-len(sizes) // 128))
    grouped = np.add.reduceat(weight, starts)
    sizes = np.rint(np.add.reduceat(weight * sizes, starts) / grouped).astype(int)
    weight = grouped
    length = int(sizes.max()) * s + 1
    parts = []
    for case in (0, 1, 3):
        t, ones = s - sum(CASES[case]), sum(CASES[case])
        one = np.zeros(length)
        np.add.at(
            one, np.maximum(ones + np.arange(t + 1) - 1, 0).clip(max=length - 1), binom.pmf(np.arange(t + 1), t, p)
        )
        sums = np.fft.irfft(np.fft.rfft(one) ** sizes[:, None], length).clip(0)
        mean = np.arange(length) / np.maximum(sizes, 1)[:, None]
        error = np.abs(correction.gain * mean - correction.shift - _AND[case])
        order = np.argsort(error.ravel())
        cumulative = np.cumsum((weight[:, None] * sums).ravel()[order])
        parts.append((error.ravel()[order], 1 - cumulative / cumulative[-1]))
    n00, n01, n10, n11 = case_counts(m, s)
    counts = (n00, n01 + n10, n11)

    def log_inside(level: float) -> float:
        total = 0.0
        for (error, tail), count in zip(parts, counts, strict=True):
            index = int(np.searchsorted(error, level, side="right")) - 1
            total += count * (math.log1p(-min(max(tail[index], 0.0), 1 - 1e-15)) if index >= 0 else -math.inf)
        return total

    low, high = 0.0, max(float(error[-1]) for error, _ in parts) + 1e-4
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if log_inside(middle) >= math.log(0.5) else (middle, high)
    return high


def asymptotic_probability(m: int, d: int) -> float:
    """p = ln²(m)/√d of Construction 1.2; above 1, so no probability, unless d > ln⁴(m) (theory section 4)."""
    check_features(m)
    if d < 1:
        raise InputError(f"a layer has at least one neuron, got d = {d}")
    return math.log(m) ** 2 / math.sqrt(d)


def smallest_probability(m: int, d: int, k: int = 2) -> float:
    """The p at which 1/2 of all C(m, k) sets is seen by no neuron, in expectation: (1 − p^k)^d C(m, k) = 1/2.

    So by Markov's inequality every set can be read with probability at least 1/2 (derived here). Below it sets cannot be
    read, above it neurons see more other features. It is about (ln 2C(m, k)/d)^{1/k}, of the order of the published
    log²(m)/d^{1/k}, but always below 1. Raises InputError for d < 1 or k outside 2 … m.
    """
    if d < 1 or not 2 <= k <= m:
        raise InputError(
            f"a set of k = {k} of m = {m} features, d = {d} neurons: k lies between 2 and m, and d is at least 1"
        )
    return (-math.expm1(-math.log(2 * math.comb(m, k)) / d)) ** (1 / k)


def probability_grid(m: int, d: int, grid: int = 60) -> list[float]:
    """`grid` values of p, evenly spaced in log p from `smallest_probability` to 0.95, or from 0.9 where that is larger.

    The worst error on one input hardly sees a pair that no neuron sees: it is on in few inputs, and wrong in those. So the
    grid begins where every pair is likely to be seen. Raises InputError for d < 2 or grid < 2.
    """
    if d < 2 or grid < 2:
        raise InputError(f"the search needs d >= 2 and at least 2 values of p, got d = {d}, grid = {grid}")
    values: list[float] = np.geomspace(min(smallest_probability(m, d), 0.9), 0.95, grid).tolist()
    return values


class BestProbability(NamedTuple):
    """The best p found, and what it achieves."""

    p: float
    worst: float
    """Its `median_worst_error`."""
    asymptotic: float
    """`asymptotic_probability`, for comparison."""


def best_probability(m: int, d: int, s: int, kind: str = "affine", grid: int = 60) -> BestProbability:
    """The p of least `median_worst_error` on `probability_grid`. Raises InputError for d < 2, grid < 2 or as there."""
    values = probability_grid(m, d, grid)
    errors = [median_worst_error(m, d, s, p, kind) for p in values]
    best = int(np.argmin(errors))
    return BestProbability(values[best], errors[best], asymptotic_probability(m, d))
