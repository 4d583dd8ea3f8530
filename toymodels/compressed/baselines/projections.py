"""Networks whose one-hot responses are a projection, R = αP of rank d: the rank floor, and the α that suits E|e|⁴."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from toymodels.compressed.codes import best_scale
from toymodels.compressed.registry import BASELINES, Compressed
from toymodels.compressed.stack import network
from toymodels.core.network import Network
from toymodels.theory import compressed as theory

_PAPER = "arXiv:2607.04800"


def projection(n: int, d: int, seed: int) -> Float[np.ndarray, "n n"]:
    """Draw the projection on a random subspace of d dimensions."""
    theory.check_sizes(n, d)
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((n, d)))[0]
    return np.asarray(basis @ basis.T)


def best_alpha(responses: Float[np.ndarray, "n n"], x: Float[np.ndarray, "inputs n"]) -> float:
    """Compute the α that minimises Σ (α P x − ReLU(x))⁴ over inputs and outputs."""
    return best_scale(torch.from_numpy(x @ responses.T), torch.from_numpy(np.maximum(x, 0)))[0]


def pinv_network(problem: Compressed, seed: int) -> Network:
    """Make a first layer of random non-negative weights and its pseudo-inverse as decoder: R is a projection."""
    w_in = torch.rand(problem.d, problem.n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return network(w_in, torch.linalg.pinv(w_in))


def _rank_samples(problem: Compressed, seed: int) -> list[float]:
    """Compute ‖R − 1‖² of the one-hot responses of three networks with pseudo-inverse decoders."""
    eye = torch.eye(problem.n, dtype=torch.float64)
    return [float(((pinv_network(problem, seed + k)(eye).T - eye) ** 2).sum()) for k in range(3)]


@BASELINES(
    "rank_floor", kind="floor", about="one-hot responses at x = 1: least ‖R − 1‖²", mixed=False,
    domain="every network without biases", measure=_rank_samples, source="Eckart & Young 1936", order=20,
)  # fmt: skip
def rank_floor(problem: Compressed) -> float:
    """Compute the floor n − d for one-hot responses of rank d, which every pseudo-inverse decoder reaches."""
    return problem.n - problem.d


def _single_samples(problem: Compressed, seed: int) -> list[float]:
    """Find the best α for random projections of the size, one x = 1 active at a time."""
    return [best_alpha(projection(problem.n, problem.d, seed + k), np.eye(problem.n)) for k in range(4)]


@BASELINES(
    "single_alpha", kind="best α", about="one feature active: largest best α of αP", mixed=False, reach=0.6,
    domain="exactly one feature active", single=True, measure=_single_samples, source=_PAPER, order=21,
)  # fmt: skip
def single_alpha(problem: Compressed) -> float:
    """Compute the α for responses that are equal in size off the diagonal; for all other projections it is smaller."""
    return theory.single_alpha(problem.n, problem.d)


def _several_samples(problem: Compressed, seed: int) -> list[float]:
    """Find the best α for random projections on samples of inputs."""
    found = []
    for k in range(8):
        x = problem.features.sampled(10_000, seed + 100 + k).dense(dtype=torch.float64).numpy()
        found.append(best_alpha(projection(problem.n, problem.d, seed + k), x))
    return found


@BASELINES(
    "several_alpha", kind="best α", about="several features active: best α of αP", mixed=False, reach=0.9,
    domain="features independent, Gaussian interference (several active)", measure=_several_samples,
    source=f"{_PAPER}, with n/d − 1 for n/d: derived here", order=22,
)  # fmt: skip
def several_alpha(problem: Compressed) -> float:
    """Compute the best α for interference of many features, which counts as Gaussian: no bound, trained networks lie above."""
    return theory.several_alpha(problem.n, problem.d, problem.share)
