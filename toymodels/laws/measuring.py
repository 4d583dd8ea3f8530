"""Draw the layers, inputs and pairs that laws are measured on. What needs torch is imported where it is used."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from toymodels.errors import InputError
from toymodels.laws.registry import Problem
from toymodels.parallel.progress import Bar

if TYPE_CHECKING:
    from toymodels import FirstLayer, Inputs, PairTask, SparseFeatures
    from toymodels.fast.streaming import CaseErrors, Rule

T = TypeVar("T")

SAMPLE = 300
"""Inputs sampled per layer, at most, where they are too many to cover all."""
FIT_LIMIT, FIT_WIDTH, FIT_PAIRS = 5_000, 400, 3
"""Inputs up to which readoffs are fitted; neurons up to which, and pairs per layer for which, one is fitted to each pair."""


@dataclass(frozen=True)
class DrawnLayers:
    """The layers drawn for one problem, one for each of its seeds, and what they are measured on."""

    problem: Problem

    @functools.cached_property
    def _results(self) -> dict[Any, Any]:
        return {}

    def once(self, measure: Callable[[DrawnLayers], T]) -> T:
        """Return measure(self), done once however many laws ask for it."""
        if measure not in self._results:
            self._results[measure] = measure(self)
        result: T = self._results[measure]
        return result

    def each(self, measure: Callable[[int], T], name: str = "") -> list[T]:
        """Return measure(seed) for every seed, with a progress bar if it has a name."""
        seeds = self.problem.seeds
        return [measure(seed) for seed in Bar(name, len(seeds), "layer", position=1, in_files=False).over(seeds)]

    @property
    def layers(self) -> str:
        """Say in words which layers these are."""
        seeds = self.problem.seeds
        return f"{len(seeds)} layers (seeds {list_seeds(seeds)})" if len(seeds) > 1 else f"1 layer (seed {seeds[0]})"

    def random_seed(self, seed: int, role: str = "frozen layer") -> int:
        """Return the seed of one stream of random numbers: the same layer as a comparison's frozen one has."""
        from toymodels.core.seeds import derive_seed

        return derive_seed(seed, role)

    def layer(self, seed: int) -> FirstLayer:
        """Draw the frozen Gaussian layer of this seed (N(0, 1), no bias, ReLU)."""
        from toymodels import gaussian

        return gaussian(self.problem.m, self.problem.d, self.random_seed(seed)).requires_grad_(False)

    @functools.cached_property
    def features(self) -> SparseFeatures:
        """The distribution of the problem's inputs."""
        from toymodels import SparseFeatures

        make = SparseFeatures.at_most if self.problem.at_most else SparseFeatures.exactly
        return make(self.problem.m, self.problem.s)

    def inputs(self, limit: int = FIT_LIMIT) -> Inputs:
        """List all inputs of the problem. Raises InputError where they are more than `limit`."""
        if self.features.n_inputs > limit:
            raise InputError(f"{self.features.n_inputs:,} inputs are more than {limit:,}")
        return self.features.enumerate()

    def fit_inputs(self) -> Inputs:
        """List all inputs for readoffs fitted pair by pair. Raises InputError for too many, or layers that are too wide."""
        if self.problem.d > FIT_WIDTH:
            raise InputError(f"readoffs are fitted pair by pair up to d = {FIT_WIDTH}")
        return self.inputs()

    def some_pairs(self, seed: int, limit: int = FIT_PAIRS) -> PairTask:
        """Draw at most `limit` pairs for this seed."""
        import torch

        from toymodels import PairTask
        from toymodels.core.seeds import seeded

        task = PairTask(self.problem.m, self.problem.gate)
        if task.n_outputs <= limit:
            return task
        generator = seeded(self.random_seed(seed, "pairs"))
        return task.subset(torch.randperm(task.n_outputs, generator=generator)[:limit])

    def pairs_chosen(self, limit: int = FIT_PAIRS) -> str:
        """Say in words which pairs `some_pairs` draws."""
        pairs = self.problem.pairs
        return f"all {pairs:,} pairs" if pairs <= limit else f"{limit:,} pairs sampled per layer"

    def sample(self, seed: int, s: int, inputs: int = SAMPLE) -> tuple[Inputs, PairTask]:
        """Draw inputs with exactly s active, `SAMPLE` at most, and pairs among which every case occurs often."""
        from toymodels.fast.streaming import sample_cases

        problem, random_seed = self.problem, self.random_seed(seed, "evaluation")
        return sample_cases(problem.m, s, problem.gate, min(SAMPLE, inputs), random_seed)

    def sampled(self, inputs: int = SAMPLE) -> str:
        """Say in words what `sample` covers."""
        inputs = min(SAMPLE, inputs)
        return f"{inputs:,} inputs × about {3 * inputs:,} pairs, sampled anew for each layer"

    def rule_errors(
        self, rule: Rule, seed: int, inputs: Inputs, task: PairTask, offset: float = 0.0, bias: float = 0.0
    ) -> CaseErrors:
        """Measure the errors of a readoff η(u, v)/d on this seed's Gaussian layer, drawn in blocks of neurons."""
        from toymodels.fast.streaming import case_errors, stream_outputs

        outputs = stream_outputs(rule, self.problem.d, task, inputs, self.random_seed(seed), bias=bias)
        return case_errors(outputs + offset, task, inputs)


def list_seeds(seeds: tuple[int, ...]) -> str:
    """Write seeds in words: 0–19, or 3, 5, 8."""
    run = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]}–{seeds[-1]}" if run else ", ".join(map(str, seeds))
