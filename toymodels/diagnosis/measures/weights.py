"""Measures of the weights alone: which neurons read which features, and how alike the features' columns are."""

from __future__ import annotations

import numpy as np

from toymodels.diagnosis.registry import MEASURES, SERVED, Subject

_SWAPS = 1000


@MEASURES(
    "coherence", source="Dvořák 2026", order=20, of="both",
    tells="Below 0.5 no two features are read by nearly the same neurons; 1 means that two cannot be told apart.",
    cannot="A naive network has a large one only if it keeps traces of features that it does not compute.",
)  # fmt: skip
def coherence(subject: Subject) -> float:
    """Compute the largest |cosine| between columns of W_in of different features that are used."""
    columns = subject.layers.w_in[:, subject.used]
    if columns.shape[1] < 2:
        return 0.0
    unit = columns / np.linalg.norm(columns, axis=0)
    cosines = np.abs(unit.T @ unit)
    np.fill_diagonal(cosines, 0)
    return float(cosines.max())


@MEASURES(
    "load", source="Dvořák 2026", order=21, of="both",
    tells="Near 1 each neuron reads one feature; more means that features share neurons.",
    cannot="It does not say whether what is shared is computed.",
)  # fmt: skip
def load(subject: Subject) -> float:
    """Compute the mean number of features that a neuron reads with a weight that is on."""
    return float(subject.on.sum(1).mean())


@MEASURES(
    "on_share", source="derived here", order=22, of="both",
    tells="A sparse code has a small one (K/d), a dense code near one half.",
    cannot="It depends on the limit for on (0.3 of the neuron's largest weight).",
)  # fmt: skip
def on_share(subject: Subject) -> float:
    """Compute the share of weights of W_in that are on."""
    return float(subject.on.mean())


def dedicated_features(subject: Subject) -> np.ndarray:
    """Return which features have a neuron of their own: its other weights are below ON times the one on the feature.

    But for one on a feature that is not served: training on the squared error leaves such traces for a long time.
    """
    single = (subject.on.sum(1) <= 2) & ((subject.on & (subject.share < SERVED)).sum(1) == 1)
    owners = np.abs(subject.layers.w_in).argmax(1)[single]
    return np.isin(np.arange(subject.n), owners)


@MEASURES(
    "dedicated", source="derived here", order=23,
    tells="Near 1 the features that are served have a neuron each: the naive network; near 0 none has.",
    cannot="A feature may have a neuron of its own and be read from others as well.",
)  # fmt: skip
def dedicated(subject: Subject) -> float:
    """Compute the share of served features that have a neuron of their own."""
    served = subject.share < SERVED
    return float(dedicated_features(subject)[served].mean()) if served.any() else float("nan")


@MEASURES(
    "swap", source="arXiv:2607.04800", order=24,
    tells="Near 1 the decoder goes by which neurons are on: a feature's weights can be moved to another feature's neurons.",
    cannot="A naive network passes for the features that it computes; what is on depends on a limit (0.3 of the largest).",
)  # fmt: skip
def swap(subject: Subject) -> float:
    """Compute how often feature i's on-weights, put on the on-neurons of j, have their largest output at j.

    Over pairs of features with equally many on-neurons, at most 1,000 of them; other weights are 0.
    """
    rng = np.random.default_rng(subject.seed)
    on, w = subject.on, subject.layers.w_in
    degree = on.sum(0)
    pairs = np.argwhere((degree[:, None] == degree) & (degree > 0) & ~np.eye(subject.n, dtype=bool))
    if not len(pairs):
        return float("nan")
    chosen = pairs if len(pairs) <= _SWAPS else pairs[rng.choice(len(pairs), _SWAPS, replace=False)]
    columns = np.zeros((subject.d, len(chosen)))
    for k, (i, j) in enumerate(chosen):
        columns[on[:, j], k] = w[on[:, i], i]
    outputs = subject.layers.w_out @ np.maximum(columns + subject.layers.b_in[:, None], 0)
    return float((outputs.argmax(0) == chosen[:, 1]).mean())


@MEASURES(
    "kurtosis", source="Vaintrob 2026", order=25, of="both",
    tells="Above 2 the features lie along few neurons; 0 is a Gaussian, −2 a column of two values.",
    cannot="A naive network has the largest one: it says sparse, not code.",
)  # fmt: skip
def kurtosis(subject: Subject) -> float:
    """Compute the mean excess kurtosis of the used features' columns over neurons."""
    columns = subject.layers.w_in[:, subject.used]
    centred = columns - columns.mean(0)
    spread = (centred**2).mean(0)
    kept = spread > 0
    if not kept.any():
        return float("nan")
    return float(((centred[:, kept] ** 4).mean(0) / spread[kept] ** 2 - 3).mean())
