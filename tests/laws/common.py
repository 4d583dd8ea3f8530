"""The checks that every registered law is put through, ours or a plugin's, without a line written for it."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from tests.bounds.judge import strain_of, strain_of_p
from toymodels.errors import InputError
from toymodels.fast.interior_point import GAP
from toymodels.laws.measuring import DrawnLayers
from toymodels.laws.registry import BASELINE, FLOOR, PREDICTION, WIDTH, Law, Measured, Problem, known
from toymodels.theory.gates import Gate

SEEDS = tuple(range(40))
PROBLEMS = (
    Problem(Gate.parse("and"), m=12, s=2, d=40, seeds=SEEDS),
    Problem(Gate.parse("xor"), m=10, s=3, d=30, inputs="exactly", seeds=SEEDS),
    # Too many inputs to cover all of them, and more features than neurons.
    Problem(Gate.parse("and"), m=60, s=3, d=40, inputs="exactly", seeds=SEEDS),
)


@functools.cache
def drawn(problem: Problem) -> DrawnLayers:
    """Draw the layers of a problem; what several laws ask of them is measured once."""
    return DrawnLayers(problem)


def strain(law: Law, measured: Measured, predicted: float) -> float:
    """Compare a measurement with a predicted number: at most 1 where they agree as the law says (see tests/bounds/judge).

    A prediction agrees where measured/predicted lies within the law's accuracy, a floor where the measurement is not below
    it, each but for chance: PER_STATEMENT of the judge over all the problems.
    """
    low, high = law.accuracy
    samples = np.array(measured.samples)
    n = len(samples)
    if (
        measured.summary == "value"
    ):  # no chance in it: rounding, or what minimax readoffs are proved to (half ranges are 1/2)
        below, above = low * predicted - samples[0], samples[0] - high * predicted
        return (below if law.kind == FLOOR else max(below, above)) / (GAP * max(1, abs(predicted)))
    if measured.summary == "quantile":
        below, above = np.sum(samples < low * predicted), np.sum(samples > high * predicted)
        too_low = binom.sf(below - 1, n, measured.level)
        return strain_of_p([too_low, binom.sf(above - 1, n, 1 - measured.level)] * len(PROBLEMS))
    power = 2 if measured.summary == "root mean" else 1
    error = samples.std(ddof=1) / math.sqrt(n)
    below = ((low * predicted) ** power - samples.mean()) / error
    above = (samples.mean() - (high * predicted) ** power) / error
    worst = max(0.0, below) if law.kind == FLOOR else max(0.0, below, above)
    return strain_of([worst] * len(PROBLEMS), n - 1)


def planted(law: Law) -> tuple[float, ...]:
    """The factors by which the predicted number is spoilt."""
    low, high = law.accuracy
    return law.faults or ((1.25 * high / low,) if law.kind == FLOOR else (1.25 * high / low, 0.8 * low / high))


def check_description(law: Law) -> None:
    """It says what it is."""
    assert law.source
    assert law.about
    assert law.text or law.function.__doc__ is None
    assert law.kind in (BASELINE, FLOOR, PREDICTION, WIDTH)
    assert set(law.tables) <= {"bounds", "width"}


def check_prediction(law: Law, problems: Sequence[Problem] = PROBLEMS) -> None:
    """Its number is finite, or a note says why there is none; the same problem has the same number."""
    for problem in filter(law.applies, problems):
        value, note = known(lambda problem=problem: law.predict(problem))
        assert (value is None) == note.startswith("not computed: ")
        assert value is None or math.isfinite(value)
        assert known(lambda problem=problem: law.predict(problem)) == (value, note)


def check_width(law: Law, problems: Sequence[Problem] = PROBLEMS) -> None:
    """The error at the width for ε is at most ε, and at one neuron less it is not."""
    if "width" not in law.tables:
        return
    looked = 0
    for problem in filter(law.applies, problems):
        for epsilon in (0.5, 0.25, 0.05):
            width, _ = known(lambda problem=problem, epsilon=epsilon: law.width(problem, epsilon))
            if width is None:
                continue
            if law.kind == WIDTH:  # it is a number of neurons itself
                assert width == law.predict(problem)[0]
                looked += 1
                continue
            assert width == int(width) >= 0
            for d, reaches in ((int(width), True), (int(width) - 1, False)):
                try:
                    error = law.reached(problem.at(d)) if d >= 0 else math.inf
                except InputError:  # too narrow for a prediction
                    continue
                assert (error <= epsilon * (1 + 1e-9)) == reaches, (law.name, problem, epsilon, d)
                looked += 1
    assert looked


def check_measurement(law: Law, problems: Sequence[Problem] = PROBLEMS) -> None:
    """What is measured agrees with what is predicted, and would not if the number were a planted factor larger or smaller."""
    if type(law).measure is Law.measure:
        return
    caught: dict[float, bool] = {}
    for problem in filter(law.applies, problems):
        predicted, _ = known(lambda problem=problem: law.predict(problem))
        if predicted is None:
            continue
        try:
            measured = law.measure(drawn(problem))
        except InputError:
            continue
        assert measured.coverage
        value, interval = measured.estimate
        assert interval is None or interval[0] <= value <= interval[1]
        found = strain(law, measured, predicted)
        assert found <= 1, f"{law.name}: measured {value:.4g}, predicted {predicted:.4g}, strain {found:.3g}"
        for factor in planted(law) if predicted else ():
            caught[factor] = caught.get(factor, True) and strain(law, measured, factor * predicted) > 1
    assert set(caught) == set(planted(law)), f"{law.name} was measured in none of the problems"
    missed = [factor for factor, seen in caught.items() if not seen]
    assert not missed, f"{law.name}: the predicted number times {missed} is not caught"


CHECKS = (check_description, check_prediction, check_width, check_measurement)
