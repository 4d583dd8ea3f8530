"""Solve minimax readoffs with shared work, from all activations at once or from blocks of them, on several processes."""

from __future__ import annotations

import functools
import multiprocessing
import os
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from threadpoolctl import threadpool_limits
from torch import nn

from toymodels.core.dispatch import fast_form
from toymodels.core.features import Inputs, dense
from toymodels.core.minimax import Chebyshev, Loop, certified
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import WriteError
from toymodels.fast.columns import apply_sparse
from toymodels.fast.exchange import exchange
from toymodels.fast.interior_point import ChebyshevSolver
from toymodels.fast.symmetry import interchangeable, permuted
from toymodels.parallel import processes as worker_processes
from toymodels.parallel.stopping import ctrl_c_blocked
from toymodels.parallel.threads import torch_single_threaded

HELD_LIMIT = 2**24
"""Activations, inputs × neurons, that may all be held: about 1 GB with the arrays computed from them."""
_MANY, _PER_NEURON = 10_000, 100  # above both numbers of inputs, `exchange` is also faster, not only leaner
_BLOCK = 2**21  # activations, or values of inputs, computed at once: 16 MiB
_TOGETHER = 16  # outputs that share activations in an exchange, and at most in the solutions for held activations
_GROUP = 2**16  # outputs × inputs solved together: a dozen arrays of float64 of this size take 6 MiB
_CHUNK = 2**16  # targets × inputs sent to a worker at once: about 0.2 s of work, for which Ctrl-C waits


@fast_form(certified, lambda *_: True)
def shared_certified(
    layer: nn.Module,
    task: Task,
    inputs: Inputs,
    progress: Loop,
    processes: int,
    known: Sequence[Chebyshev] = (),
    keep: Callable[[int, Chebyshev], None] = lambda output, certificate: None,
) -> list[Chebyshev]:
    """Solve the outputs that are not known: with one factorisation of the activations, or in blocks if those are too many.

    Each process holds a basis of the activations, inputs × neurons in float64. If activations are not all held
    (`holds_all`), the processes are threads, which may call the layer at the same time.
    """
    width = _look(layer, task, slice(0), inputs, slice(0, 1))[0].shape[1]
    held = holds_all(inputs, width)
    # What is found depends, in the last digits, on the outputs solved together: half a group is solved again.
    together = _group(len(inputs)) if held else _TOGETHER
    certificates = list(known if len(known) == task.n_outputs else known[: len(known) // together * together])
    outputs = range(len(certificates), task.n_outputs)
    if held:
        solve = _solved(layer, task, inputs, outputs, processes)
    else:
        solve = _exchanged(layer, task, inputs, outputs, max(1, _BLOCK // max(width, inputs.m)), processes)
    with closing(solve) as solved:
        for output, certificate in zip(progress(outputs), solved if outputs else (), strict=True):
            keep(output, certificate)
            certificates.append(certificate)
    return certificates


def _group(inputs: int) -> int:
    """Return how many outputs are solved together: their slacks and multipliers stay in a core's cache."""
    return max(1, min(_TOGETHER, _GROUP // inputs))


def holds_all(inputs: Inputs, width: int) -> bool:
    """Whether `minimax` holds the activations of all inputs; otherwise it computes them block by block."""
    return len(inputs) * width <= HELD_LIMIT and len(inputs) <= max(_MANY, _PER_NEURON * width)


def _look(
    layer: nn.Module, task: Task, outputs: slice, inputs: Inputs, rows: slice | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return activations and targets of some outputs on some inputs, in float64."""
    indices, values = inputs.indices[rows], None if inputs.values is None else inputs.values[rows]
    x = dense(indices, inputs.m, torch.float64, values)
    with torch.no_grad():  # a new thread starts with gradients on
        activations = layer(x) if values is not None else apply_sparse(layer, x, indices)
        return activations.cpu().numpy(), task.targets(x, outputs).double().cpu().numpy()


def _exchanged(
    layer: nn.Module, task: Task, inputs: Inputs, wanted: range, size: int, threads: int
) -> Generator[Chebyshev, None, None]:
    """Solve a group of outputs at a time, in order, holding the activations of `size` inputs only."""
    pool = ThreadPoolExecutor(threads, "minimax", torch.set_num_threads, (1,))
    with threadpool_limits(1, "blas"), torch_single_threaded(), pool:
        for start in wanted[::_TOGETHER]:
            outputs = slice(start, min(start + _TOGETHER, task.n_outputs))
            look = functools.partial(_look, layer, task, outputs, inputs)
            yield from exchange(look, len(inputs), size, map if threads == 1 else pool.map)


def _solved(
    layer: nn.Module, task: Task, inputs: Inputs, outputs: range, processes: int
) -> Generator[Chebyshev, None, None]:
    """Solve from all activations at once, in order."""
    x = inputs.dense(dtype=torch.float64)
    workers = min(processes, len(outputs))
    group = _group(len(x))
    chunk = -(-min(_CHUNK // len(x), len(outputs) // workers) // group) * group or group
    slices = (slice(i, min(i + chunk, task.n_outputs)) for i in outputs[::chunk])
    targets = (task.targets(x, part).double().T.contiguous().cpu().numpy() for part in slices)
    held = np.concatenate([_look(layer, task, slice(0), inputs, rows)[0] for rows in inputs.blocks(4096)])
    if interchangeable(layer, task, inputs):
        assert isinstance(task, PairTask)
        with threadpool_limits(1, "blas"):
            yield from permuted(task, inputs, held, outputs, ChebyshevSolver(held).solve)
        return
    if workers > 1:
        yield from _solved_apart(held, targets, workers)
        return
    # The matrix products are too short for threads: on busy cores a second thread makes them many times slower.
    with threadpool_limits(1, "blas"):
        solver = ChebyshevSolver(held)
        for part in targets:
            yield from _in_groups(solver, part)


def _in_groups(solver: ChebyshevSolver, targets: Float[np.ndarray, "outputs inputs"]) -> Iterator[Chebyshev]:
    group = _group(targets.shape[1])
    for start in range(0, len(targets), group):
        yield from solver.solve_all(targets[start : start + group])


def _solved_apart(
    activations: np.ndarray, chunks: Iterator[np.ndarray], workers: int
) -> Generator[Chebyshev, None, None]:
    """Solve in worker processes, in order."""
    worker_processes.start_resource_tracker()
    context = multiprocessing.get_context("spawn")
    # One memory-mapped file for all workers: no copy for each of them, and no limit like that of /dev/shm in a container.
    with tempfile.TemporaryDirectory(prefix="minimax-") as folder:
        path = Path(folder) / "activations.npy"
        try:
            np.save(path, activations)
        except OSError as error:
            advice = "make room, or set TMPDIR to another folder"
            raise WriteError(error.errno or 0, f"{path} cannot be written ({error}): {advice}") from error
        no_plugins: list[Path] = []
        start = (path, context.RLock(), context.Value("i", 0), 1, os.getpid(), no_plugins)
        with worker_processes.worker_pool(workers, _start_worker, start) as pool:
            pending: deque[Future[list[Chebyshev]]] = deque()
            for targets in chunks:
                with ctrl_c_blocked():
                    pending.append(pool.submit(_solve_chunk, targets))
                if len(pending) > 2 * workers:  # enough to keep all workers busy; more would only take memory
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()


_path: Path
_solver: ChebyshevSolver | None = None
"""The solver of this worker process, over the activations of the call that started it."""


def _start_worker(path: Path, *start: Any) -> None:
    global _path
    worker_processes.start_worker(*start)
    threadpool_limits(1, "blas")
    _path = path


def _solve_chunk(targets: Float[np.ndarray, "outputs inputs"]) -> list[Chebyshev]:
    global _solver
    if _solver is None:  # not at the start of the worker, where an error would not reach the caller
        _solver = ChebyshevSolver(np.load(_path, mmap_mode="r"))
    return list(_in_groups(_solver, targets))
