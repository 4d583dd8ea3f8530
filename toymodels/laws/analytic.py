"""The analytic (four-quadrant) readoff of a Gaussian layer at exactly s active features: its RMS and its largest error."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.laws.measuring import SAMPLE, DrawnLayers
from toymodels.laws.registry import BOTH, Law, Measured, Problem, RootLaw, Value, law
from toymodels.theory.counts import case_shares
from toymodels.theory.extremes import MaxErrorDistribution, max_error_distribution
from toymodels.theory.gates import CASE_NAMES, Gate
from toymodels.theory.quadrants import error_std, rms_over
from toymodels.theory.widths import smallest_width

if TYPE_CHECKING:
    from toymodels.fast.streaming import CaseErrors

_OUTPUTS, _PRODUCTS = 10_000_000, 1_000_000_000
"""Inputs × pairs, and that × neurons, up to which a layer is measured on all of them."""


def _covers_all(problem: Problem) -> bool:
    outputs = math.comb(problem.m, problem.s) * problem.pairs
    return outputs <= _OUTPUTS and outputs * problem.d <= _PRODUCTS


def _errors(drawn: DrawnLayers) -> tuple[list[CaseErrors], str]:
    """Measure each layer on all inputs with exactly s active and all pairs, or on a sample with every case in it."""
    from toymodels import PairTask, SparseFeatures
    from toymodels.fast.streaming import analytic_rule

    problem = drawn.problem
    rule, covered, size = analytic_rule(problem.gate, problem.s), None, drawn.sampled()
    if _covers_all(problem):
        covered = SparseFeatures.exactly(problem.m, problem.s).enumerate(), PairTask(problem.m, problem.gate)
        size = f"all {len(covered[0]):,} inputs × all {problem.pairs:,} pairs"

    def measure(seed: int) -> CaseErrors:
        return drawn.rule_errors(rule, seed, *(covered or drawn.sample(seed, problem.s)))

    return drawn.each(measure, "analytic readoff"), f"{drawn.layers}, {size}"


@dataclass(frozen=True, kw_only=True)
class AnalyticRMS(RootLaw):
    """The RMS error over some of the cases 00, 01, 10, 11: exact at every width."""

    cases: Callable[[Gate], Sequence[int]]
    """The cases, for a gate."""

    def _over_cases(self, problem: Problem, mean_square: Float[np.ndarray, " 4"]) -> float:
        return rms_over(self.cases(problem.gate), case_shares(problem.m, problem.s), mean_square)

    def predict(self, problem: Problem) -> Value:
        return self._over_cases(problem, error_std(problem.gate, problem.s) ** 2 / problem.d)

    def measure(self, drawn: DrawnLayers) -> Measured:
        self.predict(drawn.problem)
        errors, coverage = drawn.once(_errors)
        squares = [self._over_cases(drawn.problem, error.mean_square) ** 2 for error in errors]
        return Measured(squares, coverage, "root mean")


@dataclass(frozen=True, kw_only=True)
class LargestError(Law):
    """A quantile, over layers, of the largest error over all pairs and inputs."""

    level: float

    def _distribution(self, problem: Problem) -> MaxErrorDistribution:
        inputs = math.comb(problem.m, problem.s)
        return max_error_distribution(problem.gate, problem.m, problem.s, problem.d, inputs)

    def predict(self, problem: Problem) -> Value:
        note = "inputs taken as independent, so from above: some 5 % high over all inputs, up to 15 % at 10 features"
        return self._distribution(problem).quantile(self.level), note

    def width(self, problem: Problem, epsilon: float) -> Value:
        distribution = self._distribution(problem.at(10))
        width = smallest_width(lambda d: dataclasses.replace(distribution, d=d).cdf(epsilon) >= self.level, least=10)
        return width, "predictions are made from d = 10 up" if width == 10 else ""

    def measure(self, drawn: DrawnLayers) -> Measured:
        if not _covers_all(drawn.problem):
            raise InputError("over all inputs; see the rows for the sample")
        errors, coverage = drawn.once(_errors)
        return Measured([error.worst for error in errors], coverage, "quantile", self.level)


class SampledLargestError(LargestError):
    """The same quantile for the sample that `--check` measures where inputs are too many to cover all."""

    def applies(self, problem: Problem) -> bool:
        return bool(problem.seeds) and not _covers_all(problem)

    def predict(self, problem: Problem) -> Value:
        distribution = max_error_distribution(problem.gate, problem.m, problem.s, problem.d, SAMPLE)
        return dataclasses.replace(distribution, counts=_sampled_counts(problem)).quantile(self.level)

    def measure(self, drawn: DrawnLayers) -> Measured:
        errors, coverage = drawn.once(_errors)
        return Measured([error.worst for error in errors], coverage, "quantile", self.level)


@functools.lru_cache(maxsize=8)
def _sampled_counts(problem: Problem) -> tuple[float, float, float, float]:
    """Return how many errors of each case a sample has per input, mean over seeds."""
    drawn = DrawnLayers(problem)
    samples = [drawn.sample(seed, problem.s) for seed in problem.seeds]
    counts = [np.bincount(task.cases(inputs.dense()).reshape(-1), minlength=4) for inputs, task in samples]
    none, second, first, both = (np.mean(counts, axis=0) / SAMPLE).tolist()
    return none, second, first, both


def _with_value(value: int, gate: Gate) -> Sequence[int]:
    return [case for case in range(4) if gate.truth[case] == value]


def _one_case(case: int, gate: Gate) -> Sequence[int]:
    return [case]


_law = partial(law, inputs="exactly", order=20)
_rms = partial(_law, source="quadrant moments (theory.quadrants)")
_max = partial(_law, source="Cornish–Fisher extremes (theory.extremes)")

for _value, _name in enumerate(("zeros", "ones")):
    _about, _cases = f"analytic readoff: RMS at {_name}", partial(_with_value, _value)
    _rms(f"analytic_rms_{_name}", cases=_cases, about=_about, tables=BOTH)(AnalyticRMS)
for _case, _name in enumerate(CASE_NAMES):
    _about, _cases = f"analytic readoff: RMS in case {_name}", partial(_one_case, _case)
    _rms(f"analytic_rms_{_name}", cases=_cases, about=_about)(AnalyticRMS)
for _name, _level, _of, _tables, _faults in (
    ("q05", 0.05, "5 % of layers below", ("bounds",), (1.4,)),  # few layers say nothing of a quantile that is too low
    ("median", 0.5, "median of layers", BOTH, (1.4, 0.7)),
    ("q95", 0.95, "95 % of layers below", ("bounds",), (0.7,)),
):
    _quantile = partial(_max, level=_level, faults=_faults)
    _about = "analytic readoff: worst error"
    _quantile(f"analytic_max_{_name}", about=f"{_about}, {_of}", tables=_tables, accuracy=(0.84, 1.05))(LargestError)
    _sampled = f"{_about} over the sample, {_of}"
    _quantile(f"analytic_max_{_name}_sampled", about=_sampled, accuracy=(0.9, 1.05))(SampledLargestError)
