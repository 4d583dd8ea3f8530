"""Score what a dictionary has found against the true features and functions, and what it costs the network."""

from __future__ import annotations

import copy
from typing import NamedTuple

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
from toymodels.errors import InputError, check_choice, check_kind, check_positive

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
        return reconstruction.to(x.dtype)  # a dictionary may work in another precision than the network


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


def split_and_absorbed(
    latents: Float[Tensor, "inputs latents"],
    features: Float[Tensor, "inputs m"],
    probabilities: Float[Tensor, " inputs"],
    threshold: float | int = 0.9,
) -> dict[str, float]:
    """Score how latents share out features, by when they are active (0 or not) over inputs by their probabilities.

    A latent belongs to a feature if, while it is active, the feature is with at least the probability `threshold`. split: share
    of features of which no latent alone, but all that belong to it together, are active with at least this probability while
    the feature is. absorbed: mean probability over features that, while the feature is active, its main latent is not and
    another one of its latents is; the main one is the most often active, in half of the cases at least, and without it the
    feature counts 0. Defined here, after the splitting of "Towards Monosemanticity" and the absorption of arXiv:2409.14507.
    """
    weight = (probabilities / probabilities.sum()).double()[:, None]
    active, on = latents != 0, features != 0
    both = active.double().T @ (weight * on)
    belongs = both >= threshold * (weight * active).sum(0)[:, None].clamp_min(1e-300)
    split, absorbed = 0, 0.0
    for k, often in enumerate((weight * on).sum(0).tolist()):
        own = belongs[:, k]
        if not often or not bool(own.any()):
            continue
        recall = torch.where(own, both[:, k], 0) / often
        main, together = int(recall.argmax()), active[:, own].any(1) & on[:, k]
        split += float(recall[main]) < threshold <= float(weight[together].sum()) / often
        if recall[main] >= 0.5:
            absorbed += float(weight[together & ~active[:, main]].sum()) / often
    return {"split": split / on.shape[1], "absorbed": absorbed / on.shape[1]}


def for_measuring(module: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, as `evaluate` measures it: one in training mode may change when it is applied."""
    return copy.deepcopy(module).eval()


class Encoded(NamedTuple):
    """What a dictionary makes of a layer on some inputs."""

    layer: nn.Module
    dictionary: nn.Module
    x: Float[Tensor, "inputs m"]
    activations: Float[Tensor, "inputs neurons"]
    read: Float[Tensor, "inputs read"]
    """What the dictionary reads (`read_by`)."""
    latents: Float[Tensor, "inputs latents"]
    reconstruction: Float[Tensor, "inputs neurons"]


@torch.no_grad()
def encoded(dictionary: nn.Module, network: Network, inputs: Inputs) -> Encoded:
    """Apply a copy of a network's first layer, in float32, and of a dictionary to inputs.

    Raises InputError for parts that do not fit together, or latents or reconstructions that are no tables of finite numbers.
    """
    check_kind(nn.Module, "a module with encode and decode", dictionary=dictionary)
    if not callable(getattr(dictionary, "encode", None)):
        raise InputError("the dictionary has no method encode: it must turn activations into latents")
    reads = getattr(dictionary, "reads", "activations")
    check_choice(("activations", "inputs"), reads=reads)
    check_kind(Network, "a Network, of a first layer and a readoff", network=network)
    check_kind(Inputs, "Inputs, such as features.enumerate()", inputs=inputs)
    apply(network, inputs.m, "network")
    layer, copied = for_measuring(network.layer).float(), for_measuring(dictionary)
    x = inputs.dense()
    a, read = layer(x), read_by(copied, layer, x)
    try:
        made = {"latents": copied.encode(read), "reconstruction": copied(read)}  # type: ignore[operator]
    except Exception as error:  # of any kind: the dictionary is a user's own
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InputError(f"the dictionary does not take {reads} of shape {tuple(read.shape)} ({reason})") from None
    for name, table in made.items():
        check_kind(Tensor, "a tensor with a row for each input", **{f"the dictionary's {name}": table})
        wanted = (len(a), a.shape[1] if name == "reconstruction" else max(1, table.shape[-1] if table.ndim else 1))
        if table.layout != torch.strided or table.is_complex() or table.shape != wanted:
            kind = f"{table.dtype}".removeprefix("torch.")
            raise InputError(
                f"the dictionary returned {name} of shape {tuple(table.shape)} ({kind}) for activations of shape "
                f"{tuple(a.shape)}: they must be a dense table of real numbers with a row for each input"
            )
        if not bool(table.isfinite().all()):
            raise InputError(f"the dictionary returned {name} with numbers that are not finite")
    return Encoded(layer, copied, x, a, read, made["latents"], made["reconstruction"])


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
    family by itself; precision is that of both together; split and absorbed, how latents share out features, are those of
    `split_and_absorbed`. l0: mean number of latents other than 0; explained: share of the
    activations' variance that the reconstruction explains; dead: share of latents that are never active; ultra_rare: share
    that are active, with less than a tenth of the probability of the rarest function. worst_error and rms are those of the
    network's outputs when the reconstruction replaces the activations, clean_worst_error and clean_rms without that (`clean`, the
    network's evaluation on these inputs, is made here if it is not given).
    Raises InputError for parts that do not fit together.
    """
    check_kind(Task, "a Task", task=task)
    check_positive(1, threshold=threshold)
    if clean is not None:
        check_kind(Evaluation, "an Evaluation, as `evaluate` returns it", clean=clean)
    layer, dictionary, x, a, _, z, rebuilt = encoded(dictionary, network, inputs)
    if inputs.m != task.m:
        raise InputError(f"the inputs have {inputs.m} features and the task {task.m}: they must be the same")
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
        **split_and_absorbed(z, x, weight, threshold),
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
