"""The one ruler: errors of any network on any task, over all inputs or a stated sample of them.

Everything is accumulated block by block, so memory does not grow with inputs × outputs.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.errors import InputError
from toymodels.features import Inputs
from toymodels.network import Network
from toymodels.tasks import Task

QUANTILES = (0.5, 0.9, 0.99, 0.999)
TOLERANCES = (0.05, 0.1, 0.25, 0.5)
SLACK = 1e-6
"""A tolerance is met by |error| ≤ tolerance + SLACK: a certified worst error of exactly 1/4 is within 1/4."""

# |error| is also binned by its logarithm, for quantiles: 500 bins a decade from 1e-9 to 1e3, 0.46 % each.
_DECADES, _PER_DECADE = (-9, 3), 500
_LOG_BINS = (_DECADES[1] - _DECADES[0]) * _PER_DECADE
# Outputs are binned linearly for histograms; what lies outside is counted in the first or last bin.
HISTOGRAM_EDGES = np.linspace(-1.0, 2.0, 301)
_ROWS, _COLUMNS = 1024, 1024


@dataclass(frozen=True)
class Group:
    """Errors where the target has one value, or in one input case. Means and shares are weighted by the inputs' probabilities."""

    share: float
    """Probability that an (input, output) falls in this group."""
    mean: float
    """Mean error; 0 where the readoff is unbiased."""
    rms: float
    """Root mean square error."""
    worst: float
    """Largest |error|; 0 for an empty group."""
    quantiles: dict[str, float]
    """Quantiles of |error|, exact to 0.5 %."""
    within: dict[str, float]
    """Share of outputs with |error| within each tolerance."""


@dataclass(frozen=True)
class Evaluation:
    """Errors of one network on one task. "Error" is output minus target throughout."""

    worst_error: float
    """ε: the largest |error| over all outputs and all inputs covered."""
    rms: float
    """Root mean square error over all outputs and inputs, by probability."""
    zeros: Group
    """Errors where the target is 0 (interference)."""
    ones: Group
    """Errors where the target is 1."""
    cases: tuple[Group, ...]
    """Errors in each input case of the task (for a pair: 00, 01, 10, 11)."""
    within: dict[str, float]
    """Share of all outputs with |error| within each tolerance."""
    inputs: str
    """How inputs were covered."""
    n_inputs: int
    n_outputs: int
    output_worst: Float[Tensor, " outputs"] = field(repr=False)
    """Largest |error| of each output."""
    histogram: Float[np.ndarray, "values bins"] = field(repr=False)
    """Probability mass of the outputs by target value (row 0 or 1) over HISTOGRAM_EDGES; each row sums to 1."""

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings, for JSON."""
        record = {k: v for k, v in asdict(self).items() if k not in ("output_worst", "histogram")}
        record["cases"] = list(record["cases"])
        record["output_worst"] = self.output_worst.tolist()
        record["histogram"] = self.histogram.tolist()
        return record


@torch.no_grad()
def evaluate(
    network: Network,
    task: Task,
    inputs: Inputs,
    dtype: torch.dtype = torch.float64,
    tolerances: Sequence[float] = TOLERANCES,
) -> Evaluation:
    """Measure a network's errors on every given input and every output of the task.

    Computed in `dtype` (float64: certificates are held to 1e-6, below float32's rounding of large readoffs), on the
    inputs' device. Raises InputError if network, task and inputs do not fit together or an output is not finite.
    """
    if inputs.m != task.m:
        raise InputError(f"the inputs have {inputs.m} features and the task {task.m}: they must be the same")
    device = inputs.indices.device
    network = copy.deepcopy(network).to(device=device, dtype=dtype).eval()
    sums = _Sums(task, tolerances, device)
    for rows in inputs.blocks(_ROWS):
        x = inputs.dense(rows, dtype)
        a = network.layer(x)
        weight = inputs.probabilities[rows] / task.n_outputs
        for start in range(0, task.n_outputs, _COLUMNS):
            outputs = slice(start, min(start + _COLUMNS, task.n_outputs))
            read = network.readoff(a, outputs)
            if read.shape != (len(x), outputs.stop - outputs.start):
                raise InputError(
                    f"the readoff returned shape {tuple(read.shape)} for {len(x)} inputs and "
                    f"{outputs.stop - outputs.start} outputs of the task {task.name}: it reads another number of outputs"
                )
            sums.add(read, task.cases(x, outputs), outputs, weight)
    return sums.finish(inputs)


class _Sums:
    """What is accumulated over blocks, by input case; target values are groups of cases."""

    def __init__(self, task: Task, tolerances: Sequence[float], device: torch.device):
        n = len(task.truth)
        self.truth = torch.tensor(task.truth, device=device)
        self.tolerances = sorted(tolerances)
        self.first, self.second = torch.zeros(2, n, dtype=torch.float64, device=device)
        self.worst = torch.zeros(n, dtype=torch.float64, device=device)
        # levels[c, j]: mass of case c whose |error| exceeds just the j smallest tolerances.
        self.levels = torch.zeros(n, len(tolerances) + 1, dtype=torch.float64, device=device)
        self.sizes = torch.zeros(n * _LOG_BINS, dtype=torch.float64, device=device)
        self.outputs = torch.zeros(n * (len(HISTOGRAM_EDGES) - 1), dtype=torch.float64, device=device)
        self.output_worst = torch.zeros(task.n_outputs, dtype=torch.float64, device=device)

    @property
    def mass(self) -> Tensor:
        """Probability of each case."""
        return self.levels.sum(1)

    def add(
        self,
        read: Float[Tensor, "batch block"],
        cases: Tensor,
        outputs: slice,
        weight: Float[Tensor, " batch"],
    ) -> None:
        error = read - self.truth[cases].to(read.dtype)
        size = error.abs()
        largest = size.amax(0).double()
        if not bool(torch.isfinite(largest).all()):
            raise InputError("an output is not a finite number: the weights of the network have overflowed or hold NaN")
        self.output_worst[outputs] = torch.maximum(self.output_worst[outputs], largest)
        case, flat = cases.reshape(-1), size.reshape(-1)
        mass = weight[:, None].expand_as(error).reshape(-1)
        n = len(self.truth)
        self.first += torch.bincount(case, mass * error.reshape(-1), n)
        self.second += torch.bincount(case, mass * flat * flat, n)
        self.worst.scatter_reduce_(0, case, flat.double(), "amax")
        level = case * self.levels.shape[1]
        for tolerance in self.tolerances:
            level += flat > tolerance + SLACK
        self.levels += torch.bincount(level, mass, self.levels.numel()).reshape(self.levels.shape)
        place = ((flat.log10() - _DECADES[0]) * _PER_DECADE).clamp_(0, _LOG_BINS - 1).long()
        self.sizes += torch.bincount(case * _LOG_BINS + place, mass, n * _LOG_BINS)
        bins = len(HISTOGRAM_EDGES) - 1
        step = HISTOGRAM_EDGES[1] - HISTOGRAM_EDGES[0]
        place = ((read.reshape(-1) - HISTOGRAM_EDGES[0]) / step).clamp_(0, bins - 1).long()
        self.outputs += torch.bincount(case * bins + place, mass, n * bins)

    def finish(self, inputs: Inputs) -> Evaluation:
        groups = [self._group(self.truth == value) for value in (0, 1)]
        number = torch.arange(len(self.truth), device=self.truth.device)
        histogram = self.outputs.reshape(len(self.truth), -1)
        rows = [histogram[self.truth == value].sum(0) for value in (0, 1)]
        return Evaluation(
            worst_error=float(self.worst.max()),
            rms=math.sqrt(float(self.second.sum() / self.mass.sum())),
            zeros=groups[0],
            ones=groups[1],
            cases=tuple(self._group(number == c) for c in range(len(self.truth))),
            within=self._within(number >= 0),
            inputs=inputs.description,
            n_inputs=len(inputs),
            n_outputs=len(self.output_worst),
            output_worst=self.output_worst.cpu(),
            histogram=torch.stack([row / row.sum().clamp(min=1e-300) for row in rows]).cpu().numpy(),
        )

    def _group(self, chosen: Tensor) -> Group:
        mass = float(self.mass[chosen].sum())
        if mass == 0:
            return Group(0.0, 0.0, 0.0, 0.0, {str(q): 0.0 for q in QUANTILES}, self._within(chosen))
        sizes = self.sizes.reshape(len(self.truth), -1)[chosen].sum(0).cumsum(0) / mass
        # The upper end of the first bin by which the share q is reached; the last bin's end is beyond every error.
        place = torch.searchsorted(sizes, torch.tensor(QUANTILES, dtype=torch.float64, device=sizes.device) - 1e-12)
        values = 10 ** ((place.clamp(max=_LOG_BINS - 1) + 1) / _PER_DECADE + _DECADES[0])
        worst = float(self.worst[chosen].max())
        return Group(
            share=mass / float(self.mass.sum()),
            mean=float(self.first[chosen].sum()) / mass,
            rms=math.sqrt(float(self.second[chosen].sum()) / mass),
            worst=worst,
            quantiles={str(q): min(float(v), worst) for q, v in zip(QUANTILES, values, strict=True)},
            within=self._within(chosen),
        )

    def _within(self, chosen: Tensor) -> dict[str, float]:
        mass = float(self.mass[chosen].sum())
        shares = self.levels[chosen].sum(0).cumsum(0)[:-1].tolist()
        return {
            f"{t:g}": min(share / mass, 1.0) if mass else 1.0 for t, share in zip(self.tolerances, shares, strict=True)
        }
