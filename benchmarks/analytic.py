"""Does the analytic readoff of a layer of 100,000 neurons err as theory says, and what does it take to find out?

Neurons are drawn, read and forgotten in blocks; inputs and pairs are sampled anew for each layer.
"""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
from scipy import stats

from benchmarks.harness import Case, Row, Spread, matmul, peak_mib
from toymodels.fast.streaming import analytic_rule, case_errors, sample_cases, stream_outputs
from toymodels.theory.extremes import max_error_distribution
from toymodels.theory.gates import CASE_NAMES, Gate
from toymodels.theory.quadrants import error_std

S = 3


def cases(quick: bool) -> list[Case]:
    """m = 10,000 and d = 100,000; --quick: m = 1,000 and d = 2,000."""
    arguments = {"m": 1000, "d": 2000, "layers": 8} if quick else {"m": 10_000, "d": 100_000, "layers": 16}
    return [Case("analytic", against_theory, {**arguments, "inputs": 300})]


def against_theory(m: int, d: int, layers: int, inputs: int) -> list[Row]:
    """RMS error by case over layers against σ/√d, and the largest error against the median of its law.

    Errors on one layer hang together, layers do not: standard errors are over layers.
    """
    gate, seconds, found = Gate.parse("and"), [], []
    for seed in range(layers):
        layer_seed, sample_seed = (int(state) for state in np.random.SeedSequence([seed, m, S, d]).generate_state(2))
        started = time.perf_counter()
        x, task = sample_cases(m, S, gate, inputs, sample_seed)
        found.append(case_errors(stream_outputs(analytic_rule(gate, S), d, task, x, layer_seed), task, x))
        seconds.append(time.perf_counter() - started)
    peak, product = peak_mib(), matmul()
    rate, sizes = Spread.of([product() for _ in range(5)]), f"m = {m:,}, d = {d:,}, s = {S}"
    squares, counts = np.array([e.mean_square for e in found]), np.array([e.count for e in found])
    rows = [Row(f"{sizes}, {inputs} inputs × about {task.n_outputs} pairs", "s/layer", Spread.of(seconds), rate, peak)]
    for case, name in enumerate(CASE_NAMES):
        rms, theory = np.sqrt(squares[:, case]), float(error_std(gate, S)[case]) / math.sqrt(d)
        mean = math.sqrt(squares[:, case].mean())
        error = squares[:, case].std(ddof=1) / math.sqrt(layers) / (2 * mean)
        # Few layers make the standard error itself rough: Student's t, not the normal law, says what is far off.
        p = 2 * float(stats.t.sf(abs(mean - theory) / error, layers - 1))
        note = f"over {layers} layers {mean:.6f} ± {error:.6f} (standard error), theory {theory:.6f}: Student's p = {p:.2f}"
        rows.append(_row(f"{sizes}: RMS in case {name}", rms, theory, "σ/√d", note, rate, peak))
    law = dataclasses.replace(max_error_distribution(gate, m, S, d, inputs), counts=tuple(counts.mean(0) / inputs))
    worst = np.array([e.worst for e in found])
    # The law's own quartiles would need more layers; the mean of the levels reached is 1/2 ± 1/√(12·layers).
    level = float(np.mean([law.cdf(value) for value in worst]))
    note = f"P(largest ≤ measured) by its law: mean over layers {level:.3f} ± {1 / math.sqrt(12 * layers):.3f} (expected 0.5)"
    size = f"{sizes}: largest of {counts.sum(1).mean():,.0f} errors"
    return [*rows, _row(size, worst, law.quantile(0.5), "predicted median", note, rate, peak)]


def _row(setting: str, values: np.ndarray, theory: float, against: str, note: str, rate: Spread, peak: float) -> Row:
    ratio = Spread.of((values / theory).tolist())
    return Row(setting, "error", Spread.of(values.tolist()), rate, peak, against, Spread.of([theory]), ratio, note=note)
