"""A wrong input as a case: what is prepared, what is asked, and words that the answer must hold; and how an answer is judged."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import config

from toymodels.cli import main
from toymodels.errors import InputError

SECONDS = 10
"""How long an answer may take."""
ANSWERED, TRACEBACK, SILENT, ACCEPTED = "answered in a sentence", "traceback", "without an answer", "accepted wrongly"


@dataclass(frozen=True)
class Case:
    """A wrong input: words of the command line, or a call in Python."""

    entry: str
    """Where it enters: command line, sweep file, record, …"""
    name: str
    expected: str
    """Words that the answer must hold."""
    words: Sequence[str] = ()
    call: Callable[[], object] | None = None
    prepare: Callable[[], object] = lambda: None
    """Makes files in the current folder, which has the record `t` of a run and its table t.csv if `needs_run`."""
    needs_run: bool = False


class _NoAnswer(BaseException):
    pass


def make_run(folder: Path) -> None:
    """Make the record of a small run, t, and its tables, t.csv and t.jsonl."""
    with contextlib.chdir(folder), contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        assert main([*["train", "--m", "6", "--d", "8", "--steps", "3", "--wandb", "disabled", "--out", "t"]]) == 0
        for name in ("t.csv", "t.jsonl"):
            assert main(["results", "t", "--out", name]) == 0


def judge(case: Case, run: Path) -> tuple[str, str]:
    """Ask in the current folder, which is empty; return (verdict, what was said). `run` has what `make_run` makes."""
    if case.needs_run:
        shutil.copytree(run, ".", dirs_exist_ok=True)
    case.prepare()
    before = _content()
    try:
        with _limited(SECONDS):
            status, said = _call(case.call) if case.call is not None else _command(case.words)
    except _NoAnswer:
        return SILENT, ""
    except Exception:
        return TRACEBACK, traceback.format_exc()
    sentences = said.removesuffix("\n").split("\n")
    plain = said.startswith("toymodels: ") and "Traceback" not in said
    plain = plain and all(line.strip() and line.isprintable() and len(line) < 1200 for line in sentences)
    if status != 2 or not plain:
        return ACCEPTED, said
    return (ANSWERED, said) if _content() == before else (ACCEPTED, f"it has written something, and says: {said}")


def _command(words: Sequence[str]) -> tuple[int, str]:
    shown, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said):
        status = main(list(words))
    lines = [line for line in said.getvalue().splitlines() if not line.endswith("at work …")]  # on a busy machine
    return status, "".join(f"{line}\n" for line in lines) + shown.getvalue()


def _call(call: Callable[[], object]) -> tuple[int, str]:
    config.update("jaxtyping_disable", True)  # the type checks that tests put around every function
    try:
        return 0, repr(call())
    except InputError as error:
        return 2, f"toymodels: {error}\n"
    finally:
        config.update("jaxtyping_disable", False)


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _NoAnswer

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _content() -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in sorted(Path().rglob("*"))}
