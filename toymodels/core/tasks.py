"""Tasks: which boolean functions of the features are to be read off.

A task divides every (input, output) into a few *cases* (for a pair of features: 00, 01, 10, 11) and says which value
belongs to each case. Targets and loss weights are both "a value by case".
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from toymodels.core.features import SparseFeatures
from toymodels.errors import InputError
from toymodels.theory.gates import Gate, bilinear

ALL = slice(None)
_FEW = 64
"""Inputs up to which two gathers cost less than a pass feature by feature."""


class Task(ABC):
    """A list of boolean functions. A subclass sets the fields below and says the case of each input and output."""

    m: int
    """Number of features the task reads."""
    n_outputs: int
    """Number of functions computed at once."""
    truth: tuple[int, ...]
    """The target in each case, 0 or 1."""
    name: str
    """For tables."""

    @abstractmethod
    def cases(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Int[Tensor, "batch outputs"]:
        """The case, 0 … len(truth) − 1, of each input and each output of a slice."""

    def by_case(
        self, x: Float[Tensor, "batch m"], values: Sequence[float] | Sequence[int], outputs: slice = ALL
    ) -> Float[Tensor, "batch outputs"]:
        """values[case] for each input and each output of a slice, in x's dtype."""
        return torch.tensor(values, dtype=x.dtype, device=x.device)[self.cases(x, outputs)]

    def targets(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Float[Tensor, "batch outputs"]:
        """The value, 0 or 1, of each function of a slice."""
        return self.by_case(x, self.truth, outputs)

    def case_probabilities(self, features: SparseFeatures) -> tuple[float, ...]:
        """Probability of each case, averaged over outputs: counted on up to 20,000 inputs unless a subclass knows better."""
        inputs = features.enumerate() if features.n_inputs <= 20_000 else features.sampled(20_000, seed=0)
        counts = torch.zeros(len(self.truth), dtype=torch.float64)
        for rows in inputs.blocks(max(1, 2**22 // self.n_outputs)):
            weight = inputs.probabilities[rows, None].expand(-1, self.n_outputs).reshape(-1)
            counts += torch.bincount(self.cases(inputs.dense(rows)).reshape(-1), weight, len(self.truth))
        return tuple((counts / counts.sum()).tolist())


class PairTask(Task):
    """One two-input gate on many pairs of features: U-AND, U-XOR, …

    Cases are 2·x_k + x_l, that is 00, 01, 10, 11.
    """

    def __init__(self, m: int, gate: Gate | str, pairs: Int[Tensor, "pairs 2"] | Sequence[Sequence[int]] | None = None):
        """All pairs k < l of m features, or a chosen list of ordered pairs (k, l) with k ≠ l.

        The order within a pair counts for gates such as "first" or "first_implies_second".

        Raises InputError for m < 2, an unknown gate, an empty list, an index out of range or a pair with k = l.
        """
        if m < 2:
            raise InputError(f"m = {m} features: pairs need at least 2")
        self.m = m
        self.gate = Gate.parse(gate) if isinstance(gate, str) else gate
        self.truth = self.gate.truth
        self.name = self.gate.name
        if pairs is None:
            table = torch.triu_indices(m, m, offset=1).T.contiguous()
        else:
            table = torch.as_tensor(pairs, dtype=torch.int64).reshape(-1, 2)
            _check_pairs(table, m)
        self.all_pairs = pairs is None
        self.pairs = table
        self.n_outputs = len(table)

    def subset(self, chosen: Int[Tensor, " chosen"]) -> PairTask:
        """The same gate on some of the pairs, given by their positions."""
        return PairTask(self.m, self.gate, self.pairs[chosen])

    def cases(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Int[Tensor, "batch outputs"]:
        """2·x_k + x_l."""
        first, second = self._columns(x, outputs)
        return (2 * first + second).long()

    def by_case(
        self, x: Float[Tensor, "batch m"], values: Sequence[float] | Sequence[int], outputs: slice = ALL
    ) -> Float[Tensor, "batch outputs"]:
        """values[case], as the bilinear function α + β·x_k + γ·x_l + δ·x_k·x_l (two gathers, no table of cases)."""
        alpha, beta, gamma, delta = bilinear(values)
        if self.all_pairs and outputs == ALL and len(x) > _FEW:
            return self._by_case_all(x, alpha, beta, gamma, delta)
        first, second = self._columns(x, outputs)
        result = (first * delta).add_(gamma).mul_(second) if delta else second * gamma
        if beta:
            result.add_(first, alpha=beta)
        return result.add_(alpha) if alpha else result

    def _by_case_all(
        self, x: Float[Tensor, "batch m"], alpha: float, beta: float, gamma: float, delta: float
    ) -> Float[Tensor, "batch outputs"]:
        """All pairs, feature by feature: the pairs (k, ·) stand side by side, so no gather is needed."""
        result = x.new_empty(len(x), self.n_outputs)
        start = 0
        for k in range(self.m - 1):
            end = start + self.m - 1 - k
            first = x[:, k : k + 1]
            torch.addcmul(alpha + beta * first, gamma + delta * first, x[:, k + 1 :], out=result[:, start:end])
            start = end
        return result

    def rows_by_case(
        self, columns: Float[Tensor, "m batch"], values: Sequence[float] | Sequence[int]
    ) -> Callable[[slice, Tensor], Tensor]:
        """A function that writes `by_case` of a slice of outputs, transposed, an output a row, into a buffer and returns it.

        `columns` are the inputs, transposed: with a feature's values side by side in memory, a row is made of whole rows.
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
        """(row, output) of every output with both of its features on, from the active indices (padded with m).

        Costs about batch·s². In the order of rows.
        """
        width = indices.shape[1]
        one, other = torch.triu_indices(width, width, 1, device=indices.device)
        on = (indices < self.m).T.contiguous()
        rows, places = torch.nonzero((on.index_select(0, one) & on.index_select(0, other)).T, as_tuple=True)
        a, b = indices[rows, one[places]], indices[rows, other[places]]
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        if self.all_pairs:
            return rows, low * (2 * self.m - low - 1) // 2 + high - low - 1
        code, order = self._codes.to(indices.device)
        # A list may name a pair twice: every place of an equal code is an output of its own.
        wanted = low * self.m + high
        start = torch.searchsorted(code, wanted)
        times = torch.searchsorted(code, wanted, right=True) - start
        rows, start = rows.repeat_interleave(times), start.repeat_interleave(times)
        ends = times.cumsum(0)
        step = torch.arange(len(rows), device=rows.device) - (ends - times).repeat_interleave(times)
        return rows, order[start + step]

    @functools.cached_property
    def _codes(self) -> Int[Tensor, "2 pairs"]:
        """Pairs as numbers that do not know their order, sorted, and the outputs in that order."""
        return torch.stack((self.pairs.amin(1) * self.m + self.pairs.amax(1)).sort())

    def case_probabilities(self, features: SparseFeatures) -> tuple[float, ...]:
        """Exact: the same for every pair."""
        return features.case_probabilities()

    @functools.cached_property
    def readers(self) -> tuple[Int[Tensor, "m readers"], Bool[Tensor, "m readers"]]:
        """Outputs that read each feature, a row each filled up with n_outputs, and whether they read it first."""
        outputs = torch.arange(self.n_outputs)
        feature, order = torch.cat([self.pairs[:, 0], self.pairs[:, 1]]).sort(stable=True)
        first = torch.cat([torch.ones_like(outputs), torch.zeros_like(outputs)])
        table = ragged(feature, torch.cat([outputs, outputs])[order], self.m, self.n_outputs)
        return table, ragged(feature, first[order], self.m, 0).bool()

    def _columns(
        self, x: Float[Tensor, "batch m"], outputs: slice
    ) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, "batch outputs"]]:
        pairs = self.pairs[outputs].to(x.device)
        return x.index_select(1, pairs[:, 0]), x.index_select(1, pairs[:, 1])


def ragged(
    feature: Int[Tensor, " entries"], values: Int[Tensor, " entries"], m: int, padding: int
) -> Int[Tensor, "m longest"]:
    """Values listed by feature (sorted), a row for each, filled up."""
    counts = torch.bincount(feature, minlength=m)
    place = torch.arange(len(feature), device=feature.device) - (counts.cumsum(0) - counts)[feature]
    longest = int(counts.max()) if len(feature) else 0
    table = torch.full((m, max(1, longest)), padding, dtype=torch.int64, device=feature.device)
    table[feature, place] = values
    return table


def _check_pairs(pairs: Int[Tensor, "pairs 2"], m: int) -> None:
    if len(pairs) == 0:
        raise InputError("the list of pairs is empty: name at least one pair, or leave it out for all pairs")
    for k, l in pairs[((pairs < 0) | (pairs >= m)).any(1)].tolist():
        raise InputError(f"the pair ({k}, {l}) is out of range: features are numbered from 0 to m − 1 = {m - 1}")
    for k, l in pairs[pairs[:, 0] == pairs[:, 1]].tolist():
        raise InputError(f"the pair ({k}, {l}) has k = l: a pair needs two different features")
