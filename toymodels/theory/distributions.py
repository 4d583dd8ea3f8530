"""Describe iid weights on finitely many values, and compute the moments of a layer's neuron classes by exact sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.theory.classes import ClassMoments, check_active
from toymodels.theory.gates import CASES


@dataclass(frozen=True)
class WeightDistribution:
    """A distribution of iid weights on finitely many values, with one bias common to all neurons."""

    values: tuple[float, ...]
    probabilities: tuple[float, ...]
    bias: float = 0.0

    def __post_init__(self) -> None:
        if len(self.values) != len(self.probabilities) or len(set(self.values)) != len(self.values) or not self.values:
            raise InputError("a weight distribution needs distinct values, and one probability for each")
        if min(self.probabilities) <= 0 or abs(sum(self.probabilities) - 1) > 1e-9:
            raise InputError(
                f"the probabilities of a weight distribution are positive and sum to 1, got {self.probabilities}"
            )

    def of_sum(self, n: int) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
        """Return (values, probabilities) of the sum of n iid weights, by repeated exact convolution."""
        points: Float[np.ndarray, " points"] = np.zeros(1)
        mass: Float[np.ndarray, " points"] = np.ones(1)
        for _ in range(n):
            sums = np.add.outer(points, np.array(self.values)).ravel()
            weights = np.multiply.outer(mass, np.array(self.probabilities)).ravel()
            points, where = np.unique(sums.round(10), return_inverse=True)
            mass = np.bincount(where.ravel(), weights)
        return points, mass


RADEMACHER = WeightDistribution((-1.0, 1.0), (0.5, 0.5))
"""Weights ±1 with equal odds, no bias."""


def bernoulli_weights(p: float, bias: float = -1.0) -> WeightDistribution:
    """Describe weights 1 with probability p, else 0; bias −1 as in Construction 1.2 (docs/theory.md, section 4). 0 < p < 1."""
    if not 0 < p < 1:
        raise InputError(f"the probability of a Bernoulli weight lies strictly between 0 and 1, got {p}")
    return WeightDistribution((0.0, 1.0), (1 - p, p), bias)


def finite_classes(weights: WeightDistribution, s: int, by: str = "value") -> ClassMoments:
    """Compute the class moments of a layer with these iid weights at exactly s >= 2 active features, by exact sums.

    by = "value": one class per ordered pair of weight values. by = "sign": classes by the signs (−1, 0, 1) of the two
    weights. Raises InputError for s < 2 or another `by`.
    """
    check_active(s)
    if by not in ("value", "sign"):
        raise InputError(f'classes are made by "value" or by "sign", got {by!r}')
    names = [float(np.sign(value)) if by == "sign" else float(value) for value in weights.values]
    labels = sorted({(a, b) for a in names for b in names})
    probability, first, second = np.zeros(len(labels)), np.zeros((4, len(labels))), np.zeros((4, len(labels)))
    for case, (x_k, x_l) in enumerate(CASES):
        points, mass = weights.of_sum(s - x_k - x_l)
        for u, p_u, name_u in zip(weights.values, weights.probabilities, names, strict=True):
            for v, p_v, name_v in zip(weights.values, weights.probabilities, names, strict=True):
                active = np.maximum(points + x_k * u + x_l * v + weights.bias, 0)
                index = labels.index((name_u, name_v))
                first[case, index] += p_u * p_v * (mass @ active)
                second[case, index] += p_u * p_v * (mass @ active**2)
                probability[index] += p_u * p_v / 4
    return ClassMoments(tuple(labels), probability, first, second)
