import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from toymodels.core.features import SparseFeatures
from toymodels.core.minimax import minimax
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.layers.iid import (
    bernoulli,
    connection_probability,
    iid,
    rademacher,
    ternary,
    ternary_weights,
)
from toymodels.theory.bernoulli import median_worst_error, probability_grid
from toymodels.theory.distributions import WeightDistribution

SKEW = WeightDistribution((-1.0, 0.0, 2.0), (0.5, 0.3, 0.2), 0.25)
LAYERS = {
    "bernoulli": (lambda seed: bernoulli(200, 500, seed, 0.1), WeightDistribution((0.0, 1.0), (0.9, 0.1), -1.0)),
    "rademacher": (lambda seed: rademacher(200, 500, seed), WeightDistribution((-1.0, 1.0), (0.5, 0.5))),
    "ternary": (lambda seed: ternary(200, 500, seed, 0.3), WeightDistribution((-1.0, 0.0, 1.0), (0.15, 0.7, 0.15))),
    "two_valued": (
        lambda seed: iid(WeightDistribution((1.0, -1.25), (0.3, 0.7), 0.5), 200, 500, seed, name="two_valued"),
        WeightDistribution((1.0, -1.25), (0.3, 0.7), 0.5),
    ),
    "iid": (lambda seed: iid(SKEW, 200, 500, seed), SKEW),
}


@pytest.mark.parametrize("name", LAYERS)
def test_weights_follow_their_distribution_and_their_seed(name):
    draw, distribution = LAYERS[name]
    layer = draw(0)
    assert (layer.origin, layer.activation, layer.width) == (name, "relu", 500)
    assert layer.weight.dtype == layer.bias.dtype == torch.float32
    assert torch.equal(layer.bias, torch.full((500,), distribution.bias))
    weight = layer.weight.detach()
    total = 0
    for value, chance in zip(distribution.values, distribution.probabilities, strict=True):
        count, n = int((weight == value).sum()), weight.numel()
        total += count
        # Every value's count to the 1-in-1,000 quantile over the 12 counts of this test.
        assert abs(count - n * chance) < norm.isf(1e-3 / 24) * math.sqrt(n * chance * (1 - chance))
    assert total == weight.numel()
    assert torch.equal(weight, draw(0).weight)
    assert not torch.equal(weight, draw(1).weight)


def test_neighbours_are_independent():
    """Products of neighbouring weights, along rows and columns, have mean E[w]²."""
    weight = iid(SKEW, 400, 400, 3).weight.detach().double()
    mean, variance = -0.1, 0.5 + 0.8 - 0.01
    centred = weight - mean
    for product in (centred[1:] * centred[:-1], centred[:, 1:] * centred[:, :-1]):
        assert abs(float(product.mean())) < norm.isf(1e-3 / 4) * variance / math.sqrt(product.numel())


def test_probability_one_is_a_full_layer():
    assert torch.equal(bernoulli(5, 7, 0, 1).weight, torch.ones(7, 5))
    assert set(ternary(5, 200, 0, 1.0).weight.unique().tolist()) == {-1.0, 1.0}
    assert ternary_weights(1.0).probabilities == (0.5, 0.5)


def test_a_bernoulli_neuron_fires_on_two_of_its_features():
    layer = bernoulli(6, 50, 0, 0.5)
    x = torch.tensor([[1.0, 1, 0, 1, 0, 0]])
    assert torch.equal(layer(x)[0], (layer.weight[:, [0, 1, 3]].sum(1) - 1).clamp(min=0))
    assert rademacher(6, 50, 0, "tanh", bias=-1).bias.eq(-1).all()


@pytest.mark.parametrize("size", [(100, 300, 2), (60, 100, 3)])
def test_the_shorter_search_finds_the_best_probability(size):
    least = min(median_worst_error(*size, p) for p in probability_grid(*size[:2]))
    found = connection_probability("best", *size)
    # The same grid: either the same p, or one of the ripples within a per cent of it.
    assert median_worst_error(*size, found) <= 1.01 * least
    assert connection_probability("best", size[0], size[1], 1) == connection_probability("best", size[0], size[1], 2)


def test_probabilities_by_name_and_by_number():
    assert connection_probability(0.3, 10, 20, 2) == 0.3
    assert connection_probability(1, 10, 20, 2) == 1
    assert connection_probability("asymptotic", 100, 10_000, 2) == pytest.approx(np.log(100) ** 2 / 100)
    with pytest.raises(InputError, match=r"needs d > ln⁴\(m\), here 2,277 neurons"):
        connection_probability("asymptotic", 1000, 2276, 2)
    assert connection_probability("asymptotic", 1000, 2277, 2) < 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: bernoulli(5, 8, 0, 0.0),
        lambda: bernoulli(5, 8, 0, 1.5),
        lambda: bernoulli(5, 8, 0, math.nan),
        lambda: ternary(5, 8, 0, -0.1),
        lambda: rademacher(5, 0, 0),
        lambda: rademacher(0, 5, 0),
        lambda: rademacher(5, 8, 0, "cosine"),
        lambda: connection_probability("most", 10, 20, 2),
        lambda: connection_probability(0.0, 10, 20, 2),
        lambda: connection_probability("best", 10, 1, 2),
        lambda: connection_probability("best", 10, 20, 2, "magic"),
        lambda: connection_probability("best", 3, 20, 4),
    ],
)
def test_wrong_inputs_are_refused(call):
    with pytest.raises(InputError):
        call()


def test_no_width_brings_a_rademacher_layer_below_a_sixth_on_at_most_three_active():
    inputs, task = SparseFeatures.at_most(7, 3).enumerate(), PairTask(7, "and", [(0, 1), (2, 5)])
    x = inputs.dense()
    for bias, free in ((0.0, False), (-0.5, True)):
        layer = rademacher(7, 500, 0, bias=bias)  # more neurons than the 64 inputs
        a = dict(zip(map(tuple, inputs.indices.tolist()), layer(x).detach(), strict=True))
        off = 7
        combined = (a[0, 1, off] + a[0, 4, off] + a[1, 4, off] - a[off, off, off]) / 2
        assert torch.allclose(a[0, 1, 4], combined, atol=1e-6) != free
        errors = [certificate.worst_error for certificate in minimax(layer, task, inputs).certificates]
        assert (max(errors) < 1e-6) if free else (min(errors) >= 1 / 6 - 1e-6)


def test_layers_of_one_seed_are_one_draw():
    """As iid.py says: rows of a Rademacher and a Bernoulli(1/2) layer of a seed are no two confirmations."""
    assert torch.equal(rademacher(9, 40, 3).weight, 2 * bernoulli(9, 40, 3, 0.5).weight - 1)
    assert not torch.equal(rademacher(9, 40, 3).weight, rademacher(9, 40, 4).weight)
