"""Draw the first layers from which searches start. A kind of start is one function with a decorator.

Each returns a layer as one matrix (W | b), drawn by the generator `rng` that it gets.
"""

from __future__ import annotations

import numpy as np

from toymodels.atlas.constructions import LEAST_ON_A_PLANE, MOST_LABELLED, Layer, characters, on_a_plane
from toymodels.registry import Member, Registry

STARTS = Registry("kind of start", Member, "toymodels.atlas.starts")
"""Kinds of starts by name, functions of m, d, s and rng; a search draws as many of each."""


def _noisy(weight: np.ndarray, bias: np.ndarray | float, rng: np.random.Generator) -> Layer:
    """Join weights and biases, and add noise of a scale that is itself drawn, from 0.03 to 0.3."""
    layer = np.column_stack([weight, np.broadcast_to(bias, len(weight))])
    return np.asarray(layer + rng.choice([0.03, 0.1, 0.3]) * rng.standard_normal(layer.shape))


@STARTS("gaussian", order=1)
def gaussian(m: int, d: int, rng: np.random.Generator) -> Layer:
    """Draw Gaussian weights, and biases that are 0, Gaussian, or positive."""
    layer = rng.standard_normal((d, m + 1))
    layer[:, m] = rng.choice([np.zeros(d), layer[:, m], np.abs(layer[:, m])])
    return layer


@STARTS("zero_one", order=2)
def zero_one(m: int, d: int, rng: np.random.Generator) -> Layer:
    """Draw weights 0 or 1, at a density from 0.2 to 0.8, with bias 0, −1/2 or −1, and add noise."""
    weight = rng.random((d, m)) < rng.uniform(0.2, 0.8)
    return _noisy(weight, rng.choice([0.0, -0.5, -1.0]), rng)


@STARTS("signs", order=3)
def signs(m: int, d: int, rng: np.random.Generator) -> Layer:
    """Draw weights ±1 or, with odds, 0; bias from −1 to 1 for all neurons; and add noise."""
    weight = rng.choice([-1.0, 1.0], (d, m)) * (rng.random((d, m)) < rng.choice([1.0, 0.7]))
    return _noisy(weight, rng.uniform(-1, 1), rng)


@STARTS("positive", order=4)
def positive(m: int, d: int, rng: np.random.Generator) -> Layer:
    """Draw weights from 0 to 1, each bias minus the mean weight of its neuron or a share of it."""
    weight = rng.random((d, m))
    return np.column_stack([weight, -weight.mean(1) * rng.choice([0.5, 1.0, 1.5])])


@STARTS("identity", order=5)
def identity(m: int, d: int, rng: np.random.Generator) -> Layer:
    """Read every feature by a neuron of its own as far as neurons reach, the rest 0 or 1 at random; and add noise."""
    weight = (rng.random((d, m)) < rng.uniform(0.2, 0.8)).astype(float)
    bias = np.full(d, rng.choice([-0.5, -1.0]))
    used = min(m, d)
    weight[:used] = np.eye(used, m)
    bias[:used] = 0
    return _noisy(weight, bias, rng)


@STARTS("plane", order=6)
def plane(m: int, d: int, rng: np.random.Generator) -> Layer:
    """Take the m − 1 neurons of `on_a_plane` as far as neurons reach, the rest 0 or 1 at random; and add noise."""
    weight = (rng.random((d, m)) < rng.uniform(0.2, 0.8)).astype(float)
    bias = np.full(d, rng.choice([-0.5, -1.0]))
    layer = np.column_stack([weight, bias])
    if m >= LEAST_ON_A_PLANE:
        made = on_a_plane(m)[:d]
        layer[: len(made)] = made
    return _noisy(layer[:, :m], layer[:, m], rng)


@STARTS("groups", order=7)
def groups(m: int, d: int, rng: np.random.Generator) -> Layer:
    """Cut the features into groups again and again, one neuron for each group: weight 1, bias 0 to −1; and add noise."""
    weight = np.zeros((d, m))
    size = int(rng.integers(2, max(3, m // 2 + 1)))
    row = 0
    while row < d:
        order = rng.permutation(m)
        for start in range(0, m, size):
            if row < d:
                weight[row, order[start : start + size]] = 1
                row += 1
    return _noisy(weight, rng.choice([0.0, -0.5, -1.0]), rng)


@STARTS("characters", order=8)
def of_characters(m: int, d: int, rng: np.random.Generator) -> Layer:
    """Take characters of F_2^n, of either sign and labellings of the features, at random; bias −1 to −0.2; and add noise.

    Random signs, if there are more features than labellings are known for.
    """
    if m > MOST_LABELLED:
        return signs(m, d, rng)
    rows = np.vstack([sign * row for row in characters(m)[:2] for sign in (1, -1)])
    if rng.random() < 0.5:
        rows = rows[: len(rows) // len(characters(m)[:2])]
    weight = np.vstack([rows[rng.permutation(len(rows))] for _ in range(-(-d // len(rows)))])[:d]
    return _noisy(weight, rng.choice([-1.0, -0.5, -0.2]), rng)
