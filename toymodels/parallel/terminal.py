"""Write to standard output and error so that neither an encoding nor a reader that has gone ends a computation."""

from __future__ import annotations

import codecs
import os
import sys
from contextlib import suppress
from typing import Any

from toymodels.errors import WriteError

_LOOKALIKES = {"−": "-", "–": "-", "±": "+-", "·": "*", "×": "x", "≤": "<=", "≥": ">=", "→": "->", "…": "...", "√": "sqrt ",
               "ε": "eps", "σ": "sigma", "²": "^2", "³": "^3", "ᵀ": "^T"}  # fmt: skip
"""What stands for a sign that a terminal cannot show; any other is written as its number, \\u2202."""


def _readable(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    parts = []
    for position in range(error.start, error.end):
        sign = error.object[position]
        one = UnicodeEncodeError(error.encoding, error.object, position, position + 1, error.reason)
        parts.append(_LOOKALIKES.get(sign) or str(codecs.backslashreplace_errors(one)[0]))
    return "".join(parts), error.end


codecs.register_error("toymodels.readable", _readable)


class _Lasting:
    """A stream whose failures cost nothing: progress that nobody can read must not end a computation."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def show_any_text() -> None:
    """Let standard output and error show any text, and let failures of standard error pass, from now on in this process."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="toymodels.readable")
    if sys.stderr is not None and not isinstance(sys.stderr, _Lasting):
        sys.stderr = _Lasting(sys.stderr)


def visible(text: str) -> str:
    """Write signs that would steer a terminal (colours, a cleared screen) as their numbers; line ends and tabs stay."""
    return "".join(
        sign
        if (sign >= " " and sign != "\x7f" and not "\x80" <= sign < "\xa0") or sign in "\n\t"
        else f"\\x{ord(sign):02x}"
        for sign in text
    )


def write_out(text: str) -> None:
    """Write a command's text to standard output. Raises WriteError if its disk is full, BrokenPipeError if nobody reads it."""
    try:
        print(visible(text))
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):  # what is left in the buffer must not fail again when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        reason = os.strerror(error.errno or 0)
        raise WriteError(error.errno, f"standard output cannot be written ({reason}): give it another place") from None
