"""Train many layers at once on the L_p error with p rising from 2 to 64, and drop the worst ones on the way.

All members of an ensemble take the steps of L-BFGS (Nocedal 1980) in the same batched products: for small layers
this costs little more than one member. After each exponent from `HALVED` on, only the best share goes on:
successive halving (Jamieson & Talwalkar, "Non-stochastic best arm identification and hyperparameter optimization", 2016).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.atlas.cells import Cell
from toymodels.atlas.symmetry import Cycle, representatives
from toymodels.errors import InputError, check_whole

HISTORY = 10
"""Steps that the estimate of the curvature remembers."""
HALVED = 8.0
"""The exponent after which members are first dropped."""
WEIGHTED = 8.0
"""Up to this exponent ones and zeros weigh the same: with few ones, the square error would otherwise train the zero function."""
_TRIES, _SHORTER = 8, 0.3
_BLOCK = 2**22
"""Activations or errors that are held at once."""

Vectors = Float[Tensor, "members parameters"]
Function = Callable[[Vectors], tuple[Float[Tensor, " members"], Vectors, Float[Tensor, " members"]]]
"""Returns each member's loss, its gradient, and its largest |error|."""


class Ensemble:
    """Layers with readoffs, each a row of parameters: (W | b), then (R | c).

    With a cycle (`atlas.symmetry`) a layer has one parameter for all places of (W | b) that the cycle makes equal, and readoffs
    of one output of each orbit: the loss is that of these outputs.
    """

    def __init__(self, cell: Cell, cycle: Cycle | None = None):
        """Take the inputs and targets of a cell."""
        self.cell = cell
        self._x = torch.from_numpy(cell.x().copy())
        every = np.arange(cell.outputs) if cycle is None else representatives(cell, cycle.moves)
        self._f = torch.from_numpy(cell.targets()[:, every].T.copy())
        places = np.arange(cell.d * (cell.m + 1)).reshape(cell.d, -1) if cycle is None else cycle.parameters()
        self._first = np.unique(places, return_index=True)[1]
        self._places = torch.from_numpy(places)
        ones = self._f
        self._weights = 0.5 * ones / ones.sum().clamp(min=1) + 0.5 * (1 - ones) / (1 - ones).sum().clamp(min=1)

    def begin(self, starts: Sequence[Float[np.ndarray, "d m+1"]]) -> Vectors:
        """Join layers and their least-squares readoffs, a little damped; of equal places the first counts."""
        rows = []
        x, f = self._x.numpy(), self._f.numpy()
        for start in starts:
            free = start.ravel()[self._first]
            start = free[self._places.numpy()]
            a = np.column_stack([np.maximum(x @ start[:, :-1].T + start[:, -1], 0), np.ones(len(x))])
            gram = a.T @ a
            gram.flat[:: len(gram) + 1] += 1e-6 * max(1.0, float(gram.diagonal().mean()))
            rows.append(np.concatenate([free, np.linalg.solve(gram, a.T @ f.T).T.ravel()]))
        return torch.from_numpy(np.stack(rows))

    def layers(self, vectors: Vectors) -> Float[Tensor, "members d m+1"]:
        """Return the layers of the members."""
        return vectors[:, : len(self._first)][:, self._places]

    def loss(self, exponent: float) -> Function:
        """Return the L_p error, (Σ w |e|^p)^(1/p), of an exponent that is a power of 2; w sums to 1."""
        doublings = int(np.log2(exponent))
        weights = self._weights if exponent <= WEIGHTED else torch.full_like(self._weights, 1 / self._weights.numel())

        def function(vectors: Vectors) -> tuple[Tensor, Tensor, Tensor]:
            size = max(1, _BLOCK // (max(self.cell.d, len(self._f)) * self.cell.inputs))
            parts = [self._loss(part, doublings, weights) for part in vectors.split(size)]
            values, slopes, largest = zip(*parts, strict=True)
            return torch.cat(values), torch.cat(slopes), torch.cat(largest)

        return function

    def _loss(self, vectors: Vectors, doublings: int, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        layer, number = self.layers(vectors), len(self._first)
        readoff = vectors[:, number:].reshape(len(vectors), len(self._f), self.cell.d + 1)
        z = layer[:, :, :-1] @ self._x.T + layer[:, :, -1:]
        a = z.clamp(min=0)
        error = torch.baddbmm(readoff[:, :, -1:] - self._f, readoff[:, :, :-1], a)
        largest = error.abs().amax((1, 2), keepdim=True).clamp(min=1e-300)
        u = error / largest
        square, power = u * u, u * weights
        for _ in range(doublings - 1):
            power = power * square  # at the end w u^(p−1)
            square = square * square
        total = (power * u).sum((1, 2), keepdim=True).clamp(min=1e-300)
        root = total ** (0.5**doublings)
        slope = power * (root / total)
        d_readoff = torch.cat([slope @ a.transpose(1, 2), slope.sum(2, keepdim=True)], 2)
        d_z = (readoff[:, :, :-1].transpose(1, 2) @ slope) * (z > 0)
        d_layer = torch.cat([d_z @ self._x, d_z.sum(2, keepdim=True)], 2)
        d_free = vectors.new_zeros(len(vectors), number).index_add_(1, self._places.view(-1), d_layer.flatten(1))
        return (largest * root).view(-1), torch.cat([d_free, d_readoff.flatten(1)], 1), largest.view(-1)


def train(
    cell: Cell,
    starts: Sequence[Float[np.ndarray, "d m+1"]],
    exponents: Sequence[float] = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
    steps: int = 100,
    kept: int = 4,
    cycle: Cycle | None = None,
) -> list[tuple[float, Float[np.ndarray, "d m+1"], int]]:
    """Train an ensemble; return (largest error, layer, number of its start) of the members that are left, the best first.

    `steps` are taken with each exponent; in the end about `kept` members are left. The largest error is
    that of the trained readoffs. With a cycle all layers keep its symmetry.
    Raises InputError for no starts, or exponents that are not powers of 2.
    """
    check_whole(1, steps=steps, kept=kept)
    if not len(starts) or any(start.shape != (cell.d, cell.m + 1) for start in starts):
        raise InputError(f"starts must be at least one matrix (W | b) of the shape {(cell.d, cell.m + 1)}")
    if not exponents or any(p < 2 or not float(np.log2(p)).is_integer() for p in exponents):
        raise InputError(f"exponents = {tuple(exponents)}: each must be a power of 2, such as 2, 4, 8")
    ensemble = Ensemble(cell, cycle)
    vectors = ensemble.begin(starts)
    numbers = torch.arange(len(starts))
    largest = torch.zeros(0)
    halvings = max(1, sum(p >= HALVED for p in exponents) - 1)
    share = min(1.0, (kept / len(starts)) ** (1 / halvings))
    for position, exponent in enumerate(exponents):
        vectors, largest = lbfgs(ensemble.loss(exponent), vectors, steps)
        if exponent >= HALVED and position < len(exponents) - 1:
            chosen = largest.argsort()[: max(kept, round(share * len(largest)))]
            vectors, numbers, largest = vectors[chosen], numbers[chosen], largest[chosen]
    order = largest.argsort()
    layers = ensemble.layers(vectors).numpy()
    return [(float(largest[i]), layers[i].copy(), int(numbers[i])) for i in order.tolist()]


def lbfgs(function: Function, at: Vectors, steps: int) -> tuple[Vectors, Float[Tensor, " members"]]:
    """Take steps of L-BFGS with every member, each with a line search of its own that shortens its step until its loss falls."""
    value, slope, largest = function(at)
    number = len(at)
    moves, changes = at.new_zeros(HISTORY, *at.shape), at.new_zeros(HISTORY, *at.shape)
    inverse = at.new_zeros(HISTORY, number)
    scale = 0.1 / slope.norm(dim=1).clamp(min=1e-300)
    for step in range(steps):
        order = [(step - 1 - back) % HISTORY for back in range(min(step, HISTORY))]
        direction, shares = slope.clone(), []
        for row in order:
            shares.append(inverse[row] * (moves[row] * direction).sum(1))
            direction -= shares[-1][:, None] * changes[row]
        direction *= scale[:, None]
        for row, share in zip(reversed(order), reversed(shares), strict=True):
            direction += (share - inverse[row] * (changes[row] * direction).sum(1))[:, None] * moves[row]
        direction = -direction
        along = (direction * slope).sum(1)
        upward = ~(along < 0)
        direction[upward] = -slope[upward] * scale[upward, None]
        along = torch.where(upward, (direction * slope).sum(1), along)
        length = torch.ones_like(value)
        new, new_value, new_slope, new_largest = at.clone(), value.clone(), slope.clone(), largest.clone()
        left = torch.arange(number)
        for _ in range(_TRIES):
            tried = at[left] + length[left, None] * direction[left]
            result = function(tried)
            falls = result[0] <= value[left] + 1e-4 * length[left] * along[left]
            chosen = left[falls]
            new[chosen], new_value[chosen] = tried[falls], result[0][falls]
            new_slope[chosen], new_largest[chosen] = result[1][falls], result[2][falls]
            left = left[~falls]
            if not len(left):
                break
            length[left] *= _SHORTER
        move, change = new - at, new_slope - slope
        product, square = (move * change).sum(1), (change * change).sum(1)
        useful = product > 1e-14 * square
        row = step % HISTORY
        moves[row], changes[row] = move * useful[:, None], change * useful[:, None]
        inverse[row] = torch.where(useful, 1 / product.clamp(min=1e-300), 0)
        scale = torch.where(useful, product / square.clamp(min=1e-300), scale)
        at, value, slope, largest = new, new_value, new_slope, new_largest
    return at, largest
