"""Weighted L_p losses of sparse targets.

The loss of outputs o against targets f over inputs x with probabilities P(x) and outputs i is

    together:  ( mean_i Σ_x P(x) w_c |o_i(x) − f_i(x)|^p )^(1/p)
    apart:     Σ_v λ_v ( Σ_{x,i: f=v} P(x) w_c |…|^p / Σ_{x,i: f=v} P(x) w_c )^(1/p),   v = 0 and 1

where w_c depends only on the case c of (x, i) (for a pair of features: 00, 01, 10, 11). Without `root` the power 1/p is
left out. The gradient with respect to the outputs is written out by hand, so that no table of intermediate values is
kept, and errors are divided by the largest one before they are raised to p, so that no p over- or underflows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.errors import InputError


def case_weights(weight: str | float | int, truth: Sequence[int], probabilities: Sequence[float]) -> tuple[float, ...]:
    """The weight of each case, scaled so that the mean weight Σ_c P(c) w_c is 1.

    * a number λ: the ones weigh λ times as much as the zeros;
    * "value": ones and zeros weigh the same in total, each half;
    * "case": every case that occurs weighs the same in total.

    `truth` is the target in each case, `probabilities` the cases' probabilities. A case that never occurs weighs 0.
    Raises InputError for a number that is not positive and finite or for an unknown word.
    """
    if isinstance(weight, str):
        if weight == "value":
            share = [sum(p for p, t in zip(probabilities, truth, strict=True) if t == value) for value in (0, 1)]
            raw = [1 / share[t] if p > 0 else 0.0 for p, t in zip(probabilities, truth, strict=True)]
        elif weight == "case":
            raw = [1 / p if p > 0 else 0.0 for p in probabilities]
        else:
            raise InputError(f"unknown weight {weight!r}: give a positive number for the ones, or 'value' or 'case'")
    else:
        if not 0 < weight < float("inf"):
            raise InputError(f"the weight on the ones is {weight:g}: it must be a positive number")
        raw = [(weight if t else 1.0) if p > 0 else 0.0 for p, t in zip(probabilities, truth, strict=True)]
    mean = sum(p * w for p, w in zip(probabilities, raw, strict=True))
    return tuple(w / mean for w in raw)


def check_exponent(p: float | int) -> None:
    """Raises InputError unless 1 ≤ p ≤ 1,000 (below 1 the loss is not convex in the readoff)."""
    if not 1 <= p <= 1000:
        raise InputError(
            f"p = {p:g}: the exponent of the loss must be a number from 1 to 1,000; a minimax readoff is what p → ∞ leads to"
        )


def _largest(errors: Tensor) -> float:
    """Largest |error|, without a table of absolute values; NaN if there is one."""
    low, high = torch.aminmax(errors)
    return max(-float(low), float(high), 0.0)


def _float_power(base: float, exponent: float | int) -> float:
    """base^exponent, infinite where Python would raise OverflowError."""
    try:
        return float(base**exponent)
    except OverflowError:
        return float("inf")


def signed_power(base: Float[Tensor, "*shape"], exponent: float | int, out: Tensor) -> Float[Tensor, "*shape"]:
    """sign(base) |base|^exponent into `out`; whole exponents up to 64 by squaring and multiplying, far faster than pow."""
    whole = int(exponent)
    if exponent != whole or whole > 64:
        return torch.abs(base, out=out).pow_(exponent).copysign_(base)
    if whole == 0:
        return torch.sign(base, out=out)
    # From the highest bit down: square, and multiply where the bit is set.
    power = base
    for bit in f"{whole:b}"[1:]:
        power = torch.mul(power, power, out=out)
        if bit == "1":
            out.mul_(base)
    if power is base:
        return out.copy_(base)
    return out if whole % 2 else out.copysign_(base)


@dataclass(frozen=True)
class LpLoss:
    """One weighted L_p loss; the exponent may differ from step to step, the weights do not."""

    p: float | int
    """Exponent, any real number ≥ 1."""
    root: bool = True
    """Whether the p-th root of the mean is taken."""
    apart: bool = False
    """Whether ones and zeros are averaged apart."""
    ones: float | int = 1.0
    """λ_1, the weight on the ones' own average when averaged apart (λ_0 is 1)."""

    def __post_init__(self) -> None:
        check_exponent(self.p)

    def sums(
        self,
        errors: Float[Tensor, "batch outputs"],
        targets: Float[Tensor, "batch outputs"],
        weights: Float[Tensor, "batch outputs"],
    ) -> LossSums:
        """The sums over one block of inputs from which the loss over all blocks is made. `weights` is P(x)·w_c."""
        units = self._units(errors, targets)
        return self._sums(errors, targets, weights, self._slopes(errors, targets, weights, units), units)

    def value(self, sums: LossSums) -> float:
        """The loss, from the sums over all inputs."""
        return sum((share * self._mean(sums, v) for v, share in self._shares(sums)), 0.0)

    def gradient(
        self,
        errors: Float[Tensor, "batch outputs"],
        targets: Float[Tensor, "batch outputs"],
        weights: Float[Tensor, "batch outputs"],
        sums: LossSums,
    ) -> Float[Tensor, "batch outputs"]:
        """Derivative of the loss with respect to one block's outputs, given the sums over all inputs."""
        return self._scale(self._slopes(errors, targets, weights, sums.units), targets, sums)

    def sums_and_gradient(
        self,
        errors: Float[Tensor, "batch outputs"],
        targets: Float[Tensor, "batch outputs"],
        weights: Float[Tensor, "batch outputs"],
    ) -> tuple[LossSums, Float[Tensor, "batch outputs"]]:
        """Both at once, for a block that holds all inputs: errors are raised to a power once instead of twice."""
        units = self._units(errors, targets)
        slopes = self._slopes(errors, targets, weights, units)
        sums = self._sums(errors, targets, weights, slopes, units)
        return sums, self._scale(slopes, targets, sums)

    def _units(self, errors: Tensor, targets: Tensor) -> tuple[float, float]:
        """What errors at zeros and at ones are divided by: the largest of all, or of each group when averaged apart."""
        if not self.apart:
            return (_largest(errors),) * 2
        at_ones = errors * targets
        return _largest(errors - at_ones), _largest(at_ones)

    def _slopes(self, errors: Tensor, targets: Tensor, weights: Tensor, units: tuple[float, float]) -> Tensor:
        """P w sign(e) (|e|/unit)^(p − 1): the gradient but for a factor; times e/unit, the powers."""
        zeros, ones = (1 / unit if unit else 1.0 for unit in units)
        scaled = errors * (zeros + (ones - zeros) * targets if self.apart else zeros)
        return signed_power(scaled, self.p - 1, torch.empty_like(errors)).mul_(weights)

    def _sums(
        self, errors: Tensor, targets: Tensor, weights: Tensor, slopes: Tensor, units: tuple[float, float]
    ) -> LossSums:
        # Sums of each row in the errors' own precision, their sum in float64: short enough to lose nothing that counts.
        if not self.apart:
            total = float(torch.linalg.vecdot(slopes, errors).double().sum()) / (units[0] or 1.0)
            return LossSums(units, (total, 0.0), (float(targets.shape[1]), 1.0))
        powers, mass = [], []
        for unit, on in zip(units, (1 - targets, targets), strict=True):
            powers.append(float(torch.linalg.vecdot(slopes * on, errors).double().sum()) / (unit or 1.0))
            mass.append(float(torch.linalg.vecdot(weights, on).double().sum()))
        return LossSums(units, (powers[0], powers[1]), (mass[0], mass[1]))

    def factors(self, sums: LossSums) -> tuple[float, float]:
        """What turns P w sign(e) (|e|/unit)^(p − 1) into the loss's derivative, at zeros and at ones (one number if together)."""
        # d/do of S_v^(1/p) is S_v^(1/p − 1) · slope / N_v; without the root, p · slope / N_v.
        factor = [0.0, 0.0]
        for v, share in self._shares(sums):
            mean = sums.powers[v] / sums.mass[v]
            outer = mean ** (1 / self.p - 1) if self.root else self.p * _float_power(sums.units[v], self.p - 1)
            factor[v] = share * outer / sums.mass[v]
        return (factor[0], factor[1]) if self.apart else (factor[0], factor[0])

    def _scale(self, slopes: Tensor, targets: Tensor, sums: LossSums) -> Tensor:
        zeros, ones = self.factors(sums)
        return slopes.mul_(zeros + (ones - zeros) * targets if self.apart else zeros)

    def _shares(self, sums: LossSums) -> list[tuple[int, float]]:
        shares = [(0, 1.0), (1, self.ones)] if self.apart else [(0, 1.0)]
        return [(v, share) for v, share in shares if sums.mass[v] > 0 and sums.powers[v] != 0]

    def _mean(self, sums: LossSums, v: int) -> float:
        mean = sums.powers[v] / sums.mass[v]
        return sums.units[v] * mean ** (1 / self.p) if self.root else _float_power(sums.units[v], self.p) * mean


@dataclass(frozen=True)
class LossSums:
    """Sums of weighted powers over a block of inputs; `join` makes those over two blocks."""

    units: tuple[float, float]
    """What errors at zeros and at ones were divided by before the power was taken: the largest, all or of each group."""
    powers: tuple[float, float]
    """Σ P w (|e|/unit)^p, over zeros and over ones when averaged apart, else (all, 0)."""
    mass: tuple[float, float]
    """What the powers are divided by: Σ P w over zeros and over ones when apart, else (number of outputs, 1)."""

    @property
    def largest(self) -> float:
        """Largest |error|."""
        return max(self.units)

    def in_units(self, unit: float, p: float | int) -> LossSums:
        """The same sums in one other unit; of the loss of errors that are all 0, the sums themselves."""
        if not unit or not math.isfinite(unit):
            return self
        powers = [power * (old / unit) ** p for power, old in zip(self.powers, self.units, strict=True)]
        return LossSums((unit, unit), (powers[0], powers[1]), self.mass)

    def join(self, other: LossSums, p: float | int, apart: bool) -> LossSums:
        """The sums over both blocks, in the larger one's units."""
        units, powers = [], []
        for mine, its, my_power, its_power in zip(self.units, other.units, self.powers, other.powers, strict=True):
            unit = max(mine, its)
            units.append(unit)
            powers.append(my_power * (mine / unit) ** p + its_power * (its / unit) ** p if unit else 0.0)
        mass = (self.mass[0] + other.mass[0], self.mass[1] + other.mass[1]) if apart else self.mass
        return LossSums((units[0], units[1]), (powers[0], powers[1]), mass)
