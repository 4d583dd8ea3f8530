"""Add up errors in a few passes over a block that stays in cache, and count them by size in one of these passes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.core.evaluation import BINS, HUNDREDTHS, SHIFT, SLACK, TOLERANCES, ErrorSums, check_finite

_SIGN = 2**15
_SCALE = 100 / SHIFT
_EDGES = np.searchsorted(HUNDREDTHS, np.round(100 * np.array(TOLERANCES), 9)).tolist()
"""The bin that begins at each tolerance."""


class Scratch:
    """The buffers of one thread, kept from block to block: allocating this much memory costs more than a pass over it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._views: dict[tuple[str, Sequence[int]], Tensor] = {}

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return the buffer of a name as a contiguous tensor with arbitrary contents."""
        if (name, shape) in self._views:
            return self._views[name, shape]
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, dtype=dtype, device=device)
            self._views = {key: view for key, view in self._views.items() if key[0] != name}
        self._views[name, shape] = self._buffers[name][:size].view(*shape)
        return self._views[name, shape]


class BlockSums(ErrorSums):
    """Sums over errors by case, to which blocks of one case are added."""

    def add_case(
        self, case: int, error: Float[Tensor, "*shape"], weight: Tensor | float, n_masked: int, scratch: Scratch
    ) -> Float[Tensor, "*rows"]:
        """Add errors of one case with their probabilities; return the largest |error| along the last dimension.

        `weight` is one number for all, or a float64 tensor of the errors' shape. `n_masked`: entries set to 0 and excluded
        from every count. Raises InputError if an error is not finite.
        """
        size = torch.abs(error, out=scratch.take("size", error.shape, error.dtype, error.device))
        rows = size.amax(-1)
        worst = float(rows.max())
        check_finite(math.isfinite(worst))
        self.worst[case] = max(self.worst[case], worst)
        bins = _bins(error, worst, scratch)
        if isinstance(weight, Tensor):
            wide = error.double()
            mass = float(weight.sum())
            self.first[case] += float((weight * wide).sum())
            self.second[case] += float((weight * wide * wide).sum())
            counts = self._add_bins(case, torch.bincount(bins, weight.reshape(-1), _SIGN + BINS), 1.0)
            within = [mass - float(counts[:, edge:].sum()) for edge in _EDGES]
        else:
            count = error.numel() - n_masked
            mass = weight * count
            # Rows are summed in the errors' own precision (short sums, pairwise), their sums in float64.
            self.first[case] += weight * float(error.sum(-1).sum(dtype=torch.float64))
            norms = torch.linalg.vector_norm(error, dim=-1)
            self.second[case] += weight * float(norms.double().square_().sum())
            counts = self._add_bins(case, torch.bincount(bins, minlength=_SIGN + BINS), weight)
            within = [weight * (count - float(counts[:, edge:].sum())) for edge in _EDGES]
            self.bins[case, 0, 0] -= weight * n_masked
        for tolerance in self.tolerances[len(_EDGES) :]:  # no bin begins there
            met = size <= tolerance * (1 + SLACK)
            counted = float(weight[met].sum()) if isinstance(weight, Tensor) else weight * (int(met.sum()) - n_masked)
            within.append(counted)
        self.mass[case] += mass
        self.within[case] += within
        return rows

    def _add_bins(self, case: int, counts: Tensor, weight: float) -> np.ndarray:
        masses = counts.cpu().numpy()
        both = np.stack([masses[:BINS], masses[_SIGN : _SIGN + BINS]])
        self.bins[case] += both * weight
        return both


def _bins(error: Tensor, worst: float, scratch: Scratch) -> Tensor:
    """Return the bin of each error, a flat int32 tensor; negative errors have numbers higher by _SIGN."""
    scaled = scratch.take("scaled", error.shape, torch.float32, error.device)
    factor = _SCALE * (1 - SLACK)
    if error.dtype == torch.float32:
        torch.mul(error, factor, out=scaled)
    else:
        scaled.copy_(error).mul_(factor)
    if worst * 100 >= HUNDREDTHS[-2]:
        limit = HUNDREDTHS[-2] / SHIFT
        scaled.clamp_(-limit, limit)
    bits = scaled.view(torch.int32)
    return torch.bitwise_right_shift(bits, 16, out=bits).bitwise_and_(0xFFFF).reshape(-1)
