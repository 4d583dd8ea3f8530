"""Features that fire together, in couples or larger groups."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from toymodels.core.features import (
    ENUMERATION_LIMIT,
    INPUTS,
    VALUES,
    Features,
    Inputs,
    SparseFeatures,
    count_inputs,
    draw_values,
    values_in_words,
    with_values,
)
from toymodels.errors import InputError, check_whole

BASES = ("independent", "at_most", "exactly")
"""Which groups may be on at the same time."""


class Groups(Features):
    """Groups of consecutive features, on as `base` says; each feature of a group that is on is active, or not, for itself."""

    def __init__(self, base: SparseFeatures, size: int, together: float | int = 1.0, values: str = "one"):
        """Take the distribution of the groups that are on; features of one that is on are active with probability `together`.

        Raises InputError for a size below 2, or a probability that is not above 0 and at most 1.
        """
        check_whole(2, size=size)
        if not 0 < together <= 1:
            raise InputError(
                f"together = {together:g}: a probability above 0, at most 1, that a feature fires with its group"
            )
        draw_values(values, (1,), torch.Generator())  # a wrong knob is named now
        self.base, self.size, self.together, self.values = base, size, float(together), VALUES.canonical(values)
        self.m = base.m * size
        noun = "couples" if size == 2 else f"groups of {size}"
        fires = "" if together == 1 else f" (and each of their features with probability {together:g})"
        self.name = base.name.replace(f" of {base.m}", f" of {base.m} {noun}", 1) + fires + values_in_words(values)
        patterns = torch.tensor(list(itertools.product((False, True), repeat=size))[1:])
        odds = self.together ** patterns.sum(1).double() * (1 - self.together) ** (~patterns).sum(1).double()
        self._patterns, self._odds = patterns[odds > 0], odds[odds > 0]
        """What an on group may show, apart from nothing, and with which probability."""

    @property
    def _shown(self) -> SparseFeatures:
        """The distribution of the groups that show an active feature: some of those that are on may not."""
        counts = np.array(self.base.counts)
        if self.together < 1:
            from scipy import stats  # half a second, which other sources need not wait for

            number = np.arange(len(counts))
            thinned: np.ndarray = np.asarray(stats.binom.pmf(number, number[:, None], float(self._odds.sum())))
            counts = thinned.T @ counts
        return SparseFeatures(self.base.m, tuple((counts / counts.sum()).tolist()), self.base.name)

    @property
    def n_inputs(self) -> float | int:  # type: ignore[override]
        """The number of inputs of positive probability: exact up to 10^30, else a lower bound; infinite for real values."""
        if not VALUES.named(self.values)[0].constant:
            return math.inf
        return count_inputs(self.base.m, self._shown.counts, len(self._patterns))

    def both_active(self) -> Float[Tensor, "m m"]:
        """Return the probability that two features are both active: higher in a group than in two."""
        _, _, single, both = self.base.case_probabilities()
        on = single + both
        group = torch.arange(self.m) // self.size
        table = torch.full((self.m, self.m), both, dtype=torch.float64)
        table[group[:, None] == group] = on
        return (table * self.together**2).fill_diagonal_(on * self.together)

    def sample(self, n: int, generator: torch.Generator) -> Inputs:
        """Draw n independent inputs, 1/n each, on the generator's device."""
        on = self.base.sample(n, generator).dense().bool().repeat_interleave(self.size, 1)
        if self.together < 1:
            on &= torch.rand(on.shape, device=on.device, generator=generator) < self.together
        return with_values(Inputs.of(on.float()), self.values, generator)

    def enumerate(self, limit: int = ENUMERATION_LIMIT, device: torch.device | str = "cpu") -> Inputs:
        """List every input of positive probability, with its probability. Raises InputError if they are more than `limit`."""
        self.check_enumerable(limit)
        sets = self._shown.enumerate(limit)
        number = (sets.indices < self.base.m).sum(1)
        parts: list[Bool[Tensor, "inputs m"]] = []
        shares: list[Float[Tensor, " inputs"]] = []
        conditional = self._odds / self._odds.sum()
        for k in number.unique().tolist():
            groups = sets.indices[number == k][:, :k]
            choices = torch.cartesian_prod(*[torch.arange(len(self._patterns))] * k).reshape(-1, k) if k else groups[:1]
            rows = torch.arange(len(groups) * len(choices))
            of, chosen = rows // len(choices), choices[rows % len(choices)]
            x = torch.zeros(len(rows), self.base.m, self.size, dtype=torch.bool)
            for position in range(k):
                x[rows, groups[of, position]] = self._patterns[chosen[:, position]]
            parts.append(x.flatten(1))
            shares.append(sets.probabilities[number == k][of] * conditional[chosen].prod(1))
        inputs = Inputs.of(torch.cat(parts).float().to(device), torch.cat(shares).to(device), enumerated=True)
        return with_values(inputs, self.values, torch.Generator())


@INPUTS("couples", order=10, source="derived here")
def couples(
    m: int, s: int | float, values: str, *, size: int = 2, together: float | int = 1.0, groups: str = "independent"
) -> Groups:
    """Make consecutive features fire together: couples, or groups of `size`; s is active in expectation, or at most, or exactly.

    `groups` says which are on: independent (s features are active in expectation), at_most or exactly (s/size groups). Each
    feature of a group that is on is active with probability `together`.
    """
    check_whole(2, size=size)
    if groups not in BASES:
        raise InputError(f"groups = {groups!r}: which groups are on is one of {', '.join(BASES)}")
    if m % size or m < 2 * size:
        raise InputError(
            f"m = {m} features are no groups of {size}: m must be a multiple of {size}, from {2 * size} up"
        )
    number = m // size
    if groups == "independent":
        if not 0 < s < m * together:
            most = f"strictly between 0 and m·together = {m * together:g}"
            raise InputError(f"s = {s:g} features active in expectation: it must lie {most}")
        return Groups(SparseFeatures.independent(number, s / (m * together)), size, together, values)
    if s != int(s) or s % size or not size <= s <= m:
        raise InputError(
            f"s = {s:g} active features in groups of {size}: s must be a multiple of {size}, at most m = {m}"
        )
    make = SparseFeatures.at_most if groups == "at_most" else SparseFeatures.exactly
    return Groups(make(number, int(s) // size), size, together, values)
