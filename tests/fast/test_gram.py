import pytest
import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.layers import IdentityLayer
from toymodels.core.losses import LpLoss
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask
from toymodels.fast.gradients import pair_gradients
from toymodels.fast.pair_lp import Rows


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
