"""Derive independent streams of random numbers from one seed, one stream for each purpose."""

from __future__ import annotations

import numpy as np

PURPOSES = ("trained layer", "frozen layer", "batches", "evaluation", "pairs", "fit", "frame", "labels", "task")
"""What random numbers are drawn for. Add a new purpose at the end: then the streams of the others do not change."""


def derive_seed(seed: int, purpose: str) -> int:
    """Return the seed of one purpose's stream, so that a frozen layer differs from the trained layer's initial weights."""
    return int(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose),)).generate_state(1)[0])
