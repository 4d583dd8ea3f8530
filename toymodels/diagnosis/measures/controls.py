"""Controls: how much a linear map explains, what is left without M, and what a shuffled first layer does as well."""

from __future__ import annotations

import numpy as np

from toymodels.compressed.codes import pinv_decoder
from toymodels.compressed.measures import feature_errors
from toymodels.diagnosis.registry import MEASURES, Subject
from toymodels.tasks.pointwise import FUNCTIONS

_ROWS = 20_000


@MEASURES(
    "linear_share", source="derived here", order=60, of="both",
    tells="1 means that the outputs are a linear map of the inputs; ReLU itself has 1/2 for values on [−1, 1].",
    cannot="W_in ≥ 0 makes a network linear in positive inputs, and the share stays near 1/2: see transplant.",
)  # fmt: skip
def linear_share(subject: Subject) -> float:
    """Compute the share of the variance of the outputs that the best affine map of the inputs explains."""
    x = subject.x[:_ROWS]
    y = subject.layers(x)
    y = y - y.mean(0)
    x = x - x.mean(0)
    total = float((y**2).sum())
    if total == 0:
        return float("nan")
    left = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return 1 - float((left**2).sum()) / total


@MEASURES(
    "transplant", source="arXiv:2606.14673, figure 6, without the training after it", order=61,
    applies=lambda subject: subject.pointwise.mixing is not None and subject.n > subject.d,
    tells="Above 1 the gain over the naive network is gone with M: it was a copy of the linear part.",
    cannot="Without a mixing matrix there is nothing to take away.",
)  # fmt: skip
def transplant(subject: Subject) -> float:
    """Compute the squared loss of the same weights for M = 0, over that of the naive network."""
    naive = subject.naive_loss(mixed=False)
    return subject.clean.loss / naive if naive > 0 else float("nan")


@MEASURES(
    "shuffled", source="null model", order=62, applies=lambda subject: subject.pointwise.function is FUNCTIONS["relu"],
    tells="Above 1 the arrangement of the weights matters: a first layer of the same weights in random places does worse.",
    cannot="Shuffled layers are decoded by their scaled pseudo-inverse, which is 15 % worse than a trained decoder.",
)  # fmt: skip
def shuffled(subject: Subject) -> float:
    """Compute the fourth power of errors of first layers with shuffled weights, over the network's own: mean of 3."""
    fit = subject.inputs.dense().double()[:_ROWS]
    decoded = [pinv_decoder(layer.weight, fit) for layer in subject.shuffled_layers()]
    losses = [feature_errors(made, subject.task, subject.inputs).fourth for made in decoded]
    return float(np.mean(losses)) / subject.errors.fourth if subject.errors.fourth > 0 else float("nan")


@MEASURES(
    "at_minus_one", source="arXiv:2607.04800", order=63, applies=lambda subject: subject.pointwise.function is FUNCTIONS["relu"],
    tells="Near 0 negative inputs are cut off, as ReLU asks; −1 is a linear answer.",
    cannot="The cut is the neurons' own, and comes with W_in ≥ 0 whatever is computed.",
)  # fmt: skip
def at_minus_one(subject: Subject) -> float:
    """Compute the mean response of an output to its own feature at −1, over that at 1."""
    positive = float(np.trace(subject.responses(1.0)))
    return float(np.trace(subject.responses(-1.0))) / positive if positive != 0 else float("nan")


@MEASURES(
    "clipped", source="Borobia et al., arXiv:2605.01192", order=64, of="both",
    tells="The share of neurons that the ReLU sets to 0 while features are active: 0 means that it does nothing.",
    cannot="It does not say whether the cut serves the task.",
)  # fmt: skip
def clipped(subject: Subject) -> float:
    """Compute the share of pre-activations below 0 over inputs with an active feature."""
    x = subject.x[:_ROWS]
    x = x[(x != 0).any(1)]
    return float((x @ subject.layers.w_in.T + subject.layers.b_in < 0).mean()) if len(x) else float("nan")
