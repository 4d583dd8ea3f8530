"""Compute the weighted L_p loss of a linear readoff of pairs, in blocks of pairs that stay in the processor's cache.

For each block: outputs by one product; targets, weights and powers in place; gradients by two more products. No table of
inputs × pairs is ever held. This module sums Σ P w |e/unit|^p and its gradient up to a factor, which is known only when the
whole sum is (`gradients.pair_gradients`).

The sum may have several terms: every pair (`PairTerm`), or a sample of the pairs plus the outputs whose features are both on
(`ActiveTerm`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.core.features import Inputs
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask
from toymodels.fast.compiled import DTYPES, SLOPES_OF_OUTPUTS, WHOLE, coefficients, subtract_targets, weigh_powers
from toymodels.fast.pairs import tables_of
from toymodels.parallel.threads import n_threads, parallel_for

Activations = Float[Tensor, "inputs neurons"]

_ROWS = 4096
"""Inputs at a time: few enough to leave room for dozens of pairs in a block."""
_ENTRIES = 2**18
"""Inputs × pairs of a block: 1 MiB of float32, about the cache of one core."""
_ALIGN = 8
"""Activations and weights are padded with zeros to a multiple of this width: products of odd width are slower."""


@dataclass(frozen=True)
class Rows:
    """Some inputs, in the forms that the terms need."""

    x: Float[Tensor, "inputs m"]
    columns: Float[Tensor, "m inputs"]
    """x transposed, so that each feature's values are contiguous in memory."""
    indices: Int[Tensor, "inputs width"]
    probability: Float[Tensor, " inputs"]
    """P(x)."""
    even: float | None
    """P(x) if it is the same for all of them."""
    kept: dict[str, Any] = field(default_factory=dict, repr=False)
    """Tables that a term keeps for the next step on the same inputs."""


def rows_of(inputs: Inputs, dtype: torch.dtype) -> list[Rows]:
    """Cut all inputs into rows of a few thousand: the same objects at every call, with the tables that terms keep in them."""
    kept: list[Rows] | None = inputs.kept.get(("rows", dtype))
    if kept is None:
        kept = inputs.kept["rows", dtype] = []
        for rows in inputs.blocks(_ROWS):
            x, probability = inputs.dense(rows, dtype), inputs.probabilities[rows]
            even = float(probability[0]) if bool((probability == probability[0]).all()) else None
            kept.append(Rows(x, x.T.contiguous(), inputs.indices[rows], probability.to(dtype), even))
    return kept


def signed_power(base: Float[Tensor, "*shape"], exponent: float | int, out: Tensor) -> Float[Tensor, "*shape"]:
    """Write sign(base) |base|^exponent into `out`; whole exponents up to 64 by repeated squaring, far faster than pow."""
    whole = int(exponent)
    if exponent != whole or whole > 64:
        return torch.abs(base, out=out).pow_(exponent).copysign_(base)
    if whole == 0:
        return torch.sign(base, out=out)
    # From the highest bit down: square, and multiply if the bit is set.
    power = base
    for bit in f"{whole:b}"[1:]:
        power = torch.mul(power, power, out=out)
        if bit == "1":
            out.mul_(base)
    if power is base:
        return out.copy_(base)
    return out if whole % 2 else out.copysign_(base)


def slopes_of(
    outputs: Float[Tensor, "pairs inputs"],
    p: float | int,
    spare: Tensor,
    bias: Float[np.ndarray, " pairs"],
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    targets: tuple[Any, ...],
    *cases: Any,
) -> tuple[float, float, Float[Tensor, "pairs inputs"]]:
    """Return Σ P w |e|^p, the largest |error| and the slopes P w sign(e) |e|^(p − 1), of outputs without their bias.

    The slopes take the place of the outputs if p is in `WHOLE`, else that of `spare`. `pairs` are the inputs (m × inputs), and
    the features of each pair; `cases` the probabilities P, the coefficients of w, and an array for the slopes' sums over inputs.
    """
    if p in WHOLE:
        power, largest = SLOPES_OF_OUTPUTS[p](outputs.numpy(), bias, *pairs, targets, *cases)
        return power, largest, outputs
    largest = subtract_targets(outputs.numpy(), bias, *pairs, targets)
    slopes = signed_power(outputs, p - 1, spare)
    return weigh_powers(slopes.numpy(), outputs.numpy(), *pairs, *cases), largest, slopes


class Readings:
    """Some rows of a readoff, and the gradient with respect to them."""

    def __init__(self, readoff: LinearReadoff, chosen: Int[Tensor, " pairs"] | None = None):
        self.chosen = chosen
        weight, bias = readoff.weight.detach(), readoff.bias.detach()
        self.weight, self.bias = (weight, bias) if chosen is None else (weight[chosen], bias[chosen])
        self.weight_gradient, self.bias_gradient = torch.zeros_like(self.weight), torch.zeros_like(self.bias)

    def filled(self, outputs: slice, scale: float, out: Tensor) -> Float[Tensor, "pairs filled"]:
        """Write (weight, bias, 0 …)·scale of a slice into a buffer whose other columns are 0."""
        width = self.weight.shape[1]
        out = out[: outputs.stop - outputs.start]
        torch.mul(self.weight[outputs], scale, out=out[:, :width])
        torch.mul(self.bias[outputs], scale, out=out[:, width])
        return out

    def add(self, outputs: slice, gradient: Float[Tensor, "pairs filled"]) -> None:
        """Add to the gradient of a slice."""
        width = self.weight.shape[1]
        self.weight_gradient[outputs] += gradient[:, :width]
        self.bias_gradient[outputs] += gradient[:, width]

    def gather(self, outputs: Int[Tensor, "lists outputs"]) -> Float[Tensor, "lists outputs filled"]:
        """Return (weight, bias, 0 …) of some outputs."""
        width = self.weight.shape[1]
        r = self.weight.new_empty(outputs.numel(), filled_width(width))
        r[:, :width] = self.weight.index_select(0, outputs.reshape(-1))
        r[:, width] = self.bias[outputs.reshape(-1)]
        r[:, width + 1 :] = 0
        return r.reshape(*outputs.shape, -1)

    def scatter_filled(
        self, outputs: Int[Tensor, "lists outputs"], gradient: Float[Tensor, "lists outputs filled"]
    ) -> None:
        """Add to the gradient of some outputs."""
        width, flat = self.weight.shape[1], outputs.reshape(-1)
        gradient = gradient.reshape(len(flat), -1)
        self.weight_gradient.index_add_(0, flat, gradient[:, :width])
        self.bias_gradient.index_add_(0, flat, gradient[:, width])

    def scatter(
        self, outputs: Int[Tensor, " on"], slopes: Float[Tensor, " on"], activations: Float[Tensor, "on neurons"]
    ) -> None:
        """Add slope · (a, 1) to the gradient of each listed output."""
        self.weight_gradient.index_add_(0, outputs, slopes[:, None] * activations)
        self.bias_gradient.index_add_(0, outputs, slopes)


def sums_by_row(
    slopes: Float[Tensor, " on"],
    weight: Float[Tensor, "outputs neurons"],
    rows: Int[Tensor, " on"],
    outputs: Int[Tensor, " on"],
    n: int,
) -> Float[Tensor, "{n} neurons"]:
    """Return Σ slope · weight[output] over the entries of each row; rows are sorted."""
    starts = torch.searchsorted(rows, torch.arange(n, device=rows.device))
    return nn.functional.embedding_bag(outputs, weight, starts, mode="sum", per_sample_weights=slopes)


def filled(activations: Float[Tensor, "inputs neurons"]) -> Float[Tensor, "inputs filled"]:
    """Return (a, 1, 0 …): activations, the factor of the bias, and zeros up to a multiple of _ALIGN."""
    n, width = activations.shape
    result = activations.new_zeros(n, filled_width(width))
    result[:, :width] = activations
    result[:, width] = 1
    return result


def filled_width(width: int) -> int:
    """Return the number of columns of `filled`."""
    return -(-(width + 1) // _ALIGN) * _ALIGN


class PairTerm:
    """Σ P w |e/unit|^p over some inputs and all outputs of a task."""

    def __init__(
        self, readings: Readings, task: PairTask, weights: Sequence[float], p: float | int, unit: float, layer: bool
    ):
        """Keep the weights by case; `layer`: whether the gradient with respect to the activations is wanted."""
        self.readings, self.task, self.p, self.unit, self.layer = readings, task, p, unit, layer
        self.values = tuple(value / unit for value in task.truth)
        self.weights = tuple(map(float, weights))
        # If 00, 01 and 10 have the same target (weight), only outputs with both features on need a correction.
        self.even_targets = len(set(task.truth[:3])) == 1
        self.even_weights = len(set(self.weights[:3])) == 1 and self.weights[0] > 0
        self.base = self.weights[0] if self.even_weights else 1.0

    @torch.no_grad()
    def add(self, rows: Rows, activations: Activations, gradient: Activations) -> tuple[float, float]:
        """Return (power, largest |error|) of some inputs; add to `gradient` (in the activations) and to the readoff's."""
        n, pairs = len(activations), self.task.n_outputs
        if activations.device.type == "cpu" and activations.dtype in DTYPES:
            return self._compiled(rows, activations, gradient)
        a = filled(activations)
        transposed = a.T.contiguous()
        # Unequal probabilities are multiplied into the activations, once for all pairs.
        scale = self.base if rows.even is None else self.base * rows.even
        weighted = a * rows.probability[:, None] if rows.even is None else a
        size = max(8, min(pairs, _ENTRIES // n))
        starts = range(0, pairs, size)
        threads = 1 if a.is_cuda else min(n_threads(), len(starts))
        on = _BothOn.of(self.task, rows, starts) if self.even_targets or self.even_weights else None
        targets = None if self.even_targets else tables_of(self.task).rows_by_case(rows.columns, self.values)
        weights = None if self.even_weights else tables_of(self.task).rows_by_case(rows.columns, self.weights)

        def work(thread: int) -> tuple[float, float, Tensor]:
            blocks = [a.new_empty(size, n) for _ in range(3)]
            r_buffer, g_buffer = a.new_zeros(size, a.shape[1]), a.new_empty(size, a.shape[1])
            total = torch.zeros_like(a)
            power, worst = 0.0, 0.0
            for start in starts[thread::threads]:
                outputs = slice(start, min(start + size, pairs))
                e, slopes, spare = (block[: outputs.stop - start] for block in blocks)
                r = self.readings.filled(outputs, 1 / self.unit, r_buffer)
                torch.mm(r, transposed, out=e)
                places = on.block(start) if on is not None else None
                self._subtract_targets(e, targets(outputs, spare) if targets is not None else None, places)
                low, high = torch.aminmax(e)
                worst = max(worst, -float(low), float(high))
                signed_power(e, self.p - 1, slopes)
                self._weigh(slopes, weights(outputs, spare) if weights is not None else None, places)
                if rows.even is None:
                    power += float(e.mul_(slopes).sum(0) @ rows.probability)
                else:
                    power += float(torch.dot(slopes.view(-1), e.view(-1)))
                self.readings.add(outputs, torch.mm(slopes, weighted, out=g_buffer[: len(e)]).mul_(scale))
                if self.layer:
                    total.addmm_(slopes.T, r)
            return power, worst, total

        results = parallel_for(work, threads)
        if self.layer:
            factor = self.unit * scale if rows.even is not None else self.unit * scale * rows.probability[:, None]
            for _, _, total in results:
                gradient += total[:, : gradient.shape[1]].mul_(factor)
        return scale * sum(result[0] for result in results), self.unit * max(result[1] for result in results)

    def _compiled(self, rows: Rows, activations: Tensor, gradient: Tensor) -> tuple[float, float]:
        """Do the same on the processor: between the products, compiled loops pass twice over a block."""
        a = filled(activations)
        transposed, columns, shares = a.T.contiguous(), rows.columns.numpy(), rows.probability.numpy()
        size = max(8, min(self.task.n_outputs, _ENTRIES // len(a)))
        starts = range(0, self.task.n_outputs, size)
        threads = min(n_threads(), len(starts))
        first, second = tables_of(self.task).features
        targets, cases = coefficients(self.values, shares.dtype), coefficients(self.weights, shares.dtype)

        def work(thread: int) -> tuple[float, float, Tensor]:
            e, spare = a.new_empty(size, len(a)), a.new_empty(0 if self.p in WHOLE else size, len(a))
            r_buffer, g_buffer = a.new_zeros(size, a.shape[1]), a.new_empty(size, a.shape[1])
            total, offsets, sums = torch.zeros_like(a), a.new_zeros(size).numpy(), a.new_empty(size).numpy()
            power, worst = 0.0, 0.0
            for start in starts[thread::threads]:
                outputs = slice(start, min(start + size, self.task.n_outputs))
                n = outputs.stop - start
                pairs = columns, first[outputs], second[outputs]
                r = self.readings.filled(outputs, 1 / self.unit, r_buffer)
                torch.mm(r, transposed, out=e[:n])
                given = offsets[:n], pairs, targets, shares, cases, sums[:n]
                part, largest, slopes = slopes_of(e[:n], self.p, spare[:n], *given)
                worst = max(worst, largest)
                power += part
                self.readings.add(outputs, torch.mm(slopes, a, out=g_buffer[:n]))
                if self.layer:
                    total.addmm_(slopes.T, r)
            return power, worst, total

        results = parallel_for(work, threads)
        if self.layer:
            for _, _, total in results:
                gradient += total[:, : gradient.shape[1]].mul_(self.unit)
        return sum(result[0] for result in results), self.unit * max(result[1] for result in results)

    def _subtract_targets(self, e: Tensor, targets: Tensor | None, places: Tensor | None) -> None:
        if targets is not None:
            e -= targets
            return
        assert places is not None
        if self.values[0]:
            e -= self.values[0]
        if self.values[3] != self.values[0]:
            flat = e.view(-1)
            flat[places] = flat[places] - (self.values[3] - self.values[0])

    def _weigh(self, slopes: Tensor, weights: Tensor | None, places: Tensor | None) -> None:
        if weights is not None:
            slopes *= weights
        elif self.weights[3] != self.base:
            assert places is not None
            flat = slopes.view(-1)
            flat[places] = flat[places] * (self.weights[3] / self.base)


class _BothOn:
    """Positions of the outputs with both features on, block by block."""

    def __init__(self, task: PairTask, rows: Rows, starts: Sequence[int]):
        inputs, outputs = tables_of(task).both_on(rows.indices)
        outputs, order = outputs.sort()
        self.places = outputs * len(rows.indices) + inputs[order]
        ends = torch.searchsorted(outputs, outputs.new_tensor([*starts, task.n_outputs])).tolist()
        self.slices = {start: slice(low, high) for start, low, high in zip(starts, ends, ends[1:], strict=False)}
        self.n = len(rows.indices)

    @classmethod
    def of(cls, task: PairTask, rows: Rows, starts: Sequence[int]) -> _BothOn:
        """Return the table of a task and inputs, made once for all steps on them."""
        if rows.kept.get("task") is not task:
            rows.kept.update(task=task, on=cls(task, rows, starts))
        return rows.kept["on"]

    def block(self, start: int) -> Int[Tensor, " on"]:
        """Return positions in the flattened (outputs, inputs) block that begins with this output."""
        return self.places[self.slices[start]] - start * self.n


class ActiveTerm:
    """Σ P w |e/unit|^p over some inputs and the outputs with both features on, without computing any other output."""

    def __init__(self, readoff: LinearReadoff, task: PairTask, weights: Sequence[float], p: float | int, unit: float):
        """Keep the weights by case, of which only that of 11 counts."""
        self.readoff, self.task, self.weight, self.p, self.unit = readoff, task, float(weights[3]), p, unit
        self.outputs: list[Tensor] = []
        self.weight_gradients: list[Tensor] = []
        self.bias_gradients: list[Tensor] = []

    @torch.no_grad()
    def add(self, rows: Rows, activations: Activations, gradient: Activations) -> tuple[float, float]:
        """Return (power, largest |error|) of some inputs; add to `gradient` (in the activations), and keep the readoff's."""
        inputs, outputs = tables_of(self.task).both_on(rows.indices)
        a, r = activations.index_select(0, inputs), self.readoff.weight.index_select(0, outputs)
        e = (torch.linalg.vecdot(a, r) + self.readoff.bias[outputs] - self.task.truth[3]) / self.unit
        slopes = signed_power(e, self.p - 1, torch.empty_like(e)).mul_(rows.probability[inputs]).mul_(self.weight)
        self.outputs.append(outputs)
        self.weight_gradients.append(slopes[:, None] * a)
        self.bias_gradients.append(slopes)
        gradient += sums_by_row(slopes, self.readoff.weight, inputs, outputs, len(gradient))
        worst = float(e.abs().max()) if len(e) else 0.0
        return float((slopes * e).sum()), self.unit * worst
