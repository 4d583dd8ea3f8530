"""Gates of k inputs: symmetric boolean functions of sets of features, such as the AND of k features."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.core.tasks import ALL, TASKS, Task, order_in_words
from toymodels.errors import InputError, check_whole

OUTPUT_LIMIT = 200_000
"""The most sets that a task may have (a readoff holds outputs × neurons numbers)."""


class SymmetricTask(Task):
    """One boolean function of the number of active features, on many sets of k features.

    The case of a set is the number of its features that are active, 0 … k. There may be sets of fewer than k features, too: the
    missing features count as active, so the case is k minus the number of the set's features that are off, and case k means
    "all on" for every set.
    """

    k: int
    """Size of the largest set: the gates' fan-in."""
    sets: Int[Tensor, "outputs k"]
    """Features of each set, padded with m."""

    def __init__(
        self,
        m: int,
        truth: Sequence[int],
        sets: Int[Tensor, "outputs k"] | Sequence[Sequence[int]] | None = None,
        name: str | None = None,
    ):
        """Take all C(m, k) sets of k = len(truth) − 1 of m features, in lexicographic order, or a chosen list of sets.

        `truth[j]` is the value, 0 or 1, with j features of the set active; `name` is shown in tables. At least one listed set
        must have k features, and there may be at most OUTPUT_LIMIT sets.
        """
        check_whole(2, m=m)
        if len(truth) < 2 or any(value not in (0, 1) for value in truth):
            raise InputError(
                "the truth table of a symmetric gate has the k + 1 values, 0 or 1, for 0, 1, …, k active features, k ≥ 1; "
                f"got {tuple(truth)!r}"
            )
        self.m, self.k = m, len(truth) - 1
        self.truth = tuple(int(value) for value in truth)
        self.sets = _all_sets(m, self.k) if sets is None else _listed_sets(m, self.k, sets)
        self.n_outputs = len(self.sets)
        self.case_names = tuple(f"{j} of {self.k} on" for j in range(self.k + 1))
        self.name = name or f"symmetric(truth={''.join(map(str, self.truth))})"
        self.sizes = (self.sets < m).sum(1)

    @property
    def is_conjunction(self) -> bool:
        """Whether the function is the AND: 1 only if every feature of the set is active."""
        return self.truth == (0,) * self.k + (1,)

    @property
    def outputs_in_words(self) -> str:
        """Say which sets there are and in which order."""
        return f"one for each set of features, {order_in_words(self.sets)}"

    def subset(self, chosen: Int[Tensor, " chosen"]) -> SymmetricTask:
        """Return the same function on some of the sets, given by their positions; at least one must have k features."""
        assert self.truth is not None
        return SymmetricTask(self.m, self.truth, self.sets[chosen], self.name)

    def cases(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Int[Tensor, "batch outputs"]:
        """Count the active features of each set: k gathers, no table of inputs × sets × features."""
        sets = self.sets[outputs].to(x.device)
        filled = nn.functional.pad((x != 0).to(x.dtype), (0, 1), value=1.0)
        number = filled.index_select(1, sets[:, 0])
        for position in range(1, self.k):
            number += filled.index_select(1, sets[:, position])
        return number.round_().long()

    def stored(self) -> dict[str, Tensor]:
        """Return the sets."""
        return {"sets": self.sets}


def conjunction(
    m: int, k: int | None = None, sets: Int[Tensor, "outputs k"] | Sequence[Sequence[int]] | None = None
) -> SymmetricTask:
    """Make the AND of every k of m features, or of each listed set, of one size or of several (k: the largest of them).

    Raises InputError unless k or sets are given, for k < 1, or as `SymmetricTask` does.
    """
    if k is None:
        rows = [] if sets is None else _rows(sets)
        if not rows:
            raise InputError("a conjunction needs its fan-in k, or a list of at least one set of features")
        k = max(map(len, rows))
    check_whole(1, k=k)
    return SymmetricTask(m, (0,) * k + (1,), sets, f"and_of(k={k})")


def _gate_of(name: str, order: int, words: str, value: Callable[[int, int], bool], source: str = "") -> None:
    def make(m: int, sets: Tensor | None, *, k: int = 3) -> SymmetricTask:
        check_whole(least=2, most=m, k=k)
        return SymmetricTask(m, [int(value(j, k)) for j in range(k + 1)], sets, f"{name}(k={k})")

    make.__doc__, make.__qualname__ = f"Compute {words}.", name
    TASKS(name, order=order, source=source)(make)


_gate_of("and_of", 10, "the AND of every k features", lambda j, k: j == k, "Vaintrob, Mendel, Hänni 2024, section 1.4")
_gate_of("or_of", 11, "the OR of every k features", lambda j, k: j > 0)
_gate_of("xor_of", 12, "the parity of every k features", lambda j, k: j % 2 == 1)
_gate_of("majority_of", 13, "whether more than half of every k features are active", lambda j, k: 2 * j > k)


@TASKS("symmetric", order=14)
def symmetric(m: int, sets: Tensor | None, *, truth: str = "0001") -> SymmetricTask:
    """Compute any boolean function of how many of every k features are active: k + 1 digits, for 0, 1, …, k active."""
    digits = str(truth)
    if not digits or set(digits) - {"0", "1"}:
        wanted = "k + 1 digits 0 or 1, for 0, 1, …, k active features, such as 0001 for AND"
        raise InputError(f"truth = {truth!r}: give {wanted}")
    return SymmetricTask(m, [int(digit) for digit in digits], sets, f"symmetric(truth={digits})")


def members(task: SymmetricTask) -> list[list[int]]:
    """List the features of each set, without the padding."""
    return [[feature for feature in row if feature < task.m] for row in task.sets.tolist()]


def _all_sets(m: int, k: int) -> Int[Tensor, "outputs k"]:
    if k > m:
        raise InputError(f"gates of k = {k} features need as many: there are m = {m}")
    number = math.comb(m, k)
    _check_number(number)
    flat = np.fromiter(itertools.chain.from_iterable(itertools.combinations(range(m), k)), np.int64, number * k)
    return torch.from_numpy(flat.reshape(number, k))


def _listed_sets(m: int, k: int, sets: Int[Tensor, "outputs k"] | Sequence[Sequence[int]]) -> Int[Tensor, "outputs k"]:
    rows = _rows(sets)
    if not rows:
        raise InputError("the list of sets is empty: name at least one, or leave it out for all of k features")
    _check_number(len(rows))
    if isinstance(sets, Tensor):  # from `subset`, padded with m
        rows = [[feature for feature in row if feature != m] for row in rows]
    for row in rows:
        if any(not 0 <= feature < m for feature in row):
            raise InputError(f"the set {tuple(row)} is out of range: features are numbered from 0 to m − 1 = {m - 1}")
        if not 1 <= len(set(row)) == len(row) <= k:
            raise InputError(f"the set {tuple(row)} must hold from 1 to k = {k} features, each once")
    if max(map(len, rows)) < k:
        raise InputError(f"no listed set has k = {k} features: the truth table must be that of the largest set")
    return torch.tensor([[*row, *[m] * (k - len(row))] for row in rows], dtype=torch.int64)


def _rows(sets: Int[Tensor, "outputs k"] | Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the sets as lists. An index must be an int: a tensor would silently truncate another number."""
    try:
        rows = sets.tolist() if isinstance(sets, Tensor) else sets
        return [[operator.index(feature) for feature in row] for row in rows]
    except TypeError:
        wanted = "a list of sets of features, each a list of whole numbers, as in [[0, 1, 2], [3, 4]]"
        raise InputError(f"sets is {wanted}") from None


def _check_number(number: int) -> None:
    if number > OUTPUT_LIMIT:
        limit = f"the limit of {OUTPUT_LIMIT:,} outputs"
        raise InputError(f"{number:,} sets are more than {limit}: take fewer features or list some of the sets")
