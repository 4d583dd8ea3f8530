"""Draw activations together with the truth about them, and compute the directions of features and functions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.features import Features, Inputs, Source, as_features, checked_sample
from toymodels.core.seeds import seeded
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_kind, check_whole
from toymodels.ground_truth.module import MLP, as_mlp

_MOST_ENTRIES = 50_000_000
"""Inputs × (features + functions) up to which directions are computed: the least squares problem is then 400 MB."""


class Batch(NamedTuple):
    """Some inputs, what a network makes of them, and the truth."""

    activations: Float[Tensor, "batch neurons"]
    """Activations of the hidden layer."""
    inputs: Float[Tensor, "batch inputs"]
    """What the layer reads: the features, or their embedding in d0 dimensions."""
    features: Float[Tensor, "batch m"]
    """The true features x, 0 where inactive."""
    functions: Float[Tensor, "batch outputs"]
    """The true values of the functions that the task names, in the order of the outputs."""


def samples(
    network: nn.Module, task: Task, features: Source, seed: int, batch: int = 1000, batches: int | None = None
) -> Iterator[Batch]:
    """Draw batches of activations, inputs, true features and true values of the functions, the same ones from the same seed.

    The network is one that `as_mlp` takes. Without `batches` there is no end. Tensors are on the CPU, in the precision of the
    first layer. Raises InputError, at the call, for what does not fit together.
    """
    mlp, source = checked_parts(network, task, features)
    check_whole(1, batch=batch)
    if batches is not None:
        check_whole(1, batches=batches)
    generator, numbers = seeded(seed), itertools.count() if batches is None else range(batches)
    return (of_inputs(mlp, task, checked_sample(source, batch, generator)) for _ in numbers)


@torch.no_grad()
def of_inputs(mlp: MLP, task: Task, inputs: Inputs) -> Batch:
    """Return what a network makes of given inputs, and the truth about them."""
    x = inputs.dense(dtype=next(mlp.parameters()).dtype)
    return Batch(mlp.activations(x), mlp.inputs(x), x, task.targets(x))


@dataclass(frozen=True)
class FeatureVectors:
    """Directions of the true features and functions, one a row."""

    inputs: Float[Tensor, "m inputs"]
    """Of each feature where the layer reads: its axis, or the column of the frame that embeds it."""
    activations: Float[Tensor, "m neurons"]
    """Of each feature in the activations (see `feature_vectors`)."""
    functions: Float[Tensor, "outputs neurons"]
    """Of each function in the activations."""
    readoffs: Float[Tensor, "outputs neurons"]
    """The rows of the readoff: what the network reads each function by."""
    origin: Float[Tensor, " neurons"]
    """The activations that all features and functions at 0 leave."""
    explained: float
    """Share of the variance of the activations that these directions explain; 1 if they describe them exactly."""


@torch.no_grad()
def feature_vectors(network: nn.Module, task: Task, features: Source, n: int = 20_000, seed: int = 0) -> FeatureVectors:
    """Compute the directions of features and functions in a network's inputs and activations.

    In the activations they are the least squares fit a(x) ≈ origin + Σ_k x_k·activations_k + Σ_i y_i(x)·functions_i over all
    inputs by their probabilities, or over n sampled ones if there are more (derived here). If at most 2 boolean features are
    active and the functions are the ANDs of all pairs, the fit is exact: activations_k = a({k}) − a(∅), and functions_kl =
    a({k, l}) − a({k}) − a({l}) + a(∅). If functions depend on each other linearly, it is the fit of least norm.
    Raises InputError for what does not fit together, or is too large.
    """
    mlp, source = checked_parts(network, task, features)
    check_whole(1, n=n)
    inputs = source.enumerate() if source.n_inputs <= n else source.sampled(n, seed)
    if len(inputs) * (task.m + task.n_outputs) > _MOST_ENTRIES:
        raise InputError(
            f"{len(inputs):,} inputs × {task.m + task.n_outputs:,} features and functions: more than {_MOST_ENTRIES:,}, take a "
            "smaller n, or a task with fewer outputs"
        )
    batch = of_inputs(mlp, task, inputs)
    a = batch.activations.double()
    truth = torch.cat([torch.ones(len(a), 1), batch.features, batch.functions], 1).double()
    root = inputs.probabilities.double().sqrt()[:, None]
    fit = torch.linalg.lstsq(root * truth, root * a, driver="gelsd").solution
    mean = inputs.probabilities.double() @ a
    total = float((root * (a - mean)).square().sum())
    rest = float((root * (a - truth @ fit)).square().sum())
    axes = torch.eye(task.m, dtype=batch.inputs.dtype)
    return FeatureVectors(
        mlp.inputs(axes), fit[1 : 1 + task.m], fit[1 + task.m :], mlp.mlp_out.weight.detach().clone(), fit[0],
        1 - rest / total if total > 0 else 1.0,
    )  # fmt: skip


def checked_parts(network: nn.Module, task: Task, features: Source) -> tuple[MLP, Features]:
    """Return the network as a plain module, and the source of inputs. Raises InputError if they do not fit the task."""
    check_kind(Task, "a Task, such as PairTask(m, 'and')", task=task)
    check_kind(Source, "a source of inputs, such as SparseFeatures.at_most(m, 2)", features=features)
    source = as_features(features)
    if source.m != task.m:
        raise InputError(f"the features are {source.m} and the task reads {task.m}: they must be the same")
    mlp = as_mlp(network, task.m)
    if mlp.n_outputs != task.n_outputs:
        raise InputError(f"the network has {mlp.n_outputs:,} outputs and the task {task.name} {task.n_outputs:,}")
    return mlp, source
