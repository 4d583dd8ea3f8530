"""The error-correction layer: exact step, the laws of its errors, correction below its tolerance and failure above it."""

import numpy as np
import pytest
import torch
from scipy import stats

from toymodels import InputError, SparseFeatures
from toymodels.circuits.correction import clean_moments, correction_layer, noisy_moments, step

THREE = 3.0
"""Standard errors."""


def active(m, s, n, seed):
    return SparseFeatures.exactly(m, s).sampled(n, seed).dense()


def unit_noise(m, d, epsilon, size):
    """The standard deviation of a unit's noise if the m features have independent errors of mean 0 and RMS ε."""
    p = size / (d // 2)
    return epsilon * (m * p * (1 - p)) ** 0.5


def errors(m, d, s, size, epsilon=0.0, layers=30, n=20):
    """Of independent layers: (layers, n, m) errors and where features are on."""
    found, on = [], []
    for seed in range(layers):
        x = active(m, s, n, seed)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
        found.append(correction_layer(m, d, s, seed, size)(x + epsilon * noise) - x)
        on.append(x > 0)
    return torch.stack(found), torch.stack(on)


def by_layer(values, where):
    """Mean over a layer, one value for each: independent, so that their standard error is that of the mean."""
    return np.array([float(v[w].double().mean()) for v, w in zip(values, where, strict=True)])


def test_step_is_exact():
    z = torch.tensor([-5.0, 0.0, 0.25, 0.375, 0.5, 0.625, 0.75, 1.0, 7.0])
    assert step(z).tolist() == [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]
    torch.testing.assert_close(step(1 - z), 1 - step(z))  # so noise of either sign costs ones and zeros the same


@pytest.mark.parametrize(("m", "d", "s", "size"), [(60, 100, 3, 6), (60, 100, 1, 10), (40, 60, 4, 3)])
def test_output_error_of_exact_inputs_is_the_derived_one(m, d, s, size):
    error, on = errors(m, d, s, size, layers=60)
    moments = clean_moments(d, s, size)
    for where, mean, std in ((~on, moments.zero_mean, moments.zero_std), (on, moments.one_mean, moments.one_std)):
        means, squares = by_layer(error, where), by_layer(error**2, where)
        assert abs(means.mean() - mean) <= THREE * stats.sem(means) + 1e-6
        assert abs(squares.mean() - std**2) <= THREE * stats.sem(squares) + 1e-9


def test_ones_are_exact_on_average_and_zeros_too():
    error, on = errors(60, 200, 4, 8, layers=60)
    for where in (on, ~on):
        means = by_layer(error, where)
        assert abs(means.mean()) <= THREE * stats.sem(means) + 1e-6


def test_output_error_does_not_depend_on_the_size_of_sets_and_falls_as_the_root_of_the_width():
    for size in (5, 10, 20):
        moments = clean_moments(4000, 3, size)
        assert moments.zero_std == pytest.approx((2 * 3 / 4000) ** 0.5, rel=3 * 3 * size / 2000)  # to the order s·p
        assert clean_moments(16000, 3, size).zero_std == pytest.approx(moments.zero_std / 2, rel=3 * 3 * size / 2000)


@pytest.mark.parametrize("epsilon", [0.05, 0.1, 0.2])
def test_output_error_of_noisy_inputs_is_the_derived_one(epsilon):
    m, d, s, size = 300, 800, 3, 12
    error, on = errors(m, d, s, size, epsilon, layers=40)
    moments = noisy_moments(m, d, s, epsilon, size)
    ones, squares = by_layer(error, on), by_layer(error**2, ~on)
    assert abs(ones.mean() - moments.one_mean) <= THREE * stats.sem(ones)
    want = moments.zero_std**2 + moments.zero_mean**2
    assert abs(squares.mean() - want) <= THREE * stats.sem(squares) + want / size  # units are taken as independent


def test_noisy_moments_without_noise_are_the_clean_ones():
    clean, noisy = clean_moments(2000, 3, 12), noisy_moments(500, 2000, 3, 0.0, 12)
    assert noisy.zero_std == pytest.approx(clean.zero_std, rel=1 / 12)
    assert noisy.one_mean == pytest.approx(0, abs=1e-12)


def test_a_unit_sees_the_derived_noise():
    """Exactly: its variance over noise of variance ε² is ε²·Σ(C_ik − p)², on average over units ε²·m·p(1 − p)."""
    weight = correction_layer(80, 200, 2, 0, 8).layer.weight[:100] / 2
    variance = 0.1**2 * weight.square().sum(1)
    assert float(variance.mean()) == pytest.approx(unit_noise(80, 200, 0.1, 8) ** 2, rel=1e-5)


def test_it_corrects_below_its_tolerance_and_fails_above():
    """Errors ±ε on every feature (planted): far below c/√(mp) they are gone, above it ones fade away."""
    m, d, s, size = 200, 2000, 2, 20
    x = active(m, s, 50, 0)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).sign()
    network = correction_layer(m, d, s, 0, size)
    clean = float((network(x) - x).square().mean().sqrt())
    unit = unit_noise(m, d, 1.0, size)  # at ε = 1
    below, above = 0.07 / unit, 2.0 / unit
    # 0.07 is more than 3.5 standard deviations from the dead zone's 1/4: at most 5e-4 of the units see any of it.
    corrected = network(x + below * noise) - x
    assert float(corrected.square().mean().sqrt()) == pytest.approx(clean, rel=0.01)
    assert float(corrected[x == 1].abs().max()) < below
    failed = network(x + above * noise) - x
    assert float(failed[x == 1].mean()) < -0.5


def test_a_common_error_is_taken_out():
    """+ε on every feature: ε·m·p = 0.75 in a unit if all connections were +1; here 0 on average over units, exactly."""
    m, d, s, size = 3000, 1200, 2, 10
    x = active(m, s, 20, 0)
    network = correction_layer(m, d, s, 0, size)
    epsilon = 0.75 / (m * size / 600)
    rows = network.layer.weight[:600].double().sum(1) / 2
    assert float(rows.mean()) == pytest.approx(0, abs=1e-4)
    # Over units its variance is that of m independent connections, to the error of a variance from 600 normal values.
    assert float(rows.var()) == pytest.approx(unit_noise(m, d, 1.0, size) ** 2, rel=4 * (2 / 600) ** 0.5)
    assert torch.equal(network(x + epsilon) > 0.5, x > 0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: correction_layer(0, 100, 1, 0), "m = 0"),
        (lambda: correction_layer(10, 3, 1, 0), "d = 3"),
        (lambda: correction_layer(10, 100, 11, 0), "from 1 to m = 10"),
        (lambda: correction_layer(10, 100, 0, 0), "from 1 to m = 10"),
        (lambda: correction_layer(10, 100, 2, 0, 50), "from 1 to 49"),
        (lambda: noisy_moments(10, 100, 2, -0.1, 5), "epsilon = -0.1"),
        (lambda: clean_moments(100, 0, 5), "m = 0: it must be at least 1"),
    ],
)
def test_wrong_layers_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
