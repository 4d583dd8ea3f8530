"""Measure the errors of any network on any task, over all inputs or a given sample of them.

Everything in this library is measured by `evaluate`. Errors are added up block by block (`ErrorSums`), so memory does not grow
with inputs × outputs. This is the plain form: a few sums for each case of the task. The fast wing computes the same sums in
fewer passes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.core.dispatch import dispatched
from toymodels.core.features import Inputs
from toymodels.core.layers import check_problem
from toymodels.core.network import Network, as_network
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_kind, check_positive

QUANTILES = (0.5, 0.9, 0.99, 0.999)
TOLERANCES = (0.05, 0.1, 0.25, 0.5)
"""In rising order, each a whole number of hundredths."""
HISTOGRAM_EDGES = np.linspace(-1.0, 2.0, 301)
"""Outputs (or errors) are binned linearly for histograms; those outside are counted in the first or last bin."""

SLACK = 2.0**-18
"""A tolerance is met by |error| ≤ tolerance·(1 + SLACK), 1e-6 above 1/4: a certified worst error of 1/4 is within 1/4."""

# Errors are counted by the leading 16 bits of 100·error as a float32: its sign, exponent and 7 bits of mantissa. In an
# octave these bins have a width of 1/128 of its lower end, so the middle of a bin is within 0.4 % of all errors in it; and
# up to 512 every whole number begins a bin, so the same counts add up to bins of the outputs of width 1/100. There are 64
# octaves from |error| = 2^-40 up: a power of two in the scale makes that the smallest normal float32, and bin 128.
PER_OCTAVE, OCTAVES, SMALLEST = 128, 64, -40
BINS = PER_OCTAVE * OCTAVES
SHIFT = 2.0 ** (SMALLEST + 6 + 126)
HUNDREDTHS = (np.arange(BINS + 1, dtype=np.int32) << 16).view(np.float32).astype(np.float64) * SHIFT
"""100·|error| where each bin begins, ascending from 0, and where the last one ends, shape (bins + 1,).

Errors are scaled down by SLACK before they are binned, so that an error that meets a tolerance lies below the edge at the
tolerance. (An output on an edge of a histogram falls on the side of its target.)"""

_ENTRIES = 2**20
"""Errors that the plain form holds at once."""


@dataclass(frozen=True)
class Group:
    """Errors in some cases of the task. Means and shares are weighted by the inputs' probabilities."""

    share: float
    """Probability that an (input, output) falls in this group."""
    mean: float
    """Mean error; 0 if the readoff is unbiased."""
    rms: float
    """Root mean square error."""
    worst: float
    """Largest |error|; 0 for an empty group."""
    quantiles: dict[str, float]
    """Quantiles of |error|, exact to 0.5 % from 10^-12 to 5·10^6; 0 below, the worst error above."""
    within: dict[str, float]
    """Share of outputs with |error| within each tolerance."""


@dataclass(frozen=True)
class Evaluation:
    """Errors of one network on one task. An error is always output minus target."""

    worst_error: float
    """ε: the largest |error| over all outputs and the given inputs."""
    rms: float
    """Root mean square error over all outputs and inputs, by probability."""
    groups: dict[str, Group]
    """Errors in each named group of the task: zeros and ones by target, or active and inactive."""
    cases: dict[str, Group]
    """Errors in each input case of the task (for a pair: 00, 01, 10, 11)."""
    within: dict[str, float]
    """Share of all outputs with |error| within each tolerance."""
    inputs: str
    """Which inputs these are: all, or a sample."""
    n_inputs: int
    n_outputs: int
    output_worst: Float[Tensor, " outputs"] = field(repr=False)
    """Largest |error| of each output."""
    histogram: dict[str, Float[np.ndarray, " bins"]] = field(repr=False)
    """Shares over HISTOGRAM_EDGES for each group: of the outputs if the task has truth values, else of the errors."""

    @property
    def zeros(self) -> Group:
        """Errors where the target is 0 (interference), of a task with truth values."""
        return self.groups["zeros"]

    @property
    def ones(self) -> Group:
        """Errors where the target is 1, of a task with truth values."""
        return self.groups["ones"]

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers, lists and strings, for JSON."""
        bars = {name: bars.tolist() for name, bars in self.histogram.items()}
        return {**asdict(self), "output_worst": self.output_worst.tolist(), "histogram": bars}


class ErrorSums:
    """Sums over errors by case, in float64, from which an evaluation is computed."""

    def __init__(self, n_cases: int, n_outputs: int, tolerances: Sequence[float | int] = ()):
        """Begin with no errors; `tolerances` are counted in addition to TOLERANCES."""
        self.tolerances = (*TOLERANCES, *tolerances)
        self.mass, self.first, self.second, self.worst = np.zeros((4, n_cases))
        """For each case: its probability, first and second moment of the error, and the largest |error|."""
        self.within = np.zeros((n_cases, len(self.tolerances)))
        """Probability of |error| ≤ tolerance·(1 + SLACK)."""
        self.bins = np.zeros((n_cases, 2, BINS))
        """Probability of each bin of errors: first those ≥ 0, then those below 0."""
        self.output_worst = np.zeros(n_outputs)
        """Largest |error| of each output."""

    def add(
        self,
        error: Float[Tensor, "batch outputs"],
        cases: Int[Tensor, "batch outputs"],
        probabilities: Float[Tensor, " batch"],
    ) -> None:
        """Add the errors of some inputs at all outputs. Raises InputError if one is not finite."""
        check_finite(bool(error.isfinite().all()))
        e, case = error.double().cpu().numpy(), cases.cpu().numpy()
        weight = np.broadcast_to(probabilities.double().cpu().numpy()[:, None] / e.shape[1], e.shape)
        size = np.abs(e)
        np.maximum(self.output_worst, size.max(0, initial=0.0), out=self.output_worst)
        scaled = 100 * (1 - SLACK) * size.clip(max=HUNDREDTHS[-1]).astype(np.float32).astype(np.float64)
        bins = np.clip(np.searchsorted(HUNDREDTHS, scaled, side="right") - 1, 0, BINS - 1)
        for number in range(len(self.mass)):
            on = case == number
            if on.any():
                w = weight[on]
                self.mass[number] += w.sum()
                self.first[number] += w @ e[on]
                with np.errstate(over="ignore"):  # the root mean square is then infinite
                    self.second[number] += w @ e[on] ** 2
                self.worst[number] = max(self.worst[number], size[on].max())
                self.within[number] += [w[size[on] <= t * (1 + SLACK)].sum() for t in self.tolerances]
                np.add.at(self.bins[number], (np.signbit(e[on]).astype(int), bins[on]), w)

    def merge(self, others: ErrorSums) -> None:
        """Add the sums of other blocks."""
        for name in ("mass", "first", "second", "within", "bins"):
            getattr(self, name).__iadd__(getattr(others, name))
        for name in ("worst", "output_worst"):
            np.maximum(getattr(self, name), getattr(others, name), out=getattr(self, name))

    def result(self, task: Task, inputs: Inputs) -> Evaluation:
        """Return the evaluation."""
        groups = {name: list(cases) for name, cases in task.groups.items()}
        return Evaluation(
            worst_error=float(self.worst.max()),
            rms=math.sqrt(self.second.sum() / self.mass.sum()),
            groups={name: self._group(cases) for name, cases in groups.items()},
            cases={name: self._group([case]) for case, name in enumerate(task.case_labels)},
            within=self._within(list(range(len(self.mass)))),
            inputs=inputs.description,
            n_inputs=len(inputs),
            n_outputs=task.n_outputs,
            output_worst=torch.from_numpy(self.output_worst),
            histogram=self._histograms(groups, task.truth),
        )

    def _group(self, cases: list[int]) -> Group:
        mass = float(self.mass[cases].sum())
        if mass == 0:
            return Group(0.0, 0.0, 0.0, 0.0, {str(q): 0.0 for q in QUANTILES}, self._within(cases))
        shares = self.bins[cases].sum((0, 1)).cumsum() / mass
        # The middle of the first bin at which the share q is reached; the last bin also holds everything above it.
        position = np.minimum(np.searchsorted(shares, np.array(QUANTILES) - 1e-12), len(shares) - 1)
        values = np.where(position > 0, (HUNDREDTHS[position] + HUNDREDTHS[position + 1]) / 200, 0.0)
        worst = float(self.worst[cases].max())
        values[position == len(shares) - 1] = worst
        return Group(
            share=mass / float(self.mass.sum()),
            mean=float(self.first[cases].sum()) / mass,
            rms=math.sqrt(float(self.second[cases].sum()) / mass),
            worst=worst,
            quantiles={str(q): min(float(v), worst) for q, v in zip(QUANTILES, values, strict=True)},
            within=self._within(cases),
        )

    def _within(self, cases: list[int]) -> dict[str, float]:
        mass = float(self.mass[cases].sum())
        shares = self.within[cases].sum(0).tolist()
        return {
            f"{t:.10g}": min(share / mass, 1.0) if mass else 1.0
            for t, share in zip(self.tolerances, shares, strict=True)
        }

    def _histograms(
        self, groups: Mapping[str, list[int]], truth: Sequence[int] | None
    ) -> dict[str, Float[np.ndarray, " bins"]]:
        bars = {}
        for name, cases in groups.items():
            target = truth[cases[0]] if truth is not None and cases else 0
            mass = _bars(self.bins[cases].sum(0), target)
            bars[name] = mass / max(mass.sum(), 1e-300)
        return bars


def _bars(bins: Float[np.ndarray, "2 bins"], target: int) -> Float[np.ndarray, " bars"]:
    """Return the mass of outputs over HISTOGRAM_EDGES from that of the errors.

    A bin above 0 begins at target + its lower end, one below 0 at target − its upper end. (The first bin below 0 holds rounding
    errors and counts as 0.)
    """
    above = HUNDREDTHS[:-1]
    below = np.append(0.0, -HUNDREDTHS[2:])
    bars = len(HISTOGRAM_EDGES) - 1
    positions = np.floor(np.stack([above, below]) + 100 * (target - HISTOGRAM_EDGES[0])).clip(0, bars - 1)
    return np.bincount(positions.astype(np.int64).reshape(-1), bins.reshape(-1))  # the last bar has the largest errors


@torch.no_grad()
def evaluate(
    network: nn.Module,
    task: Task,
    inputs: Inputs,
    dtype: torch.dtype = torch.float64,
    tolerances: Sequence[float | int] = (),
) -> Evaluation:
    """Measure the errors of a network, or of any module from (batch, m) to (batch, outputs), on every given input and output.

    Computed in `dtype` (float64: certificates are checked to 1e-6, less than float32's rounding of large readoffs), on the
    inputs' device. On a CPU, the first layers, linear readoffs and pair tasks of this package are measured on
    `torch.get_num_threads()` threads, whose number does not change the result; modules and tasks of your own are called from
    the caller's thread alone. `tolerances` are further ones, whose shares of outputs stand in `within`.

    Raises InputError if network, task and inputs do not fit together, or an output is not finite.
    """
    check_problem(network, task, inputs, "network")
    check_kind(torch.dtype, "torch.float64, or another kind of floating-point numbers", dtype=dtype)
    if not dtype.is_floating_point:
        raise InputError(f"dtype = {dtype}: errors are measured in floating-point numbers, such as torch.float64")
    check_kind((list, tuple), "a list of numbers, such as (0.1, 0.3)", tolerances=tolerances)
    for tolerance in tolerances:
        check_positive(tolerances=tolerance)
    module = copy.deepcopy(network).to(device=inputs.indices.device, dtype=dtype).eval()
    return error_sums(as_network(module, inputs.m), task, inputs, dtype, tolerances).result(task, inputs)


@dispatched
def error_sums(
    network: Network, task: Task, inputs: Inputs, dtype: torch.dtype, tolerances: Sequence[float | int] = ()
) -> ErrorSums:
    """Add up the errors of a network, block by block."""
    sums = ErrorSums(len(task.case_labels), task.n_outputs, tolerances)
    for rows in inputs.blocks(max(1, _ENTRIES // task.n_outputs)):
        x = inputs.dense(rows, dtype)
        outputs, targets = network(x), task.targets(x)
        check_outputs(tuple(outputs.shape), tuple(targets.shape), task)
        sums.add(outputs - targets, task.cases(x), inputs.probabilities[rows])
    return sums


def check_outputs(shape: tuple[int, ...], wanted: tuple[int, ...], task: Task) -> None:
    """Raise InputError if a readoff returned another shape than (inputs, outputs)."""
    if shape != wanted:
        asked = f"{wanted[0]} inputs and {wanted[1]} outputs of the task {task.name}"
        which = f"the task has {task.n_outputs:,}, {task.outputs_in_words}"
        raise InputError(f"the readoff returned shape {shape} for {asked}: it reads another number of outputs; {which}")


def check_finite(finite: bool) -> None:
    """Raise InputError for outputs that are not finite."""
    if not finite:
        raise InputError("an output is not a finite number: the weights of the network have overflowed or hold NaN")
