"""Fit readoffs in the infinite-width limit: regression with the arc-cosine kernel.

A readoff r_i = η(w_i)/d of a Gaussian ReLU layer tends to E[η(w)·ReLU(w·x)] as d grows. The η that fits a gate exactly
on all admissible inputs with least E[η²] is η(w) = Σ_x α_x ReLU(w·x) with K α = f, and E[η²] = fᵀK⁻¹f: the squared norm
of the gate in the kernel's space. The error of that readoff at width d has variance at most E[η²·a(x)²]/d.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.theory.classes import check_active
from toymodels.theory.counts import check_features
from toymodels.theory.gates import CASES, Gate
from toymodels.theory.population import Condition, activation_moments, gaussian_population
from toymodels.theory.varying import conditions_up_to


def arc_cosine(
    size_x: Float[np.ndarray, "*shape"], size_y: Float[np.ndarray, "*shape"], dot: Float[np.ndarray, "*shape"]
) -> Float[np.ndarray, "*shape"]:
    """Return E[ReLU(w·x) ReLU(w·y)], w ~ N(0, I), from |x|², |y|² and x·y: |x||y|(sin θ + (π − θ)cos θ)/2π (Cho & Saul 2009).

    For boolean inputs the three are the numbers of active features of x, of y, and of both. 0 where x or y is 0.
    """
    scale = np.sqrt(size_x * size_y)
    cosine = np.divide(dot, scale, out=np.zeros_like(scale), where=scale > 0).clip(-1, 1)
    theta = np.arccos(cosine)
    return scale * (np.sin(theta) + (math.pi - theta) * cosine) / (2 * math.pi)


def kernel_of_kinds(x: Condition, y: Condition, overlap: np.ndarray) -> Float[np.ndarray, " overlaps"]:
    """Return K of two inputs of these kinds that share so many of the other features."""
    shared = sum(a * b for a, b in zip(CASES[x.case], CASES[y.case], strict=True))
    ones = np.ones(len(overlap))
    return arc_cosine(x.s * ones, y.s * ones, (shared + overlap).astype(float))


def _orbit_mean(m: int, x: Condition, y: Condition) -> float:
    """Return the mean of K over inputs of these two kinds: their overlap among the other m − 2 features is hypergeometric."""
    t, r = x.others, y.others
    overlap = np.arange(max(0, t + r - (m - 2)), min(t, r) + 1)
    ways = np.array([math.comb(t, j) * math.comb(m - 2 - t, r - j) / math.comb(m - 2, r) for j in overlap.tolist()])
    return float(ways @ kernel_of_kinds(x, y, overlap))


@dataclass(frozen=True)
class KernelFit:
    """The least-norm exact fit of one pair's gate in the infinite-width limit."""

    norm: float
    """√E[η²] = √(fᵀK⁻¹f)."""
    offset: float
    """Constant of the output."""
    conditions: tuple[Condition, ...]
    """The kinds of input; each is one orbit of the permutations of the other features."""
    weights: Float[np.ndarray, " conditions"]
    """η(w) = Σ_j weights_j · (mean of ReLU(w·x) over the inputs x of kind j)."""
    biases: tuple[float, ...] = (0.0,)
    """The layer has none."""

    def eta(
        self, u: Float[np.ndarray, "*shape"], v: Float[np.ndarray, "*shape"], b: Float[np.ndarray, "*shape"]
    ) -> Float[np.ndarray, "*shape"]:
        """Return η at the weights of given neurons, for m → ∞ (a fit made with m = None): it sees the pair's weights only."""
        total = np.zeros(u.size)
        for weight, condition in zip(self.weights, self.conditions, strict=True):
            total += weight * activation_moments(u.ravel(), v.ravel(), b.ravel(), condition)[0]
        return total.reshape(u.shape)

    @functools.cached_property
    def sigma(self) -> Float[np.ndarray, " conditions"]:
        """√(d·Var) of the output under each condition, for m → ∞; the error's mean is 0.

        Least norm is nearly, not exactly, least variance, which is `optimal.optimal_readoff`.
        """
        nodes = gaussian_population()
        moments = [activation_moments(nodes.u, nodes.v, nodes.b, condition) for condition in self.conditions]
        eta = self.weights @ np.array([first for first, _ in moments])
        mean = np.array([(nodes.mass * eta) @ first for first, _ in moments])
        second = np.array([(nodes.mass * eta**2) @ square for _, square in moments])
        return np.sqrt((second - mean**2).clip(0))


def kernel_fit(gate: Gate, m: int | None, s: int, at_most: bool = False, offset: bool = True) -> KernelFit:
    """Fit the gate of one pair exactly on every input with exactly (at_most: at most) s of m active features.

    The kernel and the target are invariant under permuting the other m − 2 features, so α is constant on orbits and
    the problem shrinks to the orbit-averaged kernel, one row for each (number active, case). m = None: the limit of
    many features, where averaging over the others leaves E[z⁺ | u, v] and the readoff sees only the pair's weights.
    offset: a constant may be added, at no cost in norm; where the empty input is admitted it is gate(0, 0), and without
    offset that must be 0. Raises InputError for s < 2, or m < s + 2 (all four cases must occur).
    """
    check_active(s)
    if m is not None:
        check_features(m, s + 2)
    if at_most and gate.truth[0] and not offset:
        raise InputError(f"{gate.name} is 1 on the empty input, where no neuron fires: it needs an offset")
    kinds = conditions_up_to(s)[1:] if at_most else tuple(Condition(s, case) for case in range(4))
    if m is None:
        nodes = gaussian_population()
        means = np.array([activation_moments(nodes.u, nodes.v, nodes.b, kind)[0] for kind in kinds])
        if at_most:  # 00 at different s: E[z⁺ | u, v] are multiples of one constant, and one condition
            keep = [j for j, kind in enumerate(kinds) if kind.case or kind.s == s]
            kinds, means = tuple(kinds[j] for j in keep), means[keep]
        gram = (means * nodes.mass) @ means.T
    else:
        gram = np.array([[_orbit_mean(m, x, y) for y in kinds] for x in kinds])
    target = np.array([gate.truth[kind.case] for kind in kinds], dtype=float)
    one = np.ones(len(kinds))
    by_target, by_one = np.linalg.solve(gram, np.stack([target, one], axis=1)).T
    constant = 0.0
    if offset:
        constant = float(gate.truth[0]) if at_most else float((one @ by_target) / (one @ by_one))
    weights = by_target - constant * by_one
    return KernelFit(math.sqrt(max(float((target - constant) @ weights), 0.0)), constant, kinds, weights)
