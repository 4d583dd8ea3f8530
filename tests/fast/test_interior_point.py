"""Chebyshev readoffs: against linear programs solved whole, known optima, and certificates recomputed here."""

import pickle
from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import linprog

from toymodels.errors import InputError
from toymodels.fast import interior_point as chebyshev
from toymodels.fast.interior_point import Chebyshev, ChebyshevSolver


def at_most(s: int, m: int) -> np.ndarray:
    """All 0/1 inputs with at most s ones."""
    active = [list(on) for t in range(s + 1) for on in combinations(range(m), t)]
    x = np.zeros((len(active), m))
    for row, on in zip(x, active, strict=True):
        row[on] = 1
    return x


def layer(x: np.ndarray, d: int, law: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = (d, x.shape[1])
    if law == "gaussian":
        return np.maximum(x @ rng.standard_normal(shape).T, 0)
    if law == "rademacher":
        return np.maximum(x @ rng.choice([-1.0, 1.0], shape).T, 0)
    if law == "bernoulli":
        return np.maximum(x @ (rng.random(shape) < 0.5).T - 1.0, 0)
    return x.copy()


def gate(x: np.ndarray, name: str, k: int = 0, l: int = 1) -> np.ndarray:
    both = x[:, k] * x[:, l]
    return both if name == "and" else x[:, k] + x[:, l] - 2 * both


def optimum(a: np.ndarray, f: np.ndarray) -> float:
    """The whole linear program at once, by another route."""
    one = np.ones((len(a), 1))
    solved = linprog(
        np.r_[np.zeros(a.shape[1] + 1), 1.0],
        A_ub=np.block([[a, one, -one], [-a, -one, -one]]),
        b_ub=np.r_[f, -f],
        bounds=[(None, None)] * (a.shape[1] + 1) + [(0, None)],
    )
    assert solved.status == 0
    return float(solved.fun)


def check(found: Chebyshev, a: np.ndarray, f: np.ndarray) -> None:
    """The proof, from the arrays alone."""
    assert found.proved
    error = np.abs(a @ found.coefficients + found.offset - f).max()
    assert error == pytest.approx(found.worst_error, abs=1e-12)
    mu, rows = found.multipliers, found.rows
    assert np.abs(mu).sum() == pytest.approx(1, abs=1e-12)
    assert np.all(np.abs(mu @ a[rows]) <= 1e-11 * np.abs(a).max(0))
    assert abs(mu.sum()) <= 1e-11
    assert mu @ f[rows] == pytest.approx(found.worst_error, abs=1e-9 * np.ptp(f))


@pytest.mark.parametrize(("n", "d"), [(60, 5), (120, 12), (300, 30), (40, 38)])
@pytest.mark.parametrize("kind", ["normal", "relu", "heavy", "whole"])
def test_agrees_with_the_whole_linear_program(n, d, kind):
    rng = np.random.default_rng([n, d])
    a = rng.standard_normal((n, d))
    f = rng.standard_normal(n)
    if kind == "relu":
        a, f = np.maximum(a, 0), (f > 1).astype(float)
    elif kind == "heavy":
        a, f = a**3, f**3
    elif kind == "whole":  # many ties
        a, f = np.rint(a), np.rint(f)
    found = ChebyshevSolver(a).solve(f)
    check(found, a, f)
    assert found.worst_error == pytest.approx(optimum(a, f), abs=1e-8)


@pytest.mark.parametrize("law", ["gaussian", "rademacher", "bernoulli", "identity"])
@pytest.mark.parametrize("name", ["and", "xor"])
def test_agrees_with_the_whole_linear_program_on_layers(law, name):
    x = at_most(2, 16)
    a, f = layer(x, 24, law, 3), gate(x, name, 4, 9)
    found = ChebyshevSolver(a).solve(f)
    check(found, a, f)
    assert found.worst_error == pytest.approx(optimum(a, f), abs=1e-8)


@pytest.mark.parametrize(("m", "s"), [(12, 2), (50, 2), (14, 3)])
def test_without_a_layer_a_gate_costs_a_quarter_of_its_interaction(m, s):
    x = at_most(s, m)
    solver = ChebyshevSolver(x)
    for name, expected in (("and", 0.25), ("xor", 0.5)):
        f = gate(x, name, 2, 7)
        found = solver.solve(f)
        check(found, x, f)
        assert found.worst_error == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
def test_known_range_at_50_features_and_100_neurons(law):
    x = at_most(2, 50)
    a = layer(x, 100, law, 0)
    solver = ChebyshevSolver(a)
    rng = np.random.default_rng(5)
    for name, low, high in (("and", 0.14, 0.24), ("xor", 0.32, 0.45)):
        for _ in range(6):
            k, l = rng.choice(50, 2, replace=False)
            f = gate(x, name, k, l)
            found = solver.solve(f)
            check(found, a, f)
            assert low < found.worst_error < high
            assert found.method == "interior point"


def test_the_certificate_bounds_every_readoff():
    x = at_most(2, 20)
    a, f = layer(x, 15, "gaussian", 1), gate(x, "and")
    found = ChebyshevSolver(a).solve(f)
    rng = np.random.default_rng(2)
    for size in (0.0, 1e-6, 1e-2, 1.0, 100.0):
        r = found.coefficients + size * rng.standard_normal(15)
        c = found.offset + size * rng.standard_normal()
        assert np.abs(a @ r + c - f).max() >= found.lower_bound - 1e-11 * (1 + size)


def test_the_program_is_equivariant():
    """Scaled, shifted, negated targets and rescaled, reordered activations have the optima that follow."""
    x = at_most(2, 20)
    a, f = layer(x, 25, "gaussian", 1), gate(x, "xor")
    best = ChebyshevSolver(a).solve(f).worst_error
    solver = ChebyshevSolver(a)
    for scale, shift in ((-1.0, 0.0), (1e6, 3.0), (1e-9, 0.0), (2.0, -1e3)):
        assert solver.solve(scale * f + shift).worst_error == pytest.approx(abs(scale) * best, rel=1e-7)
    order = np.random.default_rng(0).permutation(25)
    found = ChebyshevSolver(a[:, order] * 10.0 ** np.linspace(-8, 8, 25)).solve(f)
    assert found.proved
    assert found.worst_error == pytest.approx(best, abs=1e-9)


def test_dead_constant_duplicate_and_dependent_columns_change_nothing():
    x = at_most(2, 15)
    a, f = layer(x, 12, "gaussian", 4), gate(x, "and")
    n = len(a)
    more = np.column_stack([a, np.zeros(n), np.full(n, 3.7), a[:, :3], a[:, 3] + 2 * a[:, 4] - 1, np.full(n, 1e-300)])
    found = ChebyshevSolver(more).solve(f)
    check(found, more, f)
    assert found.worst_error == pytest.approx(optimum(a, f), abs=1e-9)
    assert np.abs(found.coefficients).max() < 1e3


def test_duplicate_inputs():
    x = np.repeat(at_most(2, 10), 4, axis=0)
    a, f = layer(x, 8, "gaussian", 0), gate(x, "and")
    found = ChebyshevSolver(a).solve(f)
    check(found, a, f)
    assert found.worst_error == pytest.approx(optimum(a[::4], f[::4]), abs=1e-9)


def test_equal_inputs_with_different_targets_cannot_be_told_apart():
    a = np.ones((4, 3))
    f = np.array([0.0, 1.0, 0.2, 0.0])
    found = ChebyshevSolver(a).solve(f)
    check(found, a, f)
    assert found.worst_error == pytest.approx(0.5, abs=1e-12)


def test_more_neurons_than_inputs_fit_exactly():
    x = at_most(2, 6)
    found = ChebyshevSolver(layer(x, 60, "gaussian", 0)).solve(gate(x, "xor"))
    assert found.proved
    assert found.worst_error < 1e-11
    assert (found.lower_bound, len(found.rows), found.method) == (0.0, 0, "exact")


def test_no_neurons_one_input_and_constant_targets():
    f = np.array([0.0, 1.0, 3.0])
    found = ChebyshevSolver(np.zeros((3, 0))).solve(f)
    check(found, np.zeros((3, 0)), f)
    assert (found.worst_error, found.offset) == (pytest.approx(1.5), pytest.approx(1.5))

    found = ChebyshevSolver(np.array([[2.0, 5.0]])).solve(np.array([7.0]))
    assert found.proved
    assert found.worst_error < 1e-14

    a = layer(at_most(2, 8), 6, "gaussian", 0)
    for value in (0.0, 1.0, -1e-9, 1e9):
        found = ChebyshevSolver(a).solve(np.full(len(a), value))
        assert found.proved
        assert found.worst_error == 0


def test_nearly_dependent_columns_are_used_and_measured():
    """Two columns that differ by 1e-6 of another carry that other: large coefficients, an honest error."""
    x = at_most(2, 15)
    a, f = layer(x, 12, "gaussian", 4), gate(x, "and")
    near = a.copy()
    near[:, 1] = a[:, 0] + 1e-6 * a[:, 1]
    found = ChebyshevSolver(near).solve(f)
    assert found.proved
    assert found.worst_error == pytest.approx(optimum(a, f), abs=1e-7)
    assert np.abs(found.coefficients).max() > 1e3


def test_a_wrong_readoff_or_certificate_is_not_proved():
    x = at_most(2, 20)
    a, f = layer(x, 15, "gaussian", 1), gate(x, "and")
    solver = ChebyshevSolver(a)
    good = solver.solve(f)
    mu = good.multipliers

    def proved(r=good.coefficients, c=good.offset, rows=good.rows, mu=mu):
        return solver.measured(f, r, c, rows, mu).proved

    assert proved()
    assert proved(mu=5 * mu)
    assert not proved(r=good.coefficients + 1e-3)
    assert not proved(c=good.offset + 1e-5)
    assert not proved(mu=-mu)
    assert not proved(mu=mu * (1 + 1e-6 * np.arange(len(mu))))
    assert not proved(mu=np.sign(f[good.rows] - 0.5))
    assert not proved(rows=good.rows[:0], mu=mu[:0])
    assert not proved(mu=np.full_like(mu, np.nan))


def test_where_the_interior_point_fails_the_simplex_method_takes_over(monkeypatch):
    def failing(bases, targets, keep, null=None):
        G = bases[np.float64]
        return [(np.full(G.shape[1], np.nan), np.full(len(G), np.nan), np.ones(len(G), bool), 0)] * len(targets)

    x = at_most(2, 20)
    a, f = layer(x, 15, "gaussian", 1), gate(x, "and")
    solver = ChebyshevSolver(a)
    expected = solver.solve(f)
    monkeypatch.setattr(chebyshev, "_interior_points", failing)
    found = solver.solve(f)
    check(found, a, f)
    assert found.method == "simplex"
    assert found.worst_error == pytest.approx(expected.worst_error, abs=1e-9)

    # With more inputs than its first program holds, it adds the violated ones.
    monkeypatch.setattr(chebyshev, "_FIRST", 40)
    found = solver.solve(f)
    check(found, a, f)
    assert found.worst_error == pytest.approx(expected.worst_error, abs=1e-9)

    # If that fails too, the result says so.
    monkeypatch.setattr(chebyshev, "_simplex", lambda G, f: failing({np.float64: G}, [f], 0)[0])
    found = solver.solve(f)
    assert not found.proved
    assert found.worst_error >= expected.worst_error
    assert found.lower_bound == 0


def test_a_rough_gram_matrix_gives_the_same_optimum(monkeypatch):
    x = at_most(2, 30)
    a, f = layer(x, 40, "rademacher", 1), gate(x, "xor")
    solver = ChebyshevSolver(a)
    found = []
    for keep in (1, 3, 1000):
        monkeypatch.setattr(chebyshev, "_KEEP", keep)
        found.append(solver.solve(f).worst_error)
    assert found == pytest.approx([found[-1]] * 3, abs=1e-9)


def test_the_whole_measure_proves_what_its_heavy_part_does_not(monkeypatch):
    x = at_most(2, 12)
    a, f = layer(x, 15, "gaussian", 1), gate(x, "and")
    points = chebyshev._interior_points

    def without_heavy_part(*problem):
        return [(y, measure, np.zeros_like(heavy), steps) for y, measure, heavy, steps in points(*problem)]

    monkeypatch.setattr(chebyshev, "_interior_points", without_heavy_part)
    found = ChebyshevSolver(a).solve(f)
    check(found, a, f)
    assert found.method == "interior point"


def test_centrality_correctors_save_a_tenth_of_the_systems_and_float32_costs_none(monkeypatch):
    x = at_most(2, 24)
    solver = ChebyshevSolver(layer(x, 60, "gaussian", 1))
    targets = np.stack([x[:, i] * x[:, i + 1] for i in range(12)])

    def systems():
        solved = solver.solve_all(targets)
        assert all(one.proved and one.method == "interior point" for one in solved)
        return sum(one.iterations for one in solved), [one.worst_error for one in solved]

    def unwanted(equations, wanted):
        raise AssertionError("a measure on the inputs with heavy multipliers needs no thinning")

    monkeypatch.setattr(chebyshev, "nnls", unwanted)
    now, errors = systems()
    monkeypatch.undo()
    without = (chebyshev, "_SHORT", 1000, 0.95), (chebyshev.newton, "towards_longer", lambda *arrays: None, 1.1)
    for module, name, value, least in without:
        monkeypatch.setattr(module, name, value)
        count, others = systems()
        assert count >= least * now
        assert others == pytest.approx(errors, abs=1e-9)


@pytest.mark.parametrize("name", ["and", "xor"])
def test_the_solution_at_its_inputs_saves_a_tenth_of_the_systems(name, monkeypatch):
    x = at_most(2, 24)
    a = layer(x, 60, "gaussian", 2)
    targets = np.stack([gate(x, name, k, l) for k, l in list(combinations(range(24), 2))[:40]])
    early = ChebyshevSolver(a).solve_all(targets)
    monkeypatch.setattr(chebyshev, "_NEAR", 0.0)
    late = ChebyshevSolver(a).solve_all(targets)
    for one, other, f in zip(early, late, targets, strict=True):
        check(one, a, f)
        assert one.worst_error == pytest.approx(other.worst_error, abs=1e-8)
        assert one.worst_error - other.worst_error < 1e-12
    assert np.mean([one.iterations for one in early]) < 0.9 * np.mean([one.iterations for one in late])
    assert np.median([one.gap for one in early]) < 1e-13  # computed, not approached


def test_only_the_inputs_of_the_solution_make_a_vertex():
    x = at_most(2, 12)
    a, f = layer(x, 20, "gaussian", 3), gate(x, "and")
    solver = ChebyshevSolver(a)
    G = solver._basis
    best = solver.solve(f)
    weight, measure = np.zeros(len(f)), np.zeros(len(f))
    weight[best.rows], measure[best.rows] = 1, best.multipliers
    y, balanced = chebyshev._vertex(G, f, weight, measure)
    assert np.abs(G @ y - f).max() == pytest.approx(best.worst_error, abs=1e-12)
    assert np.allclose(balanced, measure, atol=1e-10)
    assert np.abs(G.T @ balanced).max() < 1e-14
    assert chebyshev._vertex(G, f, weight, -measure) is None
    other = np.flatnonzero(weight == 0)[0]
    for row in best.rows:
        swapped, signs = weight.copy(), measure.copy()
        swapped[row], swapped[other], signs[other] = 0, 1, signs[row]
        assert chebyshev._vertex(G, f, swapped, signs) is None
    assert chebyshev._vertex(G[:20], f[:20], weight[:20], measure[:20]) is None  # too few inputs to hold one


@pytest.mark.parametrize(("m", "d"), [(10, 8), (24, 8), (24, 20)])
def test_a_measure_spread_over_many_inputs_is_proved_on_few(m, d, monkeypatch):
    """No linear readoff of few neurons computes XOR better than a constant: every input may carry the proof of 1/2."""
    x = at_most(2, m)[m + 1 :]
    a, f = layer(x, d, "gaussian", 1), gate(x, "xor")
    solver, sizes, solve = ChebyshevSolver(a), [], chebyshev.nnls

    def counted(equations, wanted):
        sizes.append(equations.shape[1])
        return solve(equations, wanted)

    monkeypatch.setattr(chebyshev, "nnls", counted)
    found = solver.solve(f)
    check(found, a, f)
    assert found.worst_error == pytest.approx(0.5, abs=1e-8)
    assert len(found.rows) <= d + 3
    assert sizes[0] == min(4 * (d + 3), len(x))
    assert sizes == sorted(set(sizes))  # no problem is tried twice
    assert d == 8 or len(sizes) == 1  # the heaviest inputs are enough where they are not much fewer than all

    def none(equations, wanted):
        raise RuntimeError

    monkeypatch.setattr(chebyshev, "nnls", none)
    many = solver.solve(f)
    check(many, a, f)
    assert len(many.rows) > d + 3


def test_solver_and_results_travel_between_processes():
    x = at_most(2, 10)
    solver = pickle.loads(pickle.dumps(ChebyshevSolver(layer(x, 8, "gaussian", 0))))
    found = solver.solve(gate(x, "and"))
    assert pickle.loads(pickle.dumps(found)).worst_error == found.worst_error


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    a = np.ones((3, 2))
    a[1, 1] = bad
    with pytest.raises(InputError, match="finite"):
        ChebyshevSolver(a)
    with pytest.raises(InputError, match="finite"):
        ChebyshevSolver(np.eye(3)).solve(np.array([0.0, bad, 1.0]))


def test_wrong_shapes_are_refused():
    with pytest.raises(InputError, match="at least one input"):
        ChebyshevSolver(np.zeros((0, 2)))
    with pytest.raises(InputError, match="float64"):
        ChebyshevSolver(np.zeros((3, 2), np.float32))
    with pytest.raises(InputError, match="one value for each of the 3 inputs"):
        ChebyshevSolver(np.eye(3)).solve(np.zeros(4))


@pytest.mark.parametrize("condition", [1e0, 1e3, 1e5, 1e7, 1e9])
def test_bases_are_orthonormal_whatever_the_columns(condition):
    rng = np.random.default_rng(0)
    a = np.linalg.qr(rng.standard_normal((80, 12)))[0] * np.geomspace(1, 1 / condition, 12)
    a = a @ np.linalg.qr(rng.standard_normal((12, 12)))[0]
    before = a.copy()
    q, to_columns = chebyshev._orthonormal(a)
    assert np.array_equal(a, before)
    assert np.abs(q.T @ q - np.eye(12)).max() < 1e-13
    # A T = Q, to the rounding that a condition number allows.
    assert np.abs(a @ to_columns - q).max() < 1e-14 * max(condition, 10)


def test_targets_solved_together_are_solved_as_alone():
    """Also where one of them is fitted exactly, one is constant, and the others need different numbers of steps."""
    x = at_most(2, 14)
    a = layer(x, 30, "gaussian", 3)
    solver = ChebyshevSolver(a)
    some = np.stack([x[:, i] * x[:, j] for i, j in ((0, 1), (3, 9), (12, 13))])
    targets = np.concatenate(
        [some, a[:, :1].T, np.ones((1, len(x))), np.random.default_rng(0).normal(size=(2, len(x)))]
    )
    together = solver.solve_all(targets)
    assert [one.method for one in together].count("exact") == 2
    for one, target in zip(together, targets, strict=True):
        alone = solver.solve(target)
        assert one.proved
        if one.method != "exact":
            check(one, a, target)
        assert one.worst_error == pytest.approx(alone.worst_error, abs=1e-9)
        assert (one.method, one.iterations) == (alone.method, alone.iterations)
