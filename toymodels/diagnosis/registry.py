"""The network under diagnosis, and the register of its measures: each one number, with what it can and cannot tell."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from toymodels.compressed.measures import FeatureErrors, feature_errors
from toymodels.compressed.weights import TwoLayer
from toymodels.core.evaluation import evaluate
from toymodels.core.features import Inputs
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import derive_seed
from toymodels.core.tasks import PairTask, Task
from toymodels.layers.null_models import shuffled
from toymodels.registry import Member, Registry
from toymodels.tasks.pointwise import PointwiseTask

ON = 0.3
"""A weight of a neuron counts as on above this share of the neuron's largest one (Dvořák)."""
DRAWS = 3
"""Random layers that a layer is compared with."""
SERVED, COMPUTED = 0.5, 0.1
"""A feature is served, or computed, if its mean squared error is below this share of what the output 0 would have."""


def usual_probability(n: int) -> float:
    """Return the probability of an active feature where none is given: 0.02, or 1/n for fewer than 50 features."""
    return 0.02 if n >= 50 else 1 / n


@dataclass(frozen=True)
class Subject:
    """A network y = W_out ReLU(W_in x + b) + c, the task it should compute, and a sample of inputs."""

    layers: TwoLayer
    task: Task
    inputs: Inputs = field(repr=False)
    seed: int = 0
    _values: dict[str, float] = field(default_factory=dict, repr=False, compare=False)

    def value(self, name: str) -> float:
        """Compute a measure, once for this subject; not a number where it does not apply."""
        if name not in self._values:
            member = MEASURES[name]
            self._values[name] = float(member.call({"subject": self})) if member.speaks_of(self) else math.nan
        return self._values[name]

    @property
    def kind(self) -> Literal["features", "gates"]:
        """What the outputs are: functions of single features, or gates of pairs of features."""
        return "gates" if isinstance(self.task, PairTask) else "features"

    @property
    def pointwise(self) -> PointwiseTask:
        """The task, if it is a function of each feature."""
        assert isinstance(self.task, PointwiseTask)
        return self.task

    @property
    def gate_task(self) -> PairTask:
        """The task, if it is a gate of pairs."""
        assert isinstance(self.task, PairTask)
        return self.task

    @property
    def n(self) -> int:
        """Features."""
        return self.layers.n

    @property
    def d(self) -> int:
        """Neurons."""
        return self.layers.d

    @functools.cached_property
    def network(self) -> Network:
        """The network, in float64."""
        read = self.layers
        w_in, b_in, w_out, b_out = map(torch.tensor, (read.w_in, read.b_in, read.w_out, read.b_out))
        return Network(FirstLayer(w_in, b_in), LinearReadoff(w_out, b_out)).requires_grad_(False)

    @functools.cached_property
    def x(self) -> Float[np.ndarray, "inputs n"]:
        """The inputs of the sample, without their probabilities."""
        return np.asarray(self.inputs.dense(dtype=torch.float64).numpy())

    @functools.cached_property
    def errors(self) -> FeatureErrors:
        """Errors feature by feature on the sample."""
        return feature_errors(self.network, self.task, self.inputs)

    @functools.cached_property
    def clean(self) -> FeatureErrors:
        """The same for the task without its mixing matrix."""
        if self.pointwise.mixing is None:
            return self.errors
        return feature_errors(self.network, PointwiseTask(self.n, self.pointwise.function, "clean"), self.inputs)

    @functools.cached_property
    def share(self) -> Float[np.ndarray, " n"]:
        """Mean squared error of each feature while it is positive, as a share of that of the output 0."""
        return np.asarray((self.errors.mse / self.errors.power.clamp(min=1e-300)).numpy())

    def naive_loss(self, mixed: bool = True) -> float:
        """Compute the squared loss of the naive network: the first d features exactly, the others and (if mixed) M left out."""
        x, M = self.inputs.dense().double(), self.pointwise.mixing
        missing = self.pointwise.function(x) * (torch.arange(self.n) >= self.d)
        if mixed and M is not None:
            missing = missing + x @ M.double().T
        return float(self.inputs.probabilities.double() @ missing.square().mean(1))

    def responses(self, amplitude: float = 1.0) -> Float[np.ndarray, "outputs n"]:
        """Return the outputs (column i) for feature i alone at this amplitude, less those for no feature."""
        x = amplitude * np.eye(self.n)
        return np.asarray((self.layers(x) - self.layers(np.zeros((1, self.n)))).T)

    @functools.cached_property
    def worst(self) -> Float[np.ndarray, " outputs"]:
        """Largest |error| of each output over the inputs."""
        return np.asarray(evaluate(self.network, self.task, self.inputs).output_worst)

    def shuffled_layers(self) -> list[FirstLayer]:
        """Put the weights of the first layer in random places, and its biases, DRAWS times by the subject's seed."""
        return [shuffled(self.network.layer, derive_seed(self.seed + k, "frozen layer")) for k in range(DRAWS)]

    @functools.cached_property
    def used(self) -> np.ndarray:
        """Features whose column of W_in is longer than a tenth of the longest one."""
        length = np.linalg.norm(self.layers.w_in, axis=0)
        return np.flatnonzero(length > 0.1 * length.max()) if length.any() else np.zeros(0, dtype=int)

    @functools.cached_property
    def on(self) -> np.ndarray:
        """Which weights of W_in are on: above ON times the largest of their neuron (neurons × n)."""
        size = np.abs(self.layers.w_in)
        return (size > ON * size.max(1, keepdims=True)) & (size > 0)


@dataclass(frozen=True, kw_only=True)
class Measure(Member):
    """One number of a network: `function(subject)` returns it, or None where it says nothing (with the reason in `cannot`)."""

    tells: str
    """What it can tell, one sentence."""
    cannot: str
    """What it cannot tell, one sentence."""
    of: Literal["features", "gates", "both"] = "features"
    """The tasks that it speaks of: functions of single features, gates of pairs, or both."""
    applies: Callable[[Subject], bool] = lambda subject: True
    """Whether it means something for this network and task."""

    def speaks_of(self, subject: Subject) -> bool:
        """Say whether it means something for this network and task."""
        return self.of in ("both", subject.kind) and self.applies(subject)


MEASURES = Registry("measure", Measure, "toymodels.diagnosis.measures")
"""Measures by name, in the order of tables."""


def measure_all(subject: Subject) -> list[dict[str, Any]]:
    """Compute every measure of this kind of task: rows with name, value, purpose, tells, cannot, source."""
    rows = []
    for member in MEASURES.values():
        if member.of not in ("both", subject.kind):
            continue
        value = subject.value(member.name)
        rows.append({
            "name": member.name, "value": value if np.isfinite(value) else None, "what": member.purpose,
            "tells": member.tells, "cannot": member.cannot, "source": member.source,
        })  # fmt: skip
    return rows
