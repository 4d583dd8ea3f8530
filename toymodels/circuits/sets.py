"""Random sets of units, one for each thing that is to be written or read, and the readoff that contrasts a set with the rest."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from toymodels.errors import InputError


def default_size(n: int, s: int) -> int:
    """¾·√(n/s) units for a set, 1 to n − 1, where n units carry s active sets. Raises InputError for n < 2 or s < 1.

    Derived here: a unit outside a set of h is hit with probability about q = s·h/n, so what is read has the standard
    deviation √(q/h) = √(s/n) whatever h is. At h = √(n/s) one hit, 1/h, and the bias q are that size too; smaller sets see
    rarer and larger errors, larger sets a larger bias and noisier units (noise ∝ √h). The factor ¾ is measured: corrected
    circuits (circuits.depth, s = 3) went deeper with 1/2 to 4/5 than with 1 at d = 2,000 and 4,000 neurons, and 1/2 failed
    in the first layers at d = 1,000.
    """
    if s < 1:
        raise InputError(f"s = {s} active features: there must be at least 1")
    check_size(1, n)
    return min(max(round(0.75 * math.sqrt(n / s)), 1), n - 1)


def check_size(size: int, n: int) -> None:
    """Raises InputError unless there are at least 2 units and 1 ≤ size ≤ n − 1: a set and something to contrast it with."""
    if n < 2:
        raise InputError(f"{n} units cannot hold a set and something to contrast it with: at least 2 are needed")
    if not 1 <= size < n:
        raise InputError(
            f"a set of {size} among {n} units: it must have from 1 to {n - 1}, so that some are left outside"
        )


def random_sets(count: int, size: int, n: int, generator: torch.Generator) -> Bool[Tensor, "count n"]:
    """Independent uniform sets of exactly `size` of n units, as rows. Raises InputError as `check_size`.

    Of fixed size rather than each unit with probability p = size/n: no set is empty, and none is small by chance.
    """
    check_size(size, n)
    chosen = torch.rand(count, n, generator=generator).topk(size, dim=1).indices
    return torch.zeros(count, n, dtype=torch.bool).scatter_(1, chosen, True)


def contrast(members: Bool[Tensor, "count n"], rest: Bool[Tensor, "count n"]) -> Float[Tensor, "count n"]:
    """Readoff rows: mean over the members minus mean over the rest (derived here).

    A unit's mean load by other sets is the same inside and outside of a set, so what is read of a set that is off has
    mean 0 over the draw of the sets, for any number of active features: no knowledge of s is needed to debias it.
    """
    inside, outside = members.float(), rest.float()
    return inside / inside.sum(1, keepdim=True) - outside / outside.sum(1, keepdim=True)
