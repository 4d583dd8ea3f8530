"""The exception for wrong inputs, whose message is written for users, and the checks that raise it."""

from __future__ import annotations

import difflib
import math
import numbers as kinds
import operator
import sys
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any


class InputError(ValueError):
    """A wrong input. The message is one sentence: what is wrong, why, and what is allowed.

    The command line prints the sentence and exits with status 2; in Python it is an ordinary `ValueError`.
    """


class WriteError(OSError):
    """A file that cannot be written; its text is one sentence. An ordinary OSError else, with the number of its cause."""

    def __str__(self) -> str:
        return str(self.strerror)


class NoEffectError(InputError):
    """A setting that would change nothing under the other settings."""


def nearest(name: Any, allowed: Iterable[str]) -> str:
    """Return the hint "did you mean …? ", or "" if no allowed name is similar."""
    close = difflib.get_close_matches(str(name), allowed, 1)
    return f"did you mean {close[0]!r}? " if close else ""


def notice(sentence: str) -> None:
    """Say on standard error what a reader should know, though the work goes on: one sentence."""
    with suppress(OSError, ValueError):  # nobody reads it any more, or its disk is full
        print(f"toymodels: {sentence}", file=sys.stderr)


def check_whole(least: int | None = None, most: int | None = None, **numbers: Any) -> None:
    """Raise InputError for the first of the named numbers that is not whole, or lies outside [least, most]."""
    for name, number in numbers.items():
        try:
            whole = operator.index(number)
            if isinstance(number, bool):
                raise TypeError
        except TypeError:
            raise InputError(f"{name} = {number!r}: it must be a whole number, an int") from None
        if least is not None and whole < least:
            raise InputError(f"{name} = {whole}: it must be at least {least}")
        if most is not None and whole > most:
            raise InputError(f"{name} = {whole}: it must be at most {most}")


def check_positive(most: float | int = math.inf, **numbers: Any) -> None:
    """Raise InputError for the first of the named numbers that is not finite, not above 0 or above `most`."""
    for name, number in numbers.items():
        if not isinstance(number, kinds.Real) or isinstance(number, bool):
            raise InputError(f"{name} = {number!r}: it must be a positive number")
        if not (float(number) > 0 and math.isfinite(number) and number <= most):
            limit = "" if math.isinf(most) else f", {most:g} at most"
            raise InputError(f"{name} = {number:g}: it must be a positive number{limit}")


def check_not_negative(**numbers: Any) -> None:
    """Raise InputError for the first of the named numbers that is not finite or below 0."""
    for name, number in numbers.items():
        if not isinstance(number, kinds.Real) or isinstance(number, bool):
            raise InputError(f"{name} = {number!r}: it must be 0 or a positive number")
        if not 0 <= float(number) < math.inf:
            raise InputError(f"{name} = {number:g}: it must be 0 or a positive number")


def check_kind(kind: type | tuple[type, ...], wanted: str, **values: Any) -> None:
    """Raise InputError for the first of the named values that is of another kind; `wanted` says in words what it must be."""
    for name, value in values.items():
        if not isinstance(value, kind):
            raise InputError(f"{name} is of the kind {type(value).__name__}: it must be {wanted}")


def check_choice(allowed: Collection[str], **values: Any) -> None:
    """Raise InputError for the first of the named values that is not among those allowed."""
    for name, value in values.items():
        if value not in allowed:
            raise InputError(f"unknown {name} {value!r}: {nearest(value, allowed)}choose one of {', '.join(allowed)}")


def check_different(noun: str, values: Sequence[Any], **names: Sequence[str]) -> None:
    """Raise InputError for an empty list, or one that holds a value twice."""
    ((name, written),) = names.items()
    if not values:
        raise InputError(f"{name} is empty: name at least one {noun}")
    if len(set(values)) < len(values):
        raise InputError(f"{name} names a {noun} twice ({', '.join(map(str, written))}): name each once")


def check_device(device: Any) -> None:
    """Raise InputError for a device that this machine does not have, or that is neither a CPU nor a CUDA GPU."""
    import torch

    try:
        if torch.device(device).type not in ("cpu", "cuda"):
            raise ValueError("it is neither cpu nor cuda")
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        advice = "use cpu, or see torch.cuda.is_available()"
        raise InputError(f"the device {device!r} is not there ({reason}): {advice}") from None
