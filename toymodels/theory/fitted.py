"""What a least-squares readoff of a frozen Gaussian layer errs by at finite width, before drawing any layer.

The readoff fitted on all admissible inputs projects the target onto the span of d random activation vectors. These have
covariance K over the inputs (the arc-cosine kernel), and the projection off their span has the deterministic equivalent
κ(K + κ)⁻¹, with κ > 0 such that tr K(K + κ)⁻¹ = d (Dereziński, Liang, Liao, Mahoney 2020, "Precise expressions for random
projections"; ridgeless random-feature regression). All traces are in the coordinates scaled by the roots of the weights.

K, the weights and the target are unchanged by permuting the m − 2 features outside the pair. Functions on the inputs of
one kind (number active, case), subsets of those features, split into harmonics of degree j = 0, 1, … (the Johnson scheme,
Delsarte 1973); K maps each degree to itself and acts alike on its C(m−2, j) − C(m−2, j−1) dimensions. So the spectrum is
that of a small matrix per degree, a row for each kind, and the target lies in degree 0: no input is ever listed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import brentq

from toymodels.errors import InputError
from toymodels.gates import CASES, Gate
from toymodels.theory.classes import check_active
from toymodels.theory.counts import check_features
from toymodels.theory.kernel import arc_cosine


class FittedError(NamedTuple):
    """Predicted errors of the weighted least-squares readoff."""

    mean_square: float
    """The minimised objective: Σ_case weight·E(error² | case)."""
    rms: Float[np.ndarray, " 4"]
    """√E(error²) in the cases 00, 01, 10, 11, over layers and over the inputs of the case."""
    kappa: float
    """The implicit ridge of width d."""


class _Kind(NamedTuple):
    """Inputs of one kind: how many features are active, the case of the pair, and how many others that leaves on."""

    s: int
    case: int
    others: int


def _block(kinds: list[_Kind], n: int, degree: int) -> Float[np.ndarray, "kinds kinds"]:
    """K on harmonics of one degree over subsets of n features, in orthonormal coordinates, a row for each kind.

    By its value at A = {1, 3, …, 2j−1, others} on the harmonic that multiplies [2i−1 ∈ B] − [2i ∈ B] over i = 1..j, whose
    squared norm over subsets of size r is 2^j·C(n − 2j, r − j).
    """
    rest = n - 2 * degree
    matrix = np.zeros((len(kinds), len(kinds)))
    for row, x in enumerate(kinds):
        for column, y in enumerate(kinds):
            shared = sum(a * b for a, b in zip(CASES[x.case], CASES[y.case], strict=True))
            t, r = x.others - degree, y.others - degree
            overlap = np.arange(min(x.others, y.others) + 1.0)
            sizes = np.ones(len(overlap))
            kernel = arc_cosine(x.s * sizes, y.s * sizes, shared + overlap)
            ways = [math.comb(t, o) * math.comb(rest - t, r - o) if 0 <= r - o <= rest - t else 0 for o in range(t + 1)]
            for q in range(degree + 1):
                sign = (-1) ** (degree - q) * math.comb(degree, q)
                matrix[row, column] += sign * sum(float(way) * kernel[q + o] for o, way in enumerate(ways) if way)
            matrix[row, column] *= math.sqrt(math.comb(rest, t) / math.comb(rest, r))
    return (matrix + matrix.T) / 2


def fitted_error(
    gate: Gate,
    m: int,
    s: int,
    d: int,
    case_weights: tuple[float, float, float, float] = (0.25, 0.25, 0.25, 0.25),
    at_most: bool = False,
    offset: bool = True,
) -> FittedError:
    """RMS error of the least-squares readoff of one pair, fitted on all inputs with exactly (or 1 to) s of m active.

    Gaussian layer of width d, no bias, ReLU. Each case carries its weight, spread evenly over its inputs, so (1/4, …) is
    balanced by case; offset: a constant is fitted too. Zero error once d reaches the number of inputs.

    The equivalent treats activations as if Gaussian over neurons. Against simulation (m = 15 to 50, d = 20 to 300) the
    largest of the four was 1 to 7 % low, the smaller ones up to 20 % (worst at s = 2, where 11 is one heavy input).
    Raises InputError for s < 2, m < s + 2, d < 1, or a weight not above 0.
    """
    check_active(s)
    check_features(m, s + 2)
    if d < 1:
        raise InputError(f"a layer has at least one neuron, got d = {d}")
    if min(case_weights) <= 0:
        raise InputError(f"every case needs a weight above 0, got {case_weights}")
    n = m - 2
    # The empty input is left out: no neuron fires on it.
    counts = range(1, s + 1) if at_most else (s,)
    kinds = [_Kind(j, case, j - sum(CASES[case])) for j in counts for case in range(4) if j >= sum(CASES[case])]
    sizes = np.array([float(math.comb(n, kind.others)) for kind in kinds])
    if d >= sizes.sum() - offset:
        return FittedError(0.0, np.zeros(4), 0.0)
    case = np.array([kind.case for kind in kinds])
    share = np.array(case_weights) / sum(case_weights)
    root = np.sqrt(share[case] / np.bincount(case, sizes, 4)[case])
    blocks = []  # (dimensions, which kinds, eigenvalues, eigenvectors) of each degree
    for degree in range(max(kind.others for kind in kinds) + 1):
        here = [i for i, kind in enumerate(kinds) if degree <= kind.others <= n - degree]
        if not here:
            continue
        kernel = root[here, None] * _block([kinds[i] for i in here], n, degree) * root[here]
        if degree == 0 and offset:
            one = root * np.sqrt(sizes)  # every kind has a constant function; a unit vector
            kernel = kernel - np.outer(one, one @ kernel)
            kernel = kernel - np.outer(kernel @ one, one)
        values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
        dimensions = math.comb(n, degree) - (math.comb(n, degree - 1) if degree else 0)
        blocks.append((float(dimensions), here, values.clip(0), vectors))
    constants = root * np.sqrt(sizes)
    target = constants * np.array(gate.truth, dtype=float)[case]
    if offset:
        target = target - constants * (constants @ target)

    def read(log_kappa: float) -> float:
        return sum(count * float((values / (values + math.exp(log_kappa))).sum()) for count, _, values, _ in blocks) - d

    largest = max(float(values.max()) for _, _, values, _ in blocks)
    total = sum(count * float(values.sum()) for count, _, values, _ in blocks)
    kappa = math.exp(brentq(read, math.log(largest) - 80, math.log(total) + 5))
    _, _, values, vectors = blocks[0]
    shrink = kappa / (values + kappa)
    coefficients = vectors.T @ target
    mean_square = float(shrink @ coefficients**2)
    # E[(I−P)Q(I−P)] = κ²RQR + κ²·tr(Q·RKR)/(d − tr(KR)²)·RKR with R = (K + κ)⁻¹; Q keeps the inputs of one case.
    smooth = vectors @ (shrink * coefficients)
    noise = (values * shrink**2) @ coefficients**2 / kappa**2
    spread, used = np.zeros(len(kinds)), 0.0
    for count, here, values, vectors in blocks:
        shrink = kappa / (values + kappa)
        spread[here] += count * (vectors**2 @ (values * shrink**2))
        used += count * float(((1 - shrink) ** 2).sum())
    by_kind = smooth**2 + noise * spread / (d - used)
    return FittedError(mean_square, np.sqrt(np.bincount(case, by_kind, 4) / share), kappa)
