"""Minimise by L-BFGS in the metric of a Kronecker-factored curvature: the optimiser `kfac`.

L-BFGS (Liu & Nocedal, "On the limited memory BFGS method", 1989) builds on a first guess P of the inverse Hessian, usually a
multiple of the identity. Here P is the inverse of the curvature of the squared loss, factored as in K-FAC (Martens & Grosse,
arXiv:1503.05671): for a linear readoff R of activations a, and a first layer of inputs x,

    readoff: E[ã ãᵀ]⁻¹ for every output          layer: (RᵀR)⁻¹ ⊗ E[x̃ x̃ᵀ]⁻¹

with ã = (a, 1), x̃ = (x, 1), and the share of active neurons left out as a common factor. The step length satisfies the weak
Wolfe conditions, found by doubling and bisection (Lewis & Overton, "Nonsmooth optimization via quasi-Newton methods", 2013).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from toymodels.core.features import Inputs
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff

HISTORY = 10
"""Steps that the estimate of the curvature remembers."""
DAMPING = {"inputs": 1e-3, "outputs": 0.1}
"""Share of the mean diagonal that is added to the diagonals of E[ã ãᵀ] and E[x̃ x̃ᵀ], and of RᵀR."""
_FIRST = 0.1
"""Length of the first step that is tried, over all parameters."""
_DECREASE, _SLOPE, _TRIES = 1e-4, 0.9, 25
"""Of the weak Wolfe conditions, and how many step lengths are tried."""
_BLOCK = 2**20
"""Activations computed at once."""


Group = tuple[nn.Parameter, ...]
"""Parameters with as many rows as one another, joined as (weight | bias)."""


@dataclass(frozen=True)
class Block:
    """The metric P of one linear map."""

    parameters: Group
    left: Float[Tensor, "rows rows"] | None
    right: Float[Tensor, "columns columns"]

    def apply(self, slopes: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
        """Return P times slopes."""
        slopes = slopes @ self.right
        return slopes if self.left is None else self.left @ slopes


def groups_of(network: Network) -> list[Group]:
    """Return the trained parameters: weight and bias of each linear map together, and every other one alone."""
    maps = [part for part in network.modules() if isinstance(part, FirstLayer | LinearReadoff)]
    groups: list[Group] = [group for group in map(_trained, maps) if group]
    known = {id(parameter) for group in groups for parameter in group}
    return groups + [(p,) for p in network.parameters() if p.requires_grad and id(p) not in known]


@torch.no_grad()
def curvature(network: Network, inputs: Inputs) -> list[Block]:
    """Compute the metric of a network with a linear readoff, from all inputs with their probabilities.

    First layers other than `FirstLayer` (also behind an embedding), and readoffs that are not linear, have no block.
    """
    readoff = network.readoff
    if not isinstance(readoff, LinearReadoff):
        return []
    layers = [part for part in network.layer.modules() if type(part) is FirstLayer and part.weight.requires_grad]
    layer = layers[0] if len(layers) == 1 else None
    of_layer = _trained(layer) if layer is not None else ()
    seen: list[Tensor] = []
    hook = None if layer is None else layer.register_forward_pre_hook(lambda part, arguments: seen.append(arguments[0]))
    moments: dict[str, Tensor] = {}
    dtype = readoff.weight.dtype
    try:
        for rows in inputs.blocks(max(1, _BLOCK // (readoff.weight.shape[1] + inputs.m))):
            share = inputs.probabilities[rows, None]
            maps = {"readoff": (network.layer(inputs.dense(rows, dtype)), readoff.bias.requires_grad)}
            if layer is not None:
                maps["layer"] = (seen.pop(), layer.bias.requires_grad)
            for name, (values, with_bias) in maps.items():
                values = values.double()
                joined = torch.cat([values, values.new_ones(len(values), 1)], 1) if with_bias else values
                moments[name] = moments.get(name, 0.0) + (share * joined).T @ joined
    finally:
        if hook is not None:
            hook.remove()
    inverse = {name: _inverse(moment, DAMPING["inputs"]).to(dtype) for name, moment in moments.items()}
    blocks = [Block(_trained(readoff), None, inverse["readoff"])] if readoff.weight.requires_grad else []
    if layer is not None and layer.weight.shape[0] == readoff.weight.shape[1]:
        weight = readoff.weight.double()
        # A readoff that is 0, as at the start, must not make the layer's metric infinite: a readoff of outputs of size 1/10
        # has entries of about this size.
        least = 1e-2 * len(weight) / max(float(moments["readoff"].trace()), torch.finfo(torch.float64).tiny)
        left = _inverse(weight.T @ weight, DAMPING["outputs"], least)
        blocks.append(Block(of_layer, left.to(dtype), inverse["layer"]))
    return blocks


def _trained(module: FirstLayer | LinearReadoff) -> Group:
    return tuple(parameter for parameter in module.parameters(recurse=False) if parameter.requires_grad)


def _inverse(matrix: Float[Tensor, "n n"], damping: float, least: float = 0.0) -> Float[Tensor, "n n"]:
    """Return the inverse, with a share of the mean diagonal, and of `least`, added to the diagonal."""
    added = damping * (float(matrix.diagonal().mean()) + least)
    return torch.linalg.inv(matrix + (added or 1.0) * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device))


class PreconditionedLBFGS:
    """Minimises a function of parameters, from values and gradients; its state can be saved between calls.

    The two loops of L-BFGS are written with products of the whole history: four of them, and not forty of single vectors.
    """

    def __init__(self, groups: Sequence[Group]):
        """Take the parameters; all have the same type and device."""
        self.groups = list(groups)
        self._sizes = [sum(parameter.numel() for parameter in group) for group in self.groups]
        self._rows = [len(group[0]) if group[0].ndim else 1 for group in self.groups]
        self._steps = self.groups[0][0].detach().new_zeros(HISTORY, sum(self._sizes))
        """Differences of parameters, flat, a row each; their changes of the gradient are what is known of the curvature."""
        self._changes = torch.zeros_like(self._steps)
        self._products = np.zeros((HISTORY, HISTORY))
        """Of each step with each later change; others are not used."""
        self._order: list[int] = []
        """The rows in use, the oldest first."""
        self._reached: tuple[float, Tensor] | None = None

    def minimise(self, evaluate: Callable[[], float], blocks: Sequence[Block], iterations: int) -> bool:
        """Take steps; return False if no more progress can be made in this precision.

        `evaluate` returns the value at the parameters and adds its gradient to `grad`, which is empty when it is called; the last
        call is at the parameters reached.
        Raises ArithmeticError if the value at the start is not finite.
        """
        at = self._joined([[parameter.detach() for parameter in group] for group in self.groups])
        value, slope = self._reached or self._evaluate(at, evaluate)
        if not math.isfinite(value):
            raise ArithmeticError(f"the function is {value} at the parameters given")
        for _ in range(iterations):
            found = self._search(at, value, slope, blocks, evaluate)
            if found is None and self._order:  # what is remembered may be wrong here
                self.forget()
                found = self._search(at, value, slope, blocks, evaluate)
            if found is None:
                self._reached = self._evaluate(at, evaluate)
                return False
            step, value, new = found
            self.remember(step, new - slope)
            at, slope = at + step, new
        self._reached = value, slope
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return what the next steps depend on, beside the parameters."""
        used = len(self._order)
        return {
            "steps": self._steps[:used].clone(),
            "changes": self._changes[:used].clone(),
            "products": torch.from_numpy(self._products[:used, :used].copy()),
            "order": list(self._order),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state. Raises ValueError for one of other parameters."""
        order, used = list(state["order"]), len(state["order"])
        size = (used, sum(self._sizes))
        if sorted(order) != list(range(used)) or used > HISTORY or state["products"].shape != (used, used):
            raise ValueError("the state is that of another minimisation")
        if any(state[name].shape != size for name in ("steps", "changes")):
            raise ValueError("the state is that of other parameters")
        self._steps[:used], self._changes[:used] = state["steps"], state["changes"]
        self._products[:used, :used] = state["products"].numpy()
        self._order, self._reached = order, None

    def _search(
        self, at: Tensor, value: float, slope: Tensor, blocks: Sequence[Block], evaluate: Callable[[], float]
    ) -> tuple[Tensor, float, Tensor] | None:
        """Find a step that satisfies the weak Wolfe conditions; return it with value and gradient there."""
        direction = self.direction(slope, blocks)
        along = float(slope @ direction)
        size = float(direction.norm())
        # Near an optimum the decrease is smaller than the rounding of the value.
        rounding = 4 * torch.finfo(slope.dtype).eps * abs(value)
        if not -along > rounding or not math.isfinite(size):
            return None
        length = 1.0 if self._order else min(1.0, _FIRST / size)
        low, high = 0.0, math.inf
        best: tuple[Tensor, float, Tensor] | None = None
        for _ in range(_TRIES):
            step = length * direction
            there, new = self._evaluate(at + step, evaluate)
            if not there <= value + _DECREASE * length * along + rounding:  # also if it is not a number
                high = length
            else:
                best = step, there, new
                if float(new @ direction) >= _SLOPE * along:
                    return best
                low = length
            length = (low + high) / 2 if high < math.inf else 2 * length
        if best is None or not best[1] < value:
            return None
        self._evaluate(at + best[0], evaluate)  # the last evaluation is that of the parameters that are left behind
        return best

    @property
    def remembers(self) -> bool:
        """Whether it knows anything of the curvature."""
        return bool(self._order)

    def forget(self) -> None:
        """Forget the curvature."""
        self._order = []

    def remember(self, step: Tensor, change: Tensor) -> None:
        """Keep a step and its change of the gradient, in place of the oldest; not if the function curves down along it."""
        if not float(step @ change) > 0:
            return
        row = self._order.pop(0) if len(self._order) == HISTORY else len(self._order)
        self._order.append(row)
        self._steps[row], self._changes[row] = step, change
        used = len(self._order)
        self._products[:used, row] = (self._steps[:used] @ change).tolist()

    def direction(self, slope: Tensor, blocks: Sequence[Block]) -> Tensor:
        """Return −H·slope; the metric is scaled to the curvature along the last step."""
        order = self._order
        if not order:
            return -self._precondition(slope, blocks)
        used, last = len(order), order[-1]
        steps, changes, products = self._steps[:used], self._changes[:used], self._products
        by_step = (steps @ slope).tolist()
        first = np.zeros(used)
        for row in reversed(order):
            first[row] = (by_step[row] - products[row, :used] @ first) / products[row, row]
        direction = slope - _as(first, slope) @ changes
        scale = products[last, last] / float(changes[last] @ self._precondition(changes[last], blocks))
        direction = scale * self._precondition(direction, blocks)
        by_change = (changes @ direction).tolist()
        second = np.zeros(used)
        for row in order:
            second[row] = first[row] - (by_change[row] + products[:used, row] @ second) / products[row, row]
        return -(direction + _as(second, slope) @ steps)

    def _precondition(self, vector: Tensor, blocks: Sequence[Block]) -> Tensor:
        metric = {id(block.parameters[0]): block for block in blocks}
        parts = []
        for group, rows, part in zip(self.groups, self._rows, vector.split(self._sizes), strict=True):
            block = metric.get(id(group[0]))
            parts.append(part if block is None else block.apply(part.view(rows, -1)).view(-1))
        return torch.cat(parts)

    def _joined(self, values: Sequence[Sequence[Tensor]]) -> Tensor:
        """Join a tensor for each parameter to one vector."""
        parts = []
        for rows, group in zip(self._rows, values, strict=True):
            columns = [value.reshape(rows, -1) for value in group]
            parts.append((columns[0] if len(columns) == 1 else torch.cat(columns, 1)).view(-1))
        return torch.cat(parts)

    def _evaluate(self, at: Tensor, evaluate: Callable[[], float]) -> tuple[float, Tensor]:
        with torch.no_grad():
            for group, rows, part in zip(self.groups, self._rows, at.split(self._sizes), strict=True):
                table, column = part.view(rows, -1), 0
                for parameter in group:
                    width = parameter.numel() // rows
                    parameter.copy_(table[:, column : column + width].reshape(parameter.shape))
                    parameter.grad = None
                    column += width
        value = evaluate()
        slopes = [[torch.zeros_like(p) if p.grad is None else p.grad for p in group] for group in self.groups]
        return value, self._joined(slopes)


def _as(values: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like)
