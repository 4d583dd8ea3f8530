"""A Gaussian layer seen as a population of neurons: integrals over the weights (u, v) on one pair, and the bias.

A readoff r_i = η(w_ki, w_li, b_i)/d for any function η is unbiased, and has a variance of order 1/d, as integrals over
this population say; a function η is then a vector of values at quadrature nodes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import LinearConstraint, minimize
from scipy.special import ndtr

from toymodels.errors import InputError
from toymodels.gates import CASES
from toymodels.theory.classes import check_case, least_variance

_REACH = 9.0  # radius beyond which the weight density is below 1e-17


class Condition(NamedTuple):
    """One kind of input: how many features are active, and the pair's case."""

    s: int
    case: int


class Population(NamedTuple):
    """Quadrature nodes over (u, v, b): the sum of mass·g(u, v, b) is E[g]."""

    u: Float[np.ndarray, " nodes"]
    v: Float[np.ndarray, " nodes"]
    b: Float[np.ndarray, " nodes"]
    mass: Float[np.ndarray, " nodes"]


def gaussian_population(biases: Sequence[float] = (0.0,), fineness: int = 12) -> Population:
    """u, v iid N(0, 1) and each bias equally likely, by Gauss–Legendre in polar coordinates.

    Panels end on u = 0, v = 0 and u = ±v, where ReLU moments of an unbiased neuron have kinks; there the integrals are
    exact to about 1e-12. With biases the kinks lie elsewhere at s <= 2 and the error is about 1e-5
    (take fineness 24 for less). 24·fineness² nodes for each bias.
    """
    if not biases or fineness < 2:
        raise InputError("a population needs at least one bias and a fineness of 2 or more")
    x, w = np.polynomial.legendre.leggauss(fineness)
    turn = (np.arange(8)[:, None] + (x + 1) / 2).ravel() * math.pi / 4
    turn_mass = np.tile(w / 2, 8) / 8
    radius = (np.arange(3)[:, None] + (x + 1) / 2).ravel() * _REACH / 3
    radius_mass = np.tile(w / 2, 3) * _REACH / 3 * radius * np.exp(-(radius**2) / 2)
    u = np.multiply.outer(np.cos(turn), radius).ravel()
    v = np.multiply.outer(np.sin(turn), radius).ravel()
    mass = np.multiply.outer(turn_mass, radius_mass).ravel()
    count = len(biases)
    b = np.repeat(np.array(biases, dtype=float), len(u))
    return Population(np.tile(u, count), np.tile(v, count), b, np.tile(mass / count, count))


def activation_moments(
    u: Float[np.ndarray, " n"], v: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"], condition: Condition
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """(E[a | u, v, b], E[a² | u, v, b]) of a ReLU neuron with Gaussian weights under one condition.

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
    """max_j variance_j/scale_j."""
    bound: float
    """No unbiased readoff has a smaller worst value than this (weak duality)."""


def minimax_variance(
    first: Float[np.ndarray, "conditions classes"],
    second: Float[np.ndarray, "conditions classes"],
    target: Float[np.ndarray, " conditions"],
    scale: Float[np.ndarray, " conditions"],
    offset: bool = False,
) -> Minimax:
    """The unbiased readoff whose largest variance over the conditions, each in units of its `scale`, is smallest.

    min over η of max_j equals max over weightings π of min over η of Σ_j π_j·variance_j/scale_j (the variance is convex
    in η, linear in π); each inner minimum is `least_variance`, and a lower bound whatever π is. offset = True lets a
    constant be added to the output, which costs no variance: the inner minimum is then a quadratic in it.
    """
    found: list[Minimax] = []

    def dual(pi: Float[np.ndarray, " conditions"]) -> tuple[float, Float[np.ndarray, " conditions"]]:
        pi = pi.clip(1e-12)
        pi = pi / pi.sum()
        weight = pi / scale
        cost = weight @ second
        eta = least_variance(first, second, target, weight)
        constant = 0.0
        if offset:
            one = least_variance(first, second, np.ones_like(target), weight)
            constant = float((cost @ (eta * one) - weight @ target) / (cost @ one**2 - weight.sum()))
            eta = eta - constant * one
        variance = second @ eta**2 - (target - constant) ** 2
        relative = variance / scale
        found.append(Minimax(eta, constant, pi, variance, float(relative.max()), float(pi @ relative)))
        return -found[-1].bound, -relative

    start = np.full(len(target), 1 / len(target))
    bounds = [(0.0, 1.0)] * len(target)
    simplex = LinearConstraint(np.ones((1, len(target))), 1, 1)
    minimize(
        dual,
        start,
        jac=True,
        method="SLSQP",
        bounds=bounds,
        constraints=simplex,
        options={"maxiter": 100, "ftol": 1e-12},
    )
    best = min(found, key=lambda result: result.worst)
    return best._replace(bound=max(result.bound for result in found))
