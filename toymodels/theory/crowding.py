"""Predict the errors of the Bernoulli construction on features in superposition: neurons get crowded.

m features as random unit vectors f_j in d0 dimensions (matrix F).

Derived here. The Bernoulli construction behind a frame, W = Ŵ Fᵀ, sees FᵀF x in place of x: where
x_j stood, x_j + h_j with h_j = f_j · Σ_a f_a over the active a ≠ j. Over frames h_j has mean 0 and variance s/d0 for an
inactive j, (s − 1)/d0 for an active one; h_j and h_j' are uncorrelated, except for two active features: 1/d0. A neuron that
sees both features of a pair has Ŵ_ij = 1 there and Bernoulli(p) elsewhere, so its interference has a part that all such
neurons share, Σ_j E[Ŵ_ij] h_j, and a part of its own, of variance p(1 − p) Σ_j h_j². Together about s·mp/d0: the share p of
it common, which a mean over neurons keeps, the rest divided by their number. Passed through the ReLU either part has a
mean, which no number of neurons averages out. So the interference is as large as a signal where s·mp ≈ d0, however wide the
layer is: the crowding of section 1.3 of the 2024 post. The growth is smooth, there is no threshold. It limits this readoff, not
the layer, whose minimax readoffs do not take all neurons alike.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from toymodels.errors import InputError
from toymodels.theory.bernoulli import debias, empty_probability, mean_reciprocal
from toymodels.theory.counts import binomial, case_counts


class Interference(NamedTuple):
    """Variances, over frames and weights, of what other features add to the input of a neuron that sees both of a pair."""

    common: float
    """Of the part that all such neurons of a layer share."""
    own: float
    """Of each neuron's own part."""


def interference(m: int, d0: int, s: int, p: float | int, on: int) -> Interference:
    """Compute both exactly, for s of m features active, `on` (0, 1 or 2) of them in the pair (derived in the module's text).

    Raises InputError unless 1 ≤ d0, 0 < p ≤ 1 and there is such an input.
    """
    off = 2 - on  # of the pair
    rest, others = m - s - off, s - on  # not of the pair: inactive, active
    if d0 < 1 or not 0 < p <= 1 or on not in (0, 1, 2) or min(rest, others) < 0:
        raise InputError(
            f"m = {m}, d0 = {d0}, s = {s}, p = {p:g}, on = {on}: there must be dimensions, a share of weights in (0, 1] "
            "and an input of s active features, so many of them in the pair"
        )
    active, squares = on + p * others, on + p**2 * others
    common = s * (off + p**2 * rest) + (s - 1) * squares + active**2 - squares
    own = p * (1 - p) * (s * rest + (s - 1) * others)
    return Interference(common / d0, own / d0)


_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


def crowded_square(m: int, d: int, d0: int, s: int, p: float | int, on: int, kind: str = "affine") -> float:
    """Compute the mean square error of the Bernoulli construction's own readoff behind a random frame, `on` of the pair active.

    gain · (mean over S_k ∩ S_l) − shift, by `theory.bernoulli.debias`. Each neuron of the n = |S_k ∩ S_l| ~ Bin(d, p²) has
    (x_k + x_l + T − 1 + μ + ξ)⁺, T ~ Bin(t, p) of the t other active features; μ, common, and ξ, its own, are taken as normal
    with the variances of `interference`, independent of T: a limit of many features and dimensions.
    Raises InputError as `interference` and `debias` do.
    """
    noise, correction = interference(m, d0, s, p, on), debias(s, p, kind)
    t, target = s - on, float(on == 2)
    tau = math.sqrt(noise.own)
    at = on - 1 + np.arange(t + 1)[:, None] + math.sqrt(noise.common) * _NODES[None, :]
    chance = binomial(t, p)
    below, density = ndtr(at / tau), np.exp(-((at / tau) ** 2) / 2) / math.sqrt(2 * math.pi)
    first = chance @ (at * below + tau * density)
    second = chance @ ((at**2 + tau**2) * below + at * tau * density)
    bias = correction.gain * first - correction.shift - target
    spread = correction.gain**2 * (second - first**2) * mean_reciprocal(d, p)
    empty = empty_probability(d, p)
    return float((1 - empty) * _WEIGHTS @ (bias**2 + spread) + empty * (correction.shift + target) ** 2)


def crowded_rms_zeros(m: int, d: int, d0: int, s: int, p: float | int, kind: str = "affine") -> float:
    """Compute the RMS error at zeros, over pairs, inputs of exactly s active, frames and layers (`crowded_square`)."""
    return at_zeros(m, s, [crowded_square(m, d, d0, s, p, on, kind) for on in (0, 1)])


def at_zeros(m: int, s: int, squares: Sequence[float]) -> float:
    """Return the RMS error where an AND is 0, from the mean squares in the cases 00 and 01, for exactly s active."""
    none, one, other, _ = case_counts(m, s)
    return math.sqrt((none * squares[0] + (one + other) * squares[1]) / (none + one + other))
