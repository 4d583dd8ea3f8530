"""Measures of how outputs are decoded: pseudo-inverse, rank, leverage, linear readouts."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog

from toymodels.diagnosis.registry import MEASURES, Subject
from toymodels.ground_truth.perturbations import exponent

_BASES = 200
"""Inputs that are moved for the exponent."""
_FEATURES = 6
"""Features for which κ is solved."""


@MEASURES(
    "pinv_cosine", source="arXiv:2607.04800", order=40,
    tells="Near 1 the decoder is a multiple of the pseudo-inverse of W_in.",
    cannot="It does not tell a code from the naive network: both have more than 0.99.",
)  # fmt: skip
def pinv_cosine(subject: Subject) -> float:
    """Compute the cosine of W_out and pinv(W_in), as vectors of all their entries."""
    pinv = np.linalg.pinv(subject.layers.w_in)
    size = np.linalg.norm(pinv) * np.linalg.norm(subject.layers.w_out)
    return float((pinv * subject.layers.w_out).sum() / size) if size > 0 else float("nan")


@MEASURES(
    "rank_saturation", source="arXiv:2607.04800; floor: Eckart & Young 1936", order=41,
    applies=lambda subject: subject.n > subject.d,
    tells="Near 1 the one-hot responses are as near to the identity as their rank allows.",
    cannot="The naive network and every pseudo-inverse decoder have 1: it does not tell a code.",
)  # fmt: skip
def rank_saturation(subject: Subject) -> float:
    """Compute min over s of ‖sR − 1‖²/(n − d), R the responses to single features at 1."""
    R = subject.responses()
    square = float((R**2).sum())
    trace = float(np.trace(R))
    return (subject.n - (trace**2 / square if square > 0 else 0.0)) / (subject.n - subject.d)


def leverages(subject: Subject) -> np.ndarray:
    """Return h_i, the squared length of feature i in the row space of W_in: their sum is its rank."""
    return np.asarray((np.linalg.pinv(subject.layers.w_in) * subject.layers.w_in.T).sum(1))


@MEASURES(
    "leverage_spread", source="Borobia et al., arXiv:2605.01192", order=42, of="both",
    tells="Near 0 all features have the same room (d/n); in a naive network some have all and others none.",
    cannot="A random layer is even, too.",
)  # fmt: skip
def leverage_spread(subject: Subject) -> float:
    """Compute the standard deviation over features of the leverages of W_in's columns."""
    return float(leverages(subject).std())


@MEASURES(
    "kappa", source="Borobia et al., arXiv:2605.01192", order=43, applies=lambda subject: subject.d < subject.n <= 400,
    tells="Responses of other features below it are reached by no linear readout with response 1: a floor for the activations.",
    cannot="It speaks of a few features (6, spread evenly) at amplitude 1, and of readouts of this layer only.",
)  # fmt: skip
def kappa(subject: Subject) -> float:
    """Compute the mean of κ_i: the smallest possible largest response of others to a readout with response 1 at i."""
    activations = np.maximum(subject.layers.w_in.T + subject.layers.b_in, 0)  # one row a feature, alone at 1
    found = [kappa_of(activations, i) for i in np.linspace(0, subject.n - 1, _FEATURES).astype(int)]
    known = [value for value in found if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def kappa_of(activations: np.ndarray, i: int) -> float:
    """Solve min t subject to v·a_i = 1, |v·a_j| ≤ t for j ≠ i, by a linear program; infinite if a_i = 0."""
    others = np.delete(activations, i, 0)
    d = activations.shape[1]
    ones = np.ones((len(others), 1))
    bounds = np.block([[others, -ones], [-others, -ones]])
    equal = np.concatenate([activations[i], [0.0]])[None]
    limits = [(None, None)] * d + [(0, None)]
    solved = linprog(
        np.r_[np.zeros(d), 1.0], bounds, np.zeros(len(bounds)), equal, [1.0], limits, method="highs"
    )  # fmt: skip
    return float(solved.x[-1]) if solved.status == 0 and solved.x is not None else float("inf")


@MEASURES(
    "noise_exponent", source="arXiv:2606.24964", order=44, of="both", applies=lambda subject: subject.n > 1,
    tells="Above 2 small noise on a feature is suppressed by itself (error correction); a linear map has 2.",
    cannot="Features that interfere in the outputs move it off 2 as well, with no correction: a Bernoulli layer is below 2.",
)  # fmt: skip
def noise_exponent(subject: Subject) -> float:
    """Fit p of |a/r_a|^p + |b/r_b|^p = 1, over moves (a, b) of two features by which the outputs move by 1/2.

    From up to 200 inputs, each with two features drawn at random (`ground_truth.perturbations.exponent`).
    """
    rng = np.random.default_rng(subject.seed)
    bases = torch.from_numpy(subject.x[rng.permutation(len(subject.x))[:_BASES]])
    first, second = np.array([rng.permutation(subject.n)[:2] for _ in bases]).T
    eye = torch.eye(subject.n, dtype=torch.float64)
    found = exponent(subject.network, bases, eye[first], eye[second])
    return float("nan") if found is None else found.p
