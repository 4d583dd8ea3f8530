"""Measurements beside the predictions of `toymodels bounds`: layers drawn, errors counted, intervals over layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import binom
from torch import Tensor
from tqdm import tqdm

from toymodels.core.evaluation import evaluate
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.layers import IdentityLayer
from toymodels.core.least_squares import balanced, least_squares
from toymodels.core.minimax import minimax
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import derive_seed
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.experiments.predictions import (
    BERNOULLI_LIMIT,
    PREDICTION,
    Row,
    affine_value,
    best_bernoulli,
    biased_solution,
    exact_shares,
    kernel_solution,
    rms_by_value,
    span,
    varying_solution,
)
from toymodels.experiments.sizes import BoundsConfig
from toymodels.fast.streaming import (
    CaseErrors,
    Rule,
    analytic_rule,
    case_errors,
    rule_of,
    sample_cases,
    stream_outputs,
)
from toymodels.layers.random import gaussian
from toymodels.theory.bernoulli import best_probability, debias
from toymodels.theory.extremes import maximum_law
from toymodels.theory.gates import CASE_NAMES, Gate
from toymodels.theory.optimal import PopulationReadoff, optimal_readoff
from toymodels.theory.population import Condition, activation_moments
from toymodels.theory.statistics import mean_interval

GRID_LIMIT = 1_000_000_000
"""Inputs × pairs × neurons up to which the analytic readoff is measured on all of them, per layer."""
SAMPLE = 300
"""Inputs sampled per layer where they are too many to cover all."""
FIT_LIMIT = 5_000
"""Inputs up to which readoffs are fitted."""
FIT_WIDTH = 400
"""Neurons up to which a readoff is fitted to each pair by itself (a factorisation or a linear program each)."""
FIT_PAIRS = 3
"""Pairs sampled per layer for those."""
RULE_LIMIT = 3_000_000
"""Pairs × neurons up to which readoffs that are functions of (u, v) are measured, per layer."""


@dataclass(frozen=True)
class Checked:
    """What was measured beside a row."""

    measured: float | None = None
    interval: tuple[float, float] | None = None
    """95 %, over layers; None where there is nothing random, or too few layers."""
    coverage: str = ""
    """Which layers, inputs and pairs it covers, or why nothing was measured."""


def check(config: BoundsConfig, gate: Gate, rows: Sequence[Row]) -> tuple[list[Row], list[Checked]]:
    """(rows, what was measured beside each). Where inputs are sampled, rows for the largest error over the sample are added."""
    bench = _Bench(config, gate)
    found: dict[str, Checked] = {}
    steps: list[Callable[[], dict[str, Checked]]] = [
        bench.baselines, bench.affine, bench.squares, bench.welch, bench.analytic, bench.population, bench.fitted,
        bench.smallest, *([bench.bernoulli] if gate.name == "and" else []),
    ]  # fmt: skip
    for step in tqdm(steps, desc=f"{gate.name}: measuring", unit="quantity", leave=False):
        found.update(step())
    table: list[Row] = []
    for row in rows:
        table += [row, *bench.sampled_rows.get(row.name, [])]
    return table, [
        found.get(row.name, Checked(coverage="not measured: it speaks of no layer drawn here")) for row in table
    ]


def root_interval(mean_squares: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Root of the mean over layers of the mean squared error, and of the ends of its t interval."""
    mean, half = mean_interval(mean_squares)
    if half is None:
        return math.sqrt(mean), None
    return math.sqrt(mean), (math.sqrt(max(mean - half, 0)), math.sqrt(mean + half))


def quantile_interval(
    values: Sequence[float], q: float, confidence: float = 0.95
) -> tuple[float, tuple[float, float] | None]:
    """A sample quantile, and the interval between two order statistics that holds the law's with this confidence.

    Free of any assumption but independence; None where so few values have no such pair.
    """
    ordered, n = sorted(values), len(values)
    tail = (1 - confidence) / 2
    # P(the quantile lies below the r-th smallest) = P(fewer than r values are below it).
    low = int(binom.ppf(tail, n, q))
    high = int(binom.isf(tail, n, q)) + 1
    value = float(np.quantile(ordered, q))
    if low < 1 or high > n:
        return value, None
    return value, (ordered[low - 1], ordered[high - 1])


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield


class _Bench:
    """What the measurements of one gate share."""

    def __init__(self, config: BoundsConfig, gate: Gate):
        self.config, self.gate = config, gate
        self.m, self.d, self.s = config.m, config.d, config.s
        self.features = config.problem(config.d).features()
        self.pairs = math.comb(self.m, 2)
        self.layers = (
            f"{len(config.seeds)} layers (seeds {span(config.seeds)})"
            if len(config.seeds) > 1
            else f"1 layer (seed {config.seeds[0]})"
        )
        self.sampled_rows: dict[str, list[Row]] = {}
        self._inputs: Inputs | None = None

    def layer_seed(self, seed: int) -> int:
        return derive_seed(seed, "frozen layer")

    def enumerated(self, limit: int) -> Inputs:
        """All admissible inputs. Raises InputError where they are more than `limit`."""
        if self.features.n_inputs > limit:
            raise InputError(f"{self.features.n_inputs:,} inputs are more than {limit:,}")
        if self._inputs is None:
            self._inputs = self.features.enumerate()
        return self._inputs

    def baselines(self) -> dict[str, Checked]:
        def measure() -> dict[str, Checked]:
            if self.features.n_inputs * self.pairs > 2e7:
                raise InputError(f"{self.features.n_inputs:,} inputs × {self.pairs:,} pairs are more than 20,000,000")
            inputs, task = self.enumerated(20_000_000), PairTask(self.m, self.gate)
            found = evaluate(Network(IdentityLayer(self.m), LinearReadoff.constant(self.pairs, self.m)), task, inputs)
            where = f"{inputs.description} inputs, all {self.pairs:,} pairs"
            return {
                "zero_predictor": Checked(found.rms**2 * math.comb(self.m, 2), None, where),
                "zero_predictor_worst": Checked(found.worst_error, None, where),
            }

        return self._try(("zero_predictor", "zero_predictor_worst"), measure)

    def affine(self) -> dict[str, Checked]:
        def measure() -> dict[str, Checked]:
            affine_value(self.config, self.gate)
            inputs = self.enumerated(FIT_LIMIT)
            found = minimax(IdentityLayer(self.m), PairTask(self.m, self.gate, [(0, 1)]), inputs)
            where = f"minimax affine readoff, {inputs.description} inputs, pair (0, 1): all are alike"
            return {"affine_floor": Checked(found.certificates[0].worst_error, None, where)}

        return self._try(("affine_floor",), measure)

    def squares(self) -> dict[str, Checked]:
        """Plain least squares on frozen layers: it reaches no floor, it lies above."""

        def measure() -> dict[str, Checked]:
            inputs = self.enumerated(FIT_LIMIT)
            if self.d > 2000:
                raise InputError("least squares is fitted up to d = 2,000")
            values = []
            for seed in tqdm(self.config.seeds, desc="plain least squares", unit="layer", leave=False):
                task, pairs = self._some_pairs(seed, 2000)
                layer = gaussian(self.m, self.d, self.layer_seed(seed)).requires_grad_(False)
                values.append(
                    evaluate(Network(layer, least_squares(layer, task, inputs)), task, inputs).rms ** 2
                    * math.comb(self.m, 2)
                )
            mean, half = mean_interval(values)
            interval = None if half is None else (mean - half, mean + half)
            where = f"plain least squares on Gaussian layers: {self.layers}, {inputs.description} inputs, {pairs}"
            zero = self._zero()
            share = None if zero == 0 else mean / zero
            ends = None if zero == 0 or interval is None else (interval[0] / zero, interval[1] / zero)
            return {"pca_floor": Checked(mean, interval, where), "pca_floor_share": Checked(share, ends, where)}

        return self._try(("pca_floor", "pca_floor_share"), measure)

    def welch(self) -> dict[str, Checked]:
        def measure() -> dict[str, Checked]:
            if self.m * self.m > 4_000_000 or self.m * self.d > 20_000_000:
                raise InputError("m² is above 4,000,000 or m·d above 20,000,000")
            values = []
            for seed in self.config.seeds:
                columns = gaussian(self.m, self.d, self.layer_seed(seed)).weight.detach().T
                unit = columns / columns.norm(dim=1, keepdim=True)
                values.append(float((unit @ unit.T).fill_diagonal_(0).abs().max()))
            mean, half = mean_interval(values)
            interval = None if half is None else (mean - half, mean + half)
            return {
                "welch_bound": Checked(
                    mean, interval, f"weights of each feature in Gaussian layers: {self.layers}, mean"
                )
            }

        return self._try(("welch_bound",), measure)

    def analytic(self) -> dict[str, Checked]:
        """The analytic readoff on inputs with exactly s active: all inputs and pairs, or a sample with every case in it."""
        everything = math.comb(self.m, self.s) * self.pairs
        whole = everything <= 10_000_000 and everything * self.d <= GRID_LIMIT
        rule, squares, worst, counts = analytic_rule(self.gate, self.s), [], [], []
        inputs = SparseFeatures.exactly(self.m, self.s).enumerate() if whole else None
        task = PairTask(self.m, self.gate)
        for seed in tqdm(self.config.seeds, desc="analytic readoff", unit="layer", leave=False):
            errors, described = self._errors(rule, self.s, seed, (inputs, task) if inputs else None)
            squares.append(errors.mean_square)
            worst.append(errors.worst)
            counts.append(errors.count)
        where = f"{self.layers}, {described}"
        square = np.array(squares)
        shares = exact_shares(self.m, self.s)
        found = {}
        for name, value in (("zeros", 0), ("ones", 1)):
            with_value = (np.array(self.gate.truth) == value) & (shares > 0)
            if with_value.any():
                means = [rms_by_value(self.gate, value, shares, row) ** 2 for row in square]
                found[f"analytic_rms_{name}"] = Checked(*root_interval(means), where)
        for case, name in enumerate(CASE_NAMES):
            if shares[case] and min(count[case] for count in counts):
                found[f"analytic_rms_{name}"] = Checked(*root_interval(square[:, case].tolist()), where)
        quantiles = (("q05", 0.05), ("median", 0.5), ("q95", 0.95))
        missing = Checked(coverage="not measured: over all inputs; see the rows for the sample")
        for name, q in quantiles:
            key = f"analytic_max_{name}"
            if whole:
                found[key] = Checked(*quantile_interval(worst, q), where)
                continue
            found[key] = missing
            found[f"{key}_sampled"] = Checked(*quantile_interval(worst, q), where)
            about = f"analytic readoff: worst error over the sample, {'median of layers' if name == 'median' else name}"
            row = Row(
                f"{key}_sampled",
                None,
                PREDICTION,
                about,
                self.config.exact_domain,
                "Cornish–Fisher extremes (theory.extremes)",
            )
            self.sampled_rows[key] = [self._sampled_maximum(row, np.mean(counts, axis=0), q)]
        return found

    def _sampled_maximum(self, row: Row, count: np.ndarray, q: float) -> Row:
        """The prediction for as many errors of each case as were looked at."""
        try:
            law = maximum_law(self.gate, self.m, self.s, self.d, SAMPLE)
        except InputError as reason:
            return dataclasses.replace(row, note=f"not computed: {reason}")
        counts = tuple((count / SAMPLE).tolist())
        return dataclasses.replace(row, value=dataclasses.replace(law, counts=counts).quantile(q))

    def population(self) -> dict[str, Checked]:
        """Readoffs that are functions of the pair's weights, where theory says that they are worst."""
        if self.d * 3 * SAMPLE > RULE_LIMIT and self.d * 30 > RULE_LIMIT:
            return self._missing(
                ("optimal_rms", "varying_rms", "varying_biased_rms", "kernel_rms"),
                "too wide to evaluate η(u, v) at every neuron",
            )
        solutions: dict[str, Callable[[], tuple[Rule, float, Condition, float]]] = {
            "optimal_rms": lambda: self._by_weights(optimal_readoff(self.gate, self.s)),
            "kernel_rms": self._kernel,
        }
        if self.config.inputs == "at_most":
            solutions["varying_rms"] = lambda: self._by_weights(varying_solution(self.config, self.gate))
            solutions["varying_biased_rms"] = lambda: self._by_weights(biased_solution(self.s, self.gate))
        n = min(SAMPLE, max(10, RULE_LIMIT // (3 * self.d)))
        found: dict[str, Checked] = {}
        for name, solve in solutions.items():

            def measure(
                name: str = name, solve: Callable[[], tuple[Rule, float, Condition, float]] = solve
            ) -> dict[str, Checked]:
                rule, offset, condition, bias = solve()
                means = []
                for seed in tqdm(self.config.seeds, desc=name, unit="layer", leave=False):
                    errors, described = self._errors(rule, condition.s, seed, None, offset, n, bias)
                    means.append(float(errors.mean_square[condition.case]))
                where = f"{self.layers}, case {CASE_NAMES[condition.case]} with {condition.s} active, {described}"
                return {name: Checked(*root_interval(means), where)}

            found.update(self._try((name,), measure))
        return found

    @staticmethod
    def _by_weights(readoff: PopulationReadoff) -> tuple[Rule, float, Condition, float]:
        """(η as a rule, offset, the condition in which it is worst, every neuron's bias)."""
        bias = readoff.biases[0]
        rule = rule_of(lambda u, v: readoff.eta(u, v, np.full_like(u, bias)))
        return rule, readoff.offset, readoff.conditions[int(readoff.sigma.argmax())], bias

    def _kernel(self) -> tuple[Rule, float, Condition, float]:
        fit, sigma = kernel_solution(self.config, self.gate)

        def eta(u: np.ndarray, v: np.ndarray) -> np.ndarray:
            total, zero = np.zeros(u.size), np.zeros(u.size)
            for weight, kind in zip(fit.weights, fit.conditions, strict=True):
                total += weight * activation_moments(u.ravel(), v.ravel(), zero, kind)[0]
            return total.reshape(u.shape)

        return rule_of(eta), fit.offset, fit.conditions[int(sigma.argmax())], 0.0

    def fitted(self) -> dict[str, Checked]:
        names = tuple(f"balanced_rms_{name}" for name in CASE_NAMES)

        def measure() -> dict[str, Checked]:
            inputs = self._fit_inputs()
            squares = []
            for seed in tqdm(self.config.seeds, desc="balanced least squares", unit="layer", leave=False):
                task, pairs = self._some_pairs(seed, FIT_PAIRS)
                layer = gaussian(self.m, self.d, self.layer_seed(seed)).requires_grad_(False)
                found = evaluate(Network(layer, balanced(layer, task, self.features, inputs)), task, inputs)
                squares.append([group.rms**2 for group in found.cases.values()])
            where = f"{self.layers}, {inputs.description} inputs, {pairs}"
            by_case = np.array(squares).T.tolist()
            return {name: Checked(*root_interval(means), where) for name, means in zip(names, by_case, strict=True)}

        return self._try(names, measure)

    def smallest(self) -> dict[str, Checked]:
        """Minimax readoffs of frozen layers, beside the floor that no layer beats."""

        def measure() -> dict[str, Checked]:
            inputs = self._fit_inputs()
            values = []
            with _one_blas_thread():
                for seed in tqdm(self.config.seeds, desc="minimax readoffs", unit="layer", leave=False):
                    task, pairs = self._some_pairs(seed, FIT_PAIRS)
                    layer = gaussian(self.m, self.d, self.layer_seed(seed)).requires_grad_(False)
                    values.append(max(c.worst_error for c in minimax(layer, task, inputs).certificates))
            mean, half = mean_interval(values)
            interval = None if half is None else (mean - half, mean + half)
            where = (
                f"minimax readoffs of Gaussian layers: {self.layers}, {inputs.description} inputs, the worst of {pairs}; "
                "over all pairs it is larger"
            )
            return {"worst_error_floor": Checked(mean, interval, where)}

        return self._try(("worst_error_floor",), measure)

    def bernoulli(self) -> dict[str, Checked]:
        names = ("bernoulli_rms", "bernoulli_max_median")
        if self.m * self.d > 20_000_000 or self.d < 2:
            return self._missing(
                names, "m·d is above 20,000,000" if self.d >= 2 else "the construction needs 2 neurons"
            )
        p, errors = best_bernoulli(self.d, self.s)
        case = int(errors.rms.argmax())
        found = [_bernoulli_layer(self.gate, self.m, self.d, self.s, p, seed) for seed in self.config.seeds]
        where = f"{self.layers}, one input with {self.s} active each, all {self.pairs:,} pairs"
        result = {
            "bernoulli_rms": Checked(
                *root_interval([float(one.mean_square[case]) for one in found]), f"{where}, case {CASE_NAMES[case]}"
            )
        }
        if self.d > BERNOULLI_LIMIT:
            return {**result, **self._missing(names[1:], "there is no prediction to hold it against")}
        p = best_probability(self.m, self.d, self.s, grid=15).p
        worst = [_bernoulli_layer(self.gate, self.m, self.d, self.s, p, seed).worst for seed in self.config.seeds]
        return {**result, names[1]: Checked(*quantile_interval(worst, 0.5), where)}

    def _errors(
        self,
        rule: Rule,
        s: int,
        seed: int,
        given: tuple[Inputs, PairTask] | None,
        offset: float = 0.0,
        n: int = SAMPLE,
        bias: float = 0.0,
    ) -> tuple[CaseErrors, str]:
        """Errors on the layer of this seed, on given inputs and pairs or on a sample; and what they cover."""
        inputs, task = given or sample_cases(self.m, s, self.gate, n, derive_seed(seed, "evaluation"))
        outputs = stream_outputs(rule, self.d, task, inputs, self.layer_seed(seed), bias=bias) + offset
        size = f"all {len(inputs):,} inputs × all {task.n_outputs:,} pairs"
        sample = f"{len(inputs):,} inputs × about {3 * len(inputs):,} pairs, sampled anew for each layer"
        return case_errors(outputs, task, inputs), size if given else sample

    def _fit_inputs(self) -> Inputs:
        if self.d > FIT_WIDTH:
            raise InputError(f"readoffs are fitted pair by pair up to d = {FIT_WIDTH}")
        return self.enumerated(FIT_LIMIT)

    def _some_pairs(self, seed: int, limit: int) -> tuple[PairTask, str]:
        task = PairTask(self.m, self.gate)
        if task.n_outputs <= limit:
            return task, f"all {task.n_outputs:,} pairs"
        generator = torch.Generator().manual_seed(derive_seed(seed, "pairs"))
        return task.subset(
            torch.randperm(task.n_outputs, generator=generator)[:limit]
        ), f"{limit:,} pairs sampled per layer"

    def _zero(self) -> float:
        shares = self.features.case_probabilities() or ()
        return math.comb(self.m, 2) * sum(share for share, value in zip(shares, self.gate.truth, strict=True) if value)

    def _missing(self, names: Sequence[str], reason: object) -> dict[str, Checked]:
        return {name: Checked(coverage=f"not measured: {reason}") for name in names}

    def _try(self, names: Sequence[str], measure: Callable[[], dict[str, Checked]]) -> dict[str, Checked]:
        try:
            return measure()
        except InputError as reason:
            return self._missing(names, reason)


def _bernoulli_layer(gate: Gate, m: int, d: int, s: int, p: float, seed: int) -> CaseErrors:
    """Errors over all pairs of the debiased Bernoulli construction, on one random input with exactly s active."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "frozen layer"))
    weight: Tensor = (torch.rand(d, m, generator=generator) < p).float()
    inputs = SparseFeatures.exactly(m, s).sampled(1, derive_seed(seed, "evaluation"))
    active = (weight @ inputs.dense()[0] - 1).relu()
    task, correction = PairTask(m, gate), debias(s, p, "affine")
    k, l = task.pairs.T
    size = (weight.T @ weight)[k, l].double()
    total = (weight.T @ (weight * active[:, None]))[k, l].double()
    outputs = correction.gain * total / size.clamp(min=1) - correction.shift
    return case_errors(outputs[None], task, inputs)
