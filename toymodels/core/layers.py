"""First layers: what computes. A layer is any torch module that takes (batch, m) to (batch, width)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.errors import InputError

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "quadratic": torch.square,
    "sigmoid": torch.sigmoid,
    "identity": lambda z: z,
}
"""Activation functions by name."""


class FirstLayer(nn.Module):
    """a(x) = φ(Wx + b): the single hidden layer, trainable or frozen (`requires_grad_`)."""

    weight: Float[Tensor, "neurons m"]
    bias: Float[Tensor, " neurons"]

    def __init__(
        self,
        weight: Float[Tensor, "neurons m"],
        bias: Float[Tensor, " neurons"],
        activation: str = "relu",
        law: str = "given",
        scale: float | int = 1.0,
    ):
        """`law` says how the weights came about ("gaussian", "kaiming", "trained", …), `scale` its standard deviation.

        Closed forms hold for some laws only. Raises InputError for an unknown activation.
        """
        super().__init__()
        if activation not in ACTIVATIONS:
            raise InputError(f"unknown activation {activation!r}: choose one of {', '.join(ACTIVATIONS)}")
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)
        self.activation = activation
        self.law = law
        self.scale = scale

    @property
    def width(self) -> int:
        """Number of neurons d."""
        return self.weight.shape[0]

    def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch neurons"]:
        """Activations."""
        return ACTIVATIONS[self.activation](nn.functional.linear(x, self.weight, self.bias))

    def from_active(self, indices: Int[Tensor, "batch width"]) -> Float[Tensor, "batch neurons"]:
        """The same from active features (padded with m): a sum of few columns instead of a product."""
        padded = nn.functional.pad(self.weight, (0, 1)).T.contiguous()
        return ACTIVATIONS[self.activation](nn.functional.embedding_bag(indices, padded, mode="sum") + self.bias)

    def columns_win(self, width: int) -> bool:
        """Whether `from_active` is the faster way for inputs of at most so many active features (measured on CPUs)."""
        return 32 * width <= self.weight.shape[1]


class IdentityLayer(nn.Module):
    """No layer at all: the activations are the features. Readoffs of it are affine functions of the input."""

    law = "identity"

    def __init__(self, m: int):
        super().__init__()
        self.width = m

    def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch m"]:
        """The input itself."""
        return x


class Embedded(nn.Module):
    """A layer that sees features in superposition: a(x) = layer(F x), with the columns of F as the features' directions."""

    frame: Float[Tensor, "d0 m"]

    def __init__(self, frame: Float[Tensor, "d0 m"], layer: nn.Module):
        """`frame` stays as it is in training (see `toymodels.core.frames`); `layer` takes (batch, d0)."""
        super().__init__()
        self.register_buffer("frame", frame)
        self.layer = layer

    def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch neurons"]:
        """Activations."""
        return self.layer(nn.functional.linear(x, self.frame))


def inner(layer: nn.Module) -> nn.Module:
    """The layer itself, without the embedding in front of it."""
    return layer.layer if isinstance(layer, Embedded) else layer


def activations(
    layer: nn.Module, x: Float[Tensor, "batch m"], indices: Int[Tensor, "batch width"]
) -> Float[Tensor, "batch neurons"]:
    """layer(x), from the inputs' active features where that is the faster way. An input without any has no columns to sum."""
    if type(layer) is FirstLayer and indices.shape[1] and layer.columns_win(indices.shape[1]):
        return layer.from_active(indices)
    return layer(x)


def behind(frame: Float[Tensor, "d0 m"], layer: FirstLayer) -> Embedded:
    """A construction for features with axes of their own, on embedded ones: W = Ŵ Fᵀ reads F x where Ŵ read x.

    Section 1.3 of the 2024 post: neuron i sees Ŵ_i · (FᵀF) x, its features and the interference of all others.
    """
    weight = layer.weight.detach() @ frame.T
    return Embedded(frame, FirstLayer(weight, layer.bias.detach().clone(), layer.activation, layer.law, layer.scale))


def gaussian(
    m: int, d: int, seed: int, activation: str = "relu", scale: float | int = 1.0, bias: float | int = 0.0
) -> FirstLayer:
    """W_ij ~ N(0, scale²) iid and every bias equal to `bias`. Raises InputError for d < 1 or a scale ≤ 0."""
    _check_width(d)
    if not scale > 0:
        raise InputError(f"the scale of the Gaussian weights is {scale:g}: it must be positive")
    weight = scale * torch.randn(d, m, generator=torch.Generator().manual_seed(seed))
    return FirstLayer(weight, torch.full((d,), float(bias)), activation, "gaussian", scale)


def kaiming(m: int, d: int, seed: int, activation: str = "relu") -> FirstLayer:
    """PyTorch's own default for a linear layer (kaiming-uniform with a = √5): weights and biases uniform in ±1/√m."""
    _check_width(d)
    generator = torch.Generator().manual_seed(seed)
    bound = 1 / math.sqrt(m)
    weight = torch.empty(d, m).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(d).uniform_(-bound, bound, generator=generator)
    return FirstLayer(weight, bias, activation, "kaiming")


LAYERS: dict[str, Callable[..., nn.Module]] = {
    "gaussian": gaussian,
    "kaiming": kaiming,
    "identity": lambda m, d, seed, activation="relu": IdentityLayer(m),
}
"""First layers by name: a function of (m, d, seed, activation). Add your own to use it from a configuration."""


def make_layer(name: str, m: int, d: int, seed: int, activation: str = "relu") -> nn.Module:
    """A fresh first layer by name. Raises InputError for an unknown name, d < 1 or an unknown activation."""
    if name not in LAYERS:
        raise InputError(f"unknown first layer {name!r}: choose one of {', '.join(LAYERS)}")
    return LAYERS[name](m, d, seed, activation)


def _check_width(d: int) -> None:
    if d < 1:
        raise InputError(f"d = {d} neurons: the layer needs at least 1")
