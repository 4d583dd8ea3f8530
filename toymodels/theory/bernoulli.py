"""Predict the sparse Bernoulli construction of the AND of every k features: weights 1 with probability p, bias −(k − 1).

Construction 1.2 (k = 2) and section 1.4 of Vaintrob, Mendel, Hänni (2024), Theorem 1 of arXiv:2408.05451; docs/theory.md,
section 4. The AND of a set is read as the mean over its intersection: the neurons with weight 1 on all k of its features.

Moments are over the draw of the layer, on a fixed input with s active features, and exact. Arrays are indexed by j = 0 … k,
the number of the set's features that are active (for a pair: 0 is case 00, 1 is 01 or 10, 2 is 11). A neuron of the
intersection then has activation (j + T − (k − 1))⁺ with T ~ Bin(s − j, p) from the other active features, and the
intersection has n ~ Bin(d, p^k) neurons.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError, check_choice, check_whole
from toymodels.theory.counts import binomial, check_features, check_width


def _check(d: int, p: float) -> None:
    check_width(d)
    if not 0 < p < 1:
        raise InputError(f"the probability of a weight lies strictly between 0 and 1, got p = {p:g}")


def _check_sets(s: int, k: int) -> None:
    check_whole(k=k, s=s)
    if k < 1 or s < 1:
        raise InputError(f"moments need k ≥ 1 and s ≥ 1 active features, got k = {k}, s = {s}")


def _truth(k: int) -> Float[np.ndarray, " cases"]:
    return (np.arange(k + 1) == k).astype(float)


class ActivationMoments(NamedTuple):
    """Activation of one neuron of the intersection, by the number j of the set's features that are active."""

    mean: Float[np.ndarray, " cases"]
    variance: Float[np.ndarray, " cases"]


def activation_moments(s: int, p: float | int, k: int = 2) -> ActivationMoments:
    """Compute the exact mean and variance of (j + T − (k − 1))⁺, T ~ Bin(s − j, p), for j = 0 … k.

    With t = s − j the mean is 1 + tp at j = k, tp at j = k − 1 and tp − 1 + (1 − p)^t at j = k − 2. NaN for j > s, which
    cannot occur. Raises InputError for k < 1, s < 1, one of these that is not a whole number, or p outside (0, 1).
    """
    _check_sets(s, k)
    _check(1, p)
    mean, variance = np.full(k + 1, np.nan), np.full(k + 1, np.nan)
    for j in range(min(k, s) + 1):
        others = np.arange(s - j + 1)
        mass, active = binomial(s - j, p), np.maximum(j + others - (k - 1), 0)
        mean[j] = mass @ active
        variance[j] = mass @ (active - mean[j]) ** 2
    return ActivationMoments(mean, variance)


def empty_probability(d: int, p: float, k: int = 2) -> float:
    """Return P(no neuron sees all k features of a set) = (1 − p^k)^d: that set cannot be read at all."""
    _check(d, p)
    return (1 - p**k) ** d


def mean_reciprocal(d: int, p: float, k: int = 2) -> float:
    """Return E[1/n | n > 0] for n ~ Bin(d, p^k), by the exact sum; about 1/(d·p^k) where that is small."""
    _check(d, p)
    mass = binomial(d, p**k)[1:]
    return float(mass @ (1 / np.arange(1, d + 1)) / mass.sum())


class Debias(NamedTuple):
    """The output is gain·(mean over the intersection) − shift."""

    gain: float
    shift: float


def debias(s: int, p: float | int, kind: str = "affine", k: int = 2) -> Debias:
    """Find the correction of the readoff whose largest bias over the cases is smallest, for s >= k active features.

    "none": (1, 0), the construction as published. "shift": gain 1, shift the middle of the range of the biases.
    "affine": the means μ_j rise with j, so the Chebyshev line through the convex points (μ_0, 0), (μ_{k−1}, 0), (μ_k, 1)
    has gain 1/(μ_k − μ_0) and shift gain·(μ_0 + μ_{k−1})/2, and errs by ε = gain·(μ_{k−1} − μ_0)/2 with signs −, +, −
    (derived here). No correction of this form is unbiased in all cases: for that, neurons outside the intersection must be
    read too (`classes.solve_readoff` on `distributions.finite_classes(bernoulli_weights(p), s)`).
    """
    check_choice(("none", "shift", "affine"), correction=kind)
    _check_sets(s, k)
    if s < k:
        raise InputError(f"s = {s} active features never make an AND of k = {k} true: a correction needs s ≥ k")
    mean = activation_moments(s, p, k).mean
    if kind == "none":
        return Debias(1.0, 0.0)
    if kind == "shift":
        bias = mean - _truth(k)
        return Debias(1.0, float(bias.max() + bias.min()) / 2)
    gain = 1 / (mean[k] - mean[0])
    return Debias(float(gain), float(gain * (mean[0] + mean[k - 1]) / 2))


class BernoulliErrors(NamedTuple):
    """Errors of the readoff by the number j of the set's features that are active."""

    bias: Float[np.ndarray, " cases"]
    """Given an intersection that is not empty."""
    std: Float[np.ndarray, " cases"]
    """Over layers, given an intersection that is not empty: gain·√(variance·E[1/n | n > 0])."""
    rms: Float[np.ndarray, " cases"]
    """Empty intersections included, which output −shift."""


def bernoulli_errors(d: int, s: int, p: float, kind: str = "none", k: int = 2) -> BernoulliErrors:
    """Compute the exact bias, standard deviation and RMS error of the readoff at width d, s >= k active features."""
    moments, correction, empty = activation_moments(s, p, k), debias(s, p, kind, k), empty_probability(d, p, k)
    bias = correction.gain * moments.mean - correction.shift - _truth(k)
    std = correction.gain * np.sqrt(moments.variance * mean_reciprocal(d, p, k))
    rms = np.sqrt((1 - empty) * (bias**2 + std**2) + empty * (correction.shift + _truth(k)) ** 2)
    return BernoulliErrors(bias, std, rms)


def median_worst_error(m: int, d: int, s: int, p: float, kind: str = "affine", k: int = 2) -> float:
    """Predict the median, over layers, of the largest |error| over all sets of k on one input with exactly s of m active.

    The distribution of each error is exact (the sum over the intersection by convolution; beyond 128 likely sizes of it
    they are taken in groups). Sets are taken as independent, but they share neurons, so the true median is lower. Against
    simulation for pairs (m = 16, 40, 100; d = 60, 150, 400, 1,000; s = 2, 3, 5; five values of p, plain and debiased; 200
    layers or more each) it was lower by 0 to 12 % at the best p, and wherever intersections have 20 neurons or more on
    average (d·p² >= 20), half of the time by less than 5 %; by up to 29 % where they have 5 to 20, and by up to half where
    they have fewer: errors then take few values, and the median jumps between them.
    Returned to 1e-4. Raises InputError for s < k, s > m, d < 1 or p outside (0, 1).
    """
    _check(d, p)
    check_features(m)
    if not k <= s <= m:
        raise InputError(f"the number of active features lies between k = {k} and m = {m}, got s = {s}")
    correction = debias(s, p, kind, k)
    sizes, weight = np.arange(d + 1), binomial(d, p**k)
    sizes, weight = sizes[weight > 1e-13], weight[weight > 1e-13]
    starts = np.arange(0, len(sizes), -(-len(sizes) // 128))
    grouped = np.add.reduceat(weight, starts)
    sizes = np.rint(np.add.reduceat(weight * sizes, starts) / grouped).astype(int)
    length = int(sizes.max()) * s + 1
    tails: list[tuple[int, np.ndarray, np.ndarray]] = []
    for j in range(max(0, k - (m - s)), k + 1):
        one = np.zeros(length)
        active = np.maximum(j + np.arange(s - j + 1) - (k - 1), 0).clip(max=length - 1)
        np.add.at(one, active, binomial(s - j, p))
        sums = np.fft.irfft(np.fft.rfft(one) ** sizes[:, None], length).clip(0)
        mean = np.arange(length) / np.maximum(sizes, 1)[:, None]
        error = np.abs(correction.gain * mean - correction.shift - (j == k)).ravel()
        order = np.argsort(error)
        cumulative = np.cumsum((grouped[:, None] * sums).ravel()[order])
        tails.append((math.comb(s, j) * math.comb(m - s, k - j), error[order], 1 - cumulative / cumulative[-1]))

    def log_inside(level: float) -> float:
        """Return log P(no |error| above the level)."""
        total = 0.0
        for count, error, tail in tails:
            index = int(np.searchsorted(error, level, side="right")) - 1
            total += count * (math.log1p(-min(max(tail[index], 0.0), 1 - 1e-15)) if index >= 0 else -math.inf)
        return total

    low, high = 0.0, max(float(error[-1]) for _, error, _ in tails) + 1e-4
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if log_inside(middle) >= math.log(0.5) else (middle, high)
    return high


def asymptotic_probability(m: int, d: int) -> float:
    """Return p = ln²(m)/√d of Construction 1.2; above 1, so no probability, unless d > ln⁴(m) (docs/theory.md, section 4)."""
    check_features(m)
    check_width(d)
    return math.log(m) ** 2 / math.sqrt(d)


def smallest_probability(m: int, d: int, k: int = 2) -> float:
    """Return the p at which half a set is seen by no neuron, in expectation: (1 − p^k)^d C(m, k) = 1/2.

    So by Markov's inequality every set can be read with probability at least 1/2 (derived here). Below it sets cannot be
    read, above it neurons see more other features. It is about (ln 2C(m, k)/d)^{1/k}, of the order of the published
    log²(m)/d^{1/k}, but always below 1. Raises InputError for d < 1 or k outside 2 … m.
    """
    check_whole(m=m, d=d, k=k)
    if d < 1 or not 2 <= k <= m:
        raise InputError(
            f"a set of k = {k} of m = {m} features, d = {d} neurons: k lies between 2 and m, and d is at least 1"
        )
    return (-math.expm1(-math.log(2 * math.comb(m, k)) / d)) ** (1 / k)


def probability_grid(m: int, d: int, grid: int = 60, k: int = 2) -> list[float]:
    """List `grid` values of p, evenly spaced in log p from `smallest_probability` (0.9 at most) to 0.95.

    The worst error on one input hardly sees a set that no neuron sees: it is on in few inputs, and wrong in those. So the
    grid begins where every set is likely to be seen. Raises InputError for d < 2 or grid < 2.
    """
    if d < 2 or grid < 2:
        raise InputError(f"the search needs d >= 2 and at least 2 values of p, got d = {d}, grid = {grid}")
    values: list[float] = np.geomspace(min(smallest_probability(m, d, k), 0.9), 0.95, grid).tolist()
    return values


class BestP(NamedTuple):
    """The best p of a search."""

    p: float
    error: float
    """The value of the criterion there."""


def best_p(criterion: Callable[[float], float], values: Sequence[float]) -> BestP:
    """Find the p of least criterion(p) among rising values: every sixth first, then the neighbours of the best.

    The criteria used here (`bernoulli_errors`, `median_worst_error`) are smooth in p but for ripples of a per cent, so a
    third of the work finds the least value to that. This is the only search for a p; `formula_p` needs none.
    """
    errors: dict[int, float] = {}
    candidates = range(0, len(values), 6)
    for step in (3, 1, 0):
        errors |= {i: criterion(values[i]) for i in candidates if i not in errors}
        best = min(errors, key=lambda i: errors[i])
        candidates = range(max(0, best - 2 * step), min(len(values) - 1, best + 2 * step) + 1, max(1, step))
    return BestP(values[best], errors[best])


@functools.lru_cache(maxsize=64)
def least_worst_error(m: int, d: int, s: int, kind: str = "affine", grid: int = 60, k: int = 2) -> BestP:
    """Find the p of least `median_worst_error` on `probability_grid`: the p that a Bernoulli layer has by default."""
    return best_p(lambda p: median_worst_error(m, d, s, p, kind, k), probability_grid(m, d, grid, k))


@functools.lru_cache(maxsize=1024)
def least_rms(d: int, s: int, kind: str = "affine", k: int = 2) -> BestP:
    """Find the p at which the largest of the cases' RMS errors is least, among 60 values from d^(−1/k) to 0.95.

    It does not depend on m. Raises InputError for d < 2.
    """
    if d < 2:
        raise InputError("the construction needs at least 2 neurons")
    values: list[float] = np.geomspace(d ** (-1 / k), 0.95, 60).tolist()
    return best_p(lambda p: float(bernoulli_errors(d, s, p, kind, k).rms.max()), values)


def formula_p(m: int, d: int, k: int = 2) -> float:
    """Return p = (z² (k − 1)²/(4d))^{1/(k+1)}, z² = 2 ln N, kept from `smallest_probability` to 1/2: nearly the best p.

    Derived here for the published readoff ("none"): with k − 1 of the set and one other feature on, it errs by p with
    spread √(p(1 − p)/(d p^k)), so the largest of the N = C(m, k) k (m − k) such errors is about p + z √(p/(d p^k)) for small
    p, least at this p. The published log²(m)/d^{1/k} exceeds 1 at laboratory sizes. At m = 12, d = 400, k = s = 3 the mean
    worst error over seeds 0 to 2 is 1.00, 0.96, 0.77, 0.75, 0.74 at p = 0.25, 0.3, 0.35, 0.4, 0.5 (here 0.46); at k = 2 its
    `median_worst_error` is within 1 % of that of `least_worst_error` (m = 50 and 100, d = 100 to 500).
    Raises InputError as `smallest_probability`.
    """
    smallest = smallest_probability(m, d, k)
    errors = max(2, math.comb(m, k) * k * (m - k))
    best = (math.log(errors) * (k - 1) ** 2 / (2 * d)) ** (1 / (k + 1))
    return max(smallest, min(0.5, best))
