"""The Bernoulli construction of U-AND with its debiased readoff, at the p that serves best."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from toymodels.errors import InputError
from toymodels.laws.registry import BOTH, Law, Measured, Problem, Value, law
from toymodels.theory.bernoulli import asymptotic_probability, bernoulli_errors, debias, least_rms, least_worst_error
from toymodels.theory.widths import smallest_width

if TYPE_CHECKING:
    from toymodels.fast.streaming import CaseErrors
    from toymodels.laws.measuring import DrawnLayers

_RMS_WIDEST, _MAX_WIDEST = 20_000, 2_000
"""Neurons up to which an RMS error, and a largest error, are predicted: sums and convolutions as long as d."""
_GRID = 15
"""Values of p tried for the largest error: a quarter of what layers take (`theory.bernoulli.least_worst_error`), to be quick."""


def _measure(drawn: DrawnLayers, p: float) -> tuple[list[CaseErrors], str]:
    """Measure all pairs of a Bernoulli layer on one random input with exactly s active, for each seed."""
    import torch

    from toymodels import PairTask, SparseFeatures
    from toymodels.core.seeds import seeded
    from toymodels.fast.streaming import case_errors

    m, d, s = drawn.problem.m, drawn.problem.d, drawn.problem.s
    if m * d > 20_000_000:
        raise InputError("m·d is above 20,000,000")
    task, correction = PairTask(m, drawn.problem.gate), debias(s, p)
    k, l = task.pairs.T

    def errors(seed: int) -> CaseErrors:
        generator = seeded(drawn.random_seed(seed))
        weight = (torch.rand(d, m, generator=generator) < p).float()
        inputs = SparseFeatures.exactly(m, s).sampled(1, drawn.random_seed(seed, "evaluation"))
        active = (weight @ inputs.dense()[0] - 1).relu()
        size = (weight.T @ weight)[k, l].double()
        total = (weight.T @ (weight * active[:, None]))[k, l].double()
        outputs = correction.gain * total / size.clamp(min=1) - correction.shift
        return case_errors(outputs[None], task, inputs)

    coverage = f"{drawn.layers}, one input with {s} active each, all {task.n_outputs:,} pairs"
    return drawn.each(errors), coverage


_law = partial(law, source="Vaintrob et al. 2024 (theory.bernoulli)", inputs="exactly", gates=("and",), order=45)


@_law("bernoulli_rms", about="Bernoulli layer: largest of the cases' RMS", tables=BOTH, faults=(1.6, 0.45))
class BernoulliRMS(Law):
    """The RMS error in the worst case, at the p at which it is least."""

    def predict(self, problem: Problem) -> Value:
        if problem.s > problem.m - 2:
            raise InputError("it holds for s <= m − 2: all four cases must occur")
        best = least_rms(problem.d, problem.s)
        return best.error, f"least over p, at p = {best.p:.3f}"

    def width(self, problem: Problem, epsilon: float) -> Value:
        width = smallest_width(lambda d: self.reached(problem.at(d)) <= epsilon, 2, _RMS_WIDEST)
        return width, f"least over p, at p = {least_rms(width, problem.s).p:.3f}"

    def measure(self, drawn: DrawnLayers) -> Measured:
        self.predict(drawn.problem)
        d, s = drawn.problem.d, drawn.problem.s
        p = least_rms(d, s).p
        on = int(bernoulli_errors(d, s, p, "affine").rms.argmax())
        errors, coverage = _measure(drawn, p)
        case = ("00", "01", "11")[on]
        samples = [float(error.mean_square[(0, 1, 3)[on]]) for error in errors]
        return Measured(samples, f"{coverage}, case {case}", "root mean")


@_law("bernoulli_max_median", about="Bernoulli layer: worst error on one input, median", accuracy=(0.85, 1.0))
class BernoulliLargestError(Law):
    """The median over layers of the worst error on one input, at the p at which it is least."""

    def predict(self, problem: Problem) -> Value:
        m, d = problem.m, problem.d
        if d > _MAX_WIDEST:
            raise InputError(f"slow above d = {_MAX_WIDEST:,}")
        best = least_worst_error(m, d, problem.s, grid=_GRID)
        asymptotic = asymptotic_probability(m, d)
        return best.error, f"least over p, at p = {best.p:.3f}; the asymptotic p is {asymptotic:.3f}"

    def measure(self, drawn: DrawnLayers) -> Measured:
        self.predict(drawn.problem)
        p = least_worst_error(drawn.problem.m, drawn.problem.d, drawn.problem.s, grid=_GRID).p
        errors, coverage = _measure(drawn, p)
        return Measured([error.worst for error in errors], coverage, "quantile")
