"""How a benchmark measures: alternating repeats in a process of its own, medians, peak memory, the machine's own rate."""

from __future__ import annotations

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from toymodels.parallel.processes import cores

MATMUL = 1536
"""Side of the square float32 matrices whose product is the machine's own rate."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY")
"""Not handed to a child: each is as torch comes."""


@dataclass(frozen=True)
class Spread:
    """Median, least and largest of repeated measurements."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of one or more numbers."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Row:
    """One line of results: a figure of the new code, of a plain reference in the same process, and their ratio."""

    setting: str
    """Sizes and options."""
    unit: str
    """Of `new` and `reference`, such as "steps/s"."""
    new: Spread
    matmul: Spread
    """float32 matrix product of this process in GFLOP/s, measured between the others."""
    peak_mib: float
    """Peak resident memory of the process before any reference ran, with Python and torch (some 250 MiB)."""
    against: str = ""
    """What the reference is."""
    reference: Spread | None = None
    ratio: Spread | None = None
    """How many times better the new code is, repeat by repeat; or measured over predicted."""
    wanted: float | None = None
    """The least ratio wanted."""
    peak_wanted: float | None = None
    """The largest peak memory wanted, MiB."""
    note: str = ""


@dataclass(frozen=True)
class Case:
    """One call, made in a child process of its own, that returns rows."""

    question: str
    measure: Callable[..., list[Row]]
    """An importable function."""
    arguments: dict[str, Any] = field(default_factory=dict)


def run_case(case: Case) -> list[Row]:
    """The case's rows, from a fresh process with all cores: its memory and thread settings are its own.

    Raises what the case raises, and BrokenProcessPool if its process was killed (out of memory, say).
    """
    kept = {name: os.environ.pop(name) for name in _THREADS if name in os.environ}
    try:
        with ProcessPoolExecutor(1, get_context("spawn"), _start_child) as pool:
            return pool.submit(case.measure, **case.arguments).result()
    finally:
        os.environ.update(kept)


def _start_child() -> None:
    torch.set_num_threads(cores())


def peak_mib() -> float:
    """Peak resident memory of this process so far.

    On Linux from /proc, because there getrusage counts in the process that this one was forked from.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for text in status.read_text().splitlines():
            if text.startswith("VmHWM:"):
                return int(text.split()[1]) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


@dataclass(frozen=True)
class Measured:
    """Seconds per call of several functions, one number each for every repeat; the first function is the new code."""

    seconds: dict[str, list[float]]
    matmul: Spread
    peak_mib: float
    """After the first function had run alone."""

    def rate(self, name: str, work: float = 1.0) -> Spread:
        """Work per second."""
        return Spread.of([work / seconds for seconds in self.seconds[name]])

    def time(self, name: str, factor: float = 1.0) -> Spread:
        """Seconds per call, times a factor."""
        return Spread.of([factor * seconds for seconds in self.seconds[name]])

    def ratio(self, slow: str, fast: str) -> Spread:
        """How many times as long `slow` takes, repeat by repeat."""
        return Spread.of([a / b for a, b in zip(self.seconds[slow], self.seconds[fast], strict=True)])


def alternate(functions: Mapping[str, Callable[[], object]], repeats: int, seconds: float) -> Measured:
    """Time functions in turn, so that drift of the machine hits all alike, and a matrix product between them.

    Each repeat calls a function as often as makes up about `seconds` (once at least), after a warm-up; every other
    repeat goes through the functions backwards.
    """
    calls, peak = {}, 0.0
    for number, (name, function) in enumerate(functions.items()):
        function()
        once = clock(function, 1)
        for _ in range(3):  # what is new to caches and allocators is slow at first: count again
            calls[name] = max(1, round(seconds / once))
            once = min(once, clock(function, max(1, calls[name] // 8)))
        if number == 0:
            peak = peak_mib()
    product = matmul()
    rates, found = [], {name: [] for name in functions}  # type: tuple[list[float], dict[str, list[float]]]
    for repeat in range(repeats):
        for name in sorted(functions, key=list(functions).index, reverse=repeat % 2 == 1):
            found[name].append(clock(functions[name], calls[name]))
        rates.append(product())
    return Measured(found, Spread.of(rates), peak)


def clock(function: Callable[[], object], calls: int) -> float:
    """Seconds per call."""
    started = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - started) / calls


def matmul(side: int = MATMUL) -> Callable[[], float]:
    """A function that measures the machine's float32 matrix product, into memory that is there already, in GFLOP/s."""
    a, b, out = torch.rand(side, side), torch.rand(side, side), torch.empty(side, side)
    torch.mm(a, b, out=out)
    return lambda: 2e-9 * side**3 / clock(lambda: torch.mm(a, b, out=out), 3)
