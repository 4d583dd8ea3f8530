"""Compute the weighted squared loss without computing the outputs.

If targets and weights are bilinear in (x_k, x_l), as for every gate and all weights by case, the sum of w (o − f)² over all
outputs o = r·ã is a sum of quadratic forms,

    Σ_x P w (o − f)² = r (α G + β G_k + γ G_l + δ G_kl) rᵀ − 2 r·(α' μ + β' μ_k + γ' μ_l + δ' μ_kl) + const,

with G = E[ã ãᵀ] and μ = E[ã] over the batch; a subscript restricts the mean to inputs in which those features are on.
(α … δ) is the bilinear form of the weights, (α' … δ') that of weights times targets (`gates.bilinear`). G costs batch·d²
instead of batch·pairs·d, G_k is needed only if weights or targets are different for 01 or 10 than for 00, and G_kl is a
sum over the few pairs that are on together. The value and the gradients are exactly those of the dense form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from toymodels.core.tasks import PairTask
from toymodels.fast.pair_lp import Activations, Readings, Rows, filled, sums_by_row
from toymodels.fast.pairs import ragged, tables_of
from toymodels.parallel.threads import n_threads, parallel_for
from toymodels.theory.gates import bilinear

_BLOCK = 512
"""Outputs at a time."""
_ENTRIES = 2**22
"""Numbers gathered at a time for the inputs and readoffs of single features."""
_LOOK = 16
"""Inputs on which the largest error is measured."""


class SquaredTerm:
    """Σ P w e² over some inputs and all outputs of a task."""

    def __init__(self, readings: Readings, task: PairTask, weights: Sequence[float], layer: bool):
        """Keep the weights by case; `layer`: whether the gradient with respect to the activations is wanted."""
        self.readings, self.task, self.layer = readings, task, layer
        self.square = bilinear(weights)
        self.valued = [w * f for w, f in zip(weights, task.truth, strict=True)]
        self.cross = bilinear(self.valued)
        self.size = 0.0
        """Sum of the absolute terms: the sum has a rounding error of a share of this, however small the sum itself is."""

    @torch.no_grad()
    def add(self, rows: Rows, activations: Activations, gradient: Activations) -> tuple[float, float]:
        """Return (power, largest |error| on the first 16 inputs); add to `gradient` and to the readoff's gradient."""
        a = filled(activations)
        change = torch.zeros_like(a)
        both = tables_of(self.task).both_on(rows.indices)
        *parts, squares = self._all(rows, a, change)
        parts += [self._one_on(rows, a, change), self._both_on(rows, activations, change, *both)]
        parts.append(self._mass(rows, both[0]))
        self.size += squares + sum(map(abs, parts))
        if self.layer:
            gradient += change[:, : gradient.shape[1]]
        return sum(parts), self._largest(rows, a)

    def _all(self, rows: Rows, a: Tensor, change: Tensor) -> tuple[float, float, float]:
        """Return two parts of α r G rᵀ − 2α' r·μ over all outputs, and α Σ r_j² G_jj.

        The last is the mean square of the outputs if no neurons cancelled each other.
        """
        alpha, cross = self.square[0], self.cross[0]
        weighted = a * rows.probability[:, None]
        gram, mean = alpha * (weighted.T @ a), cross * weighted.sum(0)
        spread = gram.diagonal().sqrt()
        starts = range(0, self.task.n_outputs, _BLOCK)
        threads = 1 if a.is_cuda else min(n_threads(), len(starts))

        def work(thread: int) -> tuple[float, Tensor, Tensor, float]:
            buffer, product = a.new_zeros(_BLOCK, a.shape[1]), a.new_empty(_BLOCK, a.shape[1])
            outer, total, power, squares = torch.zeros_like(gram), torch.zeros_like(mean), 0.0, 0.0
            for start in starts[thread::threads]:
                outputs = slice(start, min(start + _BLOCK, self.task.n_outputs))
                r = self.readings.filled(outputs, 1.0, buffer)
                # rG − μ is half the gradient, and r·(rG − 2μ) the sum itself.
                half = torch.addmm(mean, r, gram, beta=-1, out=product[: len(r)])
                power += float(torch.dot(r.view(-1), half.view(-1)))
                self.readings.add(outputs, half)
                if self.layer:
                    outer.addmm_(r.T, r)
                total += r.sum(0)
                squares += float(torch.linalg.vector_norm(torch.mul(r, spread, out=half))) ** 2
            return power, outer, total, squares

        results = parallel_for(work, threads)
        total = torch.stack([result[2] for result in results]).sum(0)
        if self.layer:
            outer = torch.stack([result[1] for result in results]).sum(0)
            change += alpha * (weighted @ outer) - cross * rows.probability[:, None] * total
        return sum(result[0] for result in results), -float(mean @ total), sum(result[3] for result in results)

    def _one_on(self, rows: Rows, a: Tensor, change: Tensor) -> float:
        """Sum r G_k rᵀ and r·μ_k over features k and the outputs that read k first (β, β') or second (γ, γ').

        Few outputs read one feature, and it is on in few inputs: it is cheapest to multiply these directly, for many
        features at once.
        """
        _, beta, gamma, _ = self.square
        _, beta1, gamma1, _ = self.cross
        if not (beta or gamma or beta1 or gamma1):
            return 0.0
        feature, inputs = rows.columns.nonzero(as_tuple=True)
        on = ragged(feature, inputs, self.task.m, len(rows.x))
        readers, first = (table.to(a.device) for table in tables_of(self.task).readers)
        real = readers < self.task.n_outputs
        first = first.to(a.dtype)
        square = (first * (beta - gamma) + gamma) * real
        cross = (first * (beta1 - gamma1) + gamma1) * real
        # The lists of inputs are padded with an extra input of activation and probability 0.
        padded = torch.cat([a, a.new_zeros(1, a.shape[1])])
        probability = torch.cat([rows.probability, rows.probability.new_zeros(1)])
        readers = readers.clamp(max=self.task.n_outputs - 1)
        padded_change = torch.zeros_like(padded)
        power = 0.0
        step = max(1, _ENTRIES // (max(on.shape[1], readers.shape[1]) * a.shape[1]))
        for start in range(0, self.task.m, step):
            features = slice(start, start + step)
            active, outputs = on[features], readers[features]
            x = padded.index_select(0, active.reshape(-1)).reshape(*active.shape, -1)
            r = self.readings.gather(outputs)
            e = torch.bmm(x, r.transpose(1, 2))
            s, c = square[features, None, :], cross[features, None, :]
            slope = (e * s).sub_(c)  # half the gradient; e·(s·e − 2c) is the sum
            share = probability[active][:, :, None]
            power += float((slope - c).mul_(e).mul_(share).sum())
            slope *= share
            self.readings.scatter_filled(outputs, torch.bmm(slope.transpose(1, 2), x))
            if self.layer:
                padded_change.index_add_(0, active.reshape(-1), torch.bmm(slope, r).reshape(-1, a.shape[1]))
        change += padded_change[:-1]
        return power

    def _both_on(
        self, rows: Rows, a: Tensor, change: Tensor, inputs: Int[Tensor, " on"], outputs: Int[Tensor, " on"]
    ) -> float:
        """Sum δ e² − 2δ' e over the outputs with both features on."""
        delta, cross = self.square[3], self.cross[3]
        if not (delta or cross):
            return 0.0
        width = self.readings.weight.shape[1]
        x, r = a.index_select(0, inputs), self.readings.weight.index_select(0, outputs)
        e = torch.linalg.vecdot(x, r).add_(self.readings.bias[outputs])
        slope, share = (delta * e).sub_(cross), rows.probability[inputs]
        power = float(((slope - cross) * e * share).sum())
        slope *= share
        self.readings.scatter(outputs, slope, x)
        if self.layer:
            change[:, :width] += sums_by_row(slope, self.readings.weight, inputs, outputs, len(a))
        return power

    def _mass(self, rows: Rows, both: Int[Tensor, " on"]) -> float:
        """Return Σ P w f², the loss of a readoff that is 0; f² = f."""
        alpha, beta, gamma, delta = self.cross
        first, second = (torch.bincount(side, minlength=self.task.m).to(rows.x) for side in self.task.pairs.T)
        reads = beta * first + gamma * second
        total = alpha * float(rows.probability.sum()) * self.task.n_outputs + float((rows.probability @ rows.x) @ reads)
        return total + delta * float(rows.probability[both].sum())

    def _largest(self, rows: Rows, a: Tensor) -> float:
        few = slice(0, _LOOK)
        error = a[few, : self.readings.weight.shape[1]] @ self.readings.weight.T + self.readings.bias
        low, high = torch.aminmax(error - self.task.targets(rows.x[few]))
        return max(-float(low), float(high))
