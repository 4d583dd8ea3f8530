"""The analytic four-quadrant readoff of a frozen Gaussian layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toymodels.core.layers import FirstLayer
from toymodels.core.readoffs import READOFFS, Combination, LinearReadoff
from toymodels.core.tasks import PairTask, Task, pair_task
from toymodels.errors import InputError
from toymodels.theory.quadrants import readoff_coefficients


def _applies(combination: Combination) -> bool:
    return (
        isinstance(combination.task, PairTask) and "quadrants" in combination.closed_forms and not combination.embedded
    )


def _note(s: int, inputs: str, combinations: list[Combination]) -> str:
    if not any(_applies(combination) for combination in combinations):
        needs = "a Gaussian ReLU layer without bias, of features with one axis each"
        return f"The analytic readoff is left out: it holds only for {needs}."
    biased = "on inputs with another number it is biased, by design"
    return "" if inputs == "exactly" else f"The analytic readoff is made for exactly {s} active features; {biased}."


@READOFFS(
    "analytic", order=10, colour="#CC79A7", marker="v", applies=_applies, default=True, note=_note,
    source="Hänni 2024, comments; docs/theory.md, section 3",
)  # fmt: skip
@torch.no_grad()
def analytic(layer: nn.Module, task: Task, s: int) -> LinearReadoff:
    """Read neuron i with η/d, with η fixed by the signs of neuron i's weights on the pair (docs/theory.md, section 3).

    Over the draw of the layer it is exactly unbiased, in all four cases, on inputs with exactly s active features; on
    inputs with s' < s active features it is biased (an AND is read c_s/c_s' times too large).

    Raises InputError unless the layer is Gaussian with zero bias and ReLU, the task is a gate on pairs, and s ≥ 2.
    """
    if not (isinstance(layer, FirstLayer) and layer.origin == "gaussian" and layer.activation == "relu"):
        raise InputError("the analytic readoff holds for a frozen Gaussian ReLU layer only: use a fitted readoff here")
    if bool(layer.bias.any()):
        raise InputError("the analytic readoff holds for zero bias only: draw the layer with bias 0 or fit a readoff")
    task = pair_task(task, "the analytic readoff", layer.weight.shape[1])
    eta = readoff_coefficients(task.gate, s)
    positive: Tensor = (layer.weight > 0).T.double()
    pairs = task.pairs.to(positive.device)
    # η over the quadrants (−,−), (−,+), (+,−), (+,+) as the bilinear function of (u > 0, v > 0).
    u, v = positive[pairs[:, 0]], positive[pairs[:, 1]]
    weight = eta[0] + (eta[2] - eta[0]) * u + (eta[1] - eta[0]) * v + (eta[3] - eta[2] - eta[1] + eta[0]) * u * v
    weight /= layer.width * layer.scale
    return LinearReadoff(weight, torch.zeros(len(pairs), dtype=weight.dtype, device=weight.device))
