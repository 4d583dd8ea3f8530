"""Layers that a permutation of the features maps to themselves: fewer parameters to train, fewer outputs to solve and store.

Let a permutation of the features carry every neuron to a neuron: a_n(x) = a_n'(x'), x' the permuted input. Then the best readoff
of an output, its coefficients carried along, is the best readoff of the permuted output. One output of each orbit stands for all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from toymodels.atlas.cells import Cell, set_size
from toymodels.errors import InputError

Moves = Int[np.ndarray, "moves m"]
"""Permutations of the features: feature i goes to moves[j, i]."""


def check_moves(moves: np.ndarray, m: int) -> None:
    """Raise InputError unless each row is a permutation of 0, …, m − 1."""
    if moves.ndim != 2 or moves.dtype.kind not in "iu" or moves.shape[1] != m:
        raise InputError(f"moves must be whole numbers, a row of {m} for each permutation of the features")
    if not (np.sort(moves, 1) == np.arange(m)).all():
        raise InputError(f"moves must be permutations of the features 0 to {m - 1}")


def neurons_moved(layer: Float[np.ndarray, "d columns"], move: Int[np.ndarray, " m"]) -> Int[np.ndarray, " d"]:
    """Return the neuron to which each neuron goes. Raises InputError if the permuted layer is not the same neurons."""
    layer = layer + 0.0  # −0 has other bytes than 0
    numbers: dict[bytes, list[int]] = {}
    for number, row in enumerate(layer):
        numbers.setdefault(row.tobytes(), []).append(number)
    moved = layer.copy()
    moved[:, move] = layer[:, :-1]
    to = [numbers[row.tobytes()].pop(0) if numbers.get(row.tobytes()) else -1 for row in moved]
    if min(to, default=0) < 0:
        raise InputError("a permutation of the features does not carry the neurons of this layer to its neurons")
    return np.array(to)


def outputs_moved(cell: Cell, move: Int[np.ndarray, " m"]) -> Int[np.ndarray, " outputs"]:
    """Return the output to which each output goes."""
    sets = np.array(list(itertools.combinations(range(cell.m), set_size(cell.task))))
    place = cell.m ** np.arange(sets.shape[1])[::-1]
    return np.searchsorted(sets @ place, np.sort(move[sets], 1) @ place)


def representatives(cell: Cell, moves: Moves) -> Int[np.ndarray, " orbits"]:
    """Return the first output of each orbit, in order."""
    to = [outputs_moved(cell, move) for move in moves]
    first, seen = [], np.zeros(cell.outputs, bool)
    for output in range(cell.outputs):
        if not seen[output]:
            first.append(output)
            _spread(output, to, seen)
    return np.array(first)


def _spread(output: int, to: Sequence[np.ndarray], seen: Bool[np.ndarray, " outputs"]) -> list[tuple[int, int, int]]:
    """Mark the orbit of an output; return (output, move, output to which it goes) for each new one."""
    seen[output] = True
    steps, left = [], [output]
    while left:
        at = left.pop()
        for number, images in enumerate(to):
            if not seen[image := int(images[at])]:
                seen[image] = True
                left.append(image)
                steps.append((at, number, image))
    return steps


def spread_readoffs(
    cell: Cell,
    layer: Float[np.ndarray, "d columns"],
    moves: Moves,
    readoff: Float[np.ndarray, "orbits d"],
    offset: Float[np.ndarray, " orbits"],
) -> tuple[Float[np.ndarray, "outputs d"], Float[np.ndarray, " outputs"]]:
    """Carry the readoffs of the first output of each orbit to all outputs.

    Raises InputError for moves that are no permutations or do not carry neurons to neurons, and for another number of readoffs.
    """
    check_moves(moves, cell.m)
    first = representatives(cell, moves)
    if readoff.shape != (len(first), cell.d) or offset.shape != (len(first),):
        raise InputError(f"readoff and offset must be those of {len(first)} outputs, one of each orbit of the moves")
    neurons, to = [neurons_moved(layer, move) for move in moves], [outputs_moved(cell, move) for move in moves]
    every, offsets = np.zeros((cell.outputs, cell.d), readoff.dtype), np.zeros(cell.outputs)
    every[first], offsets[first] = readoff, offset
    seen = np.zeros(cell.outputs, bool)
    for output in first.tolist():
        for at, number, image in _spread(output, to, seen):
            every[image, neurons[number]] = every[at]
            offsets[image] = offsets[at]
    return every, offsets


@dataclass(frozen=True)
class Cycle:
    """A permutation of the features, applied again and again, with a cycle of neurons for each of some lengths."""

    move: tuple[int, ...]
    """Feature i goes to move[i]."""
    lengths: tuple[int, ...]
    """Lengths of the cycles of neurons: d in all. Each divides the order of the permutation."""

    @property
    def moves(self) -> Moves:
        """The permutation, as the one row of a matrix."""
        return np.array([self.move])

    def parameters(self) -> Int[np.ndarray, "d columns"]:
        """Return the number of the parameter at each place of (W | b).

        In a cycle of n neurons each is the permuted one before; a neuron of n is itself after n permutations, so that its
        weights are equal where these carry features to one another.
        """
        move, m, rows, used = np.array(self.move), len(self.move), [], 0
        for length in self.lengths:
            around = np.arange(m)
            for _ in range(length):
                around = move[around]
            kind = np.full(m, -1)
            for i in range(m):
                at = i
                while kind[at] < 0:
                    kind[at] = i
                    at = around[at]
            kinds, row = np.unique(kind, return_inverse=True)
            row = np.append(row, len(kinds)) + used
            used = int(row[m]) + 1
            for _ in range(length):
                rows.append(row)
                row = row.copy()
                row[move] = rows[-1][:m]
        return np.stack(rows)


def draw_cycle(cell: Cell, rng: np.random.Generator) -> Cycle | None:
    """Draw a permutation of features with equally long cycles, but for two fixed features at most, and cycles of d neurons.

    None if there is no such permutation that leaves at most half of the neurons to shorter cycles.
    """
    choices = [n for n in range(2, cell.m + 1) if cell.m % n <= 2 and cell.d >= n and cell.d % n <= cell.d // 2]
    if not choices:
        return None
    n = int(rng.choice(choices))
    move, moved = np.arange(cell.m), cell.m - cell.m % n
    move[:moved] = (move[:moved] + moved // n) % moved  # a power of one long cycle: where that is a symmetry, this is
    lengths, left = [n] * (cell.d // n), cell.d % n
    for length in (part for part in range(n - 1, 0, -1) if n % part == 0):
        lengths += [length] * (left // length)
        left %= length
    return Cycle(tuple(move.tolist()), tuple(lengths))
