import math

import numpy as np
import pytest
import torch
from scipy import stats

from toymodels.core.evaluation import evaluate
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import IdentityLayer
from toymodels.core.network import Network
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.layers.iid import bernoulli, iid, rademacher, ternary, ternary_weights
from toymodels.layers.random import gaussian
from toymodels.readoffs.by_class import class_readoff, fitted_class_readoff, mean_readoff
from toymodels.theory.bernoulli import activation_moments, bernoulli_errors, debias, mean_reciprocal
from toymodels.theory.classes import solve_readoff
from toymodels.theory.distributions import RADEMACHER, WeightDistribution, bernoulli_weights, finite_classes
from toymodels.theory.gates import CASES, Gate
from toymodels.theory.two_valued import sign_readoff

pytestmark = pytest.mark.unchecked

SKEW = WeightDistribution((-1.0, 0.0, 2.0), (0.5, 0.3, 0.2), 0.25)


def inputs(s: int) -> torch.Tensor:
    """One input with exactly s active for each case of the pair (0, 1)."""
    x = torch.zeros(4, s + 2)
    for row, (k, l) in zip(x, CASES, strict=True):
        row[0], row[1] = k, l
        row[2 : 2 + s - k - l] = 1
    return x


def outputs(draw, read, s: int, layers: int) -> np.ndarray:
    """Outputs for the pair (0, 1), (layers, 4 cases), each layer fresh: every pair and input of a case is alike."""
    x = inputs(s)
    found = []
    for seed in range(layers):
        layer = draw(seed)
        found.append(read(layer)(layer(x))[:, 0].detach().double().numpy())
    return np.array(found)


def z_scores(samples: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Deviations of the four means and the four mean squared deviations from prediction, in standard errors."""
    squares = (samples - mean) ** 2
    found = []
    for sample, predicted in ((samples, mean), (squares, variance)):
        gap, error = sample.mean(0) - predicted, sample.std(0, ddof=1) / math.sqrt(len(sample))
        # A case without any spread (both on, s = 2: every neuron gives 1) must agree to rounding.
        found.append(np.where(error > 1e-7, gap / np.maximum(error, 1e-7), np.where(np.abs(gap) < 1e-6, 0, np.inf)))
    return np.concatenate(found)


SIZES = [(2, 60, 0.2), (3, 100, 0.3), (5, 50, 0.15)]


@pytest.mark.parametrize(("s", "d", "p"), SIZES)
def test_bernoulli_conditional_means_and_variances(s, d, p):
    """Theory section 4, given a non-empty intersection: 1 + tp, tp, tp, tp − 1 + (1−p)^t, to 3 standard errors."""
    task, layers = PairTask(s + 2, "and", [(0, 1)]), 1500
    size: list[int] = []

    def read(layer):
        size.append(int(layer.weight[:, :2].all(1).sum()))
        return mean_readoff(layer, task, s, p)

    found = outputs(lambda seed: bernoulli(s + 2, d, seed, p), read, s, layers)
    t = s - np.array([0, 1, 1, 2])
    mean = np.array([t[0] * p - 1 + (1 - p) ** t[0], t[1] * p, t[2] * p, 1 + t[3] * p])
    variance = activation_moments(s, p).variance[[0, 1, 1, 2]] * mean_reciprocal(d, p)
    seen = np.array(size) > 0
    held = found[seen]
    assert np.abs(z_scores(held, mean, variance)).max() < 3
    np.testing.assert_array_equal(found[~seen], 0)
    # Faults that this would catch: means of one more active feature, and a variance half as large again.
    assert np.abs(z_scores(held, np.array([*mean[:1], *(mean[1:] + p)]), variance)).max() > 3
    assert np.abs(z_scores(held, mean, 1.5 * variance)).max() > 3
    assert len(held) < layers or d * p**2 > 5


@pytest.mark.parametrize("kind", ["none", "shift", "affine"])
def test_mean_readoff_by_hand(kind):
    """Weights by the definition, pair by pair; a pair without common neurons outputs −shift."""
    s, p = 3, 0.25
    layer, task, correction = bernoulli(8, 12, 1, p), PairTask(8, "and"), debias(3, 0.25, kind)
    readoff = mean_readoff(layer, task, s, p, kind)
    x = SparseFeatures.at_most(8, 3).enumerate().dense()
    activation = layer(x).detach()
    read, empty = readoff(activation).detach(), 0
    for index, (k, l) in enumerate(task.pairs.tolist()):
        common = [i for i in range(12) if layer.weight[i, k] == 1 and layer.weight[i, l] == 1]
        empty += not common
        mean = activation[:, common].double().mean(1) if common else torch.zeros(len(x), dtype=torch.float64)
        torch.testing.assert_close(read[:, index], correction.gain * mean - correction.shift, rtol=0, atol=1e-12)
    assert 0 < empty < task.n_outputs


def test_debiased_errors_are_those_of_theory():
    s, d, p, layers = 3, 80, 0.3, 1500
    task = PairTask(s + 2, "and", [(1, 0)])
    found = outputs(
        lambda seed: bernoulli(s + 2, d, seed, p), lambda layer: mean_readoff(layer, task, s, p, "affine"), s, layers
    )
    predicted, target = bernoulli_errors(d, s, p, "affine").rms[[0, 1, 1, 2]], np.array([0, 0, 0, 1])
    squares = (found - target) ** 2
    z = (squares.mean(0) - predicted**2) / (squares.std(0, ddof=1) / math.sqrt(layers))
    assert np.abs(z).max() < 3


DISTRIBUTIONS = {
    "rademacher": (RADEMACHER, "sign", "and"),
    "rademacher_bias": (WeightDistribution((-1.0, 1.0), (0.5, 0.5), -1.0), "value", "xor"),
    "ternary": (ternary_weights(0.6), "sign", "and"),
    "ternary_value": (ternary_weights(0.6), "value", "first_and_not_second"),
    "bernoulli": (bernoulli_weights(0.3), "value", "xor"),
    "skew": (SKEW, "sign", "or"),
}


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_class_readoff_is_unbiased_with_the_predicted_error(name):
    """48 figures: with this quantile the test fails by chance once in 1,000 new sets of seeds."""
    distribution, by, gate = DISTRIBUTIONS[name]
    s, d, layers = 3, 64, 1000
    task, parsed = PairTask(s + 2, gate, [(0, 1)]), Gate.parse(gate)
    found = outputs(
        lambda seed: iid(distribution, s + 2, d, seed),
        lambda layer: class_readoff(layer, task, s, distribution, by),
        s,
        layers,
    )
    sigma = solve_readoff(finite_classes(distribution, s, by), parsed).sigma
    limit = float(stats.t.ppf(1 - 1e-3 / 48 / 2, layers - 1))
    target = np.array(parsed.truth, dtype=float)
    assert np.abs(z_scores(found, target, sigma**2 / d)).max() < limit
    assert np.abs(z_scores(found, target, 1.4 * sigma**2 / d)).max() > limit


@pytest.mark.parametrize(("s", "c"), [(2, 2.0), (3, 4.0), (8, 6.4)])
def test_the_readoff_of_a_rademacher_layer_is_the_product_of_signs(s, c):
    """Theory section 3: c·sign(w_k)·sign(w_l)/d."""
    layer, task = rademacher(6, 40, 0), PairTask(6, "and")
    signs = layer.weight.detach().double()
    product = signs[:, task.pairs[:, 0]].T * signs[:, task.pairs[:, 1]].T
    for by in ("sign", "value"):
        readoff = class_readoff(layer, task, s, RADEMACHER, by)
        torch.testing.assert_close(readoff.weight.detach(), c * product / 40, rtol=0, atol=1e-9)
        assert not readoff.bias.detach().any()


def test_zeros_of_a_ternary_layer_are_read_too():
    distribution = ternary_weights(0.6)
    layer, task = ternary(6, 40, 0, 0.6), PairTask(6, "and", [(0, 1)])
    zeros = (layer.weight.detach()[:, :2] == 0).any(1)
    assert class_readoff(layer, task, 3, distribution, "sign").weight.detach()[0, zeros].abs().max() > 0.01
    best = solve_readoff(finite_classes(distribution, 3, "sign"), task.gate).sigma
    assert (best**2).sum() < 0.95 * (sign_readoff(distribution, 3).sigma ** 2).sum()


def test_order_within_a_pair_counts():
    layer = iid(SKEW, 4, 30, 0)
    one = class_readoff(layer, PairTask(4, "first_and_not_second", [(0, 1)]), 2, SKEW)
    other = class_readoff(layer, PairTask(4, "second_and_not_first", [(1, 0)]), 2, SKEW)
    torch.testing.assert_close(one.weight, other.weight, rtol=0, atol=1e-9)
    assert not torch.allclose(
        one.weight, class_readoff(layer, PairTask(4, "first_and_not_second", [(1, 0)]), 2, SKEW).weight
    )


def test_blocks_of_outputs_make_no_difference(monkeypatch):
    layer, task = iid(SKEW, 9, 21, 0), PairTask(9, "xor")
    whole = class_readoff(layer, task, 3, SKEW).weight
    monkeypatch.setattr("toymodels.readoffs.by_class._BLOCK", 100)
    assert torch.equal(class_readoff(layer, task, 3, SKEW).weight, whole)


def test_values_that_single_precision_rounds_are_known():
    distribution = WeightDistribution((-0.1, 0.7), (0.4, 0.6), -0.3)
    for layer in (iid(distribution, 5, 10, 0), iid(distribution, 5, 10, 0).double()):
        class_readoff(layer, PairTask(5, "and"), 2, distribution)


class Odd(Task):
    m, n_outputs, truth, name = 4, 1, (0, 1), "odd"

    def cases(self, x, outputs=slice(None)):
        return x.sum(1, keepdim=True).long() % 2


TASK, LAYER = PairTask(5, "and"), bernoulli(5, 8, 0, 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mean_readoff(LAYER, PairTask(5, "xor"), 2, 0.5), "computes the gate and, not xor"),
        (lambda: mean_readoff(rademacher(5, 8, 0), TASK, 2, 0.5), "weights 0 and 1"),
        (lambda: mean_readoff(bernoulli(5, 8, 0, 0.5, "tanh"), TASK, 2, 0.5), "ReLU"),
        (lambda: mean_readoff(IdentityLayer(5), TASK, 2, 0.5), "ReLU"),
        (lambda: mean_readoff(LAYER, TASK, 1, 0.5), "s ≥ k"),
        (lambda: mean_readoff(LAYER, TASK, 2, 0.5, "magic"), "none, shift, affine"),
        (lambda: mean_readoff(LAYER, Odd(), 2, 0.5), "pairs of features"),
        (lambda: class_readoff(LAYER, Odd(), 2, bernoulli_weights(0.5)), "pairs of features"),
        (lambda: class_readoff(LAYER, TASK, 2, RADEMACHER), "weights other"),
        (lambda: class_readoff(LAYER, TASK, 2, bernoulli_weights(0.5, -0.5)), "biases are not"),
        (lambda: class_readoff(gaussian(5, 8, 0), TASK, 2, RADEMACHER), "weights other"),
        (lambda: class_readoff(LAYER, TASK, 2, bernoulli_weights(0.5), "colour"), "by"),
        (lambda: class_readoff(bernoulli(5, 8, 0, 1), TASK, 3, WeightDistribution((1.0,), (1.0,), -1.0)), "unbiased"),
    ],
)
def test_wrong_inputs_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize(
    "features", [SparseFeatures.at_most(9, 3), SparseFeatures.independent(6, 0.3)], ids=["at most", "independent"]
)
def test_a_fitted_class_readoff_is_the_least_squares_over_five_numbers(features):
    """Against NumPy's weighted least squares over every (input, pair), with the five terms written out."""
    task = PairTask(features.m, "and")
    inputs, layer = features.enumerate(), gaussian(features.m, 7, 0, bias=-0.3)
    fitted = fitted_class_readoff(layer, task, features, inputs)
    a = layer.double()(inputs.dense(dtype=torch.float64)).detach().numpy()
    sign = np.where(layer.weight.detach().numpy() > 0, 1.0, -1.0).T
    x, chance = inputs.dense().numpy(), inputs.probabilities.numpy()
    shares = features.case_probabilities()
    terms, targets, roots = [], [], []
    for k, l in task.pairs.tolist():
        for row in range(len(x)):
            u, v = sign[k], sign[l]
            terms.append([a[row].sum(), a[row] @ u, a[row] @ v, a[row] @ (u * v), 1.0])
            targets.append(x[row, k] * x[row, l])
            roots.append((chance[row] / shares[int(2 * x[row, k] + x[row, l])]) ** 0.5)
    scaled = np.array(roots)[:, None] * np.array(terms)
    alpha, beta, gamma, delta, offset = np.linalg.lstsq(scaled, np.array(roots) * targets, rcond=None)[0]
    for (k, l), weight in zip(task.pairs.tolist(), fitted.weight.detach().numpy(), strict=True):
        u, v = sign[k], sign[l]
        assert np.allclose(weight, alpha + beta * u + gamma * v + delta * u * v, atol=1e-8)
    assert np.allclose(fitted.bias.detach().numpy(), offset, atol=1e-8)


def test_a_weight_of_zero_counts_as_negative_and_inputs_may_come_in_blocks(monkeypatch):
    features, task = SparseFeatures.independent(6, 0.3), PairTask(6, "and")
    layer, signs = ternary(6, 7, 0, 0.6), ternary(6, 7, 0, 0.6)
    signs.weight.data[signs.weight == 0] = -1.0
    assert (layer.weight == 0).any()
    fitted = fitted_class_readoff(layer, task, features, features.enumerate()).weight.detach()
    monkeypatch.setattr("toymodels.readoffs.by_class._BLOCK", 7 * task.n_outputs)
    blocks = fitted_class_readoff(layer, task, features, features.enumerate()).weight.detach()
    assert torch.allclose(blocks, fitted, atol=1e-9)
    # Each neuron is read by one of at most four values for each pair: those of the signs of its two weights.
    for i, (k, l) in enumerate(task.pairs.tolist()):
        classes = {tuple(w) for w in signs.weight[:, [k, l]].tolist()}
        assert len({round(weight, 9) for weight in fitted[i].tolist()}) == len(classes)


def test_on_a_wide_rademacher_layer_it_is_the_sign_readoff():
    """Its error is at most that of the unbiased readoff by class in the case-balanced mean square, which it minimises."""
    features, task = SparseFeatures.exactly(12, 2), PairTask(12, "and")
    inputs, layer = features.enumerate(), rademacher(12, 400, 0)
    found = evaluate(Network(layer, fitted_class_readoff(layer, task, features, inputs)), task, inputs)
    other = evaluate(Network(layer, class_readoff(layer, task, 2, RADEMACHER)), task, inputs)
    assert sum(case.rms**2 for case in found.cases.values()) < sum(case.rms**2 for case in other.cases.values())


def test_it_refuses_what_it_cannot_read():
    features = SparseFeatures.at_most(6, 2)
    with pytest.raises(InputError, match="FirstLayer"):
        fitted_class_readoff(IdentityLayer(6), PairTask(6, "and"), features, features.enumerate())
