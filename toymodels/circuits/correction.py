"""The error-correction layer: threshold random sums of features, and read each feature from the units that it feeds.

Theorems 14 and 21 of arXiv:2408.05451 state what such a layer can do (tolerance of order d^(1/4)/(m^(1/2)·s^(1/4)), output
error of order √(s/d)); construction and constants here are derived here. Each of m features feeds h of n = d/2 units; a
unit is two ReLUs that make a step with dead zones, so it outputs exactly 1 if any of its features is on and 0 otherwise,
if their errors are small; a feature is read as the mean over its h units minus the mean over the others.

*Noise.* Independent errors of RMS ε on all features make noise of standard deviation τ = ε·√(m·p(1−p)), p = h/n, in a unit,
which must stay well below the dead zone 1/4: the tolerance is c/√(m·p). With p = √(s/d) that is the paper's scale; but the
output error √(s/n) does not depend on p, and p of order 1/√(s·n), as in `default_size`, tolerates √s times as much.

*Interference.* Errors of one sign would add up in a unit. Centred connections, C_ik − p, prevent it (the active features
shift a unit by −p·s, and its bias corrects this). Random signs would, too, at a price: a unit that sees −x_k does not help to
read x_k, so 2h units must be connected for h that do, and τ² doubles; and a unit that sees x_k − x_l outputs 0 if both are on.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtri
from torch import Tensor

from toymodels.circuits.sets import check_size, contrast, default_size, random_sets
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import seeded
from toymodels.errors import InputError, check_not_negative, check_whole


def step(z: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ReLU(2z − 1/2) − ReLU(2z − 3/2): 0 up to z = 1/4, 1 from z = 3/4 on, linear between."""
    return torch.relu(2 * z - 0.5) - torch.relu(2 * z - 1.5)


def correction_layer(m: int, d: int, s: int, seed: int, size: int | None = None) -> Network:
    """Make the network that brings m values near 0 or 1, of which about s are near 1, closer to 0 and 1.

    Two of its d neurons make a step. `size` is h, the units that read each feature (default `default_size` of d/2 units). The
    readoff's gain makes ones exact on average if s features are on: without it they would be read as (1 − p)^(s−1). Neurons
    0 … n − 1 rise at 1/4, n … 2n − 1 at 3/4; an odd d leaves one neuron unused. m is at least 1, d at least 4, s from 1 to m.
    """
    n, size = _check(m, d, s, size)
    connected = random_sets(m, size, n, seeded(seed))
    p = size / n
    doubled = 2 * (connected.float() - p).T
    bias = torch.cat([torch.full((n,), 2 * p * s - 0.5), torch.full((n,), 2 * p * s - 1.5)])
    rows = contrast(connected) / (1 - p) ** (s - 1)
    readoff = LinearReadoff(torch.cat([rows, -rows], 1), torch.zeros(m))
    return Network(FirstLayer(torch.cat([doubled, doubled]), bias, origin="correction"), readoff).requires_grad_(False)


class OutputMoments(NamedTuple):
    """Mean and standard deviation of the error over the draw of a layer, for a feature that is off and for one that is on."""

    zero_mean: float
    zero_std: float
    one_mean: float
    one_std: float


def clean_moments(d: int, s: int, size: int) -> OutputMoments:
    """Compute the exact output errors of a centred layer with exact inputs, s of them on; about √(2s/d) at zeros.

    Derived here. A feature that is off: the s active sets leave U of n units off; its own set is an independent subset of h
    units, of which K are on, hypergeometric, and it reads K/h − (n − U − K)/(n − h): mean 0, variance n/(h(n−h))·(w − w2), with
    w = (1−p)^s and w2 = ((n−h)(n−h−1)/(n(n−1)))^s the probabilities that one unit, and two units, are off. A feature that is
    on: all its units are on, and each of the other n − h is off with probability (1−p)^(s−1), two of them with w2 for s − 1
    sets.
    """
    n, h = _check(s, d, s, size)
    p, gain = h / n, (1 - h / n) ** (1 - s)
    pair = (n - h) * (n - h - 1) / (n * (n - 1))
    zero = n / (h * (n - h)) * ((1 - p) ** s - pair**s)
    off, both = (1 - p) ** (s - 1), pair ** (s - 1)
    one = off / (n - h) + (1 - 1 / (n - h)) * both - off**2
    return OutputMoments(0.0, gain * math.sqrt(max(zero, 0.0)), 0.0, gain * math.sqrt(max(one, 0.0)))


def noisy_moments(m: int, d: int, s: int, epsilon: float, size: int) -> OutputMoments:
    """Estimate the output errors of a centred layer with s features on and independent input errors of RMS ε ≥ 0.

    Derived here. Units are taken as independent, with Gaussian noise and J ~ Bin(t, p) of the t other active features. With V
    the variance of u = step(x_k + J + noise) in the h units of feature k, and c = (E[step′]·ε)² the part of V that comes from
    the feature's own error and is common to them, the variance is (V − c)/h + c, plus the part of the other units. The noise
    of a unit has the variance ε²·Σ_l (C_il − p)², and so varies with the features that it is connected to: k, the J active
    ones, Bin(m − t − 1, p) others. The error of the variance is a share O(1/h); `clean_moments` is exact at ε = 0.
    """
    n, h = _check(m, d, s, size)
    check_not_negative(epsilon=epsilon)
    p, gain = h / n, (1 - h / n) ** (1 - s)
    zero, zero_rest = _unit(m, s, 0, 1, p, epsilon), _unit(m, s, 0, 0, p, epsilon)
    one, one_rest = _unit(m, s - 1, 1, 1, p, epsilon), _unit(m, s - 1, 0, 0, p, epsilon)
    common = [(unit.slope * epsilon) ** 2 for unit in (zero, one)]
    zero_variance = (zero.variance - common[0]) / h + common[0] + zero_rest.variance / (n - h)
    # The share of the other units that active sets cover is nearly constant: only their noise counts.
    one_variance = (one.variance - common[1]) / h + common[1] + one_rest.noise / (n - h)
    stds = [gain * math.sqrt(max(variance, 0.0)) for variance in (zero_variance, one_variance)]
    return OutputMoments(gain * (zero.mean - zero_rest.mean), stds[0], gain * (one.mean - one_rest.mean) - 1, stds[1])


class _Unit(NamedTuple):
    mean: float
    variance: float
    noise: float
    """The part of the variance that remains if the number of active features is given."""
    slope: float
    """E[step′]."""


def _unit(m: int, t: int, on: int, own: int, p: float, epsilon: float) -> _Unit:
    """Compute moments of step(on + J + noise) for a unit that is connected to the feature itself (own = 1) or not (0)."""
    from scipy.stats import binom  # half a second to import, and wanted only here

    count = np.arange(t + 1)
    others = binom.ppf((np.arange(32) + 0.5) / 32, max(m - t - 1, 0), p)
    load = own + count[:, None] + others
    tau = epsilon * np.sqrt((1 - p) ** 2 * load + p**2 * np.maximum(m - load, 0))
    z = torch.from_numpy((on + count)[:, None, None] + tau[:, :, None] * ndtri((np.arange(1024) + 0.5) / 1024))
    probability = torch.from_numpy(binom.pmf(count, t, p))
    u = step(z)
    means, squares = u.mean((1, 2)), u.square().mean((1, 2))
    mean, within = float(probability @ means), float(probability @ (squares - means**2))
    slope = 2 * ((z > 0.25) & (z < 0.75)).double().mean((1, 2))
    return _Unit(mean, float(probability @ squares) - mean**2, within, float(probability @ slope))


def _check(m: int, d: int, s: int, size: int | None) -> tuple[int, int]:
    """Check the sizes, and return the number of units and the size of a set."""
    check_whole(1, m=m)
    check_whole(4, d=d)  # two units of two neurons each
    if not 1 <= s <= m:
        raise InputError(f"s = {s} active features: it must be from 1 to m = {m}")
    n = d // 2
    size = default_size(n, s) if size is None else size
    check_size(size, n)
    return n, size
