"""Networks whose nature is known by construction, or by their loss, to find out how often `diagnose` is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from toymodels.compressed.baselines.semi_nmf import factor_network
from toymodels.compressed.codes import biregular, designed_code, pinv_decoder
from toymodels.compressed.registry import Compressed
from toymodels.compressed.stack import Recipe, network, train_stack
from toymodels.compressed.weights import two_layer
from toymodels.core.features import SparseFeatures
from toymodels.core.seeds import seeded
from toymodels.core.tasks import Task, make_task
from toymodels.diagnosis.registry import usual_probability
from toymodels.registry import Member, Registry
from toymodels.tasks.pointwise import mixing_matrix

Known = tuple[nn.Module, Task]


@dataclass(frozen=True, kw_only=True)
class KnownNature(Member):
    """A kind of network: `function(n, d, seed)` returns one and its task, or function(n, d, seeds, steps) a list of them."""

    nature: str | None
    """The verdict that is right; None for border cases, and for trained networks, whose nature depends on the training."""
    gates: tuple[int, int] | None = None
    """Features and neurons of a network that computes the AND of all pairs; None if it computes ReLU of each feature."""

    def call(self, offered: Mapping[str, Any], knobs: Mapping[str, Any] | None = None) -> list[Known]:
        """Return a network and its task for each of the `seeds` that are offered."""
        make = super().call
        if "seeds" in self.parameters:
            return list(make(offered, knobs))
        return [make({**offered, "seed": seed}, knobs) for seed in offered["seeds"]]


KNOWN = Registry("known nature", KnownNature, "toymodels.diagnosis.known_gates")
"""Kinds of networks by name."""


def _inputs(n: int, seed: int) -> Tensor:
    """Draw the inputs that scales of decoders are fitted to."""
    return SparseFeatures.independent(n, usual_probability(n), "symmetric").sampled(8_000, seed + 500).dense().double()


def _relu(n: int) -> Task:
    return make_task("relu", n)


def naive_weights(n: int, d: int, seed: int, noise: float = 0.01) -> tuple[Tensor, Tensor]:
    """Draw which features have neurons, a scale for each neuron, and noise on all weights (share of the largest)."""
    generator = seeded(seed)
    chosen = torch.randperm(n, generator=generator)[:d]
    scale = 0.5 + torch.rand(d, generator=generator).double()
    w_in, w_out = torch.zeros(d, n, dtype=torch.float64), torch.zeros(n, d, dtype=torch.float64)
    w_in[range(d), chosen], w_out[chosen, range(d)] = scale, 1 / scale
    for w in (w_in, w_out):
        w += noise * torch.randn(w.shape, generator=generator).double()
    return w_in, w_out


@KNOWN("naive", nature="naive", source="arXiv:2606.14673", order=0)
def naive(n: int, d: int, seed: int) -> Known:
    """Give d features a neuron each, with scales of their own and 1 % noise on all weights."""
    return network(*naive_weights(n, d, seed)), _relu(n)


@KNOWN("naive_trained", nature=None, source="arXiv:2607.04800, q = 2", order=1)
def naive_trained(n: int, d: int, seeds: Sequence[int], steps: int) -> list[Known]:
    """Train on the squared error, which leads to the naive network after a long time."""
    return _trained(n, d, seeds, steps, 2.0)


@KNOWN("designed_code", nature="sparse code", source="arXiv:2607.04800", order=10)
def designed(n: int, d: int, seed: int) -> Known:
    """Design a biregular binary code with about 5 neurons a feature."""
    return _designed(n, d, seed, 5)


def _designed(n: int, d: int, seed: int, k: int, swaps: int = 5_000) -> Known:
    """Design a code of the degree nearest to k, k or more, for which n·degree is a multiple of d."""
    degree = next(degree for degree in range(k, k + d) if n * degree % d == 0)
    return designed_code(biregular(n, d, degree, seed, swaps), _inputs(n, seed)), _relu(n)


@KNOWN("l4_trained", nature=None, source="arXiv:2607.04800, q = 4", order=11)
def l4_trained(n: int, d: int, seeds: Sequence[int], steps: int) -> list[Known]:
    """Train on the fourth power, which leads to a sparse code."""
    return _trained(n, d, seeds, steps, 4.0)


def _trained(n: int, d: int, seeds: Sequence[int], steps: int, q: float, tied: bool = False) -> list[Known]:
    recipe = Recipe(n, d, usual_probability(n), q=q, steps=steps, batch=256, tied=tied)
    stack = train_stack(recipe, seeds)
    return [(stack.network(i), _relu(n)) for i in range(len(seeds))]


@KNOWN("dense_design", nature="dense code", source="this library", order=20)
def dense_design(n: int, d: int, seed: int) -> Known:
    """Design a biregular code in which every feature is read by two neurons of five."""
    return _designed(n, d, seed, 2 * d // 5)


@KNOWN("gaussian", nature=None, source="random layer", order=62)
def gaussian(n: int, d: int, seed: int) -> Known:
    """Draw a Gaussian first layer, and decode it by its scaled pseudo-inverse."""
    w_in = torch.randn(d, n, generator=seeded(seed)).double()
    return pinv_decoder(w_in, _inputs(n, seed)), _relu(n)


@KNOWN("linear_copy", nature="linear copy", source="arXiv:2606.14673", order=30)
def linear_copy(n: int, d: int, seed: int) -> Known:
    """Copy 1 + M for positive inputs by semi-NMF; M asymmetric with σ = 0.3/√n."""
    problem = _mixed_problem(n, d, seed)
    return factor_network(problem, seed), problem.task


def _mixed_problem(n: int, d: int, seed: int) -> Compressed:
    M = mixing_matrix("asymmetric", n, 0.3 / n**0.5, seed)
    assert M is not None
    return Compressed(n, d, mixing=M.double().numpy(), single=True)


@KNOWN("linear_map", nature="linear copy", source="this library", order=31)
def linear_map(n: int, d: int, seed: int) -> Known:
    """Compute the best linear map of rank d/2 for x/2 + M x, as ReLU(v) − ReLU(−v) of each singular vector."""
    problem = _mixed_problem(n, d, seed)
    left, values, right = np.linalg.svd(problem.target - np.eye(n) / 2)
    w_in = torch.from_numpy(np.concatenate([right[: d // 2], -right[: d // 2]]))
    half = left[:, : d // 2] * values[: d // 2]
    w_out = torch.from_numpy(np.concatenate([half, -half], axis=1))
    return network(w_in, w_out), problem.task


@KNOWN("mixed", nature="mixed", source="this library", order=40)
def mixed(n: int, d: int, seed: int) -> Known:
    """Give half of the neurons a feature each, and let the rest share the others by a designed code."""
    own = d // 2
    w_in, w_out = naive_weights(own, own, seed, 0.0)
    code = two_layer(_designed(n - own, d - own, seed, 3, 3_000)[0], n - own, n - own)
    join = torch.block_diag
    return network(join(w_in, torch.from_numpy(code.w_in)), join(w_out, torch.from_numpy(code.w_out))), _relu(n)


@KNOWN("random", nature="undecided", source="random network", order=50)
def random(n: int, d: int, seed: int) -> Known:
    """Draw all weights at random, uniform with PyTorch's default scale."""
    generator = seeded(seed)
    w_in = (2 * torch.rand(d, n, generator=generator) - 1) / n**0.5
    w_out = (2 * torch.rand(n, d, generator=generator) - 1) / d**0.5
    return network(w_in, w_out), _relu(n)


@KNOWN("tied_trained", nature=None, source="arXiv:2607.04800, tied to the pseudo-inverse", order=60)
def tied_trained(n: int, d: int, seeds: Sequence[int], steps: int) -> list[Known]:
    """Train on the fourth power with W_out = c·pinv(W_in): a code, sparse or not."""
    return _trained(n, d, seeds, steps, 4.0, tied=True)


@KNOWN("noisy_code", nature=None, source="this library", order=61)
def noisy_code(n: int, d: int, seed: int) -> Known:
    """Add Gaussian noise of a quarter of the on-weights to a designed code: between sparse and dense."""
    made, task = designed(n, d, seed)
    weight = torch.from_numpy(two_layer(made, n, n).w_in)
    noise = torch.randn(weight.shape, generator=seeded(seed)).to(weight)
    return pinv_decoder(weight + 0.25 * float(weight.max()) * noise, _inputs(n, seed)), task
