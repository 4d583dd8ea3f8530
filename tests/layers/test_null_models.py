import numpy as np
import pytest
import torch
from scipy import stats

from toymodels.core.layers import LAYERS, FirstLayer, make_layer
from toymodels.errors import InputError
from toymodels.layers.null_models import gaussian_like, shuffled, shuffled_within, spectrum_matched
from toymodels.layers.random import gaussian


def trained_like(m=40, d=60):
    """Weights unlike Gaussian ones: a few singular values stand out, the entries have heavy tails, biases differ."""
    rng = torch.Generator().manual_seed(0)
    weight = gaussian(m, d, 1).weight.detach() + 6 * torch.rand(d, 1, generator=rng) * torch.rand(1, m, generator=rng)
    return FirstLayer(weight**3, torch.rand(d, generator=rng) - 1, origin="trained")


LAYER = trained_like()


NULL = [name for name, member in LAYERS.items() if member.role == "null"]


def test_these_are_the_null_models():
    assert NULL == ["gaussian_like", "spectrum_matched", "shuffled", "shuffled_within"]
    assert all(LAYERS[name].uses_trained for name in NULL)


@pytest.mark.parametrize("name", NULL)
def test_a_null_model_is_another_layer_of_the_same_size_that_a_seed_repeats(name):
    made, again, other = (make_layer(name, 40, 60, seed, trained=LAYER) for seed in (0, 0, 1))
    assert made.weight.shape == LAYER.weight.shape
    assert made.origin == name
    assert not made.weight.requires_grad
    assert torch.equal(made.weight, again.weight)
    assert not torch.equal(made.weight, other.weight)
    change, spread = (made.weight - LAYER.weight).detach(), LAYER.weight.detach().std()
    assert change.abs().mean() > spread / 2
    assert torch.equal(made.bias.sort().values, LAYER.bias.sort().values)


def test_spectrum_matched_keeps_the_singular_values_and_no_direction():
    made = spectrum_matched(LAYER, 0)
    want, have = (torch.linalg.svdvals(layer.weight.double()) for layer in (LAYER, made))
    assert torch.allclose(want, have, rtol=1e-5)  # float32 weights
    # The first right singular vector is uniform on the sphere: its cosine with a fixed direction has variance 1/m.
    fixed = torch.linalg.svd(LAYER.weight.detach().double())[2][0]
    cosines = [
        float(torch.linalg.svd(spectrum_matched(LAYER, seed).weight.double())[2][0] @ fixed) for seed in range(100)
    ]
    squares = np.square(cosines) * len(fixed)
    assert abs(squares.mean() - 1) < 3 * np.sqrt(2 / 100)  # chi-square of one degree of freedom, to 1/m


def test_shuffled_keeps_the_weights_and_shuffled_within_each_neurons():
    mixed, within = shuffled(LAYER, 0), shuffled_within(LAYER, 0)
    assert torch.equal(mixed.weight.flatten().sort().values, LAYER.weight.flatten().sort().values)
    assert torch.equal(within.weight.sort(1).values, LAYER.weight.sort(1).values)
    assert torch.equal(within.bias, LAYER.bias)
    assert not torch.equal(mixed.weight.sort(1).values, LAYER.weight.sort(1).values)


def test_gaussian_like_keeps_mean_and_spread_alone():
    weights = torch.stack([gaussian_like(LAYER, seed).weight for seed in range(20)]).flatten().numpy()
    want = LAYER.weight.detach().numpy()
    # Kolmogorov and Smirnov's test at a false-alarm rate of 1 in 1,000.
    assert stats.kstest(weights, "norm", (want.mean(), want.std(ddof=1))).pvalue > 1e-3
    assert stats.kstest(weights, want.flatten()).pvalue < 1e-6


@pytest.mark.parametrize("make", [gaussian_like, spectrum_matched, shuffled, shuffled_within])
def test_layers_of_ones_own_have_none(make):
    with pytest.raises(InputError, match="trained FirstLayer"):
        make(torch.nn.Linear(4, 3), 0)
