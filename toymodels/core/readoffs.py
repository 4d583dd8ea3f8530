"""The readoff every method ends in: one row of weights and one offset per output."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.tasks import ALL


class LinearReadoff(nn.Module):
    """o_i(x) = weight_i · a(x) + bias_i, for every output i of a task."""

    weight: Float[Tensor, "outputs neurons"]
    bias: Float[Tensor, " outputs"]

    def __init__(self, weight: Float[Tensor, "outputs neurons"], bias: Float[Tensor, " outputs"]):
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(bias)

    @classmethod
    def constant(cls, n_outputs: int, width: int, value: float = 0.0) -> LinearReadoff:
        """A readoff that ignores the activations and predicts one value: 0 is where training starts, 1/2 a baseline."""
        return cls(torch.zeros(n_outputs, width), torch.full((n_outputs,), value))

    @property
    def n_outputs(self) -> int:
        """Number of outputs read."""
        return self.weight.shape[0]

    def forward(self, a: Float[Tensor, "batch neurons"], outputs: slice = ALL) -> Float[Tensor, "batch outputs"]:
        """Outputs of a slice, from activations, in the readoff's own precision (fitted readoffs are float64)."""
        return nn.functional.linear(a.to(self.weight.dtype), self.weight[outputs], self.bias[outputs])
