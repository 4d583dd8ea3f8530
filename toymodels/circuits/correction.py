"""The error-correction layer: threshold random sums of features, and read each feature from the units that it feeds.

Theorems 14 and 21 of arXiv:2408.05451 state what such a layer can do (tolerance of order d^(1/4)/(m^(1/2)·s^(1/4)), output
error of order √(s/d)); construction and constants here are derived here. Each of m features feeds h of n = d/2 units; a
unit is two ReLUs that make a step with dead zones, so it outputs 1 if any of its features is on and 0 otherwise, whatever
small errors they carry; a feature is read as the mean over its h units minus the mean over the others.

*Noise.* Independent errors of RMS ε on all features make noise of standard deviation τ = ε·√(m·p(1−p)), p = h/n, in a unit,
which must stay well below the dead zone 1/4: the tolerance is c/√(m·p). With p = √(s/d) that is the paper's scale; but the
output error √(s/n) does not depend on p, and p of order 1/√(s·n), as `default_size` has it, tolerates √s times as much.

*Interference.* Errors of one sign would add up in a unit. Random signs σ_ik on the connections prevent it, at a price: a
unit that sees −x_k says nothing about x_k, so for h units that do, 2h must be connected and τ² doubles; and a unit that
sees x_k − x_l with both on outputs 0. Centred connections,
C_ik − p, take out the same common error without that price (the active features shift a unit by −p·s, made good by its
bias): they are the default.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import binom
from torch import Tensor

from toymodels.circuits.sets import check_size, contrast, default_size, random_sets
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.errors import InputError


def step(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """ReLU(2z − 1/2) − ReLU(2z − 3/2): 0 up to z = 1/4, 1 from z = 3/4 on, linear between; the dead zones are symmetric."""
    return torch.relu(2 * z - 0.5) - torch.relu(2 * z - 1.5)


def correction_layer(m: int, d: int, s: int, seed: int, size: int | None = None, signed: bool = False) -> Network:
    """The network that takes m values near 0 or 1, at most about s of them near 1, nearer; d neurons in pairs of a step.

    `size` is h, the units that read each feature (default `default_size` of d/2 units); `signed` connects as many again by
    −1 in place of centring. The readoff's gain makes ones exact on average where s features are on: without it they would
    read (1 − p)^(s−1). Neurons 0 … n − 1 rise at 1/4, n … 2n − 1 at 3/4; an odd d leaves one neuron unused.

    Raises InputError for m < 1, d < 4, s outside 1 … m, or a size that does not fit.
    """
    n, size = _check(m, d, s, size, signed)
    generator = torch.Generator().manual_seed(seed)
    connected = random_sets(m, 2 * size if signed else size, n, generator)
    p = size / n
    members, weight, shift = connected, connected.float() - p, p * s
    if signed:
        # A random half of each set: of the connected units, those with the largest of fresh uniforms.
        rank = torch.rand(m, n, generator=generator).masked_fill_(~connected, -1.0)
        members = torch.zeros_like(connected).scatter_(1, rank.topk(size, dim=1).indices, True)
        weight, shift = members.float() - (connected & ~members).float(), 0.0
    doubled = 2 * weight.T
    bias = torch.cat([torch.full((n,), 2 * shift - 0.5), torch.full((n,), 2 * shift - 1.5)])
    rows = contrast(members, ~connected) / _signal(p, s - 1, signed)
    readoff = LinearReadoff(torch.cat([rows, -rows], 1), torch.zeros(m))
    return Network(FirstLayer(torch.cat([doubled, doubled]), bias, origin="correction"), readoff).requires_grad_(False)


def _signal(p: float, others: int, signed: bool) -> float:
    """Mean over a feature's units minus that over the others where it is on (derived here).

    With J the sum of the other active features' connections: P(J ≥ 0) − P(J ≥ 1) = P(J = 0), signed or not.
    """
    law = np.ones(1)
    for _ in range(others if signed else 0):
        law = np.convolve(law, (p, 1 - 2 * p, p))
    return float(law[others]) if signed else (1 - p) ** others


def unit_noise(m: int, d: int, epsilon: float, size: int, signed: bool = False) -> float:
    """τ: standard deviation of a unit's noise where the m features have independent errors of mean 0 and RMS ε."""
    n, _ = _check(m, d, 1, size, signed)
    p = size / n
    return epsilon * math.sqrt(m * (2 * p if signed else p * (1 - p)))


class OutputMoments(NamedTuple):
    """Mean error and its standard deviation over the draw of a layer, at a feature that is off and at one that is on."""

    zero_mean: float
    zero_std: float
    one_mean: float
    one_std: float


def clean_moments(d: int, s: int, size: int) -> OutputMoments:
    """Exact output errors of a centred layer whose inputs are exact, s of them on; about √(2s/d) at zeros (derived here).

    A feature that is off: the s active sets leave U of n units off; its own set is an independent h-subset, so K of its
    units are on, hypergeometric, and it reads K/h − (n − U − K)/(n − h): mean 0, variance n/(h(n−h))·(w − w2), with
    w = (1−p)^s and w2 = ((n−h)(n−h−1)/(n(n−1)))^s the probabilities that one unit, and two, are off. A feature that is on:
    all its units are on, and of the n − h others each is off with probability (1−p)^(s−1), two with w2 for s − 1 sets.
    Raises InputError as `correction_layer`.
    """
    n, h = _check(s, d, s, size, False)
    p, gain = h / n, (1 - h / n) ** (1 - s)
    pair = (n - h) * (n - h - 1) / (n * (n - 1))
    zero = n / (h * (n - h)) * ((1 - p) ** s - pair**s)
    off, both = (1 - p) ** (s - 1), pair ** (s - 1)
    one = off / (n - h) + (1 - 1 / (n - h)) * both - off**2
    return OutputMoments(0.0, gain * math.sqrt(max(zero, 0.0)), 0.0, gain * math.sqrt(max(one, 0.0)))


def noisy_moments(m: int, d: int, s: int, epsilon: float, size: int) -> OutputMoments:
    """Output errors of a centred layer with s features on and independent input errors of RMS ε (derived here).

    Units taken as independent, with Gaussian noise and J ~ Bin(t, p) of the t other active features: with V the variance of
    u = step(x_k + J + noise) in the h units of feature k and c = (E[step′]·ε)² its part that comes from the feature's own
    error, common to them, the variance is (V − c)/h + c and what the other units add. The noise of a unit has the variance
    ε²·Σ_l (C_il − p)², and so varies with the features that it is connected to: k, the J active ones, Bin(m − t − 1, p) others.
    Good to a share O(1/h) of the variance; `clean_moments` is exact at ε = 0. Raises InputError as `correction_layer`, and
    for ε < 0.
    """
    n, h = _check(m, d, s, size, False)
    if epsilon < 0:
        raise InputError(f"an RMS error of {epsilon:g}: it cannot be negative")
    p, gain = h / n, (1 - h / n) ** (1 - s)
    zero, zero_rest = _unit(m, s, 0, 1, p, epsilon), _unit(m, s, 0, 0, p, epsilon)
    one, one_rest = _unit(m, s - 1, 1, 1, p, epsilon), _unit(m, s - 1, 0, 0, p, epsilon)
    common = [(unit.slope * epsilon) ** 2 for unit in (zero, one)]
    zero_variance = (zero.variance - common[0]) / h + common[0] + zero_rest.variance / (n - h)
    # The share of the other units that active sets hit is all but fixed: only their noise counts.
    one_variance = (one.variance - common[1]) / h + common[1] + one_rest.noise / (n - h)
    stds = [gain * math.sqrt(max(variance, 0.0)) for variance in (zero_variance, one_variance)]
    return OutputMoments(gain * (zero.mean - zero_rest.mean), stds[0], gain * (one.mean - one_rest.mean) - 1, stds[1])


class _Unit(NamedTuple):
    mean: float
    variance: float
    noise: float
    """The part of the variance that is there for a given number of active features."""
    slope: float
    """E[step′]."""


def _unit(m: int, t: int, on: int, own: int, p: float, epsilon: float) -> _Unit:
    """Moments of step(on + J + noise) for a unit that is connected to the feature itself (own = 1) or not (0)."""
    count = np.arange(t + 1)
    others = binom.ppf((np.arange(32) + 0.5) / 32, max(m - t - 1, 0), p)
    load = own + count[:, None] + others
    tau = epsilon * np.sqrt((1 - p) ** 2 * load + p**2 * np.maximum(m - load, 0))
    z = torch.from_numpy((on + count)[:, None, None] + tau[:, :, None] * ndtri((np.arange(1024) + 0.5) / 1024))
    law = torch.from_numpy(binom.pmf(count, t, p))
    u = step(z)
    means, squares = u.mean((1, 2)), u.square().mean((1, 2))
    mean, within = float(law @ means), float(law @ (squares - means**2))
    slope = 2 * ((z > 0.25) & (z < 0.75)).double().mean((1, 2))
    return _Unit(mean, float(law @ squares) - mean**2, within, float(law @ slope))


def _check(m: int, d: int, s: int, size: int | None, signed: bool) -> tuple[int, int]:
    """Number of units and size of a set."""
    if m < 1:
        raise InputError(f"m = {m} features: there must be at least 1")
    if d < 4:
        raise InputError(f"d = {d} neurons: two units of two neurons each are the least")
    if not 1 <= s <= m:
        raise InputError(f"s = {s} active features: it must be from 1 to m = {m}")
    n = d // 2
    size = default_size(n, s) if size is None else size
    check_size(2 * size if signed else size, n)
    return n, size
