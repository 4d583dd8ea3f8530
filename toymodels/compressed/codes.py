"""Networks that compute all features at once by construction: designed binary codes and pseudo-inverse decoders."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor

from toymodels.compressed.stack import network
from toymodels.core.network import Network
from toymodels.errors import InputError, check_kind, check_whole
from toymodels.theory.compressed import check_sizes


def biregular(n: int, d: int, k: int, seed: int, swaps: int = 20_000) -> Float[np.ndarray, "n d"]:
    """Design a binary code: every feature on exactly k of d neurons, every neuron on for nk/d features, with small overlaps.

    Begins with a random such code; then of `swaps` random exchanges of two edges, (i, a), (j, b) → (i, b), (j, a), those are made
    that do not raise Σ over pairs of (overlap)². Raises InputError unless nk is a multiple of d and k < d.
    """
    check_sizes(n, d)
    check_whole(1, d - 1, k=k)
    check_whole(0, seed=seed, swaps=swaps)
    if n * k % d:
        raise InputError(
            f"n·k = {n * k} edges on d = {d} neurons: they must be a multiple of d, for neurons of equal degree"
        )
    rng = np.random.default_rng(seed)
    code = np.zeros((n, d), dtype=np.int64)
    left = np.full(d, n * k // d)
    for feature in range(n):  # the neurons with most places left, ties at random: never runs out of places
        order = np.lexsort((rng.random(d), -left))[:k]
        code[feature, order] = 1
        left[order] -= 1
    overlap = code @ code.T
    features, neurons = map(np.array, np.nonzero(code))
    draws = rng.integers(len(features), size=(swaps, 2))
    for first, second in draws:
        i, a, j, b = features[first], neurons[first], features[second], neurons[second]
        if i == j or code[i, b] or code[j, a]:
            continue
        change = code[:, b] - code[:, a]  # of the overlaps of i with the others; those of j change by the opposite
        change_i, change_j = change.copy(), -change
        change_i[[i, j]] = change_j[[i, j]] = 0  # their own overlap stays: each loses what the other gains
        gain = (2 * overlap[i] + change_i) @ change_i + (2 * overlap[j] + change_j) @ change_j
        if gain <= 0:
            code[i, [a, b]], code[j, [a, b]] = (0, 1), (1, 0)
            neurons[first], neurons[second] = b, a
            overlap[i] += change_i
            overlap[j] += change_j
            overlap[:, i], overlap[:, j] = overlap[i], overlap[j]
    return code


def best_scale(outputs: Float[Tensor, "inputs n"], targets: Float[Tensor, "inputs n"]) -> tuple[float, float]:
    """Return the c that minimises mean (c·output − target)⁴, and that mean; the derivative is a cubic with one real root."""
    y, t = outputs.double(), targets.double()
    m = [float((y**k * t ** (4 - k)).mean()) for k in range(5)]
    if m[4] == 0:
        return 0.0, m[0]
    roots = np.roots([m[4], -3 * m[3], 3 * m[2], -m[1]])
    c = float(roots[np.abs(roots.imag).argmin()].real)
    return c, c**4 * m[4] - 4 * c**3 * m[3] + 6 * c**2 * m[2] - 4 * c * m[1] + m[0]


def pinv_decoder(w_in: Float[Tensor, "d n"], x: Float[Tensor, "inputs n"]) -> Network:
    """Make the network with this first layer and the decoder c·pinv(W_in), c with the least mean fourth power of errors on x."""
    decoder = torch.linalg.pinv(w_in)
    c, _ = best_scale(torch.relu(x.to(w_in) @ w_in.T) @ decoder.T, torch.relu(x.to(w_in)))
    return network(w_in, c * decoder)


def designed_code(code: Float[np.ndarray, "n d"] | np.ndarray, x: Float[Tensor, "inputs n"]) -> Network:
    """Make W_in = Bᵀ + b(1 − B)ᵀ and W_out = c·pinv(W_in) of a binary code B, with b and c fitted to the fourth power of errors.

    ReLU(ax) = a ReLU(x) for a > 0, so the scale of W_in is no parameter of its own: b is the ratio of off to on.
    """
    check_kind(np.ndarray, "a NumPy matrix of zeros and ones, features × neurons", code=code)
    if code.ndim != 2 or not np.isin(code, (0, 1)).all():
        raise InputError(f"a code of shape {code.shape}: it must be a matrix of zeros and ones, features × neurons")
    if x.shape[-1] != len(code):
        raise InputError(f"the inputs have {x.shape[-1]} features and the code {len(code)}: they must be the same")
    binary = torch.from_numpy(np.ascontiguousarray(code.T)).to(x)
    target = torch.relu(x)

    def weights(b: float) -> Tensor:
        return binary + b * (1 - binary)

    def loss(b: float) -> float:
        w_in = weights(b)
        return best_scale(torch.relu(x @ w_in.T) @ torch.linalg.pinv(w_in).T, target)[1]

    best = minimize_scalar(loss, bounds=(-0.3, 0.3), method="bounded", options={"xatol": 1e-3})
    return pinv_decoder(weights(float(best.x)), x)
