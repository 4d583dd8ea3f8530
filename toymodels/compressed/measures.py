"""Measure pointwise networks feature by feature: mean squared error of each output while its feature is active.

The mean over features says how well they are computed, and the coefficient of variation (CV) whether evenly: the naive network,
which computes d of n features exactly, has a good mean and a CV near 1.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.features import Inputs
from toymodels.core.layers import check_problem
from toymodels.core.network import Network, as_network
from toymodels.core.tasks import Task
from toymodels.errors import InputError
from toymodels.tasks.pointwise import PointwiseTask

_ENTRIES = 2**22
"""Errors that are held at once."""


@dataclass(frozen=True)
class FeatureErrors:
    """Errors of a network on a pointwise task, feature by feature."""

    mse: Float[Tensor, " n"]
    """E (output_i − target_i)² over inputs with x_i > 0; not a number for a feature that no input makes positive."""
    power: Float[Tensor, " n"]
    """E target_i² over the same inputs: the error of the output 0, 1/3 for ReLU and values up to 1."""
    loss: float
    """Mean squared error over all inputs and outputs."""
    fourth: float
    """Mean of error⁴ over all inputs and outputs."""
    share: float
    """Probability that a feature is active, p."""
    largest: float
    """Largest |error| over these inputs."""

    @property
    def mean(self) -> float:
        """Mean of `mse` over features."""
        return float(self.mse.mean())

    @property
    def cv(self) -> float:
        """Standard deviation of `mse` over features (divided by n, not n − 1) over its mean; 0 if all errors are 0."""
        return float(self.mse.std(correction=0)) / self.mean if self.mean > 0 else 0.0

    @property
    def loss_per_p(self) -> float:
        """L/p, as arXiv:2606.14673 reports it."""
        return self.loss / self.share


@torch.no_grad()
def feature_errors(network: Network | nn.Module, task: Task, inputs: Inputs) -> FeatureErrors:
    """Measure the errors of each output while its feature is positive, and over all inputs.

    Raises InputError for a task that is not pointwise, inputs of another size, or a feature that is never positive in them.
    """
    check_pointwise(task)
    check_problem(network, task, inputs, "network")
    made = as_network(copy.deepcopy(network).eval(), task.m)
    sums = torch.zeros(3, task.m, dtype=torch.float64)
    loss = fourth = share = largest = 0.0
    for rows in inputs.blocks(max(1, _ENTRIES // task.m)):
        x = inputs.dense(rows, dtype=_dtype(made))
        weight = inputs.probabilities[rows]
        target = task.targets(x).double()
        outputs = made(x)
        if outputs.shape != target.shape:
            raise InputError(
                f"the network has {outputs.shape[1]} outputs and the task {target.shape[1]}: one a feature"
            )
        error = outputs.double().sub_(target)
        if not bool(error.isfinite().all()):
            raise InputError("the network returns numbers that are not finite: a weight is infinite or not a number")
        largest = max(largest, float(error.abs().max()))
        square, positive = error.square_(), (x > 0).double()
        loss += float(weight @ square.mean(1))
        fourth += float(weight @ square.square().mean(1))
        share += float(weight @ (x != 0).double().mean(1))
        sums[0] += weight @ positive
        sums[1] += weight @ square.mul_(positive)
        sums[2] += weight @ target.square_().mul_(positive)
    if not bool((sums[0] > 0).all()):
        never = int((sums[0] == 0).nonzero()[0, 0])
        raise InputError(f"feature {never} is positive in none of {len(inputs):,} inputs: take more, or a larger p")
    return FeatureErrors(sums[1] / sums[0], sums[2] / sums[0], loss, fourth, share, largest)


def check_pointwise(task: Task) -> PointwiseTask:
    """Return the task. Raises InputError unless it is a function of each feature (relu, abs, square, copy)."""
    if not isinstance(task, PointwiseTask):
        name = getattr(task, "name", type(task).__name__)
        raise InputError(
            f"the task {name} is not pointwise: this is for relu, abs, square and copy, with or without mixing"
        )
    return task


def _dtype(network: nn.Module) -> torch.dtype:
    return next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
