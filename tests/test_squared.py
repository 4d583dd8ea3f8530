import pytest
import torch

from toymodels.features import SparseFeatures
from toymodels.gradients import pair_gradients
from toymodels.layers import IdentityLayer
from toymodels.losses import LpLoss
from toymodels.network import Network
from toymodels.pair_loss import Rows
from toymodels.readoffs.linear import LinearReadoff
from toymodels.tasks import PairTask


def test_inputs_with_nothing_on():
    task, inputs = PairTask(6, "xor"), SparseFeatures(6, (1.0,), "none").sampled(3, seed=0)
    network = Network(IdentityLayer(6), LinearReadoff(torch.ones(15, 6).double(), torch.full((15,), 2.0).double()))
    loss = LpLoss(2.0, root=False)
    sums = pair_gradients(network, loss, task, list(Rows.of(inputs, torch.float64)), (1.0,) * 4)
    assert loss.value(sums) == pytest.approx(4.0)
    assert sums.largest == 2.0


def test_a_loss_of_zero_has_no_gradient_and_no_root_of_a_negative_number():
    task, inputs = PairTask(3, "second"), SparseFeatures.at_most(3, 2).enumerate()
    weight = torch.nn.functional.one_hot(task.pairs[:, 1], 3).float()
    network = Network(IdentityLayer(3), LinearReadoff(weight, torch.zeros(3)))
    loss = LpLoss(2.0)
    sums = pair_gradients(network, loss, task, list(Rows.of(inputs, torch.float32)), (1.0,) * 4)
    assert 0 <= loss.value(sums) < 1e-3
    assert torch.isfinite(network.readoff.weight.grad).all()
