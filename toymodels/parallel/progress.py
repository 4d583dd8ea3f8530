"""Show how far work is: a bar on a terminal; in a file a line at the start, now and then, and at the end.

A process that works alone, one of many, shows nothing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

LINE_SECONDS, LINE_SHARE = 60.0, 0.05
"""A file gets a line when at least so many seconds have passed since the last one, and so much of the work is done."""
_NOTE_SECONDS = 0.1
"""A terminal gets the numbers beside a bar at most so often."""
SILENT_SECONDS = 3.0
"""After which a command that has said nothing says what it is doing."""


def _always() -> bool:
    return True


shown: Callable[[], bool] = _always
"""Whether this process shows anything; `processes`, once it is imported, knows whether it is one of many."""
_last_word = -SILENT_SECONDS


def say(text: str) -> None:
    """Write a line on standard error, above the bars of a terminal. A closed terminal or a full disk is no reason to stop."""
    global _last_word
    _last_word = time.monotonic()
    with suppress(OSError, ValueError):
        if sys.stderr.isatty() and "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(text, file=sys.stderr)
        else:
            sys.stderr.write(f"{text}\n")
            sys.stderr.flush()


@contextmanager
def tell_if_slow(what: str) -> Iterator[None]:
    """Say what is being done if it takes longer than SILENT_SECONDS and nothing else has been said meanwhile."""
    if not shown():
        yield
        return
    began = time.monotonic()

    def tell() -> None:
        if shown() and _last_word < began:
            say(f"{what} …")

    timer = threading.Timer(SILENT_SECONDS, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Whole:
    """What is left of all jobs, as far as this process can tell: bars of the same unit are taken to last equally long."""

    def __init__(self) -> None:
        self.rounds = 0.0
        """Jobs after this one, divided by the number of workers."""
        self.bars: dict[str, float] = {}
        """Bars of this job by unit."""
        self.ended: dict[str, float] = {}
        self.pace: dict[str, tuple[float, float]] = {}
        """By unit: seconds, and the share of a bar that was done in them."""

    def left(self, bar: Bar) -> str:
        """Say how long all that is left takes; nothing if this bar is all."""
        if bar.unit not in self.bars or not bar.total or (sum(self.bars.values()) <= 1 and not self.rounds):
            return ""
        job = left = 0.0
        known = True
        for unit, bars in self.bars.items():
            seconds, share = self.pace.get(unit, (0.0, 0.0))
            ended = self.ended.get(unit, 0.0)
            if unit == bar.unit:
                seconds, share = seconds + bar.seconds(), share + bar.gained() / bar.total
                ended += bar.done / bar.total
            known &= share > 0
            one = seconds / share if share else 0.0
            job += bars * one
            left += max(0.0, bars - ended) * one
        return f", {'about' if known else 'at least'} {_clock(left + self.rounds * job)} for the whole run"

    def end(self, bar: Bar) -> None:
        """Remember how long a bar took."""
        if bar.unit in self.bars and bar.total:
            seconds, share = self.pace.get(bar.unit, (0.0, 0.0))
            self.pace[bar.unit] = seconds + bar.seconds(), share + bar.gained() / bar.total
            self.ended[bar.unit] = self.ended.get(bar.unit, 0.0) + 1


_whole = _Whole()


def plan(**bars: int) -> None:
    """Say how many bars of each unit the job of this process will show, for the estimate of the whole run."""
    _whole.bars, _whole.ended = {unit: float(number) for unit, number in bars.items() if number}, {}


def jobs_follow(rounds: float | int) -> None:
    """Say how many such jobs follow this one, divided by the number of workers."""
    _whole.rounds, _whole.bars = rounds, {}


class Bar:
    """One piece of work of `total` units, or None if nobody knows how many; without a label it is not shown."""

    def __init__(
        self,
        label: str,
        total: int | None,
        unit: str,
        position: int = 0,
        leave: bool = False,
        even: bool = False,
        in_files: bool = True,
    ):
        """Begin. `position` is its line of a terminal, which keeps it at the end if `leave`.

        `even`: estimate the time left from all units, not from the latest ones. `in_files`: write lines to a file.
        """
        self.label, self.total, self.unit = label, total, unit
        self.done, self._first = 0, 0
        self._notes: dict[str, Any] = {}
        self._began = self._written = time.monotonic()
        self._written_done, self._noted = 0, 0.0
        self._shown = bool(label) and shown() and (in_files or sys.stderr.isatty())
        self._terminal: Any = None
        if not self._shown:
            return
        if sys.stderr.isatty():
            from tqdm import tqdm

            smoothing = 0.0 if even else 0.3
            self._terminal = tqdm(
                total=total, desc=label, unit=unit, position=position, leave=leave, smoothing=smoothing
            )
            _spoken()
        else:
            self._line("")

    def skip(self, units: int) -> None:
        """Count units that were done before: they say nothing about the time that others take."""
        self._first += units
        self.done += units
        if self._terminal is not None:
            self._terminal.initial += units
            self._terminal.n = self._terminal.last_print_n = self.done
            self._terminal.refresh()

    def to(self, done: int, **notes: Any) -> None:
        """Say how much is done, and numbers to show beside it: real ones with 4 digits."""
        self.done = done
        self._notes |= notes
        if self._terminal is not None:
            if notes and time.monotonic() - self._noted > _NOTE_SECONDS:  # writing them takes longer than a small step
                self.note()
            self._terminal.update(done - self._terminal.n)
        elif self._shown:
            enough = max(1.0, LINE_SHARE * (self.total or 0))
            if done - self._written_done >= enough and time.monotonic() - self._written >= LINE_SECONDS:
                self._line(f", {_clock(self.seconds())} so far{self._left()}")

    def note(self, **notes: Any) -> None:
        """Change the numbers that are shown beside it."""
        self._notes |= notes
        if self._terminal is not None:
            self._noted = time.monotonic()
            self._terminal.set_postfix({name: _short(value) for name, value in self._notes.items()}, refresh=False)

    def ends_here(self) -> None:
        """Say that there is no more work than what is done."""
        self.total = self.done
        if self._terminal is not None:
            self._terminal.total = self.done
            self._terminal.refresh()

    def refresh(self) -> None:
        """Let a terminal show the present clock and numbers."""
        if self._terminal is not None:
            self._terminal.refresh()

    def over(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, one unit each."""
        with self:
            for item in items:
                yield item
                self.to(self.done + 1)

    def gained(self) -> int:
        """Return the units done since it began."""
        return self.done - self._first

    def seconds(self) -> float:
        """Return the seconds since it began."""
        return time.monotonic() - self._began

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            _whole.end(self)
        if self._terminal is not None:
            with suppress(OSError):
                self._terminal.close()
            _spoken()
        elif self._shown and kind is not GeneratorExit:  # whoever stopped taking items from `over` says why
            self._line(f", {'done in' if kind is None else 'ended after'} {_clock(self.seconds())}")

    def _line(self, rest: str) -> None:
        self._written, self._written_done = time.monotonic(), self.done
        total = "" if self.total is None else f"/{self.total}"
        notes = "".join(f", {name.replace('_', ' ')}={_short(value)}" for name, value in self._notes.items())
        say(f"{self.label}: {self.done}{total} {self.unit}s{rest}{notes}")

    def _left(self) -> str:
        if self.total is None or self.gained() <= 0:
            return ""
        left = self.seconds() / self.gained() * max(0, self.total - self.done)
        return f", about {_clock(left)} left{_whole.left(self)}"


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


def _spoken() -> None:
    global _last_word
    _last_word = time.monotonic()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
