"""A network is a first layer and a readoff; every measurement is one of a network."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.tasks import ALL


class Network(nn.Module):
    """outputs(x) = readoff(layer(x)).

    The layer is any module taking (batch, m) to (batch, width). The readoff is any module that takes activations
    (batch, width) and a slice of outputs, and returns (batch, outputs of the slice).
    """

    def __init__(self, layer: nn.Module, readoff: nn.Module):
        super().__init__()
        self.layer = layer
        self.readoff = readoff

    def forward(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Float[Tensor, "batch outputs"]:
        """Return the outputs of a slice."""
        return self.readoff(self.layer(x), outputs)
