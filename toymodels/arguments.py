"""Read the arguments of a command line into a configuration dataclass, and describe wrong ones in one sentence."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from toymodels.errors import InputError, nearest
from toymodels.parallel.terminal import show_any_text, write_out


def plugins_in(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Split a command line into its plugins and its other words: plugins must be loaded before the rest is read.

    `--plugin` takes all .py files that follow, `--plugin=FILE` one. Raises InputError for a --plugin without a file.
    """
    files: list[Path] = []
    rest: list[str] = []
    taking = False
    for word in words:
        if word == "--plugin":
            taking = True
        elif word.startswith("--plugin="):
            files.append(Path(word.partition("=")[2]))
            taking = False
        elif taking and word.endswith(".py"):
            files.append(Path(word))
        else:
            taking = False
            rest.append(word)
    if "--plugin" in words and not files:
        after = words[words.index("--plugin") + 1 :][:1]
        named = f"names {after[0]}, which is no Python file" if after else "names no file"
        raise InputError(f"--plugin {named}: give a file whose name ends in .py")
    return files, rest


def parse(config: type[Any], words: Sequence[str], prog: str, plugins: Sequence[Path] = ()) -> Any:
    """Return the configuration that the words describe. Raises InputError, in one sentence, for wrong words."""
    fields = {field.name for field in dataclasses.fields(config)}
    words = list(words)
    if plugins and "plugin" in fields:
        words += ["--plugin", *map(str, plugins)]
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return tyro.cli(config, args=_with_knobs(words, fields), prog=prog)
    except SystemExit as stop:
        if not stop.code:
            raise
        cause: BaseException | None = stop
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__context__
        raise cause or InputError(_sentence(shown.getvalue()) + _hints(words, fields)) from None


def run_script(settings: type[Any], work: Callable[[Any], object]) -> None:
    """Run a script: read its settings from the process's arguments, call `work` with them, print what it returns.

    For a wrong input, or a file that cannot be read or written, it prints one sentence on standard error and exits with status 2.
    """
    script = Path(sys.argv[0])
    show_any_text()
    try:
        write_out(str(work(parse(settings, sys.argv[1:], script.name))))
    except (InputError, OSError) as error:
        print(f"{script.stem}: {error}", file=sys.stderr)
        sys.exit(2)


def _with_knobs(words: list[str], fields: set[str]) -> list[str]:
    """Turn `--layer-p 0.3` into `--knobs p 0.3`, as records, sweeps and tables name the knobs of first layers."""
    if "knobs" not in fields:
        return words
    rest: list[str] = []
    knobs: list[str] = []
    following = iter(words)
    for word in following:
        name = word.replace("_", "-")
        if name.startswith("--layer-") and name.partition("=")[0].replace("-", "_")[2:] not in fields:
            knob, equals, _ = name.removeprefix("--layer-").partition("=")
            given = word.partition("=")[2] if equals else next(following, None)
            if given is None:
                raise InputError(f"{word} has no value: give the knob's value after it")
            knobs += [knob.replace("-", "_"), given]
        else:
            rest.append(word)
    if not knobs:
        return rest
    if "--knobs" in rest:
        after = rest.index("--knobs") + 1
        return [*rest[:after], *knobs, *rest[after:]]
    return [*rest, "--knobs", *knobs]


def _hints(words: Sequence[str], fields: set[str]) -> str:
    """Return a hint for each option that there is not, if another one is similar."""
    flags = [f"--{name.replace('_', '-')}" for name in fields]
    options = [word.partition("=")[0].replace("_", "-") for word in words if word.startswith("--")]
    unknown = [option for option in options if option not in flags and option.replace("--no-", "--", 1) not in flags]
    return "".join(f": {option}, {hint.strip()}" for option in unknown if (hint := nearest(option, flags)))


def _sentence(box: str) -> str:
    """Extract tyro's error message from its boxed output, drawn with lines or, in ASCII, with dashes."""
    lines = [line.strip("│ ") for line in box.splitlines()[1:]]  # the first line is the box's title
    ruled = [not line.strip("─-╰╯") for line in lines]
    start = 1 if ruled and ruled[0] else 0
    end = ruled.index(True, start) if True in ruled[start:] else len(lines)
    return " ".join(lines[start:end]) + " (see --help)"
