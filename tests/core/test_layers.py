import math

import pytest
import torch

from toymodels.core.layers import ACTIVATIONS, LAYERS, FirstLayer, IdentityLayer, layer_width, make_layer
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
        # Variance of the uniform distribution on ±bound is bound²/3; its sample variance has a relative error of √(0.8/n).
        tolerance = 4 * bound**2 / 3 * math.sqrt(0.8 * 2 / mine.numel())
        assert abs(float(mine.detach().var()) - float(theirs.detach().var())) < tolerance


def test_same_seed_same_layer():
    assert torch.equal(gaussian(5, 6, 7).weight, gaussian(5, 6, 7).weight)
    assert not torch.equal(gaussian(5, 6, 7).weight, gaussian(5, 6, 8).weight)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_every_activation_makes_a_layer(name):
    assert make_layer("gaussian", 4, 3, 0, name)(torch.ones(2, 4)).shape == (2, 3)


def test_knobs_of_a_name_are_those_of_the_function():
    layer = make_layer("gaussian(scale=3, bias=-0.5)", 5, 6, 7, "tanh")
    same = gaussian(5, 6, 7, "tanh", scale=3, bias=-0.5)
    assert torch.equal(layer.weight, same.weight)
    assert torch.equal(layer.bias, same.bias)
    assert (layer.activation, layer.origin, layer.scale) == ("tanh", "gaussian", 3)


def test_a_layer_of_ones_own_is_made_by_name_and_remembers_it(monkeypatch):
    monkeypatch.setattr(LAYERS, "_members", dict(LAYERS._members))

    @LAYERS("sparse", source="this test")
    def sparse(m, d, seed, *, density=0.1):
        generator = torch.Generator().manual_seed(seed)
        linear = torch.nn.Linear(m, d)
        linear.weight.data = (torch.rand(d, m, generator=generator) < density).float()
        return linear

    layer = make_layer("sparse(density=1)", 5, 6, 0)
    assert bool((layer.weight == 1).all())
    assert layer.origin == "sparse(density=1)"
    assert layer_width(layer, 5) == 6
    assert (LAYERS["sparse"].role, LAYERS["sparse"].order, LAYERS["sparse"].own_activation) == ("random", 10, True)


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
        (lambda: make_layer("gaussian(scale=-1)", 4, 2, 0), "scale"),
        (lambda: make_layer("gaussian(nope=1)", 4, 2, 0), "no knob 'nope'"),
        (lambda: make_layer("gaussian(scale=big)", 4, 2, 0), "must be a finite number"),
        (lambda: make_layer("nope", 4, 2, 0), "unknown first layer"),
        (lambda: make_layer("gaussian", 4, 2, 0, "nope"), "unknown activation"),
    ],
)
def test_wrong_layers_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
