"""How wide must the layer be for an error ε? By the law of each readoff, and by each lower bound."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from toymodels.errors import InputError
from toymodels.experiments.predictions import (
    WIDTH,
    Row,
    affine_value,
    attempt,
    best_bernoulli,
    counting_row,
    exact_shares,
    floor_sparsity,
    kernel_solution,
    law_of,
    rms_by_value,
    varying_solution,
)
from toymodels.experiments.sizes import WidthConfig
from toymodels.runs import text as tables
from toymodels.runs.identity import to_dict
from toymodels.runs.storage import write_json
from toymodels.theory import floors
from toymodels.theory.extremes import maximum_law
from toymodels.theory.fitted import fitted_error
from toymodels.theory.gates import Gate
from toymodels.theory.optimal import optimal_readoff
from toymodels.theory.quadrants import error_std
from toymodels.theory.rank import least_width

READOFF = "readoff's law"
WIDEST = 10**12
"""Neurons beyond which the search for a width gives up."""
BERNOULLI_WIDEST = 20_000
"""The same for the Bernoulli construction, whose prediction is a sum as long as d."""


def smallest(enough: Callable[[int], bool], least: int = 1, widest: int = WIDEST) -> int:
    """The smallest d >= least with enough(d), which stays true from there on. Raises InputError if it is above `widest`."""
    low, high = least - 1, least
    while not enough(high):
        if high >= widest:
            raise InputError(f"more than {widest:,} neurons")
        low, high = high, min(2 * high, widest)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def by_law(sigma: float, epsilon: float) -> int:
    """The smallest d with σ/√d <= ε."""
    return max(1, math.ceil((sigma / epsilon) ** 2 * (1 - 1e-12)))


def rows(config: WidthConfig, gate: Gate) -> list[Row]:
    """Every width for one gate; those that are not known have no value, and a note that says why."""
    return [*_readoffs(config, gate), *_lower_bounds(config, gate)]


def _readoffs(config: WidthConfig, gate: Gate) -> list[Row]:
    m, s, epsilon = config.m, config.s, float(config.epsilon)
    exact, every = config.exact_domain, config.inputs == "at_most"
    moments, extremes = "quadrant moments (theory.quadrants)", "Cornish–Fisher extremes (theory.extremes)"
    variance = error_std(gate, s) ** 2

    def by_value(value: int) -> int:
        return by_law(rms_by_value(gate, value, exact_shares(m, s), variance), epsilon)

    def largest() -> tuple[int, str]:
        inputs = math.comb(m, s)
        law = maximum_law(gate, m, s, 10, inputs)
        found = smallest(lambda d: dataclasses.replace(law, d=d).cdf(epsilon) >= 0.5, least=10)
        return found, "predictions are made from d = 10 up" if found == 10 else ""

    def bernoulli() -> tuple[int, str]:
        found = smallest(lambda d: float(best_bernoulli(d, s)[1].rms.max()) <= epsilon, 2, BERNOULLI_WIDEST)
        return found, f"least over p, at p = {best_bernoulli(found, s)[0]:.3f}"

    def balanced() -> int:
        return smallest(lambda d: float(fitted_error(gate, m, s, d, at_most=every).rms.max()) <= epsilon)

    first_order = "first order in 1/√d"
    table: list[tuple[str, str, str, str, Callable[[], int | tuple[int, str]]]] = [
        ("analytic_rms_zeros", "analytic readoff: RMS at zeros", exact, moments, lambda: by_value(0)),
        ("analytic_rms_ones", "analytic readoff: RMS at ones", exact, moments, lambda: by_value(1)),
        ("analytic_max_median", "analytic readoff: worst error, median of layers", exact, extremes, largest),
        ("optimal_rms", "best η(u, v): largest of the cases' RMS", exact, "least variance (theory.optimal)",
         lambda: (by_law(optimal_readoff(gate, s).worst, epsilon), first_order)),
        ("kernel_rms", "least-norm η(u, v): largest RMS", config.domain, "Cho & Saul 2009 (theory.kernel)",
         lambda: (by_law(float(kernel_solution(config, gate)[1].max()), epsilon), f"m → ∞, {first_order}")),
        ("balanced_rms", "case-balanced least squares: largest of the cases' RMS", config.domain,
         "Dereziński et al. 2020 (theory.fitted)", balanced),
    ]  # fmt: skip
    if every:
        table.insert(4, (
            "varying_rms", "best η(u, v) for all counts: largest RMS", config.domain, "least variance (theory.varying)",
            lambda: (by_law(varying_solution(config, gate).worst, epsilon), first_order),
        ))  # fmt: skip
    if gate.name == "and":
        construction = "Vaintrob et al. 2024 (theory.bernoulli)"
        table.append(("bernoulli_rms", "Bernoulli layer: largest of the cases' RMS", exact, construction, bernoulli))
    return [attempt(Row(name, None, READOFF, about, where, source), find) for name, about, where, source, find in table]


def _lower_bounds(config: WidthConfig, gate: Gate) -> list[Row]:
    m, epsilon, where = config.m, float(config.epsilon), config.domain

    def affine() -> tuple[int, str]:
        floor = affine_value(config, gate)
        if epsilon >= floor:
            return 0, f"an affine readoff of the inputs reaches {floor:g}: no hidden layer is needed"
        return 1, f"an affine readoff of the inputs reaches {floor:g} and no less: a hidden layer is needed"

    def squares() -> tuple[int, str]:
        law = law_of(config)
        zero = floors.zero_predictor(gate, law).mean_square
        if zero <= epsilon**2:
            return 0, f"the output 0 has RMS error {math.sqrt(zero):.3g}: plain averages say little of sparse targets"
        return smallest(lambda d: floors.square_floor(gate, law, d).per_output <= epsilon**2), ""

    def worst() -> tuple[int, str]:
        found = least_width(gate, m, floor_sparsity(config), epsilon)
        return found, "" if found > 1 else "says nothing at this ε"

    eckart, welch = "Eckart & Young 1936 (theory.floors)", "Welch 1974 (theory.floors)"
    return [
        attempt(Row("affine_floor", None, WIDTH, "worst error, no hidden layer", where,
                    "Chebyshev on four cases (theory.floors)"), affine),
        attempt(Row("worst_error_floor", None, WIDTH, "worst error over all pairs and inputs", where,
                    "Alon 2009, Welch 1974 (theory.rank)"), worst),
        attempt(Row("pca_floor", None, WIDTH, "RMS over all pairs and inputs", where, eckart), squares),
        attempt(Row("welch_bound", None, WIDTH, "largest |cosine| of m unit directions in d", "none", welch),
                lambda: smallest(lambda d: floors.welch_bound(m, d) <= epsilon)),
        counting_row(m, config.outputs, config.bits),
    ]  # fmt: skip


_FOOTER = (
    "error: output − target. Widths by a readoff's law are predictions for a frozen Gaussian layer (N(0, 1), no bias, ReLU)\n"
    "unless said, and reach ε in the sense of their row: an RMS error of ε is far from a worst error of ε (largest |error|\n"
    "over all pairs and inputs). A lower bound holds for every layer. The widths at which minimax readoffs, which have the\n"
    "smallest worst error of all, reach ε are not predicted: they must be measured, by toymodels compare.\n"
)


def run_width(config: WidthConfig) -> str:
    """The tables, as text; also written as JSON where asked."""
    blocks, records = [], []
    for name in config.task:
        gate = Gate.parse(name)
        found = rows(config, gate)
        legend: dict[str, str] = {}
        cells = []
        for row in found:
            mark = legend.setdefault(row.note, f"[{len(legend) + 1}]") if row.note else ""
            width = "–" if row.value is None else f"{math.ceil(row.value):,}"
            cells.append((row.name, width, row.kind, row.about, row.inputs, row.source, mark))
            records.append({"task": gate.name, **dataclasses.asdict(row)})
        size = f"m = {config.m} features, {config.domain} active"
        title = f"U-{gate.name.upper()}: neurons d for an error ε = {config.epsilon:g}, {size}"
        table = tables.render(("name", "d", "kind", "error", "inputs", "source", "note"), cells, right=(1,))
        blocks.append("\n".join([title, table, *(f"{number} {text}" for text, number in legend.items())]))
    blocks.append(_FOOTER)
    if config.json is not None:
        settings = {key: value for key, value in to_dict(config).items() if key != "json"}
        write_json(config.json, {"rows": records, "config": settings})
    return "\n\n".join(blocks)
