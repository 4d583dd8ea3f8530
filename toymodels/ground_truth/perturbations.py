"""Move activations, and measure how far the outputs move: along a dictionary's errors, features, functions, random directions.

What stands behind the readoff decides: nothing (`linear`); a threshold on each output (`thresholded`); or a whole layer of error
correction, whose units threshold random sums of outputs (`corrected`, see circuits.correction).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from toymodels.circuits.correction import correction_layer, step
from toymodels.core.features import Inputs
from toymodels.core.network import Network
from toymodels.core.seeds import seeded
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_choice, check_kind, check_positive, check_whole
from toymodels.ground_truth.samples import FeatureVectors
from toymodels.ground_truth.scores import encoded, for_measuring

NOTHING = 1e-5
"""Length of a direction, in units of the largest activation, that may be rounding of float32 alone."""
BEHIND = ("linear", "thresholded", "corrected")
"""What may stand behind a readoff."""
P_RANGE = (0.5, 50.0)
"""Exponents among which the best is searched."""
Function = Callable[[Float[Tensor, "batch neurons"]], Float[Tensor, "batch outputs"]]


def outputs_behind(network: Network, task: Task, behind: str = "linear", active: int = 3, seed: int = 0) -> Function:
    """Return the function from activations, in float64, to the outputs behind the readoff.

    `thresholded`: each output z becomes ReLU(2z − 1/2) − ReLU(2z − 3/2), 0 up to 1/4 and 1 from 3/4 on. `corrected`: a layer of
    error correction with 40 neurons an output, for `active` outputs at 1, drawn from the seed. Raises InputError for other names.
    """
    check_choice(BEHIND, behind=behind)
    check_whole(1, active=active)
    check_kind(Network, "a Network, of a first layer and a readoff", network=network)
    check_kind(Task, "a Task", task=task)
    readoff = for_measuring(network.readoff).double()
    if behind == "linear":
        return lambda a: readoff(a)
    if behind == "thresholded":
        return lambda a: step(readoff(a))
    corrected = correction_layer(task.n_outputs, 40 * task.n_outputs, active, seed).double()
    return lambda a: corrected(readoff(a))


@torch.no_grad()
def sensitivities(
    dictionary: nn.Module,
    network: Network,
    vectors: FeatureVectors,
    inputs: Inputs,
    seed: int = 0,
    behind: Function | None = None,
    factor: float | int = 1.0,
) -> dict[str, float | None]:
    """Measure how much the outputs move if activations move, by the length of the dictionary's error, in directions of each kind.

    Root mean square change of the outputs over outputs and inputs, by probability, divided by the root mean square length of
    the move: change per length. `sae_error`: by the error itself, reconstruction − activations. `random`: as far, in a random
    direction. `features` and `functions`: as far along the direction of one of these, drawn at random (`feature_vectors`).
    `principal`: along the first principal component of the activations. `latents`: as far, by changing the active latents alone,
    each by a random share of itself, so that L0 stays. Random choices are drawn from the seed. None where nothing is moved, or
    no feature or function has a direction. All lengths are multiplied by `factor`; `behind` (`outputs_behind`) takes activations
    to outputs, default the readoff.
    """
    check_positive(factor=factor)
    generator = seeded(seed)
    check_kind(FeatureVectors, "the result of `feature_vectors`", vectors=vectors)
    if behind is not None and not callable(behind):
        raise InputError(f"behind is a {type(behind).__name__}: it must be a function, as `outputs_behind` returns it")
    made = encoded(dictionary, network, inputs)
    if not callable(getattr(dictionary, "decode", None)):
        raise InputError("the dictionary has no method decode: it must turn latents into activations")
    dictionary, read = made.dictionary, made.read
    outputs = for_measuring(network.readoff).double() if behind is None else behind
    weight, a = inputs.probabilities.double(), made.activations.double()
    if vectors.activations.shape[1] != a.shape[1]:
        raise InputError(f"vectors are of {vectors.activations.shape[1]} neurons and the network has {a.shape[1]}")
    error = made.reconstruction.double() - a
    length = factor * error.norm(dim=1, keepdim=True)
    mean = weight @ a
    principal = torch.linalg.svd(weight.sqrt()[:, None] * (a - mean), full_matrices=False).Vh[:1]
    least = NOTHING * float(a.norm(dim=1).max())

    def drawn(rows: Tensor) -> Tensor | None:
        rows = rows[rows.norm(dim=1) > least].double()
        return rows[torch.randint(len(rows), (len(a),), generator=generator)] if len(rows) else None

    directions: dict[str, Tensor | None] = {
        "sae_error": error,
        "random": torch.randn(a.shape, generator=generator, dtype=torch.float64),
        "features": drawn(vectors.activations),
        "functions": drawn(vectors.functions),
        "principal": principal.expand(len(a), -1),
        "latents": _by_latents(dictionary, read, generator),
    }
    squared = float(weight @ length.square()[:, 0])
    result: dict[str, float | None] = {}
    before = outputs(a)
    for name, direction in directions.items():
        result[f"sensitivity_{name}"] = None
        if direction is None or not squared > 0:
            continue
        change = outputs(a + length * nn.functional.normalize(direction, dim=1)) - before
        result[f"sensitivity_{name}"] = float((weight @ change.double().square().mean(1) / squared) ** 0.5)
    return result


def _by_latents(dictionary: Any, read: Tensor, generator: torch.Generator) -> Tensor:
    """Return the directions in which the reconstruction moves if each active latent changes by a random share of itself."""
    z: Tensor = dictionary.encode(read)
    changed = z * (1 + 0.1 * torch.randn(z.shape, generator=generator))
    moved: Tensor = dictionary.decode(changed) - dictionary.decode(z)
    return moved.double()


class Exponent(NamedTuple):
    """How radii at which outputs move depend on the angle between two directions."""

    p: float
    """The exponent of |x/r_0|^p + |y/r_90|^p = 1 that fits best; nan if none between 0.5 and 50 does (see `exponent`)."""
    used: int
    """Bases and pairs of directions of which all radii were within reach."""


@torch.no_grad()
def exponent(
    outputs: Function,
    bases: Float[Tensor, "batch neurons"],
    u: Float[Tensor, "batch neurons"],
    v: Float[Tensor, "batch neurons"],
    tau: float | int = 0.5,
    reach: float | int = 10.0,
    angles: int = 5,
    radii: int = 400,
) -> Exponent | None:
    """Fit the exponent p of arXiv:2606.24964: bases are moved by r·(cos φ·u + sin φ·v) until the outputs have moved by tau.

    u and v are a direction for each base, of length 1; the move of the outputs is measured by its Euclidean length. r(φ) is the
    smallest radius up to `reach` times the root mean square length of the bases, on a grid of `radii` with linear interpolation.
    Angles divide 90° evenly. p minimises the sum of squares of log r(φ) − log r̂(φ) over all bases, with r_0 and r_90 as measured;
    p = 2 for a quadratic form without a cross term, and nan if the sum falls up to an end of the range from 0.5 to 50, as where
    outputs move by the larger of both coordinates. None if no base has all its radii within reach.
    """
    check_positive(tau=tau, reach=reach)
    check_whole(1, angles=angles)
    check_whole(2, radii=radii)
    if not callable(outputs):
        raise InputError(f"outputs is a {type(outputs).__name__}: it must be a function from activations to outputs")
    for name, rows in (("bases", bases), ("u", u), ("v", v)):
        check_kind(Tensor, "a tensor with a row for each base", **{name: rows})
        if rows.ndim != 2 or not len(rows) or rows.shape != bases.shape or not bool(rows.isfinite().all()):
            raise InputError(
                f"{name} has shape {tuple(rows.shape)}: bases, u and v must be tables of finite numbers, of one shape"
            )
        if name != "bases" and not bool(((rows.norm(dim=1) - 1).abs() < 1e-3).all()):
            raise InputError(f"{name} has rows of other lengths than 1: divide each by its length")
    start = outputs(bases)
    grid = torch.linspace(0, float(reach) * float(bases.square().sum(1).mean().sqrt()), radii + 1, dtype=bases.dtype)
    phi = torch.linspace(0, torch.pi / 2, angles + 2, dtype=bases.dtype)
    found = []
    for angle in phi:
        direction = torch.cos(angle) * u + torch.sin(angle) * v
        radius = torch.full((len(bases),), float("nan"), dtype=bases.dtype)
        before = torch.zeros(len(bases), dtype=bases.dtype)
        for low, high in itertools.pairwise(grid):
            moved = (outputs(bases + high * direction) - start).norm(dim=1)
            crossed = radius.isnan() & (moved >= tau)
            radius = torch.where(crossed, low + (high - low) * (tau - before) / (moved - before), radius)
            before = moved
            if not bool(radius.isnan().any()):
                break
        found.append(radius)
    measured = torch.stack(found, 1)
    table = measured[measured.isfinite().all(1)].numpy()
    if not len(table):
        return None
    ends, inner, middle = table[:, [0]], table[:, 1:-1], phi[1:-1].numpy()
    x, y = inner * np.cos(middle) / ends, inner * np.sin(middle) / table[:, [-1]]

    def misfit(p: float) -> float:
        return float(np.square(np.log(x**p + y**p) / p).sum())

    p = float(minimize_scalar(misfit, bounds=P_RANGE, method="bounded", options={"xatol": 1e-4}).x)
    return Exponent(p if P_RANGE[0] + 0.01 < p < P_RANGE[1] - 0.01 else math.nan, len(table))
