"""Run small blocks on our own thread pool, with torch's intra-op threads set to one, and with tiny numbers taken as 0."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import numpy as np
import torch

T = TypeVar("T")

_available: ContextVar[int | None] = ContextVar("available", default=None)


def n_threads() -> int:
    """Return how many threads may share work: the number that torch has outside `torch_single_threaded`."""
    return _available.get() or torch.get_num_threads()


@contextmanager
def torch_single_threaded() -> Iterator[None]:
    """Set torch to one thread inside the context, so that `parallel_for` can use all of them.

    Put it around a whole step, not around `parallel_for` alone: torch's own threads keep their cores busy for milliseconds
    while they wait for more work, which halves the speed of other threads on these cores.
    """
    threads = n_threads()
    if threads == 1:  # setting the number of threads costs more than a small step
        yield
        return
    token = _available.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _available.reset(token)
        torch.set_num_threads(1 if _available.get() else threads)


class tiny_is_zero:  # noqa: N801 (a context manager, named like a function as those of contextlib)
    """Take numbers too small for full precision (below 1e-38 in float32) as 0 inside the context, in `parallel_for`, too.

    Powers of small errors are such numbers, and a processor needs a hundred times longer for one of them. (A generator with
    `contextmanager` takes four times as long to enter and leave, which shows in a small network's step.)
    """

    def __enter__(self) -> None:
        self.before = _tiny_is_zero()
        torch.set_flush_denormal(True)

    def __exit__(self, *_: object) -> None:
        torch.set_flush_denormal(self.before)


def _tiny_is_zero() -> bool:
    """Whether the processor is set so in this thread; torch does not say."""
    return bool(_TINY * _ONE == 0)


_TINY, _ONE = np.float32(1e-39), np.float32(1)


@functools.lru_cache(maxsize=1)
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, "toymodels", initializer=torch.set_num_threads, initargs=(1,))


def parallel_for(function: Callable[[int], T], parts: int) -> list[T]:
    """Return [function(0), …, function(parts − 1)], computed in parallel: torch releases Python's lock while it computes.

    `parts` is at most `n_threads()`.
    """
    if parts == 1:
        return [function(0)]
    gradients, tiny = torch.is_grad_enabled(), _tiny_is_zero()

    def run(part: int) -> T:
        with torch.set_grad_enabled(gradients):  # a new thread starts with gradients on
            torch.set_flush_denormal(tiny)
            return function(part)

    pool = _pool(n_threads() - 1)
    with torch_single_threaded():
        futures = [pool.submit(run, part) for part in range(1, parts)]
        try:
            return [function(0), *(future.result() for future in futures)]
        finally:
            wait(futures)  # no thread may write into shared buffers after this function has returned
