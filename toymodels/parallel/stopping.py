"""Stop on a signal: Ctrl-C, SIGTERM (a cluster takes its machine back) or SIGHUP (a terminal is closed).

In a command, the first signal stops the work between two steps, or by a KeyboardInterrupt; before anything is written, and when a
second signal arrives, the process ends at once. Workers leave Ctrl-C and SIGHUP to their parent, which sends them SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Literal

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_role: Literal["", "command", "worker"] = ""
"""What this process is; "" if it is somebody else's, such as a notebook, whose handlers stay."""
_received: int | None = None
_at_once = True
_done: int | None = None
_advice = ""


def received() -> int | None:
    """Return the number of the signal that stopped this process, or None."""
    return _received


def forget_signal() -> None:
    """Forget the signal that stopped an earlier command in this process."""
    global _received
    _received = None


def heed_signals() -> None:
    """Let signals end this process, a command that has only begun. A signal that is ignored (nohup) stays ignored."""
    global _role
    _role = "command"
    for number in _heeded():
        signal.signal(number, _on_signal)


def stop_gently(advice: str) -> None:
    """Let the first signal that comes from now on raise KeyboardInterrupt; `advice` follows the words of an end at once."""
    global _at_once, _advice
    forget_signal()
    _at_once, _advice = False, advice


def work_is_done(status: int) -> None:
    """Let signals that come from now on end the process without a word: only Python's own end is left."""
    global _done
    _done = status


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first signal into a flag that is checked between steps; the second one stops at once.

    Only the main thread receives signals; in other threads the flag is never set.
    """
    stopped = False

    def handler(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped:
            _again(number)
        stopped = True
        _note(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = {number: signal.signal(number, handler) for number in _heeded()}
    try:
        yield lambda: stopped
    finally:
        for number, handle in previous.items():
            signal.signal(number, handle)


def leave_to_parent() -> None:
    """Let a worker ignore Ctrl-C and SIGHUP, which reach its parent, too."""
    global _role
    _role = "worker"
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def stop_by_parent() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt in a worker's job, and end the worker after that; without a job it ends at once."""
    previous = signal.signal(signal.SIGTERM, _on_signal)
    stop_gently("")
    try:
        yield
    finally:
        if _received:  # a pool that has lost another worker would never tell this one to end
            os._exit(128 + _received)
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def ctrl_c_blocked() -> Iterator[None]:
    """Start processes with Ctrl-C and SIGHUP blocked, so that they reach this process alone even while the others load."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _heeded() -> list[int]:
    return [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]


def _note(number: int) -> None:
    global _received
    _received = number


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _received is not None:
        _again(number)
    elif _at_once:
        _end(number)
    else:
        _note(number)
        raise KeyboardInterrupt


def _again(number: int) -> None:
    """Answer a second signal: a worker is ending already, a command ends at once."""
    if _role == "command":
        _end(number)
    elif _role == "":
        raise KeyboardInterrupt


def _end(number: int) -> None:
    """End this process and its workers at once, with a sentence and without Python's own end, which would print tracebacks."""
    if _done is not None:
        os._exit(_done)
    multiprocessing = sys.modules.get("multiprocessing")
    for child in multiprocessing.active_children() if multiprocessing else ():
        child.kill()
    with suppress(OSError):
        line = "\n" if os.isatty(2) else ""  # below a progress bar
        os.write(2, f"{line}toymodels: stopped{' at once' if _received else ''}{_advice}\n".encode())
    os._exit(128 + number)
