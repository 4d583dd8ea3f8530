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


@dataclass(frozen=True)
class Block:
    """The metric of one linear map: weight, or bias, or both joined as (weight | bias)."""

    parameters: tuple[Tensor, ...]
    left: Float[Tensor, "rows rows"] | None
    right: Float[Tensor, "columns columns"]

    def apply(self, slopes: Sequence[Tensor]) -> list[Tensor]:
        """Return P times slopes of the shapes of the parameters."""
        joined = torch.cat([slope.reshape(len(slope), -1) for slope in slopes], 1) @ self.right
        if self.left is not None:
            joined = self.left @ joined
        parts = joined.split([slope[0].numel() for slope in slopes], 1)
        return [part.reshape(slope.shape) for part, slope in zip(parts, slopes, strict=True)]


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
    for rows in inputs.blocks(max(1, _BLOCK // (readoff.weight.shape[1] + inputs.m))):
        share = inputs.probabilities[rows, None]
        maps = {"readoff": (network.layer(inputs.dense(rows, dtype)), readoff.bias.requires_grad)}
        if layer is not None:
            maps["layer"] = (seen.pop(), layer.bias.requires_grad)
        for name, (values, with_bias) in maps.items():
            values = values.double()
            joined = torch.cat([values, values.new_ones(len(values), 1)], 1) if with_bias else values
            moments[name] = moments.get(name, 0.0) + (share * joined).T @ joined
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


def _trained(module: FirstLayer | LinearReadoff) -> tuple[Tensor, ...]:
    return tuple(parameter for parameter in (module.weight, module.bias) if parameter.requires_grad)


def _inverse(matrix: Float[Tensor, "n n"], damping: float, least: float = 0.0) -> Float[Tensor, "n n"]:
    """Return the inverse, with a share of the mean diagonal, and of `least`, added to the diagonal."""
    added = damping * (float(matrix.diagonal().mean()) + least)
    return torch.linalg.inv(matrix + (added or 1.0) * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device))


class PreconditionedLBFGS:
    """Minimises a function of parameters, from values and gradients; its state can be saved between calls."""

    def __init__(self, parameters: Sequence[nn.Parameter]):
        """Take the parameters; all have the same type and device."""
        self.parameters = list(parameters)
        self.steps: list[Tensor] = []
        """Differences of parameters, flat, and those of gradients: what is known of the curvature."""
        self.changes: list[Tensor] = []
        self._reached: tuple[float, Tensor] | None = None

    def minimise(self, evaluate: Callable[[], float], blocks: Sequence[Block], iterations: int) -> bool:
        """Take steps; return False if no more progress can be made in this precision.

        `evaluate` returns the value at the parameters and adds its gradient to `grad`, which is empty when it is called; the last
        call is at the parameters reached.
        Raises ArithmeticError if the value at the start is not finite.
        """
        at = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        value, slope = self._reached or self._evaluate(at, evaluate)
        if not math.isfinite(value):
            raise ArithmeticError(f"the function is {value} at the parameters given")
        for _ in range(iterations):
            found = self._search(at, value, slope, blocks, evaluate)
            if found is None and self.steps:  # what is remembered may be wrong here
                self.forget()
                found = self._search(at, value, slope, blocks, evaluate)
            if found is None:
                self._reached = self._evaluate(at, evaluate)
                return False
            step, value, new = found
            change = new - slope
            if float(step @ change) > 0:
                self.steps, self.changes = [*self.steps[-HISTORY + 1 :], step], [*self.changes[-HISTORY + 1 :], change]
            at, slope = at + step, new
        self._reached = value, slope
        return True

    def forget(self) -> None:
        """Forget what is known of the curvature, and the value that was reached: another function follows."""
        self.steps, self.changes, self._reached = [], [], None

    def state_dict(self) -> dict[str, Any]:
        """Return what the next steps depend on, beside the parameters."""
        return {"steps": list(self.steps), "changes": list(self.changes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state. Raises ValueError for one of other parameters."""
        size = sum(parameter.numel() for parameter in self.parameters)
        pairs = list(zip(state["steps"], state["changes"], strict=True))
        if len(pairs) > HISTORY or any(vector.shape != (size,) for pair in pairs for vector in pair):
            raise ValueError("the state is that of other parameters")
        like = self.parameters[0].detach()
        self.steps, self.changes = ([vector.to(like) for vector in state[name]] for name in ("steps", "changes"))
        self._reached = None

    def _search(
        self, at: Tensor, value: float, slope: Tensor, blocks: Sequence[Block], evaluate: Callable[[], float]
    ) -> tuple[Tensor, float, Tensor] | None:
        """Find a step that satisfies the weak Wolfe conditions; return it with value and gradient there."""
        direction = self._direction(slope, blocks)
        along = float(slope @ direction)
        size = float(direction.norm())
        # Near an optimum the decrease is smaller than the rounding of the value.
        rounding = 4 * torch.finfo(slope.dtype).eps * abs(value)
        if not -along > rounding or not math.isfinite(size):
            return None
        length = 1.0 if self.steps else min(1.0, _FIRST / size)
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

    def _direction(self, slope: Tensor, blocks: Sequence[Block]) -> Tensor:
        """Return −H·slope by the two loops of L-BFGS; the metric is scaled to the curvature along the last step."""
        direction, shares = -slope, []
        products = [float(step @ change) for step, change in zip(self.steps, self.changes, strict=True)]
        remembered = list(zip(self.steps, self.changes, products, strict=True))
        for step, change, product in reversed(remembered):
            shares.append(float(step @ direction) / product)
            direction = direction.add(change, alpha=-shares[-1])
        direction = self._precondition(direction, blocks)
        if remembered:
            direction = direction * (
                products[-1] / float(self.changes[-1] @ self._precondition(self.changes[-1], blocks))
            )
        for (step, change, product), share in zip(remembered, reversed(shares), strict=True):
            direction = direction.add(step, alpha=share - float(change @ direction) / product)
        return direction

    def _precondition(self, vector: Tensor, blocks: Sequence[Block]) -> Tensor:
        parts = vector.split([parameter.numel() for parameter in self.parameters])
        shaped = [part.view(parameter.shape) for part, parameter in zip(parts, self.parameters, strict=True)]
        number = {id(parameter): position for position, parameter in enumerate(self.parameters)}
        for block in blocks:
            at = [number[id(parameter)] for parameter in block.parameters]
            for position, part in zip(at, block.apply([shaped[position] for position in at]), strict=True):
                shaped[position] = part
        return torch.cat([part.reshape(-1) for part in shaped])

    def _evaluate(self, at: Tensor, evaluate: Callable[[], float]) -> tuple[float, Tensor]:
        self._set(at)
        for parameter in self.parameters:
            parameter.grad = None
        value = evaluate()
        slopes = [p.new_zeros(p.numel()) if p.grad is None else p.grad.reshape(-1) for p in self.parameters]
        return value, torch.cat(slopes)

    @torch.no_grad()
    def _set(self, at: Tensor) -> None:
        parts = at.split([parameter.numel() for parameter in self.parameters])
        for parameter, part in zip(self.parameters, parts, strict=True):
            parameter.copy_(part.view(parameter.shape))
