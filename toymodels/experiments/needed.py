"""The width that a first layer and readoff need for an error: comparisons at more and more neurons until it is reached.

Widths rise by √2 from 8 on (the next square for a quadratic layer). Each is an ordinary run of `compare`, kept in a folder
of runs, so a stopped search goes on, `toymodels results` makes the table, and `figures.needed` reads widths off it.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from toymodels.core.features import ENUMERATION_LIMIT, SparseFeatures
from toymodels.core.seeds import derive_seed
from toymodels.core.settings import FULL_BATCH_LIMIT
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.experiments.compare import CompareConfig, run_compare
from toymodels.parallel import processes as jobs
from toymodels.runs.record import run_name
from toymodels.runs.settings import EXHAUSTIVE_LIMIT
from toymodels.runs.storage import read_json


@dataclass(frozen=True)
class Method:
    """A first layer with a readoff, and how far it is looked at."""

    layer: str
    readoff: str
    layer_p: float | None = None
    """Share of weights that are not 0, in a bernoulli or ternary layer."""
    widest: int = 1024
    """Neurons beyond which the search ends, its error not reached."""
    most_inputs: int = ENUMERATION_LIMIT
    """Inputs beyond which a problem is not looked at: a sample's worst error is no measure beside that of all inputs."""

    @property
    def name(self) -> str:
        """As in tables: bernoulli(0.5)/minimax."""
        return f"{self.layer}{'' if self.layer_p is None else f'({self.layer_p:g})'}/{self.readoff}"


MINIMAX = tuple(
    Method(layer, "minimax", p)
    for layer, p in (("gaussian", None), ("rademacher", None), ("bernoulli", 0.5), ("four_class", None))
)
OWN = tuple(
    Method(layer, "analytic" if layer == "gaussian" else "own", widest=32_768)
    for layer in ("gaussian", "rademacher", "four_class", "bernoulli", "quadratic")
)
TRAINED = (Method("trained", "minimax", widest=512, most_inputs=10_000),)  # all pairs and inputs in each step
METHODS = {method.name: method for method in (*TRAINED, *MINIMAX, *OWN)}
"""What is compared, by name."""


@dataclass(frozen=True)
class Search:
    """One chain of runs: a method, a size and a seed."""

    method: Method
    m: int
    s: int
    seed: int
    epsilons: tuple[float, ...]
    pairs: int
    """Pairs, drawn at random, whose largest error counts (every input of at most s active)."""
    steps: int
    """Training steps of a trained layer, which learns all pairs."""


def run_search(search: Search, folder: Path, position: int = 0) -> None:
    """All runs of a search into folder/NAME; those that are finished are read, not repeated."""
    jobs.work_alone()

    def worst(d: int) -> float:
        config = configuration(search, d)
        there = folder / run_name("compare", config)
        if not (there / "results.json").exists():
            run_compare(dataclasses.replace(config, out=there))
        rows = read_json(there / "results.json", ("rows",))["rows"]
        return max(float(row["worst_error"]) for row in rows)

    through(worst, widths(search.method), search.epsilons, guess(search))


def widths(method: Method) -> list[int]:
    """8·2^(k/2), whole and even, or the nearest squares."""
    found = dict.fromkeys(2 * round(4 * 2 ** (k / 2)) for k in itertools.takewhile(
        lambda k: 8 * 2 ** (k / 2) <= method.widest * 1.001, itertools.count()))  # fmt: skip
    return [round(math.sqrt(d)) ** 2 for d in found] if method.layer == "quadratic" else list(found)


def guess(search: Search) -> int:
    """About where the largest error of the search might be reached, as it was measured: where the search begins."""
    if search.method.readoff != "minimax":
        return 2 * search.m
    return round(6.5 * search.m**0.6) if search.s <= 2 else round(8 * search.m**0.8)


def through(worst: Callable[[int], float], grid: list[int], epsilons: tuple[float, ...], start: int) -> None:
    """Measure every width of the grid from the last above the largest epsilon to the first at or below the smallest."""
    place = next((i for i, d in enumerate(grid) if d >= start), len(grid) - 1)
    while place and worst(grid[place]) <= max(epsilons):
        place -= 1
    while place < len(grid) and worst(grid[place]) > min(epsilons):
        place += 1


def configuration(search: Search, d: int) -> CompareConfig:
    """The run of a search at one width."""
    method, learns = search.method, search.method.layer == "trained"
    # By the same optimiser at every size: beyond FULL_BATCH_LIMIT "auto" would be another one.
    every = SparseFeatures.at_most(search.m, search.s).n_inputs * PairTask(search.m, "and").n_outputs
    return CompareConfig(
        m=search.m, d=d, s=search.s, inputs="at_most", task=("and",), seeds=(search.seed,), figures=False,
        optimiser="lbfgs" if learns and every > FULL_BATCH_LIMIT else "auto",
        pairs=None if learns else _pairs(search), minimax_pairs=search.pairs, steps=search.steps if learns else 3000,
        layers=(method.layer,), readoffs=(method.readoff,),
        knobs={} if method.layer_p is None else {"p": method.layer_p},
    )  # fmt: skip


def _pairs(search: Search) -> tuple[tuple[int, int], ...]:
    """The pairs that a comparison with minimax_pairs would draw: the same for all methods of a seed."""
    task = PairTask(search.m, "and")
    order = torch.randperm(task.n_outputs, generator=torch.Generator().manual_seed(derive_seed(search.seed, "pairs")))
    return tuple((int(k), int(l)) for k, l in task.pairs[order[: search.pairs].sort().values].tolist())


@dataclass(frozen=True)
class NeededConfig:
    """Measure the width that each first layer and readoff needs for an error, over the number of features."""

    out: Path = Path("runs/width_needed")
    """Folder of the runs; the same command again goes on there."""
    methods: tuple[str, ...] = tuple(METHODS)
    """First layers and readoffs."""
    epsilon: tuple[float, ...] = (0.25, 0.2, 0.1)
    """Errors to reach."""
    m: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Numbers of features."""
    s: tuple[int, ...] = (2, 3)
    """At most so many of them are active."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds, each with pairs and layers of its own."""
    pairs: int = 16
    """Pairs sampled, at most all."""
    steps: int = 1500
    """L-BFGS steps of a trained layer."""

    def searches(self) -> Iterator[Search]:
        """Every search that is small enough for its method. Raises InputError for settings that make none."""
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise InputError(f"unknown method {unknown[0]!r}: choose from {', '.join(METHODS)}")
        if not self.epsilon or not all(0 < epsilon < 1 for epsilon in self.epsilon) or self.pairs < 1:
            raise InputError("epsilon takes errors between 0 and 1, at least one, and pairs a number from 1 up")
        for m, s in itertools.product(self.m, self.s):
            if SparseFeatures.at_most(m, s).n_inputs * self.pairs > EXHAUSTIVE_LIMIT:
                raise InputError(
                    f"{self.pairs} pairs on all inputs of at most {s} of {m} are too many: take fewer pairs"
                )
        for m, s, name, seed in itertools.product(self.m, self.s, self.methods, self.seeds):
            if SparseFeatures.at_most(m, s).n_inputs <= METHODS[name].most_inputs:
                yield Search(METHODS[name], m, s, seed, self.epsilon, self.pairs, self.steps)


def measure(config: NeededConfig) -> Path:
    """Do all searches, or go on with them, on all cores; returns the folder of the runs."""
    searches: list[Any] = [(search, config.out) for search in config.searches()]
    jobs.run_jobs(run_search, searches)
    return config.out
