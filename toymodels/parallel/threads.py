"""Work shared by threads, each with one of torch's: for blocks too small for torch to share out itself."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

T = TypeVar("T")

_available: ContextVar[int | None] = ContextVar("available", default=None)


def available() -> int:
    """How many threads there are to share work among: torch's own number, outside and inside `by_hand`."""
    return _available.get() or torch.get_num_threads()


@contextmanager
def by_hand() -> Iterator[None]:
    """Torch has one thread in here, and `in_threads` all of them.

    To be put around all of a step, not around `in_threads` alone: the threads that torch itself has called up keep a
    core busy for milliseconds while they wait for more, and whoever shares that core runs at half the speed.
    """
    threads = available()
    token = _available.set(threads)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        _available.reset(token)
        torch.set_num_threads(1 if _available.get() else threads)


@functools.lru_cache(maxsize=1)
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, "toymodels", initializer=torch.set_num_threads, initargs=(1,))


def in_threads(function: Callable[[int], T], parts: int) -> list[T]:
    """[function(0), …, function(parts − 1)], side by side; torch lets go of Python's lock while it computes.

    Call it with at most `available()` parts.
    """
    if parts == 1:
        return [function(0)]
    gradients = torch.is_grad_enabled()

    def run(part: int) -> T:
        with torch.set_grad_enabled(gradients):  # a thread starts with gradients on, whatever its maker does
            return function(part)

    pool = _pool(available() - 1)
    with by_hand():
        futures = [pool.submit(run, part) for part in range(1, parts)]
        try:
            return [function(0), *(future.result() for future in futures)]
        finally:
            wait(futures)  # nothing may write into shared buffers after the caller has gone on
