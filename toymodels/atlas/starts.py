"""Draw the first layers from which searches start. A kind of start is one function with a decorator.

Each returns a layer as one matrix (W | b), drawn by the generator `rng` that it gets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toymodels.errors import check_whole
from toymodels.registry import Member, Registry

Layer = Float[np.ndarray, "d m+1"]
"""Weights and, in the last column, biases."""


@dataclass(frozen=True, kw_only=True)
class Start(Member):
    """A kind of start: `function` draws a layer from m, d, s and rng."""


STARTS = Registry("kind of start", Start, "toymodels.atlas.starts")
"""Kinds of starts by name; a search draws as many of each."""


LEAST_ON_A_PLANE = 5
"""Features from which `on_a_plane` holds."""
_NEARLY = 2e-6


def on_a_plane(m: int) -> Layer:
    """Return m − 1 neurons that reach 1/4 for AND at most 2 active, which features read by a neuron each need m for.

    Inputs with exactly 2 active lie in the plane Σ x = 2, of m − 1 dimensions. Neuron i (one for each feature but the first) is
    x_0 + u + (u/v)(x_i − v) there, and all are 0 on inputs with fewer active, by a weight on Σ x − 2. So the readoff that is
    (x_k + x_l)/2 − 1/4 in the plane is (y_k + y_l)/2 − 1/4 on those, with y = (−u, v, …, v) the point of the plane at which all
    neurons would be 0, v = (2 + u)/(m − 1). It lies between −1/4 and 1/4 if 2v ≤ 1 and u ≤ v, which some u > 0 allow from
    m = 6 on; with m = 5 and a small u the error is at most 1/4 + u/4, at readoffs that grow as 1/u. (Found by the search of this
    atlas at m = 6, 7 and 8; derived here.) Raises InputError for fewer features.
    """
    check_whole(LEAST_ON_A_PLANE, m=m)
    u = max(_NEARLY, min((m - 5) / 4, 1 / (m - 2)))
    v = (2 + u) / (m - 1)
    inner = u / v
    outer = 1 + u + inner
    layer = np.full((m - 1, m + 1), outer)
    layer[:, 0] += 1
    layer[:, 1:m] += inner * np.eye(m - 1)
    layer[:, m] = u - inner * v - 2 * outer
    return layer


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
