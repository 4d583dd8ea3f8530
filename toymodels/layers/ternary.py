"""Ternary layers: Rademacher weights of which a share is set to 0, read by class (derived here)."""

from __future__ import annotations

import functools

import numpy as np
from torch import nn

from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.layers import iid
from toymodels.readoffs.by_class import class_readoff
from toymodels.theory.classes import solve_readoff
from toymodels.theory.distributions import finite_classes
from toymodels.theory.gates import Gate


@functools.cache
def best_ternary(s: int) -> float:
    """Return the p, in steps of 1/40, whose unbiased readoff of U-AND by class has the least worst σ at exactly s active."""

    def sigma(p: float) -> float:
        return float(solve_readoff(finite_classes(iid.ternary_weights(p), s), Gate.parse("and")).sigma.max())

    return min((np.arange(4, 41) / 40).tolist(), key=sigma)


def _share(p: float | int | str, s: int) -> float:
    if p == "best":
        return best_ternary(s)
    if isinstance(p, str):
        raise InputError(f"the share of weights in a ternary layer is a number in (0, 1], or best: got {p!r}")
    iid.ternary_weights(p)
    return float(p)


def _check(m: int, d: int, s: int, p: float | int | str) -> None:
    if p != "best":
        iid.check_some(_share(p, s), m, d)


def _own(layer: nn.Module, task: Task, s: int, p: float | int | str) -> LinearReadoff:
    return class_readoff(layer, task, s, iid.ternary_weights(_share(p, s)))


@LAYERS(
    "ternary", role="construction", order=21, source="arXiv:2408.05451, Theorem 3, with zeros",
    own_readoff=_own, own_source="by class of a neuron's two weights (derived here)",
    reads=lambda task: isinstance(task, PairTask), check=_check,
    chosen=lambda s, p: {"p": best_ternary(s)} if p == "best" else {},
)  # fmt: skip
def ternary_layer(m: int, d: int, seed: int, s: int, *, p: float | int | str = "best") -> FirstLayer:
    """Draw weights −1, 0, 1 with probabilities p/2, 1 − p, p/2, no bias; p a number or best (least error for AND)."""
    return iid.ternary(m, d, seed, _share(p, s))
