"""Independent features of unequal probability."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.core.features import (
    ENUMERATION_LIMIT,
    INPUTS,
    VALUES,
    Features,
    Inputs,
    draw_values,
    values_in_words,
    with_values,
)
from toymodels.errors import InputError, check_not_negative, check_whole


class Independent(Features):
    """Features that are active independently, each with a probability of its own."""

    def __init__(self, probabilities: Float[Tensor, " m"], values: str = "one"):
        """Take the probability of each feature. Raises InputError unless each lies strictly between 0 and 1."""
        p = probabilities.double()
        check_whole(2, m=len(p))
        wrong = ((p <= 0) | (p >= 1) | p.isnan()).nonzero().reshape(-1).tolist()
        if wrong:
            k = wrong[0]
            why = f"feature {k} would be active with probability {float(p[k]):.4g}"
            raise InputError(
                f"{why}: each must lie strictly between 0 and 1; take a smaller s, or less unequal features"
            )
        draw_values(values, (1,), torch.Generator())  # a wrong knob is named now
        self.m, self.probabilities, self.values = len(p), p, VALUES.canonical(values)
        low, high = float(p.min()), float(p.max())
        self.name = f"each of {self.m} with its own probability ({low:.3g} to {high:.3g})" + values_in_words(values)

    @property
    def n_inputs(self) -> float | int:  # type: ignore[override]
        """The number of inputs, 2^m; infinite for real values."""
        return 2**self.m if VALUES.named(self.values)[0].constant else math.inf

    def both_active(self) -> Float[Tensor, "m m"]:
        """Return the probability that two features are both active: the product of theirs."""
        both = torch.outer(self.probabilities, self.probabilities)
        return both.diagonal_scatter(self.probabilities)

    def sample(self, n: int, generator: torch.Generator) -> Inputs:
        """Draw n independent inputs, 1/n each, on the generator's device."""
        p = self.probabilities.float().to(generator.device)
        on = torch.rand(n, self.m, device=p.device, generator=generator) < p
        return with_values(Inputs.of(on.float()), self.values, generator)

    def enumerate(self, limit: int = ENUMERATION_LIMIT, device: torch.device | str = "cpu") -> Inputs:
        """List all 2^m inputs, with their probabilities. Raises InputError if they are more than `limit`."""
        self.check_enumerable(limit)
        on = (torch.arange(2**self.m)[:, None] >> torch.arange(self.m)) % 2 == 1
        shares = torch.where(on, self.probabilities, 1 - self.probabilities).prod(1)
        inputs = Inputs.of(on.float().to(device), (shares / shares.sum()).to(device), enumerated=True)
        return with_values(inputs, self.values, torch.Generator())


@INPUTS("unequal", order=11, source="derived here")
def unequal(m: int, s: int | float, values: str, *, exponent: float | int = 1.0, weights: str = "") -> Independent:
    """Make features active independently, feature k with a probability ∝ 1/(k+1)^exponent (Zipf), or ∝ a list of weights.

    s features are active in expectation. `weights` are m positive numbers with spaces between them: "unequal(weights=4 2 1 1)".
    """
    check_not_negative(exponent=exponent)
    relative = torch.arange(1, m + 1, dtype=torch.float64) ** -float(exponent)
    if weights:
        if exponent != 1:
            raise InputError("exponent has no effect beside weights: leave one of them out")
        try:
            relative = torch.tensor([float(word) for word in str(weights).split()], dtype=torch.float64)
        except ValueError:
            raise InputError(f"weights = {weights!r}: give {m} positive numbers with spaces between them") from None
        if len(relative) != m or not bool(((relative > 0) & relative.isfinite()).all()):
            raise InputError(
                f"weights are {len(relative)} numbers: give one for each of m = {m} features, all positive"
            )
    if not 0 < s < m:
        raise InputError(f"s = {s:g} features active in expectation: it must lie strictly between 0 and m = {m}")
    return Independent(s * relative / relative.sum(), values)
