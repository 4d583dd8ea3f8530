"""Describe the cells of the atlas: a task, its inputs, and a width; with all inputs and targets as NumPy arrays.

A cell asks: how small can the worst error be, over all outputs of the task and all inputs with at most s of m features active,
with d ReLU neurons and the best linear readoffs?
"""

from __future__ import annotations

import functools
import itertools
import math
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError, check_kind, check_whole
from toymodels.registry import parse_call
from toymodels.theory.gates import GATE_NAMES, Gate

MOST_NUMBERS = 2**24
"""Inputs × outputs up to which a cell is taken: 128 MiB of targets."""
_NAME = re.compile(r"(?P<task>[a-z0-9_]+)-at_most_(?P<s>\d+)-m(?P<m>\d+)-d(?P<d>\d+)")
_SETS = re.compile(r"and_of_(\d+)")


@dataclass(frozen=True, order=True)
class Cell:
    """A task on all pairs (or all sets of k) of m features, at most s of them active, and d neurons."""

    task: str
    """A gate on pairs ("and", "xor", …), or "and_of(k=3)", …: the AND of every k features. One task has one spelling here."""
    s: int
    m: int
    d: int

    def __post_init__(self) -> None:
        check_kind(str, "the name of a task, such as 'and'", task=self.task)
        check_whole(2, 10_000, m=self.m)
        check_whole(1, self.m, s=self.s)
        check_whole(1, 1_000_000, d=self.d)
        size, (name, _) = set_size(self.task), parse_call(self.task)
        object.__setattr__(self, "task", name if name in GATE_NAMES else f"and_of(k={size})")
        if size > self.m:
            raise InputError(f"the task {self.task} needs {size} features: there are m = {self.m}")
        if self.inputs * self.outputs > MOST_NUMBERS:
            raise InputError(
                f"{self.inputs:,} inputs × {self.outputs:,} outputs are more than {MOST_NUMBERS:,}: take fewer features"
            )

    @property
    def inputs(self) -> int:
        """The number of inputs with at most s of m active."""
        return sum(math.comb(self.m, active) for active in range(self.s + 1))

    @property
    def outputs(self) -> int:
        """The number of outputs: all pairs, or all sets of k."""
        return math.comb(self.m, set_size(self.task))

    @property
    def name(self) -> str:
        """Its name in file names: and-at_most_2-m06-d004."""
        return f"{file_task(self.task)}-at_most_{self.s}-m{self.m:02d}-d{self.d:03d}"

    @property
    def in_words(self) -> str:
        """Its name in sentences."""
        return f"{self.task} of {self.m} features, at most {self.s} active, {self.d} neurons"

    def serves(self, other: Cell) -> bool:
        """Whether each layer of this cell makes one of the other that is no worse: features left out, dead neurons added."""
        return self.task == other.task and self.s >= other.s and self.m >= other.m and self.d <= other.d

    def x(self) -> Float[np.ndarray, "inputs m"]:
        """List all inputs, by the number of active features, then in lexicographic order: as `Features.enumerate` does."""
        return all_inputs(self.m, self.s)

    def targets(self) -> Float[np.ndarray, "inputs outputs"]:
        """Compute the target of each input and output; outputs are in lexicographic order of their features."""
        return all_targets(self.task, self.m, self.s)


def set_size(task: str) -> int:
    """Return how many features an output reads. Raises InputError for a task that the atlas does not have."""
    name, knobs = parse_call(task)
    if name in GATE_NAMES and not knobs:
        return 2
    if name == "and_of" and set(knobs) <= {"k"}:
        k = knobs.get("k", 3)
        check_whole(2, 10, k=k)
        return int(k)
    raise InputError(f"task = {task!r}: the atlas has the gates {', '.join(GATE_NAMES)} on pairs, and and_of(k=3), …")


def file_task(task: str) -> str:
    """Return the task's name as it stands in file names."""
    name = parse_call(task)[0]
    return name if name in GATE_NAMES else f"and_of_{set_size(task)}"


def cell_of(name: str) -> Cell:
    """Return the cell of a name. Raises InputError for a text that is no such name."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(f"{name!r} is no name of a cell: write it as and-at_most_2-m06-d004")
    sets = _SETS.fullmatch(match["task"])
    task = f"and_of(k={sets[1]})" if sets else match["task"]
    return Cell(task, int(match["s"]), int(match["m"]), int(match["d"]))


@functools.lru_cache(maxsize=8)
def all_inputs(m: int, s: int) -> Float[np.ndarray, "inputs m"]:
    """List all 0/1 vectors with at most s ones."""
    rows = [active for number in range(s + 1) for active in itertools.combinations(range(m), number)]
    x = np.zeros((len(rows), m))
    for row, active in zip(x, rows, strict=True):
        row[list(active)] = 1
    x.flags.writeable = False
    return x


@functools.lru_cache(maxsize=8)
def all_targets(task: str, m: int, s: int) -> Float[np.ndarray, "inputs outputs"]:
    """Compute the targets of all inputs and outputs."""
    x, size = all_inputs(m, s), set_size(task)
    sets = np.array(list(itertools.combinations(range(m), size)))
    if task in GATE_NAMES:
        truth = np.array(Gate.parse(task).truth, dtype=float)
        targets = truth[(2 * x[:, sets[:, 0]] + x[:, sets[:, 1]]).astype(np.int64)]
    else:
        targets = np.prod([x[:, column] for column in sets.T], axis=0)
    targets.flags.writeable = False
    return np.asarray(targets, dtype=float)
