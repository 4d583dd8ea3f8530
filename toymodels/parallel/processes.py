"""Run independent jobs in single-threaded worker processes (a lone job runs in this process)."""

from __future__ import annotations

import multiprocessing
import multiprocessing.resource_tracker
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

import toymodels
from toymodels.errors import InputError
from toymodels.parallel import progress, stopping
from toymodels.parallel.progress import Bar
from toymodels.parallel.terminal import show_any_text
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


progress.shown = bars


def cores() -> int:
    """Return the number of cores this process may use."""
    if _alone:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    function: Callable[..., T], jobs: Sequence[tuple[Any, ...]], threads: int | None = None, label: str = ""
) -> list[T]:
    """Return [function(*job) for job in jobs], run in processes of `threads` threads each (default: 1; all cores for a lone job).

    `function` must be importable, and takes a keyword `position`: the line that its progress bar may use. With a `label` the
    jobs are counted in a bar of their own. If a job raises, or this process is stopped, the others stop at their next step, as
    on Ctrl-C, and the exception is raised. Workers load the plugins of this process, and end with it.
    """
    workers = min(len(jobs), max(1, cores() // (threads or 1)))
    bar = Bar(label, len(jobs), "job")
    if workers <= 1:
        torch.set_num_threads(threads or (1 if toymodels.IDLE_THREADS_SPIN else cores()))
        return [_run(function, job, len(jobs) - number) for number, job in enumerate(bar.over(jobs), 1)]
    # A worker's numerical libraries read these when they are loaded: more threads, or spinning ones, would slow the others.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", str(threads or 1))
    start_resource_tracker()
    context = multiprocessing.get_context("spawn")
    tqdm.set_lock(context.RLock())
    start = (tqdm.get_lock(), context.Value("i", 0), threads or 1, os.getpid(), loaded_plugins())
    with bar, worker_pool(workers, start_worker, start) as pool:
        with stopping.ctrl_c_blocked():
            rounds = [max(0, len(jobs) - number - workers) / workers for number in range(len(jobs))]
            futures = [pool.submit(_run_in_worker, function, job, rest) for job, rest in zip(jobs, rounds, strict=True)]
        for number, future in enumerate(as_completed(futures), 1):
            future.result()  # raises at the first failure
            bar.to(number)
        return [future.result() for future in futures]


@contextmanager
def worker_pool(
    workers: int, initializer: Callable[..., None], arguments: tuple[Any, ...]
) -> Iterator[ProcessPoolExecutor]:
    """Open a pool of spawned processes; if the block raises, SIGTERM stops them, and they are waited for."""
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer, arguments) as pool:
        try:
            yield pool
        except BaseException:
            with progress.tell_if_slow("stopping after the present steps; Ctrl-C again stops at once"):
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()
                # One that is stopped while it sends a result leaves half of it. What waits for the rest learns that there is none
                # when nobody can write any more, and this process could.
                with suppress(AttributeError):  # names of the standard library's own
                    pool._result_queue._writer.close()  # type: ignore[attr-defined]
                pool.shutdown(wait=True, cancel_futures=True)
            raise


def check_guarded() -> None:
    """Raise InputError in a script that workers would run again from its first line, because it has no guard."""
    main = sys.modules.get("__main__")
    file = Path(getattr(main, "__file__", None) or "")
    is_script = getattr(main, "__spec__", None) is None and file.suffix == ".py" and file.is_file()
    if is_script and b"__main__" not in file.read_bytes():
        raise InputError(
            f"{file.name} starts worker processes, and each of them would run it again: put its calls under "
            'if __name__ == "__main__":'
        )


def start_resource_tracker() -> None:
    """Start the process that removes the locks of killed processes, before anything else of `multiprocessing` starts it.

    Ctrl-C and SIGHUP do not end this one, and it does not warn of what it removes after our last words.
    """
    check_guarded()
    quiet = "ignore:resource_tracker:UserWarning"
    sys.warnoptions.append(quiet)
    try:
        with stopping.ctrl_c_blocked():
            multiprocessing.resource_tracker.ensure_running()
    finally:
        sys.warnoptions.remove(quiet)


_line = 0
"""The line of the terminal for this worker's progress bar."""


def _run(function: Callable[..., T], job: tuple[Any, ...], rounds: float | int) -> T:
    progress.jobs_follow(rounds)
    with plugin_failures():  # here, because the parent gets the exception without its traceback
        return function(*job, position=_line)


def _run_in_worker(function: Callable[..., Any], job: tuple[Any, ...], rounds: float | int) -> Any:
    with stopping.stop_by_parent():
        return _run(function, job, rounds)


def start_worker(lock: Any, started: Any, threads: int, parent: int, plugins: Sequence[Path]) -> None:
    """Prepare a worker process: set its line of the terminal and its threads, load plugins, and watch its parent."""
    global _line
    stopping.leave_to_parent()
    tqdm.set_lock(lock)
    with started.get_lock():
        _line = started.value
        started.value += 1
    show_any_text()
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
