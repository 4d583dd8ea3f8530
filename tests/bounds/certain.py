"""Statements without chance: inequalities and identities that hold for every layer, to rounding."""

from __future__ import annotations

import copy
import itertools
import math
from functools import cache

import numpy as np
import torch
from scipy.optimize import linprog
from torch import nn

from toymodels import (
    FirstLayer,
    Gate,
    IdentityLayer,
    LinearReadoff,
    Minimax,
    Network,
    PairTask,
    SparseFeatures,
    Trainer,
    TrainingSettings,
    analytic,
    balanced,
    evaluate,
    gaussian,
    kaiming,
    least_squares,
    minimax,
    train,
)
from toymodels.core.features import Inputs
from toymodels.core.minimax import GAP, ORTHOGONALITY
from toymodels.laws.registry import Problem
from toymodels.theory.counts import at_most, exactly, independent
from toymodels.theory.floors import choice_bits, square_floor, welch_bound, zero_predictor

from .judge import largest, predicted, statement

ROUNDING = 1e-11
"""Relative. An evaluation adds up at most 256 inputs × 45 outputs in float64, each with an error of a few units of
1.1e-16 times sums of 30 products of size 10: 1e-12 at the very most. A fitted readoff's own rounding enters squared."""
AND, XOR, OR = Gate.parse("and"), Gate.parse("xor"), Gate.parse("or")


def linear_layer(m: int, d: int, seed: int) -> FirstLayer:
    """d random linear functions of the input."""
    return gaussian(m, d, seed, activation="identity")


def mean_square(network: Network, task: PairTask, inputs: Inputs) -> float:
    return evaluate(network, task, inputs).rms ** 2


SOURCES = (
    (SparseFeatures.exactly(10, 3), exactly(10, 3)),
    (SparseFeatures.at_most(10, 2), at_most(10, 2)),
    (SparseFeatures.independent(8, 0.3), independent(8, 0.3)),
)
FLOOR_FAULTS = ("floor 1 % too high", "floor of one neuron fewer", "floor for readoffs without offset")


def spoilt_floor(gate: Gate, counts: np.ndarray, d: int, fault: str) -> float:
    width = max(d - (fault == "floor of one neuron fewer"), 1)
    floor = square_floor(gate, counts, width, offset=fault != "floor for readoffs without offset").per_output
    return 1.01 * floor if fault == "floor 1 % too high" else floor


@cache
def frozen_squares() -> tuple[tuple[Gate, int, int, float], ...]:
    """(gate, number of the source, width, mean square error) of least squares on frozen layers of several kinds."""
    rows = []
    for number, (features, _) in enumerate(SOURCES):
        inputs = features.enumerate()
        for gate, d in itertools.product((AND, XOR, OR), (2, 5, 9, 20)):
            task = PairTask(features.m, gate)
            relu, linear = gaussian(features.m, d, 10 * d), linear_layer(features.m, d, 10 * d + 1)
            for layer in (relu, linear, kaiming(features.m, d, 10 * d + 2, "tanh")):
                rows.append(
                    (gate, number, d, mean_square(Network(layer, least_squares(layer, task, inputs)), task, inputs))
                )
    return tuple(rows)


@statement("least squares on no frozen layer beats the PCA floor of its width", FLOOR_FAULTS, statistical=False)
def fitted_above_square_floor(fault: str, seed: int) -> float:
    strain = 0.0
    for gate, number, d, found in frozen_squares():
        counts = SOURCES[number][1]
        floor = spoilt_floor(gate, counts, d, fault)
        strain = largest(strain, (floor - found) / (ROUNDING * zero_predictor(gate, counts).mean_square))
    return strain


@statement(
    "with exactly s active the floor is met: any d < m linear functions of x are a best layer of width d",
    (*FLOOR_FAULTS, "dropped offset", "ReLU instead of linear", "fitted by half the inputs"),
    statistical=False,
)
def floor_is_met(fault: str, seed: int) -> float:
    # Σ_{k<l} (α_k + α_l) g(x_k, x_l) with Σ α = 0 is a linear function of x on such inputs: the m − 1 leading principal
    # components of the targets are linear, and share one eigenvalue, so any d of them capture the same.
    strain = 0.0
    m, s = 9, 3
    inputs = SparseFeatures.exactly(m, s).enumerate()
    for gate, d in itertools.product((AND, XOR, OR), (1, 4, 8)):
        task = PairTask(m, gate)
        layer = gaussian(m, d, d) if fault == "ReLU instead of linear" else linear_layer(m, d, d)
        part = inputs
        if fault == "fitted by half the inputs":
            half = len(inputs) // 2
            part = Inputs(m, inputs.indices[:half], torch.full((half,), 1 / half).double(), False, "half")
        readoff = least_squares(layer, task, part)
        if fault == "dropped offset":
            readoff = LinearReadoff(readoff.weight.detach(), torch.zeros_like(readoff.bias))
        found = mean_square(Network(layer, readoff), task, inputs)
        floor = spoilt_floor(gate, exactly(m, s), d, fault)
        strain = largest(strain, abs(found - floor) / (ROUNDING * zero_predictor(gate, exactly(m, s)).mean_square))
    return strain


@cache
def trained_squares() -> tuple[tuple[Gate, int, float], ...]:
    """(gate, width, mean square error) of networks trained by plain L2."""
    rows = []
    features, settings = (
        SparseFeatures.exactly(10, 3),
        TrainingSettings(optimiser="lbfgs", steps=120, p=(2.0,), weight=1.0, root=False),
    )
    for gate, d in itertools.product((AND, XOR), (3, 6, 9, 14)):
        task = PairTask(10, gate)
        network = Network(gaussian(10, d, d, bias=1.0), LinearReadoff.constant(task.n_outputs, d))
        train(Trainer(network, task, features, settings, 0))
        rows.append((gate, d, mean_square(network, task, features.enumerate())))
    return tuple(rows)


@statement(
    "L2-trained networks never beat the PCA floor",
    ("floor 5 % too high", "floor of two neurons fewer", "floor of another number of active features"),
    statistical=False,
)
def trained_above_square_floor(fault: str, seed: int) -> float:
    strain = 0.0
    for gate, d, found in trained_squares():
        s, width = 4 if fault == "floor of another number of active features" else 3, d
        if fault == "floor of two neurons fewer":
            width = max(d - 2, 1)
        problem = Problem(gate, 10, s, width, "exactly")
        floor = predicted("pca_floor", problem) * (1.05 if fault == "floor 5 % too high" else 1)
        zero = predicted("zero_predictor", problem)
        strain = largest(strain, (floor - found * problem.pairs) / (ROUNDING * zero))
    return strain


@statement(
    "the zero predictor errs by P(target = 1) in mean square, and by 1 at worst",
    ("another sparsity", "output 0.01", "ordered pairs"),
    statistical=False,
)
def zero_output(fault: str, seed: int) -> float:
    strain = 0.0
    for features, counts in SOURCES:
        for gate in (AND, XOR, OR, Gate.parse("first"), Gate.parse("false")):
            task = PairTask(features.m, gate)
            readoff = LinearReadoff.constant(task.n_outputs, features.m, 0.01 if fault == "output 0.01" else 0.0)
            found = evaluate(Network(IdentityLayer(features.m), readoff), task, features.enumerate())
            if fault == "another sparsity":
                counts = exactly(features.m, 2)
            zero = zero_predictor(gate, counts)
            square = zero.mean_square / (2 if fault == "ordered pairs" else 1)
            strain = max(strain, abs(found.rms**2 - square) / ROUNDING, abs(found.worst_error - zero.worst) / ROUNDING)
    return strain


@statement(
    "without a hidden layer the minimax error of every gate is |δ|/4, and no affine layer gets below",
    ("|δ|/2", "every gate as AND", "a hidden layer", "floor 1 % too high", "dropped offset"),
    statistical=False,
)
def affine(fault: str, seed: int) -> float:
    strain = 0.0
    for kind, s in (("exactly", 3), ("at_most", 2)):
        inputs = getattr(SparseFeatures, kind)(6, s).enumerate()
        for number in range(16):
            gate = Gate.parse(f"{number:04b}")
            task = PairTask(6, gate, [[0, 1], [2, 5]])
            layer: nn.Module = gaussian(6, 10, 0) if fault == "a hidden layer" else IdentityLayer(6)
            readoff = minimax(layer, task, inputs).readoff
            if fault == "dropped offset":
                readoff = LinearReadoff(readoff.weight.detach(), torch.zeros_like(readoff.bias))
            found = evaluate(Network(layer, readoff), task, inputs).output_worst.numpy()
            problem = Problem(AND if fault == "every gate as AND" else gate, 6, s, inputs=kind)
            floor = predicted("affine_floor", problem) * {"|δ|/2": 2, "floor 1 % too high": 1.01}.get(fault, 1)
            # The solver proves its optimum to GAP half ranges (1/2), and calls a fit exact at rounding.
            strain = largest(strain, np.abs(found - floor).max() / GAP)
            narrow = linear_layer(6, 4, number)
            least = evaluate(Network(narrow, minimax(narrow, task, inputs).readoff), task, inputs).output_worst
            strain = largest(strain, (floor - float(least.min())) / GAP)
    return strain


class Bench:
    """One frozen layer, all admissible inputs, and readoffs of every kind."""

    def __init__(self, gate: Gate, m: int, d: int, seed: int):
        self.features = SparseFeatures.at_most(m, 2)
        self.inputs = self.features.enumerate()
        self.task = PairTask(m, gate)
        self.layer = gaussian(m, d, seed)
        self.layer.requires_grad_(False)
        self.activations = self.layer.double()(self.inputs.dense(dtype=torch.float64)).numpy()
        self.targets = self.task.targets(self.inputs.dense(dtype=torch.float64)).numpy()
        self.layer.float()
        self.minimax = minimax(self.layer, self.task, self.inputs)
        trained = Network(copy.deepcopy(self.layer), LinearReadoff.constant(self.task.n_outputs, d))
        train(Trainer(trained, self.task, self.features, TrainingSettings(optimiser="lbfgs", steps=200), 0))
        noise = torch.Generator().manual_seed(seed)
        best = self.minimax.readoff
        near = LinearReadoff(
            best.weight.detach() * (1 + 0.01 * torch.randn(best.weight.shape, generator=noise).double()),
            best.bias.detach().clone(),
        )
        self.readoffs: dict[str, nn.Module] = {
            "constant": LinearReadoff.constant(self.task.n_outputs, d, 0.5),
            "analytic": analytic(self.layer, self.task, 2),
            "least squares": least_squares(self.layer, self.task, self.inputs),
            "balanced": balanced(self.layer, self.task, self.features, self.inputs),
            "trained": trained.readoff,
            "near": near,
        }

    def worst(self, readoff: nn.Module, inputs: Inputs | None = None) -> np.ndarray:
        """Largest |error| of each output."""
        found = evaluate(Network(self.layer, readoff), self.task, inputs or self.inputs)
        return found.output_worst.numpy()

    def rounding(self, readoff: nn.Module) -> np.ndarray:
        """What rounding can do to an error of each output: 30 products and their sum, a few units of 1.1e-16 each."""
        return 1e-13 * (1 + self.reach(readoff))

    def reach(self, readoff: nn.Module) -> np.ndarray:
        """Σ_j |r_j| max|A_j| + |c| of each output."""
        assert isinstance(readoff, LinearReadoff)
        weight, offset = (p.detach().double().numpy() for p in (readoff.weight, readoff.bias))
        return np.abs(weight) @ np.abs(self.activations).max(axis=0) + np.abs(offset)

    def without(self, rows: torch.Tensor) -> Inputs:
        """The inputs less some."""
        keep = torch.ones(len(self.inputs), dtype=torch.bool)
        keep[rows] = False
        kept = self.inputs.probabilities[keep]
        return Inputs(self.inputs.m, self.inputs.indices[keep], kept / kept.sum(), False, "some left out")


@cache
def benches() -> tuple[Bench, ...]:
    return tuple(Bench(gate, m, d, seed) for gate, m, d, seed in ((AND, 10, 20, 0), (XOR, 10, 30, 1), (AND, 8, 24, 2)))


def spoilt_minimax(bench: Bench, fault: str) -> nn.Module:
    """A minimax readoff with a fault planted."""
    best = bench.minimax.readoff
    weight, offset = best.weight.detach().clone(), best.bias.detach().clone()
    if fault == "dropped offset":
        offset.zero_()
    if fault == "weights 1 % too large":
        weight *= 1.01
    if fault == "a neuron left out":
        weight[:, 0] = 0
    if fault == "fitted without half the pairs of active features":
        return minimax(bench.layer, bench.task, bench.without(torch.arange(1, len(bench.inputs), 2))).readoff
    if fault == "least squares in its place":
        return bench.readoffs["balanced"]
    return LinearReadoff(weight, offset)


@statement(
    "the minimax readoff exceeds no other readoff on any output, nor the optimum of the textbook linear program",
    (
        "dropped offset",
        "weights 1 % too large",
        "a neuron left out",
        "fitted without half the pairs of active features",
        "least squares in its place",
    ),
    statistical=False,
)
def minimax_is_least(fault: str, seed: int) -> float:
    strain = 0.0
    for bench in benches():
        best = bench.worst(spoilt_minimax(bench, fault))
        slack = GAP / 2  # half ranges are 1/2
        for readoff in bench.readoffs.values():
            strain = largest(strain, float((best - bench.worst(readoff)).max()) / slack)
        rows, d = bench.activations.shape
        for i in range(0, bench.task.n_outputs, 9):
            signed = np.block(
                [[sign * bench.activations, np.full((rows, 1), sign), -np.ones((rows, 1))] for sign in (1.0, -1.0)]
            )
            side = np.concatenate([bench.targets[:, i], -bench.targets[:, i]])
            textbook = linprog(np.eye(d + 2)[-1], A_ub=signed, b_ub=side, bounds=[(None, None)] * (d + 2))
            # HiGHS allows rows to be violated by 1e-7 of their scale (activations up to about 5).
            strain = largest(strain, abs(best[i] - textbook.fun) / (slack + 1e-6))
    return strain


@statement(
    "no readoff of any kind errs less than the certificate of its layer and output",
    ("certificate of another layer", "certificate of another output", "bound 1 % too high"),
    statistical=False,
)
def readoffs_above_certificates(fault: str, seed: int) -> float:
    strain = 0.0
    for bench in benches():
        certificates = bench.minimax.certificates
        bound = np.array([c.lower_bound for c in certificates])
        if fault == "bound 1 % too high":
            bound = 1.01 * bound
        if fault == "certificate of another output":
            bound = np.roll(bound, 1)
        if fault == "certificate of another layer":
            other = gaussian(bench.task.m, bench.layer.width // 2, 99)
            bound = np.array([c.lower_bound for c in minimax(other, bench.task, bench.inputs).certificates])
        for readoff in (*bench.readoffs.values(), bench.minimax.readoff):
            # μ·(f − A r − c) ≤ worst error, and |μ·(A r + c)| is at most orthogonality times reach.
            slack = bench.reach(readoff) * max(c.orthogonality for c in certificates) + bench.rounding(readoff)
            strain = largest(strain, float(((bound - bench.worst(readoff)) / slack).max()))
    return strain


def torch_single_threaded(bench: Bench, found: Minimax, fault: str) -> float:
    """Strain of the certificates of one minimax fit, from arrays alone, as the README shows it."""
    strain = 0.0
    A, f = bench.activations, bench.targets
    worst, rounding = bench.worst(found.readoff), bench.rounding(found.readoff)
    for i, certificate in enumerate(found.certificates):
        rows, mu, claimed = certificate.rows.copy(), certificate.multipliers.copy(), certificate.worst_error
        column = i
        if fault == "a sign flipped":
            mu[np.abs(mu).argmax()] *= -1
        if fault == "a multiplier 1 % off":
            mu[np.abs(mu).argmax()] *= 1.01
        if fault == "an input mistaken":
            rows[np.abs(mu).argmax()] = (rows[np.abs(mu).argmax()] + 1) % len(A)
        if fault == "smallest multiplier dropped":
            smallest = np.abs(mu).argmin()
            rows, mu = np.delete(rows, smallest), np.delete(mu, smallest)
        if fault == "claim 1 % too low":
            claimed *= 0.99
        if fault == "certificate of another output":
            column = (i + 1) % len(found.certificates)
        strain = largest(
            strain,
            abs(np.abs(mu).sum() - 1) / 1e-12,
            abs(mu.sum()) / ORTHOGONALITY,
            float((np.abs(mu @ A[rows]) / np.abs(A).max(axis=0)).max()) / ORTHOGONALITY,
            abs(mu @ f[rows, column] - claimed) / (GAP / 2),
            abs(worst[i] - claimed) / rounding[i],
        )
    return strain


@statement(
    "the certificate: total mass 1, annihilates activations and the constant, its value is the measured worst error",
    (
        "a sign flipped",
        "a multiplier 1 % off",
        "an input mistaken",
        "smallest multiplier dropped",
        "claim 1 % too low",
        "certificate of another output",
    ),
    statistical=False,
)
def certificate(fault: str, seed: int) -> float:
    return largest(*(torch_single_threaded(bench, bench.minimax, fault) for bench in benches()))


@statement(
    "sampled worst error ≤ exhaustive worst error ≤ certified bound",
    ("evaluation skips the worst input", "sample with more active features", "bound certified on half the inputs"),
    statistical=False,
)
def chain(fault: str, seed: int) -> float:
    strain = 0.0
    for bench in benches():
        features = bench.features
        if fault == "sample with more active features":
            features = SparseFeatures.at_most(features.m, 3)
        sample = features.sampled(4000, seed=1)  # misses one of 56 inputs with probability e^(−71)
        for readoff in (*bench.readoffs.values(), bench.minimax.readoff):
            covered = bench.inputs
            if fault == "evaluation skips the worst input":
                a = torch.from_numpy(bench.activations)
                errors = np.abs(readoff(a).detach().double().numpy() - bench.targets)
                covered = bench.without(torch.tensor([int(errors.max(axis=1).argmax())]))
            sampled, exhaustive = bench.worst(readoff, sample), bench.worst(readoff, covered)
            strain = largest(strain, float(((sampled - exhaustive) / bench.rounding(readoff)).max()))
        fitted = bench.minimax
        if fault == "bound certified on half the inputs":
            fitted = minimax(bench.layer, bench.task, bench.without(torch.arange(1, len(bench.inputs), 2)))
        certified = np.array([c.worst_error for c in fitted.certificates])
        beyond = (bench.worst(fitted.readoff) - certified) / bench.rounding(fitted.readoff)
        strain = largest(strain, float(beyond.max()))
    return strain


def coherence(vectors: np.ndarray) -> float:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return float(np.abs(unit @ unit.T - np.eye(len(unit))).max())


@statement(
    "random unit vectors, and the features of any layer, are never less coherent than Welch; simplex and icosahedron meet it",
    ("bound 1 % too high", "m instead of m − 1", "d instead of m − d"),
    statistical=False,
)
def welch(fault: str, seed: int) -> float:
    golden = (1 + math.sqrt(5)) / 2
    icosahedron = np.array(
        [[0, 1, golden], [0, 1, -golden], [1, golden, 0], [1, -golden, 0], [golden, 0, 1], [-golden, 0, 1]]
    )
    strain = 0.0
    sets = [(icosahedron, True)]
    for d in (2, 5, 20):
        simplex = np.linalg.svd(np.eye(d + 1) - 1 / (d + 1))[2][:d].T
        sets.append((simplex, True))
        for m in (d + 2, 3 * d, 200):
            sets += [(layer(m, d, m).weight.detach().double().numpy().T, False) for layer in (gaussian, kaiming)]
    for vectors, met in sets:
        m, d = vectors.shape
        for order in (1, 2, 3):
            bound = predicted("welch_bound", Problem(AND, m, 2, d)) if order == 1 else welch_bound(m, d, order)
            if fault == "bound 1 % too high":
                bound *= 1.01
            if fault == "m instead of m − 1" and order == 1:
                bound = math.sqrt((m - d) / (d * m))
            if fault == "d instead of m − d" and order == 1:
                bound = math.sqrt(d / (d * (m - 1)))
            strain = largest(strain, (bound - coherence(vectors)) / ROUNDING)
            if met and order == 1:
                strain = largest(strain, (coherence(vectors) - bound) / ROUNDING)
    return strain


@cache
def choices_computed(n: int) -> tuple[dict[int, int], int]:
    """Over all 2^(n²) layers of n neurons with weights 0 or 1 (bias −1, n features, neuron j is output j): how many
    sets of pairwise ANDs are computed exactly on inputs with at most 2 active, by size, and how many functions in all.
    """
    inputs = SparseFeatures.at_most(n, 2).enumerate().dense()
    targets = PairTask(n, AND).targets(inputs).T
    found: set[frozenset[int]] = set()
    functions = set()
    for bits in itertools.product((0.0, 1.0), repeat=n * n):
        layer = FirstLayer(torch.tensor(bits).reshape(n, n), torch.full((n,), -1.0))
        outputs = layer(inputs).detach().T
        functions.add(outputs.numpy().tobytes())
        hits = (outputs[:, None] == targets[None]).all(dim=2).nonzero()[:, 1].tolist()
        found |= {frozenset(part) for size in range(n + 1) for part in itertools.combinations(set(hits), size)}
    return {size: sum(len(choice) == size for choice in found) for size in range(n + 1)}, len(functions)


@statement(
    "choosing m' of the pairs takes choice_bits: every choice is another function, and layers of n² one-bit weights hold no more",
    ("bits of ordered choices", "pairs counted twice", "bits to base e"),
    statistical=False,
)
def counting(fault: str, seed: int) -> float:
    strain = 0.0
    x = SparseFeatures.at_most(4, 2).enumerate().dense()
    columns = PairTask(4, AND).targets(x).T.contiguous()
    for outputs in range(1, 6):
        distinct = {
            frozenset(columns[i].numpy().tobytes() for i in part) for part in itertools.combinations(range(6), outputs)
        }
        bits = choice_bits(4, outputs)
        bits += math.log2(math.factorial(outputs)) if fault == "bits of ordered choices" else 0
        bits = math.log2(math.comb(12, outputs)) if fault == "pairs counted twice" else bits
        bits *= math.log(2) if fault == "bits to base e" else 1
        strain = largest(strain, abs(bits - math.log2(len(distinct))) / ROUNDING)
    by_size, functions = choices_computed(3)
    assert functions <= 2**9
    for outputs in range(1, 4):
        if by_size[outputs] == math.comb(3, outputs):  # every choice is computed by some layer of 3 neurons
            strain = largest(strain, predicted("counting_width", Problem(AND, 3, 2, outputs=outputs, bits=1)) / 3)
    return strain
