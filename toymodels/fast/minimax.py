"""Minimax readoffs: the smallest worst-case error that any linear readoff of a layer can reach, with its proof."""

from __future__ import annotations

import copy
import functools
import multiprocessing
import os
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from threadpoolctl import threadpool_limits
from torch import nn

from toymodels.core.features import ENUMERATION_LIMIT, Inputs, SparseFeatures, count_in_words, dense
from toymodels.core.layers import activations
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import Task
from toymodels.errors import InputError
from toymodels.fast.exchange import exchange
from toymodels.fast.interior_point import Chebyshev, ChebyshevSolver
from toymodels.parallel import processes as jobs
from toymodels.parallel.threads import by_hand

HELD_LIMIT = 2**24
"""Activations, inputs × neurons, that may all be held: some 1 GB with what is made of them."""
_MANY = 10_000  # inputs from which, with _PER_NEURON times as many as neurons, `exchange` is the faster way, too
_PER_NEURON = 100
_BLOCK = 2**21  # activations, or values of inputs, made at once: 16 MiB
_TOGETHER = 16  # outputs that share the making of activations in an exchange
_CHUNK = 2**16  # targets × inputs handed to a worker at once: some 0.2 s of its work, which Ctrl-C waits for


@dataclass(frozen=True)
class Minimax:
    """A minimax readoff and, for each output, the certificate that no linear readoff of this layer does better."""

    readoff: LinearReadoff
    """The readoff, in float64."""
    certificates: tuple[Chebyshev, ...]
    """One per output: its measured worst error ε and a signed measure μ on inputs (rows, multipliers) with
    Σ|μ| = 1, Σ μ a = 0, Σ μ = 0, so that every readoff errs by at least Σ μ f somewhere."""

    @property
    def proved(self) -> bool:
        """Whether every output's worst error equals its lower bound (to 1e-6)."""
        return all(certificate.proved for certificate in self.certificates)


def check_minimax(features: SparseFeatures, limit: int = ENUMERATION_LIMIT) -> None:
    """Raises InputError, with the count and what to do, where inputs are too many to look at each of them."""
    if features.n_inputs > limit:
        raise InputError(
            f"a minimax readoff needs all inputs, and {features.name} active features make "
            f"{count_in_words(features.n_inputs)}, more than {limit:,}: take fewer (active) features, or leave "
            "minimax out and name the other readoffs"
        )


@torch.no_grad()
def minimax(
    layer: nn.Module,
    task: Task,
    inputs: Inputs,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    processes: int = 1,
) -> Minimax:
    """For each output i, min over (r, c) of max over inputs |r·a(x) + c − f_i(x)| (theory, section 5).

    Computed and measured in float64 over the inputs given: over all admissible inputs the result is the layer's own
    limit ε*; over a sample its lower bound still holds for all inputs, its upper bound for the sample only.
    `progress` may wrap the loop over outputs (a progress bar). `processes` share the outputs, and their number changes
    no bit of the result. More than one start as those of `jobs.run_jobs` do (a script that asks for them stands under
    `if __name__ == "__main__":`), and each holds a basis of the activations, inputs × neurons in float64. Where
    activations are not all held (`holds_all`), they are threads, which may call the layer at the same time.
    Raises InputError for activations that are not finite, or fewer than 1 process; BrokenProcessPool if a process is
    killed.
    """
    if processes < 1:
        raise InputError(f"processes = {processes}: it must be at least 1")
    layer = copy.deepcopy(layer).double()
    width = _look(layer, task, slice(0), inputs, slice(0, 1))[0].shape[1]
    if holds_all(inputs, width):
        solve = _solved(layer, task, inputs, processes)
    else:
        solve = _exchanged(layer, task, inputs, max(1, _BLOCK // max(width, inputs.m)), processes)
    with closing(solve) as solved:
        certificates = [found for _, found in zip(progress(range(task.n_outputs)), solved, strict=True)]
    weight = torch.from_numpy(np.stack([c.coefficients for c in certificates]))
    bias = torch.tensor([c.offset for c in certificates], dtype=torch.float64)
    return Minimax(LinearReadoff(weight, bias).to(inputs.indices.device), tuple(certificates))


def holds_all(inputs: Inputs, width: int) -> bool:
    """Whether `minimax` holds the activations of all inputs, or makes them block by block."""
    return len(inputs) * width <= HELD_LIMIT and len(inputs) <= max(_MANY, _PER_NEURON * width)


def _look(
    layer: nn.Module, task: Task, outputs: slice, inputs: Inputs, rows: slice | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Activations and targets of some outputs on some inputs, in float64."""
    indices = inputs.indices[rows]
    x = dense(indices, inputs.m, torch.float64)
    with torch.no_grad():  # a thread starts with gradients on, whatever its maker does
        return activations(layer, x, indices).cpu().numpy(), task.targets(x, outputs).double().cpu().numpy()


def _exchanged(
    layer: nn.Module, task: Task, inputs: Inputs, size: int, threads: int
) -> Generator[Chebyshev, None, None]:
    """Without holding activations but those of `size` inputs, in order, a group of outputs at a time."""
    pool = ThreadPoolExecutor(threads, "minimax", torch.set_num_threads, (1,))
    with threadpool_limits(1, "blas"), by_hand(), pool:
        for start in range(0, task.n_outputs, _TOGETHER):
            outputs = slice(start, min(start + _TOGETHER, task.n_outputs))
            look = functools.partial(_look, layer, task, outputs, inputs)
            yield from exchange(look, len(inputs), size, map if threads == 1 else pool.map)


def _solved(layer: nn.Module, task: Task, inputs: Inputs, processes: int) -> Generator[Chebyshev, None, None]:
    """From all activations at once, in order."""
    x = inputs.dense(dtype=torch.float64)
    workers = min(processes, task.n_outputs)
    chunk = max(1, min(_CHUNK // len(x), task.n_outputs // workers))
    slices = (slice(i, min(i + chunk, task.n_outputs)) for i in range(0, task.n_outputs, chunk))
    targets = (task.targets(x, outputs).T.contiguous().cpu().numpy() for outputs in slices)
    held = np.concatenate([_look(layer, task, slice(0), inputs, rows)[0] for rows in inputs.blocks(4096)])
    yield from _solved_here(held, targets) if workers == 1 else _solved_apart(held, targets, workers)


def _solved_here(activations: np.ndarray, chunks: Iterator[np.ndarray]) -> Generator[Chebyshev, None, None]:
    # Its matrix products are too short for threads: a second one makes them many times slower where cores are busy.
    with threadpool_limits(1, "blas"):
        solver = ChebyshevSolver(activations)
        for targets in chunks:
            yield from map(solver.solve, targets)


def _solved_apart(
    activations: np.ndarray, chunks: Iterator[np.ndarray], workers: int
) -> Generator[Chebyshev, None, None]:
    """The same, in order, from worker processes."""
    context = multiprocessing.get_context("spawn")
    # One file for all, mapped by each: no copy for each worker, and no limit as that of /dev/shm in a container.
    with tempfile.TemporaryDirectory(prefix="minimax-") as folder:
        path = Path(folder) / "activations.npy"
        np.save(path, activations)
        start = (path, context.RLock(), context.Value("i", 0), 1, os.getpid())
        with ProcessPoolExecutor(workers, context, _start_worker, start) as pool:
            pending: deque[Future[list[Chebyshev]]] = deque()
            try:
                for targets in chunks:
                    pending.append(pool.submit(_solve_chunk, targets))
                    if len(pending) > 2 * workers:  # enough to keep all at work; more would only take memory
                        yield from pending.popleft().result()
                while pending:
                    yield from pending.popleft().result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise


_path: Path
_solver: ChebyshevSolver | None = None
"""A worker's own, over the activations of the call that started it."""


def _start_worker(path: Path, *start: Any) -> None:
    global _path
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which ends the pool
    jobs.start_worker(*start)
    threadpool_limits(1, "blas")
    _path = path


def _solve_chunk(targets: Float[np.ndarray, "outputs inputs"]) -> list[Chebyshev]:
    global _solver
    if _solver is None:  # here and not at the start of the worker, where an error would not reach the caller
        _solver = ChebyshevSolver(np.load(_path, mmap_mode="r"))
    return [_solver.solve(target) for target in targets]
