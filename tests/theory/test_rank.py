import numpy as np
import pytest

from toymodels import PairTask, SparseFeatures, gaussian, minimax
from toymodels.errors import InputError
from toymodels.theory.floors import welch_bound
from toymodels.theory.gates import Gate
from toymodels.theory.rank import least_width, worst_error_floor

AND, XOR = Gate.parse("and"), Gate.parse("xor")


def test_by_hand():
    # U-AND of 50 features: 1,225 pairs, rank 101; order 1 is strongest there.
    w = np.sqrt((1225 - 101) / (101 * 1224))
    assert worst_error_floor(AND, 50, 2, 100) == pytest.approx(w / (1 + w), rel=1e-12)
    w = np.sqrt((1225 - 150) / (150 * 1224))
    assert worst_error_floor(XOR, 50, 2, 100) == pytest.approx(2 * w / (1 + w), rel=1e-12)
    # For very narrow layers higher orders say more.
    first, third = welch_bound(499_500, 11), welch_bound(499_500, 11, 3)
    assert worst_error_floor(AND, 1000, 2, 10) >= third / (1 + third) > 1.1 * first / (1 + first)
    assert worst_error_floor(AND, 50, 2, 1224) == 0
    assert worst_error_floor(Gate.parse("first"), 50, 2, 10) == 0
    assert worst_error_floor(AND, 10, 10, 3) == 0  # one input only


@pytest.mark.parametrize(
    ("gate", "s", "activation"),
    [(AND, 2, "relu"), (AND, 3, "relu"), (XOR, 2, "quadratic"), (Gate.parse("nor"), 2, "relu")],
)
def test_no_layer_is_below_it(gate, s, activation):
    m = 6
    inputs = SparseFeatures.exactly(m, s).enumerate()
    for d in (2, 5):
        floor = worst_error_floor(gate, m, s, d)
        found = minimax(gaussian(m, d, d, activation), PairTask(m, gate), inputs)
        assert max(c.worst_error for c in found.certificates) >= floor - 1e-9


def test_a_simplex_meets_it():
    """The best outputs of rank r = P − 1 for the identity: (1 − ε) on the diagonal and ε·(−1) beside it, scaled."""
    pairs = 28  # m = 8
    w = welch_bound(pairs, pairs - 1)
    floor = worst_error_floor(AND, 8, 2, pairs - 2)
    outputs = (np.eye(pairs) * (1 + 1 / (pairs - 1)) - 1 / (pairs - 1)) * (1 - floor)
    assert np.linalg.matrix_rank(outputs) == pairs - 1
    assert np.abs(outputs - np.eye(pairs)).max() == pytest.approx(floor)
    assert floor == pytest.approx(w / (1 + w))


@pytest.mark.parametrize("gate", [AND, XOR])
@pytest.mark.parametrize("epsilon", [0.3, 0.1, 0.02])
def test_width_is_the_inverse(gate, epsilon):
    d = least_width(gate, 60, 3, epsilon)
    assert worst_error_floor(gate, 60, 3, d) <= epsilon
    assert d == 1 or worst_error_floor(gate, 60, 3, d - 1) > epsilon


@pytest.mark.parametrize(
    "call",
    [
        lambda: worst_error_floor(AND, 10, 1, 5),
        lambda: worst_error_floor(AND, 3, 4, 5),
        lambda: worst_error_floor(AND, 10, 2, 0),
        lambda: least_width(AND, 10, 2, 0.0),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()
