"""Random first layers, and no first layer."""

from __future__ import annotations

import math

import torch
from torch import nn

from toymodels.core.layers import LAYERS, FirstLayer, IdentityLayer
from toymodels.core.seeds import seeded
from toymodels.errors import InputError, check_positive, check_whole


@LAYERS(
    "identity", role="none", label="no layer", colour="0.55", marker="x",
    source="no hidden layer: readoffs are affine functions of the input",
)  # fmt: skip
def identity(m: int) -> IdentityLayer:
    """Make a layer whose activations are the features themselves."""
    return IdentityLayer(m)


def _check_gaussian(d: int, scale: float | int, bias: float | int) -> None:
    check_whole(1, d=d)
    if not 1e-6 <= scale <= 1e6 or not abs(bias) <= 1e6:
        allowed = "the scale must be from 1e-6 to 1e6 and the bias a finite number from -1e6 to 1e6"
        raise InputError(f"a gaussian layer with scale = {scale:g}, bias = {bias:g}: {allowed}")


@LAYERS(
    "gaussian", order=10, colour="#D55E00", marker="o", source="docs/theory.md, section 3", check=_check_gaussian,
    closed_forms=lambda activation, bias: frozenset({"quadrants"} if activation == "relu" and bias == 0 else ()),
)  # fmt: skip
def gaussian(
    m: int, d: int, seed: int, activation: str = "relu", *, scale: float | int = 1.0, bias: float | int = 0.0
) -> FirstLayer:
    """Draw W_ij ~ N(0, scale²) iid; every bias equals `bias`. Raises InputError for d < 1 or a scale ≤ 0."""
    check_whole(1, m=m, d=d)
    check_positive(scale=scale)
    weight = scale * torch.randn(d, m, generator=seeded(seed))
    return FirstLayer(weight, torch.full((d,), float(bias)), activation, "gaussian", scale)


@LAYERS("kaiming", order=11, source="PyTorch's default for a linear layer")
def kaiming(m: int, d: int, seed: int, activation: str = "relu") -> FirstLayer:
    """Draw weights and biases uniformly in ±1/√m (kaiming-uniform with a = √5)."""
    check_whole(1, m=m, d=d)
    generator = seeded(seed)
    bound = 1 / math.sqrt(m)
    weight = torch.empty(d, m).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(d).uniform_(-bound, bound, generator=generator)
    return FirstLayer(weight, bias, activation, "kaiming")


@LAYERS(
    "kaiming_normal", order=12, source="He et al. 2015 (torch's kaiming_normal_), beside the biases of a linear layer"
)
def kaiming_normal(m: int, d: int, seed: int, activation: str = "relu") -> FirstLayer:
    """Draw weights from N(0, 2/m), and biases uniformly in ±1/√m."""
    check_whole(1, m=m, d=d)
    generator = seeded(seed)
    weight = math.sqrt(2 / m) * torch.randn(d, m, generator=generator)
    bias = torch.empty(d).uniform_(-1 / math.sqrt(m), 1 / math.sqrt(m), generator=generator)
    return FirstLayer(weight, bias, activation, "kaiming_normal", math.sqrt(2 / m))


@LAYERS(
    "trained", role="trained", label="trained layer", colour="#0072B2", marker="s",
    source="trained by the loss, from where the setting `layer` starts it",
)  # fmt: skip
def trained(start: nn.Module) -> nn.Module:
    """Train the first layer together with its readoff."""
    return start.requires_grad_(True)
