"""Find the best readoff that any function of a pair's own weights can give; docs/theory.md, section 8.3.

Among all readoffs r_i = η(w_ki, w_li, b_i)/d that are unbiased in every case, find the η of least worst variance: a
least-squares problem in function space. Its solution is η = Σ_j λ_j M_j / Σ_j π_j V_j, with M_j and V_j the conditional
moments of `population.activation_moments` and as many multipliers λ as conditions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.theory.classes import check_active
from toymodels.theory.gates import Gate
from toymodels.theory.population import Condition, Minimax, activation_moments, gaussian_population, minimax_variance


@dataclass(frozen=True)
class PopulationReadoff:
    """A readoff η(u, v, b) of a Gaussian layer that is unbiased under every one of its conditions."""

    gate: Gate
    conditions: tuple[Condition, ...]
    biases: tuple[float, ...]
    """Each neuron has one of these biases, equally likely; in units of the weights' standard deviation."""
    solution: Minimax
    multipliers: Float[np.ndarray, " conditions"]

    @property
    def sigma(self) -> Float[np.ndarray, " conditions"]:
        """√(d·Var) of the output under each condition; the error's mean is 0."""
        return np.sqrt(self.solution.variance.clip(0))

    @property
    def worst(self) -> float:
        """The largest σ over the conditions."""
        return float(self.sigma.max())

    @property
    def offset(self) -> float:
        """Constant to add to the output."""
        return self.solution.offset

    def eta(
        self, u: Float[np.ndarray, "*shape"], v: Float[np.ndarray, "*shape"], b: Float[np.ndarray, "*shape"]
    ) -> Float[np.ndarray, "*shape"]:
        """Return η at the weights of given neurons; the output is η·a/d + offset."""
        top, bottom = np.zeros(u.size), np.zeros(u.size)
        weights = self.solution.importance
        for condition, multiplier, weight in zip(self.conditions, self.multipliers, weights, strict=True):
            first, second = activation_moments(u.ravel(), v.ravel(), b.ravel(), condition)
            top += multiplier * first
            bottom += weight * second
        return np.divide(top, bottom, out=np.zeros(u.size), where=bottom > 0).reshape(u.shape)


def minimax_to_gate(
    gate: Gate,
    conditions: Sequence[Condition],
    first: Float[np.ndarray, "conditions classes"],
    second: Float[np.ndarray, "conditions classes"],
    offset: float | None,
) -> Minimax:
    """Call `minimax_variance` with the gate's values as targets; offset: the output's constant, or None to leave it free."""
    base = float(gate.truth[0]) if offset is None else float(offset)  # a free constant is sought around gate(0, 0)
    target = np.array([gate.truth[condition.case] - base for condition in conditions])
    solution = minimax_variance(first, second, target, offset=offset is None)
    return solution._replace(offset=solution.offset + base)


def solve_population(
    gate: Gate, conditions: Sequence[Condition], biases: Sequence[float], offset: float | None, fineness: int = 12
) -> PopulationReadoff:
    """Find the unbiased η of least worst variance over the conditions.

    offset: the constant added to the output, or None to leave it free. Raises InputError if no η is unbiased.
    """
    nodes = gaussian_population(biases, fineness)
    moments = [activation_moments(nodes.u, nodes.v, nodes.b, condition) for condition in conditions]
    first = np.array([moment[0] for moment in moments]) * nodes.mass
    second = np.array([moment[1] for moment in moments]) * nodes.mass
    solution = minimax_to_gate(gate, conditions, first, second, offset)
    root = np.sqrt(solution.importance @ second)
    live = root > 0
    multipliers = np.linalg.lstsq((first[:, live] / root[live]).T, (solution.eta * root)[live], rcond=1e-13)[0]
    return PopulationReadoff(gate, tuple(conditions), tuple(biases), solution, multipliers)


def optimal_readoff(
    gate: Gate, s: int, biases: Sequence[float] = (0.0,), offset: float | None = 0.0
) -> PopulationReadoff:
    """Find the unbiased readoff of least worst-case variance at exactly s >= 2 active features, cases 00, 01, 10, 11.

    As d grows no unbiased function of (w_k, w_l, b) has a worst RMS error below `worst`/√d; `solution.bound` certifies
    it by duality. biases other than 0 describe another layer. Raises InputError for s < 2.
    """
    check_active(s)
    if not biases:
        raise InputError("a layer needs at least one bias")
    return solve_population(gate, [Condition(s, case) for case in range(4)], biases, offset)


def optimal_limit(gate: Gate) -> float:
    """Return lim σ/s of the optimal readoff as s grows, for a gate with interaction δ: |δ|·√π = 1.7725·|δ|.

    Derivation: to leading order z⁺ has E[z⁺ | u, v] = √(s/2π) + (x_k u + x_l v)/2 + (x_k u + x_l v)²/(2√(2πs)) and
    E[(z⁺)²] = s/2 in every case, so only the part of η along the unit-norm function uv reads x_k x_l, with strength
    1/√(2πs): η = δ√(2πs)·uv, σ² = (s/2)·2πs·δ². The signs give (π/2)·√π instead: they correlate 2/π with uv.
    """
    return abs(gate.coefficients[3]) * math.sqrt(math.pi)
