"""Systems of interior-point steps: what each form of solving leaves of them, and what it costs in steps."""

from itertools import combinations

import numpy as np
import pytest

from tests.fast.test_interior_point import at_most, check, gate, layer
from toymodels.fast import interior_point, systems
from toymodels.fast.interior_point import ChebyshevSolver
from toymodels.fast.null_space import NullSpace


def basis(n: int, k: int, seed: int) -> np.ndarray:
    """Columns with GᵀG = n·1, the last of them constant."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(np.column_stack([np.ones(n), rng.normal(size=(n, k - 1))]))
    return q[:, ::-1] * np.sqrt(n) * np.sign(q[0, 0])


def problem(n: int, k: int, spread: float, seed: int = 0) -> tuple[np.ndarray, ...]:
    """A basis, and for 3 targets multiplier/slack of both sides, right-hand sides of inputs and those of t."""
    rng = np.random.default_rng(seed)
    ratios = np.exp(rng.uniform(0, np.log(spread), (3, 2, n)))
    return basis(n, k, seed), ratios, rng.normal(size=(3, n)), rng.normal(size=3)


def expected(G: np.ndarray, ratios: np.ndarray, b: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Solve [[GᵀWG, −c], [−cᵀ, Σ w]] (y, t) = (Gᵀb, last), as it is written."""
    found = []
    for (u, v), row, end in zip(ratios, b, last, strict=True):
        c = G.T @ (u - v)
        matrix = np.block([[G.T @ ((u + v)[:, None] * G), -c[:, None]], [-c, (u + v).sum()]])
        found.append(np.linalg.solve(matrix, np.append(G.T @ row, end)))
    return np.stack(found)


@pytest.mark.parametrize("short", [False, True])
def test_factors_solve_the_system(short):
    G, ratios, b, last = problem(90, 20, 100.0)
    weights, coupling = ratios.sum(1), (ratios[:, 0] - ratios[:, 1]) @ G
    bases = {np.float64: G, np.float32: G.astype(np.float32)}
    used = bases[np.float32 if short else np.float64]
    factors = [systems.factorised(used, w, c, len(G)) for w, c in zip(weights, coupling, strict=True)]
    tolerance = 1e-4 if short else 1e-10  # of float32, whose diagonal is a millionth larger, and of float64
    for given in (b, None):
        z, moves = systems.solver(bases, factors, weights, coupling)(given, last)
        wanted = expected(G, ratios, np.zeros_like(b) if given is None else given, last)
        assert np.allclose(z, wanted, rtol=0, atol=tolerance * np.abs(wanted).max())
        assert np.allclose(moves, z[:, :-1] @ G.T)


def test_conjugate_gradients_leave_a_hundredth_and_only_of_their_targets():
    G, ratios, b, last = problem(200, 80, 4.0)
    ratios[0, 0, :2] *= 100  # as the one input on which AND is 1
    ratios[2, 0, :30] *= 1e3
    weights, coupling = ratios.sum(1), (ratios[:, 0] - ratios[:, 1]) @ G
    chosen = systems.even(G, weights)
    assert chosen.tolist() == [True, True, False]
    bases = {np.float64: G, np.float32: G.astype(np.float32)}
    factor = systems.factorised(G, weights[2], coupling[2], len(G))
    z, moves = systems.solver(bases, [None, None, factor], weights, coupling)(b, last)
    wanted = expected(G, ratios, b, last)
    for i in range(2):
        rhs = np.append(b[i] @ G, last[i])
        u, v = ratios[i]
        left = np.append(
            ((u + v) * (G @ z[i, :-1])) @ G - coupling[i] * z[i, -1], (u + v).sum() * z[i, -1] - coupling[i] @ z[i, :-1]
        )
        assert 1e-6 < np.linalg.norm(left - rhs) / np.linalg.norm(rhs) < 1.1e-2
    assert np.allclose(z[2], wanted[2], atol=1e-9 * np.abs(wanted[2]).max())
    assert np.allclose(moves, z[:, :-1] @ G.T)


def test_conjugate_gradients_are_for_many_unknowns_and_few_inputs():
    even = [systems.even(np.empty(shape), np.ones((1, shape[0])))[0] for shape in ((200, 80), (100, 30), (400, 80))]
    assert even == [True, False, False]
    assert not systems.even(np.empty((200, 80)), np.full((1, 200), np.nan))[0]


@pytest.mark.parametrize("name", ["and", "xor"])
def test_conjugate_gradients_cost_no_steps(name, monkeypatch):
    x = at_most(2, 24)[25:]
    a = layer(x, 100, "gaussian", 2)
    targets = np.stack([gate(x, name, k, l) for k, l in list(combinations(range(24), 2))[:32]])
    solver, used, even = ChebyshevSolver(a), [], systems.even

    def counted(G, weights):
        used.append(even(G, weights))
        return used[-1]

    monkeypatch.setattr(systems, "even", counted)
    now = solver.solve_all(targets)
    assert np.concatenate(used).sum() >= 2 * len(targets)  # the first two systems at least
    monkeypatch.setattr(systems, "even", lambda G, weights: np.zeros(len(weights), bool))
    factors = solver.solve_all(targets)
    for one, other, f in zip(now, factors, targets, strict=True):
        check(one, a, f)
        assert one.worst_error == pytest.approx(other.worst_error, abs=1e-8)
    steps, without = (np.mean([one.iterations for one in found]) for found in (now, factors))
    assert steps < 1.03 * without


def test_the_null_space_solves_the_system():
    G, ratios, b, last = problem(60, 48, 1e4)
    null, weights = NullSpace(G), ratios.sum(1)
    for given in (b, None):
        wanted = expected(G, ratios, np.zeros_like(b) if given is None else given, last)
        z, moves = null.solver(ratios, weights, np.zeros_like(weights))(given, last)
        assert np.allclose(z, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())
        assert np.allclose(moves, z[:, :-1] @ G.T, atol=1e-9)
    # What errors have outside of the span of G is taken away by one step.
    outside = np.random.default_rng(1).normal(size=weights.shape)
    z, moves = null.solver(ratios, weights, outside)(b, last)
    after = outside + moves
    assert np.abs(after - after @ G @ G.T / len(G)).max() < 1e-9


def test_null_spaces_are_for_few_more_inputs_than_unknowns():
    sizes = ((276, 257), (257, 257), (250, 257), (360, 257), (359, 257), (500, 257), (40, 35))
    assert [NullSpace.pays(*size) for size in sizes] == [True, False, False, False, True, False, False]


@pytest.mark.parametrize(
    ("m", "d", "law", "left"), [(12, 52, "gaussian", 0.1), (16, 90, "gaussian", 0.1), (12, 60, "bernoulli", 1.0)]
)
@pytest.mark.parametrize("name", ["and", "xor"])
def test_readoffs_by_the_null_space_are_those_by_factors(m, d, law, left, name, monkeypatch):
    """Every pair: at some solutions, and at most of a layer of 0 and 1, more inputs are tight than there are unknowns."""
    x = at_most(2, m)[m + 1 :]
    a = layer(x, d, law, 0)
    targets = np.stack([gate(x, name, k, l) for k, l in combinations(range(m), 2)])
    solver = ChebyshevSolver(a)
    assert solver._null is not None
    points, again = interior_point._interior_points, []

    def counted(bases, residuals, keep, null=None):
        again.append(0 if null else len(residuals))
        return points(bases, residuals, keep, null)

    monkeypatch.setattr(interior_point, "_interior_points", counted)
    found = solver.solve_all(targets)
    assert sum(again) <= left * len(targets)  # those that were not exact enough
    solver._null = None
    others = solver.solve_all(targets)
    for one, other, f in zip(found, others, targets, strict=True):
        assert one.method == other.method
        if one.method != "exact":
            check(one, a, f)
        assert one.worst_error == pytest.approx(other.worst_error, abs=5e-9)
    steps, by_factors = (np.median([one.iterations for one in several]) for several in (found, others))
    assert left == 1 or steps <= by_factors


def test_a_null_space_that_fails_leaves_the_work_to_factors(monkeypatch):
    x = at_most(2, 12)[13:]
    a, f = layer(x, 52, "gaussian", 0), gate(x, "and")
    solver = ChebyshevSolver(a)
    expected = solver.solve(f)

    def failing(self, ratios, weights, errors):
        def solve(b, last):
            return np.full((len(last), len(self._G[0]) + 1), np.nan), np.full(weights.shape, np.nan)

        return solve

    monkeypatch.setattr(NullSpace, "solver", failing)
    found = solver.solve(f)
    check(found, a, f)
    assert found.method == "interior point"
    assert found.worst_error == pytest.approx(expected.worst_error, abs=1e-8)


def test_the_vertex_of_a_null_space_is_that_of_the_inputs():
    x = at_most(2, 12)[13:]
    a, f = layer(x, 55, "gaussian", 3), gate(x, "and")
    solver = ChebyshevSolver(a)
    G, null = solver._basis, solver._null
    best = solver.solve(f)
    weight, measure = np.zeros(len(f)), np.zeros(len(f))
    weight[best.rows], measure[best.rows] = 1, best.multipliers
    y, balanced = null.vertex(f, weight, measure, 1e-9)
    assert np.abs(G @ y - f).max() == pytest.approx(best.worst_error, abs=1e-12)
    assert np.allclose(balanced, measure, atol=1e-10)
    assert np.abs(G.T @ balanced).max() < 1e-13
    assert null.vertex(f, weight, -measure, 1e-9) is None
    other = np.flatnonzero(weight == 0)[0]
    for row in best.rows:
        swapped, signs = weight.copy(), measure.copy()
        swapped[row], swapped[other], signs[other] = 0, 1, signs[row]
        assert null.vertex(f, swapped, signs, 1e-9) is None
