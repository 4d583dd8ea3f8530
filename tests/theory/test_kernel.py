import itertools
import math

import numpy as np
import pytest

from toymodels.errors import InputError
from toymodels.theory.gates import Gate
from toymodels.theory.kernel import arc_cosine, kernel_fit
from toymodels.theory.optimal import optimal_readoff

AND, XOR, NOR = Gate.parse("and"), Gate.parse("xor"), Gate.parse("nor")


def inputs(m: int, sizes: range) -> np.ndarray:
    return np.array(
        [np.isin(np.arange(m), on) for s in sizes for on in itertools.combinations(range(m), s)], dtype=float
    )


def gram(x: np.ndarray) -> np.ndarray:
    size = np.broadcast_to(x.sum(axis=1), (len(x), len(x)))
    return arc_cosine(size.T.copy(), size.copy(), x @ x.T)


def test_kernel_agrees_with_sampling(disagreement):
    x = inputs(4, range(1, 4))
    active = np.maximum(np.random.default_rng(0).standard_normal((50_000, 4)) @ x.T, 0)
    products = active[:, :, None] * active[:, None, :]
    assert disagreement(products, gram(x)) < 1
    assert disagreement(products, 1.05 * gram(x)) > 1
    assert arc_cosine(np.zeros(1), np.ones(1), np.zeros(1)) == 0


@pytest.mark.parametrize("gate", [AND, XOR, NOR, Gate.parse("first_and_not_second")])
@pytest.mark.parametrize(("m", "s", "at_most"), [(5, 2, False), (6, 3, False), (6, 3, True), (8, 2, True)])
def test_orbits_give_the_norm_of_the_whole_kernel_matrix(gate, m, s, at_most):
    x = inputs(m, range(1, s + 1) if at_most else range(s, s + 1))
    matrix = gram(x)
    target = np.array([gate.truth[int(2 * row[0] + row[1])] for row in x], dtype=float)
    one = np.ones(len(x))
    plain = kernel_fit(gate, m, s, at_most, offset=False) if not (at_most and gate.truth[0]) else None
    if plain is not None:
        assert plain.norm**2 == pytest.approx(target @ np.linalg.solve(matrix, target), rel=1e-8)
    offset = one @ np.linalg.solve(matrix, target) / (one @ np.linalg.solve(matrix, one))
    offset = gate.truth[0] if at_most else offset
    fit = kernel_fit(gate, m, s, at_most)
    assert fit.offset == pytest.approx(offset, abs=1e-9)
    assert fit.norm**2 == pytest.approx((target - offset) @ np.linalg.solve(matrix, target - offset), rel=1e-8)


def test_the_readoff_it_describes_is_exact_with_that_norm(disagreement):
    m, s = 6, 2
    fit = kernel_fit(AND, m, s)
    x = inputs(m, range(s, s + 1))
    active = np.maximum(np.random.default_rng(1).standard_normal((200_000, m)) @ x.T, 0)
    case = (2 * x[:, 0] + x[:, 1]).astype(int)
    means = np.stack([active[:, case == kind.case].mean(axis=1) for kind in fit.conditions], axis=1)
    eta = means @ fit.weights
    samples = np.column_stack([eta[:, None] * active + fit.offset, eta**2])
    predicted = np.append(np.array(AND.truth)[case], fit.norm**2)
    assert disagreement(samples, predicted) < 1
    assert disagreement(samples, np.append(np.array(AND.truth)[case], 1.05 * fit.norm**2)) > 1


@pytest.mark.parametrize(("gate", "norm"), [(AND, 3.157), (XOR, 6.838)])
def test_many_features_tend_to_the_limit(gate, norm):
    limit = kernel_fit(gate, None, 2)
    assert limit.norm == pytest.approx(norm, abs=1e-3)
    norms = [kernel_fit(gate, m, 2).norm for m in (4, 10, 100, 10_000)]
    assert norms == sorted(norms)
    assert norms[-1] == pytest.approx(limit.norm, rel=1e-3)
    assert kernel_fit(gate, 4000, 3, at_most=True).norm == pytest.approx(
        kernel_fit(gate, None, 3, at_most=True).norm, rel=1e-2
    )


@pytest.mark.parametrize("s", [2, 3, 8])
def test_least_norm_is_not_quite_least_variance(s):
    fit = kernel_fit(AND, None, s, offset=False)
    worst = fit.sigma.max()
    best = optimal_readoff(AND, s).worst
    assert best < worst < 1.3 * best
    # The norm alone sets the scale: E[a²] = s/2.
    assert worst == pytest.approx(fit.norm * math.sqrt(s / 2), rel=0.25)


@pytest.mark.parametrize(
    "call",
    [
        lambda: kernel_fit(AND, 10, 1),
        lambda: kernel_fit(AND, 4, 3),
        lambda: kernel_fit(NOR, 10, 2, at_most=True, offset=False),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()
