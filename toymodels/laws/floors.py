"""Baselines and floors: errors of the output 0, and what no layer, or no layer of this width, can beat."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from toymodels.errors import InputError
from toymodels.laws.registry import BASELINE, BOTH, FLOOR, WIDTH, Law, Measured, Problem, Value, law
from toymodels.theory import convex, floors, polynomial, rank, relu
from toymodels.theory.widths import smallest_width

if TYPE_CHECKING:
    from toymodels.core.evaluation import Evaluation
    from toymodels.laws.measuring import DrawnLayers

_EVERY_OUTPUT = 20_000_000
"""Inputs × pairs up to which the output 0 is measured on all of them."""
_SQUARES = 2_000
"""Neurons up to which plain least squares is fitted, and pairs sampled per layer."""

_baseline = partial(law, kind=BASELINE, source="definition (theory.floors)", order=10)
_floor = partial(law, kind=FLOOR, tables=BOTH, order=11)
_worst = partial(_floor, about="any layer of d: worst error")


def _zero_outputs(drawn: DrawnLayers) -> tuple[Evaluation, str]:
    """Evaluate the output 0 on all inputs and pairs."""
    from toymodels import IdentityLayer, LinearReadoff, Network, PairTask, evaluate

    m, pairs, number = drawn.problem.m, drawn.problem.pairs, drawn.features.n_inputs
    if number * pairs > _EVERY_OUTPUT:
        raise InputError(f"{number:,} inputs × {pairs:,} pairs are more than {_EVERY_OUTPUT:,}")
    inputs = drawn.inputs(_EVERY_OUTPUT)
    network = Network(IdentityLayer(m), LinearReadoff.constant(pairs, m))
    errors = evaluate(network, PairTask(m, drawn.problem.gate), inputs)
    return errors, f"{inputs.description} inputs, all {pairs:,} pairs"


def _said(floor: float) -> Value:
    """Return a floor with the note that one of 0 needs."""
    return floor, "" if floor else "says nothing at this size"


@_baseline("zero_predictor", about="output 0: E|f − o|², summed over pairs")
class ZeroSquare(Law):
    """The squared error of the output 0."""

    def predict(self, problem: Problem) -> Value:
        return floors.zero_predictor(problem.gate, problem.counts).mean_square * problem.pairs

    def measure(self, drawn: DrawnLayers) -> Measured:
        errors, coverage = drawn.once(_zero_outputs)
        return Measured([errors.rms**2 * drawn.problem.pairs], coverage)


@_baseline("zero_predictor_worst", about="output 0: worst error")
class ZeroWorst(Law):
    """The worst error of the output 0."""

    def predict(self, problem: Problem) -> Value:
        return floors.zero_predictor(problem.gate, problem.counts).worst

    def measure(self, drawn: DrawnLayers) -> Measured:
        errors, coverage = drawn.once(_zero_outputs)
        return Measured([errors.worst_error], coverage)


@_floor(
    "affine_floor", about="no hidden layer: worst error", source="Chebyshev on four cases (theory.floors)", faults=(1.01,)
)  # fmt: skip
class AffineFloor(Law):
    """The least worst error without a hidden layer."""

    def predict(self, problem: Problem) -> Value:
        if not problem.at_most and problem.s > problem.m - 2:
            raise InputError("it holds for exactly s of m active with s <= m − 2: all four cases must occur")
        return problem.gate.affine_floor

    def reached(self, problem: Problem) -> float:
        """Return the floor without a hidden layer; with one it says nothing."""
        floor = super().reached(problem)
        return 0.0 if problem.d else floor

    def width(self, problem: Problem, epsilon: float) -> Value:
        floor = self.reached(problem.at(0))
        if epsilon >= floor:
            return 0, f"an affine readoff of the inputs reaches {floor:g}: no hidden layer is needed"
        return 1, f"an affine readoff of the inputs reaches {floor:g} and no less: a hidden layer is needed"

    def measure(self, drawn: DrawnLayers) -> Measured:
        from toymodels import IdentityLayer, PairTask, minimax

        self.predict(drawn.problem)
        m, inputs = drawn.problem.m, drawn.inputs()
        fit = minimax(IdentityLayer(m), PairTask(m, drawn.problem.gate, [(0, 1)]), inputs)
        coverage = f"minimax affine readoff, {inputs.description} inputs, pair (0, 1): all are alike"
        return Measured([fit.certificates[0].worst_error], coverage)


@_worst("worst_error_floor", source="Alon 2009, Welch 1974 (theory.rank)", faults=(3.5,))
class WorstErrorFloor(Law):
    """The worst error that no layer of d neurons beats, because its outputs have little rank."""

    _error, _least = staticmethod(rank.worst_error_floor), staticmethod(rank.least_width)

    def _active(self, problem: Problem) -> int:
        # Inputs with exactly 2 active bound most, and at most s includes them.
        return 2 if problem.at_most else problem.s

    def predict(self, problem: Problem) -> Value:
        return _said(self._error(problem.gate, problem.m, self._active(problem), problem.d))

    def width(self, problem: Problem, epsilon: float) -> Value:
        width = self._least(problem.gate, problem.m, self._active(problem), epsilon)
        return width, "" if width > 1 else "says nothing at this ε"

    def measure(self, drawn: DrawnLayers) -> Measured:
        """Fit minimax readoffs of some pairs to frozen layers: the least errors that linear readoffs of these reach."""
        from threadpoolctl import threadpool_limits

        from toymodels import minimax

        inputs = drawn.fit_inputs()

        def worst(seed: int) -> float:
            fit = minimax(drawn.layer(seed), drawn.some_pairs(seed), inputs)
            return max(certificate.worst_error for certificate in fit.certificates)

        with threadpool_limits(1, "blas"):
            samples = drawn.each(worst, "minimax readoffs")
        which = f"{inputs.description} inputs, the worst of {drawn.pairs_chosen()}; over all pairs it is larger"
        return Measured(samples, f"minimax readoffs of Gaussian layers: {drawn.layers}, {which}", "mean")


@_worst("polynomial_floor", source="derived here (theory.polynomial)", faults=(3.5,))
class PolynomialFloor(WorstErrorFloor):
    """The worst error that no layer of d neurons beats, because polynomials of its outputs have little rank."""

    _error, _least = staticmethod(polynomial.polynomial_floor), staticmethod(polynomial.least_width)


@_worst("convex_floor", source="Radon 1921 (theory.convex)", gates=("and",), faults=(25.0,))
class ConvexFloor(WorstErrorFloor):
    """The worst error that no layer of d neurons beats, because d + 2 points in d dimensions are never all apart."""

    def predict(self, problem: Problem) -> Value:
        # With exactly s active the inputs with s − 2 features always on are left, and none on which every output is 0.
        outputs = problem.pairs if problem.at_most else math.comb(problem.m - problem.s + 2, 2)
        possible = problem.at_most or outputs >= problem.d + 2
        return _said(convex.radon_floor(outputs, problem.d) if possible else 0.0)

    width = Law.width  # by search, not by the rank


@_floor(
    "relu_floor", about="any ReLU layer of d: worst error", source="derived here (theory.relu)", gates=("and",),
    faults=(150.0,),
)  # fmt: skip
class ReluFloor(ConvexFloor):
    """The worst error that no layer of d ReLU neurons beats, because these are convex and never negative."""

    def predict(self, problem: Problem) -> Value:
        if not problem.at_most:
            raise InputError("it holds for at most s of m active: fewer must occur")
        return _said(relu.relu_floor(problem.m, 2, problem.d))


def _least_squares(drawn: DrawnLayers) -> tuple[list[float], str]:
    """Fit plain least squares to frozen layers: E|f − o|² of each, which reaches no floor but lies above."""
    from toymodels import Network, evaluate, least_squares

    inputs = drawn.inputs()
    if drawn.problem.d > _SQUARES:
        raise InputError(f"least squares is fitted up to d = {_SQUARES:,}")

    def square(seed: int) -> float:
        layer, task = drawn.layer(seed), drawn.some_pairs(seed, _SQUARES)
        error = evaluate(Network(layer, least_squares(layer, task, inputs)), task, inputs)
        return error.rms**2 * drawn.problem.pairs

    which = f"{inputs.description} inputs, {drawn.pairs_chosen(_SQUARES)}"
    samples = drawn.each(square, "plain least squares")
    return samples, f"plain least squares on Gaussian layers: {drawn.layers}, {which}"


_pca = partial(_floor, source="Eckart & Young 1936 (theory.floors)", faults=(1.6,))


@_pca("pca_floor", about="any layer of d: E|f − o|², summed over pairs")
class PCAFloor(Law):
    """The squared error that no layer of d neurons beats."""

    def predict(self, problem: Problem) -> Value:
        return floors.square_floor(problem.gate, problem.counts, problem.d).per_output * problem.pairs

    def reached(self, problem: Problem) -> float:
        """Return the RMS error over pairs and inputs; without a layer, that of the output 0."""
        if not problem.d:
            return math.sqrt(floors.zero_predictor(problem.gate, problem.counts).mean_square)
        return math.sqrt(floors.square_floor(problem.gate, problem.counts, problem.d).per_output)

    def width(self, problem: Problem, epsilon: float) -> Value:
        zero, note = self.reached(problem.at(0)), "ε is here the RMS error over all pairs and inputs"
        if zero <= epsilon:
            return 0, f"{note}: the output 0 has {zero:.3g}, for plain averages say little of sparse targets"
        return smallest_width(lambda d: self.reached(problem.at(d)) <= epsilon), note

    def measure(self, drawn: DrawnLayers) -> Measured:
        squares, coverage = drawn.once(_least_squares)
        return Measured(squares, coverage, "mean")


@_pca("pca_floor_share", about="any layer of d: that, as a share of zero_predictor", tables=("bounds",))
class PCAFloorShare(Law):
    """The same as a share of the squared error of the output 0."""

    def predict(self, problem: Problem) -> Value:
        share = floors.square_floor(problem.gate, problem.counts, problem.d).share
        return share, "not computed: the zero predictor has no error" if math.isnan(share) else ""

    def measure(self, drawn: DrawnLayers) -> Measured:
        zero = floors.zero_predictor(drawn.problem.gate, drawn.problem.counts).mean_square * drawn.problem.pairs
        if not zero:
            raise InputError("the zero predictor has no error")
        squares, coverage = drawn.once(_least_squares)
        return Measured([square / zero for square in squares], coverage, "mean")


@_floor(
    "welch_bound", about="m unit directions in d: largest |cosine|", source="Welch 1974 (theory.floors)", inputs="none",
    faults=(10.0,)
)  # fmt: skip
class WelchBound(Law):
    """The |cosine| that some pair of any m directions in d dimensions reaches."""

    def predict(self, problem: Problem) -> Value:
        m, d = problem.m, problem.d
        return floors.welch_bound(m, d), "" if m > d else f"says nothing at d >= m: {m} directions can be orthogonal"

    def measure(self, drawn: DrawnLayers) -> Measured:
        m, d = drawn.problem.m, drawn.problem.d
        if m * m > 4_000_000 or m * d > 20_000_000:
            raise InputError("m² is above 4,000,000 or m·d above 20,000,000")

        def coherence(seed: int) -> float:
            columns = drawn.layer(seed).weight.detach().T
            unit = columns / columns.norm(dim=1, keepdim=True)
            return float((unit @ unit.T).fill_diagonal_(0).abs().max())

        coverage = f"weights of each feature in Gaussian layers: {drawn.layers}, mean"
        return Measured(drawn.each(coherence), coverage, "mean")


@_floor(
    "counting_width", kind=WIDTH, about="neurons, for some choice of pairs without error",
    source="Adler & Shavit 2024 (theory.floors)", inputs="all"
)  # fmt: skip
class CountingWidth(Law):
    """The neurons that some choice of pairs needs, by counting the weights that tell choices apart."""

    def predict(self, problem: Problem) -> Value:
        chosen = problem.pairs // 2 if problem.outputs is None else problem.outputs
        weights = f"n of n×n weights of {problem.bits} bit{'' if problem.bits == 1 else 's'}"
        choice = f"for the hardest choice of {chosen:,} pairs; says nothing of one fixed choice such as all pairs"
        return floors.counting_width(problem.m, chosen, float(problem.bits)), f"{weights}, {choice}"

    def width(self, problem: Problem, epsilon: float) -> Value:
        return self.predict(problem)
