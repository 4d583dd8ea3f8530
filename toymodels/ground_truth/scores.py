"""Score what a dictionary has found against the true features and functions, and what it costs the network."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from toymodels.core.evaluation import Evaluation, evaluate
from toymodels.core.features import Inputs
from toymodels.core.layers import Embedded, apply
from toymodels.core.network import Network
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_kind, check_positive

RARE = 0.1
"""A latent is ultra-rare if it is active with less than this share of the probability of the rarest true function."""


class Reconstructed(nn.Module):
    """A first layer whose activations are replaced by a dictionary's reconstruction."""

    def __init__(self, layer: nn.Module, dictionary: nn.Module):
        """Put the dictionary behind the layer."""
        super().__init__()
        self.layer, self.dictionary = layer, dictionary

    def forward(self, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch neurons"]:
        """Return the reconstruction of the activations."""
        reconstruction: Tensor = self.dictionary(read_by(self.dictionary, self.layer, x))
        return reconstruction


def read_by(dictionary: nn.Module, layer: nn.Module, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch read"]:
    """Return what a dictionary reads: the layer's activations, or what the layer reads if its `reads` is "inputs"."""
    read: Tensor = layer_reads(layer, x) if getattr(dictionary, "reads", "") == "inputs" else layer(x)
    return read


def layer_reads(layer: nn.Module, x: Float[Tensor, "batch m"]) -> Float[Tensor, "batch read"]:
    """Return what a layer reads of features: x itself, or its embedding."""
    return nn.functional.linear(x, layer.frame) if isinstance(layer, Embedded) else x


def correlations(
    latents: Float[Tensor, "inputs latents"],
    truths: Float[Tensor, "inputs truths"],
    probabilities: Float[Tensor, " inputs"],
) -> Float[np.ndarray, "latents truths"]:
    """Compute |Pearson's correlation| of each latent with each truth over inputs by their probabilities; 0 for a constant."""
    weight = (probabilities / probabilities.sum()).double()[:, None]
    tables = []
    for values in (latents.double(), truths.double()):
        centred = (values - (weight * values).sum(0)) * weight.sqrt()
        norm = centred.norm(dim=0)
        # Below this the deviations are rounding errors of a constant.
        constant = norm <= 1e-9 * values.abs().amax(0, keepdim=True)[0].clamp_min(1e-300)
        tables.append(torch.where(constant, 0.0, centred / norm.clamp_min(1e-300)))
    return (tables[0].T @ tables[1]).abs().clamp(max=1.0).numpy()


def found(correlation: Float[np.ndarray, "latents truths"], live: int, threshold: float | int) -> dict[str, float]:
    """Score one family of truths after the optimal assignment of latents to truths (each at most once).

    correlation: mean |correlation| of the truths with their latents, 0 for a truth without one; recall: share of truths with
    at least the threshold; precision: the number of these truths over the number of live latents.
    """
    rows, columns = linear_sum_assignment(correlation, maximize=True)
    matched = correlation[rows, columns]
    hits = int((matched >= threshold).sum())
    truths = correlation.shape[1]
    return {
        "correlation": float(matched.sum()) / truths,
        "recall": hits / truths,
        "precision": hits / live if live else 0.0,
    }


def for_measuring(module: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, as `evaluate` measures it: one in training mode may change when it is applied."""
    return copy.deepcopy(module).eval()


@torch.no_grad()
def score(
    dictionary: nn.Module,
    network: Network,
    task: Task,
    inputs: Inputs,
    threshold: float | int = 0.9,
    clean: Evaluation | None = None,
) -> dict[str, float]:
    """Score a dictionary of a network's activations against the truth, on the given inputs by their probabilities.

    features_… and functions_… are the scores of `found` for the true features x_k and the values of the task's functions, each
    family by itself; precision is that of both together. l0: mean number of latents other than 0; explained: share of the
    activations' variance that the reconstruction explains; dead: share of latents that are never active; ultra_rare: share
    that are active, with less than a tenth of the probability of the rarest function. worst_error and rms are those of the
    network's outputs when the reconstruction replaces the activations, clean_worst_error and clean_rms without that (`clean`, the
    network's evaluation on these inputs, is made here if it is not given).
    Raises InputError for parts that do not fit together.
    """
    check_kind(nn.Module, "a module with encode and decode", dictionary=dictionary)
    encode: Any = getattr(dictionary, "encode", None)
    if not callable(encode):
        raise InputError("the dictionary has no method encode: it must turn activations into latents")
    check_kind(Network, "a Network, of a first layer and a readoff", network=network)
    check_kind(Task, "a Task", task=task)
    check_kind(Inputs, "Inputs, such as features.enumerate()", inputs=inputs)
    check_positive(1, threshold=threshold)
    if inputs.m != task.m:
        raise InputError(f"the inputs have {inputs.m} features and the task {task.m}: they must be the same")
    apply(network, task.m, "network")
    layer, dictionary = for_measuring(network.layer).float(), for_measuring(dictionary)
    x = inputs.dense()
    a, read = layer(x), read_by(dictionary, layer, x)
    encode = dictionary.encode
    try:
        z, rebuilt = encode(read), dictionary(read)
    except RuntimeError as error:
        reason, what = str(error).partition("\n")[0], getattr(dictionary, "reads", "activations")
        raise InputError(f"the dictionary does not take {what} of shape {tuple(read.shape)}: {reason}") from None
    if rebuilt.shape != a.shape:
        raise InputError(
            f"the dictionary returned shape {tuple(rebuilt.shape)} for activations of shape {tuple(a.shape)}"
        )
    if z.ndim != 2 or len(z) != len(a):
        raise InputError(f"encode returned shape {tuple(z.shape)} for {len(a)} inputs: it must be a row for each")
    if not bool(z.isfinite().all()):
        raise InputError("the dictionary returns latents that are not finite")
    values, weight = task.targets(x), inputs.probabilities.double()
    density = weight @ (z != 0).double()
    live = int((density > 0).sum())
    both = torch.cat([x, values], 1)
    table = correlations(z, both, weight)
    happens = weight @ (values != 0).double()
    rarest = float(happens[happens > 0].min()) if bool((happens > 0).any()) else 0.0
    families = {"features": table[:, : task.m], "functions": table[:, task.m :]}
    scores = {
        f"{family}_{name}": value
        for family, part in families.items()
        for name, value in found(part, live, threshold).items()
    }
    mean = weight @ a.double()
    total = float(weight @ (a.double() - mean).square().sum(1))
    rest = float(weight @ (a.double() - rebuilt.double()).square().sum(1))
    through = evaluate(Network(Reconstructed(layer, dictionary), network.readoff), task, inputs)
    clean = evaluate(network, task, inputs) if clean is None else clean
    return {
        **scores,
        "precision": found(table, live, threshold)["precision"],
        "l0": float(density.sum()),
        "explained": 1 - rest / total if total > 0 else 0.0,
        "latents": float(z.shape[1]),
        "dead": 1 - live / z.shape[1],
        "ultra_rare": float(((density > 0) & (density < RARE * rarest)).double().mean()),
        "worst_error": through.worst_error,
        "rms": through.rms,
        "clean_worst_error": clean.worst_error,
        "clean_rms": clean.rms,
    }
