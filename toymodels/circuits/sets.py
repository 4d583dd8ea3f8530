"""Random sets of units, one for each feature or gate, and the readoff that contrasts a set with the other units."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from toymodels.errors import InputError, check_whole


def default_size(n: int, s: int) -> int:
    """Return ¾·√(n/s), the number of units for a set where n ≥ 2 units carry s ≥ 1 active sets; from 1 to n − 1.

    Derived here: an active set of h units covers a unit outside it with probability h/n, s active sets with about q = s·h/n.
    So the value read has the standard deviation √(q/h) = √(s/n) for every h. At h = √(n/s) the effect of one unit, 1/h, and
    the bias q have that size too; smaller sets see rarer and larger errors, larger sets a larger bias and noisier units
    (noise ∝ √h). The factor ¾ is measured: corrected circuits (circuits.depth, s = 3) went deeper with 1/2 to 4/5 than with 1
    at d = 2,000 and 4,000 neurons, and 1/2 failed in the first layers at d = 1,000.
    """
    check_whole(1, s=s)
    check_size(1, n)
    return min(max(round(0.75 * math.sqrt(n / s)), 1), n - 1)


def check_size(size: int, n: int) -> None:
    """Raise InputError unless 1 ≤ size ≤ n − 1, so that there is a set and at least one unit outside it."""
    if n < 2:
        raise InputError(f"{n} units cannot hold a set and a unit outside it: at least 2 are needed")
    if not 1 <= size < n:
        raise InputError(
            f"a set of {size} among {n} units: it must have from 1 to {n - 1}, so that one is left outside"
        )


def random_sets(count: int, size: int, n: int, generator: torch.Generator) -> Bool[Tensor, "count n"]:
    """Draw independent uniform sets of exactly `size` of n units, as rows. Raises InputError as `check_size` does.

    The size is fixed, so that no set is empty or small by chance.
    """
    check_size(size, n)
    chosen = torch.rand(count, n, generator=generator).topk(size, dim=1).indices
    return torch.zeros(count, n, dtype=torch.bool).scatter_(1, chosen, True)


def contrast(members: Bool[Tensor, "count n"]) -> Float[Tensor, "count n"]:
    """Return readoff rows: mean over the members minus mean over the others (derived here).

    Other sets cover the units inside and outside a set equally often, so the value read for an inactive set has mean 0 over
    the draw of the sets, for any number of active features: s need not be known to remove a bias.
    """
    inside, outside = members.float(), (~members).float()
    return inside / inside.sum(1, keepdim=True) - outside / outside.sum(1, keepdim=True)
