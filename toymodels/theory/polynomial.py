"""Compute worst errors that no layer of a given width beats, by Chebyshev polynomials of its outputs: sharper than rank alone.

`theory.rank` has the start: on the inputs with two features on besides s − 2 that are always on, the outputs of AND, each row
divided by its diagonal entry, are a P×P matrix M with ones on the diagonal and |M_ij| <= t = ε/(1 − ε) beside it, and M_ij
is an affine function of the activations of input j. So for a polynomial q of degree k, q(M_ij) is a polynomial of degree k at
most in d variables, and the matrix of all q(M_ij) has a rank of at most N = C(d + k, k).

Take the Chebyshev polynomial q(z) = T_k(z/t)/T_k(1/t): q(1) = 1, and |q| <= 1/T_k(1/t) on [−t, t], the least of all
polynomials of its degree. For every matrix (tr Q)² <= rank·‖Q‖_F², so with Q = q(M)

    1/T_k(1/t) >= w = √((P − N)/(N (P − 1))),    that is    t >= 1/cosh(arcosh(1/w)/k).

The power z^k in place of q gives t >= w^{1/k} (Alon 2009), less for every k >= 2: by up to 2^{1 − 1/k} times. Activations do
not matter. Another gate is AND after an affine function of (x_k, x_l) is taken from it, and its errors are divided by |δ|: the
m − s + 2 features join the activations, and the constant lies in their span, so N = C(d + m − s + 1 + k, k).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from toymodels.errors import check_whole
from toymodels.theory.classes import check_active
from toymodels.theory.counts import check_features
from toymodels.theory.gates import Gate
from toymodels.theory.widths import width_of_floors


def polynomial_floor(gate: Gate, m: int, s: int, d: int) -> float:
    """Return the worst error that no layer of d neurons with linear readoffs (and offsets) of all pairs beats.

    Holds for any activation and any inputs that include all those with exactly s of m active. 0 where it says nothing.
    Raises InputError for s < 2, s > m or d < 1.
    """
    check_active(s)
    check_features(m, s)
    check_whole(1, d=d)
    return max(_of_gate(gate, m, s, d), default=0.0)


def identity_floor(outputs: int, d: int) -> float:
    """Return that floor for outputs each of which is 1 on an input of its own where all others are 0: the AND of k features, say.

    Raises InputError for less than one output or neuron.
    """
    check_whole(1, outputs=outputs, d=d)
    return max(_floors(outputs, d), default=0.0)


def least_width(gate: Gate, m: int, s: int, epsilon: float) -> int:
    """Find the smallest d at which `polynomial_floor` is at most epsilon; 1 where it says nothing. epsilon > 0."""
    check_active(s)
    check_features(m, s)
    return width_of_floors(lambda d: _of_gate(gate, m, s, d), epsilon)


def _of_gate(gate: Gate, m: int, s: int, d: int) -> Iterator[float]:
    _, beta, gamma, delta = gate.coefficients
    free = m - s + 2
    if delta:
        variables = d + (free - 1 if beta or gamma else 0)
        yield from (abs(delta) * floor for floor in _floors(math.comb(free, 2), variables))


def _floors(outputs: int, variables: int) -> Iterator[float]:
    """Yield the floor of each degree that says something, from 1 up."""
    degree = 1
    while outputs > 1 and (rank := math.comb(variables + degree, degree)) < outputs:
        least = math.sqrt((outputs - rank) / (rank * (outputs - 1)))
        t = 1 / math.cosh(math.acosh(1 / least) / degree)
        yield t / (1 + t)
        degree += 1
