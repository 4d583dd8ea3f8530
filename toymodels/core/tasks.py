"""Tasks: the functions of the features that a network is to compute.

A task has one target for each input and output, any real number. It also divides every (input, output) into a few *cases* by
which of the features that the output reads are active (for a pair: 00, 01, 10, 11), and names *groups* of cases: errors are
reported by group, and a loss may weigh cases. If the target depends on the case alone, as for every boolean gate, `truth`
holds it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.core.features import Source, as_features
from toymodels.core.seeds import seeded
from toymodels.errors import InputError, check_whole
from toymodels.registry import Member, Registry, parse_call
from toymodels.theory.gates import CASE_NAMES, GATE_NAMES, Gate, bilinear

ALL = slice(None)


class Task(ABC):
    """A list of functions. A subclass sets the fields below and returns the case and the target of each input and output."""

    m: int
    """Number of features the task reads."""
    n_outputs: int
    """Number of functions computed at once."""
    name: str
    """Its name in tables, and in the registry if it is there."""
    case_names: tuple[str, ...] = ()
    """The cases, in the order of their numbers; default: numbers if there is `truth`, else inactive and active."""
    truth: tuple[int, ...] | None = None
    """The target in each case, 0 or 1; None if the target is not a function of the case."""

    @abstractmethod
    def cases(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Int[Tensor, "batch outputs"]:
        """Return the case, 0 … number of cases − 1, of each input and each output of a slice."""

    def targets(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Float[Tensor, "batch outputs"]:
        """Return the value of each function of a slice. A task without `truth` must define this."""
        if self.truth is None:
            raise NotImplementedError(f"the task {self.name} has neither truth nor targets")
        return self.by_case(x, self.truth, outputs)

    @property
    def outputs_in_words(self) -> str:
        """Say which outputs there are and in which order, for messages."""
        return f"{self.n_outputs:,} outputs"

    @property
    def case_labels(self) -> tuple[str, ...]:
        """The names of all cases."""
        return self.case_names or (
            ("inactive", "active") if self.truth is None else tuple(map(str, range(len(self.truth))))
        )

    @property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """The named groups of cases whose errors are reported: zeros and ones by target, or each case by its name."""
        if self.truth is None:
            return {name: (case,) for case, name in enumerate(self.case_labels)}
        by_value = {value: tuple(case for case, v in enumerate(self.truth) if v == value) for value in (0, 1)}
        return {"zeros": by_value[0], "ones": by_value[1]}

    def by_case(
        self, x: Float[Tensor, "batch m"], values: Sequence[float] | Sequence[int], outputs: slice = ALL
    ) -> Float[Tensor, "batch outputs"]:
        """Return values[case] for each input and each output of a slice, in x's dtype."""
        return torch.tensor(values, dtype=x.dtype, device=x.device)[self.cases(x, outputs)]

    def case_probabilities(self, features: Source) -> tuple[float, ...]:
        """Return the probability of each case, averaged over outputs and over all inputs (20,000 sampled ones if more)."""
        features = as_features(features)
        inputs = features.enumerate() if features.n_inputs <= 20_000 else features.sampled(20_000, seed=0)
        counts = torch.zeros(len(self.case_labels), dtype=torch.float64)
        for rows in inputs.blocks(max(1, 2**22 // self.n_outputs)):
            weight = inputs.probabilities[rows, None].expand(-1, self.n_outputs).reshape(-1)
            counts += torch.bincount(self.cases(inputs.dense(rows)).reshape(-1), weight, len(self.case_labels))
        return tuple((counts / counts.sum()).tolist())

    def subset(self, chosen: Int[Tensor, " chosen"]) -> Task:
        """Return the same functions at some of the outputs, given by their positions."""
        return Subset(self, chosen)

    def sample(self, n: int, seed: int) -> Task:
        """Return the task on n outputs drawn at random from this seed, in their order; the task itself if it has no more."""
        if n >= self.n_outputs:
            return self
        order = torch.randperm(self.n_outputs, generator=seeded(seed))
        return self.subset(order[:n].sort().values)

    def stored(self) -> dict[str, Tensor]:
        """Return what a record must store to make the task again, apart from its name and m (see `make_task`)."""
        return {}


class Subset(Task):
    """Some of the outputs of any task."""

    def __init__(self, whole: Task, chosen: Int[Tensor, " chosen"]):
        """Choose outputs of a task by their positions. Raises InputError for an empty choice."""
        if not len(chosen):
            raise InputError(f"no output of the task {whole.name} is chosen: name at least one")
        self.whole, self.chosen = whole, chosen
        self.m, self.n_outputs, self.name = whole.m, len(chosen), whole.name
        self.case_names, self.truth = whole.case_names, whole.truth

    @property
    def groups(self) -> Mapping[str, tuple[int, ...]]:
        """The groups of the whole task."""
        return self.whole.groups

    def cases(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Int[Tensor, "batch outputs"]:
        """Return the cases at the chosen outputs."""
        return self.whole.cases(x)[:, self.chosen[outputs].to(x.device)]

    def targets(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Float[Tensor, "batch outputs"]:
        """Return the targets at the chosen outputs."""
        return self.whole.targets(x)[:, self.chosen[outputs].to(x.device)]

    def subset(self, chosen: Int[Tensor, " chosen"]) -> Task:
        """Return fewer of the outputs."""
        return Subset(self.whole, self.chosen[chosen])

    def stored(self) -> dict[str, Tensor]:
        """Return what the whole task stores, and the chosen outputs."""
        return {**self.whole.stored(), "chosen": self.chosen}


class PairwiseTask(Task):
    """One function on many pairs of features.

    Cases are 2·[x_k active] + [x_l active], that is 00, 01, 10, 11. Features with real values count as active or not.
    """

    case_names = CASE_NAMES
    pairs: Int[Tensor, "pairs 2"]
    """The features of each output."""

    @property
    def outputs_in_words(self) -> str:
        """Say which pairs there are and in which order."""
        every = torch.equal(self.pairs, torch.triu_indices(self.m, self.m, offset=1).T)
        return f"one for each pair {'k < l' if every else 'of its list'}, {order_in_words(self.pairs)}"

    def cases(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Int[Tensor, "batch outputs"]:
        """Return 2·[x_k active] + [x_l active]."""
        active, pairs = (x != 0).long(), self.pairs[outputs].to(x.device)
        return 2 * active.index_select(1, pairs[:, 0]) + active.index_select(1, pairs[:, 1])

    def case_probabilities(self, features: Source) -> tuple[float, ...]:
        """Return the exact probabilities, averaged over outputs, if the features know those of pairs; else as any task does."""
        features = as_features(features)
        same = features.case_probabilities()
        both = None if same else features.both_active()
        if both is None:
            return same or super().case_probabilities(features)
        k, l = self.pairs.T
        first, second, both = both[k, k], both[l, l], both[k, l]
        shares = torch.stack([1 - first - second + both, second - both, first - both, both]).mean(1)
        # A case that cannot occur must not have a probability from rounding: a loss would give it a huge weight.
        return tuple(torch.where(shares > 1e-12, shares, 0).tolist())

    def stored(self) -> dict[str, Tensor]:
        """Return the pairs."""
        return {"pairs": self.pairs}


class PairTask(PairwiseTask):
    """One two-input gate on many pairs of features: U-AND, U-XOR, …"""

    def __init__(self, m: int, gate: Gate | str, pairs: Int[Tensor, "pairs 2"] | Sequence[Sequence[int]] | None = None):
        """Take all pairs k < l of m features, or a chosen list of ordered pairs (k, l) with k ≠ l.

        The order within a pair matters for gates such as "first" or "first_implies_second".

        Raises InputError for m < 2, an unknown gate, an empty list, an index out of range or a pair with k = l.
        """
        self.gate = gate if isinstance(gate, Gate) else Gate.parse(gate)
        self.truth: tuple[int, ...] = self.gate.truth
        self.m, self.name = m, self.gate.name
        self.all_pairs = pairs is None
        self.pairs = feature_pairs(m, pairs)
        self.n_outputs = len(self.pairs)

    def subset(self, chosen: Int[Tensor, " chosen"]) -> PairTask:
        """Return the same gate on some of the pairs, given by their positions."""
        return PairTask(self.m, self.gate, self.pairs[chosen])

    def by_case(
        self, x: Float[Tensor, "batch m"], values: Sequence[float] | Sequence[int], outputs: slice = ALL
    ) -> Float[Tensor, "batch outputs"]:
        """Return values[case], as the bilinear function α + β·a_k + γ·a_l + δ·a_k·a_l of the features' activity a."""
        alpha, beta, gamma, delta = bilinear(values)
        pairs = self.pairs[outputs].to(x.device)
        active = (x != 0).to(x.dtype)
        first, second = active.index_select(1, pairs[:, 0]), active.index_select(1, pairs[:, 1])
        slope = first * delta if delta else torch.zeros_like(first)
        result = (slope.add_(gamma) if gamma else slope).mul_(second)
        if beta:
            result.add_(first, alpha=beta)
        return result.add_(alpha) if alpha else result


def order_in_words(sets: Int[Tensor, "outputs k"]) -> str:
    """Write the order of sets of features: "in the order (0, 1), (0, 2), …, (3, 4)"."""
    rows = [f"({', '.join(map(str, row))})" for row in sets[[0, 1, -1] if len(sets) > 3 else slice(None)].tolist()]
    return f"in the order {', '.join([*rows[:-1], '…', rows[-1]] if len(sets) > 3 else rows)}"


def feature_pairs(m: int, pairs: Int[Tensor, "pairs 2"] | Sequence[Sequence[int]] | None) -> Int[Tensor, "pairs 2"]:
    """Return all pairs k < l of m features, or the list, checked.

    Raises InputError for m < 2, an empty list, an index out of range or not a whole number, or a pair with k = l.
    """
    check_whole(2, m=m)
    if pairs is None:
        return torch.triu_indices(m, m, offset=1).T.contiguous()
    try:
        given = torch.as_tensor(pairs)
        table = given.to(torch.int64).reshape(-1, 2)
    except (ValueError, TypeError, RuntimeError):
        table = given = torch.zeros(1)
    if table.dtype == torch.float32 or not bool((table == given.reshape(-1, 2)).all()):
        raise InputError(f"pairs = {pairs!r}: it must be a list of pairs of feature numbers, such as [[0, 1], [2, 5]]")
    if len(table) == 0:
        raise InputError("the list of pairs is empty: name at least one pair, or leave it out for all pairs")
    for k, l in table[((table < 0) | (table >= m)).any(1)].tolist():
        raise InputError(f"the pair ({k}, {l}) is out of range: features are numbered from 0 to m − 1 = {m - 1}")
    for k, l in table[table[:, 0] == table[:, 1]].tolist():
        raise InputError(f"the pair ({k}, {l}) has k = l: a pair needs two different features")
    return table


def pair_task(task: Task, reader: str, m: int) -> PairTask:
    """Return the task. Raises InputError unless it is a gate on pairs of m features, as the `reader` of a layer needs it."""
    if not isinstance(task, PairTask):
        raise InputError(f"{reader} reads a gate on pairs of features; the task {task.name} is not one")
    if task.m != m:
        raise InputError(f"the layer has {m} features and the task {task.m}: they must be the same")
    return task


@dataclass(frozen=True, kw_only=True)
class TaskMember(Member):
    """A task by name: `function` makes it from m and, if it has such parameters, from pairs, seed or what a record stores."""

    @property
    def pairwise(self) -> bool:
        """Whether the setting `pairs` chooses among its outputs."""
        return "pairs" in self.parameters


TASKS = Registry("task", TaskMember, "toymodels.tasks")
"""Tasks by name. A member makes a `Task` from those of its parameters: m, pairs (the setting, or None for all), seed, and
whatever its `stored()` returned, by name; None when the task is made for the first time."""


def _gate(name: str) -> None:
    def make(m: int, pairs: Any) -> PairTask:
        return PairTask(m, name, pairs)

    make.__doc__ = f"Compute the gate {name} of pairs of features, with the truth table {Gate.parse(name).digits}."
    make.__qualname__ = f"gate_{name}"
    TASKS(name, order=0 if name in ("and", "xor", "or") else 1)(make)


for _name in GATE_NAMES:
    _gate(_name)


def task_name(text: str) -> str:
    """Return the standard name of a task: of a gate written as a truth table or "U-AND", of a call with its knobs in order.

    Raises InputError for an unknown task or knob.
    """
    return TASKS.canonical(Gate.alias(text))


def make_task(
    text: str,
    m: int,
    pairs: Sequence[Sequence[int]] | Int[Tensor, "pairs 2"] | None = None,
    seed: int = 0,
    stored: Mapping[str, Tensor] | None = None,
) -> Task:
    """Make a task by name; `seed` draws its random parts, `stored` is what a record has stored of it.

    Raises InputError for an unknown task, pairs for a task without pairs, or sizes that do not fit.
    """
    member, knobs = TASKS.named(Gate.alias(text))
    if pairs is not None and not member.pairwise:
        raise InputError(f"the task {member.name} is not one on pairs of features: leave pairs out")
    kept = dict.fromkeys((name for name in member.parameters if name not in member.knobs), None) | dict(stored or {})
    task: Task = member.call({**kept, "m": m, "seed": seed, "pairs": kept.get("pairs") if stored else pairs}, knobs)
    if parse_call(task.name)[0] != member.name or "(" not in task.name:  # unless the task's name already has its knobs
        task.name = TASKS.canonical(Gate.alias(text))
    if stored is None or "chosen" not in stored:
        return task
    return task.subset(stored["chosen"])
