"""Find the best two-valued weights (the dense four-class layer of arXiv:2507.09816), and the best weights for the sign readoff.

Neurons fall in four classes by their two weights on a pair: A (both large), B1, B2 (one), C (none); U-AND is read as
A − B1 − B2 + C, up to a coefficient each. Let W be u with probability q, else v < u, with a common bias b. On exactly s
active features, j of them with the weight u, the preactivation is

    j·u + (s − j)·v + b = (u − v)(j − θ),      θ = −(s·v + b)/(u − v),

so such a layer is the {0, 1} layer with bias −θ, up to the scale u − v that any readoff takes back: of u, v, q and b only
q and θ count (derived here). Every two-valued layer on exactly s active, the Bernoulli one (θ = 1), the Rademacher one
(q = 1/2, θ = s/2) and every choice of bias, is a point of the strip 0 < q < 1, θ < s; for θ ≤ 0 it is linear and computes
no gate with an interaction. A bias therefore buys nothing that another ratio of the two values does not; where the number
of active features varies, it does.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize, minimize_scalar
from scipy.special import ndtr

from toymodels.errors import InputError, check_whole
from toymodels.theory.classes import ClassMoments, Readoff, check_active, solve_readoff
from toymodels.theory.counts import binomial
from toymodels.theory.distributions import WeightDistribution, finite_classes
from toymodels.theory.gates import CASES, Gate

_LABELS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0))


def _check_active(s: int) -> None:
    check_whole(s=s)
    check_active(s)


def _check(s: int, q: float, threshold: float) -> None:
    _check_active(s)
    if not 0 < q < 1:
        raise InputError(f"the probability of the larger weight lies strictly between 0 and 1, got q = {q}")
    if not 0 <= threshold < s:
        raise InputError(f"the threshold lies from 0 to below s = {s}, or no neuron computes anything; got {threshold}")


def threshold_classes(s: int, q: float, threshold: float) -> ClassMoments:
    """Compute the class moments of the activation (j − θ)⁺, j of s active features with the larger weight (probability q each).

    Classes C, B2, B1, A: whether each weight of the pair is the larger one, 0 or 1. Raises InputError for s < 2, or q
    outside (0, 1), or θ outside [0, s).
    """
    _check(s, q, threshold)
    large = np.array(_LABELS)
    probability = np.prod(np.where(large == 1, q, 1 - q), axis=1)
    first, second = np.zeros((4, 4)), np.zeros((4, 4))
    for case, on in enumerate(CASES):
        n = s - sum(on)
        others = np.arange(n + 1)
        active = np.maximum(large @ np.array(on)[:, None] + others - threshold, 0)
        mass = binomial(n, q)
        first[case], second[case] = probability * (active @ mass), probability * (active**2 @ mass)
    return ClassMoments(_LABELS, probability, first, second)


def two_valued_weights(
    s: int, q: float, threshold: float, high: float | int = 1.0, low: float | int | None = None
) -> WeightDistribution:
    """Describe weights `low` and `high` (probability q) with the bias that puts the threshold at θ for exactly s active features.

    low None: −l with l = θ/(s − θ)·high, the value that needs no bias. b = −s·low − (high − low)·θ. Raises InputError
    as `threshold_classes` does, and unless low < high.
    """
    _check(s, q, threshold)
    below = -threshold / (s - threshold) * high if low is None else float(low)
    if not below < high:
        raise InputError(f"the smaller weight must be below the larger, got {below:g} and {high:g}")
    bias = 0.0 if low is None else -s * below - (high - below) * threshold
    return WeightDistribution((below, float(high)), (1 - q, q), bias)


class TwoValuedFit(NamedTuple):
    """The two-valued weights of least worst σ, and their readoff."""

    weights: WeightDistribution
    """Values −l and 1, no bias: see `two_valued_weights` for the same layer with other values and a bias."""
    q: float
    """Probability of the larger weight."""
    threshold: float
    """θ: of s active features, how many with the larger weight a neuron needs to fire. Where an interval of θ is as good
    (all of [s − 1, s) is, for the activation is 1{j = s} up to scale), its lower end."""
    readoff: Readoff
    """η of the classes (by value, in the order of `finite_classes`) and σ in the four cases."""

    @property
    def worst(self) -> float:
        """The largest σ over the cases: errors have standard deviation σ/√d and mean 0."""
        return float(self.readoff.sigma.max())


def fit(s: int, gate: Gate | str = "and", probabilities: int = 25, steps: int = 8) -> TwoValuedFit:
    """Find the two-valued weights whose unbiased readoff by class has the least worst σ at exactly s >= 2 active features.

    Between integers σ is smooth in θ, so each interval [i, i + 1) is searched for itself: a grid of `probabilities` values
    of q by `steps` of θ, then the Nelder-Mead method from the two best of it. No random numbers. For AND and s <= 4 it is
    q = 1/2 with θ = s − 1, σ = 2^{s/2}: η = ±2^s on the neurons that fire, all of whose weights on active features are the
    larger (derived here); from s = 5 on lower thresholds are better. Raises InputError for s < 2, an unknown gate, fewer than
    two probabilities or one step, or a number of those that is not whole.
    """
    _check_active(s)
    check_whole(probabilities=probabilities, steps=steps)
    if probabilities < 2 or steps < 1:
        raise InputError(f"the grid needs 2 values of q and 1 of θ at least, got {probabilities} and {steps}")
    parsed = Gate.parse(gate) if isinstance(gate, str) else gate

    def error(q: float, threshold: float) -> float:
        try:
            return float(solve_readoff(threshold_classes(s, q, threshold), parsed).sigma.max())
        except InputError:  # outside the strip, or the classes cannot tell the cases apart
            return math.inf

    best = (math.inf, 0.0, 0.0)
    for cell in range(s):
        grid = [
            (round(error(q, theta), 9), theta, q)  # rounded, so that the lowest of equal thresholds comes first
            for theta in np.linspace(cell, cell + 1, steps, endpoint=False).tolist()
            for q in np.linspace(0.02, 0.98, probabilities).tolist()
        ]
        for value, theta, q in sorted(grid)[:2]:
            if not math.isfinite(value):
                continue
            toward = 0.02 if q <= 0.5 else -0.02
            simplex = [[q, theta], [q + toward, theta], [q, theta + 0.5 / steps]]
            options: Any = {"xatol": 1e-8, "fatol": 1e-11, "initial_simplex": simplex}

            def inside(x: Float[np.ndarray, " 2"], low: int = cell) -> float:
                return error(float(x[0]), float(np.clip(x[1], low, low + 1)))

            found = minimize(inside, np.array([q, theta]), method="Nelder-Mead", options=options)
            polished = (float(found.fun), float(np.clip(found.x[1], cell, cell + 1)), float(found.x[0]))
            for candidate in ((error(q, theta), theta, q), polished):
                if candidate[0] < best[0] * (1 - 1e-9):
                    best = candidate
    if not math.isfinite(best[0]):
        raise InputError(f"no two-valued layer computes the gate {parsed.name} at s = {s}")
    worst, threshold, q = best
    for digits in (1, 3, 6):  # the shortest numbers that are as good
        if error(round(q, digits), round(threshold, digits)) <= worst * (1 + 1e-8):
            q, threshold = round(q, digits), round(threshold, digits)
            break
    weights = two_valued_weights(s, q, threshold)
    return TwoValuedFit(weights, q, threshold, solve_readoff(finite_classes(weights, s), parsed))


class Limit(NamedTuple):
    """The limit of two-valued layers as s grows."""

    bias: float
    """Bias of the preactivation in units of its standard deviation."""
    constant: float
    """lim σ/s of U-AND."""


def and_limit(bias: float | int | None = None) -> Limit:
    """Return lim σ/s of U-AND for two-valued weights of mean 0 and a bias β·√s·std(W); None: the best β, about −1.16.

    As s grows z/√s → N(β, 1), and standardised weights ũ, ṽ of a pair are read as c·ũ·ṽ with 1/c = E[δ(z)] = φ(β)/√s (the
    second derivative of ReLU), so σ/s → √E[((Z + β)⁺)²]/φ(β) (derived here). β = 0: √π = 1.7725, the Rademacher layer, and
    what the optimal readoff of a Gaussian layer has (`optimal.optimal_limit`); the signs of a Gaussian layer (π/2)√π.
    Raises InputError unless |β| ≤ 37: beyond, φ(β) is too small for a float.
    """

    if bias is not None and not abs(bias) <= 37:
        raise InputError(
            f"the bias lies from -37 to 37 standard deviations, or neurons (almost) never fire; got {bias:g}"
        )

    def constant(beta: float) -> float:
        density = math.exp(-(beta**2) / 2) / math.sqrt(2 * math.pi)
        return math.sqrt((1 + beta**2) * float(ndtr(beta)) + beta * density) / density

    beta = float(minimize_scalar(constant, bounds=(-3, 0), method="bounded").x) if bias is None else float(bias)
    return Limit(beta, constant(beta))


class SignReadoff(NamedTuple):
    """The readoff c·sign(w_k)·sign(w_l)/d of U-AND and its error."""

    c: float
    sigma: Float[np.ndarray, " 4"]
    """√(d·Var) of the output over the draw of the layer, in the four cases; it is unbiased."""


def sign_readoff(weights: WeightDistribution, s: int) -> SignReadoff:
    """Compute c and σ of the sign readoff of U-AND on symmetric weights with any common bias, exactly s >= 2 active.

    Unbiased: in the cases 00, 01, 10 a sign with mean 0 is independent of the rest. Zero weights have sign 0. On zero
    bias and s = 2, 1/c = E[min(|u|, |v|)]/2 and σ = 2√E[u²]/E[min] >= 2, with equality for Rademacher weights alone (for
    E[min] <= E|u| <= √E[u²]; zeros only add): there they are optimal (derived here). At s = 3 they are not: see
    `best_sign_weights`. Raises InputError for asymmetric weights, some that cannot be read so, or s < 2.
    """
    _check_active(s)
    odds = dict(zip(weights.values, weights.probabilities, strict=True))
    if any(abs(odds.get(-value, 0.0) - chance) > 1e-12 for value, chance in odds.items()):
        raise InputError(f"the sign readoff is unbiased for symmetric weights only, got values {weights.values}")
    classes = finite_classes(weights, s, by="sign")
    signs = np.array([a * b for a, b in classes.labels])
    strength = float(classes.first[3] @ signs)
    if strength <= 1e-12:
        raise InputError("the signs of the weights do not tell whether both features are on, with these weights")
    target = np.array([0.0, 0.0, 0.0, 1.0])
    return SignReadoff(1 / strength, np.sqrt((classes.second @ signs**2 / strength**2 - target).clip(0)))


class SignFit(NamedTuple):
    """The best symmetric weights found for the sign readoff."""

    weights: WeightDistribution
    readoff: SignReadoff

    @property
    def worst(self) -> float:
        """The largest σ over the cases."""
        return float(self.readoff.sigma.max())


def best_sign_weights(
    s: int, magnitudes: int = 2, zero: bool = False, bias: bool = False, starts: int = 8, seed: int = 0
) -> SignFit:
    """Search for the symmetric weights whose sign readoff of U-AND has the least worst σ at exactly s >= 2 active.

    Weights ± one of so many magnitudes (the first is 1), also 0 where `zero`, with a common bias where `bias`; without
    either, one magnitude is the Rademacher weights. Nelder-Mead from those (with the bias of `fit`) and from
    `starts` random points of the seed: an upper bound on the optimum, never a proof of it. Components of probability
    below 1e-4 are dropped. Raises InputError for s < 2, magnitudes < 1 or starts < 0.
    """
    _check_active(s)
    check_whole(magnitudes=magnitudes, starts=starts)
    if magnitudes < 1 or starts < 0:
        raise InputError(
            f"weights need at least one magnitude and no fewer than 0 starts, got {magnitudes} and {starts}"
        )

    def weights(x: Float[np.ndarray, " parameters"]) -> WeightDistribution:
        """Read the parameters: log magnitudes, logits of magnitudes, logit of zero, bias."""
        n = magnitudes - 1
        sizes = np.concatenate([[1.0], np.exp(x[:n].clip(-5, 5))])
        logits = np.concatenate([[0.0], x[n : 2 * n], x[2 * n : 2 * n + int(zero)]])
        mass = np.exp((logits - logits.max()).clip(-40, 0))
        values: dict[float, float] = {}
        for size, chance in zip([*sizes.round(9).tolist(), *[0.0] * zero], (mass / mass.sum()).tolist(), strict=True):
            values[size] = values.get(size, 0.0) + chance
        kept = {size: chance for size, chance in values.items() if chance > 1e-4}
        total = sum(kept.values())
        both = {sign * size: chance / total / (2 if size else 1) for size, chance in kept.items() for sign in (-1, 1)}
        both = {value + 0.0: chance for value, chance in both.items()}  # −0.0 is 0.0
        return WeightDistribution(tuple(both), tuple(both.values()), float(x[-1]) if bias else 0.0)

    def error(x: Float[np.ndarray, " parameters"]) -> float:
        try:
            drawn = weights(x)
            # Neurons that only just fire would be rounding errors of the exact sums.
            if s * max(drawn.values) + drawn.bias < 1e-3 * max(drawn.values):
                return math.inf
            return float(sign_readoff(drawn, s).sigma.max())
        except InputError:
            return math.inf

    n = magnitudes - 1
    plain = np.concatenate([np.zeros(n), np.zeros(n), [-12.0] * zero, [s - 2 * fit(s).threshold] if bias else []])
    rng = np.random.default_rng(seed)
    points = [plain]
    for _ in range(starts):
        sizes, logits = rng.uniform(-1.5, 1.5, n), rng.normal(0, 1, n)
        others = rng.normal(-1.5, 1, int(zero)), rng.uniform(-s / 2, 0.5, int(bias))
        points.append(np.concatenate([sizes, logits, *others]))
    best, value = plain, error(plain)
    options: Any = {"xatol": 1e-6, "fatol": 1e-9, "maxiter": 400}
    for point in points if len(plain) else []:
        for _ in range(2):  # a second simplex, from where the first has shrunk
            point = minimize(error, point, method="Nelder-Mead", options=options).x
        if (found := error(point)) < value - 1e-9:
            best, value = point, found
    return SignFit(weights(best), sign_readoff(weights(best), s))
