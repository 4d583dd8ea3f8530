"""The dense four-class layer (Newgas, arXiv:2507.09816), with the best two-valued weight distribution (derived here)."""

from __future__ import annotations

import functools

from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.layers import iid
from toymodels.readoffs.by_class import class_readoff
from toymodels.theory import two_valued
from toymodels.theory.distributions import WeightDistribution
from toymodels.theory.gates import Gate


@functools.cache
def four_class_weights(s: int, gate: Gate) -> WeightDistribution:
    """Return the two-valued distribution of least σ at exactly s active; that for AND if none computes the gate."""
    try:
        return two_valued.fit(s, gate).weights
    except InputError:
        return two_valued.fit(s).weights


def _gate(task: Task) -> Gate:
    return task.gate if isinstance(task, PairTask) else Gate.parse("and")


@LAYERS(
    "four_class", role="construction", order=25, colour="#56B4E9", marker="D", source="Newgas 2025, arXiv:2507.09816",
    own_readoff=lambda layer, task, s: class_readoff(layer, task, s, four_class_weights(s, _gate(task))),
    own_source="A − B1 − B2 + C by class (Newgas 2025), with the best two-valued weights (derived here)",
    reads=lambda task: isinstance(task, PairTask),
)  # fmt: skip
def four_class_layer(m: int, d: int, seed: int, task: Task, s: int) -> FirstLayer:
    """Draw weights iid from the two values of least error for the gate, with a common bias."""
    return iid.iid(four_class_weights(s, _gate(task)), m, d, seed, name="four_class")
