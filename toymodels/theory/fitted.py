"""What a least-squares readoff of a frozen Gaussian layer errs by at finite width, before drawing any layer.

The readoff fitted on all admissible inputs projects the target onto the span of d random activation vectors. These have
covariance K over the inputs (the arc-cosine kernel), and the projection off their span has the deterministic equivalent
κ(K + κ)⁻¹, with κ > 0 such that tr K(K + κ)⁻¹ = d (Dereziński, Liang, Liao, Mahoney 2020, "Precise expressions for random
projections"; ridgeless random-feature regression). All traces are in the coordinates scaled by the roots of the weights.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import brentq

from toymodels.errors import InputError
from toymodels.gates import Gate
from toymodels.theory.classes import check_active
from toymodels.theory.counts import check_features
from toymodels.theory.kernel import arc_cosine

_MOST_INPUTS = 5000


class FittedError(NamedTuple):
    """Predicted errors of the weighted least-squares readoff."""

    mean_square: float
    """The minimised objective: Σ_case weight·E(error² | case)."""
    rms: Float[np.ndarray, " 4"]
    """√E(error²) in the cases 00, 01, 10, 11, over layers and over the inputs of the case."""
    kappa: float
    """The implicit ridge of width d."""


def labelled_inputs(
    m: int, s: int, at_most: bool
) -> tuple[Float[np.ndarray, "inputs features"], Int[np.ndarray, " inputs"]]:
    """Every admissible input, and the case of the pair (0, 1) on it; the empty input is left out (no neuron fires)."""
    sizes = range(1, s + 1) if at_most else range(s, s + 1)
    if sum(math.comb(m, size) for size in sizes) > _MOST_INPUTS:
        raise InputError(
            f"this prediction enumerates the inputs: at most {_MOST_INPUTS}, and m = {m}, s = {s} has more"
        )
    rows = [on for size in sizes for on in itertools.combinations(range(m), size)]
    x = np.zeros((len(rows), m))
    for row, on in zip(x, rows, strict=True):
        row[list(on)] = 1
    return x, (2 * x[:, 0] + x[:, 1]).astype(int)


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
    Raises InputError for s < 2, m < s + 2, d < 1, a weight not above 0, or more than 5,000 inputs.
    """
    check_active(s)
    check_features(m, s + 2)
    if d < 1:
        raise InputError(f"a layer has at least one neuron, got d = {d}")
    if min(case_weights) <= 0:
        raise InputError(f"every case needs a weight above 0, got {case_weights}")
    x, case = labelled_inputs(m, s, at_most)
    share = np.array(case_weights) / sum(case_weights)
    root = np.sqrt(share[case] / np.bincount(case, minlength=4)[case])
    size = np.broadcast_to(x.sum(axis=1), (len(x), len(x)))
    kernel = root[:, None] * arc_cosine(size.T.copy(), size.copy(), x @ x.T) * root
    target = root * np.array(gate.truth, dtype=float)[case]
    if offset:
        target = target - root * (root @ target)
        kernel = kernel - np.outer(root, root @ kernel)
        kernel = kernel - np.outer(kernel @ root, root)
    if d >= len(x) - offset:
        return FittedError(0.0, np.zeros(4), 0.0)
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    values = values.clip(0)
    log_kappa = brentq(
        lambda t: float((values / (values + math.exp(t))).sum()) - d,
        math.log(values.max()) - 80,
        math.log(values.sum()) + 5,
    )
    kappa = math.exp(log_kappa)
    shrink = kappa / (values + kappa)
    coefficients = vectors.T @ target
    mean_square = float(shrink @ coefficients**2)
    # E[(I−P)Q(I−P)] = κ²RQR + κ²·tr(Q·RKR)/(d − tr(KR)²)·RKR with R = (K + κ)⁻¹; Q keeps the inputs of one case.
    smooth = vectors @ (shrink * coefficients)
    noise = (values * shrink**2) @ coefficients**2 / kappa**2
    spread = vectors**2 @ (values * shrink**2) / (d - ((1 - shrink) ** 2).sum())
    by_input = smooth**2 + noise * spread
    by_case = np.array([by_input[case == index].sum() for index in range(4)]) / share
    return FittedError(mean_square, np.sqrt(by_case), kappa)
