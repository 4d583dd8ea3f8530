import pytest
import torch

from toymodels.core.features import SparseFeatures, dense
from toymodels.core.layers import FirstLayer
from toymodels.fast.columns import apply_sparse, columns_win, from_active
from toymodels.layers.random import gaussian


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_activations_from_active_features_are_those_of_the_product(activation):
    indices = SparseFeatures.at_most(9, 3).enumerate().indices
    layer = gaussian(9, 5, 0, activation, bias=0.3).double()
    direct, few = layer(dense(indices, 9, torch.float64)), from_active(layer, indices)
    assert torch.allclose(few, direct, rtol=1e-12, atol=1e-13)
    slope = torch.randn(direct.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for one, other in zip(
        *(torch.autograd.grad((a * slope).sum(), list(layer.parameters())) for a in (direct, few)), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-13)


def test_columns_win_for_few_of_many_features():
    assert columns_win(gaussian(100, 5, 0), 3)
    assert not columns_win(gaussian(100, 5, 0), 12)


class Own(FirstLayer):
    """A layer of one's own that is no affine map followed by an activation."""

    def forward(self, x):
        return super().forward(x) + x.sum(1, keepdim=True)


@pytest.mark.parametrize(
    "layer", [gaussian(100, 5, 0), Own(torch.ones(5, 100), torch.zeros(5)), torch.nn.Linear(100, 5)]
)
@pytest.mark.parametrize("features", [SparseFeatures.at_most(100, 1), SparseFeatures(100, (1.0,), "none")])
def test_any_layer_gives_what_it_gives(layer, features):
    inputs = features.enumerate()
    x = inputs.dense()
    torch.testing.assert_close(apply_sparse(layer, x, inputs.indices), layer(x))
