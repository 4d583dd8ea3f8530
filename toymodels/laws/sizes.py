"""Configurations of `bounds` and `width`; light, because the command line imports them whatever is asked of it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toymodels.errors import InputError, NoEffectError, check_choice, check_different, check_whole
from toymodels.given import conform
from toymodels.theory.gates import Gate

if TYPE_CHECKING:
    from toymodels.laws.registry import Problem

MOST_FEATURES, MOST_ACTIVE = 10_000_000, 500
"""Up to which the tables take seconds: some laws sum over the numbers of active features, in whole numbers of many digits."""
MOST_WEIGHTS = 10_000_000
"""Weights of a layer up to which measurements beside the laws take minutes."""


@dataclass(frozen=True)
class SizeSettings:
    """The settings that the tables of `bounds` and `width` share."""

    m: int = 50
    """Number of boolean features, from 2 to 10 million."""
    s: int = 2
    """Number of active features, from 2 to m, 500 at most."""
    inputs: str = "at_most"
    """Which inputs are admissible: at_most or exactly s of m active."""
    task: tuple[str, ...] = ("and", "xor")
    """Gates on every pair, each with a table of its own."""
    outputs: int | None = None
    """Pairs that are computed, for the counting bound; default half of all m(m−1)/2, where choices are most."""
    bits: int = 32
    """Bits of one weight, for the counting bound, at least 1."""
    json: Path | None = None
    """Also write every number of the table to this file."""

    def __post_init__(self) -> None:
        conform(self)
        check_choice(("at_most", "exactly"), inputs=self.inputs)
        check_whole(2, MOST_FEATURES, m=self.m)
        check_whole(2, min(self.m, MOST_ACTIVE), s=self.s)
        check_different("gate", [Gate.parse(name) for name in self.task], task=self.task)
        if self.outputs is not None:
            check_whole(0, math.comb(self.m, 2), outputs=self.outputs)
        check_whole(1, 1024, bits=self.bits)
        if self.json is not None:
            from toymodels.runs.storage import check_writable

            check_writable(self.json)

    def problem(self, gate: Gate) -> Problem:
        """Return the problem that laws speak about, for one gate."""
        from toymodels.laws.registry import Problem

        return Problem(gate, self.m, self.s, inputs=self.inputs, outputs=self.outputs, bits=self.bits)


@dataclass(frozen=True)
class BoundsConfig(SizeSettings):
    """Print each prediction and floor at this size with its source; with --check, draw layers and measure beside it."""

    d: int = 100
    """Width: neurons in the hidden layer, at least 1."""
    check: bool = False
    """Draw a layer per seed and print what is measured beside each prediction (seconds; at large sizes minutes)."""
    seeds: tuple[int, ...] = tuple(range(20))
    """Seeds of --check, each a layer of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(1, 10**12, d=self.d)
        check_different("seed", self.seeds, seeds=[str(seed) for seed in self.seeds])
        check_whole(0, seeds=min(self.seeds))
        if self.check and self.m * self.d > MOST_WEIGHTS:
            raise InputError(f"m·d = {self.m * self.d:,} weights are more than the {MOST_WEIGHTS:,} that --check draws")
        if not self.check and self.seeds != BoundsConfig.seeds:
            raise NoEffectError("seeds are of the layers that --check draws: add --check, or leave them out")

    def problem(self, gate: Gate) -> Problem:
        """Return the problem at this width; it has seeds where layers are drawn."""
        return dataclasses.replace(super().problem(gate), d=self.d, seeds=self.seeds if self.check else ())


@dataclass(frozen=True)
class WidthConfig(SizeSettings):
    """Print how wide the layer must be for an error ε: by the law of each readoff, and by each lower bound."""

    m: int = 100
    """Number of boolean features, from 2 to 10 million."""
    epsilon: int | float = 0.25
    """The error to reach, above 0 (the worst error, or the RMS error: each row says which it speaks of)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1e-9 <= self.epsilon <= 1e6:
            raise InputError(f"epsilon = {self.epsilon:g}: it must be from 1e-9 to 1e6")
        object.__setattr__(self, "epsilon", float(self.epsilon))
