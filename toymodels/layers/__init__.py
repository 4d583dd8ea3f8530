"""Published constructions of first layers, with the readoffs that come with them."""

from __future__ import annotations

import functools

import numpy as np

from toymodels.core.layers import FirstLayer
from toymodels.core.readoffs import LinearReadoff
from toymodels.errors import InputError
from toymodels.layers import iid, quadratic, targeted
from toymodels.layers.construction import Construction, Probability, Request
from toymodels.readoffs.by_class import class_readoff, mean_readoff
from toymodels.theory import two_valued
from toymodels.theory.classes import solve_readoff
from toymodels.theory.distributions import RADEMACHER, WeightDistribution, finite_classes
from toymodels.theory.gates import Gate


def _bernoulli_p(request: Request) -> float:
    wanted = "best" if request.p is None else request.p
    return iid.connection_probability(wanted, request.m, request.d, request.s)


def _bernoulli(request: Request) -> FirstLayer:
    return iid.bernoulli(request.m, request.d, request.seed, _bernoulli_p(request))


def _bernoulli_readoff(request: Request, layer: FirstLayer) -> LinearReadoff:
    return mean_readoff(layer, request.task, request.s, _bernoulli_p(request), "affine")


def _check_bernoulli(m: int, d: int, p: Probability) -> None:
    if d < 2:
        raise InputError(f"d = {d}: a bernoulli layer needs at least 2 neurons")
    if p is not None:
        share = iid.connection_probability(p, m, d, 2)
        if share == 1:
            raise InputError("p = 1 makes all neurons of a bernoulli layer the same: take a p below 1")
        _check_some(share, m, d)


def _check_some(p: float, m: int, d: int) -> None:
    if p * m * d < 1:
        raise InputError(f"p = {p:g} leaves hardly a weight in a layer of {d} neurons on {m} features: take a larger p")


@functools.cache
def best_ternary(s: int) -> float:
    """The p, in steps of 1/40, whose unbiased readoff of U-AND by class has the least worst σ at exactly s active."""

    def sigma(p: float) -> float:
        return float(solve_readoff(finite_classes(iid.ternary_weights(p), s), Gate.parse("and")).sigma.max())

    return min((np.arange(4, 41) / 40).tolist(), key=sigma)


def _ternary_p(request: Request) -> float:
    return best_ternary(request.s) if request.p is None else _number(request.p)


def _ternary_weights(request: Request) -> WeightDistribution:
    return iid.ternary_weights(_ternary_p(request))


def _check_ternary(m: int, d: int, p: Probability) -> None:
    if p is not None:
        _check_some(_number(p), m, d)


def _number(p: Probability) -> float:
    if p is None or isinstance(p, str):
        raise InputError(f"the share of weights in a ternary layer is a number in (0, 1], or left out: got {p!r}")
    iid.ternary_weights(p)
    return float(p)


def _ternary(request: Request) -> FirstLayer:
    return iid.iid(_ternary_weights(request), request.m, request.d, request.seed, name="ternary")


@functools.cache
def four_class_weights(s: int, gate: Gate) -> WeightDistribution:
    """The two-valued weights of least error constant at exactly s active features; that for AND where none computes the gate."""
    try:
        return two_valued.fit(s, gate).weights
    except InputError:
        return two_valued.fit(s).weights


def _four_class(request: Request) -> FirstLayer:
    return iid.iid(
        four_class_weights(request.s, request.task.gate), request.m, request.d, request.seed, name="four_class"
    )


def _targeted(request: Request) -> FirstLayer:
    return targeted.targeted(request.m, request.d, request.seed, request.task.pairs, s=request.s)


CONSTRUCTIONS: dict[str, Construction] = {
    "bernoulli": Construction(
        _bernoulli,
        _bernoulli_readoff,
        "mean over common neurons, debiased (Vaintrob et al. 2024, Construction 1.2)",
        gates=("and",),
        check=_check_bernoulli,
        share=_bernoulli_p,
    ),
    "ternary": Construction(
        _ternary,
        lambda request, layer: class_readoff(layer, request.task, request.s, _ternary_weights(request)),
        "by class of a neuron's two weights (derived here)",
        check=_check_ternary,
        share=_ternary_p,
    ),
    "rademacher": Construction(
        lambda request: iid.rademacher(request.m, request.d, request.seed),
        lambda request, layer: class_readoff(layer, request.task, request.s, RADEMACHER),
        "signs of a neuron's two weights (Hänni et al. 2024, Theorem 3, for weights ±1)",
    ),
    "targeted": Construction(
        _targeted,
        lambda request, layer: targeted.targeted_readoff(layer, request.task),
        "mean over the neurons that see both (Vaintrob et al. 2024, section 1.3)",
        gates=("and",),
    ),
    "quadratic": Construction(
        lambda request: quadratic.quadratic(request.m, request.d, request.seed),
        lambda request, layer: quadratic.quadratic_readoff(layer, request.task),
        "product of two features' directions (Vaintrob et al. 2024, section 1.5)",
        check=lambda m, d, p: quadratic.root(d),
    ),
    "four_class": Construction(
        _four_class,
        lambda request, layer: class_readoff(
            layer, request.task, request.s, four_class_weights(request.s, request.task.gate)
        ),
        "A − B1 − B2 + C by class (Newgas 2025), with the best two-valued weights (derived here)",
    ),
}
"""Constructions by name, for the settings `layer`, `frozen_layer` and `layers`. Add your own to set it beside the others."""

__all__ = ["CONSTRUCTIONS", "Construction", "Request"]
