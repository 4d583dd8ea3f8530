"""Compute loss and gradients of linear readoffs of pairs without a table of inputs × pairs: fast `loss_and_gradients`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from toymodels.core.dispatch import fast_form
from toymodels.core.features import Inputs
from toymodels.core.losses import Loss, LossValue, LpLoss, loss_and_gradients
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.core.training import step_threads
from toymodels.fast.columns import apply_sparse
from toymodels.fast.gram import SquaredTerm
from toymodels.fast.pair_lp import ActiveTerm, PairTerm, Readings, Rows, rows_of
from toymodels.parallel.threads import n_threads, tiny_is_zero, torch_single_threaded

_PROBE = 16
"""Inputs on which the unit of errors is measured."""
_RANGE = 30
"""Powers of ten by which a power may exceed its unit before float32 may overflow."""
_LEAST_SHARE = {torch.float32: 1e-3, torch.float64: 1e-10}
"""Share of `SquaredTerm.size` below which the sum of a squared loss has lost too many digits to rounding (in float32 the
rounding error is about 1e-7 of that size, so the fourth digit of the sum is wrong)."""
SMALL = 2**18
"""Inputs × outputs up to which a table of them stays in a core's cache (float32: 1 MiB), so that blocks and Gram matrices are no
faster (measured at m from 16 to 50; see `fast.small`)."""
ALONE = 2**23
"""The same for a single thread, which is faster on tables in memory than in blocks: their products are larger. Two threads are
faster in blocks. A squared loss of a batch is faster by Gram matrices."""
_LARGE = 2**24
"""Number of parameters from which an optimiser's pass over them is faster with torch's threads."""


def pairs_apply(network: Network, task: Task, loss: Loss) -> bool:
    """Whether `pair_gradients` can compute it: an L_p loss of a linear readoff of a gate on pairs."""
    return type(loss) is LpLoss and type(task) is PairTask and type(network.readoff) is LinearReadoff


def _applies(
    network: Network, task: Task, inputs: Inputs, loss: Loss, weights: Any, sample: Any = None, precise: bool = False
) -> bool:
    if inputs.values is not None or not pairs_apply(network, task, loss):
        return False
    return sample is not None or not tables_apply(len(inputs) * task.n_outputs, loss, inputs.indices.device, precise)


def tables_apply(size: int, loss: Loss, device: torch.device, precise: bool = False) -> bool:
    """Whether tables of all inputs × outputs, `size` of them, are faster than blocks and Gram matrices."""
    alone = size <= ALONE and device.type == "cpu" and n_threads() == 1
    return size <= SMALL or (alone and (precise or not _squared(loss)))


@fast_form(step_threads, lambda *_: True)
def _step_threads(network: Network, task: Task, inputs: int, loss: Loss, precise: bool) -> AbstractContextManager[None]:
    """Give a small network's step a single torch thread: the work outside of blocks is too short for more."""
    if n_threads() == 1:
        return tiny_is_zero()
    small = inputs * task.n_outputs <= SMALL
    blocks = pairs_apply(network, task, loss) and (precise or not _squared(loss))
    if (small or blocks) and sum(p.numel() for p in network.parameters()) < _LARGE:
        return _one_thread()
    return tiny_is_zero()


@contextmanager
def _one_thread() -> Iterator[None]:
    with tiny_is_zero(), torch_single_threaded():
        yield


def _squared(loss: Loss) -> bool:
    return isinstance(loss, LpLoss) and loss.p == 2


@fast_form(loss_and_gradients, _applies)
def pair_gradients(
    network: Network,
    task: PairTask,
    inputs: Inputs,
    loss: LpLoss,
    weights: Sequence[float],
    sample: Int[Tensor, " pairs"] | None = None,
    precise: bool = False,
) -> LossValue:
    """Add the gradients: of a squared loss from Gram matrices (unless `precise`), of others in blocks of pairs.

    The squared loss is a difference of sums that may be far larger than itself: if rounding spoils too many of its digits,
    it is computed in blocks. The largest error reported is that over the first 16 inputs for a squared loss, and over all
    computed outputs for other losses.
    """
    rows = rows_of(inputs, next(network.readoff.parameters()).dtype)
    reached = None
    if _squared(loss) and not precise:
        reached = _Terms(network, loss, task, weights, sample, True).sum(rows, 1.0)
        least = _LEAST_SHARE.get(rows[0].x.dtype, 1e-3)
        if not reached.power > least * reached.size and math.isfinite(reached.power):
            reached = None
    if reached is None:
        with torch_single_threaded():
            terms = _Terms(network, loss, task, weights, sample, False)
            reached = terms.sum(rows, terms.probe(rows[0]))
            # Powers may have overflowed if the probe's errors were far smaller than the others.
            beyond = loss.p * math.log10(max(reached.worst, 1e-300) / reached.unit)
            if math.isfinite(reached.worst) and beyond > _RANGE:
                reached = terms.sum(rows, reached.worst)
    _, factor = value_and_factor(loss, reached.power / task.n_outputs, reached.unit, task.n_outputs)
    value, _ = value_and_factor(loss, *_in_units_of_the_worst(reached, loss.p, task.n_outputs), task.n_outputs)
    for parameter, gradient in reached.gradients:
        add_gradient(parameter, gradient.mul_(factor))
    return LossValue(value, reached.worst)


def add_gradient(parameter: Tensor, gradient: Tensor) -> None:
    """Add to the gradient that a parameter has, as `backward` does."""
    parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient


def _in_units_of_the_worst(sums: _Sums, p: float | int, n_outputs: int) -> tuple[float, float]:
    """Return (mean power, unit) with the largest |error| for the unit."""
    if not sums.worst or not math.isfinite(sums.worst):
        return sums.power / n_outputs, sums.unit
    return sums.power * (sums.unit / sums.worst) ** p / n_outputs, sums.worst


def value_and_factor(loss: LpLoss, mean: float, unit: float, n_outputs: int) -> tuple[float, float]:
    """Return the loss, and the factor that turns P w sign(e) (|e|/unit)^(p − 1) into its derivative.

    d/do of S^(1/p) is S^(1/p − 1) · slope / N; without the root, p · slope / N. Errors that are all 0 have no slope.
    """
    if mean == 0:
        return 0.0, 0.0
    if loss.root:
        return unit * mean ** (1 / loss.p), mean ** (1 / loss.p - 1) / n_outputs
    return _float_power(unit, loss.p) * mean, loss.p * _float_power(unit, loss.p - 1) / n_outputs


def _float_power(base: float, exponent: float | int) -> float:
    """Return base^exponent, infinite where Python would raise OverflowError."""
    try:
        return float(base**exponent)
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class _Sums:
    unit: float
    power: float
    size: float
    """`SquaredTerm.size` of a squared loss, else 0."""
    worst: float
    gradients: list[tuple[Tensor, Tensor]]


class _Terms:
    """The terms that a loss is made of, on one network."""

    def __init__(
        self,
        network: Network,
        loss: LpLoss,
        task: PairTask,
        weights: Sequence[float],
        sample: Tensor | None,
        squared: bool,
    ):
        assert isinstance(network.readoff, LinearReadoff)
        self.layer, self.readoff, self.p = network.layer, network.readoff, loss.p
        self.task, self.weights, self.sample, self.squared = task, tuple(weights), sample, squared
        self.trained = [p for p in network.layer.parameters() if p.requires_grad]
        self.some = task
        if sample is not None:
            # Outputs with both features on are a term of their own; the others of the sample stand for all pairs.
            share = task.n_outputs / len(sample)
            self.some, self.weights = task.subset(sample), (*(share * w for w in weights[:3]), 0.0)
            self.active_weights = tuple(weights)

    @torch.no_grad()
    def probe(self, rows: Rows) -> float:
        """Return the largest |error| on a few inputs spread over these."""
        x = rows.x[:: max(1, len(rows.x) // _PROBE)]
        readoff = self.readoff
        if self.sample is not None:
            readoff = LinearReadoff(readoff.weight[self.sample], readoff.bias[self.sample])
        low, high = torch.aminmax(readoff(self.layer(x)) - self.some.targets(x))
        return max(-float(low), float(high)) or 1.0

    def sum(self, rows: Sequence[Rows], unit: float) -> _Sums:
        """Return power and gradients over all rows, with errors measured in `unit`."""
        learns = bool(self.trained)
        readings = Readings(self.readoff, self.sample)
        some: SquaredTerm | PairTerm = (
            SquaredTerm(readings, self.some, self.weights, learns)
            if self.squared
            else PairTerm(readings, self.some, self.weights, self.p, unit, learns)
        )
        active = None
        if self.sample is not None:
            active = ActiveTerm(self.readoff, self.task, self.active_weights, self.p, unit)
        power, worst = 0.0, 0.0
        totals: list[Tensor] | None = None
        for part in rows:
            a = apply_sparse(self.layer, part.x, part.indices)
            gradient = torch.zeros_like(a.detach())
            for term in (some, active):
                if term is not None:
                    share, largest = term.add(part, a.detach(), gradient)
                    power, worst = power + share, max(worst, largest)
            if learns:
                slopes = torch.autograd.grad(a, self.trained, gradient, allow_unused=True)
                # Optimisers need contiguous gradients; that of a layer applied by columns comes transposed.
                both = zip(self.trained, slopes, strict=True)
                new = [torch.zeros_like(p) if g is None else g.contiguous() for p, g in both]
                totals = new if totals is None else [old.add_(g) for old, g in zip(totals, new, strict=True)]
        gradients: list[tuple[Tensor, Tensor]] = list(zip(self.trained, totals or [], strict=False))
        if self.readoff.weight.requires_grad:
            gradients += self._readoff_gradients(readings, active)
        return _Sums(unit, power, some.size if isinstance(some, SquaredTerm) else 0.0, worst, gradients)

    def _readoff_gradients(self, readings: Readings, active: ActiveTerm | None) -> list[tuple[Tensor, Tensor]]:
        weight, bias = self.readoff.weight, self.readoff.bias
        if active is None:
            return [(weight, readings.weight_gradient), (bias, readings.bias_gradient)]
        assert readings.chosen is not None
        outputs = torch.cat([readings.chosen, *active.outputs])[None]
        values = torch.cat([readings.weight_gradient, *active.weight_gradients])
        offsets = torch.cat([readings.bias_gradient, *active.bias_gradients])
        return [
            (weight, torch.sparse_coo_tensor(outputs, values, weight.shape, check_invariants=False)),
            (bias, torch.sparse_coo_tensor(outputs, offsets, bias.shape, check_invariants=False)),
        ]
