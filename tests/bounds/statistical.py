"""Statements with chance in them: over the draw of the layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from scipy.stats import binom

from toymodels import (
    FirstLayer,
    Gate,
    LinearReadoff,
    Network,
    PairTask,
    SparseFeatures,
    analytic,
    evaluate,
    gaussian,
)
from toymodels.core.features import Inputs
from toymodels.fast.streaming import analytic_rule
from toymodels.laws.measuring import DrawnLayers
from toymodels.laws.registry import LAWS, Problem
from toymodels.theory.bernoulli import bernoulli_errors, debias, empty_probability, mean_reciprocal
from toymodels.theory.classes import solve_readoff
from toymodels.theory.distributions import RADEMACHER, finite_classes
from toymodels.theory.extremes import max_error_distribution
from toymodels.theory.gates import CASE_NAMES, CASES
from toymodels.theory.kernel import arc_cosine
from toymodels.theory.optimal import PopulationReadoff, optimal_readoff
from toymodels.theory.quadrants import and_scale, error_std, error_std_limit
from toymodels.theory.varying import varying_readoff

from .judge import largest, predicted, statement, strain_of, strain_of_p, z_scores

AND, XOR = Gate.parse("and"), Gate.parse("xor")
SPOILT = 4
"""A fault in what is measured needs a measurement of its own; a quarter of the layers is enough to catch it."""
DESIGNS = [(gate, s) for gate in (AND, XOR) for s in (2, 3, 8)]


def seeds(n: int, *key: int) -> list[int]:
    """n seeds of layers; other keys give other streams, so that no two measurements share random numbers."""
    return [int(i) for i in np.random.default_rng(key).integers(2**62, size=n)]


def all_or_some(m: int, s: int, most: int = 64) -> Inputs:
    """All inputs with exactly s of m active, or a fixed sample: the layers alone are random."""
    features = SparseFeatures.exactly(m, s)
    return features.enumerate() if features.n_inputs <= most else features.sampled(most, seed=0)


def by_case(
    make: Callable[[int], Network], task: PairTask, inputs: Inputs, layers: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """(mean error, mean square error) of each layer in each case, each layers × 4, over all pairs and inputs."""
    found = [list(evaluate(make(seed), task, inputs).cases.values()) for seed in layers]
    assert min(case.share for case in found[0]) > 0  # no case goes unmeasured
    return (
        np.array([[case.mean for case in cases] for cases in found]),
        np.array([[case.rms**2 for case in cases] for cases in found]),
    )


@cache
def analytic_errors(
    gate: Gate, m: int, s: int, d: int, layers: int, seed: int, built_for: int | None = None, spoilt: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """`by_case` of the analytic readoff on fresh Gaussian layers."""
    task = PairTask(m, gate)

    def make(number: int) -> Network:
        layer = gaussian(m, d, number)
        if spoilt == "Rademacher weights":
            layer = FirstLayer(layer.weight.detach().sign(), layer.bias.detach(), origin="gaussian")
        if spoilt == "scale not told":
            layer = FirstLayer(layer.weight.detach() / math.sqrt(m), layer.bias.detach(), origin="gaussian")
        if spoilt == "neurons repeated":
            layer = FirstLayer(layer.weight.detach()[:64].repeat(d // 64, 1), layer.bias.detach(), origin="gaussian")
        return Network(layer, analytic(layer, task, built_for or s))

    numbers = seeds(layers, seed, int("".join(map(str, gate.truth)), 2), m, s, d)
    return by_case(make, task, all_or_some(m, s), numbers)


WIDTHS = {64: 96, 256: 64, 1024: 48, 4096: 32}
"""Widths, and layers drawn at each."""


@statement(
    "RMS error of the analytic readoff falls as d^(−1/2), in every case",
    ("exponent −0.45", "exponent −0.55", "neurons repeated"),
)
def slope(fault: str, seed: int) -> float:
    exponent = {"exponent −0.45": -0.45, "exponent −0.55": -0.55}.get(fault, -0.5)
    spoilt = fault if fault == "neurons repeated" else ""
    layers = {d: n // SPOILT if spoilt else n for d, n in WIDTHS.items()}
    z = []
    for gate, s in DESIGNS:
        squares = {d: analytic_errors(gate, 12, s, d, n, seed, None, spoilt)[1] for d, n in layers.items()}
        mean = np.array([found.mean(axis=0) for found in squares.values()])
        error = np.array([found.std(axis=0, ddof=1) / math.sqrt(len(found)) for found in squares.values()])
        log_error = error / mean / 2  # of log RMS
        x = np.log(list(WIDTHS))[:, None]
        # Weights from what is known beforehand, not from the estimated errors, which go with the estimated means.
        weight = np.array(list(WIDTHS.values()))[:, None] / (1 / 30 + 5 / np.array(list(WIDTHS))[:, None])
        lever = weight * (x - (weight * x).sum() / weight.sum())
        lever = lever / (lever * x).sum()
        found = (lever * np.log(mean) / 2).sum(axis=0)
        z += list((found - exponent) / np.sqrt((lever**2 * log_error**2).sum(axis=0)))
    return strain_of(z, min(layers.values()) - 1)


@statement(
    "RMS error of the analytic readoff is σ/√d, with the closed form of σ in every case",
    ("constant 5 % too large", "constant 5 % too small", "σ of one more active feature", "Rademacher weights"),
)
def constant(fault: str, seed: int) -> float:
    factor = {"constant 5 % too large": 1.05, "constant 5 % too small": 0.95}.get(fault, 1.0)
    spoilt = fault if fault == "Rademacher weights" else ""
    layers = {d: n // SPOILT if spoilt else n for d, n in WIDTHS.items()}
    z = []
    for gate, s in DESIGNS:
        problem = Problem(gate, 12, s + (fault == "σ of one more active feature"), inputs="exactly")
        sigma = factor * np.array([predicted(f"analytic_rms_{case}", problem) for case in CASE_NAMES])
        ratios = [analytic_errors(gate, 12, s, d, n, seed, None, spoilt)[1] * d / sigma**2 for d, n in layers.items()]
        error = np.sqrt(sum(ratio.var(axis=0, ddof=1) / len(ratio) for ratio in ratios))
        z += list((sum(ratio.mean(axis=0) for ratio in ratios) - len(ratios)) / error)
    return strain_of(z, min(layers.values()) - 1)


@statement(
    "where the target is 1 its square is taken off the second moment: d·variance = Σ η² E[(z⁺)²] − 1",
    ("target's square not taken off",),
)
def target_squared(fault: str, seed: int) -> float:
    z, n = [], 120
    for name in ("or", "first", "true"):  # where it makes a fifth of the variance or more; for AND 5 %
        gate = Gate.parse(name)
        variance = error_std(gate, 2) ** 2 + (np.array(gate.truth) if fault else 0)
        z += z_scores(analytic_errors(gate, 12, 2, 256, n, seed)[1] * 256, variance)
    return strain_of(z, n - 1)


@statement(
    "the analytic readoff is unbiased in each of the four cases, for symmetric and asymmetric gates",
    ("bias of 0.03", "readoff for another s", "ordered pairs swapped"),
)
def unbiased(fault: str, seed: int) -> float:
    wrong = fault == "readoff for another s"
    z, n = [], 80 // SPOILT if wrong else 80
    for name, s in (("and", 2), ("xor", 2), ("and", 3), ("xor", 3), ("or", 4), ("first_and_not_second", 3), ("nor", 3)):
        gate = Gate.parse(name)
        means = analytic_errors(gate, 12, s, 512, n, seed, s + 1 if wrong else None)[0]
        truth = np.array(gate.truth, dtype=float)
        expected = truth[[0, 2, 1, 3]] - truth if fault == "ordered pairs swapped" else np.zeros(4)
        z += z_scores(means + (0.03 if fault == "bias of 0.03" else 0.0), expected)
    return strain_of(z, n - 1)


@statement(
    "a U-AND readoff built for s and used at s' has mean c_s/c_s' on the ones and 0 elsewhere",
    ("unbiased at every s", "ratio of c² instead"),
)
def wrong_number_active(fault: str, seed: int) -> float:
    z, n = [], 80
    for built, used in ((2, 3), (4, 2), (3, 6)):
        ratio = and_scale(built) / and_scale(used)
        ratio = {"unbiased at every s": 1.0, "ratio of c² instead": ratio**2}.get(fault, ratio)
        means = analytic_errors(AND, 12, used, 512, n, seed, built)[0]
        z += z_scores(means, np.array([0, 0, 0, ratio - 1]))
    return strain_of(z, n - 1)


@statement(
    "at fixed s and d the RMS error does not depend on m",
    ("RMS grows as m^0.05", "scale not told"),
)
def independent_of_m(fault: str, seed: int) -> float:
    spoilt = fault if fault == "scale not told" else ""
    z, n, sizes = [], 60 // SPOILT if spoilt else 60, (8, 20, 50)
    for gate in (AND, XOR):
        sigma = error_std(gate, 3)
        ratios = []
        for m in sizes:
            squares = analytic_errors(gate, m, 3, 256, n, seed, None, spoilt)[1]
            ratios.append(squares * 256 / sigma**2 * (m**0.1 if fault == "RMS grows as m^0.05" else 1))
        for first, second in ((0, 1), (1, 2), (0, 2)):  # against each other: no theory needed
            gap = ratios[first].mean(axis=0) - ratios[second].mean(axis=0)
            spread = ratios[first].var(axis=0, ddof=1) + ratios[second].var(axis=0, ddof=1)
            z += list(gap / np.sqrt(spread / n))
    return strain_of(z, n - 1)


@statement(
    "the RMS error grows with s as σ_s does, near (π^(3/2)/2)|δ|·s for many active features",
    ("growth as √s", "growth as s^0.95", "limit 5 % too large", "limit without |δ|"),
)
def growth(fault: str, seed: int) -> float:
    active, n, d = (2, 4, 8, 16), 64, 256
    z = []
    for gate in (AND, XOR):
        for s in active:
            sigma = error_std(gate, s)
            if fault.startswith("growth"):
                sigma = error_std(gate, 2) * (s / 2) ** (0.5 if fault == "growth as √s" else 0.95)
            z += z_scores(analytic_errors(gate, 20, s, d, n, seed)[1] * d / sigma**2, 1.0)
    strain = strain_of(z, n - 1)
    # The limit itself: σ_s/s differs from it by 0.2/s to 1.1/s for these gates; 2/s is allowed.
    for gate in (AND, XOR):
        for case in range(4):
            limit = error_std_limit(gate, case)
            value = limit.constant * (1.05 if fault == "limit 5 % too large" else 1)
            value /= abs(gate.coefficients[3]) if fault == "limit without |δ|" else 1
            for s in (50, 500):
                strain = largest(strain, abs(error_std(gate, s)[case] / (value * s**limit.power) - 1) * s / 2)
    return strain


MAXIMA = ((AND, 50, 2, 100), (XOR, 50, 3, 100), (AND, 30, 8, 200))


@cache
def maxima(gate: Gate, m: int, s: int, d: int, seed: int, layers: int = 500) -> np.ndarray:
    """The largest |error| over all pairs on one input, a fresh layer and input each time."""
    task, features, rule = PairTask(m, gate), SparseFeatures.exactly(m, s), analytic_rule(gate, s)
    drawn = DrawnLayers(Problem(gate, m, s, d, "exactly", seeds=tuple(seeds(layers, seed, 7, m, s, d))))
    return np.array(drawn.each(lambda number: drawn.rule_errors(rule, number, features.sampled(1, number), task).worst))


@statement(
    "the largest error over all pairs is distributed as predicted, within 5 %, at the 5, 25, 50, 75 and 95 % points",
    (
        "leading form σ√(2 ln N/d)",
        "errors on 4 inputs instead of 1",
        "constant 10 % too large",
        "constant 10 % too small",
    ),
)
def maximum(fault: str, seed: int) -> float:
    p = []
    for gate, m, s, d in MAXIMA:
        found = maxima(gate, m, s, d, seed)
        distribution = max_error_distribution(gate, m, s, d, 4 if fault == "errors on 4 inputs instead of 1" else 1)
        leading = float(distribution.shape.sigma.max()) * math.sqrt(2 * math.log(math.comb(m, 2)) / d)
        factor = {"constant 10 % too large": 1.1, "constant 10 % too small": 0.9}.get(fault, 1.0)
        for level in (0.05, 0.25, 0.5, 0.75, 0.95):
            point = factor * distribution.quantile(level)
            if fault.startswith("leading"):  # it has no spread: scaled so that its median is the leading form
                point *= leading / distribution.quantile(0.5)
            below, above = int((found < 0.95 * point).sum()), int((found > 1.05 * point).sum())
            p += [float(binom.sf(below - 1, len(found), level)), float(binom.sf(above - 1, len(found), 1 - level))]
    return strain_of_p(p)


def bernoulli_network(m: int, d: int, s: int, p: float, kind: str, seed: int, fault: str) -> Network:
    """The sparse Bernoulli construction with its debiased readoff, as an ordinary layer and readoff."""
    weight = (torch.rand(d, m, generator=torch.Generator().manual_seed(seed)) < p).float()
    both = torch.stack([weight[:, k] * weight[:, l] for k, l in PairTask(m, AND).pairs.tolist()]).double()
    correction = debias(s, p, kind)
    readoff = correction.gain * both / both.sum(dim=1, keepdim=True).clamp(min=1)
    shift = 0.0 if fault == "dropped shift" else correction.shift
    bias = 0.0 if fault == "dropped bias" else -1.0
    layer = FirstLayer(weight, torch.full((d,), bias), origin="bernoulli")
    return Network(layer, LinearReadoff(readoff, torch.full((len(both),), -shift).double()))


@cache
def bernoulli_samples(kind: str, seed: int, fault: str) -> tuple[np.ndarray, np.ndarray]:
    m, d, s, p = 8, 60, 4, 0.25
    numbers = seeds(500 // SPOILT if fault else 500, seed, 8, *map(ord, kind))
    return by_case(
        lambda number: bernoulli_network(m, d, s, p, kind, number, fault), PairTask(m, AND), all_or_some(m, s), numbers
    )


@statement(
    "the Bernoulli construction has its exact mean and mean square error in every case, plain and debiased",
    (
        "dropped bias",
        "dropped shift",
        "mean of 1/n taken as 1/mean of n",
        "std 10 % too large",
        "empty pairs forgotten",
    ),
)
def bernoulli(fault: str, seed: int) -> float:
    d, s, p, z = 60, 4, 0.25, []
    for kind in ("none", "affine"):
        mean, square = bernoulli_samples(kind, seed, fault if fault.startswith("dropped") else "")
        by_number, empty, shift = bernoulli_errors(d, s, p, kind), empty_probability(d, p), debias(s, p, kind).shift
        truth, number_on = np.array(AND.truth), [sum(case) for case in CASES]
        given, std, rms = (array[number_on] for array in by_number)
        bias = (1 - empty) * given - empty * (shift + truth)
        if fault == "mean of 1/n taken as 1/mean of n":
            wrong = std / math.sqrt(mean_reciprocal(d, p) * d * p**2)
            rms = np.sqrt((1 - empty) * (given**2 + wrong**2) + empty * (shift + truth) ** 2)
        if fault == "std 10 % too large":
            rms = np.sqrt(rms**2 + 0.21 * (1 - empty) * std**2)
        if fault == "empty pairs forgotten":
            bias, rms = given, np.hypot(given, std)
        z += z_scores(mean, bias) + z_scores(square, rms**2)
    return strain_of(z, len(mean) - 1)


def population_network(readoff: PopulationReadoff, task: PairTask, d: int, seed: int, fault: str) -> Network:
    """A readoff η(u, v, b)/d on a Gaussian layer with one bias."""
    (bias,) = readoff.biases
    layer = gaussian(task.m, d, seed, bias=0.0 if fault == "dropped bias" else float(bias))
    weight = layer.weight.detach().double().numpy().T
    pairs = task.pairs.numpy()
    u, v = weight[pairs[:, 0]], weight[pairs[:, 1]]
    eta = readoff.eta(u, v, np.full(u.shape, bias)) / d
    offset = 0.0 if fault == "dropped offset" else readoff.offset
    return Network(layer, LinearReadoff(torch.from_numpy(eta), torch.full((len(pairs),), offset).double()))


@cache
def varying_samples(name: str, most: int, bias: float, seed: int, fault: str) -> tuple[list[tuple], list[tuple]]:
    """((number active, case), mean errors, mean square errors) over layers of a readoff for every s ≤ most."""
    gate, m, d, n = Gate.parse(name), 8, 256, 120 // SPOILT if fault else 120
    task = PairTask(m, gate)
    readoff = varying_readoff(gate, most - (fault == "readoff for one s less"), (bias,))
    numbers = seeds(n, seed, 9, most, *map(ord, name))
    networks = [population_network(readoff, task, d, number, fault) for number in numbers]
    rows = []
    for s in range(5):
        features = SparseFeatures(m, (0.0,) * s + (1.0,), f"exactly {s}")
        found = [list(evaluate(network, task, features.enumerate()).cases.values()) for network in networks]
        for case in range(4):
            if sum(CASES[case]) <= s:
                groups = [cases[case] for cases in found]
                rows.append(((s, case), np.array([g.mean for g in groups]), np.array([g.rms**2 * d for g in groups])))
    sigma = varying_readoff(gate, most, (bias,))
    sigmas = [(tuple(c), value) for c, value in zip(sigma.conditions, sigma.sigma, strict=True)]
    return rows, sigmas


@statement(
    "one readoff is unbiased at every number of active features up to 4, with its predicted σ under each condition",
    ("dropped offset", "dropped bias", "readoff for one s less", "σ 10 % too large"),
)
def varying(fault: str, seed: int) -> float:
    z = []
    for name, bias in (("nand", -1.0), ("xor", -1.0)):
        measured = "" if fault == "σ 10 % too large" else fault
        rows, sigmas = varying_samples(name, 4, bias, seed, measured)
        n = len(rows[0][1])
        sigma = dict(sigmas)
        for condition, mean, square in rows:
            if condition[0] == 0:  # no neuron fires: the output is the offset, and there is no chance in it
                z.append(0.0 if np.abs(mean).max() < 1e-12 and square.max() < 1e-9 else math.inf)
                continue
            z += z_scores(mean, 0.0)
            z += z_scores(square, (sigma[condition] * (1.1 if fault == "σ 10 % too large" else 1)) ** 2)
    return strain_of(z, n - 1)


@cache
def optimal_samples(gate: Gate, s: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    task, readoff = PairTask(10, gate), optimal_readoff(gate, s)
    return by_case(
        lambda number: population_network(readoff, task, 256, number, ""),
        task,
        all_or_some(10, s),
        seeds(240, seed, 10, s, sum(gate.truth)),
    )


@statement(
    "the best readoff by the pair's own weights is unbiased, has its predicted σ, and beats the analytic one",
    ("σ of the analytic readoff", "σ 5 % too small"),
)
def optimal(fault: str, seed: int) -> float:
    z = []
    for gate, s in ((AND, 2), (XOR, 3)):
        mean, square = optimal_samples(gate, s, seed)
        sigma = optimal_readoff(gate, s).sigma
        assert math.isclose(sigma.max(), predicted("optimal_rms", Problem(gate, 10, s, inputs="exactly")))
        sigma = sigma * (0.95 if fault == "σ 5 % too small" else 1)
        z += z_scores(mean, 0.0)
        z += z_scores(square * 256, (error_std(gate, s) if fault == "σ of the analytic readoff" else sigma) ** 2)
    return strain_of(z, len(mean) - 1)


@cache
def rademacher_samples(s: int, seed: int) -> np.ndarray:
    m, d = 12, 128
    task, readoff = PairTask(m, AND), solve_readoff(finite_classes(RADEMACHER, s), AND)
    labels = finite_classes(RADEMACHER, s).labels

    def make(number: int) -> Network:
        weight = torch.where(torch.rand(d, m, generator=torch.Generator().manual_seed(number)) < 0.5, -1.0, 1.0)
        table = dict(zip(labels, readoff.eta, strict=True))
        eta = torch.tensor([table[-1.0, -1.0], table[-1.0, 1.0], table[1.0, -1.0], table[1.0, 1.0]]).double()
        pairs = task.pairs
        u, v = (weight.T[pairs[:, i]] > 0 for i in (0, 1))
        rows = eta[2 * u.long() + v.long()] / d
        return Network(
            FirstLayer(weight, torch.zeros(d), origin="rademacher"), LinearReadoff(rows, rows.new_zeros(len(rows)))
        )

    return by_case(make, task, all_or_some(m, s), seeds(300, seed, 11, s))[1] * d


@statement(
    "a Rademacher layer has its exact constant, about half the Gaussian one",
    ("constant of the Gaussian layer", "constant 5 % too large"),
)
def rademacher(fault: str, seed: int) -> float:
    z = []
    for s in (3, 4):
        sigma = solve_readoff(finite_classes(RADEMACHER, s), AND).sigma
        if fault:
            sigma = error_std(AND, s) if fault == "constant of the Gaussian layer" else 1.05 * sigma
        z += z_scores(rademacher_samples(s, seed), sigma**2)
    return strain_of(z, 299)


@cache
def gram_samples(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """a(x)·a(y)/d over layers, and the inputs."""
    inputs = torch.cat([SparseFeatures.exactly(5, s).enumerate().dense()[::2] for s in (1, 2, 3, 4)])
    layers = [gaussian(5, 128, number) for number in seeds(1200, seed, 12)]
    activations = [layer(inputs).detach().double().numpy() for layer in layers]
    return np.array([a @ a.T / 128 for a in activations]), inputs.numpy().astype(float)


@statement(
    "activations have the arc-cosine kernel as their mean second moments",
    ("kernel 5 % too large", "linear kernel", "cosine of the squared lengths"),
)
def kernel_mean(fault: str, seed: int) -> float:
    grams, x = gram_samples(seed)
    dot = x @ x.T
    size = np.broadcast_to(x.sum(axis=1), dot.shape).copy()
    kernel = arc_cosine(size.T.copy(), size, dot)
    if fault == "kernel 5 % too large":
        kernel = 1.05 * kernel
    if fault == "linear kernel":
        kernel = dot / 2
    if fault == "cosine of the squared lengths":
        kernel = arc_cosine(size.T**2, size**2, dot)
    upper = np.triu_indices(len(x))
    return strain_of(z_scores(grams[:, *upper], kernel[upper]), len(grams) - 1)


FITTED = ((AND, 16, 2, 40), (XOR, 14, 3, 80))


@cache
def fitted_samples(gate: Gate, m: int, s: int, d: int, seed: int) -> np.ndarray:
    """Mean square errors of the case-balanced least-squares readoff in its worst case, over layers."""
    drawn = DrawnLayers(Problem(gate, m, s, d, "exactly", seeds=tuple(seeds(90, seed, 13, m, s, d))))
    return np.array(LAWS["balanced_rms"].measure(drawn).samples)


@statement(
    "case-balanced least squares errs as predicted before drawing a layer: largest case 0 to 8 % above",
    ("width 25 % larger", "width 25 % smaller", "RMS 15 % larger", "RMS 15 % smaller"),
)
def fitted(fault: str, seed: int) -> float:
    z = []
    for gate, m, s, d in FITTED:
        width = {"width 25 % larger": 5 * d // 4, "width 25 % smaller": 3 * d // 4}.get(fault, d)
        factor = {"RMS 15 % larger": 1.15, "RMS 15 % smaller": 0.85}.get(fault, 1.0)
        rms = factor * predicted("balanced_rms", Problem(gate, m, s, width, "exactly"))
        ratio = fitted_samples(gate, m, s, d, seed) / rms**2
        # The margin is the stated systematic error of the prediction; beyond it only chance is left.
        z += [max(z_scores(ratio, 1.08**2)[0], 0.0), max(-z_scores(ratio, 1.0)[0], 0.0)]
    return strain_of(z, len(ratio) - 1)
