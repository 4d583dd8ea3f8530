"""Measures of what the network gets right, feature by feature and in the worst case."""

from __future__ import annotations

from toymodels.compressed.exact import AFFINE, QUADRATIC, worst_over_amplitudes
from toymodels.diagnosis.registry import COMPUTED, MEASURES, SERVED, Subject

_PAPERS = "arXiv:2606.14673; arXiv:2607.04800"
_PAIRS = 100
"""Features up to which all pairs are enumerated."""


@MEASURES(
    "loss_per_p", source=_PAPERS, order=0,
    tells="Below the naive network's loss the network does something else than computing d features.",
    cannot="It does not say what: a linear copy of M lowers it, and a code trained on the fourth power raises it.",
)  # fmt: skip
def loss_per_p(subject: Subject) -> float:
    """Compute the mean squared error over inputs and outputs, over the probability that a feature is active."""
    return subject.errors.loss_per_p


@MEASURES(
    "against_naive", source="arXiv:2606.14673", order=1,
    tells="Below 1 it beats d features computed exactly, the rest and M left out, on the same inputs.",
    cannot="Above 1 it may still be a code, which spreads its error over all features.",
)  # fmt: skip
def against_naive(subject: Subject) -> float:
    """Compute the squared loss over that of the naive network."""
    naive = subject.naive_loss()
    return subject.errors.loss / naive if naive > 0 and subject.n > subject.d else float("nan")


@MEASURES(
    "fourth", source="arXiv:2607.04800", order=2,
    tells="A code reaches 0.02 or so at d = n/2; the naive network, which leaves out half of the features, has 0.5.",
    cannot="Shrinking all outputs lowers it, too: any network that answers every feature by a half has 0.06 or more.",
)  # fmt: skip
def fourth(subject: Subject) -> float:
    """Compute the mean fourth power of errors, over that of the output 0."""
    targets = subject.task.targets(subject.inputs.dense().double())
    nothing = float((subject.inputs.probabilities[:, None] * targets**4).sum()) / subject.n
    return subject.errors.fourth / nothing if nothing > 0 else float("nan")


@MEASURES(
    "error_share", source="Dvořák 2026", order=3,
    tells="Near 0 all features are computed; 1 is the output 0; a naive network has 1 − d/n.",
    cannot="The same mean arises from all features computed badly and from some computed well: see cv.",
)  # fmt: skip
def error_share(subject: Subject) -> float:
    """Compute the mean over features of MSE_i/E y_i² while feature i is positive."""
    return float(subject.share.mean())


@MEASURES(
    "cv", source="arXiv:2607.04800", order=4,
    tells="Near 0 every feature is treated alike, as in a code; near 1 half of them are computed and half are not.",
    cannot="It is small, too, for networks that compute all features equally badly.",
)  # fmt: skip
def cv(subject: Subject) -> float:
    """Compute the standard deviation of the features' mean squared errors over their mean."""
    return subject.errors.cv


@MEASURES(
    "served", source="derived here", order=5,
    tells="Below d/n the network leaves features out; near 1 it has to share neurons if there are fewer than features.",
    cannot="It does not say whether sharing is linear.",
)  # fmt: skip
def served(subject: Subject) -> float:
    """Compute the share of features whose error is below half of that of the output 0."""
    return float((subject.share < SERVED).mean())


@MEASURES(
    "computed", source="Dvořák 2026 (capacity)", order=6,
    tells="Above d/n more features are computed than there are neurons: computation in superposition.",
    cannot="The limit of a tenth is a convention; features may be computed at other amplitudes only.",
)  # fmt: skip
def computed(subject: Subject) -> float:
    """Compute the share of features whose error is below a tenth of that of the output 0."""
    return float((subject.share < COMPUTED).mean())


@MEASURES(
    "worst_one", source="derived here (compressed.exact)", order=7,
    applies=lambda subject: subject.task.name.partition("(")[0] in AFFINE | QUADRATIC,
    tells="No amplitude of any single feature, up to 1 in size, has a larger error: found by enumeration, not by sampling.",
    cannot="It speaks of one active feature, without the interference of others.",
)  # fmt: skip
def worst_one(subject: Subject) -> float:
    """Compute the largest |error| over all amplitudes of one active feature."""
    return worst_over_amplitudes(subject.network, subject.task, 1).value


@MEASURES(
    "worst_two", source="derived here (compressed.exact)", order=8,
    applies=lambda subject: (
        subject.task.name.partition("(")[0] in AFFINE and subject.n <= _PAIRS and not subject.layers.b_in.any()
    ),
    tells="No amplitudes of any two features, up to 1 in size, have a larger error.",
    cannot="Three active features may have a larger one.",
)  # fmt: skip
def worst_two(subject: Subject) -> float:
    """Compute the largest |error| over all amplitudes of two active features."""
    return worst_over_amplitudes(subject.network, subject.task, 2).value
