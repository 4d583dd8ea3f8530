"""Case-balanced least squares fitted on all inputs to a frozen Gaussian layer: its RMS error in each case."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from toymodels.errors import InputError
from toymodels.laws.registry import Law, Measured, Problem, Value, law
from toymodels.theory.fitted import fitted_error
from toymodels.theory.gates import CASE_NAMES

if TYPE_CHECKING:
    from toymodels.laws.measuring import DrawnLayers


def _squares(drawn: DrawnLayers) -> tuple[list[list[float]], str]:
    """Fit the readoff to a few pairs of each layer: mean square errors by case, and what they cover."""
    from toymodels import Network, balanced, evaluate

    inputs = drawn.fit_inputs()

    def squares(seed: int) -> list[float]:
        task, layer = drawn.some_pairs(seed), drawn.layer(seed)
        network = Network(layer, balanced(layer, task, drawn.features, inputs))
        return [case.rms**2 for case in evaluate(network, task, inputs).cases.values()]

    coverage = f"{drawn.layers}, {inputs.description} inputs, {drawn.pairs_chosen()}"
    return drawn.each(squares, "balanced least squares"), coverage


_MOST_UP_TO, _MOST_EXACTLY = 32, 200
"""Active features, at most s or exactly s, up to which the prediction takes less than 10 seconds."""


@dataclass(frozen=True, kw_only=True)
class BalancedRMS(Law):
    """The RMS error in one case, or (case None) the largest of the four."""

    case: int | None = None

    def _case(self, problem: Problem) -> tuple[float, int]:
        """Return the predicted RMS error and its case."""
        most = _MOST_UP_TO if problem.at_most else _MOST_EXACTLY
        if problem.s > most:
            raise InputError(f"it takes too long for s = {problem.s}: it is computed up to s = {most}")
        rms = fitted_error(problem.gate, problem.m, problem.s, problem.d, at_most=problem.at_most).rms
        case = int(rms.argmax()) if self.case is None else self.case
        return float(rms[case]), case

    def predict(self, problem: Problem) -> Value:
        rms = self._case(problem)[0]
        if not rms:
            return rms, "d is at least the number of inputs: it fits them all"
        return rms, "the largest of the four is good to some 7 %, the others may be 20 % low"

    def measure(self, drawn: DrawnLayers) -> Measured:
        case = self._case(drawn.problem)[1]
        squares, coverage = drawn.once(_squares)
        return Measured([row[case] for row in squares], coverage, "root mean")


_law = partial(law, source="Dereziński et al. 2020 (theory.fitted)", order=40)
for _number, _name in enumerate(CASE_NAMES):
    _about = f"case-balanced least squares: RMS in case {_name}"
    _law(f"balanced_rms_{_name}", case=_number, about=_about, accuracy=(0.97, 1.25))(BalancedRMS)
_about = "case-balanced least squares: largest of the cases' RMS"
_law("balanced_rms", about=_about, tables=("width",), accuracy=(0.98, 1.08))(BalancedRMS)
