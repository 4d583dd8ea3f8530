"""Are minimax readoffs faster than a linear program for each pair, from few inputs than from all held, and proved?

U-AND, at most 2 or 3 of m features active, a Gaussian ReLU layer (seed 0).
"""

from __future__ import annotations

import dataclasses
import resource
import sys
import time

import numpy as np
import torch
from scipy.optimize import linprog
from threadpoolctl import threadpool_limits

from benchmarks.harness import Case, Row, Spread, matmul, peak_mib
from toymodels.core.features import SparseFeatures
from toymodels.core.minimax import Minimax, minimax
from toymodels.core.tasks import PairTask
from toymodels.fast import minimax as module
from toymodels.layers.random import gaussian

TOLERANCE = 1e-6
WANTED = 20.0


def cases(quick: bool) -> list[Case]:
    """All pairs at m = d = 100, and 12 of m = 64 and 256 with 3 active; --quick: fewer and smaller."""
    arguments = (
        {"m": 40, "d": 40, "pairs": 60, "programs": 2} if quick else {"m": 100, "d": 100, "pairs": None, "programs": 6}
    )
    few = {"m": 24, "d": 64, "repeats": 1} if quick else {"m": 64, "d": 256, "repeats": 3}
    many = {"m": 40, "d": 40, "repeats": 0} if quick else {"m": 256, "d": 256, "repeats": 0}
    return [
        Case("minimax", against_linprog, {**arguments, "processes": 2}),
        *(Case("minimax", against_all_held, {**sizes, "s": 3, "pairs": 12}) for sizes in (few, many)),
    ]


def against_all_held(m: int, d: int, s: int, pairs: int, repeats: int) -> list[Row]:
    """Activations made block by block against all of them held, one process each; no repeats: the former alone."""
    task, inputs, layer = PairTask(m, "and"), SparseFeatures.at_most(m, s).enumerate(), gaussian(m, d, 0)
    task = task.subset(torch.arange(task.n_outputs)[:: task.n_outputs // pairs][:pairs])
    seconds: dict[bool, list[float]] = {False: [], True: []}
    found: dict[bool, Minimax] = {}

    def measure(held: bool) -> None:
        module.holds_all = lambda *_: held
        started = time.perf_counter()
        found[held] = minimax(layer, task, inputs)
        seconds[held].append((time.perf_counter() - started) / pairs)

    measure(False)
    peak, product = peak_mib(), matmul()
    for _ in range(repeats):
        measure(True)
        measure(False)
    errors = [[certificate.worst_error for certificate in fitted.certificates] for fitted in found.values()]
    if not all(fitted.proved for fitted in found.values()) or not np.allclose(
        errors[0], errors[-1], rtol=0, atol=TOLERANCE
    ):
        raise ArithmeticError("a minimax readoff is not proved, or the two ways differ")
    own, other = seconds[False][-max(repeats, 1) :], seconds[True]
    row = Row(
        f"m = {m}, d = {d}, at most {s} active, {len(inputs):,} inputs: {pairs} pairs, blocks of activations", "s/pair",
        Spread.of(own), Spread.of([product() for _ in range(5)]), peak,
    )  # fmt: skip
    if repeats:
        ratio = Spread.of([reference / mine for mine, reference in zip(own, other, strict=True)])
        row = dataclasses.replace(row, against="all activations held", reference=Spread.of(other), ratio=ratio)
    return [row]


def against_linprog(m: int, d: int, pairs: int | None, programs: int, processes: int) -> list[Row]:
    """The whole run in several processes, and a sample of pairs in one, alternating with SciPy's linear program."""
    task, inputs, layer = PairTask(m, "and"), SparseFeatures.at_most(m, 2).enumerate(), gaussian(m, d, 0)
    if pairs is not None:
        task = task.subset(torch.arange(pairs))
    started = time.perf_counter()
    whole = minimax(layer, task, inputs, processes=processes)
    seconds = time.perf_counter() - started
    peak, product = peak_mib(), matmul()
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    x = inputs.dense(dtype=torch.float64)
    a = layer.double()(x).detach().numpy()
    targets = task.targets(x).numpy()
    note = certificates_hold(whole, a, targets)
    chosen = np.linspace(0, task.n_outputs - 1, programs).astype(int)
    alone: list[float] = []
    theirs: list[float] = []
    difference = 0.0
    batches = [task.subset(torch.arange(task.n_outputs)[i::programs][:20]) for i in range(programs)]
    # SciPy's side too has one thread: HiGHS and the products of both are kept to one.
    with threadpool_limits(1):
        for batch, i in zip(batches, chosen, strict=True):
            started = time.perf_counter()
            minimax(layer, batch, inputs)
            alone.append((time.perf_counter() - started) / batch.n_outputs)
            started = time.perf_counter()
            optimum = full_program(a, targets[:, i])
            theirs.append(time.perf_counter() - started)
            difference = max(difference, abs(optimum - whole.certificates[i].worst_error))
    rates = [product() for _ in range(5)]
    sizes = f"m = {m}, d = {d}, {len(inputs):,} inputs, {task.n_outputs:,} pairs"
    note += f"; optimum of linprog and ours differ by {difference:.1e} at most; peak of a worker {workers:,.0f} MiB"
    row = Row(
        f"{sizes}: one process, {programs} × 20 pairs", "s/pair", Spread.of(alone), Spread.of(rates), peak,
        f"linprog(method='highs'), {programs} pairs, one process", Spread.of(theirs),
        Spread.of([reference / own for own, reference in zip(alone, theirs, strict=True)]), WANTED,
    )  # fmt: skip
    whole_run = dataclasses.replace(
        row, setting=f"{sizes}: all, {processes} processes, {seconds:.1f} s in all", note=note,
        new=Spread.of([seconds / task.n_outputs]), ratio=Spread.of([other * task.n_outputs / seconds for other in theirs]),
    )  # fmt: skip
    return [row, whole_run]


def full_program(a: np.ndarray, f: np.ndarray) -> float:
    """min t subject to |a·r + c − f| ≤ t on every input."""
    n, d = a.shape
    one = np.ones((n, 1))
    both = np.block([[a, one, -one], [-a, -one, -one]])
    cost = np.zeros(d + 2)
    cost[-1] = 1
    found = linprog(cost, both, np.concatenate([f, -f]), bounds=(None, None), method="highs")
    if found.fun is None:
        raise ArithmeticError(f"linprog failed: {found.message}")
    return float(found.fun)


def certificates_hold(found: Minimax, a: np.ndarray, targets: np.ndarray) -> str:
    """Every certificate from its rows and multipliers alone, in NumPy; raises ArithmeticError if one does not hold.

    Σ|μ| = 1, Σ μ = 0, Σ μ a = 0 and μ·f = ε, the largest |a·r + c − f|, each to TOLERANCE (activations in units of
    each neuron's largest).
    """
    weight, bias = found.readoff.weight.detach().numpy(), found.readoff.bias.detach().numpy()
    largest, worst = np.abs(a).max(0), 0.0
    scaled = a / np.where(largest > 0, largest, 1)
    for start in range(0, len(weight), 64):
        chosen = range(start, min(start + 64, len(weight)))
        errors = np.abs(a @ weight[chosen].T + bias[chosen] - targets[:, chosen]).max(0)
        for i, error in zip(chosen, errors, strict=True):
            rows, mu = found.certificates[i].rows, found.certificates[i].multipliers
            bound = mu @ targets[rows, i]
            gaps = (abs(np.abs(mu).sum() - 1), abs(mu.sum()), np.abs(mu @ scaled[rows]).max(), abs(bound - error))
            worst = max(worst, *gaps)
            if not max(gaps) <= TOLERANCE:
                raise ArithmeticError(f"the certificate of pair {i} does not hold: {gaps}")
    return f"all {len(weight):,} certificates hold, to {worst:.1e}"
