"""Compute the least worst-case error of any layer of a given width: its outputs have little rank.

Take the inputs with two features on besides s − 2 that are always on: one input for each of the P pairs of the m − s + 2
others. There the AND of pair i on input j is the identity matrix, and the outputs of d neurons, with an offset per output,
are a P×P matrix O of rank r <= d + 1 with |O − I| <= ε. Each row divided by its diagonal entry, at least 1 − ε, keeps the
rank and leaves ones on the diagonal and at most ε/(1 − ε) beside it. For every matrix (tr O)² <= r·‖O‖_F², so
ε/(1 − ε) >= w, the Welch bound of P unit vectors in R^r; the entrywise k-th power, of rank C(r + k − 1, k), gives Welch's
bound of order k (Alon 2009, "Perturbed identity matrices have high rank"). Activations do not matter.

Another gate is AND after an affine function of (x_k, x_l) of rank m − s + 2 at most is taken from it (the constant lies
in that span, since two of these features are on), and its errors are divided by |δ|.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from toymodels.theory.classes import check_active
from toymodels.theory.counts import check_features, check_width
from toymodels.theory.floors import welch_bound
from toymodels.theory.gates import Gate
from toymodels.theory.widths import width_of_floors


def worst_error_floor(gate: Gate, m: int, s: int, d: int) -> float:
    """Return the worst error that no layer of d neurons with linear readoffs (and offsets) of all pairs beats.

    Holds for any activation and any inputs that include all those with exactly s of m active. 0 where it says nothing.
    Raises InputError for s < 2, s > m or d < 1.
    """
    check_active(s)
    check_features(m, s)
    check_width(d)
    return max(_floors(gate, m, s, d), default=0.0)


def _floors(gate: Gate, m: int, s: int, d: int) -> Iterator[float]:
    """Yield the floor by Welch's bound of each order that says something, from 1 up."""
    _, beta, gamma, delta = gate.coefficients
    free = m - s + 2
    pairs, rank = math.comb(free, 2), d + (free if beta or gamma else 1)
    if pairs < 2 or not delta:
        return
    order = 1
    while math.comb(rank + order - 1, order) < pairs:
        bound = welch_bound(pairs, rank, order)
        yield abs(delta) * bound / (1 + bound)
        order += 1


def least_width(gate: Gate, m: int, s: int, epsilon: float) -> int:
    """Find the smallest d at which `worst_error_floor` is at most epsilon; 1 where it says nothing. epsilon > 0."""
    check_active(s)
    check_features(m, s)
    return width_of_floors(lambda d: _floors(gate, m, s, d), epsilon)
