"""First layers with iid weights on finitely many values: sparse Bernoulli, Rademacher, ternary and two-valued layers.

The seed determines the layer: the same (weights, m, d, seed) gives the same weights on every machine. All neurons share one
bias.

Layers of the same seed are not independent: every distribution of weights is applied to the same uniform numbers. A Rademacher
layer W' and a Bernoulli(1/2) layer W of one seed, for instance, have W' = 2W − 1. That makes them easy to compare, but results
on one are not an independent confirmation of results on the other.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.core.layers import FirstLayer
from toymodels.core.seeds import seeded
from toymodels.errors import InputError, check_whole
from toymodels.theory.bernoulli import asymptotic_probability, least_worst_error
from toymodels.theory.distributions import RADEMACHER, WeightDistribution, bernoulli_weights


def iid(
    weights: WeightDistribution, m: int, d: int, seed: int, activation: str = "relu", name: str = "iid"
) -> FirstLayer:
    """Draw W_ij iid from `weights` (inverse of its distribution function, from 53-bit uniforms), every bias `weights.bias`.

    `name` is kept as the layer's origin. Raises InputError for m < 1, d < 1 or an unknown activation.
    """
    check_whole(1, m=m, d=d)
    uniform = torch.rand(d, m, dtype=torch.float64, generator=seeded(seed))
    edges = torch.tensor(weights.probabilities, dtype=torch.float64).cumsum(0)[:-1]
    weight: Tensor = torch.tensor(weights.values, dtype=torch.float32)[torch.bucketize(uniform, edges, right=True)]
    return FirstLayer(weight, torch.full((d,), float(weights.bias)), activation, name)


def bernoulli(m: int, d: int, seed: int, p: float | int, activation: str = "relu") -> FirstLayer:
    """Draw weights 1 with probability p, else 0, bias −1: a neuron is active if two or more of its features are.

    Construction 1.2 of Vaintrob, Mendel, Hänni (2024), Theorem 1 of arXiv:2408.05451. Raises InputError unless 0 < p <= 1.
    """
    _check_probability(p)
    weights = bernoulli_weights(p) if p < 1 else WeightDistribution((1.0,), (1.0,), -1.0)
    return iid(weights, m, d, seed, activation, "bernoulli")


def rademacher(m: int, d: int, seed: int, activation: str = "relu", bias: float | int = 0.0) -> FirstLayer:
    """Draw weights ±1 with equal odds (docs/theory.md, section 3, "Other iid layers").

    W = 2B − 1 with B the weights of `bernoulli` with p = 1/2 and the same seed.

    Without a bias, no width is enough if 2 and 3 features may be on: |±1 ± 1 ± 1| is half the sum of |±1 ± 1| over its
    three pairs, so on all inputs a(ikl) = a(ik)/2 + a(il)/2 + a(kl)/2 − a(0)/2, and the same holds for every linear readoff
    and its offset. For the AND of i and k the two sides of the targets differ by 1/2, so the errors, with weights 1, 1/2, 1/2,
    1/2 and 1/2, add up to 1/2: the worst error is at least 1/6 (derived here). With zeros among the weights (a ternary layer),
    or with a bias, this does not hold.

    On exactly s active features the bias s − 2θ of `toymodels.theory.two_valued.fit` is the best one; 0 is as published.
    """
    return iid(dataclasses.replace(RADEMACHER, bias=float(bias)), m, d, seed, activation, "rademacher")


def ternary_weights(p: float | int) -> WeightDistribution:
    """Return weights −1, 0, 1 with probabilities p/2, 1 − p, p/2, no bias. Raises InputError unless 0 < p <= 1."""
    _check_probability(p)
    return WeightDistribution((-1.0, 0.0, 1.0), (p / 2, 1 - p, p / 2)) if p < 1 else RADEMACHER


def ternary(m: int, d: int, seed: int, p: float | int, activation: str = "relu") -> FirstLayer:
    """Draw weights iid from `ternary_weights`: a Rademacher layer in which each weight is kept with probability p, 0 < p <= 1."""
    return iid(ternary_weights(p), m, d, seed, activation, "ternary")


def connection_probability(p: float | int | str, m: int, d: int, s: int, kind: str = "affine") -> float:
    """Return the probability of a weight of the Bernoulli construction: a number in (0, 1], or one computed from m, d and s.

    "best": least `median_worst_error` of the mean readoff debiased by `kind` ("none", "shift", "affine"), at max(2, s)
    active features. "asymptotic": ln²(m)/√d, as published. Raises InputError for anything else, and if ln²(m)/√d ≥ 1.
    """
    if p == "best":
        return least_worst_error(m, d, max(2, s), kind).p
    if p == "asymptotic":
        value = asymptotic_probability(m, d)
        if value >= 1:
            raise InputError(
                f"the asymptotic probability ln²(m)/√d is {value:.3g} at m = {m}, d = {d}: it needs d > ln⁴(m), here "
                f'{math.log(m) ** 4:,.0f} neurons; give a number in (0, 1] or "best"'
            )
        return value
    if isinstance(p, str):
        raise InputError(f'the probability of a weight is a number in (0, 1], "best" or "asymptotic", got {p!r}')
    _check_probability(p)
    return float(p)


def _check_probability(p: float | int) -> None:
    if not 0 < p <= 1:
        raise InputError(f"the probability of a weight is p = {p:g}: it must be above 0 and at most 1")


def features_seen(layer: FirstLayer) -> Float[Tensor, "neurons m"]:
    """Return which features each neuron sees: the layer's weights, in float64. Raises InputError unless they are 0 and 1."""
    weight = layer.weight.detach()
    if bool(((weight != 0) & (weight != 1)).any()):
        raise InputError("the layer's weights are not 0 and 1: take the layer as it was made, before any embedding")
    return weight.double()


def check_some(p: float, m: int, d: int) -> None:
    """Raise InputError for a probability of weights with which less than one of them is expected in the whole layer."""
    if p * m * d < 1:
        raise InputError(f"p = {p:g} leaves hardly a weight in a layer of {d} neurons on {m} features: take a larger p")
