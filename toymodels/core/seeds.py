"""Seeds: independent streams of random numbers from one seed, one for each purpose."""

from __future__ import annotations

import numpy as np

PURPOSES = ("trained layer", "frozen layer", "batches", "evaluation", "pairs", "fit", "frame", "labels", "task")
"""What random numbers are drawn for; a new purpose stands at the end, so that the streams of the others stay as they are."""


def derive_seed(seed: int, purpose: str) -> int:
    """Return the seed of one purpose's stream: a frozen layer is no copy of the trained layer's start."""
    return int(np.random.SeedSequence(seed, spawn_key=(PURPOSES.index(purpose),)).generate_state(1)[0])
