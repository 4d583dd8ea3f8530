"""Backends that do the runs of a sweep: processes on this machine, a Dask cluster, or Slurm jobs."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from toymodels.errors import InputError, NoEffectError
from toymodels.parallel.processes import cores, start_resource_tracker
from toymodels.parallel.stopping import ctrl_c_blocked
from toymodels.sweeps.work import Outcome, start_worker

_ANSWER_SECONDS = 10
"""How long a scheduler may take to answer."""
_COUNT_SECONDS = 5.0
"""How often the workers of a cluster are counted."""


@runtime_checkable
class RunningRun(Protocol):
    """A run that has been submitted to a backend."""

    def done(self) -> bool:
        """Whether it has ended."""

    def result(self) -> Outcome:
        """Return how it ended. Raises whatever ended its process."""


@runtime_checkable
class Backend(Protocol):
    """A number of workers."""

    def slots(self) -> int:
        """Return how many runs to submit at a time."""

    def submit(self, function: Callable[..., Outcome], *arguments: str | dict[str, Any]) -> RunningRun:
        """Submit a run."""

    def interrupt(self) -> None:
        """Ask the running runs to stop at their next step; nothing, if the backend does not say how."""
        return

    def close(self) -> None:
        """Release the workers; nothing, if there are none."""
        return


class Local:
    """Processes on this machine, one thread each; if one is killed, no other run is lost with it."""

    def __init__(self, workers: int):
        self._workers = workers
        # A worker's numerical libraries read these when they are loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        for library in ("OMP", "OPENBLAS", "MKL"):
            os.environ[f"{library}_NUM_THREADS"] = "1"
        self._pools: dict[ProcessPoolExecutor, Future[Outcome]] = {}  # pools of one process, and the latest run of each
        self._processes: set[BaseProcess] = set()
        start_resource_tracker()

    def slots(self) -> int:
        """Return one run per worker: queueing more would withhold runs from other runners."""
        return self._workers

    def submit(self, function: Callable[..., Outcome], *arguments: str | dict[str, Any]) -> Future[Outcome]:
        """Submit a run to a free process."""
        pool, others = self._free_pool(), set(multiprocessing.active_children())
        with ctrl_c_blocked():
            self._pools[pool] = pool.submit(function, *arguments)
        self._processes |= set(multiprocessing.active_children()) - others
        return self._pools[pool]

    def _free_pool(self) -> ProcessPoolExecutor:
        for pool, future in list(self._pools.items()):
            if future.done():
                if not isinstance(future.exception(), BrokenProcessPool):
                    return pool
                del self._pools[pool]
                pool.shutdown(wait=False)
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), start_worker, (os.getpid(),))

    def interrupt(self) -> None:
        """Send SIGTERM, which a run takes as Ctrl-C."""
        for process in self._processes.intersection(multiprocessing.active_children()):
            process.terminate()

    def close(self) -> None:
        """Wait for the workers to end."""
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            pool.shutdown(wait=True)


class Dask(Backend):
    """A Dask cluster whose workers see the same files; start them with `dask worker --nthreads 1`.

    Closing the client cancels runs that have not begun; running ones go on to their end.
    """

    def __init__(self, address: str):
        try:
            from distributed import Client
        except ImportError:
            raise InputError("Dask needs the package distributed: pip install 'toymodels[cluster]'") from None
        try:
            self._client = Client(address, timeout=_ANSWER_SECONDS, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"the Dask scheduler {address} does not answer ({type(error).__name__}): start it with `dask scheduler`"
            ) from None
        self._executor = self._client.get_executor(pure=False)
        self._threads, self._counted = 1, -_COUNT_SECONDS

    def slots(self) -> int:
        """Return twice the cluster's threads, so that no worker waits for the next run. OSError if the scheduler is gone."""
        if time.monotonic() - self._counted > _COUNT_SECONDS:
            if self._client.status != "running":
                raise OSError("the Dask scheduler is gone; the same command continues once it is back")
            self._threads = max(1, sum(self._client.ncores().values()))
            self._counted = time.monotonic()
        return 2 * self._threads

    def submit(self, function: Callable[..., Outcome], *arguments: str | dict[str, Any]) -> Future[Outcome]:
        """Submit a run to the scheduler, which sends it to a worker, and to another one if that worker is lost."""
        return self._executor.submit(function, *arguments)

    def close(self) -> None:
        """Leave the cluster."""
        with contextlib.suppress(TimeoutError, OSError):
            self._client.close()


class Slurm(Backend):
    """Jobs of a Slurm cluster, through submitit; `TOYMODELS_SLURM_…` sets its parameters (timeout_min, partition, …).

    Jobs continue by themselves after Ctrl-C, and the same command later finds their results.
    """

    def __init__(self, folder: Path, workers: int, cluster: str):
        try:
            import submitit
        except ImportError:
            raise InputError("Slurm needs the package submitit: pip install 'toymodels[slurm]'") from None
        self._workers = workers
        prefix = "TOYMODELS_SLURM_"
        chosen = {key.removeprefix(prefix).lower(): text for key, text in os.environ.items() if key.startswith(prefix)}
        numbers = {key: int(text) if text.isdigit() else text for key, text in chosen.items()}
        generic = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "name")
        named = {key if key in generic else f"slurm_{key}": value for key, value in numbers.items()}
        try:
            self._executor = submitit.AutoExecutor(folder / "slurm", cluster=cluster)
            self._executor.update_parameters(**{"timeout_min": 240, "cpus_per_task": 1, **named})
        except (RuntimeError, NameError, ValueError, AssertionError) as error:
            raise InputError(f"Slurm cannot be used here: {str(error).splitlines()[0]}") from None

    def slots(self) -> int:
        """Return the number of jobs that was asked for."""
        return self._workers

    def submit(self, function: Callable[..., Outcome], *arguments: str | dict[str, Any]) -> RunningRun:
        """Submit a run as one job."""
        return self._executor.submit(function, *arguments)


def open_backend(scheduler: str, workers: int | None, folder: Path) -> Backend:
    """Open local processes ("local"), a Dask cluster ("tcp://host:8786"), "slurm", or "slurm-local" (to try it).

    Raises InputError for another word, a scheduler that does not answer or a package that is not installed.
    """
    if scheduler == "local":
        return Local(workers or cores())
    if scheduler.startswith(("tcp://", "tls://")):
        if workers is not None:
            raise NoEffectError(f"workers = {workers}: a Dask cluster has its own number: leave it out")
        return Dask(scheduler)
    if scheduler in ("slurm", "slurm-local"):
        return Slurm(folder, workers or 100, "slurm" if scheduler == "slurm" else "local")
    raise InputError(
        f"unknown scheduler {scheduler!r}: local, the address of a Dask scheduler such as tcp://127.0.0.1:8786, or slurm"
    )
