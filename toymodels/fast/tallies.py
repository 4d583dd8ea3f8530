"""Sums over errors, by input case: what an evaluation adds up, block by block, without keeping the errors.

Built for speed: a few passes over a block that stays in cache, and one count of its errors by size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.errors import InputError

SLACK = 2.0**-18
"""A tolerance is met by |error| ≤ tolerance·(1 + SLACK), 1e-6 above 1/4: a certified worst error of 1/4 is within 1/4."""

# Errors are counted by the leading 16 bits of 100·error as a float32: its sign, exponent and 7 bits of mantissa. Within
# an octave these bins have 1/128 of its lower end, so a bin's middle is within 0.4 % of all it holds; and up to 512
# every whole number begins a bin, so the same counts add up to bins of the outputs of width 1/100. 64 octaves are kept,
# up from |error| = 2^-40: a power of two in the scale makes that the smallest normal float32, and bin 128.
_PER_OCTAVE, _OCTAVES, _SMALLEST = 128, 64, -40
_SIGN = 2**15
_BINS = _PER_OCTAVE * _OCTAVES
_SHIFT = 2.0 ** (_SMALLEST + 6 + 126)
_SCALE = 100 / _SHIFT
# Errors are scaled down by SLACK, so that one which meets a tolerance of so many hundredths lies below that edge: what
# meets it is then counted already. (An output on an edge of a histogram falls to the side of its target.)
HUNDREDTHS = (np.arange(_BINS + 1, dtype=np.int32) << 16).view(np.float32).astype(np.float64) * _SHIFT
"""100·|error| where each bin begins, ascending from 0, and where the last one ends, shape (bins + 1,)."""


class Room:
    """Buffers of one thread, kept from block to block: fresh memory of this size would cost more than a pass over it."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._views: dict[tuple[str, Sequence[int]], Tensor] = {}

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """The buffer of a name as a contiguous tensor, with whatever it held."""
        if (name, shape) in self._views:
            return self._views[name, shape]
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, dtype=dtype, device=device)
            self._views = {key: view for key, view in self._views.items() if key[0] != name}
        self._views[name, shape] = self._buffers[name][:size].view(*shape)
        return self._views[name, shape]


class Tallies:
    """Sums by case, in float64; bins in the order (above 0, below 0)."""

    def __init__(self, n_cases: int, tolerances: Sequence[float], n_outputs: int):
        self.tolerances = sorted(tolerances)
        # The bin that begins at each tolerance; None where none does, and errors must be compared one by one.
        edges = [int(np.searchsorted(HUNDREDTHS, round(100 * t, 9))) for t in self.tolerances]
        self._edges = [
            e if HUNDREDTHS[min(e, _BINS)] == round(100 * t, 9) else None
            for e, t in zip(edges, self.tolerances, strict=True)
        ]
        self.mass, self.first, self.second, self.worst = np.zeros((4, n_cases))
        """Of each case: its probability, first and second moment of the error, and the largest |error|."""
        self.within = np.zeros((n_cases, len(self.tolerances)))
        """Probability of |error| ≤ tolerance·(1 + SLACK)."""
        self.bins = np.zeros((n_cases, 2, _BINS))
        """Probability of each bin of errors."""
        self.output_worst = np.zeros(n_outputs)
        """Largest |error| of each output (not kept by `add`)."""

    def merge(self, other: Tallies) -> None:
        """Adds the sums of other blocks."""
        for name in ("mass", "first", "second", "within", "bins"):
            getattr(self, name).__iadd__(getattr(other, name))
        for name in ("worst", "output_worst"):
            np.maximum(getattr(self, name), getattr(other, name), out=getattr(self, name))

    def add(
        self, case: int, error: Float[Tensor, "*shape"], weight: Tensor | float, absent: int, room: Room
    ) -> Float[Tensor, "*rows"]:
        """Adds errors of one case with their probabilities; returns the largest |error| along the last dimension.

        `weight` is one number for all, with `absent` errors (all 0) that count for nothing, or a float64 tensor of the
        errors' shape. Raises InputError if an error is not finite.
        """
        size = torch.abs(error, out=room.take("size", error.shape, error.dtype, error.device))
        rows = size.amax(-1)
        worst = float(rows.max())
        if not math.isfinite(worst):
            raise InputError("an output is not a finite number: the weights of the network have overflowed or hold NaN")
        self.worst[case] = max(self.worst[case], worst)
        bins = _bins(error, worst, room)
        if isinstance(weight, Tensor):
            wide = error.double()
            mass = float(weight.sum())
            self.first[case] += float((weight * wide).sum())
            self.second[case] += float((weight * wide * wide).sum())
            counts = self._add_bins(case, torch.bincount(bins, weight.reshape(-1), _SIGN + _BINS), 1.0)
            within = [
                mass - _beyond(counts, e) if e is not None else float(weight[size <= t * (1 + SLACK)].sum())
                for t, e in zip(self.tolerances, self._edges, strict=True)
            ]
        else:
            count = error.numel() - absent
            mass = weight * count
            # Rows are summed in the errors' own precision (short sums, pairwise), their sums in float64.
            self.first[case] += weight * float(error.sum(-1).sum(dtype=torch.float64))
            norms = torch.linalg.vector_norm(error, dim=-1)
            self.second[case] += weight * float(norms.double().square_().sum())
            counts = self._add_bins(case, torch.bincount(bins, minlength=_SIGN + _BINS), weight)
            within = [
                weight * (count - (_beyond(counts, e) if e is not None else _above(size, t * (1 + SLACK), worst, room)))
                for t, e in zip(self.tolerances, self._edges, strict=True)
            ]
            self.bins[case, 0, 0] -= weight * absent
        self.mass[case] += mass
        self.within[case] += within
        return rows

    def _add_bins(self, case: int, counts: Tensor, weight: float) -> np.ndarray:
        found = counts.cpu().numpy()
        both = np.stack([found[:_BINS], found[_SIGN : _SIGN + _BINS]])
        self.bins[case] += both * weight
        return both


def _beyond(counts: np.ndarray, edge: int) -> float:
    """What lies in the bins from an edge on."""
    return float(counts[:, edge:].sum())


def _bins(error: Tensor, worst: float, room: Room) -> Tensor:
    """The bin of each error, a flat int32 tensor; those below 0 stand _SIGN higher."""
    scaled = room.take("scaled", error.shape, torch.float32, error.device)
    factor = _SCALE * (1 - SLACK)
    if error.dtype == torch.float32:
        torch.mul(error, factor, out=scaled)
    else:
        scaled.copy_(error).mul_(factor)
    if worst * 100 >= HUNDREDTHS[-2]:
        limit = HUNDREDTHS[-2] / _SHIFT
        scaled.clamp_(-limit, limit)
    bits = scaled.view(torch.int32)
    return torch.bitwise_right_shift(bits, 16, out=bits).bitwise_and_(0xFFFF).reshape(-1)


def _above(size: Tensor, limit: float, worst: float, room: Room) -> int:
    """How many sizes exceed a limit."""
    if worst <= limit:
        return 0
    if size.device.type != "cpu" or size.dtype not in (torch.float32, torch.float64):
        return int((size > limit).sum())
    # NumPy compares 4 times as fast as torch here, in the array's own precision as torch does.
    above = room.take("above", size.shape, torch.bool, size.device).numpy()
    np.greater(size.numpy(), limit, out=above)
    return int(np.count_nonzero(above))
