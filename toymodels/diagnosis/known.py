"""Networks whose nature is known by construction, or by their loss, to find out how often `diagnose` is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """A kind of network: `function(n, d, seeds)` returns a network and its task for each seed; `trained` ones also take steps."""

    nature: str | None
    """The verdict that is right; None for border cases, and for trained networks, whose nature depends on the training."""
    gates: tuple[int, int] | None = None
    """Features and neurons of a network that computes the AND of all pairs; None if it computes ReLU of each feature."""


KNOWN = Registry("known nature", KnownNature, "toymodels.diagnosis.known_gates")
"""Kinds of networks by name."""


def _inputs(n: int, seed: int) -> Tensor:
    """Draw the inputs that scales of decoders are fitted to."""
    return SparseFeatures.independent(n, usual_probability(n), "symmetric").sampled(8_000, seed + 500).dense().double()


def _relu(n: int) -> Task:
    return make_task("relu", n)


def _degree(n: int, d: int, k: int) -> int:
    """Return the degree nearest to k, k or more, for which n·degree is a multiple of d."""
    return next(degree for degree in range(k, k + d) if n * degree % d == 0)


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
def naive(n: int, d: int, seeds: Sequence[int]) -> list[Known]:
    """Give d features a neuron each, with scales of their own and 1 % noise on all weights."""
    return [(network(*naive_weights(n, d, seed)), _relu(n)) for seed in seeds]


@KNOWN("naive_trained", nature=None, source="arXiv:2607.04800, q = 2", order=1)
def naive_trained(n: int, d: int, seeds: Sequence[int], steps: int) -> list[Known]:
    """Train on the squared error, which leads to the naive network after a long time."""
    return _trained(n, d, seeds, steps, 2.0)


@KNOWN("designed_code", nature="sparse code", source="arXiv:2607.04800", order=10)
def designed(n: int, d: int, seeds: Sequence[int]) -> list[Known]:
    """Design a biregular binary code with about 5 neurons a feature."""
    return _designed(n, d, seeds, 5)


def _designed(n: int, d: int, seeds: Sequence[int], k: int) -> list[Known]:
    degree = _degree(n, d, k)
    return [(designed_code(biregular(n, d, degree, seed, 5_000), _inputs(n, seed)), _relu(n)) for seed in seeds]


@KNOWN("l4_trained", nature=None, source="arXiv:2607.04800, q = 4", order=11)
def l4_trained(n: int, d: int, seeds: Sequence[int], steps: int) -> list[Known]:
    """Train on the fourth power, which leads to a sparse code."""
    return _trained(n, d, seeds, steps, 4.0)


def _trained(n: int, d: int, seeds: Sequence[int], steps: int, q: float, tied: bool = False) -> list[Known]:
    recipe = Recipe(n, d, usual_probability(n), q=q, steps=steps, batch=256, tied=tied)
    stack = train_stack(recipe, seeds)
    return [(stack.network(i), _relu(n)) for i in range(len(seeds))]


@KNOWN("dense_design", nature="dense code", source="this library", order=20)
def dense_design(n: int, d: int, seeds: Sequence[int]) -> list[Known]:
    """Design a biregular code in which every feature is read by two neurons of five."""
    return _designed(n, d, seeds, 2 * d // 5)


@KNOWN("gaussian", nature=None, source="random layer", order=62)
def gaussian(n: int, d: int, seeds: Sequence[int]) -> list[Known]:
    """Draw a Gaussian first layer, and decode it by its scaled pseudo-inverse."""
    known: list[Known] = []
    for seed in seeds:
        w_in = torch.randn(d, n, generator=seeded(seed)).double()
        known.append((pinv_decoder(w_in, _inputs(n, seed)), _relu(n)))
    return known


@KNOWN("linear_copy", nature="linear copy", source="arXiv:2606.14673", order=30)
def linear_copy(n: int, d: int, seeds: Sequence[int]) -> list[Known]:
    """Copy 1 + M for positive inputs by semi-NMF; M asymmetric with σ = 0.3/√n."""
    problems = [_mixed_problem(n, d, seed) for seed in seeds]
    return [(factor_network(problem, seed), problem.task) for problem, seed in zip(problems, seeds, strict=True)]


def _mixed_problem(n: int, d: int, seed: int) -> Compressed:
    M = mixing_matrix("asymmetric", n, 0.3 / n**0.5, seed)
    assert M is not None
    return Compressed(n, d, mixing=M.double().numpy(), single=True)


@KNOWN("linear_map", nature="linear copy", source="this library", order=31)
def linear_map(n: int, d: int, seeds: Sequence[int]) -> list[Known]:
    """Compute the best linear map of rank d/2 for x/2 + M x, as ReLU(v) − ReLU(−v) of each singular vector."""
    known: list[Known] = []
    for seed in seeds:
        problem = _mixed_problem(n, d, seed)
        left, values, right = np.linalg.svd(problem.target - np.eye(n) / 2)
        w_in = torch.from_numpy(np.concatenate([right[: d // 2], -right[: d // 2]]))
        half = left[:, : d // 2] * values[: d // 2]
        w_out = torch.from_numpy(np.concatenate([half, -half], axis=1))
        known.append((network(w_in, w_out), problem.task))
    return known


def _half_naive(n: int, d: int, seed: int, own: int) -> Known:
    """Join a naive network of `own` neurons and a designed code of the others."""
    first_in, first_out = naive_weights(own, own, seed, 0.0)
    rest, left = n - own, d - own
    code = designed_code(biregular(rest, left, _degree(rest, left, 3), seed, 3_000), _inputs(rest, seed))
    layers = two_layer(code, rest, rest)
    second_in, second_out = torch.from_numpy(layers.w_in), torch.from_numpy(layers.w_out)
    join = torch.block_diag
    return network(join(first_in, second_in), join(first_out, second_out)), _relu(n)


@KNOWN("mixed", nature="mixed", source="this library", order=40)
def mixed(n: int, d: int, seeds: Sequence[int]) -> list[Known]:
    """Give half of the neurons a feature each, and let the rest share the others by a designed code."""
    return [_half_naive(n, d, seed, d // 2) for seed in seeds]


@KNOWN("random", nature="undecided", source="random network", order=50)
def random(n: int, d: int, seeds: Sequence[int]) -> list[Known]:
    """Draw all weights at random, uniform with PyTorch's default scale."""
    known: list[Known] = []
    for seed in seeds:
        generator = seeded(seed)
        w_in = (2 * torch.rand(d, n, generator=generator) - 1) / n**0.5
        w_out = (2 * torch.rand(n, d, generator=generator) - 1) / d**0.5
        known.append((network(w_in, w_out), _relu(n)))
    return known


@KNOWN("tied_trained", nature=None, source="arXiv:2607.04800, tied to the pseudo-inverse", order=60)
def tied_trained(n: int, d: int, seeds: Sequence[int], steps: int) -> list[Known]:
    """Train on the fourth power with W_out = c·pinv(W_in): a code, sparse or not."""
    return _trained(n, d, seeds, steps, 4.0, tied=True)


@KNOWN("noisy_code", nature=None, source="this library", order=61)
def noisy_code(n: int, d: int, seeds: Sequence[int]) -> list[Known]:
    """Add Gaussian noise of a quarter of the on-weights to a designed code: between sparse and dense."""
    known: list[Known] = []
    for (made, task), seed in zip(designed(n, d, seeds), seeds, strict=True):
        weight = torch.from_numpy(two_layer(made, n, n).w_in)
        noise = torch.randn(weight.shape, generator=seeded(seed)).to(weight)
        known.append((pinv_decoder(weight + 0.25 * float(weight.max()) * noise, _inputs(n, seed)), task))
    return known
