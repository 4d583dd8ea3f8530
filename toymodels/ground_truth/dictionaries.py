"""Fit sparse dictionaries to activations: sparse autoencoders of three kinds, and the neurons themselves as a baseline.

A dictionary is a torch module with `encode` (activations → latents) and `decode` (latents → activations); called, it
reconstructs. A method is a member of `DICTIONARIES`: a function of activations, latents (their number) and seed that returns one;
its knobs stand behind a *. Register your own with `@DICTIONARIES("name", source="…")` in a plugin.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.seeds import seeded
from toymodels.core.training import optimiser_context, optimiser_step
from toymodels.errors import InputError, check_kind, check_not_negative, check_positive, check_whole
from toymodels.registry import Member, Registry


@dataclass(frozen=True, kw_only=True)
class DictionaryMember(Member):
    """A method by name: `function` fits a dictionary; its parameters are activations, latents, seed, and knobs."""

    check: Callable[..., None] | None = None
    """Raises InputError for knobs that are wrong; called with latents and all knobs by name, before any work."""
    package: str = ""
    """A package that must be installed, where it is one of the extras."""


DICTIONARIES = Registry(
    "sparse dictionary", DictionaryMember, "toymodels.ground_truth.dictionaries", "toymodels.ground_truth.saelens"
)
"""Methods of dictionary learning by name."""


class SparseAutoencoder(nn.Module):
    """z = sparse(ReLU(W_enc·(ã − b_dec) + b_enc)), reconstruction b_dec + W_decᵀ·z, for activations in units of `scale`.

    The rows of `decoder` have norm 1. Without `k` all positive latents count; with `k` the k largest of each input, or,
    with `batch`, k times as many as inputs over the whole batch: in evaluation all above `threshold`, the mean over training
    of the smallest latent that counted (BatchTopK, arXiv:2412.06410). If `tied`, the encoder is the decoder.
    """

    decoder: Float[Tensor, "latents neurons"]
    decoder_bias: Float[Tensor, " neurons"]
    encoder_bias: Float[Tensor, " latents"]
    scale: Float[Tensor, ""]
    threshold: Float[Tensor, ""]

    def __init__(
        self,
        decoder: Float[Tensor, "latents neurons"],
        mean: Float[Tensor, " neurons"],
        scale: float,
        k: int | None = None,
        batch: bool = False,
        tied: bool = False,
    ):
        """Start from a decoder, whose rows the encoder copies, and the mean and scale of the activations."""
        super().__init__()
        self.k, self.batch, self.tied = k, batch, tied
        self.decoder = nn.Parameter(decoder.clone())
        if not tied:
            self.encoder = nn.Parameter(decoder.clone())
        self.decoder_bias = nn.Parameter(mean / scale)
        self.encoder_bias = nn.Parameter(decoder.new_zeros(len(decoder)))
        self.register_buffer("scale", decoder.new_tensor(scale))
        self.register_buffer("threshold", decoder.new_tensor(0.0))

    def encode(self, a: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch latents"]:
        """Return the latents, 0 or positive."""
        weight = self.decoder if self.tied else self.encoder
        z = torch.relu(nn.functional.linear(a / self.scale - self.decoder_bias, weight, self.encoder_bias))
        if self.k is None:
            return z
        if not self.batch:
            kept = z.topk(self.k, dim=1)
            return torch.zeros_like(z).scatter(1, kept.indices, kept.values)
        if not self.training:
            return torch.where(z > self.threshold, z, 0)
        kept = z.flatten().topk(self.k * len(z))
        positive = kept.values.detach()[kept.values > 0]
        if len(positive):
            self.threshold += 0.01 * (positive[-1] - self.threshold)
        return torch.zeros_like(z).flatten().scatter(0, kept.indices, kept.values).view_as(z)

    def decode(self, z: Float[Tensor, "batch latents"]) -> Float[Tensor, "batch neurons"]:
        """Return the reconstruction of the activations."""
        return self.scale * (z @ self.decoder + self.decoder_bias)

    def forward(self, a: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch neurons"]:
        """Return the activations after encoding and decoding."""
        return self.decode(self.encode(a))


def fit_autoencoder(
    activations: Float[Tensor, "inputs neurons"],
    latents: int,
    seed: int,
    l1: float | int = 0.0,
    k: int | None = None,
    batch: bool = False,
    tied: bool = False,
    steps: int = 1500,
    lr: float | int = 3e-3,
    inputs: int = 256,
    watch: Callable[[int, SparseAutoencoder], None] | None = None,
) -> SparseAutoencoder:
    """Fit a sparse autoencoder by Adam to mean |ã − reconstruction|² + l1·Σ latents, on batches of `inputs` activations.

    Activations are divided by their root total variance, so that l1 and lr mean the same for every layer. The learning rate
    falls linearly to 0 over the last fifth; after every step the rows of the decoder are brought back to norm 1. `watch`, if
    given, is called before the first step and after every step with the number of steps done.
    Raises InputError for activations that are no table of finite numbers or do not vary, or for wrong numbers.
    """
    check_fit(latents, l1=l1, k=k, tied=tied, steps=steps, lr=lr, inputs=inputs)
    (a, mean, scale), generator = checked_activations(activations), seeded(seed)
    start = nn.functional.normalize(torch.randn(latents, a.shape[1], generator=generator), dim=1)
    sae = SparseAutoencoder(start, mean, scale, k, batch, tied)
    optimiser = torch.optim.Adam(sae.parameters(), lr=lr, betas=(0.9, 0.999))
    if watch is not None:
        watch(0, sae)
    with optimiser_context(), torch.enable_grad():
        for step in range(steps):
            rows = a[torch.randint(len(a), (inputs,), generator=generator)]
            for group in optimiser.param_groups:
                group["lr"] = lr * min(1.0, 5 * (steps - step) / steps)
            z = sae.encode(rows)
            loss = ((rows - sae.decode(z)) / scale).square().sum(1).mean()
            if l1:
                loss = loss + l1 * z.sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser_step(optimiser)
            with torch.no_grad():
                sae.decoder /= sae.decoder.norm(dim=1, keepdim=True).clamp_min(1e-12)
                if watch is not None:
                    watch(step + 1, sae)
    return sae.eval().requires_grad_(False)


def checked_activations(
    activations: Float[Tensor, "inputs neurons"],
) -> tuple[Float[Tensor, "inputs neurons"], Float[Tensor, " neurons"], float]:
    """Return activations in float32, their mean and the root of their total variance, the unit in which dictionaries are fitted.

    Raises InputError for activations that are no table of finite numbers, or do not vary.
    """
    check_kind(Tensor, "a tensor with a row for each input", activations=activations)
    if activations.ndim != 2 or not len(activations) or not bool(activations.isfinite().all()):
        raise InputError(
            f"the activations have shape {tuple(activations.shape)}: they must be a table of finite numbers, a row an input"
        )
    a = activations.detach().float()
    mean = a.mean(0)
    scale = float((a - mean).square().sum(1).mean().sqrt())
    if not scale > 0:
        raise InputError("all activations are the same: there is nothing that a dictionary could find")
    return a, mean, scale


def check_fit(latents: int, **knobs: Any) -> None:
    """Raise InputError for wrong knobs of `fit_autoencoder`."""
    check_whole(1, latents=latents)
    for name in ("steps", "inputs"):
        if name in knobs:
            check_whole(1, **{name: knobs[name]})
    if knobs.get("k") is not None:
        check_whole(1, latents, k=knobs["k"])
    if "lr" in knobs:
        check_positive(1, lr=knobs["lr"])
    if "l1" in knobs:
        check_kind((int, float), "0 or a positive number", l1=knobs["l1"])
        check_not_negative(l1=knobs["l1"])
    if "tied" in knobs:
        tied = knobs["tied"]
        check_whole(0, 1, tied=int(tied) if isinstance(tied, bool) else tied)


class Neurons(nn.Module):
    """The neurons themselves as latents: nothing is lost, and nothing is learnt."""

    def encode(self, a: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch neurons"]:
        """Return the activations."""
        return a

    def decode(self, z: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch neurons"]:
        """Return the latents."""
        return z

    def forward(self, a: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch neurons"]:
        """Return the activations."""
        return a


@DICTIONARIES("neurons", order=0, source="baseline: one neuron, one feature", colour="grey")
def _neurons(activations: Tensor) -> nn.Module:
    """Take each neuron as a latent, as a reading of the neurons does."""
    return Neurons()


@DICTIONARIES("l1", order=1, source="arXiv:2309.08600", label="SAE, L1", check=check_fit)
def _l1(
    activations: Tensor,
    latents: int,
    seed: int,
    *,
    l1: float = 0.03,
    tied: int = 0,
    steps: int = 1500,
    lr: float = 3e-3,
) -> nn.Module:
    """Fit a ReLU autoencoder whose latents are kept small by their L1 norm."""
    return fit_autoencoder(activations, latents, seed, l1, tied=bool(tied), steps=steps, lr=lr)


@DICTIONARIES("topk", order=2, source="arXiv:2406.04093", label="SAE, TopK", check=check_fit)
def _topk(
    activations: Tensor, latents: int, seed: int, *, k: int = 6, tied: int = 0, steps: int = 1500, lr: float = 3e-3
) -> nn.Module:
    """Fit an autoencoder of which the k largest latents of each input count."""
    return fit_autoencoder(activations, latents, seed, k=k, tied=bool(tied), steps=steps, lr=lr)


@DICTIONARIES("batch_topk", order=3, source="arXiv:2412.06410", label="SAE, BatchTopK", check=check_fit)
def _batch_topk(
    activations: Tensor, latents: int, seed: int, *, k: int = 6, tied: int = 0, steps: int = 1500, lr: float = 3e-3
) -> nn.Module:
    """Fit an autoencoder of which k latents an input count on average over a batch."""
    return fit_autoencoder(activations, latents, seed, k=k, batch=True, tied=bool(tied), steps=steps, lr=lr)


def check_dictionary(name: str, latents: int) -> str:
    """Return the standard form of a method's name with knobs.

    Raises InputError for an unknown method, wrong knobs, or a package that is not installed.
    """
    check_kind(str, "the name of a method, such as 'topk(k=4)'", name=name)
    check_whole(1, latents=latents)
    member, knobs = DICTIONARIES.named(name)
    if member.package and importlib.util.find_spec(member.package) is None:
        raise InputError(
            f"the method {member.name} needs the package {member.package}: pip install 'toymodels[interp]'"
        )
    if member.check is not None:
        member.check(latents, **{**member.knobs, **knobs})
    return DICTIONARIES.canonical(name)


def fit_dictionary(name: str, activations: Float[Tensor, "inputs neurons"], latents: int, seed: int = 0) -> nn.Module:
    """Fit a dictionary by the name of its method, with knobs if it has some. Raises InputError as the method does."""
    check_dictionary(name, latents)
    check_kind(Tensor, "a tensor with a row for each input", activations=activations)
    member, knobs = DICTIONARIES.named(name)
    made: Any = member.call({"activations": activations, "latents": latents, "seed": seed}, knobs)
    if not isinstance(made, nn.Module) or not all(callable(getattr(made, part, None)) for part in ("encode", "decode")):
        raise InputError(
            f"the method {name} returned a {type(made).__name__}: it must be a module with encode and decode"
        )
    return made
