"""Compute losses of sparse targets, as functions that autograd differentiates.

The loss of outputs o against targets f, over inputs x with probabilities P(x) and outputs i, is

    ( mean_i Σ_x P(x) w_c |o_i(x) − f_i(x)|^p )^(1/p)

where w_c depends only on the case c of (x, i) (for a pair of features: 00, 01, 10, 11). Without `root` the power 1/p is left
out. Errors are divided by the largest one before they are raised to p, so that no power overflows or vanishes.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.core.dispatch import dispatched
from toymodels.core.features import Inputs
from toymodels.core.network import Network
from toymodels.core.tasks import Task
from toymodels.errors import InputError
from toymodels.registry import Member, Registry, plugin_failures

Table = Float[Tensor, "batch outputs"]

BLOCK = 2**25
"""Inputs × outputs that are held at once; more are processed in blocks of inputs."""


class Loss(ABC):
    """A loss that is a function of sums over inputs and outputs, so that inputs can be processed in blocks."""

    @abstractmethod
    def sums(
        self, errors: Table, targets: Table, weights: Table, units: Float[Tensor, " groups"]
    ) -> Float[Tensor, " sums"]:
        """Return the sums over some inputs. `weights` are P(x)·w_c, `units` those of all inputs."""

    @abstractmethod
    def value(self, sums: Float[Tensor, " sums"], units: Float[Tensor, " groups"], n_outputs: int) -> Float[Tensor, ""]:
        """Return the loss, from the sums over all inputs."""

    def units(self, errors: Table, targets: Table) -> Float[Tensor, " groups"]:
        """Return the largest |error| in each group that is averaged separately: here in the single group of all errors."""
        return errors.detach().abs().amax().reshape(1)

    def __call__(self, errors: Table, targets: Table, weights: Table) -> Float[Tensor, ""]:
        """Return the loss of errors on all inputs at once."""
        units = self.units(errors, targets)
        return self.value(self.sums(errors, targets, weights, units), units, errors.shape[-1])


@dataclass(frozen=True)
class LpLoss(Loss):
    """The weighted L_p loss, defined at the top of this module."""

    p: float | int
    """Exponent, any real number from 1 to 1,000."""
    root: bool = True
    """Whether the p-th root of the mean is taken."""

    def __post_init__(self) -> None:
        check_exponent(self.p)

    def sums(self, errors: Tensor, targets: Tensor, weights: Tensor, units: Tensor) -> Tensor:
        """Return Σ P w (|e|/unit)^p."""
        return (weights * _relative(errors, units) ** self.p).sum().reshape(1)

    def value(self, sums: Tensor, units: Tensor, n_outputs: int) -> Tensor:
        """Return unit · mean^(1/p), or unit^p · mean. Errors that are all 0 have a gradient of 0."""
        mean, unit = sums[0] / n_outputs, units[0]
        if not self.root:
            return unit**self.p * mean
        return unit * torch.where(mean > 0, mean, 1) ** (1 / self.p) * (mean > 0)


@dataclass(frozen=True)
class ApartLoss(Loss):
    """Zeros and ones averaged separately: L_p over the targets that are 0, plus λ times L_p over the others."""

    p: float | int
    root: bool = True
    ones: float | int = 1.0
    """λ."""

    def __post_init__(self) -> None:
        check_exponent(self.p)

    def units(self, errors: Tensor, targets: Tensor) -> Tensor:
        """Return the largest |error| of zeros and of ones: with a common unit, high powers of the smaller would vanish."""
        size = errors.detach().abs()
        return torch.stack([torch.where(group, size, 0).amax() for group in (targets == 0, targets != 0)])

    def sums(self, errors: Tensor, targets: Tensor, weights: Tensor, units: Tensor) -> Tensor:
        """Return Σ P w (|e|/unit)^p and Σ P w, over zeros and over ones."""
        groups = zip((targets == 0, targets != 0), units, strict=True)
        parts = [(weights * group, torch.where(group, _relative(errors, unit), 0)) for group, unit in groups]
        return torch.stack([part for w, size in parts for part in ((w * size**self.p).sum(), w.sum())])

    def value(self, sums: Tensor, units: Tensor, n_outputs: int) -> Tensor:
        """Return the two means of the powers, each with its root, added up."""
        lp = LpLoss(self.p, self.root)
        zeros, ones = (
            lp.value((power / torch.where(mass > 0, mass, 1)).reshape(1), unit.reshape(1), 1)
            for (power, mass), unit in zip(sums.reshape(2, 2), units, strict=True)
        )
        return zeros + self.ones * ones


def _relative(errors: Tensor, unit: Tensor) -> Tensor:
    return errors.abs() / torch.where(unit > 0, unit, 1)


@dataclass(frozen=True)
class ElementwiseLoss(Loss):
    """The weighted mean of a function of each error, such as Huber's."""

    function: Callable[[Tensor], Tensor]

    def sums(self, errors: Tensor, targets: Tensor, weights: Tensor, units: Tensor) -> Tensor:
        """Return Σ P w function(e)."""
        return (weights * self.function(errors)).sum().reshape(1)

    def value(self, sums: Tensor, units: Tensor, n_outputs: int) -> Tensor:
        """Return the mean over outputs."""
        return sums[0] / n_outputs


@dataclass(frozen=True, kw_only=True)
class LossMember(Member):
    """A loss by name: `function` maps a tensor of errors to a tensor of the same shape, and its weighted mean is the loss.

    A function with the parameter p (and root, ones) instead of errors returns a `Loss`, and gets the settings of these names.
    """

    @property
    def follows_p(self) -> bool:
        """Whether the settings p and root have an effect on it."""
        return "p" in self.parameters


LOSSES = Registry("loss", LossMember)
"""Losses by name."""


@LOSSES("lp", order=0, source="Mendel et al. 2024, comments")
def _lp(p: float, root: bool) -> LpLoss:
    """Average w |error|^p over zeros and ones together."""
    return LpLoss(p, root)


@LOSSES("lp_apart", order=1, source="Mendel et al. 2024, comments")
def _lp_apart(p: float, root: bool, ones: float) -> ApartLoss:
    """Average w |error|^p over zeros and over ones separately, and add the two."""
    return ApartLoss(p, root, ones)


def make_loss(name: str, p: float | int, root: bool, ones: float | int = 1.0) -> Loss:
    """Make a loss by name, with knobs if it has some ("huber(delta=0.1)"). Raises InputError for an unknown one."""
    member, knobs = LOSSES.named(name)
    if member.follows_p:
        loss: Loss = member.call({"p": p, "root": root, "ones": ones}, knobs)
        return loss
    function = functools.partial(member.function, **knobs)
    if member.plugin is not None:
        errors = torch.linspace(-1, 1, 3)
        with plugin_failures(f"{name} of "):
            values = function(errors)
        if not isinstance(values, Tensor) or values.shape != errors.shape or not bool(values.isfinite().all()):
            raise InputError(f"the loss {name} must map a tensor of errors to finite numbers of the same shape")
    return ElementwiseLoss(function)


def case_weights(
    weight: str | float | int, truth: Sequence[int] | None, probabilities: Sequence[float]
) -> tuple[float, ...]:
    """Return the weight of each case, scaled so that the mean weight Σ_c P(c) w_c is 1.

    * "case": every input case has the same total weight, and cases that cannot occur have none;
    * "value": ones and zeros have the same total weight;
    * a number λ: a one weighs λ times as much as a zero.

    `truth` is the target of each case, or None if targets do not depend on it alone: then only "case" and 1 are allowed.
    Raises InputError for another word, or a number that is not positive.
    """
    if truth is None and weight not in ("case", 1):
        raise InputError(
            f"weight = {weight}: targets that are real numbers have no zeros and ones to weigh: take case, or 1 for no weights"
        )
    values = truth or (0,) * len(probabilities)
    if weight == "value":
        share = [sum(p for p, v in zip(probabilities, values, strict=True) if v == value) for value in (0, 1)]
        raw = [1 / share[v] if p > 0 else 0.0 for p, v in zip(probabilities, values, strict=True)]
    elif weight == "case":
        raw = [1 / p if p > 0 else 0.0 for p in probabilities]
    elif isinstance(weight, str):
        raise InputError(f"unknown weight {weight!r}: give a positive number for the ones, or 'value' or 'case'")
    else:
        if not 0 < weight < float("inf"):
            raise InputError(f"the weight on the ones is {weight:g}: it must be a positive number")
        raw = [(weight if v else 1.0) if p > 0 else 0.0 for p, v in zip(probabilities, values, strict=True)]
    mean = sum(p * w for p, w in zip(probabilities, raw, strict=True))
    return tuple(w / mean for w in raw)


def check_exponent(p: float | int) -> None:
    """Raise InputError unless 1 ≤ p ≤ 1,000 (below 1 the loss is not convex in the readoff)."""
    if not 1 <= p <= 1000:
        raise InputError(
            f"p = {p:g}: the exponent of the loss must be a number from 1 to 1,000; a minimax readoff is what p → ∞ leads to"
        )


@dataclass(frozen=True)
class LossValue:
    """A loss and the largest |error|: numbers, or tensors on a device that may still compute them."""

    value: Float[Tensor, ""] | float
    largest: Float[Tensor, ""] | float


@dispatched
def loss_and_gradients(
    network: Network,
    task: Task,
    inputs: Inputs,
    loss: Loss,
    weights: Sequence[float],
    sample: Int[Tensor, " chosen"] | None = None,
    precise: bool = False,
) -> LossValue:
    """Add the loss's gradients to the network's parameters, and return the loss over the given inputs.

    `weights` are those of the cases. With a `sample` of outputs the loss is an unbiased estimate of that over all outputs:
    outputs in the last case (for pairs: both features on), which are rare, are all counted; in the other cases the sampled
    outputs stand for all. Gradients of the readoff are then sparse. `precise` asks for the loss to the last digit of the
    parameters' precision, because a line search compares losses that hardly differ.
    """
    dtype = next(network.readoff.parameters()).dtype
    blocks = list(inputs.blocks(max(1, BLOCK // task.n_outputs)))

    def parts(rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        x = inputs.dense(rows, dtype)
        targets = task.targets(x)
        shares = task.by_case(x, weights) * inputs.probabilities[rows, None].to(dtype)
        if sample is not None:
            stands_for = torch.zeros(task.n_outputs, dtype=dtype, device=x.device)
            stands_for[sample] = task.n_outputs / len(sample)
            last = task.cases(x) == len(task.case_labels) - 1
            shares = shares * torch.where(last, 1, stands_for)
        return network(x) - targets, targets, shares

    if len(blocks) == 1:
        errors, targets, shares = parts(blocks[0])
        units = loss.units(errors, targets)
        value = loss.value(loss.sums(errors, targets, shares, units), units, task.n_outputs)
        value.backward()
    else:  # the loss is a function of sums over all inputs, so these must be known before a block can be differentiated
        with torch.no_grad():
            units = torch.stack([loss.units(*parts(rows)[:2]) for rows in blocks]).amax(0)
            sums = torch.stack([loss.sums(*parts(rows), units) for rows in blocks]).sum(0)
        sums.requires_grad_()
        value = loss.value(sums, units, task.n_outputs)
        (factors,) = torch.autograd.grad(value, sums)
        for rows in blocks:
            (factors @ loss.sums(*parts(rows), units)).backward()
    if sample is not None:
        for parameter in network.readoff.parameters():
            if parameter.grad is not None:
                parameter.grad = parameter.grad.to_sparse(1)
    return LossValue(value.detach(), units.amax())
