"""Compute ANDs of k inputs in one layer: of sets of k features, or of sets of any size by inclusion and exclusion.

Section 1.4 of Vaintrob, Mendel, Hänni (2024). The universal layer has iid Bernoulli(p) weights and bias −(k − 1); the AND of a
set I is the mean over the neurons that see all of I. With j of the k active and t others, such a neuron has the activation
(j + T − (k − 1))⁺, T ~ Bin(t, p): `theory.bernoulli.activation_moments` sums it exactly (docs/theory.md, section 4).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import seeded
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_whole
from toymodels.layers.iid import features_seen
from toymodels.tasks.sets import SymmetricTask, members
from toymodels.theory.bernoulli import debias, formula_p

ORIGIN = "fan-in"


def fan_in(m: int, d: int, seed: int, k: int, p: float | int | None = None) -> FirstLayer:
    """Draw W iid Bernoulli(p), every bias −(k − 1); p None is `theory.bernoulli.formula_p`.

    k = 2 is Construction 1.2, and the layer from which `inclusion_exclusion_readoff` reads ANDs of any fan-in. k is from 2 to
    m, 0 < p < 1.
    """
    check_whole(m=m)
    check_whole(1, d=d)
    check_whole(2, m, k=k)
    p = formula_p(m, d, k) if p is None else p
    _check_probability(p)
    weight = (torch.rand(d, m, generator=seeded(seed)) < p).float()
    return FirstLayer(weight, torch.full((d,), 1.0 - k), origin=ORIGIN)


def _is_conjunction(task: Task) -> bool:
    return isinstance(task, SymmetricTask) and task.is_conjunction and bool((task.sizes == task.k).all())


_ABOUT: dict[str, Any] = {
    "role": "construction", "source": "Vaintrob, Mendel, Hänni 2024, section 1.4", "reads": _is_conjunction,
    "fits": _is_conjunction, "check": lambda p: None if p == "best" else _check_probability(p),
}  # fmt: skip
"""What both layers have in common."""


def _own(layer: nn.Module, task: SymmetricTask, s: int) -> LinearReadoff:
    return fan_in_readoff(layer, task, s if s >= task.k else None)


@LAYERS(
    "fan_in", order=26, own_readoff=_own,
    own_source="mean over the neurons that see the set, debiased (Vaintrob et al. 2024, section 1.4)",
    chosen=lambda m, d, task, p: {"p": formula_p(m, d, task.k)} if p == "best" else {}, **_ABOUT,
)  # fmt: skip
def fan_in_layer(m: int, d: int, seed: int, task: SymmetricTask, *, p: float | int | str = "best") -> FirstLayer:
    """Draw weights 1 with probability p, else 0, and every bias −(k − 1), for the AND of k features."""
    return fan_in(m, d, seed, task.k, None if isinstance(p, str) else p)


@torch.no_grad()
def fan_in_readoff(layer: nn.Module, task: Task, s: int | None = None) -> LinearReadoff:
    """Read the mean over all neurons that see the whole set, as published; with s, unbiased at exactly s active. Float64.

    The bias is removed by `debias` at the layer's own share of ones. A set that no neuron sees is read as the constant −shift.
    Raises InputError unless `fan_in` made the layer, the task is the AND of sets of the layer's k features, and s is from k to
    m.
    """
    layer = _made(layer)
    seen, sets, k = features_seen(layer), _sets(task, layer), _fan(layer)
    if any(len(row) != k for row in sets):
        raise InputError(f"the layer has bias −{k - 1}, for ANDs of k = {k} features; the task is {task.name}")
    if s is not None:
        check_whole(s=s)
        if s > task.m:
            raise InputError(f"s = {s} active features: there are no more than m = {task.m}")
    gain, shift = (1.0, 0.0) if s is None else debias(s, float(seen.mean().clamp(1e-9, 1 - 1e-9)), k=k)
    weight = seen.T[torch.tensor(sets, device=seen.device)].prod(1)
    weight *= gain / weight.sum(1, keepdim=True).clamp(min=1)
    return LinearReadoff(weight, weight.new_full((len(sets),), -shift))


@torch.no_grad()
def inclusion_exclusion_readoff(layer: nn.Module, task: Task) -> LinearReadoff:
    """Read ANDs of any fan-in from one layer of bias −1: AND_I = Σ_{I' ⊆ I, |I'| ≥ 2} (−1)^{|I'|} v_{I'}. Float64.

    v_{I'} reads f(I' ∩ J) = max(0, |I' ∩ J| − 1), J the active features. Proof of the identity: f(S) = |S| − 1 + 1[S = ∅] has the
    Möbius coefficients Σ_{T ⊆ S} (−1)^{|S|−|T|} f(T) = (−1)^{|S|} for |S| ≥ 2 (the first two terms are of degree 1 at most) and 0
    below. So S ↦ f(S ∩ J) has the coefficient (−1)^{|I|} 1[I ⊆ J] at I; written out,
    (−1)^{|I|} Σ_{I' ⊆ I} (−1)^{|I|−|I'|} f(I' ∩ J) = 1[I ⊆ J] = AND_I, and f vanishes for |I'| < 2. The sign in the post,
    (−1)^{|I|−|I'|+1}, agrees for odd |I| and is the opposite for even |I|.

    v_{I'} is the mean over the neurons that see I' and no other feature of I, so that the features of I do not disturb each
    other: on inputs within I the readoff is exact if no mean is empty. A mean without any neuron counts as 0. Costs 2^k per
    set of k, from 2 to 16. Raises InputError unless `fan_in` made the layer, with k = 2, and the task is an AND.
    """
    layer = _made(layer)
    seen, sets = features_seen(layer), _sets(task, layer)
    if _fan(layer) != 2:
        raise InputError("inclusion and exclusion reads a layer of bias −1: make it with k = 2")
    if not all(2 <= len(row) <= 16 for row in sets):
        raise InputError("inclusion and exclusion reads ANDs of 2 to 16 features")
    weight = torch.zeros(len(sets), len(seen), dtype=torch.float64, device=seen.device)
    for row, features in zip(weight, sets, strict=True):
        # A neuron's pattern on the set, encoded as a number: one count gives the sizes of all 2^k means.
        powers = 2.0 ** torch.arange(len(features), dtype=torch.float64, device=seen.device)
        pattern = (seen[:, features] @ powers).long()
        number = torch.bincount(pattern, minlength=2 ** len(features))[pattern]
        size = seen[:, features].sum(1)
        sign = 1 - 2 * (size % 2)
        row.copy_(torch.where(size >= 2, sign / number, 0.0))
    return LinearReadoff(weight, weight.new_zeros(len(sets)))


@LAYERS(
    "inclusion_exclusion", order=27, own_readoff=inclusion_exclusion_readoff,
    own_source="ANDs of k from ANDs of two and more, by inclusion and exclusion (Vaintrob et al. 2024, section 1.4)",
    chosen=lambda m, d, p: {"p": formula_p(m, d, 2)} if p == "best" else {}, **_ABOUT,
)  # fmt: skip
def inclusion_exclusion_layer(m: int, d: int, seed: int, *, p: float | int | str = "best") -> FirstLayer:
    """Draw weights 1 with probability p, else 0, and every bias −1, as for ANDs of two."""
    return fan_in(m, d, seed, 2, None if isinstance(p, str) else p)


def _made(layer: nn.Module) -> FirstLayer:
    """Return the layer. Raises InputError unless it is a ReLU layer of this construction."""
    if not (isinstance(layer, FirstLayer) and layer.origin == ORIGIN and layer.activation == "relu"):
        raise InputError(f"this readoff needs a ReLU layer of the {ORIGIN} construction: use a fitted readoff here")
    return layer


def _fan(layer: FirstLayer) -> int:
    """Return k of a layer with bias −(k − 1)."""
    return 1 - round(float(layer.bias.detach()[0]))


def _sets(task: Task, layer: FirstLayer) -> list[list[int]]:
    if not (isinstance(task, SymmetricTask) and task.is_conjunction):
        raise InputError(
            f"this construction computes ANDs of sets of features (`conjunction`); the task is {task.name}"
        )
    m = layer.weight.shape[1]
    if task.m != m:
        raise InputError(f"the layer has {m} features and the task {task.m}: they must be the same")
    return members(task)


def _check_probability(p: float | int | str) -> None:
    if isinstance(p, str) or not 0 < p < 1:
        raise InputError(f"p = {p}: the probability of a weight lies strictly between 0 and 1")
