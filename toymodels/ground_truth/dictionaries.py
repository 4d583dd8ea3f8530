"""Fit sparse dictionaries to activations: sparse autoencoders of three kinds, a transcoder, and the neurons as a baseline.

A dictionary is a torch module with `encode` (activations → latents) and `decode` (latents → activations); called, it
reconstructs. One whose attribute `reads` is "inputs" encodes what the layer reads in place of the activations. A method is a
member of `DICTIONARIES`: a function of activations, inputs (what the layer reads), latents (their number) and seed, or of some of
these, that returns a dictionary; its knobs stand behind a *. Register your own in a plugin with `@DICTIONARIES("name",
source="…")`.
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
    """A method by name: `function` fits a dictionary; its parameters are activations, inputs, latents, seed, and knobs."""

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

    def before(self, a: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch latents"]:
        """Return the latents before the ReLU."""
        weight = self.decoder if self.tied else self.encoder
        return nn.functional.linear(a / self.scale - self.decoder_bias, weight, self.encoder_bias)

    def encode(self, a: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch latents"]:
        """Return the latents, 0 or positive."""
        z = torch.relu(self.before(a))
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


class Transcoder(SparseAutoencoder):
    """z = sparse(ReLU(W_enc·x + b_enc)) of what the layer reads, x; reconstruction of the activations as in an autoencoder."""

    reads = "inputs"

    def before(self, x: Float[Tensor, "batch inputs"]) -> Float[Tensor, "batch latents"]:
        """Return the latents before the ReLU."""
        return nn.functional.linear(x, self.encoder, self.encoder_bias)


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
    resample: int = 0,
    reads: Float[Tensor, "inputs read"] | None = None,
) -> SparseAutoencoder:
    """Fit a sparse autoencoder by Adam to mean |ã − reconstruction|² + l1·Σ latents, on batches of `inputs` activations.

    Activations are divided by their root total variance, so that l1 and lr mean the same for every layer. The learning rate
    falls linearly to 0 over the last fifth; after every step the rows of the decoder are brought back to norm 1. `watch`, if
    given, is called before the first step and after every step with the number of steps done. With `resample`, up to half
    of the steps, latents that were not active in the last `resample` steps begin again (see `_begin_again`). With `reads`, what
    the layer reads for each row of activations, it is a `Transcoder`, whose encoder starts from random rows of norm 1.
    Raises InputError for activations that are no table of finite numbers or do not vary, or for wrong numbers.
    """
    check_fit(latents, l1=l1, k=k, tied=tied, steps=steps, lr=lr, inputs=inputs, resample=resample)
    if resample and reads is not None:
        raise InputError(
            "resample gives encoders the directions of activations, which a transcoder does not read: leave it out"
        )
    (a, mean, scale), generator = checked_activations(activations), seeded(seed)
    start = nn.functional.normalize(torch.randn(latents, a.shape[1], generator=generator), dim=1)
    sae = (SparseAutoencoder if reads is None else Transcoder)(start, mean, scale, k, batch, tied)
    read = a if reads is None else _checked_reads(reads, len(a))
    if reads is not None:
        rows = torch.randn(latents, read.shape[1], generator=generator)
        sae.encoder = nn.Parameter(nn.functional.normalize(rows, dim=1))
    active = torch.zeros(latents, dtype=torch.bool)
    optimiser = torch.optim.Adam(sae.parameters(), lr=lr, betas=(0.9, 0.999))
    if watch is not None:
        watch(0, sae)
    with optimiser_context(), torch.enable_grad():
        for step in range(steps):
            chosen = torch.randint(len(a), (inputs,), generator=generator)
            rows = a[chosen]
            for group in optimiser.param_groups:
                group["lr"] = lr * min(1.0, 5 * (steps - step) / steps)
            z = sae.encode(read[chosen])
            loss = ((rows - sae.decode(z)) / scale).square().sum(1).mean()
            if l1:
                loss = loss + l1 * z.sum(1).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser_step(optimiser)
            with torch.no_grad():
                sae.decoder /= sae.decoder.norm(dim=1, keepdim=True).clamp_min(1e-12)
                if resample:
                    active |= (z > 0).any(0)
                    if (step + 1) % resample == 0 and 2 * (step + 1) <= steps:
                        _begin_again(sae, ~active, a, read, optimiser, generator)
                        active[:] = False
                if watch is not None:
                    watch(step + 1, sae)
    return sae.eval().requires_grad_(False)


def _begin_again(
    sae: SparseAutoencoder, dead: Tensor, a: Tensor, read: Tensor, optimiser: Any, generator: torch.Generator
) -> None:
    """Give dead latents new weights, as in "Towards Monosemanticity" (Bricken et al. 2023), and forget their moments in Adam.

    The decoder's row is the direction of a row of `a` from its mean, drawn with a probability in proportion to its squared error;
    the encoder's row has the same direction and a fifth of the mean norm of the rows of living latents; the bias is 0.
    """
    count = int(dead.sum())
    if not count:
        return
    error = (a - sae(read)).square().sum(1)
    chosen = torch.multinomial(error.square().clamp_min(1e-30), count, replacement=True, generator=generator)
    alive = sae.encoder[~dead].norm(dim=1)
    length = 0.2 * (float(alive.mean()) if len(alive) else 1.0)
    new = nn.functional.normalize(a[chosen] / sae.scale - sae.decoder_bias, dim=1)
    for parameter, rows in ((sae.decoder, new), (sae.encoder, length * new), (sae.encoder_bias, torch.zeros(count))):
        parameter[dead] = rows
        for moment in ("exp_avg", "exp_avg_sq"):
            optimiser.state[parameter][moment][dead] = 0


def _checked_reads(reads: Any, rows: int) -> Tensor:
    check_kind(Tensor, "a tensor with a row for each input", inputs=reads)
    if reads.ndim != 2 or len(reads) != rows or not bool(reads.isfinite().all()):
        raise InputError(
            f"the inputs have shape {tuple(reads.shape)}: they must be a table of finite numbers, a row for each of the {rows:,} "
            "rows of activations"
        )
    return reads.detach().float()


def _check_table(activations: Any) -> None:
    check_kind(Tensor, "a tensor with a row for each input", activations=activations)
    real = activations.is_floating_point() and activations.device.type == "cpu"
    if activations.ndim != 2 or not activations.numel() or not real or not bool(activations.isfinite().all()):
        kind = f"{activations.dtype} on {activations.device}".removeprefix("torch.")
        raise InputError(
            f"the activations have shape {tuple(activations.shape)} ({kind}): they must be a table of finite numbers on the "
            "CPU, in floating point, a row an input"
        )


def checked_activations(
    activations: Float[Tensor, "inputs neurons"],
) -> tuple[Float[Tensor, "inputs neurons"], Float[Tensor, " neurons"], float]:
    """Return activations in float32, their mean and the root of their total variance, the unit in which dictionaries are fitted.

    Raises InputError for activations that are no table of finite numbers, or do not vary.
    """
    _check_table(activations)
    a = activations.detach().float()
    mean = a.mean(0)
    scale = float((a - mean).square().sum(1).mean().sqrt())
    if not scale > 1e-6 * float(a.abs().max()):  # what rounding leaves of equal rows
        raise InputError("all activations are the same: there is nothing that a dictionary could find")
    return a, mean, scale


def check_fit(
    latents: int, *, l1: Any = 0.0, k: Any = None, tied: Any = False, steps: Any = 1, lr: Any = 1.0, inputs: Any = 1,
    resample: Any = 0,
) -> None:  # fmt: skip
    """Raise InputError for wrong knobs of `fit_autoencoder`; those that are left out are right."""
    check_whole(1, latents=latents, steps=steps, inputs=inputs)
    if k is not None:
        check_whole(1, latents, k=k)
    check_positive(1, lr=lr)
    check_not_negative(l1=l1)
    check_whole(0, 1, tied=int(tied) if isinstance(tied, bool) else tied)
    if resample:
        check_whole(1, resample=resample)
        if tied:
            raise InputError("resample gives new weights to encoder and decoder: leave tied out")


class Neurons(nn.Module):
    """The neurons themselves as latents: nothing is lost, and nothing is learnt."""

    def forward(self, a: Float[Tensor, "batch neurons"]) -> Float[Tensor, "batch neurons"]:
        """Return the activations."""
        return a

    encode = decode = forward


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


@DICTIONARIES("transcoder", order=4, source="arXiv:2406.11944", label="transcoder, L1", check=check_fit)
def _transcoder(
    activations: Tensor,
    inputs: Tensor,
    latents: int,
    seed: int,
    *,
    l1: float = 0.1,
    steps: int = 1500,
    lr: float = 3e-3,
) -> nn.Module:
    """Fit a ReLU dictionary that reads what the layer reads and reconstructs the layer's activations."""
    return fit_autoencoder(activations, latents, seed, l1, steps=steps, lr=lr, reads=inputs)


@DICTIONARIES("transcoder_topk", order=5, source="arXiv:2406.11944", label="transcoder, TopK", check=check_fit)
def _transcoder_topk(
    activations: Tensor, inputs: Tensor, latents: int, seed: int, *, k: int = 6, steps: int = 1500, lr: float = 3e-3
) -> nn.Module:
    """Fit a transcoder of which the k largest latents of each input count."""
    return fit_autoencoder(activations, latents, seed, k=k, steps=steps, lr=lr, reads=inputs)


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


def fit_dictionary(
    name: str,
    activations: Float[Tensor, "inputs neurons"],
    latents: int,
    seed: int = 0,
    inputs: Float[Tensor, "inputs read"] | None = None,
) -> nn.Module:
    """Fit a dictionary by the name of its method, with knobs if it has some.

    `inputs` are what the layer reads, a row for each row of activations; only methods that read them need them.
    Raises InputError as the method does, and for a method that lacks inputs.
    """
    check_dictionary(name, latents)
    _check_table(activations)
    member, knobs = DICTIONARIES.named(name)
    if inputs is None and "inputs" in member.parameters:
        raise InputError(
            f"the method {member.name} reads what the layer reads: give it as inputs, a row for each input"
        )
    offered = {"activations": activations, "inputs": inputs, "latents": latents, "seed": seed}
    made: Any = member.call(offered, knobs)
    if not isinstance(made, nn.Module) or not all(callable(getattr(made, part, None)) for part in ("encode", "decode")):
        raise InputError(
            f"the method {name} returned a {type(made).__name__}: it must be a module with encode and decode"
        )
    return made
