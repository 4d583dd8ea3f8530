"""Integrate over a Gaussian layer's population of neurons: over the weights (u, v) on one pair, and the bias.

A readoff r_i = η(w_ki, w_li, b_i)/d for any function η is unbiased, and has a variance of order 1/d, as integrals over
this population say; a function η is then a vector of values at quadrature nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import LinearConstraint, minimize
from scipy.special import ndtr

from toymodels.errors import InputError
from toymodels.theory.classes import check_case, least_variance
from toymodels.theory.gates import CASES

_REACH = 9.0  # radius beyond which the weight density is below 1e-17


class Condition(NamedTuple):
    """One kind of input: how many features are active, and the pair's case."""

    s: int
    case: int

    @property
    def others(self) -> int:
        """How many features are active beside the pair's."""
        return self.s - sum(CASES[self.case])


class Population(NamedTuple):
    """Quadrature nodes over (u, v, b): the sum of mass·g(u, v, b) is E[g]."""

    u: Float[np.ndarray, " nodes"]
    v: Float[np.ndarray, " nodes"]
    b: Float[np.ndarray, " nodes"]
    mass: Float[np.ndarray, " nodes"]


def gaussian_population(biases: Sequence[float] = (0.0,), fineness: int = 12) -> Population:
    """Return at most 30·fineness² nodes a bias for u, v iid N(0, 1), each bias equally likely, by Gauss–Legendre on panels.

    Panels end on u = 0 and v = 0 (the quadrants) and on the kinks of ReLU moments, u = −b, v = −b and u + v = −b, so that
    integrals of those are exact to about 1e-9 (fineness 8: 1e-5). Raises InputError without a bias or for fineness < 2.
    """
    if not biases or fineness < 2:
        raise InputError("a population needs at least one bias and a fineness of 2 or more")
    x, w = np.polynomial.legendre.leggauss(fineness)
    parts = []
    for b in biases:
        lines = np.sort(np.clip([-_REACH, -_REACH / 2, 0, -b, _REACH / 2, _REACH], -_REACH, _REACH))
        wide = np.diff(lines)
        v = (lines[:-1, None] + wide[:, None] * (x + 1) / 2).ravel()
        v_mass = (wide[:, None] * w / 2).ravel() * np.exp(-(v**2) / 2)
        cuts = np.sort(np.column_stack([np.tile(lines, (len(v), 1)), np.clip(-b - v, -_REACH, _REACH)]), axis=1)
        wide = np.diff(cuts, axis=1)
        u = cuts[:, :-1, None] + wide[:, :, None] * (x + 1) / 2
        mass = wide[:, :, None] * w / 2 * np.exp(-(u**2) / 2) * v_mass[:, None, None] / (2 * math.pi * len(biases))
        keep = mass > 1e-18
        parts.append((u[keep], np.broadcast_to(v[:, None, None], u.shape)[keep], np.full(keep.sum(), b), mass[keep]))
    return Population(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def activation_moments(
    u: Float[np.ndarray, " n"], v: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"], condition: Condition
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return (E[a | u, v, b], E[a² | u, v, b]) of a ReLU neuron with Gaussian weights under one condition.

    The preactivation is N(μ, τ²), μ = x_k·u + x_l·v + b, τ² = s − x_k − x_l (the other active features), so the moments
    are μΦ(μ/τ) + τφ(μ/τ) and (μ² + τ²)Φ(μ/τ) + μτφ(μ/τ). Raises InputError if s cannot produce the case.
    """
    check_case(condition.s, condition.case)
    x_k, x_l = CASES[condition.case]
    mean = x_k * u + x_l * v + b
    variance = condition.s - x_k - x_l
    if variance == 0:
        return mean.clip(0), mean.clip(0) ** 2
    tau = math.sqrt(variance)
    below = ndtr(mean / tau)
    density = np.exp(-((mean / tau) ** 2) / 2) / math.sqrt(2 * math.pi)
    return mean * below + tau * density, (mean**2 + variance) * below + mean * tau * density


class Minimax(NamedTuple):
    """A readoff of least worst variance, with the proof of how near it is to the least."""

    eta: Float[np.ndarray, " classes"]
    offset: float
    """Constant added to the output; 0 unless it was free."""
    importance: Float[np.ndarray, " conditions"]
    """The weighting of the conditions against which this is the least-variance readoff; sums to 1."""
    variance: Float[np.ndarray, " conditions"]
    """d·Var of the output under each condition."""
    worst: float
    """The largest variance."""
    bound: float
    """No unbiased readoff has a smaller worst value than this (weak duality)."""


def minimax_variance(
    first: Float[np.ndarray, "conditions classes"],
    second: Float[np.ndarray, "conditions classes"],
    target: Float[np.ndarray, " conditions"],
    offset: bool = False,
) -> Minimax:
    """Find the unbiased readoff whose largest variance over the conditions is smallest.

    min over η of max_j equals max over weightings π of min over η of Σ_j π_j·variance_j (the variance is convex
    in η, linear in π); each inner minimum is `least_variance`, and a lower bound whatever π is. offset = True lets a
    constant be added to the output, which costs no variance: the inner minimum is then a quadratic in it (where no η
    outputs the constant 1 under every condition, the constant can only be 0). Raises InputError if no η is unbiased.
    """
    found: list[Minimax] = []
    ones = np.ones_like(target)
    free = offset
    if offset:
        try:
            least_variance(first, second, ones, ones)
        except InputError:
            free = False

    def dual(pi: Float[np.ndarray, " conditions"]) -> tuple[float, Float[np.ndarray, " conditions"]]:
        pi = pi.clip(1e-12)
        pi = pi / pi.sum()
        cost = pi @ second
        eta = least_variance(first, second, target, pi)
        constant = 0.0
        if free:
            one = least_variance(first, second, ones, pi)
            constant = float((cost @ (eta * one) - pi @ target) / (cost @ one**2 - pi.sum()))
            eta = eta - constant * one
        variance = second @ eta**2 - (target - constant) ** 2
        found.append(Minimax(eta, constant, pi, variance, float(variance.max()), float(pi @ variance)))
        return -found[-1].bound, -variance

    start, bounds = np.full(len(target), 1 / len(target)), [(0.0, 1.0)] * len(target)
    simplex = LinearConstraint(np.ones((1, len(target))), 1, 1)
    options: Any = {"maxiter": 100, "ftol": 1e-12}
    minimize(dual, start, jac=True, method="SLSQP", bounds=bounds, constraints=simplex, options=options)
    best = min(found, key=lambda result: result.worst)
    return best._replace(bound=max(result.bound for result in found))
