"""Closed forms for pointwise tasks of real-valued features in fewer neurons than features: y = ReLU(x) + M x.

Setting of all formulas: n features, d neurons; x_i uniform on [−1, 1] with probability p, else 0, independently; M is n × n. A
loss is a mean over inputs and outputs; "per p" divides it by p, so that E x_i² counts 1/3 and E ReLU(x_i)² counts 1/6.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar

from toymodels.errors import InputError, check_kind, check_whole

Matrix = Float[np.ndarray, "n n"]


def check_sizes(n: int, d: int) -> None:
    """Raise InputError unless there are 1 to n neurons for n ≥ 1 features: with more, nothing is compressed."""
    check_whole(1, n=n)
    check_whole(1, n, d=d)


def check_probability(p: float | int) -> None:
    """Raise InputError unless 0 < p ≤ 1."""
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0 < p <= 1:
        raise InputError(f"p = {p!r}: the probability that a feature is active must be a number above 0, 1 at most")


def check_power(q: float | int) -> None:
    """Raise InputError unless 1 ≤ q ≤ 64."""
    if isinstance(q, bool) or not isinstance(q, int | float) or not 1 <= q <= 64:
        raise InputError(f"q = {q!r}: the exponent of the loss must be a number from 1 to 64")


def check_mixing(mixing: np.ndarray | None, n: int) -> np.ndarray:
    """Return M, or zeros for None. Raises InputError unless it is n × n and finite."""
    if mixing is None:
        return np.zeros((n, n))
    check_kind(np.ndarray, "a NumPy array, or None for no mixing", mixing=mixing)
    if mixing.shape != (n, n) or not np.isfinite(mixing).all():
        raise InputError(f"a mixing matrix of shape {mixing.shape}: it must be {n} × {n} and finite")
    return mixing.astype(np.float64)


def rank_error(matrix: Matrix, d: int) -> float:
    """Compute the least squared Frobenius error of a matrix of rank d: Σ_{i>d} s_i² (Eckart & Young 1936)."""
    return float((np.linalg.svd(matrix, compute_uv=False)[d:] ** 2).sum())


def do_nothing(n: int, mixing: Matrix | None = None) -> float:
    """Compute the squared loss per p of the output 0: 1/6 + (‖M‖² + tr M)/(3n)."""
    check_whole(1, n=n)
    M = check_mixing(mixing, n)
    return float(1 / 6 + ((M**2).sum() + np.trace(M)) / (3 * n))


def naive(n: int, d: int, mixing: Matrix | None = None) -> float:
    """Compute the squared loss per p of d features computed exactly and output 0 for the rest.

    (n − d)/(6n) for M = 0; M, which it ignores, adds ‖M‖²/(3n), and Σ_{i>d} M_ii/(3n) for the features that are left out.
    """
    check_sizes(n, d)
    M = check_mixing(mixing, n)
    return float((n - d) / (6 * n) + ((M**2).sum() + np.trace(M[d:, d:])) / (3 * n))


def naive_with_offset(n: int, d: int, p: float | int) -> float:
    """Compute the squared loss per p of d exact features and p/4 = E y for the rest, M = 0: (n−d)/n · (1/6 − p/16)."""
    check_sizes(n, d)
    check_probability(p)
    return (n - d) / n * (1 / 6 - p / 16)


def non_negative(n: int, d: int, mixing: Matrix | None = None) -> float:
    """Compute the least squared loss per p with W_in ≥ 0 and one feature active: (Σ_{i>d} s_i(1 + M)² + ‖M‖²)/(6n).

    An active x > 0 is answered by W_out W_in x, of rank d at most, for (1 + M) x; an active x < 0 by 0, for M x.
    """
    check_sizes(n, d)
    M = check_mixing(mixing, n)
    return (rank_error(np.eye(n) + M, d) + float((M**2).sum())) / (6 * n)


def linear(n: int, d: int, mixing: Matrix | None = None) -> float:
    """Compute the least squared loss per p of a network without activation function: (n/4 + Σ_{i>d} s_i(1/2 + M)²)/(3n).

    ReLU(x) = x/2 + |x|/2, and |x| is not correlated with x.
    """
    check_sizes(n, d)
    return (n / 4 + rank_error(np.eye(n) / 2 + check_mixing(mixing, n), d)) / (3 * n)


def power_of_nothing(p: float | int, q: float | int) -> float:
    """Compute E|y|^q of y = ReLU(x), the loss of the output 0: p/(2(q + 1))."""
    check_probability(p)
    check_power(q)
    return p / (2 * (q + 1))


def power_of_constant(p: float | int, q: float | int) -> tuple[float, float]:
    """Compute (least E|y − c|^q over constants c, that c) of y = ReLU(x).

    E|y − c|^q = (p/2) ((1 − c)^{q+1} + c^{q+1})/(q + 1) + (1 − p/2) c^q for 0 ≤ c ≤ 1; the least one is
    found numerically to 1e-10.
    """
    check_probability(p)
    check_power(q)

    def loss(c: float) -> float:
        return float(p / 2 * ((1 - c) ** (q + 1) + c ** (q + 1)) / (q + 1) + (1 - p / 2) * c**q)

    best = minimize_scalar(loss, bounds=(0, 1), method="bounded", options={"xatol": 1e-10})
    return min((loss(0.0), 0.0), (float(best.fun), float(best.x)))


def single_alpha(n: int, d: int) -> float:
    """Compute the α of the one-hot responses αP (P a projection of rank d) with the least E|e|⁴ for one active x > 0.

    With u = αd/n the loss is (1 − u)⁴ + u⁴ γ²/(n − 1), γ = (n − d)/d, if all responses off the diagonal are equal in size; so
    u = 1/(1 + (γ²/(n − 1))^{1/3}). Source: arXiv:2607.04800, derived again here.
    """
    check_sizes(n, d)
    if n < 2:
        raise InputError("n = 1: a single feature has no interference; take at least 2 features")
    gamma = (n - d) / d
    return float(n / d / (1 + (gamma**2 / (n - 1)) ** (1 / 3)))


def several_active(u: Any, others: float | int, p: float | int) -> Any:
    """Compute the loss E|e|⁴ of an output of a linear response αP with several features active, at u = αd/n.

    e = own + interference: (p/10)((u−1)⁴ + u⁴) + (p²/3) ρ u² ((u−1)² + u²) + (p²/3) ρ² u⁴, in which α² Σ_{j≠i} P_ij² = ρ u².
    The interference counts as Gaussian. A projection of rank d has ρ = n/d − 1; arXiv:2607.04800 writes n/d.
    """
    own = p / 10 * ((u - 1) ** 4 + u**4)
    return own + p**2 * others / 3 * u**2 * ((u - 1) ** 2 + u**2) + p**2 * others**2 / 3 * u**4


def several_alpha(n: int, d: int, p: float | int) -> float:
    """Compute the α that minimises `several_active`, with ρ = n/d − 1: best by its approximation, no bound on that of networks.

    The derivative by u is a cubic; of its real roots the one with the least loss counts.
    """
    check_sizes(n, d)
    check_probability(p)
    r = n / d - 1
    # The loss is a(u−1)⁴ + (a + 2b + c)u⁴ − 2b u³ + b u², with a = p/10, b = p² ρ/3, c = p² ρ²/3.
    a, b, c = p / 10, p**2 * r / 3, p**2 * r**2 / 3
    roots = np.roots([4 * (2 * a + 2 * b + c), -12 * a - 6 * b, 12 * a + 2 * b, -4 * a])
    real = [float(root.real) for root in roots if abs(root.imag) < 1e-9]
    return n / d * min(real, key=lambda u: several_active(u, r, p))
