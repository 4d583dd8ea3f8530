import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.gates import Gate
from toymodels.theory.fitted import fitted_error, labelled_inputs
from toymodels.theory.floors import affine_floor
from toymodels.theory.quadrants import predicted_rms

AND, XOR = Gate.parse("and"), Gate.parse("xor")


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
    assert worst[0] > affine_floor(AND) > worst[2]
    # A fitted readoff beats the analytic one of the same layer.
    assert fitted_error(AND, 20, 2, 100).rms.max() < predicted_rms(AND, 2, 100, 0) / 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: fitted_error(AND, 10, 1, 5),
        lambda: fitted_error(AND, 4, 3, 5),
        lambda: fitted_error(AND, 10, 2, 0),
        lambda: fitted_error(AND, 10, 2, 5, (0.5, 0.5, 0.0, 0.0)),
        lambda: fitted_error(AND, 100, 3, 5),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()
