"""The networks that do not superpose: output 0, and d features computed exactly by a neuron each."""

from __future__ import annotations

import numpy as np
import torch

from toymodels.compressed.registry import BASELINES, Compressed
from toymodels.compressed.stack import network
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.theory import compressed as theory

_PAPER = "arXiv:2606.14673"


def nothing_network(problem: Compressed, seed: int) -> Network:
    """Make the network of zeros."""
    n, d = problem.n, problem.d
    return network(torch.zeros(d, n), torch.zeros(n, d))


def naive_network(problem: Compressed, seed: int) -> Network:
    """Make the network that computes the first d features exactly, a neuron each, and returns 0 for the others."""
    rows = torch.eye(problem.n)[: problem.d]
    return network(rows, rows.T)


def offset_network(problem: Compressed, seed: int) -> Network:
    """Make the naive network with the constant p/4, the mean of y, on the outputs that it does not compute."""
    made = naive_network(problem, seed)
    bias = torch.zeros(problem.n)
    bias[problem.d :] = problem.share / 4
    rows = torch.eye(problem.n)[: problem.d]
    return Network(made.layer, LinearReadoff(rows.T.contiguous(), bias)).requires_grad_(False)


@BASELINES("nothing", about="output 0: L/p", domain="every M", build=nothing_network, source="definition", order=0)
def nothing(problem: Compressed) -> float:
    """Compute the loss of the output 0."""
    return theory.do_nothing(problem.n, problem.mixing)


@BASELINES("naive", about="d features exactly: L/p", domain="every M", build=naive_network, source=_PAPER, order=1)
def naive(problem: Compressed) -> float:
    """Compute the loss of d features computed exactly, the others and M left out."""
    return theory.naive(problem.n, problem.d, problem.mixing)


@BASELINES(
    "naive_offset", about="d features exactly, p/4 for the rest: L/p", domain="M = 0, features independent, output biases",
    build=offset_network, mixed=False, source=f"{_PAPER}, figure 10; formula derived here", order=2,
)  # fmt: skip
def naive_offset(problem: Compressed) -> float:
    """Compute the loss of d exact features and the mean of y as a constant for the others."""
    return theory.naive_with_offset(problem.n, problem.d, problem.share)


def linear_network(problem: Compressed, seed: int) -> Network:
    """Make the best network without activation function: the best matrix of rank d for 1/2 + M."""
    n, d = problem.n, problem.d
    left, values, right = np.linalg.svd(problem.target - np.eye(n) / 2)
    w_in, w_out = torch.from_numpy(right[:d].copy()), torch.from_numpy(left[:, :d] * values[:d])
    layer = FirstLayer(w_in, torch.zeros(d, dtype=torch.float64), "identity")
    return Network(layer, LinearReadoff(w_out, torch.zeros(n, dtype=torch.float64))).requires_grad_(False)


@BASELINES(
    "linear", about="best network without activation function: L/p", domain="every M, no biases",
    build=linear_network, source="Eckart & Young 1936; derived here", order=3,
)  # fmt: skip
def linear(problem: Compressed) -> float:
    """Compute the loss of the best linear network."""
    return theory.linear(problem.n, problem.d, problem.mixing)
