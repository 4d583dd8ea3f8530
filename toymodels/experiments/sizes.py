"""Configurations of `bounds` and `width`; light, because the command line imports them whatever is asked of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from toymodels.errors import InputError
from toymodels.runs.settings import ProblemSettings
from toymodels.theory.gates import Gate


@dataclass(frozen=True)
class SizeSettings:
    """What the tables of `bounds` and `width` share."""

    m: int = 50
    """Number of boolean features, at least 2."""
    s: int = 2
    """Number of active features, from 2 to m."""
    inputs: str = "at_most"
    """Which inputs are admissible: at_most or exactly s of m active."""
    task: tuple[str, ...] = ("and", "xor")
    """Gates on every pair, each with a table of its own."""
    json: Path | None = None
    """Also write every number of the table to this file."""

    def __post_init__(self) -> None:
        if self.inputs not in ("at_most", "exactly"):
            raise InputError(
                f"inputs {self.inputs!r}: predictions and floors are known for at_most and exactly s active features"
            )
        self.problem()
        if self.s < 2:
            raise InputError(f"s = {self.s}: a gate on pairs needs at least 2 active features")
        check_gates(self.task)
        if self.json is not None and self.json.is_dir():
            raise InputError(f"json = {self.json} is a folder: name a file")

    def problem(self, d: int = 1) -> ProblemSettings:
        """The same problem as `train` and `compare` name it."""
        return ProblemSettings(m=self.m, d=d, s=self.s, inputs=self.inputs)

    @cached_property
    def domain(self) -> str:
        """The admissible inputs, in words."""
        return self.problem().features().name

    @property
    def exact_domain(self) -> str:
        """The inputs for which laws at exactly s hold, in words."""
        return f"exactly {self.s} of {self.m}"


@dataclass(frozen=True)
class BoundsConfig(SizeSettings):
    """Print each prediction and floor at this size with its source; with --check, draw layers and measure beside it."""

    d: int = 100
    """Width: neurons in the hidden layer, at least 1."""
    outputs: int | None = None
    """Pairs that are computed, for the counting bound; default half of all m(m−1)/2, where choices are most."""
    bits: int = 32
    """Bits of one weight, for the counting bound, at least 1."""
    check: bool = False
    """Draw a layer per seed and print what is measured beside each prediction (seconds; at large sizes minutes)."""
    seeds: tuple[int, ...] = tuple(range(20))
    """Seeds of --check, each a layer of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.problem(self.d)
        check_counting(self.m, self.outputs, self.bits)
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"seeds {self.seeds}: they must be different whole numbers from 0 up, at least one")


@dataclass(frozen=True)
class WidthConfig(SizeSettings):
    """Print how wide the layer must be for an error ε: by the law of each readoff, and by each lower bound."""

    m: int = 100
    """Number of boolean features, at least 2."""
    epsilon: int | float = 0.25
    """The error to reach, above 0 (the worst error, or the RMS error: each row says which it speaks of)."""
    outputs: int | None = None
    """Pairs that are computed, for the counting bound; default half of all m(m−1)/2, where choices are most."""
    bits: int = 32
    """Bits of one weight, for the counting bound, at least 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.epsilon < math.inf:
            raise InputError(f"epsilon = {self.epsilon:g}: it must be a positive number")
        check_counting(self.m, self.outputs, self.bits)
        object.__setattr__(self, "epsilon", float(self.epsilon))


def check_counting(m: int, outputs: int | None, bits: int) -> None:
    """Raises InputError for numbers that the counting bound cannot take."""
    pairs = math.comb(m, 2)
    if outputs is not None and not 0 <= outputs <= pairs:
        raise InputError(f"outputs = {outputs}: between 0 and {pairs:,} of the pairs can be computed")
    if bits < 1:
        raise InputError(f"bits = {bits}: a weight has at least 1")


def check_gates(names: tuple[str, ...]) -> None:
    """Raises InputError for an empty list of gates, an unknown gate, or one named twice."""
    if not names:
        raise InputError("task is empty: name at least one gate")
    found = [Gate.parse(name).name for name in names]
    if len(set(found)) < len(found):
        raise InputError(f"task names a gate twice ({', '.join(names)}): name each once")
