import math

import pytest
import torch

from toymodels.core.features import SparseFeatures, dense
from toymodels.core.layers import ACTIVATIONS, FirstLayer, IdentityLayer, make_layer
from toymodels.errors import InputError
from toymodels.layers.random import gaussian, kaiming


def test_a_layer_is_activation_of_an_affine_map():
    layer = FirstLayer(torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([0.5, -1.0]), "quadratic")
    assert layer(torch.tensor([[1.0, 1.0]])).tolist() == [[0.25, 6.25]]


def test_gaussian_has_its_scale_and_bias():
    layer = gaussian(200, 300, seed=1, scale=3.0, bias=-0.5)
    n = 200 * 300
    assert abs(float(layer.weight.detach().mean())) < 4 * 3 / math.sqrt(n)
    assert abs(float(layer.weight.detach().var()) - 9) < 4 * 9 * math.sqrt(2 / n)
    assert torch.equal(layer.bias, torch.full((300,), -0.5))


def test_kaiming_is_torch_linear_default():
    layer, reference = kaiming(50, 4000, seed=1), torch.nn.Linear(50, 4000)
    for mine, theirs in ((layer.weight, reference.weight), (layer.bias, reference.bias)):
        bound = 1 / math.sqrt(50)
        assert float(mine.detach().abs().max()) <= bound
        # Variance of the uniform law ±bound is bound²/3; its sample variance has a relative error of √(0.8/n).
        tolerance = 4 * bound**2 / 3 * math.sqrt(0.8 * 2 / mine.numel())
        assert abs(float(mine.detach().var()) - float(theirs.detach().var())) < tolerance


def test_same_seed_same_layer():
    assert torch.equal(gaussian(5, 6, 7).weight, gaussian(5, 6, 7).weight)
    assert not torch.equal(gaussian(5, 6, 7).weight, gaussian(5, 6, 8).weight)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_makes_a_layer(name):
    assert make_layer("gaussian", 4, 3, 0, name)(torch.ones(2, 4)).shape == (2, 3)


def test_identity_passes_inputs_on():
    x = torch.rand(3, 4)
    layer = make_layer("identity", 4, 9, 0)
    assert isinstance(layer, IdentityLayer)
    assert layer.width == 4
    assert torch.equal(layer(x), x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: gaussian(4, 0, 0), "at least 1"),
        (lambda: gaussian(4, 2, 0, scale=0.0), "positive"),
        (lambda: make_layer("nope", 4, 2, 0), "unknown first layer"),
        (lambda: make_layer("gaussian", 4, 2, 0, "nope"), "unknown activation"),
    ],
)
def test_wrong_layers_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_activations_from_active_features_are_those_of_the_product(activation):
    indices = SparseFeatures.at_most(9, 3).enumerate().indices
    layer = gaussian(9, 5, 0, activation, bias=0.3).double()
    direct, few = layer(dense(indices, 9, torch.float64)), layer.from_active(indices)
    assert torch.allclose(few, direct, rtol=1e-12, atol=1e-13)
    slope = torch.randn(direct.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for one, other in zip(
        *(torch.autograd.grad((a * slope).sum(), list(layer.parameters())) for a in (direct, few)), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-13)


def test_columns_win_for_few_of_many_features():
    assert gaussian(100, 5, 0).columns_win(3)
    assert not gaussian(100, 5, 0).columns_win(12)
