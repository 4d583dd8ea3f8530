"""Find one readoff that is unbiased for every number of active features at once; docs/theory.md, section 8.4.

A readoff made for s active features and used at s' is biased (AND: its mean on the ones is c_s/c_s', docs/theory.md,
section 3).
But E[z⁺ | u, v] are different functions of (u, v) for different s, so one function η(u, v) can meet the conditions of
every s <= S; biases below 0 make the functions differ more, and make it cheaper. Conditions exist where their case
does: 00 at every s, 01 and 10 from s = 1, 11 from s = 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize, minimize_scalar

from toymodels.errors import InputError
from toymodels.theory.classes import check_active
from toymodels.theory.gates import CASES, Gate
from toymodels.theory.optimal import PopulationReadoff, minimax_to_gate, solve_population
from toymodels.theory.population import Condition, activation_moments, gaussian_population


def conditions_up_to(most: int, least: int = 0) -> tuple[Condition, ...]:
    """List every (s, case) that exists with least <= s <= most active features. most >= 2, 0 <= least <= most."""
    check_active(most)
    if not 0 <= least <= most:
        raise InputError(f"the least number of active features lies between 0 and {most}, got {least}")
    return tuple(Condition(s, case) for s in range(least, most + 1) for case in range(4) if sum(CASES[case]) <= s)


def _split(gate: Gate, most: int, least: int, biases: Sequence[float]) -> tuple[tuple[Condition, ...], float | None]:
    """Return the conditions that bind η, and the output's constant: fixed by the empty input if no neuron fires on it."""
    conditions = conditions_up_to(most, least)
    if not biases:
        raise InputError("a layer needs at least one bias")
    if least == 0 and max(biases) <= 0:
        return conditions[1:], float(gate.truth[0])
    return conditions, None


def varying_readoff(
    gate: Gate, most: int, biases: Sequence[float] = (0.0,), least: int = 0, fineness: int = 12
) -> PopulationReadoff:
    """Find the readoff η(u, v, b) unbiased for every s from `least` to `most` at once, of least worst variance over them.

    biases: each neuron has one of these, equally likely, known to the readoff; in units of the weights' standard
    deviation. A constant may be added to the output (`offset`); the empty input fixes it to gate(0, 0). The condition
    at s = 0 is then met exactly and not listed. Raises InputError for most < 2 or least outside 0..most.
    """
    conditions, offset = _split(gate, most, least, biases)
    return solve_population(gate, conditions, biases, offset, fineness)


class ClassReadoff(NamedTuple):
    """A readoff with one value for each sign quadrant and bias, unbiased under every condition."""

    eta: Float[np.ndarray, "biases 4"]
    """Value of neurons with this bias, in this of the `quadrants.QUADRANTS`; the output is Σ η·a/d + offset."""
    offset: float
    conditions: tuple[Condition, ...]
    sigma: Float[np.ndarray, " conditions"]
    """√(d·Var) of the output under each condition."""


def varying_class_readoff(gate: Gate, most: int, biases: Sequence[float], least: int = 0) -> ClassReadoff:
    """Find the same for readoffs that see only the signs of (u, v) and the bias.

    Raises InputError where so few values cannot be unbiased under every condition: they number four for each bias,
    the conditions 4·most − 2 from s = 1 on (docs/theory.md, section 3).
    """
    conditions, offset = _split(gate, most, least, biases)
    if len(set(biases)) != len(biases):
        raise InputError(f"the biases of a class readoff are distinct, got {tuple(biases)}")
    nodes = gaussian_population(biases)
    where = np.searchsorted(np.sort(biases), nodes.b)
    label = 4 * where + 2 * (nodes.u > 0) + (nodes.v > 0)
    moments = [activation_moments(nodes.u, nodes.v, nodes.b, condition) for condition in conditions]
    count = 4 * len(biases)
    first = np.array([np.bincount(label, nodes.mass * moment[0], count) for moment in moments])
    second = np.array([np.bincount(label, nodes.mass * moment[1], count) for moment in moments])
    found = minimax_to_gate(gate, conditions, first, second, offset)
    eta = found.eta.reshape(-1, 4)[np.argsort(np.argsort(biases))]
    return ClassReadoff(eta, found.offset, conditions, np.sqrt(found.variance.clip(0)))


def tune_biases(gate: Gate, most: int, count: int = 1, least: int = 0) -> tuple[float, ...]:
    """Find the biases (at most 0, `count` of them, equally frequent) for which `varying_readoff` has the least worst σ.

    A local search from evenly spread biases, to about 0.01: bounded scalar search for one, Nelder–Mead for more
    (seconds to a minute). Raises InputError for count < 1 or as `varying_readoff`.
    """
    if count < 1:
        raise InputError(f"the number of biases is at least 1, got {count}")
    conditions_up_to(most, least)

    def worst(biases: Float[np.ndarray, " count"]) -> float:
        return varying_readoff(gate, most, tuple(-abs(float(bias)) for bias in biases), least, fineness=8).worst

    if count == 1:
        single = minimize_scalar(
            lambda bias: worst(np.array([bias])), bounds=(-4.0, 0.0), method="bounded", options={"xatol": 0.01}
        )
        return (float(single.x),)
    start = -np.linspace(0.5, most / 2, count)
    many = minimize(worst, start, method="Nelder-Mead", options={"xatol": 0.01, "fatol": 1e-3, "maxfev": 150})
    return tuple(sorted((-abs(float(bias)) for bias in many.x), reverse=True))
