"""Readoffs of a Gaussian layer that are functions η(u, v) of the pair's own two weights on each neuron: σ/√d exactly."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from toymodels.errors import InputError
from toymodels.laws.registry import BOTH, Measured, Problem, RootLaw, Value, law
from toymodels.theory.counts import case_shares
from toymodels.theory.gates import CASE_NAMES
from toymodels.theory.kernel import KernelFit, kernel_fit
from toymodels.theory.optimal import PopulationReadoff, optimal_readoff
from toymodels.theory.varying import tune_biases, varying_readoff

if TYPE_CHECKING:
    from toymodels.laws.measuring import DrawnLayers

_VARYING = 6
"""Active features up to which the readoff for varying s is found (seconds beyond, and constants in the thousands)."""
_BIASED = 4
"""Active features up to which that layer's best bias is searched (seconds up to here)."""
_PRODUCTS = 3_000_000
"""Pairs × neurons up to which η(u, v) is evaluated, per layer."""


@dataclass(frozen=True, kw_only=True)
class PopulationLaw(RootLaw):
    """The largest RMS error, over the conditions for which a readoff is made; `function` finds the readoff for a problem."""

    at_most_only: bool = False

    def applies(self, problem: Problem) -> bool:
        return problem.at_most or not self.at_most_only

    def _readoff(self, problem: Problem) -> tuple[PopulationReadoff | KernelFit, int, str]:
        """Find the readoff, its hardest condition that occurs among m features, and that in words."""
        readoff: PopulationReadoff | KernelFit = self.function(problem)
        occurs = [case_shares(problem.m, s)[case] > 0 for s, case in readoff.conditions]
        index = int(np.where(occurs, readoff.sigma, 0).argmax())
        s, case = readoff.conditions[index]
        return readoff, index, f"case {CASE_NAMES[case]} with {s} active"

    def predict(self, problem: Problem) -> Value:
        readoff, index, hardest = self._readoff(problem)
        (bias,) = readoff.biases
        layer = f"every bias {bias:.2f} (the best), " if bias else ""
        return float(readoff.sigma[index]) / math.sqrt(problem.d), f"{layer}hardest in {hardest}; exact at every width"

    def measure(self, drawn: DrawnLayers) -> Measured:
        """Measure it in the hardest condition."""
        from toymodels.fast.streaming import rule_of

        d = drawn.problem.d
        if 30 * d > _PRODUCTS:
            raise InputError("too wide to evaluate η(u, v) at every neuron")
        readoff, index, hardest = self._readoff(drawn.problem)
        (bias,), (s, case), inputs = readoff.biases, readoff.conditions[index], max(10, _PRODUCTS // (3 * d))
        rule = rule_of(lambda u, v: readoff.eta(u, v, np.full_like(u, bias)))

        def square(seed: int) -> float:
            errors = drawn.rule_errors(rule, seed, *drawn.sample(seed, s, inputs), readoff.offset, bias)
            return float(errors.mean_square[case])

        coverage = f"{drawn.layers}, {hardest}, {drawn.sampled(inputs)}"
        return Measured(drawn.each(square, self.name), coverage, "root mean")


_law = partial(law, base=PopulationLaw, order=30)
_varying_law = partial(_law, source="least variance (theory.varying)", at_most_only=True)


@_law(
    "optimal_rms", about="best η(u, v): largest of the cases' RMS", source="least variance (theory.optimal)",
    inputs="exactly", tables=BOTH
)  # fmt: skip
@functools.cache
def optimal(problem: Problem) -> PopulationReadoff:
    """Find the unbiased η(u, v) of least worst variance at exactly s active."""
    return optimal_readoff(problem.gate, problem.s)


@_varying_law("varying_rms", about="best η(u, v) for all counts: largest RMS", tables=BOTH)
@functools.cache
def varying(problem: Problem) -> PopulationReadoff:
    """Find the readoff that is unbiased at every number of active features up to s."""
    if problem.s > _VARYING:
        raise InputError(f"it is found for s up to {_VARYING}; without biases its constant grows into the thousands")
    return varying_readoff(problem.gate, problem.s)


@_varying_law("varying_biased_rms", about="the same on a layer with one bias: largest RMS")
@functools.cache
def varying_biased(problem: Problem) -> PopulationReadoff:
    """Find the same on a layer whose neurons share the one bias that serves best."""
    if problem.s > _BIASED:
        raise InputError(f"the best bias is searched for s up to {_BIASED} (a minute and more beyond)")
    return varying_readoff(problem.gate, problem.s, tune_biases(problem.gate, problem.s))


@_law("kernel_rms", about="least-norm η(u, v): largest RMS", source="Cho & Saul 2009 (theory.kernel)", tables=BOTH)
@functools.cache
def kernel(problem: Problem) -> KernelFit:
    """Find the least-norm readoff of the infinite layer for many features."""
    if problem.at_most and problem.s > _VARYING:
        raise InputError(f"for at most s active it is found for s up to {_VARYING}")
    return kernel_fit(problem.gate, None, problem.s, at_most=problem.at_most)
