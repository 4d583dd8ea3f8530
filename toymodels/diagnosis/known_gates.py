"""Networks for the AND of all pairs whose nature is known by construction, trained ones, and modules trained by plain PyTorch."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from toymodels.compressed.weights import two_layer
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.layers import FirstLayer, make_layer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff, fit_readoff
from toymodels.core.seeds import derive_seed, seeded
from toymodels.core.settings import TrainingSettings
from toymodels.core.tasks import PairTask
from toymodels.core.training import Trainer
from toymodels.diagnosis.known import KNOWN, Known
from toymodels.diagnosis.registry import usual_probability
from toymodels.runs.loop import train
from toymodels.tasks.pointwise import FUNCTIONS, PointwiseTask

SIZE = (16, 60)
"""Features and neurons: 120 gates, so that half of them could have a neuron each."""
STEPS = 1000
"""Steps of Adam of the plain modules."""


def _features(m: int) -> SparseFeatures:
    return SparseFeatures.at_most(m, 2)


@functools.cache
def _problem(m: int) -> tuple[PairTask, Inputs]:
    return PairTask(m, "and"), _features(m).enumerate()


def _read(layer: nn.Module, m: int) -> Known:
    """Read a layer by its minimax readoff."""
    task, inputs = _problem(m)
    return Network(layer, fit_readoff("minimax", layer, task, inputs).readoff).requires_grad_(False), task


def _own_neurons(m: int, count: int, generator: torch.Generator) -> tuple[FirstLayer, Tensor, Tensor]:
    """Give `count` random gates a neuron s·ReLU(x_k + x_l − 1) each; return the layer, the gates and what undoes the scales s."""
    pairs = PairTask(m, "and").pairs
    chosen = torch.randperm(len(pairs), generator=generator)[:count]
    scale = 0.5 + torch.rand(count, generator=generator).double()
    weight = torch.zeros(count, m, dtype=torch.float64)
    weight[torch.arange(count)[:, None], pairs[chosen]] = scale[:, None]
    return FirstLayer(weight, -scale), chosen, 1 / scale


@KNOWN("and_naive", nature="naive", gates=SIZE, source="definition", order=70)
def and_naive(n: int, d: int, seed: int) -> Known:
    """Give d gates a neuron each, ReLU(x_k + x_l − 1), with scales of their own and 1 % noise on all weights."""
    generator, (task, _) = seeded(seed), _problem(n)
    layer, chosen, back = _own_neurons(n, d, generator)
    w_out = torch.zeros(task.n_outputs, d, dtype=torch.float64)
    w_out[chosen, torch.arange(d)] = back
    for w in (layer.weight.data, w_out):
        w += 0.01 * torch.randn(w.shape, generator=generator).double()
    readoff = LinearReadoff(w_out, torch.zeros(task.n_outputs, dtype=torch.float64))
    return Network(layer, readoff).requires_grad_(False), task


@KNOWN("and_copy", nature="linear copy", gates=SIZE, source="docs/theory.md, section 2", order=71)
def and_copy(n: int, d: int, seed: int) -> Known:
    """Draw non-negative weights without biases, at which ReLU does nothing, and read them as well as can be."""
    weight = torch.rand(d, n, dtype=torch.float64, generator=seeded(seed))
    return _read(FirstLayer(weight, torch.zeros(d, dtype=torch.float64)), n)


@KNOWN("and_gaussian", nature="dense code", gates=SIZE, source="Vaintrob, Mendel, Hänni 2024", order=72)
def and_gaussian(n: int, d: int, seed: int) -> Known:
    """Draw a Gaussian first layer, and read it by its minimax readoff."""
    return _read(make_layer("gaussian", n, d, seed), n)


@KNOWN("and_bernoulli", nature="dense code", gates=SIZE, source="arXiv:2408.05451, Theorem 1", order=73)
def and_bernoulli(n: int, d: int, seed: int) -> Known:
    """Draw a Bernoulli layer with the best p for this size (about a half), and read it by its minimax readoff."""
    return _read(make_layer("bernoulli", n, d, seed, s=2), n)


@KNOWN("and_blocks", nature="sparse code", gates=(16, 100), source="affine planes of order 4", order=74)
def and_blocks(n: int, d: int, seed: int) -> Known:
    """Let every neuron read 4 of 16 features, ReLU(Σ − 1), so that every pair is read by d/20; minimax readoff."""
    generator = seeded(seed)
    blocks = torch.cat([_plane()[:, torch.randperm(16, generator=generator)] for _ in range(d // 20)])
    return _read(FirstLayer(blocks, -torch.ones(len(blocks), dtype=torch.float64)), n)


def _plane() -> Tensor:
    """Return the 20 lines of the plane over the field of 4 elements (lines × 16 points): two points share exactly one line."""
    times = torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3], [0, 2, 3, 1], [0, 3, 1, 2]])  # addition is the exclusive or
    x, y = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    upright = [x == c for c in range(4)]
    sloping = [y == (times[slope][x] ^ c) for slope in range(4) for c in range(4)]
    return torch.stack([line.reshape(-1) for line in upright + sloping]).double()


@KNOWN("and_mixed", nature="mixed", gates=SIZE, source="this library", order=75)
def and_mixed(n: int, d: int, seed: int) -> Known:
    """Give half of the neurons a gate each; the other half is a Gaussian layer that the remaining gates are read from."""
    task, _ = _problem(n)
    layer, chosen, back = _own_neurons(n, d // 2, seeded(seed))
    shared = two_layer(_read(make_layer("gaussian", n, d - d // 2, seed), n)[0], n, task.n_outputs)
    weight = torch.cat([layer.weight.detach(), torch.from_numpy(shared.w_in)])
    bias = torch.cat([layer.bias.detach(), torch.from_numpy(shared.b_in)])
    w_out, offset = torch.zeros(task.n_outputs, d, dtype=torch.float64), torch.from_numpy(shared.b_out)
    w_out[:, d // 2 :] = torch.from_numpy(shared.w_out)
    w_out[chosen], offset[chosen] = 0, 0
    w_out[chosen, torch.arange(d // 2)] = back
    return Network(FirstLayer(weight, bias), LinearReadoff(w_out, offset)).requires_grad_(False), task


@KNOWN("and_random", nature="undecided", gates=SIZE, source="random network", order=76)
def and_random(n: int, d: int, seed: int) -> Known:
    """Draw all weights and biases at random, as PyTorch does by default: a network that nobody has trained."""
    return _plain(seed, n, d, _problem(n)[0].n_outputs, 0)


@KNOWN("and_narrow", nature=None, gates=(16, 36), source="this library", order=77)
def and_narrow(n: int, d: int, seed: int) -> Known:
    """Draw a Gaussian layer so narrow that its minimax readoff computes nine gates of ten, more or fewer."""
    return and_gaussian(n, d, seed)


@KNOWN("and_trained", nature=None, gates=SIZE, source="this library", order=78)
def and_trained(n: int, d: int, seed: int) -> Known:
    """Train as `toymodels compare` does (kfac, exponents from 2 to 32), in 200 steps, with its own readoff."""
    task, _ = _problem(n)
    layer = make_layer("gaussian", n, d, derive_seed(seed, "trained layer"))
    made = Network(layer, LinearReadoff.constant(task.n_outputs, d))
    train(Trainer(made, task, _features(n), TrainingSettings(optimiser="kfac", steps=200), seed))
    return made.requires_grad_(False), task


@KNOWN("and_plain", nature=None, gates=SIZE, source="plain PyTorch", order=79)
def and_plain(n: int, d: int, seed: int) -> Known:
    """Train an nn.Sequential with biases on the AND of all pairs by Adam, mean fourth power, without a line of this library."""
    return _plain(seed, n, d, _problem(n)[0].n_outputs, STEPS)


@KNOWN("relu_plain", nature=None, source="plain PyTorch", order=12)
def relu_plain(n: int, d: int, seed: int) -> Known:
    """Train an nn.Sequential with biases on ReLU by Adam, mean fourth power, without a line of this library."""
    return _plain(seed, n, d, n, STEPS)


def _plain(seed: int, n: int, d: int, outputs: int, steps: int) -> Known:
    """Train a plain module as a stranger would: on all inputs with at most two ones, or on sparse values of [−1, 1]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(n, d), nn.ReLU(), nn.Linear(d, outputs))
        task = PointwiseTask(n, FUNCTIONS["relu"], "relu") if outputs == n else _problem(n)[0]
        pairs = torch.triu_indices(n, n, 1)
        ones = torch.cat([torch.zeros(1, n), torch.eye(n), torch.eye(n)[pairs[0]] + torch.eye(n)[pairs[1]]])
        optimiser = torch.optim.Adam(module.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
        for _ in range(steps):
            if outputs == n:
                active = torch.rand(256, n) < usual_probability(n)
                x = (2 * torch.rand(256, n) - 1) * active
                y = torch.relu(x)
            else:
                x, y = ones, ones[:, pairs[0]] * ones[:, pairs[1]]
            optimiser.zero_grad()
            ((module(x) - y) ** 4).mean().backward()
            optimiser.step()
            schedule.step()
    return module.requires_grad_(False), task
