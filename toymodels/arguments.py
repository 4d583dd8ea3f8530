"""Arguments of a command line, made from configuration dataclasses; wrong ones are one sentence."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from toymodels.errors import InputError


def parse(
    command: Any, description: str | None = None, arguments: Sequence[str] | None = None, prog: str | None = None
) -> Any:
    """The configuration that the arguments (default: the process's own) ask for, a dataclass or a union of subcommands.

    Raises InputError, in one sentence, for arguments that make none.
    """
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return tyro.cli(command, args=arguments, prog=prog, description=description)
    except SystemExit as stop:
        if not stop.code:
            raise
        cause: BaseException | None = stop
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__context__
        raise cause or InputError(_sentence(shown.getvalue())) from None


def run_script(settings: type[Any], work: Callable[[Any], object], description: str | None = None) -> None:
    """Run a script: read its settings from the arguments, print what `work` returns of them.

    A wrong input, or a file that cannot be read or written, is one sentence on the standard error and exit status 2.
    """
    try:
        print(work(parse(settings, description)))
    except (InputError, OSError) as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(2)


def _sentence(box: str) -> str:
    """What tyro says in the first part of its box, in one line; the box is drawn with lines or, in ASCII, with dashes."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]  # the first line is the box's title
    ruled = [not line.strip("─-╰╯") for line in lines]
    start = 1 if ruled and ruled[0] else 0
    end = ruled.index(True, start) if True in ruled[start:] else len(lines)
    return " ".join(lines[start:end]) + " (see --help)"
