"""Check that a law is right: its number, its width, its measurement, and that its measurement would catch a wrong number.

Every law of the registry passes these checks on a few small problems, ours and a plugin's, without a line written for it.
Seeds are fixed. Under fresh ones a law that is right fails with a chance of `FALSE_ALARM` by Bonferroni over all that is
compared, or five times as much, for what is averaged is skewed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence

import numpy as np

from toymodels.errors import InputError
from toymodels.laws.measuring import DrawnLayers
from toymodels.laws.registry import BASELINE, BOTH, FLOOR, LAWS, PREDICTION, WIDTH, Law, Measured, Problem, known
from toymodels.theory.gates import Gate

FALSE_ALARM = 1e-5
"""Chance that a right law, or a right statement of tests/bounds, fails under a fresh seed."""
PROVED = 1e-6
"""To which minimax errors are proved, in units of half ranges; all else that has no chance in it is exact to rounding."""
SEEDS = tuple(range(40))
PROBLEMS = (
    Problem(Gate.parse("and"), m=12, s=2, d=40, seeds=SEEDS),
    Problem(Gate.parse("xor"), m=10, s=3, d=30, inputs="exactly", seeds=SEEDS),
    # Too many inputs to cover all of them, and more features than neurons.
    Problem(Gate.parse("and"), m=60, s=3, d=40, inputs="exactly", seeds=SEEDS),
)


def check_law(name: str) -> None:
    """Put one law through all checks. Raises AssertionError, which says what is wrong."""
    law = LAWS[name]
    check_description(law)
    check_prediction(law)
    check_width(law)
    check_measurement(law)


def problems(law: Law) -> Iterator[Problem]:
    """Yield the common problems that the law speaks about."""
    for problem in PROBLEMS:
        if law.gates is not None and problem.gate.name not in law.gates:
            problem = dataclasses.replace(problem, gate=Gate.parse(law.gates[0]))
        if law.applies(problem):
            yield problem


def check_description(law: Law) -> None:
    """It says what it is."""
    assert law.source, f"{law.name} has no source"
    assert law.about, f"{law.name} does not say of which quantity it speaks"
    kinds = (BASELINE, FLOOR, PREDICTION, WIDTH)
    assert law.kind in kinds, f"{law.name} is of the kind {law.kind!r}: choose one of {', '.join(kinds)}"
    assert set(law.tables) <= set(BOTH), f"{law.name} is in the tables {law.tables}: choose of {', '.join(BOTH)}"
    assert any(True for _ in problems(law)), f"{law.name} speaks about none of the common problems"


def check_prediction(law: Law) -> None:
    """Its number is finite, or a note says why there is none; the same problem has the same number."""
    for problem in problems(law):
        number, note = known(functools.partial(law.predict, problem))
        said = note.startswith("not computed: ")
        assert (number is None) == said, f"{law.name} predicts {number} with the note {note!r}"
        again = known(functools.partial(law.predict, problem))
        assert again == (number, note), f"{law.name} predicts another number when it is asked again"


def check_width(law: Law) -> None:
    """The error at the width for ε is at most ε, and with one neuron less it is not."""
    for problem in problems(law) if "width" in law.tables else ():
        for epsilon in (0.5, 0.25, 0.05):
            number, _ = known(functools.partial(law.width, problem, epsilon))
            if number is None:
                continue
            if law.kind == WIDTH:  # a number of neurons itself
                assert number == law.reached(problem), f"{law.name} has the width {number}, not its own number"
                continue
            width = int(number)
            assert width == number >= 0, f"{law.name} has the width {number}: it must be whole"
            for d, reaches in ((width, True), (width - 1, False)):
                try:
                    error = law.reached(problem.at(d)) if d >= 0 else math.inf
                except InputError:  # too narrow for a prediction
                    continue
                assert (error <= epsilon * (1 + 1e-9)) == reaches, (
                    f"{law.name} has the width {width} for ε = {epsilon:g}, but an error of {error:g} at d = {d}"
                )


def check_measurement(law: Law) -> None:
    """Measured and predicted numbers agree, and would not if the prediction were a planted factor too large or small."""
    if type(law).measure is Law.measure:
        return
    caught: dict[float, bool] = {}
    for problem in problems(law):
        predicted, _ = known(functools.partial(law.predict, problem))
        try:
            measured = None if predicted is None else law.measure(_drawn(problem))
        except InputError:
            continue
        if measured is None or predicted is None:
            continue
        estimate, interval = measured.estimate
        assert measured.coverage, f"{law.name} does not say what its measurement covers"
        assert interval is None or interval[0] <= estimate <= interval[1], f"{law.name} has a wrong interval"
        found = strain(law, measured, predicted)
        assert found <= 1, f"{law.name}: measured {estimate:.4g}, predicted {predicted:.4g}, strain {found:.3g}"
        for factor in planted(law) if predicted else ():
            caught[factor] = caught.get(factor, True) and strain(law, measured, factor * predicted) > 1
    assert set(caught) == set(planted(law)), f"{law.name} can be measured in none of the common problems"
    missed = [factor for factor, seen in caught.items() if not seen]
    assert not missed, f"{law.name}: its measurement does not notice the predicted number times {missed}"


@functools.lru_cache(maxsize=len(PROBLEMS))
def _drawn(problem: Problem) -> DrawnLayers:
    """Draw the layers of a problem; what several laws ask of them is measured once."""
    return DrawnLayers(problem)


def planted(law: Law) -> tuple[float, ...]:
    """List the factors by which the predicted number is spoilt."""
    low, high = law.accuracy
    too_large, too_small = 1.25 * high / low, 0.8 * low / high
    return law.faults or ((too_large,) if law.kind == FLOOR else (too_large, too_small))


def strain(law: Law, measured: Measured, predicted: float) -> float:
    """Compare a measurement with a predicted number: at most 1 where they agree.

    A prediction agrees where measured/predicted lies within the law's accuracy, a floor where the measurement is not below
    it, each but for chance.
    """
    from scipy.stats import binom

    (low, high), samples, n = law.accuracy, np.array(measured.samples), len(measured.samples)
    if measured.summary == "quantile":
        below, above = np.sum(samples < low * predicted), np.sum(samples > high * predicted)
        chances = binom.sf(below - 1, n, measured.level), binom.sf(above - 1, n, 1 - measured.level)
        return strain_of_p([float(chance) for chance in chances] * len(PROBLEMS))
    power = 2 if measured.summary == "root mean" else 1
    below, above = (low * predicted) ** power - samples.mean(), samples.mean() - (high * predicted) ** power
    outside = max(0.0, float(below)) if law.kind == FLOOR else max(0.0, float(below), float(above))
    if measured.summary == "value":
        return outside / (PROVED * max(1.0, abs(predicted)))
    return strain_of([outside / (float(samples.std(ddof=1)) / math.sqrt(n))] * len(PROBLEMS), n - 1)


def strain_of(z: Sequence[float], df: Sequence[float] | float | int) -> float:
    """Return the largest |z| over its two-sided limit; df: degrees of freedom of the standard error beneath each z."""
    from scipy.stats import t as student

    limit = student.isf(FALSE_ALARM / 2 / len(z), np.broadcast_to(np.asarray(df, dtype=float), len(z)))
    return float(np.max(np.abs(z) / limit))


def strain_of_p(p: Sequence[float]) -> float:
    """Return the smallest p-value on the same scale: above 1 where it lies below FALSE_ALARM divided among all."""
    return math.log(max(min(p), 1e-300)) / math.log(FALSE_ALARM / len(p))
