"""Read a layer by class of neuron: one value for each class, fixed by being unbiased, and the error that leaves.

Setting (all of this package): weights iid, exactly s of m boolean features active, a pair (k, l) in one of the four
cases of `toymodels.theory.gates.CASES`, z the preactivation of one neuron, u and v its weights on x_k and x_l. A readoff that
gives every neuron of class q (Gaussian layer: the signs of u and v) the value η_q, scaled by 1/d, has over the draw of
the layer

    mean = Σ_q η_q E[z⁺; q],      d·variance = Σ_q η_q² E[(z⁺)²; q] − mean²

exactly, at any width d, because the d neurons are iid. The η are fixed by "mean = gate" in the four cases.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.theory.gates import CASES, Gate


def check_active(s: int, least: int = 2) -> None:
    """Raise InputError unless at least `least` features are active."""
    if s < least:
        raise InputError(f"this formula needs at least {least} active features, got s = {s}")


def check_case(s: int, case: int) -> None:
    """Raise InputError unless `case` indexes `CASES` and s active features can produce it."""
    if not 0 <= case < 4:
        raise InputError(f"a case is an index 0 to 3 into (00, 01, 10, 11), got {case}")
    if s < sum(CASES[case]):
        raise InputError(f"case {CASES[case]} needs at least {sum(CASES[case])} active features, got s = {s}")


class ClassMoments(NamedTuple):
    """Moments of one neuron's activation, split by the class of its two weights (u, v)."""

    labels: tuple[tuple[float, float], ...]
    """What defines each class: the signs of (u, v), or their values."""
    probability: Float[np.ndarray, " classes"]
    """P(class); sums to 1."""
    first: Float[np.ndarray, "4 classes"]
    """E[z⁺; class] in the four cases."""
    second: Float[np.ndarray, "4 classes"]
    """E[(z⁺)²; class] in the four cases."""


class Readoff(NamedTuple):
    """An unbiased readoff by neuron class and its error."""

    eta: Float[np.ndarray, " classes"]
    """Value of each class; neuron i of class q is read with weight eta[q]/d."""
    sigma: Float[np.ndarray, " 4"]
    """√(d·Var) of the output over the draw of the layer, in the four cases."""


def least_variance(
    first: Float[np.ndarray, "conditions classes"],
    second: Float[np.ndarray, "conditions classes"],
    target: Float[np.ndarray, " conditions"],
    importance: Float[np.ndarray, " conditions"],
) -> Float[np.ndarray, " classes"]:
    """Find the η that minimises Σ_j importance_j Σ_q η_q² second_jq subject to Σ_q η_q first_jq = target_j for every j.

    first, second: E[a; class] and E[a²; class] under each condition j. By Lagrange η_q ∝ Σ_j λ_j first_jq / Σ_j
    importance_j second_jq. Classes that never fire get 0. Raises InputError if no η meets every condition.
    """
    cost = importance @ second
    live = cost > 0
    root = np.sqrt(cost[live])
    eta = np.zeros(len(cost))
    basis, triangle = np.linalg.qr((first[:, live] / root).T)
    eta[live] = basis @ np.linalg.lstsq(triangle.T, target, rcond=1e-13)[0] / root
    if not np.allclose(first @ eta, target, atol=1e-7):
        raise InputError("no readoff by these classes of neurons is unbiased under every condition asked for")
    return eta


def solve_readoff(classes: ClassMoments, gate: Gate) -> Readoff:
    """Find the readoff by class that is exactly unbiased in all four cases, of least summed variance over the cases.

    With four classes it is unique: the analytic readoff (docs/theory.md, section 3). Raises InputError if these classes cannot
    tell the cases apart.
    """
    target = np.array(gate.truth, dtype=float)
    eta = least_variance(classes.first, classes.second, target, np.ones(4))
    variance = classes.second @ eta**2 - target**2
    return Readoff(eta, np.sqrt(variance.clip(0)))
