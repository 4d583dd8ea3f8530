"""How near does evaluation come to the rate of the matrix product that it cannot do without, and in what memory?

U-AND of all pairs, exactly 3 of m features active, every input, a Gaussian layer with its analytic readoff.
"""

from __future__ import annotations

import time

import torch

from benchmarks.harness import Case, Row, Spread, clock, matmul, peak_mib
from toymodels.core.evaluation import evaluate
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.network import Network
from toymodels.core.tasks import PairTask
from toymodels.layers.random import gaussian
from toymodels.readoffs.analytic import analytic

S = 3
ROWS, COLUMNS = 1024, 2048
"""Inputs and pairs of the product alone: written into memory that is there already."""
PEAK_WANTED = 2048.0


def cases(quick: bool) -> list[Case]:
    """m = d = 200: all 1,313,400 inputs, or with --quick 4,096 of them; both precisions."""
    n = 4096 if quick else None
    return [
        Case("evaluation", share_of_product, {"m": 200, "d": 200, "n": n, "dtype": t}) for t in ("float64", "float32")
    ]


def share_of_product(m: int, d: int, n: int | None, dtype: str) -> list[Row]:
    """Inputs × pairs × 2d operations over the seconds of the whole run, against the product measured before and after."""
    kind = getattr(torch, dtype)
    task, layer = PairTask(m, "and"), gaussian(m, d, 0)
    network, inputs = Network(layer, analytic(layer, task, S)), SparseFeatures.exactly(m, S).enumerate()
    if n is not None:
        inputs = _some(inputs, n)
    a, readoff = torch.rand(ROWS, d, dtype=kind), torch.rand(COLUMNS, d, dtype=kind)
    out = torch.empty(ROWS, COLUMNS, dtype=kind)

    def product() -> float:
        return 2e-9 * ROWS * COLUMNS * d / clock(lambda: torch.mm(a, readoff.T, out=out), 100)

    evaluate(network, task, _some(inputs, 2048), kind)
    product()
    alone = [product() for _ in range(3)]
    started = time.perf_counter()
    found = evaluate(network, task, inputs, kind)
    seconds = time.perf_counter() - started
    peak = peak_mib()
    alone += [product() for _ in range(3)]
    rate = 2e-9 * found.n_inputs * found.n_outputs * d / seconds
    general = matmul()
    return [
        Row(
            f"m = {m}, d = {d}, exactly {S}, {found.n_inputs:,} inputs × {found.n_outputs:,} pairs, {dtype}", "GFLOP/s",
            Spread.of([rate]), Spread.of([general() for _ in range(5)]), peak, "the readoff's product alone", Spread.of(alone),
            Spread.of([rate / other for other in alone]), peak_wanted=PEAK_WANTED,
            note=f"{seconds:.1f} s, worst error {found.worst_error:.6f}",
        )
    ]  # fmt: skip


def _some(inputs: Inputs, n: int) -> Inputs:
    """n inputs spread evenly, as a sample."""
    chosen = torch.linspace(0, len(inputs) - 1, n).long()
    law = torch.full((n,), 1 / n, dtype=torch.float64)
    return Inputs(inputs.m, inputs.indices[chosen], law, False, f"{n:,} spread evenly")
