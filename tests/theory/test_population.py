import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.theory.classes import least_variance
from toymodels.theory.gates import CASES, Gate
from toymodels.theory.population import Condition, activation_moments, gaussian_population, minimax_variance
from toymodels.theory.quadrants import quadrant_moment


def test_nodes_integrate_polynomials_and_the_quadrant_moments():
    nodes = gaussian_population((0.0, -1.0))
    assert nodes.mass.sum() == pytest.approx(1)
    assert nodes.mass @ (nodes.u * nodes.v) ** 2 == pytest.approx(1)
    assert nodes.mass @ nodes.b == pytest.approx(-0.5)
    nodes = gaussian_population()
    quadrant = 2 * (nodes.u > 0) + (nodes.v > 0)
    for s in (1, 2, 3, 8, 64):
        for case in range(4):
            if sum(CASES[case]) > s:
                continue
            moments = activation_moments(nodes.u, nodes.v, nodes.b, Condition(s, case))
            for conditional, closed in zip(moments, (quadrant_moment(s, case, power) for power in (1, 2)), strict=True):
                np.testing.assert_allclose(np.bincount(quadrant, nodes.mass * conditional, 4), closed, atol=1e-9 * s)


def test_conditional_moments_agree_with_sampling(disagreement):
    rng = np.random.default_rng(0)
    u, v, b = np.array([0.7, -1.2, 0.1]), np.array([0.4, 0.9, -2.0]), np.array([0.0, -1.0, 0.5])
    rest = rng.standard_normal((100_000, 1))
    for condition in (Condition(3, 3), Condition(2, 1), Condition(2, 3), Condition(5, 0)):
        x_k, x_l = CASES[condition.case]
        active = np.maximum(x_k * u + x_l * v + b + np.sqrt(condition.s - x_k - x_l) * rest, 0)
        first, second = activation_moments(u, v, b, condition)
        assert disagreement(np.concatenate([active, active**2], axis=1), np.concatenate([first, second])) < 1
        if condition.s > sum(CASES[condition.case]):
            assert disagreement(active**2, 1.05 * second) > 1


def test_quadrature_with_biases_has_converged():
    values = []
    for fineness in (12, 30):
        nodes = gaussian_population((-1.3,), fineness)
        values.append([])
        weight = nodes.mass * (1 + nodes.u + nodes.u * nodes.v)
        for s, case in ((1, 1), (2, 3), (3, 3)):
            values[-1] += [
                weight @ moment for moment in activation_moments(nodes.u, nodes.v, nodes.b, Condition(s, case))
            ]
    np.testing.assert_allclose(values[0], values[1], atol=1e-8)


def test_least_variance_solves_its_own_problem():
    rng = np.random.default_rng(1)
    first, second = rng.random((3, 9)), rng.random((3, 9)) + 0.1
    target, importance = np.array([0.0, 1.0, 0.5]), np.array([0.2, 0.5, 0.3])
    eta = least_variance(first, second, target, importance)
    np.testing.assert_allclose(first @ eta, target, atol=1e-12)
    best = importance @ second @ eta**2
    null = np.linalg.svd(first)[2][3:]
    for step in 0.1 * rng.standard_normal((200, 6)) @ null:
        assert importance @ second @ (eta + step) ** 2 > best


def test_minimax_reaches_its_certificate_and_ignores_dead_classes():
    rng = np.random.default_rng(2)
    first = rng.random((4, 12))
    second = 12 * first**2 * (1 + rng.random((4, 12)))  # E[a; q]² <= P(q)·E[a²; q], as for any layer
    first[:, 5] = second[:, 5] = 0
    target = np.array(Gate.parse("or").truth, dtype=float)
    for offset in (False, True):
        found = minimax_variance(first, second, target, offset)
        assert found.bound <= found.worst <= found.bound * (1 + 1e-5)
        np.testing.assert_allclose(first @ found.eta + found.offset, target, atol=1e-7)
        assert found.eta[5] == 0
        np.testing.assert_allclose(found.variance, second @ found.eta**2 - (target - found.offset) ** 2)
    assert found.worst <= minimax_variance(first, second, target).worst


def test_wrong_inputs_are_refused():
    with pytest.raises(InputError):
        gaussian_population(())
    with pytest.raises(InputError):
        gaussian_population(fineness=1)
    zeros = np.zeros(2)
    with pytest.raises(InputError):
        activation_moments(zeros, zeros, zeros, Condition(1, 3))
    with pytest.raises(InputError):
        least_variance(np.ones((2, 3)), np.ones((2, 3)), np.array([0.0, 1.0]), np.ones(2))
