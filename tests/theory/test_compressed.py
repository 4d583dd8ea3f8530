"""Closed forms against published numbers, limits and direct minimisation."""

import math

import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.theory import compressed as theory


def test_published_numbers():
    assert theory.naive(100, 50) == pytest.approx(1 / 12)
    assert theory.non_negative(100, 50) == pytest.approx(1 / 12)
    assert theory.linear(100, 50) == pytest.approx(0.125)
    assert theory.power_of_nothing(0.02, 4) == pytest.approx(0.02 / 10)
    # Asymmetric M, σ = 0.0316 and less: the closed form lies a few per cent above trained networks (.072 at σ = .02).
    M = np.random.default_rng(0).normal(0, 0.02, (100, 100))
    assert 0.072 < theory.non_negative(100, 50, M) < 1.06 * 0.072


def test_the_best_constant_is_no_worse_than_any_of_a_grid():
    for p, q in ((0.02, 4), (0.5, 2), (0.9, 8), (0.02, 1)):
        loss, c = theory.power_of_constant(p, q)
        x = (np.arange(200_000) + 0.5) / 200_000

        def direct(c, p=p, q=q, x=x):
            return p / 2 * np.mean(np.abs(x - c) ** q) + (1 - p / 2) * c**q

        assert loss == pytest.approx(direct(c), rel=1e-6)
        assert all(loss <= direct(other) * (1 + 1e-9) for other in np.linspace(0, 1, 201))
    assert theory.power_of_constant(0.5, 2)[1] == pytest.approx(0.125, abs=1e-6)  # the mean of y is p/4


@pytest.mark.parametrize("n", [6, 14, 18, 30])
def test_the_bound_for_one_feature_is_reached_by_a_conference_matrix(n):
    """Off the diagonal the projection (1 + C/√(n−1))/2 has entries of one size, C the Paley matrix of the prime n − 1."""
    prime = n - 1
    residues = {k * k % prime for k in range(1, prime)}
    C = np.ones((n, n)) - np.eye(n)
    for i in range(prime):
        for j in range(prime):
            C[i + 1, j + 1] = 0 if i == j else (1 if (i - j) % prime in residues else -1)
    P = (np.eye(n) + C / math.sqrt(prime)) / 2
    assert np.allclose(P @ P, P)
    grid = np.linspace(0.5, 2, 150_001)
    losses = (1 - grid * 0.5) ** 4 + (n - 1) * (grid / 2 / math.sqrt(prime)) ** 4
    assert grid[losses.argmin()] == pytest.approx(theory.single_alpha(n, n // 2), abs=2e-5)


def test_several_features_by_search_and_in_the_limit():
    for n, d, p in ((100, 50, 0.02), (100, 10, 0.3), (1000, 100, 0.02)):
        u = np.linspace(0, 1, 200_001)
        best = u[theory.several_active(u, n / d - 1, p).argmin()]
        assert theory.several_alpha(n, d, p) == pytest.approx(n / d * best, abs=2e-5 * n / d)
    assert theory.several_alpha(100, 50, 1e-9) == pytest.approx(1.0, abs=1e-6)  # a linear answer: u = 1/2


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: theory.naive(10, 0), "d = 0"),
        (lambda: theory.naive(10, 11), "d = 11"),
        (lambda: theory.naive_with_offset(10, 5, 1.5), "1 at most"),
        (lambda: theory.power_of_nothing(0.5, 0.5), "from 1 to 64"),
        (lambda: theory.power_of_constant(0.5, math.nan), "from 1 to 64"),
        (lambda: theory.single_alpha(1, 1), "at least 2 features"),
        (lambda: theory.several_alpha(10, 5, 0), "above 0"),
        (lambda: theory.linear(3, 2, np.full((3, 3), np.inf)), "finite"),
    ],
)
def test_wrong_numbers_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
