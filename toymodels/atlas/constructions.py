"""Make the layers that are known without a search, each with the worst error that a proof promises (docs/theory.md, section 8).

For AND of all pairs at most 2 active, let features be distinct vectors of F_2^n, M = 2^n. A neuron (χ(i) + χ(j))⁺ of a character
χ(x) = (−1)^{a·x} is 2 where both are +, and 4·[both +] = 1 + χ(i) + χ(j) + χ(i + j): besides the features themselves it sees
the sum i + j. The readoff of a pair adds how many of its features are there (2, 1 or 0) and whether the sum is its own.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from toymodels.atlas.cells import Cell, set_size
from toymodels.errors import check_whole
from toymodels.theory.gates import GATE_NAMES, Gate

Layer = Float[np.ndarray, "_ columns"]
"""Weights and, in the last column, biases."""
LEAST_ON_A_PLANE = 5
"""Features from which `on_a_plane` holds."""
_NEARLY = 2e-6
_POLYNOMIALS = {3: 0b1011, 4: 0b10011, 5: 0b100101, 6: 0b1000011, 7: 0b10000011, 8: 0b100011101}
"""A primitive polynomial over F_2 of each degree: x^3 + x + 1, …"""
MOST_LABELLED = 256
"""Features up to which `labels` has a polynomial."""
_DILLON = bytes.fromhex(
    "0036300d0f123523193f2d34031429213b2402220a0839253c132a0e321a3a18"
    "271b1511101d013e2f283338072b2c261f0b041c3d2e0531090617201e0c3716"
)
"""A permutation F of F_2^6 for which F(x + a) + F(x) has each value twice, for each a ≠ 0: Browning, Dillon, McQuistan and Wolfe,
"An APN permutation in dimension six", 2010."""
CODES = {
    4: (0x2FE4, 0x7FCB),
    5: (0x4D886543, 0x683AC8D1, 0x6E4C3C6B, 0x7425DBEC, 0x773B93F5, 0x37EBB9FF),
    6: (0x511400D28708B180, 0x5E202A041303E208, 0x2351296814996100, 0x1B834738A85222C),
}
"""Linear codes of n bits whose weights are close to one another: bit v − 1 is set for each column v in F_2^n. Found by exchanging
columns."""


@dataclass(frozen=True)
class Construction:
    """A layer that can be written down."""

    how: str
    error: float
    """The worst error that it is proved to reach; infinite if nothing is promised."""
    layer: Callable[[], Layer]
    """Makes it, of as many neurons as it needs."""
    moves: Int[np.ndarray, "moves m"] | None = None
    """Permutations of the features that carry its neurons to its neurons (`atlas.symmetry`)."""


def constructions(cell: Cell) -> Iterator[Construction]:
    """Yield the constructions that need no more neurons than a cell has."""
    m, d, size = cell.m, cell.d, set_size(cell.task)
    gate = Gate.parse(cell.task) if cell.task in GATE_NAMES else None
    if d >= m:
        known = gate.affine_floor if gate else math.inf
        yield Construction("identity", known, lambda: np.eye(m, m + 1))
    if cell.task == "and" and cell.s <= 2:
        yield from _pairs_of_two(m, d)
    if cell.task == "and" and cell.s == 3:
        number = _labellings(m, d)
        if number >= 3:
            layer = functools.partial(of_labels, m, number, 0.0)
            known, moves = number / (6 * number - 4), _multiplied(m, number)
            yield Construction(f"characters of {number} labellings", known, layer, moves)
    if d >= cell.outputs and cell.s >= size:
        known = 0.0 if cell.task == "and" or gate is None else math.inf
        yield Construction("a neuron for each output", known, lambda: _of_outputs(cell))


def _degree(m: int) -> int:
    """Return the least n ≥ 3 for which F_2^n has m vectors."""
    return max(3, (m - 1).bit_length())


def _pairs_of_two(m: int, d: int) -> Iterator[Construction]:
    if m >= LEAST_ON_A_PLANE and d >= m - 1:
        known = 0.25 if m > LEAST_ON_A_PLANE else 0.25 + _NEARLY / 4
        yield Construction("m − 1 neurons on a plane", known, lambda: on_a_plane(m))
    n = _degree(m)
    if number := min(_labellings(m, d), (2**n - 2) // 4):
        how = f"characters of {number} labelling{'s' * (number > 1)}"
        yield Construction(how, 1 / (2 * number + 4), lambda: of_labels(m, number), _multiplied(m, number))
    made = (*CODES.get(n, ()), *_quadrics(n)) if m <= MOST_LABELLED else ()
    codes = [(_ratio(n, code), code) for code in made if m + code.bit_count() <= d]
    if codes:
        ratio, code = min(codes)
        how = f"features and a code of {code.bit_count()} characters"
        yield Construction(how, ratio / (4 + 2 * ratio), lambda: of_code(m, code))


def _labellings(m: int, d: int) -> int:
    """Return for how many labellings d neurons are enough."""
    characters = 2 ** _degree(m) - 1
    return min(d // characters - 1, len(labels(m))) if m <= MOST_LABELLED and d >= 2 * characters else 0


def _of_outputs(cell: Cell) -> Layer:
    size = set_size(cell.task)
    x = cell.x()
    sets = x[x.sum(1) == size]
    return np.column_stack([sets, np.full(len(sets), 1.0 - size)])


def padded(layer: Layer, d: int) -> Layer:
    """Add dead neurons."""
    return np.vstack([layer, np.zeros((d - len(layer), layer.shape[1]))])


def on_a_plane(m: int) -> Layer:
    """Return m − 1 neurons that reach 1/4 for AND at most 2 active, which features read by a neuron each need m for.

    Inputs with exactly 2 active lie in the plane Σ x = 2, of m − 1 dimensions. Neuron i (one for each feature but the first) is
    x_0 + u + (u/v)(x_i − v) there, and all are 0 on inputs with fewer active, by a weight on Σ x − 2. So the readoff that is
    (x_k + x_l)/2 − 1/4 in the plane is (y_k + y_l)/2 − 1/4 on those, with y = (−u, v, …, v) the point of the plane at which all
    neurons would be 0, v = (2 + u)/(m − 1). It lies between −1/4 and 1/4 if 2v ≤ 1 and u ≤ v, which some u > 0 allow from
    m = 6 on; with m = 5 and a small u the error is at most 1/4 + u/4, at readoffs that grow as 1/u. (Found by the search of this
    atlas at m = 6, 7 and 8; derived here.) Raises InputError for fewer features.
    """
    check_whole(LEAST_ON_A_PLANE, m=m)
    u = max(_NEARLY, min((m - 5) / 4, 1 / (m - 2)))
    v = (2 + u) / (m - 1)
    inner = u / v
    outer = 1 + u + inner
    layer = np.full((m - 1, m + 1), outer)
    layer[:, 0] += 1
    layer[:, 1:m] += inner * np.eye(m - 1)
    layer[:, m] = u - inner * v - 2 * outer
    return layer


@functools.lru_cache(maxsize=32)
def labels(m: int) -> tuple[tuple[int, ...], ...]:
    """Label m features by elements of F_2^n: x, and powers of x, such that no two pairs have equal sums in two labellings.

    They are powers x^e that permute F_2^n: x^3, for instance, if n is odd (x + y and x^3 + y^3 determine {x, y}, as the BCH codes
    that correct two errors know); and the permutation of Dillon for n = 6. Feature i is α^i, the last of 2^n is 0.
    Raises InputError for more than MOST_LABELLED features.
    """
    check_whole(1, MOST_LABELLED, m=m)
    n = _degree(m)
    powers = [1]
    for _ in range(2**n - 2):
        value = powers[-1] << 1
        powers.append(value ^ _POLYNOMIALS[n] if value >> n else value)
    found: list[np.ndarray] = []
    first, second = np.triu_indices(m, 1)
    exponents = [exponent for exponent in range(1, 2**n - 1) if math.gcd(exponent, 2**n - 1) == 1]
    made = [[powers[exponent * i % (2**n - 1)] for i in range(2**n - 1)] + [0] for exponent in exponents]
    if n == 6:
        made.append([_DILLON[value] for value in made[0]])
    for label in (np.array(values[:m]) for values in made):
        sums = [other[first] ^ other[second] for other in (label, *found)]
        if all(max(Counter(zip(sums[0].tolist(), other.tolist(), strict=True)).values()) == 1 for other in sums[1:]):
            found.append(label)
    return tuple(tuple(label.tolist()) for label in found)


def characters(m: int) -> list[Float[np.ndarray, "characters m"]]:
    """Evaluate all characters of F_2^n but the constant one, for each labelling of m <= MOST_LABELLED features."""
    n = _degree(m)
    return [_signs(np.arange(1, 2**n)[:, None] & np.array(label)) for label in labels(m)]


def _multiplied(m: int, number: int) -> Int[np.ndarray, "moves m"] | None:
    """Return the permutation x → αx of F_2^n, which carries characters to characters if labels are powers.

    None if they are not, or some x have no feature.
    """
    whole = m if m & (m + 1) == 0 else m - 1  # all but 0, or all
    if whole & (whole + 1) or any(label[0] != 1 for label in labels(m)[:number]):
        return None
    return np.array([[*((i + 1) % whole for i in range(whole)), *range(whole, m)]])


def of_labels(m: int, number: int, bias: float = -1.0) -> Layer:
    """Return (number + 1)(M − 1) neurons that reach 1/(2·number + 4) at most 2 active, for AND of m <= M = 2^n features.

    A neuron for each character of each labelling and, for the first one, for its negative: weights ±1, bias −1. The readoff of a
    pair adds its two features and its sums in all labellings, 2 + number; another pair has a feature or one equal sum, 1,
    or nothing. So with an offset the others lie within ±1/2, and the pair is 3/2 + number above their middle. Without biases
    the same neurons reach number/(6·number − 4) at most 3 active, from 3 labellings on.
    Raises InputError for more labellings than are known.
    """
    known = characters(m)
    check_whole(1, len(known), number=number)
    weight = np.vstack([known[0], -known[0], *known[1:number]])
    return np.column_stack([weight, np.full(len(weight), bias)])


def of_code(m: int, code: int) -> Layer:
    """Return m neurons that read a feature each, and a neuron without bias for each column of a linear code of m <= 2^n words.

    Let w be the least and W the largest weight of its words, K its length, ρ = max(W, K − w)/w. The readoff of a pair adds its
    two features and β = K/(2w) times the correlation of the words of its sum and of the input's sum: 1 if they are equal,
    otherwise from 1 − 2W/K to 1 − 2w/K. Others then lie within ρ, and the pair is 2 above the largest of them: the worst
    error is ρ/(4 + 2ρ), below 1/4 if ρ < 2.
    """
    columns = [value for value in range(1, code.bit_length() + 1) if code >> (value - 1) & 1]
    weight = np.vstack([np.eye(m), _signs(np.array(columns)[:, None] & np.arange(m))])
    return np.column_stack([weight, np.zeros(len(weight))])


def _signs(bits: np.ndarray) -> np.ndarray:
    """Return (−1)^(number of ones of each)."""
    return 1.0 - 2 * (np.bitwise_count(bits) & 1)


@functools.lru_cache(maxsize=64)
def _ratio(n: int, code: int) -> float:
    """Return max(W, K − w)/w of a code."""
    columns = [value for value in range(1, 2**n) if code >> (value - 1) & 1]
    weights = ((1 - _signs(np.array(columns) & np.arange(1, 2**n)[:, None])) / 2).sum(1)
    return float(max(weights.max(), len(columns) - weights.min()) / weights.min())


def _quadrics(n: int) -> Iterator[int]:
    """Yield the elliptic quadric of an even n and what is outside of the hyperbolic one: codes of two weights."""
    if n % 2 == 0:
        for elliptic in (True, False):
            code = 0
            for value in range(1, 2**n):
                bits = [value >> i & 1 for i in range(n)]
                form = sum(a & b for a, b in zip(bits[::2], bits[1::2], strict=True)) + elliptic * (bits[0] + bits[1])
                code |= (form % 2 != elliptic) << (value - 1)
            yield code
