"""Bring our networks to SAELens, whose trainer and scores take the objects below, and its autoencoders to our bench.

The objects have the methods of SAELens' synthetic `FeatureDictionary` and `ActivationGenerator`. SAELens itself is imported only
where a method of `DICTIONARIES` fits one of its autoencoders: `pip install 'toymodels[interp]'`.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.features import Source, as_features, checked_sample
from toymodels.core.seeds import seeded
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_choice, check_kind, check_whole
from toymodels.ground_truth.dictionaries import DICTIONARIES, check_fit, checked_activations
from toymodels.ground_truth.samples import checked_parts, feature_vectors


class TrueFeatures(nn.Module):
    """Draw the true values of features and functions, as SAELens' `ActivationGenerator` draws feature activations."""

    def __init__(self, task: Task, features: Source, seed: int):
        """Take the functions, the distribution of the features, and the seed of the first batch."""
        super().__init__()
        self.task, self.source, self.generator = task, as_features(features), seeded(seed)
        self.num_features = task.m + task.n_outputs

    def forward(self, batch_size: int) -> Float[Tensor, "batch truths"]:
        """Return new values: the features x, then the functions of x, in float32."""
        check_whole(1, batch_size=batch_size)
        x = checked_sample(self.source, batch_size, self.generator).dense()
        return torch.cat([x, self.task.targets(x)], 1)

    sample = forward


class TrueActivations(nn.Module):
    """Compute a network's activations from true values, as SAELens' `FeatureDictionary` does, but by the network itself.

    `feature_vectors` are the directions of features and functions (see `toymodels.feature_vectors`), to compare decoders with;
    the activations are those of the layer, which these directions may describe only in part.
    """

    feature_vectors: Float[Tensor, "truths neurons"]
    bias: Float[Tensor, " neurons"]

    def __init__(self, network: nn.Module, task: Task, features: Source):
        """Take a network as `as_mlp` takes it. Raises InputError for parts that do not fit together, or are too large."""
        super().__init__()
        self.mlp = checked_parts(network, task, features)[0]
        vectors = feature_vectors(network, task, features)
        self.m, self.num_features, self.hidden_dim = task.m, task.m + task.n_outputs, self.mlp.d
        self.register_buffer("feature_vectors", torch.cat([vectors.activations, vectors.functions]).float())
        self.register_buffer("bias", vectors.origin.float())

    @torch.no_grad()
    def forward(self, values: Float[Tensor, "batch truths"]) -> Float[Tensor, "batch neurons"]:
        """Return the activations, in float32, at the features in the first m columns."""
        check_kind(Tensor, "a tensor of true values, a row for each input", values=values)
        if values.ndim != 2 or values.shape[1] != self.num_features:
            raise InputError(
                f"the values have shape {tuple(values.shape)}: they must have {self.num_features} columns, features and functions"
            )
        return self.mlp.activations(values[:, : self.m].to(next(self.mlp.parameters()).dtype)).float()


def for_saelens(
    network: nn.Module, task: Task, features: Source, seed: int = 0
) -> tuple[TrueActivations, TrueFeatures]:
    """Return what `train_toy_sae` and `eval_sae_on_synthetic_data` of SAELens take after the autoencoder.

    Their ground truth is m features and then the task's functions. The same seed gives the same batches.
    Raises InputError for parts that do not fit together, or are too large for `feature_vectors`.
    """
    return TrueActivations(network, task, features), TrueFeatures(task, features, seed)


class _Scaled(nn.Module):
    """An autoencoder for activations in units of `scale`."""

    def __init__(self, inner: nn.Module, scale: float):
        super().__init__()
        self.inner: Any = inner
        self.scale = scale

    def encode(self, a: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch latents"]:
        z: Tensor = self.inner.encode(a / self.scale)
        return z

    def decode(self, z: Float[Tensor, "batch latents"]) -> Float[Tensor, "batch neurons"]:
        a: Tensor = self.inner.decode(z)
        return self.scale * a

    def forward(self, a: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch neurons"]:
        return self.decode(self.encode(a))


_ARCHITECTURES = {
    "standard": ("Standard", "l1_coefficient"),
    "topk": ("TopK", "k"),
    "batchtopk": ("BatchTopK", "k"),
    "gated": ("Gated", "l1_coefficient"),
    "jumprelu": ("JumpReLU", "l0_coefficient"),
}
"""Architectures of SAELens: how their classes are called, and what `sparsity` sets."""


def _check(latents: int, architecture: str, sparsity: float, steps: int, lr: float) -> None:
    check_choice(_ARCHITECTURES, architecture=architecture)
    whole = _ARCHITECTURES[architecture][1] == "k"
    if whole and sparsity != int(sparsity):
        raise InputError(f"sparsity = {sparsity}: for {architecture} it is a number of latents, a whole number")
    check_fit(latents, steps=steps, lr=lr, **({"k": int(sparsity)} if whole else {"l1": sparsity}))


@DICTIONARIES("saelens", order=10, source="SAELens (sae-lens)", label="SAELens", check=_check, package="sae_lens")
def _saelens(
    activations: Tensor,
    latents: int,
    seed: int,
    *,
    architecture: str = "gated",
    sparsity: float = 0.1,
    steps: int = 1500,
    lr: float = 3e-3,
) -> nn.Module:
    """Fit an autoencoder of SAELens: standard, topk, batchtopk, gated or jumprelu, with sparsity its coefficient or its k."""
    import sae_lens
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    a, _, scale = checked_activations(activations)
    generator, batch = seeded(seed), 256
    name, coefficient = _ARCHITECTURES[architecture]
    value = int(sparsity) if coefficient == "k" else sparsity

    def batches() -> Iterator[Tensor]:
        while True:
            yield a[torch.randint(len(a), (batch,), generator=generator)] / scale

    settings = SAETrainerConfig(
        total_training_samples=steps * batch,
        train_batch_size_samples=batch,
        lr=lr,
        lr_end=lr,
        lr_decay_steps=steps // 5,
        logger=LoggingConfig(log_to_wandb=False, eval_every_n_wandb_logs=2**31 - 1),
    )
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder, torch.enable_grad():
        torch.manual_seed(seed % 2**63)  # SAELens draws its first weights from torch's own generator
        config = getattr(sae_lens, f"{name}TrainingSAEConfig")(d_in=a.shape[1], d_sae=latents, **{coefficient: value})
        sae = getattr(sae_lens, f"{name}TrainingSAE")(config)
        with contextlib.redirect_stderr(io.StringIO()):  # its progress bar
            SAETrainer(settings, sae, batches()).fit()
        sae.save_inference_model(folder)  # the form that is used: BatchTopK with its threshold, for example
        fitted = sae_lens.SAE.load_from_disk(folder)
    return _Scaled(fitted, scale).eval().requires_grad_(False)
