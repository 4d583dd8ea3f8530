"""Compute activations from active features: sum a few columns of the weights instead of multiplying with all of them."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.core.layers import ACTIVATIONS, FirstLayer


def apply_sparse(
    layer: nn.Module, x: Float[Tensor, "batch m"], indices: Int[Tensor, "batch width"]
) -> Float[Tensor, "batch neurons"]:
    """Return layer(x) of boolean inputs, computed from their active features if that is faster."""
    # An input without any active feature has no columns to sum.
    if type(layer) is FirstLayer and indices.shape[1] and columns_win(layer, indices.shape[1]):
        return from_active(layer, indices)
    return layer(x)


def from_active(layer: FirstLayer, indices: Int[Tensor, "batch width"]) -> Float[Tensor, "batch neurons"]:
    """Return the activations of boolean inputs, from their active features (padded with m)."""
    padded = nn.functional.pad(layer.weight, (0, 1)).T.contiguous()
    return ACTIVATIONS[layer.activation](nn.functional.embedding_bag(indices, padded, mode="sum") + layer.bias)


def columns_win(layer: FirstLayer, width: int) -> bool:
    """Whether `from_active` is faster for inputs of at most so many active features (measured on CPUs)."""
    return 32 * width <= layer.weight.shape[1]
