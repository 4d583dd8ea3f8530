"""Train a first layer for the worst case: the exact gradient of its minimax error, and a descent along it.

ε_i(layer) = min over (r, c) of max over inputs |r·a(x) + c − f_i(x)| is what the best linear readoff of output i reaches
(`core.minimax`). Its Lagrangian at the optimum is −Σ_x μ_x (r·a(x) + c − f_i(x)), with the readoff (r, c) and its
certificate μ (Σ|μ| = 1, Σ μ a = 0, Σ μ = 0). By the envelope theorem (Danskin, "The theory of max-min and its application
to weapons allocation problems", 1967; Milgrom & Segal, Econometrica 70, 2002) only a(x) has to be differentiated:

    dε_i = −Σ_x μ_x r·da(x)

The multipliers weigh the inputs, the readoff weighs the neurons, and nothing is differentiated through the solver. Where
readoff and certificate are unique this is the gradient. Where the optimum is tied it belongs to one of the solutions, and
the error falls along it no further than the next tie: so the descent follows a soft maximum over outputs, and every
step is measured by the true errors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.features import Inputs
from toymodels.core.kfac import PreconditionedLBFGS
from toymodels.core.layers import check_problem
from toymodels.core.minimax import Chebyshev, Minimax, minimax
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_choice, check_kind, check_positive, check_whole

SUMMARIES = ("largest", "mean", "soft")
"""What a descent brings down: the largest error over outputs, their mean, or a soft maximum of them."""
_TRIES = 12
"""Step lengths tried on a line, each a third of the last."""
_SHARES = (0.03, 0.01, 0.003, 0.001, 0.0003)
"""Temperatures of the soft maximum, one after the other, as shares of the largest error at the start."""


def layer_gradient(
    layer: nn.Module,
    task: Task,
    inputs: Inputs,
    certificates: Sequence[Chebyshev],
    weights: Float[np.ndarray, " outputs"] | None = None,
) -> dict[str, Float[Tensor, ...]]:
    """Compute the gradient of Σ_i w_i ε_i in each parameter of the layer, by name, from the outputs' certificates.

    `certificates` are those of `minimax` for this layer, task and inputs; `weights` are the w_i, by default 1 each. Float64.
    Raises InputError if the number of certificates or weights is not that of the outputs, or a certificate is of other inputs.
    """
    check_problem(layer, task, inputs)
    check_certificates(task, inputs, certificates)
    weights = np.ones(task.n_outputs) if weights is None else np.asarray(weights, np.float64)
    if weights.shape != (task.n_outputs,) or not np.isfinite(weights).all():
        raise InputError(f"weights must be a finite number for each of the {task.n_outputs} outputs")
    pull = np.zeros((len(inputs), len(certificates[0].coefficients)))
    for weight, known in zip(weights, certificates, strict=True):
        if weight:
            pull[known.rows] -= weight * np.outer(known.multipliers, known.coefficients)
    layer = copy.deepcopy(layer).double().eval()
    parameters = {name: value for name, value in layer.named_parameters() if value.requires_grad}
    if not parameters:
        raise InputError("the layer has no parameter that requires gradients: there is nothing to differentiate in")
    used = np.flatnonzero(np.abs(pull).max(1))
    with torch.enable_grad():
        activations = layer(inputs.dense(dtype=torch.float64)[torch.from_numpy(used)])
        total = (activations * torch.from_numpy(pull[used])).sum()
        slopes = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return {
        name: torch.zeros_like(value) if slope is None else slope
        for (name, value), slope in zip(parameters.items(), slopes, strict=True)
    }


def check_certificates(task: Task, inputs: Inputs, certificates: Sequence[Chebyshev]) -> None:
    """Raise InputError unless there is a certificate for each output, over these inputs."""
    if len(certificates) != task.n_outputs:
        raise InputError(
            f"there are {len(certificates)} certificates for {task.n_outputs} outputs: one for each is needed"
        )
    for known in certificates:
        check_kind(Chebyshev, "a Chebyshev, as `minimax` returns it", certificate=known)
        if len(known.rows) and not 0 <= known.rows.min() <= known.rows.max() < len(inputs):
            raise InputError(f"a certificate names inputs that are not among the {len(inputs)}: it is of other inputs")


def output_weights(
    errors: Float[np.ndarray, " outputs"], temperature: float
) -> tuple[float, Float[np.ndarray, " outputs"]]:
    """Return the soft maximum T ln Σ exp(ε_i/T) of the errors, and its derivative in each: softmax(ε/T).

    It lies between the largest error and T ln(number of outputs) above it. Raises InputError for a temperature
    that is not above 0.
    """
    check_positive(temperature=temperature)
    largest = errors.max()
    shares = np.exp((errors - largest) / temperature)
    return float(largest + temperature * math.log(shares.sum())), shares / shares.sum()


def _summarised(
    errors: Float[np.ndarray, " outputs"], summary: str, temperature: float
) -> tuple[float, Float[np.ndarray, " outputs"]]:
    """Return one of the `SUMMARIES` of the errors, and its derivative in each."""
    if summary == "soft":
        return output_weights(errors, temperature)
    if summary == "mean":
        return float(errors.mean()), np.full(len(errors), 1 / len(errors))
    return float(errors.max()), (np.arange(len(errors)) == errors.argmax()).astype(float)


@dataclass(frozen=True)
class Descended:
    """A layer whose worst error was brought down, and how far."""

    layer: nn.Module
    """The best layer on the way, in float64."""
    fitted: Minimax
    """Its minimax readoffs and certificates."""
    worst: tuple[float, ...]
    """The largest error of the best layer so far, at the start and after each step."""

    @property
    def worst_error(self) -> float:
        """The largest error over outputs of the best layer."""
        return self.worst[-1]


def descend(
    layer: nn.Module,
    task: Task,
    inputs: Inputs,
    steps: int = 100,
    summary: str = "soft",
    progress: Callable[[range], Iterable[int]] = lambda steps: steps,
    after: Callable[[Descended], None] = lambda reached: None,
) -> Descended:
    """Bring down the worst error of a layer by L-BFGS on its exact gradient, from where it is; the best layer is kept.

    `summary`: "soft" (a soft maximum over outputs, colder and colder), "mean" (over outputs), or "largest" (the output of the
    largest error alone: slow, because of ties). A step is taken only if it lowers the summary of the
    true errors, as the solver finds them. `progress` may wrap the loop over steps; `after` is called with what is reached after
    each of them (to store it).
    Raises InputError for a layer without parameters that require gradients, or what `minimax` refuses.
    """
    check_whole(1, steps=steps)
    check_choice(SUMMARIES, summary=summary)
    check_problem(layer, task, inputs)
    current = copy.deepcopy(layer).double().eval()
    names = [name for name, value in current.named_parameters() if value.requires_grad]
    if not names:
        raise InputError("the layer has no parameter that requires gradients: there is nothing to train")
    descent = _Descent(current, names, task, inputs)
    at = descent.start()
    largest = float(at.errors.max())
    best, worst = at, [largest]
    shares = _SHARES if summary == "soft" else (0.0,)
    stage = 0
    for step in progress(range(steps)):
        temperature = shares[stage] * (largest or 1.0)  # without an error there is no slope, and the descent ends
        taken = descent.step(at, summary, temperature)
        if taken is not None:
            at = taken
        if float(at.errors.max()) < float(best.errors.max()):
            best = at
        worst.append(float(best.errors.max()))
        after(Descended(best.layer, best.fitted, tuple(worst)))
        if taken is None or (stage < len(shares) - 1 and step >= steps * (stage + 1) // len(shares)):
            stage += 1
            descent.forget()
            at = best
            if stage >= len(shares) or not worst[-1] > 0:
                break
    return Descended(best.layer, best.fitted, tuple(worst))


@dataclass(frozen=True)
class _Point:
    """A layer on the way."""

    layer: nn.Module
    vector: Float[Tensor, " parameters"]
    fitted: Minimax
    errors: Float[np.ndarray, " outputs"]


class _Descent:
    """Steps of L-BFGS, with a line search that shortens steps until the true summary falls."""

    def __init__(self, layer: nn.Module, names: Sequence[str], task: Task, inputs: Inputs):
        self._layer, self._names, self._task, self._inputs = layer, names, task, inputs
        self._curvature = PreconditionedLBFGS([(nn.Parameter(self._joined()),)])
        self._known: tuple[_Point, float, Tensor] | None = None

    def start(self) -> _Point:
        """Solve the layer that is given."""
        return self._solve(self._joined())

    def _joined(self) -> Tensor:
        parameters = dict(self._layer.named_parameters())
        return torch.cat([parameters[name].detach().reshape(-1) for name in self._names])

    def forget(self) -> None:
        """Forget the curvature: the function has changed."""
        self._curvature.forget()

    def step(self, at: _Point, summary: str, temperature: float) -> _Point | None:
        """Take a step that lowers the summary; None if none of the lengths tried does."""
        value, slope = _summarised(at.errors, summary, temperature)[0], self._slope(at, summary, temperature)
        size = float(slope.norm())
        if not size > 0:
            return None
        direction = self._curvature.direction(slope, [])
        along = float(direction @ slope)
        if not along < 0:
            self.forget()
            direction, along = -slope, -(size**2)
        # the first length would bring the error to 0 if it fell on as it does here; it does not
        length = 1.0 if self._curvature.remembers else 0.1 * value / size**2
        for _ in range(_TRIES):
            tried = self._solve(at.vector + length * direction)
            if _summarised(tried.errors, summary, temperature)[0] < value + 1e-4 * length * along:
                change = self._slope(tried, summary, temperature) - slope
                step = tried.vector - at.vector
                if float(step @ change) > 1e-12 * float(change @ change):
                    self._curvature.remember(step, change)
                return tried
            length /= 3
        return None

    def _solve(self, vector: Tensor) -> _Point:
        layer = copy.deepcopy(self._layer)
        parameters, start = dict(layer.named_parameters()), 0
        with torch.no_grad():
            for name in self._names:
                number = parameters[name].numel()
                parameters[name].copy_(vector[start : start + number].view_as(parameters[name]))
                start += number
        fitted = minimax(layer, self._task, self._inputs)
        return _Point(layer, vector, fitted, np.array([known.worst_error for known in fitted.certificates]))

    def _slope(self, at: _Point, summary: str, temperature: float) -> Tensor:
        if self._known is not None and self._known[0] is at and self._known[1] == temperature:
            return self._known[2]  # a step ends where the next one begins
        weights = _summarised(at.errors, summary, temperature)[1]
        weights[weights < 1e-12] = 0
        slopes = layer_gradient(at.layer, self._task, self._inputs, at.fitted.certificates, weights)
        slope = torch.cat([slopes[name].reshape(-1) for name in self._names])
        self._known = at, temperature, slope
        return slope
