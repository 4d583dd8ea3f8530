"""Loss and gradients of a network: by blocks of inputs for any task and readoff, faster for linear readoffs of pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from toymodels.core.layers import activations
from toymodels.core.losses import LossSums, LpLoss
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.fast.gram import SquaredTerm
from toymodels.fast.pair_lp import ActiveTerm, PairTerm, Readings, Rows, Term
from toymodels.parallel.threads import by_hand

_PROBE = 16
"""Inputs on which the unit of errors is found."""
_RANGE = 30
"""Powers of ten that a power may lie above its unit before float32 is in danger."""


@dataclass(frozen=True)
class Block:
    """Some inputs with what the loss needs of them."""

    x: Tensor
    targets: Tensor
    weights: Tensor
    """P(x)·w_case for each input and output."""


def loss_and_gradients(network: Network, loss: LpLoss, blocks: Callable[[], Iterator[Block]]) -> LossSums:
    """Add the loss's gradients to the network's parameters; return its sums over all inputs (value, largest error).

    One block: one pass, exact. Several: the p-th root and the scaling need sums over all blocks before any gradient,
    so a first pass without gradients finds them; memory stays that of a block.
    """
    remaining = blocks()
    block, following = next(remaining), next(remaining, None)
    if following is None:
        outputs = network(block.x)
        sums, gradient = loss.sums_and_gradient(outputs.detach() - block.targets, block.targets, block.weights)
        outputs.backward(gradient)
        return sums
    total: LossSums | None = None
    for block in blocks():
        with torch.no_grad():
            part = loss.sums(network(block.x) - block.targets, block.targets, block.weights)
        total = part if total is None else total.join(part, loss.p, loss.apart)
    assert total is not None
    for block in blocks():
        outputs = network(block.x)
        outputs.backward(loss.gradient(outputs.detach() - block.targets, block.targets, block.weights, total))
    return total


def pairs_apply(network: Network, task: Task, loss: LpLoss) -> bool:
    """Whether `pair_gradients` can do it: a linear readoff of pairs, all outputs averaged together."""
    return not loss.apart and isinstance(task, PairTask) and isinstance(network.readoff, LinearReadoff)


def pair_gradients(
    network: Network,
    loss: LpLoss,
    task: PairTask,
    rows: Sequence[Rows],
    weights: Sequence[float],
    sample: Int[Tensor, " pairs"] | None = None,
    squared: bool = True,
) -> LossSums:
    """As `loss_and_gradients`, without a table of inputs × pairs: a squared loss from Gram matrices, others in blocks.

    `weights` by case. With a `sample` of pairs the sum is an unbiased estimate of that over all pairs: outputs with both
    features on are all counted, the others of the sampled pairs stand for those of all. The readoff's gradient is then
    sparse. The largest error of the sums is that of the outputs looked at: without a squared loss, all that are counted.
    """
    terms = _Terms(network, loss, task, weights, sample, squared and loss.p == 2)
    # What a squared loss takes beside its blocks is long enough for torch's own threads.
    with nullcontext() if terms.squared else by_hand():
        found = terms.sum(rows, 1.0 if terms.squared else terms.probe(rows[0]))
        # Powers may have overflowed where the probe's errors were far too small a unit.
        if math.isfinite(found.worst) and loss.p * math.log10(max(found.worst, 1e-300) / found.unit) > _RANGE:
            found = terms.sum(rows, found.worst)
    # Rounding may leave a squared loss of nearly 0 a little below it, where a root has no gradient.
    power = max(found.power, 1e-30) if terms.squared else found.power
    sums = LossSums((found.unit, found.unit), (power, 0.0), (float(task.n_outputs), 1.0))
    factor, _ = loss.factors(sums)
    for parameter, gradient in found.gradients:
        gradient *= factor
        parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
    return sums.in_units(found.worst, loss.p)


@dataclass(frozen=True)
class _Found:
    unit: float
    power: float
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
            # Outputs with both features on are a term of their own; the rest of the sample stands for all pairs.
            share = task.n_outputs / len(sample)
            self.some, self.weights = task.subset(sample), (*(share * w for w in weights[:3]), 0.0)
            self.active_weights = tuple(weights)

    @torch.no_grad()
    def probe(self, rows: Rows) -> float:
        """Largest |error| on a few inputs spread over these."""
        x = rows.x[:: max(1, len(rows.x) // _PROBE)]
        readoff = self.readoff if self.sample is None else self._sampled_readoff()
        low, high = torch.aminmax(readoff(self.layer(x)) - self.some.targets(x))
        return max(-float(low), float(high)) or 1.0

    def _sampled_readoff(self) -> LinearReadoff:
        return LinearReadoff(self.readoff.weight[self.sample], self.readoff.bias[self.sample])

    def sum(self, rows: Sequence[Rows], unit: float) -> _Found:
        """Power and gradients over all rows, with errors in this unit."""
        learns = bool(self.trained)
        readings = Readings(self.readoff, self.sample)
        some: Term = (
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
            a = activations(self.layer, part.x, part.indices)
            gradient = torch.zeros_like(a.detach())
            for term in (some, active):
                if term is not None:
                    share, largest = term.add(part, a.detach(), gradient)
                    power, worst = power + share, max(worst, largest)
            if learns:
                found = torch.autograd.grad(a, self.trained, gradient, allow_unused=True)
                # Optimisers view gradients as vectors; that of a layer made from columns comes transposed.
                new = [
                    torch.zeros_like(p) if g is None else g.contiguous()
                    for p, g in zip(self.trained, found, strict=True)
                ]
                totals = new if totals is None else [old.add_(g) for old, g in zip(totals, new, strict=True)]
        gradients: list[tuple[Tensor, Tensor]] = list(zip(self.trained, totals or [], strict=False))
        if self.readoff.weight.requires_grad:
            gradients += self._readoff_gradients(readings, active)
        return _Found(unit, power, worst, gradients)

    def _readoff_gradients(self, readings: Readings, active: ActiveTerm | None) -> list[tuple[Tensor, Tensor]]:
        weight, bias = self.readoff.weight, self.readoff.bias
        if active is None:
            return [(weight, readings.weight_gradient), (bias, readings.bias_gradient)]
        assert readings.chosen is not None
        place = torch.cat([readings.chosen, *active.outputs])[None]
        values = torch.cat([readings.weight_gradient, *active.weight_gradients])
        offsets = torch.cat([readings.bias_gradient, *active.bias_gradients])
        return [
            (weight, torch.sparse_coo_tensor(place, values, weight.shape, check_invariants=False)),
            (bias, torch.sparse_coo_tensor(place, offsets, bias.shape, check_invariants=False)),
        ]
