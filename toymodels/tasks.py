"""Tasks: which boolean functions of the features are to be read off.

A task divides every (input, output) into a few *cases* (for a pair of features: 00, 01, 10, 11) and says which value
belongs to each case. Targets and loss weights are both "a value by case".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.errors import InputError
from toymodels.features import SparseFeatures
from toymodels.gates import Gate, bilinear

ALL = slice(None)


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
        if self.all_pairs and outputs == ALL:
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

    def case_probabilities(self, features: SparseFeatures) -> tuple[float, ...]:
        """Exact: the same for every pair."""
        return features.case_probabilities()

    def ones(self, indices: Int[Tensor, "batch width"]) -> tuple[Int[Tensor, " on"], Int[Tensor, " on"]]:
        """Sparse targets: (row, output) of every target that is 1, found from the active indices (padded with m).

        Costs about batch·s² for a gate that needs both features, batch·s·m for one that needs either; raises
        InputError for a gate that is 1 on 00, whose ones are not sparse.
        """
        if self.truth[0]:
            raise InputError(
                f"the gate {self.name} is 1 where both features are off: its ones are not sparse, use `targets`"
            )
        rows, outputs, case = self.touched(indices)
        on = torch.tensor(self.truth, device=indices.device)[case] == 1
        return rows[on], outputs[on]

    def touched(
        self, indices: Int[Tensor, "batch width"]
    ) -> tuple[Int[Tensor, " touched"], Int[Tensor, " touched"], Int[Tensor, " touched"]]:
        """(row, output, case) of every output with at least one of its features active, each once; all others are in case 00.

        With a gate that is 1 on 11 only, those in the cases 01 and 10 are left out too: their target is 0 as well.
        """
        first, second = self.pairs[:, 0].to(indices.device), self.pairs[:, 1].to(indices.device)
        code = first * self.m + second
        order = code.argsort()
        code = code[order]
        batch = len(indices)
        if self.truth == (0, 0, 0, 1):
            a, b = indices[:, :, None], indices[:, None, :]
            candidates = torch.where((a < self.m) & (b < self.m) & (a != b), a * self.m + b, -1).reshape(batch, -1)
        else:
            partner = torch.arange(self.m, device=indices.device)
            a, b = indices[:, :, None], partner[None, None, :]
            on = torch.where((a < self.m) & (a != b), a * self.m + b, -1)
            swapped = torch.where((a < self.m) & (a != b), b * self.m + a, -1)
            # A pair with both features active would be met from either side: sorting leaves each code once.
            candidates = torch.cat([on, swapped], 1).reshape(batch, -1).sort(1).values
            repeat = torch.zeros_like(candidates, dtype=torch.bool)
            repeat[:, 1:] = candidates[:, 1:] == candidates[:, :-1]
            candidates = torch.where(repeat, -1, candidates)
        rows, columns = torch.nonzero(candidates >= 0, as_tuple=True)
        wanted = candidates[rows, columns]
        # A list may name a pair twice: every place of an equal code is an output of its own.
        low = torch.searchsorted(code, wanted)
        times = torch.searchsorted(code, wanted, right=True) - low
        rows, low = rows.repeat_interleave(times), low.repeat_interleave(times)
        ends = times.cumsum(0)
        step = torch.arange(len(rows), device=rows.device) - (ends - times).repeat_interleave(times)
        outputs = order[low + step]
        active = torch.zeros(batch, self.m + 1, dtype=torch.int64, device=indices.device).scatter_(1, indices, 1)
        return rows, outputs, 2 * active[rows, first[outputs]] + active[rows, second[outputs]]

    def _columns(
        self, x: Float[Tensor, "batch m"], outputs: slice
    ) -> tuple[Float[Tensor, "batch outputs"], Float[Tensor, "batch outputs"]]:
        pairs = self.pairs[outputs].to(x.device)
        return x.index_select(1, pairs[:, 0]), x.index_select(1, pairs[:, 1])


def _check_pairs(pairs: Int[Tensor, "pairs 2"], m: int) -> None:
    if len(pairs) == 0:
        raise InputError("the list of pairs is empty: name at least one pair, or leave it out for all pairs")
    for k, l in pairs.tolist():
        if not (0 <= k < m and 0 <= l < m):
            raise InputError(f"the pair ({k}, {l}) is out of range: features are numbered from 0 to m − 1 = {m - 1}")
        if k == l:
            raise InputError(f"the pair ({k}, {l}) has k = l: a pair needs two different features")
