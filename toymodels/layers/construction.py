"""What a construction is: a first layer made for a problem, and the readoff that its authors give with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from toymodels.core.layers import FirstLayer
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask

Probability = float | int | str | None
"""That a weight is not 0, in sparse constructions: a number, "asymptotic", or None for the best known."""


@dataclass(frozen=True)
class Request:
    """The problem that a layer is constructed for."""

    m: int
    """Features."""
    d: int
    """Neurons."""
    s: int
    """Active features that readoffs are made for, at least 2."""
    seed: int
    """Of the layer's random weights."""
    task: PairTask
    """The gate on pairs to be read off; targeted constructions are made for its pairs alone."""
    p: Probability = None
    """Probability that a weight is not 0, where the construction has one to choose."""


@dataclass(frozen=True)
class Construction:
    """A published first layer."""

    build: Callable[[Request], FirstLayer]
    """The layer; the same for the same request. Raises InputError for a problem that it cannot be made for."""
    readoff: Callable[[Request, FirstLayer], LinearReadoff]
    """Its own readoff of the request's task from the layer that `build` returned. Raises InputError for another gate."""
    source: str
    """Where it was published, or that it was derived here."""
    gates: tuple[str, ...] | None = None
    """The gates that its own readoff computes; None for every gate."""
    check: Callable[[int, int, Probability], object] = lambda m, d, p: None
    """Raises InputError for (m, d, p) that it cannot be made for, before any work."""
    share: Callable[[Request], float] | None = None
    """The p that is used for a request, where the construction has one to choose."""

    @property
    def uses_p(self) -> bool:
        """Whether the request's p counts."""
        return self.share is not None

    def reads(self, task: PairTask) -> bool:
        """Whether the construction has a readoff of its own for this task."""
        return self.gates is None or task.gate.name in self.gates
