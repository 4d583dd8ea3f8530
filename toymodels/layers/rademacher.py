"""Rademacher layers: weights ±1 (Theorem 3 of arXiv:2408.05451)."""

from __future__ import annotations

import dataclasses

from torch import nn

from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.layers import iid
from toymodels.readoffs.by_class import class_readoff
from toymodels.theory.distributions import RADEMACHER


def _own(layer: nn.Module, task: Task, s: int, bias: float | int) -> LinearReadoff:
    return class_readoff(layer, task, s, dataclasses.replace(RADEMACHER, bias=float(bias)))


@LAYERS(
    "rademacher", role="construction", order=22, colour="#CC79A7", marker="v", source="arXiv:2408.05451, Theorem 3",
    own_readoff=_own, own_source="signs of a neuron's two weights (Hänni et al. 2024, Theorem 3, for weights ±1)",
    reads=lambda task: isinstance(task, PairTask),
)  # fmt: skip
def rademacher_layer(m: int, d: int, seed: int, *, bias: float | int = 0.0) -> FirstLayer:
    """Draw weights ±1 with equal odds; every bias equals `bias`."""
    return iid.rademacher(m, d, seed, bias=bias)
