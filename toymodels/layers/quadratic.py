"""Quadratic neurons: d = r² squares of sums span every product of two coordinates of R^r.

Section 1.5 of Vaintrob, Mendel, Hänni (2024). Features are directions f_k in R^r, unit vectors of coherence
ε = max |f_k · f_l|; an input x is the point v = F x. The neurons v_i², (v_i + v_j)² and (v_i − v_j)² (i < j) are
r + r(r − 1) = r², and v_i v_j = ((v_i + v_j)² − (v_i − v_j)²)/4, so a linear readoff can be any quadratic form of v, in
particular

    φ_kl = (v·f_k)(v·f_l) = (G x)_k (G x)_l,  G = Fᵀ F.

With v·f_k = x_k + a its error as x_k AND x_l is x_k b + x_l a + a b, where a sums x_j G_jk over the other active
features: |a| ≤ (s − x_k) ε with s features active, |b| ≤ (s − x_l) ε. So for AND the error is at most s² ε (derived here:
(s−1)² + 2(s−1) = s² − 1 and s + s(s−1) = s², as ε ≤ 1), which improves the constant 2 of the post's Proposition 2.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import seeded
from toymodels.core.tasks import PairTask, Task, pair_task
from toymodels.errors import InputError, check_whole

ORIGIN = "quadratic"


@torch.no_grad()
def quadratic_readoff(layer: nn.Module, task: Task) -> LinearReadoff:
    """Read any gate α + β x_k + γ x_l + δ x_k x_l on pairs, as α + β φ_kk + γ φ_ll + δ φ_kl (x_k = x_k² for a bit). Float64.

    Raises InputError unless `quadratic` made the layer and the task is a gate on pairs of its features.
    """
    frame = layer_frame(layer).double()
    task = pair_task(task, "the quadratic readoff", frame.shape[1])
    alpha, beta, gamma, delta = task.gate.coefficients
    pairs = task.pairs.to(frame.device)
    first, second = frame[:, pairs[:, 0]], frame[:, pairs[:, 1]]
    weight = delta * _form(first, second)
    if beta:
        weight += beta * _form(first, first)
    if gamma:
        weight += gamma * _form(second, second)
    return LinearReadoff(weight, weight.new_full((len(pairs),), alpha))


@LAYERS(
    "quadratic", role="construction", order=24, colour="0.2", marker="p",
    source="Vaintrob, Mendel, Hänni 2024, section 1.5; d = r²",
    own_readoff=quadratic_readoff, own_source="product of two features' directions (Vaintrob et al. 2024, section 1.5)",
    reads=lambda task: isinstance(task, PairTask), check=lambda d: root(d),
)  # fmt: skip
def quadratic(m: int, d: int, seed: int, frame: Float[Tensor, "r m"] | None = None) -> FirstLayer:
    """Make the layer of d = r² squares that reads random unit vectors of R^r, or the columns of `frame`; bias 0.

    There is no limit on m: the error depends on the coherence of the vectors. Rows of the weights: the r
    squares v_i², then (v_i + v_j)² for i < j in lexicographic order, then (v_i − v_j)². In the frame's precision.

    Raises InputError for m < 2, d that is not a square, or a frame that is not r × m with columns of length 1.
    """
    check_whole(2, m=m)
    r = root(d)
    if frame is None:
        frame = torch.randn(r, m, generator=seeded(seed))
        frame = frame / frame.norm(dim=0, keepdim=True)
    _check_frame(frame, r, m)
    i, j = torch.triu_indices(r, r, 1, device=frame.device)
    weight = torch.cat([frame, frame[i] + frame[j], frame[i] - frame[j]])
    return FirstLayer(weight, frame.new_zeros(d), "quadratic", ORIGIN)


def layer_frame(layer: nn.Module) -> Float[Tensor, "r m"]:
    """Return the features' directions, from the layer's weights. Raises InputError unless `quadratic` made the layer."""
    if not (isinstance(layer, FirstLayer) and layer.origin == ORIGIN and layer.activation == "quadratic"):
        raise InputError("this needs the layer of the quadratic construction: use a fitted readoff here")
    return layer.weight.detach()[: root(layer.width)]


def _form(first: Float[Tensor, "r pairs"], second: Float[Tensor, "r pairs"]) -> Float[Tensor, "pairs neurons"]:
    """Return readoffs of (v·f)(v·g) for each pair of columns: Σ f_i g_i v_i² + Σ_{i<j} (f_i g_j + f_j g_i) v_i v_j."""
    i, j = torch.triu_indices(len(first), len(first), 1, device=first.device)
    mixed = (first[i] * second[j] + first[j] * second[i]) / 4
    return torch.cat([first * second, mixed, -mixed]).T.contiguous()


def root(d: int) -> int:
    """Return r of a layer of d = r² neurons. Raises InputError for d < 1 or a d that is not a square."""
    check_whole(1, d=d)
    r = math.isqrt(d)
    if r * r != d:
        raise InputError(f"d = {d} is no square: the quadratic layer has r² neurons, such as {r * r} or {(r + 1) ** 2}")
    return r


def _check_frame(frame: Float[Tensor, "rows columns"], r: int, m: int) -> None:
    if frame.shape != (r, m):
        raise InputError(
            f"the frame has shape {tuple(frame.shape)}: d = {r * r} neurons and m = {m} features need ({r}, {m})"
        )
    if not bool(((frame.norm(dim=0) - 1).abs() < 1e-5).all()):
        raise InputError("the columns of the frame are the features' directions: each must have length 1")
