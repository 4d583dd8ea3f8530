"""Every prediction and floor for one size, with its source: a table of numbers to hold measurements against."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np

from toymodels.errors import InputError
from toymodels.experiments.sizes import BoundsConfig, SizeSettings
from toymodels.theory import counts, floors
from toymodels.theory.bernoulli import BernoulliErrors, bernoulli_errors, best_probability
from toymodels.theory.extremes import maximum_law
from toymodels.theory.fitted import fitted_error
from toymodels.theory.gates import CASE_NAMES, Gate
from toymodels.theory.kernel import KernelFit, kernel_error_std, kernel_fit
from toymodels.theory.optimal import PopulationReadoff, optimal_readoff
from toymodels.theory.quadrants import error_std
from toymodels.theory.rank import worst_error_floor
from toymodels.theory.varying import tune_biases, varying_readoff

BASELINE, FLOOR, PREDICTION, WIDTH = "baseline", "floor", "prediction", "lower bound on width"
VARYING_LIMIT = 6
"""Active features up to which the readoff for varying s is found (seconds beyond, and constants in the thousands)."""
BIASED_LIMIT = 4
"""Active features up to which that layer's best bias is searched (seconds up to here)."""
BERNOULLI_LIMIT = 2000
"""Neurons up to which the Bernoulli construction's largest error is predicted (a convolution as long as d)."""


@dataclass(frozen=True)
class Row:
    """One number of the table."""

    name: str
    value: float | None
    """None: not known here, `note` says why."""
    kind: str
    """baseline, floor, prediction or lower bound on width."""
    about: str
    """Which error of what, or which other quantity, with its unit if it has one."""
    inputs: str
    """The inputs for which it holds."""
    source: str
    note: str = ""


def attempt(row: Row, find: Callable[[], float | tuple[float, str]]) -> Row:
    """The row with the value (and note) that `find` returns, or with the reason why there is none."""
    try:
        found = find()
    except InputError as reason:
        return dataclasses.replace(row, note=f"not computed: {reason}")
    value, note = found if isinstance(found, tuple) else (found, row.note)
    if not math.isfinite(value):
        return dataclasses.replace(row, note=note or "not computed: not a finite number")
    return dataclasses.replace(row, value=float(value), note=note)


def law_of(config: SizeSettings) -> np.ndarray:
    """P(j features are active), j = 0..m."""
    return (counts.at_most if config.inputs == "at_most" else counts.exactly)(config.m, config.s)


def affine_value(config: SizeSettings, gate: Gate) -> float:
    """`floors.affine_floor`. Raises InputError where too many features are on for all four cases."""
    if config.inputs == "exactly" and config.s > config.m - 2:
        raise InputError("it holds for exactly s of m active with s <= m − 2: all four cases must occur")
    return floors.affine_floor(gate)


def floor_sparsity(config: SizeSettings) -> int:
    """The s of `theory.rank`: inputs with exactly 2 active bound most, and at most s includes them."""
    return 2 if config.inputs == "at_most" else config.s


def exact_shares(m: int, s: int) -> np.ndarray:
    """Shares of the cases 00, 01, 10, 11 among all pairs on inputs with exactly s of m active."""
    found = np.array(counts.case_counts(m, s), dtype=float)
    return found / found.sum()


def rms_by_value(gate: Gate, value: int, shares: np.ndarray, mean_square: np.ndarray) -> float:
    """RMS over the cases whose target is `value`, each with its share. Raises InputError if no such case occurs."""
    chosen = (np.array(gate.truth) == value) & (shares > 0)
    if not chosen.any():
        raise InputError(f"no target is {value} on these inputs")
    return math.sqrt(float(shares[chosen] @ mean_square[chosen] / shares[chosen].sum()))


def kernel_solution(config: SizeSettings, gate: Gate) -> tuple[KernelFit, np.ndarray]:
    """The least-norm readoff of the infinite layer for many features, and its σ under each condition."""
    if config.inputs == "at_most" and config.s > VARYING_LIMIT:
        raise InputError(f"for at most s active it is found for s up to {VARYING_LIMIT}")
    fit = kernel_fit(gate, None, config.s, at_most=config.inputs == "at_most")
    return fit, kernel_error_std(fit)


def varying_solution(config: SizeSettings, gate: Gate) -> PopulationReadoff:
    """The readoff unbiased at every number of active features up to s. Raises InputError for s above VARYING_LIMIT."""
    if config.s > VARYING_LIMIT:
        raise InputError(
            f"it is found for s up to {VARYING_LIMIT}; without biases its constant grows into the thousands"
        )
    return varying_readoff(gate, config.s)


@cache
def biased_solution(s: int, gate: Gate) -> PopulationReadoff:
    """As `varying_solution`, on a layer whose neurons share the one bias that serves best. InputError for s above 4."""
    if s > BIASED_LIMIT:
        raise InputError(f"the best bias is searched for s up to {BIASED_LIMIT} (a minute and more beyond)")
    return varying_readoff(gate, s, tune_biases(gate, s))


def best_bernoulli(d: int, s: int) -> tuple[float, BernoulliErrors]:
    """(p, errors) of the debiased Bernoulli construction of least worst RMS error over the cases, p on a grid of 60."""
    if d < 2:
        raise InputError("the construction needs at least 2 neurons")
    found = [(p, bernoulli_errors(d, s, p, "affine")) for p in np.geomspace(1 / math.sqrt(d), 0.95, 60).tolist()]
    return min(found, key=lambda candidate: candidate[1].rms.max())


def is_and(gate: Gate) -> None:
    """Raises InputError for another gate than AND."""
    if gate.name != "and":
        raise InputError("the construction computes AND only")


def rows(config: BoundsConfig, gate: Gate) -> list[Row]:
    """Every number for one gate; those that do not exist at this size have no value, and a note that says why."""
    return [*_baselines(config, gate), *_floors(config, gate), *_analytic(config, gate), *_fitted(config, gate)]


def _baselines(config: BoundsConfig, gate: Gate) -> list[Row]:
    zero = floors.zero_predictor(gate, law_of(config))
    square, worst = float(zero.mean_square) * math.comb(config.m, 2), float(zero.worst)
    where, source = config.domain, "definition (theory.floors)"
    return [
        Row("zero_predictor", square, BASELINE, "output 0: E|f − o|², summed over pairs", where, source),
        Row("zero_predictor_worst", worst, BASELINE, "output 0: worst error", where, source),
    ]


def _floors(config: BoundsConfig, gate: Gate) -> list[Row]:
    m, d, where = config.m, config.d, config.domain

    def affine() -> float:
        return affine_value(config, gate)

    def square() -> floors.SquareFloor:
        return floors.square_floor(gate, law_of(config), d)

    def share() -> tuple[float, str]:
        value = square().share
        return value, "not computed: the zero predictor has no error" if math.isnan(value) else ""

    def welch() -> tuple[float, str]:
        return floors.welch_bound(m, d), "" if m > d else f"says nothing at d >= m: {m} directions can be orthogonal"

    def worst() -> tuple[float, str]:
        value = worst_error_floor(gate, m, floor_sparsity(config), d)
        return value, "" if value else "says nothing at this size"

    eckart, trace = "Eckart & Young 1936 (theory.floors)", "Alon 2009, Welch 1974 (theory.rank)"
    return [
        attempt(Row("affine_floor", None, FLOOR, "no hidden layer: worst error", where,
                    "Chebyshev on four cases (theory.floors)"), affine),
        attempt(Row("worst_error_floor", None, FLOOR, "any layer of d: worst error", where, trace), worst),
        attempt(Row("pca_floor", None, FLOOR, "any layer of d: E|f − o|², summed over pairs", where, eckart),
                lambda: square().per_output * math.comb(m, 2)),
        attempt(Row("pca_floor_share", None, FLOOR, "any layer of d: that, as a share of zero_predictor", where, eckart), share),
        attempt(Row("welch_bound", None, FLOOR, "m unit directions in d: largest |cosine|", "none",
                    "Welch 1974 (theory.floors)"), welch),
        counting_row(m, config.outputs, config.bits),
    ]  # fmt: skip


def counting_row(m: int, outputs: int | None, bits: int) -> Row:
    """The counting bound for some `outputs` of the pairs (None: half of them)."""
    chosen = math.comb(m, 2) // 2 if outputs is None else outputs
    about = f"neurons, for some {chosen:,} pairs without error"
    note = (
        f"n of n×n weights of {bits} bit{'' if bits == 1 else 's'}, for the hardest choice of so many pairs; "
        "says nothing of one fixed choice such as all pairs"
    )
    row = Row("counting_width", None, WIDTH, about, "all", "Adler & Shavit 2024 (theory.floors)", note)
    return attempt(row, lambda: floors.counting_width(m, chosen, float(bits)))


def _analytic(config: BoundsConfig, gate: Gate) -> list[Row]:
    d, where, source = config.d, config.exact_domain, "quadrant moments (theory.quadrants)"
    square = error_std(gate, config.s) ** 2 / d
    shares = exact_shares(config.m, config.s)

    def row(name: str, about: str, find: Callable[[], float | tuple[float, str]], source: str = source) -> Row:
        return attempt(Row(name, None, PREDICTION, f"analytic readoff: {about}", where, source), find)

    def by_case(case: int) -> float:
        if not shares[case]:
            raise InputError("the case does not occur on these inputs")
        return math.sqrt(square[case])

    def largest(q: float) -> tuple[float, str]:
        law = maximum_law(gate, config.m, config.s, d, math.comb(config.m, config.s))
        return law.quantile(q), "inputs taken as independent, so from above: a few per cent high over all inputs"

    extremes = "Cornish–Fisher extremes (theory.extremes)"
    return [
        row("analytic_rms_zeros", "RMS at zeros", lambda: rms_by_value(gate, 0, shares, square)),
        row("analytic_rms_ones", "RMS at ones", lambda: rms_by_value(gate, 1, shares, square)),
        *(row(f"analytic_rms_{name}", f"RMS in case {name}", partial(by_case, c)) for c, name in enumerate(CASE_NAMES)),
        row("analytic_max_q05", "worst error, 5 % of layers below", lambda: largest(0.05), extremes),
        row("analytic_max_median", "worst error, median of layers", lambda: largest(0.5), extremes),
        row("analytic_max_q95", "worst error, 95 % of layers below", lambda: largest(0.95), extremes),
    ]  # fmt: skip


def _fitted(config: BoundsConfig, gate: Gate) -> list[Row]:
    m, d, s = config.m, config.d, config.s
    every = config.inputs == "at_most"

    def row(name: str, about: str, where: str, source: str, find: Callable[[], float | tuple[float, str]]) -> Row:
        return attempt(Row(name, None, PREDICTION, about, where, source), find)

    def varying() -> tuple[float, str]:
        found = varying_solution(config, gate)
        worst = found.conditions[int(found.sigma.argmax())]
        note = f"hardest with {worst.s} active, case {CASE_NAMES[worst.case]}; first order in 1/√d"
        return found.worst / math.sqrt(d), note

    def biased() -> tuple[float, str]:
        found = biased_solution(s, gate)
        return found.worst / math.sqrt(d), f"every bias {found.biases[0]:.2f} (the best); first order in 1/√d"

    def kernel() -> tuple[float, str]:
        fit, sigma = kernel_solution(config, gate)
        worst = fit.conditions[int(sigma.argmax())]
        note = f"hardest with {worst.s} active, case {CASE_NAMES[worst.case]}; m → ∞, first order in 1/√d"
        return float(sigma.max()) / math.sqrt(d), note

    def bernoulli_rms() -> tuple[float, str]:
        is_and(gate)
        p, errors = best_bernoulli(d, s)
        return float(errors.rms.max()), f"least over p, at p = {p:.3f}"

    def bernoulli_max() -> tuple[float, str]:
        is_and(gate)
        if d > BERNOULLI_LIMIT:
            raise InputError(f"slow above d = {BERNOULLI_LIMIT:,}")
        best = best_probability(m, d, s, grid=15)
        return best.worst, f"least over p, at p = {best.p:.3f}; the asymptotic p is {best.asymptotic:.3f}"

    def balanced(case: int) -> tuple[float, str]:
        rms = fitted_error(gate, m, s, d, at_most=every).rms
        if not rms.any():
            return 0.0, "d is at least the number of inputs: it fits them all"
        return float(rms[case]), "the largest of the four is good to some 7 %, the others may be 20 % low"

    dere = "Dereziński et al. 2020 (theory.fitted)"
    construction = "Vaintrob et al. 2024 (theory.bernoulli)"
    return [
        row("optimal_rms", "best η(u, v): largest of the cases' RMS", config.exact_domain,
            "least variance (theory.optimal)",
            lambda: (optimal_readoff(gate, s).worst / math.sqrt(d), "first order in 1/√d; least of all unbiased η(u, v)")),
        *([row("varying_rms", "best η(u, v) for all counts: largest RMS", config.domain,
               "least variance (theory.varying)", varying),
           row("varying_biased_rms", "the same on a layer with one bias: largest RMS", config.domain,
               "least variance (theory.varying)", biased)] if every else []),
        row("kernel_rms", "least-norm η(u, v): largest RMS", config.domain, "Cho & Saul 2009 (theory.kernel)", kernel),
        *(row(f"balanced_rms_{name}", f"case-balanced least squares: RMS in case {name}", config.domain, dere,
              partial(balanced, c)) for c, name in enumerate(CASE_NAMES)),
        *([row("bernoulli_rms", "Bernoulli layer: largest of the cases' RMS", config.exact_domain, construction, bernoulli_rms),
           row("bernoulli_max_median", "Bernoulli layer: worst error on one input, median", config.exact_domain, construction,
               bernoulli_max)] if gate.name == "and" else []),
    ]  # fmt: skip


def span(seeds: tuple[int, ...]) -> str:
    """Seeds in words: 0–19, or 3, 5, 8."""
    run = len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
    return f"{seeds[0]}–{seeds[-1]}" if run else ", ".join(map(str, seeds))
