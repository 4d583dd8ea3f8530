"""Derive independent streams of random numbers from one seed, one stream for each purpose."""

from __future__ import annotations

import numpy as np
import torch

from toymodels.errors import check_whole

PURPOSES = (
    "trained layer", "frozen layer", "batches", "evaluation", "pairs", "fit", "frame", "labels", "task", "dictionary",
)  # fmt: skip
"""What random numbers are drawn for. Add a new purpose at the end: then the streams of the others do not change."""


def derive_seed(seed: int, purpose: str) -> int:
    """Return the seed of one purpose's stream, so that a frozen layer differs from the trained layer's initial weights."""
    return int(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose),)).generate_state(1)[0])


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a new generator of this seed. Raises InputError for a seed that is no whole number from 0 up, or too large."""
    check_whole(0, 2**63 - 1, seed=seed)
    return torch.Generator(device).manual_seed(int(seed))
