"""Add up the errors of a network in few passes: the fast form of `error_sums`.

On sparse inputs nearly every output is in case 0 (no feature on). Blocks are accumulated as case 0; the few entries in other
cases are gathered and added separately.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.core.dispatch import fast_form
from toymodels.core.evaluation import check_outputs, error_sums
from toymodels.core.features import Inputs
from toymodels.core.layers import FirstLayer, IdentityLayer, unwrap
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.fast.columns import apply_sparse
from toymodels.fast.error_sums import BlockSums, Scratch
from toymodels.parallel.threads import parallel_for

_ROWS, _COLUMNS = 1024, 512
"""Inputs and outputs of a block: its few copies fit in cache, and its work is long compared with Python's calls."""
_HELD = 2**18
"""Entries of rare cases that are collected before they are added."""
_PARTS = 32
"""Inputs are cut into this number of parts for any number of threads, so that the sums do not depend on it."""


@fast_form(error_sums, lambda network, task, inputs, *_: task.truth is not None and inputs.values is None)
@torch.no_grad()
def fast_error_sums(
    network: Network, task: Task, inputs: Inputs, dtype: torch.dtype, tolerances: Sequence[float | int] = ()
) -> BlockSums:
    """Add up the errors of a network on boolean inputs, on as many threads as torch has."""
    blocks = _row_blocks(inputs)
    parts = [blocks[i * len(blocks) // _PARTS : (i + 1) * len(blocks) // _PARTS] for i in range(_PARTS)]
    evaluator = _BlockEvaluator(network, task, inputs, dtype, tolerances)
    total, *others = _in_any_order(evaluator.part, [part for part in parts if part], evaluator.threads)
    for sums in others:
        total.merge(sums)
    return total


def _row_blocks(inputs: Inputs) -> list[slice]:
    """Cut the inputs into blocks; if probabilities change rarely (as in an enumeration), into blocks of one probability."""
    n = len(inputs)
    rows = min(_ROWS, max(_ROWS // 4, math.ceil(n / 8)))
    p = inputs.probabilities
    changes = (torch.nonzero(p[1:] != p[:-1]).reshape(-1) + 1).tolist()
    cuts = sorted({*range(0, n, rows), *(changes if len(changes) <= max(_PARTS, n // rows) else ()), n})
    return [slice(start, stop) for start, stop in itertools.pairwise(cuts)]


def _in_any_order(
    measure: Callable[[list[slice]], BlockSums], parts: list[list[slice]], threads: int
) -> list[BlockSums]:
    """Return the sums of every part, in the parts' order; each thread takes the next part when it is free."""
    results: list[BlockSums | None] = [None] * len(parts)
    queue = iter(range(len(parts)))

    def run(_: int) -> None:
        try:
            for i in queue:
                results[i] = measure(parts[i])
        except BaseException:
            list(queue)  # empties it, so that the other threads stop at their next part
            raise

    parallel_for(run, threads)
    return [sums for sums in results if sums is not None]


class _BlockEvaluator:
    """Adds up errors in blocks of inputs × blocks of outputs.

    Blocks of errors are transposed, one row per output: the cases of a pair are then sums of whole rows of bits, and the
    weights of the readoff are read in their order in memory.
    """

    def __init__(
        self, network: Network, task: Task, inputs: Inputs, dtype: torch.dtype, tolerances: Sequence[float | int]
    ) -> None:
        self.tolerances = tolerances
        self.network, self.task, self.inputs, self.dtype = network, task, inputs, dtype
        assert task.truth is not None
        self.truth = task.truth
        self.device = inputs.indices.device
        self.linear = network.readoff if type(network.readoff) is LinearReadoff else None
        self.pairs = task.pairs.to(self.device).T.contiguous() if type(task) is PairTask else None
        known = self.linear is not None and self.pairs is not None
        known = known and type(unwrap(network.layer)) in (FirstLayer, IdentityLayer)
        self.threads = torch.get_num_threads() if known and self.device.type == "cpu" else 1

    @torch.no_grad()
    def part(self, blocks: list[slice]) -> BlockSums:
        """Return the sums of some blocks of inputs."""
        sums = BlockSums(len(self.truth), self.task.n_outputs, self.tolerances)
        scratch = Scratch()
        for rows in blocks:
            self._rows(rows, sums, scratch)
        return sums

    def _rows(self, rows: slice, sums: BlockSums, scratch: Scratch) -> None:
        x = self.inputs.dense(rows, self.dtype)
        a = apply_sparse(self.network.layer, x, self.inputs.indices[rows])
        if len(a) != len(x):
            raise InputError(f"the network returns {len(a)} rows for {len(x)} inputs: it must return one for each")
        shares = self.inputs.probabilities[rows] / self.task.n_outputs
        weight = float(shares[0]) if bool((shares == shares[0]).all()) else shares
        bits = x.to(torch.uint8).T.contiguous() if self.pairs is not None else None
        listed = _RareCases(self.truth, sums, weight, scratch)
        for start in range(0, self.task.n_outputs, _COLUMNS):
            outputs = slice(start, min(start + _COLUMNS, self.task.n_outputs))
            error = self._read(a, outputs, scratch)
            cases = self._cases(x, bits, outputs, scratch).reshape(-1)
            if self.truth[0]:
                error -= self.truth[0]
            positions = _nonzero(cases)
            flat = error.reshape(-1)
            listed.add(flat.take(positions), cases.take(positions), positions, start, len(x))
            flat.index_fill_(0, positions, 0)
            if isinstance(weight, Tensor):
                each = weight.repeat(len(error), 1)
                each.view(-1).index_fill_(0, positions, 0)
                largest = sums.add_case(0, error, each, 0, scratch)
            else:
                largest = sums.add_case(0, error, weight, len(positions), scratch)
            worst = sums.output_worst[outputs]
            np.maximum(worst, largest.cpu().numpy(), out=worst)
        listed.flush()

    def _read(
        self, a: Float[Tensor, "batch neurons"], outputs: slice, scratch: Scratch
    ) -> Float[Tensor, "outputs batch"]:
        """Return the outputs of a slice, transposed, in a buffer."""
        shape = (outputs.stop - outputs.start, len(a))
        out = scratch.take("read", shape, self.dtype, self.device)
        if self.linear is not None:
            weight = self.linear.weight[outputs]
            if len(weight) == len(out):
                return torch.addmm(self.linear.bias[outputs, None], weight, a.T, out=out)
            check_outputs((len(a), len(weight)), shape[::-1], self.task)
        read = self.network.readoff(a, outputs)
        check_outputs(tuple(read.shape), shape[::-1], self.task)
        return out.copy_(read.T)

    def _cases(self, x: Tensor, bits: Tensor | None, outputs: slice, scratch: Scratch) -> Tensor:
        """Return the cases of a slice, transposed: (outputs, batch)."""
        if self.pairs is None or bits is None:
            return self.task.cases(x, outputs).T.contiguous()
        first, second = self.pairs[:, outputs]
        cases = scratch.take("cases", (len(first), len(x)), torch.uint8, self.device)
        torch.index_select(bits, 0, first, out=cases)
        return cases.mul_(2).add_(bits.index_select(0, second))


class _RareCases:
    """Collects errors in the cases other than 0, from blocks of outputs on the same inputs, until there are enough to add."""

    def __init__(self, truth: Sequence[int], sums: BlockSums, weight: Tensor | float, scratch: Scratch) -> None:
        self.truth, self.sums, self.weight, self.scratch = truth, sums, weight, scratch
        self.held: list[tuple[Tensor, ...]] = []
        self.count = 0
        self.weighted = isinstance(weight, Tensor)

    def add(self, errors: Tensor, cases: Tensor, positions: Tensor, start: int, batch: int) -> None:
        """Collect output − target of case 0 at these positions of a flat block (outputs from `start` on, `batch` inputs)."""
        self.held.append((errors, cases, positions // batch + start, *([positions % batch] if self.weighted else [])))
        self.count += len(errors)
        if self.count >= _HELD:
            self.flush()

    def flush(self) -> None:
        """Add all that is collected."""
        if self.count:
            errors, cases, outputs, *rows = (torch.cat(parts) for parts in zip(*self.held, strict=True))
            worst = torch.from_numpy(self.sums.output_worst)
            for case in range(1, len(self.truth)):
                on = torch.nonzero(cases == case).reshape(-1)
                if len(on):
                    error = errors.take(on) - (self.truth[case] - self.truth[0])
                    weight = self.weight[rows[0][on]] if isinstance(self.weight, Tensor) else self.weight
                    self.sums.add_case(case, error, weight, 0, self.scratch)
                    worst.scatter_reduce_(0, outputs.take(on).cpu(), error.abs().double().cpu(), "amax")
        self.held, self.count = [], 0


def _nonzero(cases: Tensor) -> Tensor:
    """Return the positions of the nonzero entries of a flat tensor (on a CPU NumPy takes a third of torch's time)."""
    if cases.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(cases.numpy() != 0))
    return torch.nonzero(cases).reshape(-1)
