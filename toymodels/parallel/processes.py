"""Run independent jobs in single-threaded worker processes (a lone job runs in this process)."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from toymodels.registry import load_plugins, loaded_plugins, plugin_failures

T = TypeVar("T")


_alone = False


def work_alone() -> None:
    """Do all further jobs of this process in one thread, in this process and without progress bars: it is one of many."""
    global _alone
    _alone = True
    torch.set_num_threads(1)


def bars() -> bool:
    """Whether to show progress bars."""
    return not _alone


def cores() -> int:
    """Return the number of cores this process may use."""
    if _alone:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], threads: int | None = None) -> list[T]:
    """Return [function(*job) for job in jobs], run in processes of `threads` threads each (default: 1; all cores for a lone job).

    `function` must be importable, and takes a keyword `position`: the line that its progress bar may use. If a job raises, the
    others are cancelled and its exception is raised. Workers load the plugins of this process, and end with it.
    """
    workers = min(len(jobs), max(1, cores() // (threads or 1)))
    if workers <= 1:
        torch.set_num_threads(threads or cores())
        return [function(*job, position=0) for job in jobs]
    # A worker's numerical libraries read these when they are loaded: more threads, or spinning ones, would slow the others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", str(threads or 1))
    context = multiprocessing.get_context("spawn")
    tqdm.set_lock(context.RLock())
    start = (tqdm.get_lock(), context.Value("i", 0), threads or 1, os.getpid(), loaded_plugins())
    with ProcessPoolExecutor(workers, context, start_worker, start) as pool:
        futures = [pool.submit(_run, function, job) for job in jobs]
        try:
            return [future.result() for future in futures]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


_line = 0
"""The line of the terminal for this worker's progress bar."""


def _run(function: Callable[..., T], job: tuple[Any, ...]) -> T:
    with plugin_failures():  # here, because the parent gets the exception without its traceback
        return function(*job, position=_line)


def start_worker(lock: Any, started: Any, threads: int, parent: int, plugins: Sequence[Path]) -> None:
    """Prepare a worker process: set its line of the terminal and its threads, load plugins, and watch its parent."""
    global _line
    tqdm.set_lock(lock)
    with started.get_lock():
        _line = started.value
        started.value += 1
    torch.set_num_threads(threads)
    load_plugins(plugins)
    end_with_parent(parent)


def end_with_parent(parent: int) -> None:
    """End this process when its parent has ended; a checkpoint keeps what it has done."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
