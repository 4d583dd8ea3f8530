"""Tables of pairs that the fast forms share: readers of a feature, outputs with both features on, targets by rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from toymodels.core.tasks import PairTask
from toymodels.theory.gates import bilinear


class PairTables:
    """Tables of one task's pairs, made at their first use. Inputs are boolean."""

    def __init__(self, task: PairTask):
        self.m, self.n_outputs, self.pairs, self.all_pairs = task.m, task.n_outputs, task.pairs, task.all_pairs

    def rows_by_case(
        self, columns: Float[Tensor, "m batch"], values: Sequence[float] | Sequence[int]
    ) -> Callable[[slice, Tensor], Tensor]:
        """Return a function that writes `by_case` of a slice of outputs, transposed (one row per output), into a buffer.

        `columns` are the transposed inputs: each feature's values are contiguous, so that whole rows are combined.
        """
        alpha, beta, gamma, delta = bilinear(values)
        constant, slope = alpha + beta * columns, gamma + delta * columns

        def chosen(outputs: slice, out: Tensor) -> Tensor:
            first, second = self.pairs[outputs].to(columns.device).T
            return torch.addcmul(constant[first], slope[first], columns[second], out=out)

        def all_pairs(outputs: slice, out: Tensor) -> Tensor:
            row = 0
            k, l = self.pairs[outputs.start].tolist()
            while row < len(out):
                size = min(self.m - l, len(out) - row)
                torch.addcmul(constant[k], slope[k], columns[l : l + size], out=out[row : row + size])
                row, k, l = row + size, k + 1, k + 2
            return out

        return all_pairs if self.all_pairs else chosen

    def both_on(self, indices: Int[Tensor, "batch width"]) -> tuple[Int[Tensor, " on"], Int[Tensor, " on"]]:
        """Return (row, output) of every output with both of its features on, from the active indices (padded with m).

        Sorted by rows. Costs about batch·s².
        """
        width = indices.shape[1]
        first, second = torch.triu_indices(width, width, 1, device=indices.device)
        on = (indices < self.m).T.contiguous()
        rows, positions = torch.nonzero((on.index_select(0, first) & on.index_select(0, second)).T, as_tuple=True)
        a, b = indices[rows, first[positions]], indices[rows, second[positions]]
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        if self.all_pairs:
            return rows, low * (2 * self.m - low - 1) // 2 + high - low - 1
        code, order = self._codes.to(indices.device)
        # A list may name a pair twice: every position of an equal code is an output of its own.
        wanted = low * self.m + high
        start = torch.searchsorted(code, wanted)
        times = torch.searchsorted(code, wanted, right=True) - start
        rows, start = rows.repeat_interleave(times), start.repeat_interleave(times)
        ends = times.cumsum(0)
        step = torch.arange(len(rows), device=rows.device) - (ends - times).repeat_interleave(times)
        return rows, order[start + step]

    @cached_property
    def _codes(self) -> Int[Tensor, "2 pairs"]:
        """Sorted codes min·m + max of all pairs, and the outputs they belong to."""
        return torch.stack((self.pairs.amin(1) * self.m + self.pairs.amax(1)).sort())

    @cached_property
    def features(self) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"]]:
        """The first and the second feature of each pair."""
        first, second = self.pairs.T.contiguous().numpy()
        return first, second

    @cached_property
    def readers(self) -> tuple[Int[Tensor, "m readers"], Bool[Tensor, "m readers"]]:
        """The outputs that read each feature, one row per feature padded with n_outputs, and whether they read it first."""
        outputs = torch.arange(self.n_outputs)
        feature, order = torch.cat([self.pairs[:, 0], self.pairs[:, 1]]).sort(stable=True)
        first = torch.cat([torch.ones_like(outputs), torch.zeros_like(outputs)])
        table = ragged(feature, torch.cat([outputs, outputs])[order], self.m, self.n_outputs)
        return table, ragged(feature, first[order], self.m, 0).bool()


_tables: WeakKeyDictionary[PairTask, PairTables] = WeakKeyDictionary()


def tables_of(task: PairTask) -> PairTables:
    """Return the tables of a task, the same object at every call."""
    if task not in _tables:
        _tables[task] = PairTables(task)
    return _tables[task]


def ragged(
    feature: Int[Tensor, " entries"], values: Int[Tensor, " entries"], m: int, padding: int
) -> Int[Tensor, "m longest"]:
    """Arrange values that are sorted by feature in a table, one row per feature, padded at the end."""
    counts = torch.bincount(feature, minlength=m)
    position = torch.arange(len(feature), device=feature.device) - (counts.cumsum(0) - counts)[feature]
    longest = int(counts.max()) if len(feature) else 0
    table = torch.full((m, max(1, longest)), padding, dtype=torch.int64, device=feature.device)
    table[feature, position] = values
    return table
