"""Null models: layers that keep one property of a trained layer and draw the rest anew.

A Gaussian layer differs from a trained one in everything at once. Each null model here keeps the biases and one property of
the weights (scale, singular values, the set of all weights, or the set of each neuron's weights). If it is read better than a
Gaussian layer, this is due to what it keeps.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.layers import LAYERS, FirstLayer
from toymodels.core.seeds import seeded
from toymodels.errors import InputError


@LAYERS("spectrum_matched", role="null", order=91, source="derived here")
def spectrum_matched(trained: nn.Module, seed: int) -> FirstLayer:
    """Draw U S Vᵀ with the layer's singular values S and uniformly random orthonormal U and V; biases in random order.

    Keeps the spectrum; the distribution of the weights becomes nearly Gaussian and their arrangement random.
    """
    layer, generator = _first_layer(trained), seeded(seed)
    values = torch.linalg.svdvals(layer.weight.detach().double().cpu())
    left, right = (_orthonormal(size, len(values), generator) for size in layer.weight.shape)
    return _like(layer, (left * values) @ right.T, _permuted(layer.bias, generator), "spectrum_matched")


@LAYERS("shuffled", role="null", order=92, source="derived here")
def shuffled(trained: nn.Module, seed: int) -> FirstLayer:
    """Put all weights in random order, and all biases: keeps the distribution of the weights, not their arrangement."""
    layer, generator = _first_layer(trained), seeded(seed)
    return _like(layer, _permuted(layer.weight, generator), _permuted(layer.bias, generator), "shuffled")


@LAYERS("shuffled_within", role="null", order=93, source="derived here")
def shuffled_within(trained: nn.Module, seed: int) -> FirstLayer:
    """Put the weights of each neuron in random order, with its bias: keeps each neuron's distribution of weights as well."""
    layer, generator = _first_layer(trained), seeded(seed)
    weight = layer.weight.detach().cpu()
    order = torch.rand(weight.shape, generator=generator).argsort(1)
    return _like(layer, weight.gather(1, order), layer.bias.detach().cpu(), "shuffled_within")


@LAYERS("gaussian_like", role="null", order=90, source="derived here")
def gaussian_like(trained: nn.Module, seed: int) -> FirstLayer:
    """Draw Gaussian weights of the layer's mean and standard deviation, and put its biases in random order: keeps only those.

    With the same seed the normals are those of a frozen Gaussian layer: the two rows of a comparison differ in mean, scale
    and biases only.
    """
    layer, generator = _first_layer(trained), seeded(seed)
    weight = layer.weight.detach().cpu()
    drawn = weight.mean() + weight.std() * torch.randn(weight.shape, generator=generator)
    return _like(layer, drawn, _permuted(layer.bias, generator), "gaussian_like")


def _orthonormal(size: int, columns: int, generator: torch.Generator) -> Float[Tensor, "size columns"]:
    """Draw uniformly from the Stiefel manifold: QR of a Gaussian matrix, with the signs of R's diagonal taken out."""
    q, r = torch.linalg.qr(torch.randn(size, columns, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()


def _permuted(values: Tensor, generator: torch.Generator) -> Tensor:
    flat = values.detach().cpu().reshape(-1)
    return flat[torch.randperm(len(flat), generator=generator)].reshape(values.shape)


def _like(layer: FirstLayer, weight: Tensor, bias: Tensor, origin: str) -> FirstLayer:
    null = FirstLayer(weight.to(layer.weight.dtype), bias.clone(), layer.activation, origin, layer.scale)
    return null.to(layer.weight.device).requires_grad_(False)


def _first_layer(trained: nn.Module) -> FirstLayer:
    if not isinstance(trained, FirstLayer):
        raise InputError("null models are made from a trained FirstLayer: leave them out for layers of your own")
    return trained
