"""Train several networks side by side, one for each seed: y = W_out ReLU(W_in x), no biases, on y = f(x) + M x.

Statements about trained networks need several seeds. As one stack of matrices they cost little more than one network. Each seed
has its own initial weights and its own inputs, so that an interval over seeds covers both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.compressed.unfinished import Unfinished
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import derive_seed, seeded
from toymodels.errors import InputError, check_choice, check_different, check_not_negative, check_positive, check_whole
from toymodels.parallel.progress import Bar, say
from toymodels.tasks.pointwise import FUNCTIONS
from toymodels.theory.compressed import check_power, check_probability, check_sizes

INITIAL = {"uniform": (0.1, 0.15), "kaiming": (None, None)}
"""Half-widths of the uniform distributions of W_in and W_out: those of arXiv:2607.04800; None: 1/√inputs (PyTorch's own)."""

_LONG = 10_000
"""Steps from which a training writes lines to a log of its own, beside those of the cases."""


@dataclass(frozen=True)
class Recipe:
    """How the networks of a stack are trained; defaults: arXiv:2607.04800 at a reduced size."""

    n: int = 100
    """Features, and outputs."""
    d: int = 50
    """Neurons, n at most."""
    p: float | int = 0.02
    """Probability that a feature is active; its value is then uniform on [−1, 1]."""
    occupied: bool = False
    """Draw only inputs with an active feature. On the others a network without biases has no error and no gradient: for small p
    most of a batch would be spent on them."""
    q: float | int = 4.0
    """Exponent of the loss, the mean of |error|^q over inputs and outputs; 1 to 64."""
    function: str = "relu"
    """f: relu, abs, square or copy."""
    tied: bool = False
    """Whether W_out is c·pinv(W_in), with a trained number c, in place of weights of its own."""
    sigma: float | int = 0.0
    """Start of σ if the targets are f(x) + σ M x with a number σ that is trained with the weights, weight decay included; 0: M
    stays as it is given."""
    steps: int = 4000
    """Steps of Adam."""
    until: int | None = None
    """End after so many of them, with the learning rate that they have there; None: after all."""
    batch: int = 1024
    """Inputs drawn for each step and seed."""
    lr: float | int = 0.01
    """Learning rate at the start; it falls to 0 as a cosine."""
    weight_decay: float | int = 0.0
    """Decoupled weight decay (AdamW) per step, times the learning rate."""
    initial: Literal["uniform", "kaiming"] = "uniform"
    """uniform: W_in U(−0.1, 0.1), W_out U(−0.15, 0.15); kaiming: PyTorch's default."""

    def __post_init__(self) -> None:
        check_sizes(self.n, self.d)
        check_probability(self.p)
        check_power(self.q)
        check_choice(FUNCTIONS, function=self.function)
        check_choice(INITIAL, initial=self.initial)
        check_whole(1, steps=self.steps, batch=self.batch)
        if self.until is not None:
            check_whole(1, self.steps, until=self.until)
        check_positive(most=100, lr=self.lr)
        check_not_negative(weight_decay=self.weight_decay, sigma=self.sigma)

    def draw(self, inputs: int, generators: Sequence[torch.Generator]) -> Float[Tensor, "stack inputs n"]:
        """Draw inputs for each network of a stack, each from its own generator."""
        uniform = torch.empty(len(generators), inputs, self.n)
        for rows, generator in zip(uniform, generators, strict=True):
            torch.rand(inputs, self.n, generator=generator, out=rows)
        # u < p says that the feature is active, and u/p is then uniform on [0, 1): one draw serves for both.
        active = uniform < self.p
        if self.occupied:
            first = torch.stack([self._first(inputs, generator) for generator in generators])[..., None]
            place = torch.arange(self.n)
            active = (active & (place > first)) | (place == first)
            uniform = torch.where(place == first, uniform * self.p, uniform)
        return uniform.mul_(2 / self.p).sub_(1).mul_(active)

    def _first(self, inputs: int, generator: torch.Generator) -> Int[Tensor, " inputs"]:
        """Draw the first active feature, given that there is one: P(j) is (1 − p)^j p over 1 − (1 − p)^n."""
        odds = self.p * (1 - self.p) ** torch.arange(self.n, dtype=torch.float64)
        uniform = torch.rand(inputs, dtype=torch.float64, generator=generator)
        return torch.searchsorted(odds.cumsum(0) / odds.sum(), uniform, right=True).clamp(max=self.n - 1)


@dataclass(frozen=True)
class Stack:
    """Networks y = W_out ReLU(W_in x) of the same size."""

    w_in: Float[Tensor, "stack d n"]
    w_out: Float[Tensor, "stack n d"]
    sigma: Float[Tensor, " stack"] | None = None
    """The trained σ of each; None if it was not trained."""

    def __len__(self) -> int:
        return len(self.w_in)

    def __call__(self, x: Float[Tensor, "stack inputs n"]) -> Float[Tensor, "stack inputs n"]:
        """Compute the outputs of each network for its own inputs."""
        return torch.relu(x @ self.w_in.mT) @ self.w_out.mT

    def network(self, index: int) -> Network:
        """Return one of the networks, with biases of 0."""
        return network(self.w_in[index], self.w_out[index], "trained")


def network(w_in: Float[Tensor, "d n"], w_out: Float[Tensor, "n d"], origin: str = "given") -> Network:
    """Make the network y = W_out ReLU(W_in x), with biases of 0 that are not trained."""
    layer = FirstLayer(w_in.detach().clone(), torch.zeros(w_in.shape[0], dtype=w_in.dtype), "relu", origin)
    made = Network(layer, LinearReadoff(w_out.detach().clone(), torch.zeros(w_out.shape[0], dtype=w_out.dtype)))
    return made.requires_grad_(False)


def initial_stack(recipe: Recipe, seeds: Sequence[int]) -> Stack:
    """Draw the weights that training starts from."""

    def drawn(rows: int, columns: int, half: float | None, generator: torch.Generator) -> Tensor:
        half = 1 / math.sqrt(columns) if half is None else half
        return half * (2 * torch.rand(rows, columns, generator=generator) - 1)

    first, second = INITIAL[recipe.initial]
    matrices = []
    for seed in seeds:
        generator = seeded(derive_seed(seed, "trained layer"))
        matrices.append((drawn(recipe.d, recipe.n, first, generator), drawn(recipe.n, recipe.d, second, generator)))
    return Stack(torch.stack([m[0] for m in matrices]), torch.stack([m[1] for m in matrices]))


def train_stack(
    recipe: Recipe,
    seeds: Sequence[int],
    mixing: Float[Tensor, "stack n n"] | None = None,
    start: Stack | None = None,
) -> Stack:
    """Train a network for each seed, and return them.

    `mixing` holds a matrix M for each; `start` are weights to go on from. In a block of `kept_in` a training that was stopped
    goes on where it was, and ends at the same weights.
    Raises InputError for arguments that do not fit, ArithmeticError if a weight is no longer finite.
    """
    check_different("seed", list(seeds), seeds=[str(seed) for seed in seeds])
    for seed in seeds:
        check_whole(0, seed=seed)
    shape = (len(seeds), recipe.n, recipe.n)
    if mixing is not None and (mixing.shape != shape or not bool(mixing.isfinite().all())):
        raise InputError(
            f"mixing matrices of shape {tuple(mixing.shape)}: they must be {shape}, one a seed, and finite"
        )
    if start is not None and start.w_in.shape != (len(seeds), recipe.d, recipe.n):
        raise InputError(
            f"weights of shape {tuple(start.w_in.shape)}: they must fit {(len(seeds), recipe.d, recipe.n)}"
        )
    if recipe.sigma and mixing is None:
        raise InputError(f"sigma = {recipe.sigma}: it is the factor of a mixing matrix, and there is none; name mixing")
    begin = initial_stack(recipe, seeds) if start is None else start
    w_in = begin.w_in.clone().requires_grad_()
    second = torch.ones(len(seeds), 1, 1) if recipe.tied else begin.w_out.clone()
    second.requires_grad_()
    sigma = torch.full((len(seeds), 1, 1), float(recipe.sigma), requires_grad=True) if recipe.sigma else None
    kind = torch.optim.AdamW if recipe.weight_decay else torch.optim.Adam
    parameters = [w_in, second] if sigma is None else [w_in, second, sigma]
    optimiser = kind(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    generators = [seeded(derive_seed(seed, "batches")) for seed in seeds]
    function = FUNCTIONS[recipe.function]

    def stack() -> Stack:
        made = None if sigma is None else sigma.detach().flatten()
        return Stack(w_in, second * _pinv(w_in) if recipe.tied else second, made)

    kept = Unfinished(recipe, list(seeds), mixing, begin.w_in, begin.w_out)
    if (state := kept.load()) is not None:
        with torch.no_grad():
            for parameter, value in zip(parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        optimiser.load_state_dict(state["optimiser"])
        for generator, drawn in zip(generators, state["generators"], strict=True):
            generator.set_state(drawn)
    first, last = 0 if state is None else state["step"], recipe.until or recipe.steps
    if first:
        say(f"training: goes on after step {first:,} of {last:,}")
    with Bar("training", last, "step", position=1, in_files=last >= _LONG) as bar:
        bar.skip(first)
        for step in range(first, last):
            optimiser.param_groups[0]["lr"] = recipe.lr * (1 + math.cos(math.pi * step / recipe.steps)) / 2
            x = recipe.draw(recipe.batch, generators)
            target = function(x)
            if mixing is not None:
                target = target + x @ (mixing if sigma is None else sigma * mixing).mT
            errors = stack()(x) - target
            optimiser.zero_grad(set_to_none=True)
            # The gradient of the mean of |error|^q by the errors, of each network on its own.
            errors.backward(slope(errors.detach(), recipe.q).div_(errors[0].numel()))
            optimiser.step()
            bar.to(step + 1)
            if kept.due or (kept.written and step + 1 == last):  # what follows the training may be stopped, too
                kept.save(
                    {
                        "step": step + 1, "parameters": parameters, "optimiser": optimiser.state_dict(),
                        "generators": [generator.get_state() for generator in generators],
                    }
                )  # fmt: skip
    trained = stack()
    if not bool(trained.w_in.isfinite().all() and trained.w_out.isfinite().all()):
        raise ArithmeticError("a weight is no longer finite: take a smaller lr or q")
    return Stack(trained.w_in.detach(), trained.w_out.detach(), trained.sigma)


def slope(errors: Tensor, q: float | int) -> Tensor:
    """Compute the derivative of |e|^q by e, q |e|^{q−1} sign(e); for whole q by products, which cost less than a power."""
    if q == 1:
        return errors.sign()
    if q not in (2, 3, 4, 8):
        return errors.abs().pow_(q - 1).mul_(q).copysign_(errors)
    if q == 2:
        return errors * 2
    if q == 3:
        return (errors.abs() * errors).mul_(3)
    square = errors * errors
    if q == 4:
        return square.mul_(errors).mul_(4)
    return (square * square).mul_(square).mul_(errors).mul_(8)


def _pinv(w: Float[Tensor, "stack d n"]) -> Float[Tensor, "stack n d"]:
    """Compute the pseudo-inverse of matrices of full row rank, Wᵀ(W Wᵀ)⁻¹, which is cheap to differentiate."""
    return w.mT @ torch.linalg.inv(w @ w.mT)
