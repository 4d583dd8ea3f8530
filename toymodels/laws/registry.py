"""Register laws: predicted numbers, each with its source, its inverse (the width for an error) and how it is measured.

`toymodels bounds`, `toymodels width`, `--check` and the tests all walk the list `LAWS`. A law is a class with a method
`predict`; it may also have `width` and `measure`. One of your own, in a file named by `--plugin`, stands beside ours:

    @law("my_rms", about="my readoff: RMS at zeros", source="this example", inputs="exactly", tables=("bounds", "width"))
    class MyRMS(Law):
        def predict(self, problem: Problem) -> float:
            return 1.7 * problem.s / math.sqrt(problem.d)

        def measure(self, drawn: DrawnLayers) -> Measured:
            squares = drawn.each(lambda seed: my_mean_square(drawn.layer(seed)))
            return Measured(squares, f"{drawn.layers}, all inputs", "root mean")
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from jaxtyping import Float

from toymodels.errors import InputError
from toymodels.registry import Member, Registry
from toymodels.theory import counts
from toymodels.theory.gates import Gate
from toymodels.theory.statistics import mean_interval, quantile_interval, root_interval
from toymodels.theory.widths import smallest_width

if TYPE_CHECKING:
    from toymodels.laws.measuring import DrawnLayers

Value = int | float | tuple[int | float, str]
"""A number, or a number and a note on it."""
BASELINE, FLOOR, PREDICTION, WIDTH = "baseline", "floor", "prediction", "lower bound on width"
BOTH = ("bounds", "width")
"""The commands that print tables of laws."""


@dataclass(frozen=True)
class Problem:
    """The gate and the size that a law speaks about."""

    gate: Gate
    m: int
    """Features."""
    s: int
    """Active features, 2 to m: exactly or at most so many."""
    d: int = 1
    """Neurons."""
    inputs: str = "at_most"
    """at_most or exactly s active."""
    outputs: int | None = None
    """Pairs that are computed, for counting bounds; None: half of all."""
    bits: int = 32
    """Bits of one weight, for counting bounds."""
    seeds: tuple[int, ...] = ()
    """Seeds of the layers drawn; none where nothing is measured."""

    @property
    def at_most(self) -> bool:
        """Whether fewer than s features may be active."""
        return self.inputs == "at_most"

    @property
    def pairs(self) -> int:
        """All m(m−1)/2 pairs of features."""
        return math.comb(self.m, 2)

    @property
    def counts(self) -> Float[np.ndarray, " counts"]:
        """P(j features are active), j = 0..m."""
        return (counts.at_most if self.at_most else counts.exactly)(self.m, self.s)

    def at(self, d: int) -> Problem:
        """Return the same problem at another width."""
        return dataclasses.replace(self, d=d)

    def domain(self, inputs: str = "given") -> str:
        """Say in words for which inputs a law holds (see `Law.inputs`)."""
        if inputs in ("none", "all"):
            return inputs
        return f"{'at most' if self.at_most and inputs == 'given' else 'exactly'} {self.s} of {self.m}"


@dataclass(frozen=True)
class Measured:
    """The measurement beside a law: one number for each layer drawn, or a single one where nothing is random."""

    samples: Sequence[float]
    coverage: str
    """Which layers, inputs and pairs it covers."""
    summary: Literal["value", "mean", "root mean", "quantile"] = "value"
    """How the samples estimate the law: the only one, their mean, the root of it (samples are squares) or a quantile."""
    level: float = 0.5
    """Of the quantile."""

    @property
    def estimate(self) -> tuple[float, tuple[float, float] | None]:
        """The estimate and its 95 % interval over layers; None where there is nothing random, or too few layers."""
        if self.summary == "value":
            return self.samples[0], None
        if self.summary == "quantile":
            return quantile_interval(self.samples, self.level)
        if self.summary == "root mean":
            return root_interval(self.samples)
        mean, half = mean_interval(self.samples)
        return mean, None if half is None else (mean - half, mean + half)


@dataclass(frozen=True, kw_only=True)
class Law(Member):
    """One predicted number. Subclasses say how it is computed (`predict`), inverted (`width`) and measured (`measure`)."""

    kind: str = PREDICTION
    """baseline, floor, prediction or lower bound on width."""
    about: str
    """Which error of what, or which other quantity, with its unit if it has one."""
    inputs: Literal["given", "exactly", "none", "all"] = "given"
    """The inputs for which it holds: the problem's own, exactly s active, none (it speaks of no inputs) or all."""
    gates: tuple[str, ...] | None = None
    """The gates that it speaks of; None for every gate."""
    tables: tuple[str, ...] = ("bounds",)
    """The commands that print it: bounds, width or both."""
    accuracy: tuple[float, float] = (1.0, 1.0)
    """measured/predicted lies between these, but for chance; 1 and 1 where the prediction is exact. For tests."""
    faults: tuple[float, ...] = ()
    """For tests: the predicted number times each of these must fail. Default: 1.25 and 0.8 beyond the accuracy."""

    @property
    def purpose(self) -> str:
        """The first line of the docstring of the class, or of the function where it has no class of its own."""
        described = type(self) if self.function is type(self).predict else self.function
        return (inspect.getdoc(described) or "").partition("\n")[0]

    def applies(self, problem: Problem) -> bool:
        """Say whether the tables of this problem have a row for it."""
        return self.gates is None or problem.gate.name in self.gates

    def predict(self, problem: Problem) -> Value:
        """Compute the number, and a note if one is needed. Raises InputError, with the reason, where there is none."""
        value: Value = self.function(problem)
        return value

    def reached(self, problem: Problem) -> float:
        """Return the error that `width` brings down to ε: the predicted number, unless that is no error of one output."""
        value = self.predict(problem)
        return float(value[0] if isinstance(value, tuple) else value)

    def width(self, problem: Problem, epsilon: float) -> Value:
        """Find the smallest width whose error is at most ε: by search, unless a subclass knows better."""
        return smallest_width(lambda d: self.reached(problem.at(d)) <= epsilon)

    def measure(self, drawn: DrawnLayers) -> Measured:
        """Measure the same number on the layers drawn. Raises InputError, with the reason, where it cannot be measured."""
        raise InputError("it speaks of no layer drawn here")


class RootLaw(Law):
    """An error that is σ/√d exactly, with σ its value at d = 1."""

    def width(self, problem: Problem, epsilon: float) -> Value:
        """Return the smallest d with σ/√d <= ε."""
        return max(1, math.ceil((self.reached(problem.at(1)) / epsilon) ** 2 * (1 - 1e-12)))


LAWS = Registry("law", Law, "toymodels.laws")
"""Laws by name, in the order of tables."""
T = TypeVar("T", bound=Callable[..., Any])


def law(name: str, base: type[Law] = Law, **fields: Any) -> Callable[[T], T]:
    """Register a subclass of `Law`, or a function that is the `function` of a law of class `base`, under a name."""

    def register(target: Any) -> Any:
        if isinstance(target, type) and issubclass(target, Law):
            LAWS.add(target(name=name, function=target.predict, **fields))
        else:
            LAWS.add(base(name=name, function=target, **fields))
        return target

    return register


def known(value: Callable[[], Value]) -> tuple[float | None, str]:
    """Return (number, note), or None and the reason where there is no number."""
    try:
        result = value()
    except InputError as reason:
        return None, f"not computed: {reason}"
    number, note = result if isinstance(result, tuple) else (result, "")
    if not math.isfinite(number):
        return None, note or "not computed: not a finite number"
    return float(number), note
