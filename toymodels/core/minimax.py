"""Minimax readoffs: the smallest worst-case error that any linear readoff of a layer can reach, with a proof.

The linear program

    minimise t  subject to  −t ≤ A[x]·r + c − f[x] ≤ t  for every input x

has as its dual: maximise μ·f over signed measures μ on inputs with Σ|μ| = 1, Σ μ = 0, Aᵀμ = 0. Any such μ proves
max|A r + c − f| ≥ μ·f for every r and c (in floating point, except for coefficients so large that they undo the rounding of
Aᵀμ), so a readoff with a measure of the same value can be checked without trusting the solver:

    np.abs(multipliers).sum()          # 1
    multipliers @ activations[rows]    # 0, and multipliers.sum() is 0
    multipliers @ target[rows]         # the lower bound

This is the plain form: one full program for each output, by SciPy's HiGHS.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from toymodels.core.dispatch import dispatched
from toymodels.core.features import ENUMERATION_LIMIT, Features, Inputs, count_in_words
from toymodels.core.layers import apply, check_problem
from toymodels.core.readoffs import READOFFS, Fitted, LinearReadoff
from toymodels.core.tasks import Task
from toymodels.errors import InputError, check_whole

Loop = Callable[[Iterable[int]], Iterable[int]]
"""What may wrap a loop over outputs: a progress bar."""

GAP = 1e-6
"""Largest difference of upper and lower bound that counts as a proof, in units of half the target's range."""
ORTHOGONALITY = 1e-9
"""Largest |μ·A_j| / max|A_j| and |Σ μ| that count as zero."""


@dataclass(frozen=True)
class Chebyshev:
    """A minimax readoff of one target and its certificate; every number is measured from the arrays returned."""

    coefficients: Float[np.ndarray, " neurons"]
    """r."""
    offset: float
    """c."""
    worst_error: float
    """max |A r + c − f| over all inputs: an upper bound of the optimum."""
    lower_bound: float
    """μ·f: a lower bound of the optimum; 0 with an empty certificate if the target is fitted exactly."""
    rows: Int[np.ndarray, " support"]
    """The inputs that carry the certificate μ."""
    multipliers: Float[np.ndarray, " support"]
    """μ on these inputs: signed, absolute values sum to 1."""
    orthogonality: float
    """The largest of |Σ μ| and, over neurons, |μ·A_j| / max|A_j|: how exactly μ annihilates activations."""
    half_range: float
    """(max f − min f)/2, the error of the best constant: the unit in which `proved` measures the gap."""
    iterations: int
    """Steps of the solver."""
    method: str
    """How it was solved: "linear program", "exact" (least squares fits the target), "interior point", "simplex", "given"
    (measured, not solved), or "least squares" (every method failed: unproved)."""

    @property
    def gap(self) -> float:
        """worst_error − lower_bound: how far the readoff can be from the optimum."""
        return self.worst_error - self.lower_bound

    @property
    def proved(self) -> bool:
        """Whether the certificate proves the readoff optimal: bounds within GAP half ranges, μ annihilates activations.

        A lower bound above the error of a readoff is no proof: μ then leaks through coefficients as large as 1/ORTHOGONALITY.
        """
        return abs(self.gap) <= GAP * self.half_range and self.orthogonality <= ORTHOGONALITY


def measured(
    activations: Float[np.ndarray, "inputs neurons"],
    target: Float[np.ndarray, " inputs"],
    coefficients: Float[np.ndarray, " neurons"],
    offset: float,
    rows: Int[np.ndarray, " support"],
    multipliers: Float[np.ndarray, " support"],
    iterations: int = 0,
    method: str = "given",
    size: Float[np.ndarray, " neurons"] | None = None,
) -> Chebyshev:
    """Compute the bounds that a readoff and a measure give, from nothing else; also to check stored ones.

    The measure is scaled to total mass 1 first. `size` is each neuron's largest |activation|, if the caller has it.
    Raises InputError for a target of another length, or not finite.
    """
    check_target(target, len(activations))
    mass = np.abs(multipliers).sum()
    mu = multipliers / mass if mass > 0 else multipliers
    size = np.abs(activations).max(0) if size is None else size
    moments = np.abs(mu @ activations[rows]) / np.where(size > 0, size, 1)
    return Chebyshev(
        coefficients=coefficients,
        offset=float(offset),
        worst_error=float(np.abs(activations @ coefficients + offset - target).max()),
        lower_bound=float(mu @ target[rows]),
        rows=rows,
        multipliers=mu,
        orthogonality=float(max(abs(mu.sum()), moments.max(initial=0.0))),
        half_range=float(target.max() / 2 - target.min() / 2),
        iterations=iterations,
        method=method,
    )


def check_target(target: np.ndarray, inputs: int) -> None:
    """Raise InputError for a target that has not one finite value for each input."""
    if target.shape != (inputs,):
        raise InputError(f"the target must have one value for each of the {inputs} inputs, not shape {target.shape}")
    if not np.isfinite(target).all():
        raise InputError("the target must be finite, but some values are infinite or not a number")


def check_activations(activations: np.ndarray) -> None:
    """Raise InputError for activations that are not a finite float64 matrix with at least one row."""
    if activations.ndim != 2 or activations.dtype != np.float64 or not len(activations):
        raise InputError("activations must be a float64 matrix with one row for each input, and at least one input")
    if not np.isfinite(activations).all():
        raise InputError("activations must be finite, but some are infinite or not a number")


def linear_program(activations: Float[np.ndarray, "inputs neurons"], target: Float[np.ndarray, " inputs"]) -> Chebyshev:
    """Solve the program of one target as it is written in this module's first lines.

    Activations are scaled to size 1 for the solver. Raises InputError for arrays that do not fit or are not finite.
    """
    from scipy.optimize import linprog

    check_activations(activations)
    check_target(target, len(activations))
    n, d = activations.shape
    size = np.abs(activations).max(0)
    scaled = activations / np.where(size > 0, size, 1)
    one, t = np.ones((n, 1)), -np.ones((n, 1))
    solution = linprog(
        np.eye(d + 2)[-1],  # of the unknowns r, c, t: minimise t
        np.vstack([np.hstack([scaled, one, t]), np.hstack([-scaled, -one, t])]),
        np.concatenate([target, -target]),
        bounds=[(None, None)] * (d + 2),
        method="highs-ds",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if solution.x is None:
        return measured(activations, target, np.zeros(d), 0.0, np.zeros(0, np.int64), np.zeros(0), 0, "least squares")
    above, below = np.split(solution.ineqlin.marginals, 2)
    measure = above - below
    if np.abs(measure).sum() < 0.5:
        # An exact fit: both constraints of an input are active, and cancel except for rounding.
        measure = np.zeros(n)
    rows = np.flatnonzero(measure)
    coefficients = solution.x[:d] / np.where(size > 0, size, 1)
    error = activations @ coefficients - target
    offset = -float(error.max() / 2 + error.min() / 2)  # the best for these coefficients, without the solver's rounding
    return measured(activations, target, coefficients, offset, rows, measure[rows], int(solution.nit), "linear program")


@dataclass(frozen=True)
class Minimax:
    """A minimax readoff and, for each output, the certificate that no linear readoff of this layer does better."""

    readoff: LinearReadoff
    """The readoff, in float64."""
    certificates: tuple[Chebyshev, ...]
    """One per output: its measured worst error ε and a signed measure μ on inputs (rows, multipliers) with
    Σ|μ| = 1, Σ μ a = 0, Σ μ = 0, so that every readoff has an error of at least Σ μ f on some input."""

    @property
    def proved(self) -> bool:
        """Whether every output's worst error equals its lower bound (to 1e-6)."""
        return all(certificate.proved for certificate in self.certificates)

    def tensors(self) -> dict[str, Tensor]:
        """Return the certificates as flat tensors: output i owns the entries offsets[i] … offsets[i+1] of rows and multipliers.

        `rows` number the inputs in the order of `Features.enumerate`.
        """
        sizes = torch.tensor([0] + [len(c.rows) for c in self.certificates])
        return {
            "certificate_offsets": sizes.cumsum(0),
            "certificate_rows": torch.cat([torch.from_numpy(c.rows) for c in self.certificates]),
            "certificate_multipliers": torch.cat([torch.from_numpy(c.multipliers) for c in self.certificates]),
            "lower_bounds": torch.tensor([c.lower_bound for c in self.certificates], dtype=torch.float64),
        }


@runtime_checkable
class Keeper(Protocol):
    """Keeps solved outputs, so that they are not solved again after a stop (see `runs.solved`)."""

    def known(self, key: str) -> list[Chebyshev]:
        """Return what was kept of outputs 0, 1, … of the problem with this key."""

    def keep(self, output: int, certificate: Chebyshev) -> None:
        """Keep an output."""


def check_minimax(features: Features, limit: int = ENUMERATION_LIMIT) -> None:
    """Raise InputError if there are too many inputs to solve over each of them.

    Features with real values pass: their minimax readoff is that of a given sample.
    """
    if limit < features.n_inputs < float("inf"):
        raise InputError(
            f"a minimax readoff needs all inputs, and {features.name} active features make "
            f"{count_in_words(int(features.n_inputs))}, more than {limit:,}: take fewer (active) features, or leave "
            "minimax out and name the other readoffs"
        )


@torch.no_grad()
def minimax(
    layer: nn.Module, task: Task, inputs: Inputs, progress: Loop = iter, processes: int = 1, kept: Keeper | None = None
) -> Minimax:
    """Find for each output i the minimum over (r, c) of max over inputs |r·a(x) + c − f_i(x)| (docs/theory.md, section 5).

    Computed and measured in float64 over the given inputs: over all possible inputs the result is the layer's own
    limit ε*; over a sample its lower bound still holds for all inputs, its upper bound only for the sample.
    `progress` may wrap the loop over outputs (a progress bar). The outputs are shared among `processes`, whose number does
    not change the result; a script that uses more than one must start under `if __name__ == "__main__":`. Outputs that `kept`
    knows are not solved again.
    Raises InputError for activations that are not finite; BrokenProcessPool if a process is killed.
    """
    check_whole(least=1, processes=processes)
    check_problem(layer, task, inputs)
    layer = copy.deepcopy(layer).double().eval()
    apply(layer, inputs.m, "layer")
    known = kept.known(_key(layer, task, inputs)) if kept is not None else []
    keep = kept.keep if kept is not None else lambda output, certificate: None
    certificates = tuple(certified(layer, task, inputs, progress, processes, known[: task.n_outputs], keep))
    weight = torch.from_numpy(np.stack([c.coefficients for c in certificates]))
    bias = torch.tensor([c.offset for c in certificates], dtype=torch.float64)
    return Minimax(LinearReadoff(weight, bias).to(inputs.indices.device), certificates)


def _key(layer: nn.Module, task: Task, inputs: Inputs) -> str:
    """Return a digest of the layer's weights, the task and the inputs."""
    digest = hashlib.sha256(f"{layer} {task.name} {task.m} {task.n_outputs} {inputs.description}".encode())
    tensors = {**layer.state_dict(), **task.stored(), "indices": inputs.indices, "values": inputs.values}
    for name, tensor in tensors.items():
        if tensor is not None:
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy())
    return digest.hexdigest()


@dispatched
def certified(
    layer: nn.Module,
    task: Task,
    inputs: Inputs,
    progress: Loop,
    processes: int,
    known: Sequence[Chebyshev] = (),
    keep: Callable[[int, Chebyshev], None] = lambda output, certificate: None,
) -> list[Chebyshev]:
    """Solve one program for each output from the first on that is not known."""
    x = inputs.dense(dtype=torch.float64)
    activations = layer(x).cpu().numpy()
    check_activations(activations)
    targets = task.targets(x).double().cpu().numpy()
    certificates = list(known)
    for output in progress(range(len(known), task.n_outputs)):
        certificates.append(linear_program(activations, targets[:, output].copy()))
        keep(output, certificates[-1])
    return certificates


@READOFFS(
    "minimax", order=80, colour="#D55E00", marker="o", sampled=True, needs="every input", default=True,
    source="linear program, docs/theory.md section 5",
)  # fmt: skip
def minimax_readoff(
    layer: nn.Module,
    task: Task,
    every_input: Inputs,
    progress: Loop = iter,
    processes: int = 1,
    kept: Keeper | None = None,
) -> Fitted:
    """Find the readoff of smallest worst error there is, each output with a certificate."""
    return fitted_minimax(minimax(layer, task, every_input, progress, processes, kept), every_input)


def fitted_minimax(fitted: Minimax, inputs: Inputs, task: Task | None = None) -> Fitted:
    """Turn minimax readoffs into a fitted readoff with `proved`, certificates, and the worst errors that the solver measured."""
    worst = torch.tensor([c.worst_error for c in fitted.certificates], dtype=torch.float64)
    facts = {"proved": fitted.proved, "lower_bound": max(c.lower_bound for c in fitted.certificates)}
    return Fitted(fitted.readoff, fitted.tensors(), facts, worst if inputs.enumerated else None, task)
