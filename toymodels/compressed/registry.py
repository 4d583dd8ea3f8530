"""Register baselines and floors of compressed computation: a predicted number each, its source, its domain, a measurement.

A member is a function of a `Compressed` problem that returns the number. `build` makes the network that it speaks of, if there is
one; the measurement beside it is then that network's squared loss per p on sampled inputs. `measure` replaces it for numbers of
another kind. `compare_all` walks the list; so do the tests, which also show that a wrong number is noticed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from toymodels.compressed.measures import feature_errors
from toymodels.compressed.weights import two_layer
from toymodels.core.features import SparseFeatures
from toymodels.core.network import Network
from toymodels.core.seeds import derive_seed
from toymodels.errors import InputError, check_kind, check_whole
from toymodels.registry import Member, Registry
from toymodels.tasks.pointwise import FUNCTIONS, PointwiseTask
from toymodels.theory.compressed import check_mixing, check_probability, check_sizes
from toymodels.theory.statistics import mean_interval


@dataclass(frozen=True)
class Compressed:
    """n features in d neurons: y = ReLU(x) + M x, x_i uniform on [−1, 1] with probability p, or exactly one of them active."""

    n: int = 100
    d: int = 50
    p: float | int = 0.01
    mixing: Float[np.ndarray, "n n"] | None = field(default=None, repr=False)
    """M; None: 0."""
    single: bool = False
    """Exactly one feature active, in place of each with probability p."""

    def __post_init__(self) -> None:
        check_sizes(self.n, self.d)
        check_whole(2, n=self.n)
        check_probability(self.p)
        if self.p == 1:
            raise InputError("p = 1: it must be below 1, so that features can be inactive")
        check_mixing(self.mixing, self.n)

    @property
    def task(self) -> PointwiseTask:
        """The task ReLU(x) + M x."""
        mixing = None if self.mixing is None else torch.from_numpy(self.mixing)
        return PointwiseTask(self.n, FUNCTIONS["relu"], "relu", mixing)

    @property
    def features(self) -> SparseFeatures:
        """The distribution of the inputs."""
        if self.single:
            return SparseFeatures.exactly(self.n, 1, "symmetric")
        return SparseFeatures.independent(self.n, self.p, "symmetric")

    @property
    def share(self) -> float:
        """The probability that a feature is active."""
        return 1 / self.n if self.single else float(self.p)

    @property
    def target(self) -> Float[np.ndarray, "n n"]:
        """T = 1 + M, the answer to a positive feature."""
        return np.eye(self.n) + check_mixing(self.mixing, self.n)

    def one_active(self, network: Network) -> float:
        """Compute L/p with exactly one feature active: (‖R₊ − T‖² + ‖R₋ + M‖²)/(6n), R± the outputs to single features at ±1.

        A network without biases answers x e_i by |x| times its answer to ±e_i. Raises InputError for one with biases.
        """
        layers = two_layer(network, self.n, self.n)
        if layers.b_in.any() or layers.b_out.any():
            raise InputError("the network has biases: its answer to one feature is not proportional to its amplitude")
        eye = np.eye(self.n)
        positive, negative = layers(eye).T - self.target, layers(-eye).T + self.target - eye
        return float((positive**2).sum() + (negative**2).sum()) / (6 * self.n)

    def loss_per_p(self, network: Network, seed: int, inputs: int) -> list[float]:
        """Measure the squared loss per p on eight independent samples of inputs."""
        check_whole(8, inputs=inputs)
        # Divided by the probability itself, not by the share of active features in the sample: that would bias a small one.
        seeds = [derive_seed(seed + 1000 * part, "evaluation") for part in range(8)]
        samples = [self.features.sampled(inputs // 8, number) for number in seeds]
        return [feature_errors(network, self.task, sample).loss / self.share for sample in samples]


@dataclass(frozen=True, kw_only=True)
class Baseline(Member):
    """One predicted number; `function(problem)` computes it."""

    kind: Literal["baseline", "floor", "best α"] = "baseline"
    """baseline: the loss of a known network, reached exactly; floor: no network of the domain is below it; best α: the scale of
    one-hot responses αP that minimises E|e|⁴ under an approximation. Trained networks may lie above the last."""
    about: str
    """Which number of what."""
    domain: str
    """Where it holds."""
    build: Callable[[Compressed, int], Network] | None = None
    """Makes the network (problem, seed)."""
    measure: Callable[[Compressed, int], Sequence[float]] | None = None
    """Returns independent measurements of the number (problem, seed), in place of the losses of the network."""
    single: bool = False
    """Whether it holds for exactly one active feature only."""
    mixed: bool = True
    """Whether it also holds with a mixing matrix."""
    reach: float = 1.0
    """For tests: a measurement lies between the number and this times it; 1 if it is equal but for chance."""

    def applies(self, problem: Compressed) -> bool:
        """Say whether the number holds for this problem."""
        return (problem.single or not self.single) and (problem.mixing is None or self.mixed)

    def predict(self, problem: Compressed) -> float:
        """Compute the number. Raises InputError outside its domain."""
        if not self.applies(problem):
            raise InputError(f"{self.name} holds for {self.domain}: the problem is another one")
        return float(self.function(problem))

    def measured(self, problem: Compressed, seed: int, inputs: int = 40_000) -> Sequence[float]:
        """Measure it: independent numbers, whose mean estimates it."""
        if self.measure is not None:
            return self.measure(problem, seed)
        if self.build is None:
            raise InputError(f"{self.name} is measured on no network")
        return problem.loss_per_p(self.build(problem, seed), seed, inputs)


BASELINES = Registry("baseline", Baseline, "toymodels.compressed.baselines")
"""Baselines, floors and best α by name, in the order of tables."""


def strain(samples: Sequence[float], predicted: float, reach: float = 1.0) -> float:
    """Compute by how many standard errors the mean of samples lies outside [predicted, reach·predicted]; 0 inside.

    Fewer than 10^-9 of the number counts as rounding.
    """
    mean = float(np.mean(samples))
    error = float(np.std(samples, ddof=1)) / math.sqrt(len(samples)) if len(samples) > 1 else 0.0
    low, high = min(predicted, predicted * reach), max(predicted, predicted * reach)
    outside = max(low - mean, mean - high, 0.0)
    return outside / max(error, 1e-9 * abs(predicted), 1e-300)


def compare_all(problem: Compressed, seed: int = 0, inputs: int = 40_000) -> list[dict[str, Any]]:
    """Predict and measure every baseline that applies: a row each."""
    check_kind(Compressed, "a Compressed problem, such as Compressed(100, 50, 0.01)", problem=problem)
    check_whole(0, seed=seed)
    rows = []
    for member in BASELINES.values():
        if not member.applies(problem):
            continue
        mean, half = mean_interval(member.measured(problem, seed, inputs))
        about = {"name": member.name, "kind": member.kind, "about": member.about, "domain": member.domain}
        numbers = {"predicted": member.predict(problem), "measured": mean, "half_interval": half}
        rows.append({**about, **numbers, "source": member.source})
    return rows
