"""The floor by Radon's theorem, against layers of any activation that are made to beat it."""

import numpy as np
import pytest
from scipy.optimize import linprog

from toymodels.errors import InputError
from toymodels.theory.convex import radon_floor


def reached(points):
    """The worst error, over outputs, of affine readoffs of points: 0 on the first point, 1 on the point of the output, else 0."""
    n, d = points.shape
    worst = 0.0
    for output in range(1, n):
        a = np.column_stack([points, np.ones(n)])
        f, t = np.eye(n)[output], -np.ones((n, 1))
        bounds = [(None, None)] * (d + 2)
        found = linprog(np.eye(d + 2)[-1], np.block([[a, t], [-a, t]]), np.concatenate([f, -f]), bounds=bounds)
        worst = max(worst, found.fun)
    return worst


@pytest.mark.parametrize(("outputs", "d"), [(3, 1), (4, 2), (6, 3), (6, 4), (7, 4), (5, 4), (7, 6)])
def test_no_activations_that_were_tried_are_below_the_floor(outputs, d):
    rng = np.random.default_rng(0)
    best = min(reached(rng.standard_normal((outputs + 1, d))) for _ in range(30))
    assert best >= radon_floor(outputs, d) - 1e-9


@pytest.mark.parametrize("outputs", [3, 4, 6])
def test_it_is_reached_one_neuron_below_the_outputs(outputs):
    """0 and the unit vectors without their mean direction: the error is 1/(2·outputs)."""
    basis = np.linalg.svd(np.ones((1, outputs)))[2][1:]
    points = np.vstack([np.zeros(outputs - 1), basis.T])
    assert reached(points) == pytest.approx(radon_floor(outputs, outputs - 1), abs=1e-9)


def test_known_values_and_wrong_numbers():
    assert radon_floor(3, 1) == 0.5
    assert radon_floor(6, 3) == 0.25
    assert radon_floor(6, 5) == pytest.approx(1 / 12)
    assert radon_floor(6, 6) == radon_floor(1, 1) == 0
    with pytest.raises(InputError, match="d = 0"):
        radon_floor(3, 0)
