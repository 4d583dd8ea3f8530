"""The one ruler: errors of any network on any task, over all inputs or a stated sample of them.

Everything is added up block by block (`tallies`), so memory does not grow with inputs × outputs. On sparse inputs nearly
every output is in case 0 (no feature on): a whole block counts as case 0, less the few outputs that are listed apart.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.core.features import Inputs
from toymodels.core.layers import FirstLayer, IdentityLayer, activations, inner
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.fast.tallies import HUNDREDTHS, Room, Tallies
from toymodels.parallel.threads import in_threads

QUANTILES = (0.5, 0.9, 0.99, 0.999)
TOLERANCES = (0.05, 0.1, 0.25, 0.5)
HISTOGRAM_EDGES = np.linspace(-1.0, 2.0, 301)
"""Outputs are binned linearly for histograms; what lies outside is counted in the first or last bin."""

# A block of errors and its few copies stay in cache, and are long work beside the calls that Python makes for each.
_ROWS, _COLUMNS = 1024, 512
# Outputs listed apart are held up to this number (or one block's) before they are added.
_HELD = 2**18
# Inputs are dealt out in so many parts, whatever the number of threads: so the sums do not depend on it.
_PARTS = 32


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
    """Quantiles of |error|, exact to 0.5 % from 10^-12 to 5·10^6; 0 below, the worst error above."""
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
    inputs' device. On a CPU, with the first layers, linear readoffs and pair tasks of this package, it uses
    `torch.get_num_threads()` threads of its own, and their number changes no figure; modules and tasks of your own are
    called from the caller's thread alone.

    Raises InputError if network, task and inputs do not fit together, a tolerance is negative or an output is not finite.
    """
    if inputs.m != task.m:
        raise InputError(f"the inputs have {inputs.m} features and the task {task.m}: they must be the same")
    if min(tolerances, default=0) < 0:
        raise InputError(f"the tolerance {min(tolerances):g} is negative: a size of errors is at least 0")
    network = copy.deepcopy(network).to(device=inputs.indices.device, dtype=dtype).eval()
    blocks = _row_blocks(inputs)
    parts = [blocks[i * len(blocks) // _PARTS : (i + 1) * len(blocks) // _PARTS] for i in range(_PARTS)]
    walk = _Walk(network, task, inputs, dtype, tolerances)
    found = _in_any_order(walk.part, [part for part in parts if part], walk.threads)
    total = found[0]
    for part in found[1:]:
        total.merge(part)
    return _result(total, task, inputs)


def _row_blocks(inputs: Inputs) -> list[slice]:
    """Blocks of inputs, all of one probability in each where it changes rarely (as in an enumeration)."""
    n = len(inputs)
    rows = min(_ROWS, max(_ROWS // 4, math.ceil(n / 8)))
    law = inputs.probabilities
    changes = (torch.nonzero(law[1:] != law[:-1]).reshape(-1) + 1).tolist()
    cuts = sorted({*range(0, n, rows), *(changes if len(changes) <= max(_PARTS, n // rows) else ()), n})
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


def _in_any_order(measure: Callable[[list[slice]], Tallies], parts: list[list[slice]], threads: int) -> list[Tallies]:
    """The tallies of every part, in the parts' order; each thread takes the next part when it is free."""
    found: list[Tallies | None] = [None] * len(parts)
    queue = iter(range(len(parts)))

    def run(_: int) -> None:
        try:
            for i in queue:
                found[i] = measure(parts[i])
        except BaseException:
            list(queue)  # the others stop at their next part
            raise

    in_threads(run, threads)
    return [tallies for tallies in found if tallies is not None]


class _Walk:
    """Blocks of inputs × blocks of outputs. Blocks of errors are held transposed, an output a row: the cases of a pair
    are then sums of whole rows of bits, and the weights of the readoff are read as they lie in memory."""

    def __init__(
        self, network: Network, task: Task, inputs: Inputs, dtype: torch.dtype, tolerances: Sequence[float]
    ) -> None:
        self.network, self.task, self.inputs, self.dtype, self.tolerances = network, task, inputs, dtype, tolerances
        self.device = inputs.indices.device
        self.linear = network.readoff if type(network.readoff) is LinearReadoff else None
        self.pairs = task.pairs.to(self.device).T.contiguous() if type(task) is PairTask else None
        known = self.linear is not None and self.pairs is not None
        known = known and type(inner(network.layer)) in (FirstLayer, IdentityLayer)
        self.threads = torch.get_num_threads() if known and self.device.type == "cpu" else 1

    @torch.no_grad()
    def part(self, blocks: list[slice]) -> Tallies:
        """The tallies of some blocks of inputs."""
        tallies = Tallies(len(self.task.truth), self.tolerances, self.task.n_outputs)
        room = Room()
        for rows in blocks:
            self._rows(rows, tallies, room)
        return tallies

    def _rows(self, rows: slice, tallies: Tallies, room: Room) -> None:
        x = self.inputs.dense(rows, self.dtype)
        a = activations(self.network.layer, x, self.inputs.indices[rows])
        law = self.inputs.probabilities[rows] / self.task.n_outputs
        weight = float(law[0]) if bool((law == law[0]).all()) else law
        bits = x.to(torch.uint8).T.contiguous() if self.pairs is not None else None
        listed = _Listed(self.task.truth, tallies, weight, room)
        for start in range(0, self.task.n_outputs, _COLUMNS):
            outputs = slice(start, min(start + _COLUMNS, self.task.n_outputs))
            error = self._read(a, outputs, room)
            cases = self._cases(x, bits, outputs, room).reshape(-1)
            if self.task.truth[0]:
                error -= self.task.truth[0]
            places = _nonzero(cases)
            flat = error.reshape(-1)
            listed.add(flat.take(places), cases.take(places), places, start, len(x))
            flat.index_fill_(0, places, 0)
            if isinstance(weight, Tensor):
                each = weight.repeat(len(error), 1)
                each.view(-1).index_fill_(0, places, 0)
                largest = tallies.add(0, error, each, 0, room)
            else:
                largest = tallies.add(0, error, weight, len(places), room)
            worst = tallies.output_worst[outputs]
            np.maximum(worst, largest.cpu().numpy(), out=worst)
        listed.flush()

    def _read(self, a: Float[Tensor, "batch neurons"], outputs: slice, room: Room) -> Float[Tensor, "outputs batch"]:
        """Outputs of a slice, transposed, in a buffer."""
        shape = (outputs.stop - outputs.start, len(a))
        out = room.take("read", shape, self.dtype, self.device)
        if self.linear is not None:
            weight = self.linear.weight[outputs]
            if len(weight) == len(out):
                return torch.addmm(self.linear.bias[outputs, None], weight, a.T, out=out)
            found: tuple[int, ...] = (len(a), len(weight))
        else:
            read = self.network.readoff(a, outputs)
            if read.shape == shape[::-1]:
                return out.copy_(read.T)
            found = tuple(read.shape)
        raise InputError(
            f"the readoff returned shape {found} for {len(a)} inputs and "
            f"{len(out)} outputs of the task {self.task.name}: it reads another number of outputs"
        )

    def _cases(self, x: Tensor, bits: Tensor | None, outputs: slice, room: Room) -> Tensor:
        """Cases of a slice, transposed: (outputs, batch)."""
        if self.pairs is None or bits is None:
            return self.task.cases(x, outputs).T.contiguous()
        first, second = self.pairs[:, outputs]
        cases = room.take("cases", (len(first), len(x)), torch.uint8, self.device)
        torch.index_select(bits, 0, first, out=cases)
        return cases.mul_(2).add_(bits.index_select(0, second))


class _Listed:
    """Errors in the cases other than 0, from blocks of outputs that share their inputs, until there are enough to add."""

    def __init__(self, truth: Sequence[int], tallies: Tallies, weight: Tensor | float, room: Room) -> None:
        self.truth, self.tallies, self.weight, self.room = truth, tallies, weight, room
        self.held: list[tuple[Tensor, ...]] = []
        self.count = 0
        self.weighted = isinstance(weight, Tensor)

    def add(self, errors: Tensor, cases: Tensor, places: Tensor, start: int, batch: int) -> None:
        """Outputs less the target of case 0, at their places in a block of outputs from `start` on, each with `batch` inputs."""
        self.held.append((errors, cases, places // batch + start, *([places % batch] if self.weighted else [])))
        self.count += len(errors)
        if self.count >= _HELD:
            self.flush()

    def flush(self) -> None:
        """Adds all that is held."""
        if self.count:
            errors, cases, outputs, *rows = (torch.cat(parts) for parts in zip(*self.held, strict=True))
            worst = torch.from_numpy(self.tallies.output_worst)
            for case in range(1, len(self.truth)):
                on = torch.nonzero(cases == case).reshape(-1)
                if len(on):
                    error = errors.take(on) - (self.truth[case] - self.truth[0])
                    weight = self.weight[rows[0][on]] if isinstance(self.weight, Tensor) else self.weight
                    self.tallies.add(case, error, weight, 0, self.room)
                    worst.scatter_reduce_(0, outputs.take(on).cpu(), error.abs().double().cpu(), "amax")
        self.held, self.count = [], 0


def _nonzero(cases: Tensor) -> Tensor:
    """Places of a flat tensor that are not 0 (on a CPU NumPy finds them in a third of torch's time)."""
    if cases.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(cases.numpy() != 0))
    return torch.nonzero(cases).reshape(-1)


def _result(tallies: Tallies, task: Task, inputs: Inputs) -> Evaluation:
    truth, number = np.array(task.truth), np.arange(len(task.truth))
    zeros, ones = (_group(tallies, truth == value) for value in (0, 1))
    histogram = np.stack([_histogram(tallies.bins[truth == value].sum(0), value) for value in (0, 1)])
    return Evaluation(
        worst_error=float(tallies.worst.max()),
        rms=math.sqrt(tallies.second.sum() / tallies.mass.sum()),
        zeros=zeros,
        ones=ones,
        cases=tuple(_group(tallies, number == case) for case in number),
        within=_within(tallies, number >= 0),
        inputs=inputs.description,
        n_inputs=len(inputs),
        n_outputs=task.n_outputs,
        output_worst=torch.from_numpy(tallies.output_worst),
        histogram=histogram / histogram.sum(1, keepdims=True).clip(min=1e-300),
    )


def _group(tallies: Tallies, chosen: np.ndarray) -> Group:
    mass = float(tallies.mass[chosen].sum())
    if mass == 0:
        return Group(0.0, 0.0, 0.0, 0.0, {str(q): 0.0 for q in QUANTILES}, _within(tallies, chosen))
    shares = tallies.bins[chosen].sum((0, 1)).cumsum() / mass
    # The middle of the first bin by which the share q is reached; the last bin has all that lies above it, too.
    place = np.minimum(np.searchsorted(shares, np.array(QUANTILES) - 1e-12), len(shares) - 1)
    values = np.where(place > 0, (HUNDREDTHS[place] + HUNDREDTHS[place + 1]) / 200, 0.0)
    worst = float(tallies.worst[chosen].max())
    values[place == len(shares) - 1] = worst
    return Group(
        share=mass / float(tallies.mass.sum()),
        mean=float(tallies.first[chosen].sum()) / mass,
        rms=math.sqrt(float(tallies.second[chosen].sum()) / mass),
        worst=worst,
        quantiles={str(q): min(float(v), worst) for q, v in zip(QUANTILES, values, strict=True)},
        within=_within(tallies, chosen),
    )


def _within(tallies: Tallies, chosen: np.ndarray) -> dict[str, float]:
    mass = float(tallies.mass[chosen].sum())
    shares = tallies.within[chosen].sum(0).tolist()
    return {
        f"{t:g}": min(share / mass, 1.0) if mass else 1.0 for t, share in zip(tallies.tolerances, shares, strict=True)
    }


def _histogram(bins: Float[np.ndarray, "2 bins"], target: int) -> Float[np.ndarray, " bars"]:
    """Mass of outputs over HISTOGRAM_EDGES from that of the errors: a bin above 0 begins at target + its lower end, one
    below 0 at target − its upper end. (The first below 0 is rounding's: it counts as 0.)"""
    above = HUNDREDTHS[:-1]
    below = np.append(0.0, -HUNDREDTHS[2:])
    bars = len(HISTOGRAM_EDGES) - 1
    places = np.floor(np.stack([above, below]) + 100 * (target - HISTOGRAM_EDGES[0])).clip(0, bars - 1)
    return np.bincount(places.astype(np.int64).reshape(-1), bins.reshape(-1), bars)
