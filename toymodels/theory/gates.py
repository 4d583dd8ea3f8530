"""Two-input boolean gates and their algebra (theory: every gate is α + β·x_k + γ·x_l + δ·x_k·x_l)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toymodels.errors import InputError, check_kind

CASES = ((0, 0), (0, 1), (1, 0), (1, 1))
"""The four input cases (x_k, x_l) in the order in which every table of four is written: case = 2·x_k + x_l."""

CASE_NAMES = ("00", "01", "10", "11")

GATE_NAMES = (
    "false", "and", "first_and_not_second", "first", "second_and_not_first", "second", "xor", "or",
    "nor", "xnor", "not_second", "second_implies_first", "not_first", "first_implies_second", "nand", "true",
)  # fmt: skip
"""The sixteen gates of two inputs, in the order of their truth tables 0000, 0001, …, 1111."""

_NAMES = {name: f"{number:04b}" for number, name in enumerate(GATE_NAMES)}


def bilinear(values: Sequence[float] | Sequence[int]) -> tuple[float, float, float, float]:
    """Return the coefficients (α, β, γ, δ) of the bilinear function of (x_k, x_l) with these values in 00, 01, 10, 11."""
    v00, v01, v10, v11 = map(float, values)
    return v00, v10 - v00, v01 - v00, v11 - v10 - v01 + v00


@dataclass(frozen=True)
class Gate:
    """A boolean function of two bits, given by its truth table over the cases 00, 01, 10, 11."""

    truth: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        if len(self.truth) != 4 or any(value not in (0, 1) for value in self.truth):
            raise InputError(
                f"a gate's truth table has four values 0 or 1, for the cases 00, 01, 10, 11; got {self.truth!r}"
            )

    @staticmethod
    def alias(text: str) -> str:
        """Return the name of a gate written in another way (U-AND, 0001, And); any other text as it is."""
        check_kind(str, "text, such as 'and'", name=text)
        key = text.lower().replace("-", "_").removeprefix("u_")
        by_table = {table: name for name, table in _NAMES.items()}
        return by_table.get(key, key if key in _NAMES else text)

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read a gate's name ("and", "xor", "U-AND", …) or truth table over 00, 01, 10, 11 ("0001", "0110", …)."""
        key = cls.alias(text)
        table = _NAMES.get(key, key)
        if len(table) != 4 or set(table) - {"0", "1"}:
            raise InputError(
                f"unknown gate or task {text!r}: give one of {', '.join(_NAMES)}, "
                "or a truth table of four digits for the cases 00, 01, 10, 11, such as 0001 for AND"
            )
        a, b, c, d = (int(digit) for digit in table)
        return cls((a, b, c, d))

    @property
    def name(self) -> str:
        """The gate's name, as `parse` takes it."""
        return self.alias(self.digits)

    @property
    def digits(self) -> str:
        """The truth table as four digits, for the cases 00, 01, 10, 11."""
        return "".join(map(str, self.truth))

    @property
    def coefficients(self) -> tuple[float, float, float, float]:
        """(α, β, γ, δ) of gate(x_k, x_l) = α + β·x_k + γ·x_l + δ·x_k·x_l."""
        return bilinear(self.truth)

    @property
    def affine_floor(self) -> float:
        """|δ|/4: the smallest worst-case error of any affine function of (x_k, x_l) over all four cases.

        Chebyshev approximation on four points: the alternating signed measure (1, −1, −1, 1)/4 annihilates
        1, x_k and x_l and gives δ/4 on the gate. It holds for affine functions of all inputs, too, wherever all four cases
        occur with the same number of others active, and on exactly s of m with 2 <= s <= m − 2 (averaging over the other
        features leaves an affine function of x_k and x_l).
        """
        return abs(self.coefficients[3]) / 4
