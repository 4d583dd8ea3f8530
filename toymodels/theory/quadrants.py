"""Compute the analytic (four-quadrant) readoff of a Gaussian ReLU layer and its error, in closed form.

A neuron is classed by the signs of its weights (u, v) on the pair's two features; see `toymodels.theory.classes` for
what a readoff by class is and why its error is exact at every width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import gamma

from toymodels.errors import InputError
from toymodels.theory.classes import ClassMoments, check_active, check_case, solve_readoff
from toymodels.theory.gates import CASES, Gate

QUADRANTS = ((-1, -1), (-1, 1), (1, -1), (1, 1))
"""Signs (of u, of v) of the four neuron classes of a Gaussian layer: index = 2·(u > 0) + (v > 0)."""

_PHI0 = 1 / math.sqrt(2 * math.pi)


def _both_positive(r: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Return P(X > 0, Y > 0) for standard normals of correlation r (Sheppard 1899)."""
    return 0.25 + np.arcsin(np.clip(r, -1, 1)) / (2 * math.pi)


def _half_moment(power: int) -> float:
    """Return E[(Y⁺)^power] of a standard normal Y."""
    return float(2 ** (power / 2 - 1) * gamma((power + 1) / 2) / math.sqrt(math.pi))


def _pair_moment(r: Float[np.ndarray, " n"], power: int) -> Float[np.ndarray, " n"]:
    """Return E[(Y⁺)^power; V > 0] for standard normals Y, V of correlation r, by E[Y·g(Y, V)] = E[∂g/∂Y] + r·E[∂g/∂V]."""
    if power == 0:
        return _both_positive(r)
    first = np.full_like(r, _PHI0 / 2) if power == 1 else (power - 1) * _pair_moment(r, power - 2)
    return first + r * _PHI0 * (1 - r**2).clip(0) ** ((power - 1) / 2) * _half_moment(power - 1)


def quadrant_moment(s: int, case: int, power: int) -> Float[np.ndarray, " 4"]:
    """Return E[(z⁺)^power; (u, v) in the quadrant] of a Gaussian layer, for each of the four `QUADRANTS`.

    z = Wx ~ N(0, s) over one neuron, unbiased, W iid N(0, 1), in `CASES[case]`; power 0 is P(z > 0; quadrant).
    Source: docs/theory.md, section 3 (powers 1 and 2); higher powers by the same Gaussian integration by parts,
    E[z·g(z, u, v)] = s·E[∂g/∂z] + x_k·E[∂g/∂u] + x_l·E[∂g/∂v].
    Raises InputError for a negative power or a case that s active features cannot produce.
    """
    check_case(s, case)
    if power < 0:
        raise InputError(f"a moment's power is 0 or more, got {power}")
    if s == 0:
        return np.zeros(4)
    e1, e2 = np.array(QUADRANTS, dtype=float).T
    x_k, x_l = CASES[case]
    r1, r2 = e1 * x_k / math.sqrt(s), e2 * x_l / math.sqrt(s)
    q1, q2 = np.sqrt(1 - r1**2), np.sqrt(1 - r2**2)
    # q = 0 only at s = 1 with that feature on; the other correlation is then 0, and so is every ratio.
    r2_given_1 = np.divide(r2, q1, out=np.zeros(4), where=q1 > 0)
    r1_given_2 = np.divide(r1, q2, out=np.zeros(4), where=q2 > 0)
    standard: list[Float[np.ndarray, " 4"]] = []  # E[(z⁺/√s)^j; quadrant] for j = 0, 1, …
    for j in range(power + 1):
        if j == 0:
            moment = 1 / 8 + (np.arcsin(r1) + np.arcsin(r2)) / (4 * math.pi)
        else:
            inner = _PHI0 * _both_positive(-r1_given_2 * r2_given_1) if j == 1 else (j - 1) * standard[j - 2]
            slide_u = r1 * _PHI0 * q1 ** (j - 1) * _pair_moment(r2_given_1, j - 1)
            slide_v = r2 * _PHI0 * q2 ** (j - 1) * _pair_moment(r1_given_2, j - 1)
            moment = inner + slide_u + slide_v
        standard.append(moment)
    return s ** (power / 2) * standard[power]


@functools.cache
def gaussian_classes(s: int) -> ClassMoments:
    """Return the moments of the four sign quadrants of a Gaussian layer at exactly s >= 2 active features (read-only arrays)."""
    check_active(s)
    labels = tuple((float(a), float(b)) for a, b in QUADRANTS)
    moments = (np.array([quadrant_moment(s, case, power) for case in range(4)]) for power in (1, 2))
    arrays = np.full(4, 0.25), *moments
    for array in arrays:
        array.flags.writeable = False  # every caller gets the same ones
    return ClassMoments(labels, *arrays)


def readoff_coefficients(gate: Gate, s: int) -> Float[np.ndarray, " 4"]:
    """Return the four η of the analytic (four-quadrant) readoff of a Gaussian layer, in the order of `QUADRANTS`.

    Source: docs/theory.md, section 3. Raises InputError for s < 2.
    """
    return solve_readoff(gaussian_classes(s), gate).eta


def error_std(gate: Gate, s: int) -> Float[np.ndarray, " 4"]:
    """Return σ of the analytic readoff in the cases 00, 01, 10, 11: its error has variance σ²/d and mean 0. s >= 2."""
    return solve_readoff(gaussian_classes(s), gate).sigma


def rms_over(cases: Sequence[int], shares: Float[np.ndarray, " 4"], mean_square: Float[np.ndarray, " 4"]) -> float:
    """Return the RMS error over some cases, each with its share (`counts.case_shares`). InputError if none occurs."""
    chosen = [case for case in cases if shares[case] > 0]
    if not chosen:
        raise InputError("no such case occurs on these inputs")
    return math.sqrt(float(shares[chosen] @ mean_square[chosen] / shares[chosen].sum()))


def rms_by_value(
    gate: Gate, value: int, shares: Float[np.ndarray, " 4"], mean_square: Float[np.ndarray, " 4"]
) -> float:
    """Return the RMS error over the cases in which the target is `value`. InputError if none occurs."""
    return rms_over([case for case in range(4) if gate.truth[case] == value], shares, mean_square)


def and_scale(s: int) -> float:
    """Return c_s of the U-AND readoff r_i = c_s·sign(w_ki)·sign(w_li)/d (docs/theory.md, section 3). s >= 2.

    As s grows it is about (π/2)·√(2π)·√s.
    """
    check_active(s)
    bracket = 2 / math.sqrt(s) * math.asin(1 / math.sqrt(s - 1)) - math.asin(1 / (s - 1))
    return math.pi / 2 / (math.sqrt(s / (2 * math.pi)) * bracket)


class Growth(NamedTuple):
    """A power law constant·s^power that a quantity approaches as s grows (ratio tends to 1)."""

    constant: float
    power: float


def error_std_limit(gate: Gate, case: int) -> Growth:
    """Return how σ of the analytic readoff grows with s on a Gaussian layer.

    Expanding the quadrant moments in 1/√s, the readoff's parts on (1, sign u, sign v, sign u·sign v) tend to
    √(2π)·(α/√s, β, γ, δ·(π/2)·√s) and E[(z⁺)²] = s/2, so σ → |δ|·(π^{3/2}/2)·s; for δ = 0, √(π(β² + γ²)s);
    for a constant gate α, √(α²π − f²).
    """
    check_case(2, case)
    alpha, beta, gamma_, delta = gate.coefficients
    if delta:
        return Growth(abs(delta) * math.pi**1.5 / 2, 1.0)
    if beta or gamma_:
        return Growth(math.sqrt(math.pi * (beta**2 + gamma_**2)), 0.5)
    return Growth(math.sqrt(alpha**2 * math.pi - gate.truth[case] ** 2), 0.0)
