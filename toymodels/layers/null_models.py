"""Null models: layers that keep one thing of a trained layer and redraw the rest, and labels without structure.

A Gaussian layer differs from a trained one in everything at once. Each control here keeps the biases and one property of
the weights (scale, singular values, the weights as a bag, or those of each neuron), so what it reads better than a Gaussian
layer is owed to these.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.core.features import Inputs, dense
from toymodels.core.layers import FirstLayer
from toymodels.core.tasks import ALL, Task
from toymodels.errors import InputError


def spectrum_matched(layer: FirstLayer, seed: int) -> FirstLayer:
    """U S Vᵀ with the layer's singular values S and uniformly random orthonormal U and V; biases in random order.

    Keeps the spectrum; the distribution of the weights becomes nearly Gaussian and their arrangement random.
    """
    generator = torch.Generator().manual_seed(seed)
    values = torch.linalg.svdvals(layer.weight.detach().double().cpu())
    left, right = (_orthonormal(size, len(values), generator) for size in layer.weight.shape)
    return _like(layer, (left * values) @ right.T, _permuted(layer.bias, generator), "spectrum_matched")


def shuffled(layer: FirstLayer, seed: int) -> FirstLayer:
    """All weights in random order, and all biases: keeps the distribution of the weights, not their arrangement."""
    generator = torch.Generator().manual_seed(seed)
    return _like(layer, _permuted(layer.weight, generator), _permuted(layer.bias, generator), "shuffled")


def shuffled_within(layer: FirstLayer, seed: int) -> FirstLayer:
    """The weights of each neuron in random order, its bias kept: keeps each neuron's distribution of weights as well."""
    generator = torch.Generator().manual_seed(seed)
    weight = layer.weight.detach().cpu()
    order = torch.rand(weight.shape, generator=generator).argsort(1)
    return _like(layer, weight.gather(1, order), layer.bias.detach().cpu(), "shuffled_within")


def gaussian_like(layer: FirstLayer, seed: int) -> FirstLayer:
    """Gaussian weights of the layer's mean and standard deviation, and its biases in random order: keeps those alone."""
    generator = torch.Generator().manual_seed(seed)
    weight = layer.weight.detach().cpu()
    drawn = weight.mean() + weight.std() * torch.randn(weight.shape, generator=generator)
    return _like(layer, drawn, _permuted(layer.bias, generator), "gaussian_like")


CONTROLS: dict[str, Callable[[FirstLayer, int], FirstLayer]] = {
    "gaussian_like": gaussian_like,
    "spectrum_matched": spectrum_matched,
    "shuffled": shuffled,
    "shuffled_within": shuffled_within,
}
"""Layers made from a trained one, by name: a function of (trained layer, seed)."""


def _orthonormal(size: int, columns: int, generator: torch.Generator) -> Float[Tensor, "size columns"]:
    """Uniform on the Stiefel manifold: QR of a Gaussian matrix, with the signs of R's diagonal taken out."""
    q, r = torch.linalg.qr(torch.randn(size, columns, dtype=torch.float64, generator=generator))
    return q * r.diagonal().sign()


def _permuted(values: Tensor, generator: torch.Generator) -> Tensor:
    flat = values.detach().cpu().reshape(-1)
    return flat[torch.randperm(len(flat), generator=generator)].reshape(values.shape)


def _like(layer: FirstLayer, weight: Tensor, bias: Tensor, law: str) -> FirstLayer:
    made = FirstLayer(weight.to(layer.weight.dtype), bias.clone(), layer.activation, law, layer.scale)
    return made.to(layer.weight.device).requires_grad_(False)


_DRAWS = 20
# Keys are drawn again where two inputs get one sum: odds below 10^-2 a draw at a million inputs.


class RandomLabels(Task):
    """Labels as sparse as a task's, without structure: each output's targets in random order over inputs of equal size.

    Among the inputs with k features on, as many have the label 1 as have the target 1; which ones is random. A readoff
    that fits them as well as the gate owes its error to freedom, not to what the layer computes (Zhang et al. 2017,
    "Understanding deep learning requires rethinking generalization"). With at most 2 features on, the only such label of an
    AND is the AND of another pair, and the control says nothing; from 3 on it does.
    """

    truth = (0, 1)

    def __init__(self, task: Task, inputs: Inputs, seed: int):
        """Labels for these inputs only. Raises InputError for inputs that are a sample, or of which two are the same."""
        if not inputs.enumerated:
            raise InputError("random labels are given to all inputs: take fewer (active) features, so that they can be")
        generator = torch.Generator().manual_seed(seed)
        self.m, self.n_outputs, self.name = task.m, task.n_outputs, f"random labels as sparse as {task.name}"
        # Inputs are found again by a sum of random whole numbers, one for each active feature, exact in float64.
        indices = inputs.indices.cpu()
        for _ in range(_DRAWS):
            self._keys = torch.randint(2**44, (task.m,), generator=generator).double()
            self._codes, self._rows = nn.functional.pad(self._keys, (0, 1))[indices].sum(1).sort()
            if bool((self._codes.diff() > 0).all()):
                break
        else:
            raise InputError("two of the inputs are the same: random labels are given to each input once")
        labels = torch.zeros(len(indices), task.n_outputs, dtype=torch.uint8)
        size = (indices < task.m).sum(1)
        step = max(1, min(64, 2**25 // len(indices)))  # outputs: their order over inputs is long numbers
        for start in range(0, task.n_outputs, step):
            outputs = slice(start, min(start + step, task.n_outputs))
            for k in size.unique():
                group = torch.nonzero(size == k).reshape(-1)
                parts = (dense(indices[part], task.m, torch.float64) for part in group.split(2**14))
                target = torch.cat([task.targets(x, outputs).to(torch.uint8) for x in parts])
                order = torch.rand(target.shape, generator=generator).argsort(0)
                labels[group, outputs] = target.gather(0, order)
        self._labels = labels

    def cases(self, x: Float[Tensor, "batch m"], outputs: slice = ALL) -> Int[Tensor, "batch outputs"]:
        """The label. Raises InputError for an input that was not among those labelled."""
        code = x.double().cpu() @ self._keys
        place = torch.searchsorted(self._codes, code).clamp(max=len(self._codes) - 1)
        if not bool((self._codes[place] == code).all()):
            raise InputError("an input has no random label: labels were drawn for other inputs")
        return self._labels[self._rows[place], outputs].long().to(x.device)
