import itertools
import math

import numpy as np
import pytest
from scipy.optimize import brentq

from toymodels.errors import InputError
from toymodels.theory.fitted import fitted_error
from toymodels.theory.gates import Gate
from toymodels.theory.kernel import arc_cosine
from toymodels.theory.quadrants import error_std

AND, XOR = Gate.parse("and"), Gate.parse("xor")


def labelled_inputs(m: int, s: int, at_most: bool) -> tuple[np.ndarray, np.ndarray]:
    """Every admissible input but the empty one, and the case of the pair (0, 1) on it."""
    sizes = range(1, s + 1) if at_most else range(s, s + 1)
    rows = [on for size in sizes for on in itertools.combinations(range(m), size)]
    x = np.array([np.isin(np.arange(m), on) for on in rows], dtype=float)
    return x, (2 * x[:, 0] + x[:, 1]).astype(int)


def from_every_input(
    gate: Gate, m: int, s: int, d: int, weights: tuple[float, ...], at_most: bool, offset: bool
) -> np.ndarray:
    """The same deterministic equivalent from the whole kernel matrix, a row for each input: RMS in each case."""
    x, case = labelled_inputs(m, s, at_most)
    share = np.array(weights) / sum(weights)
    root = np.sqrt(share[case] / np.bincount(case, minlength=4)[case])
    size = np.broadcast_to(x.sum(axis=1), (len(x), len(x)))
    kernel = root[:, None] * arc_cosine(size.T.copy(), size.copy(), x @ x.T) * root
    target = root * np.array(gate.truth, dtype=float)[case]
    if offset:
        away = np.eye(len(x)) - np.outer(root, root)
        kernel, target = away @ kernel @ away, away @ target
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    values = values.clip(0)
    kappa = math.exp(brentq(lambda t: (values / (values + math.exp(t))).sum() - d, -80, 20))
    shrink = kappa / (values + kappa)
    smooth = vectors @ (shrink * (vectors.T @ target))
    noise = (values * shrink**2) @ (vectors.T @ target) ** 2 / kappa**2
    by_input = smooth**2 + noise * (vectors**2 @ (values * shrink**2)) / (d - ((1 - shrink) ** 2).sum())
    return np.sqrt(np.bincount(case, by_input, 4) / share)


@pytest.mark.parametrize(
    ("gate", "m", "s", "d", "weights", "at_most", "offset"),
    [
        (AND, 12, 2, 40, (0.25,) * 4, False, True),
        (AND, 12, 2, 30, (0.5, 0.2, 0.2, 0.1), True, False),
        (XOR, 9, 3, 50, (0.25,) * 4, True, True),
        (Gate.parse("first"), 8, 4, 20, (0.1, 0.2, 0.3, 0.4), False, True),
        (Gate.parse("nor"), 8, 6, 20, (0.25,) * 4, False, False),
    ],
)
def test_harmonics_give_what_the_whole_kernel_matrix_gives(gate, m, s, d, weights, at_most, offset):
    found = fitted_error(gate, m, s, d, weights, at_most, offset)
    np.testing.assert_allclose(found.rms, from_every_input(gate, m, s, d, weights, at_most, offset), rtol=1e-7)


def sampled(gate: Gate, m: int, s: int, d: int, at_most: bool, offset: bool, layers: int) -> np.ndarray:
    """RMS error in each case of the case-balanced least-squares readoff, over some drawn layers."""
    rng = np.random.default_rng([m, s, d])
    x, case = labelled_inputs(m, s, at_most)
    root = np.sqrt(0.25 / np.bincount(case)[case])
    target = np.array(gate.truth, dtype=float)[case]
    squares = np.zeros((layers, 4))
    for layer in range(layers):
        active = np.maximum(x @ rng.standard_normal((m, d)), 0)
        if offset:
            active = np.column_stack([active, np.ones(len(x))])
        readoff = np.linalg.lstsq(active * root[:, None], target * root, rcond=None)[0]
        error = active @ readoff - target
        squares[layer] = [np.mean(error[case == index] ** 2) for index in range(4)]
    return np.sqrt(squares.mean(axis=0))


@pytest.mark.parametrize(
    ("gate", "m", "s", "d", "at_most", "offset", "layers"),
    [(AND, 20, 2, 40, False, True, 60), (XOR, 16, 3, 80, False, True, 20), (AND, 20, 2, 100, True, False, 30)],
)
def test_predicted_before_drawing_any_layer(gate, m, s, d, at_most, offset, layers):
    predicted = fitted_error(gate, m, s, d, at_most=at_most, offset=offset)
    found = sampled(gate, m, s, d, at_most, offset, layers)
    # The sampled values are good to about 2 %; the rest is the equivalent's own, stated, error.
    assert found.max() == pytest.approx(predicted.rms.max(), rel=0.08)
    np.testing.assert_allclose(found, predicted.rms, rtol=0.3)
    assert (found**2).mean() == pytest.approx(predicted.mean_square, rel=0.25)
    half = fitted_error(gate, m, s, d // 2, at_most=at_most, offset=offset)
    assert found.max() < 0.8 * half.rms.max()  # a width off by two would be seen


@pytest.mark.parametrize("weights", [(0.25, 0.25, 0.25, 0.25), (0.5, 0.2, 0.2, 0.1)])
def test_the_four_cases_add_up_to_the_whole(weights):
    found = fitted_error(AND, 12, 2, 20, weights)
    assert np.array(weights) @ found.rms**2 == pytest.approx(found.mean_square, rel=1e-9)
    assert found.rms[1] == pytest.approx(found.rms[2]) or weights[1] != weights[2]


def test_error_falls_with_width_to_nothing():
    worst = [fitted_error(AND, 12, 2, d).rms.max() for d in (5, 10, 20, 40, 60, 66)]
    assert worst == sorted(worst, reverse=True)
    assert worst[-1] == 0
    assert worst[0] > AND.affine_floor > worst[2]
    # A fitted readoff beats the analytic one of the same layer.
    assert fitted_error(AND, 20, 2, 100).rms.max() < error_std(AND, 2)[0] / 10 / 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: fitted_error(AND, 10, 1, 5),
        lambda: fitted_error(AND, 4, 3, 5),
        lambda: fitted_error(AND, 10, 2, 0),
        lambda: fitted_error(AND, 10, 2, 5, (0.5, 0.5, 0.0, 0.0)),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()
