import numpy as np
import pytest
import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.layers import FirstLayer, IdentityLayer
from toymodels.core.least_squares import balanced, least_squares
from toymodels.core.losses import case_weights
from toymodels.core.tasks import PairTask, Task, make_task
from toymodels.layers.random import gaussian

DISTRIBUTIONS = [SparseFeatures.at_most(9, 3), SparseFeatures.independent(9, 0.25)]


def naive(layer, task, features, inputs, weights):
    """Each output by NumPy's own least squares on rows scaled by the root of their weight."""
    x = inputs.dense(dtype=torch.float64)
    a = layer.double()(x).detach().numpy()
    layer.float()
    a = np.column_stack([a, np.ones(len(a))])
    share, targets = task.by_case(x, weights).numpy(), task.targets(x).numpy()
    rows = []
    for i in range(task.n_outputs):
        root = np.sqrt(share[:, i] * inputs.probabilities.numpy())
        rows.append(np.linalg.lstsq(a * root[:, None], targets[:, i] * root, rcond=None)[0])
    return np.array(rows)


def found(readoff):
    return torch.cat([readoff.weight, readoff.bias[:, None]], 1).detach().numpy()


@pytest.mark.parametrize("features", DISTRIBUTIONS, ids=lambda features: features.name)
@pytest.mark.parametrize("gate", ["and", "xor", "nand"])
def test_unweighted_is_least_squares(form, features, gate):
    layer, task, inputs = gaussian(9, 12, 0), PairTask(9, gate), features.enumerate()
    expected = naive(layer, task, features, inputs, (1.0, 1.0, 1.0, 1.0))
    assert np.allclose(found(least_squares(layer, task, inputs)), expected, atol=1e-8)


@pytest.mark.parametrize("features", DISTRIBUTIONS, ids=lambda features: features.name)
@pytest.mark.parametrize("weight", ["case", "value", 20.0])
@pytest.mark.parametrize("gate", ["and", "xor"])
def test_balanced_is_weighted_least_squares(form, features, weight, gate):
    layer, task, inputs = gaussian(9, 12, 0), PairTask(9, gate), features.enumerate()
    expected = naive(layer, task, features, inputs, case_weights(weight, task.truth, task.case_probabilities(features)))
    assert np.allclose(found(balanced(layer, task, features, inputs, weight=weight)), expected, atol=1e-7)


class Three(Task):
    """AND of three features in a row: a task that is not on pairs."""

    truth, name = (0, 1), "and3"

    def __init__(self, m):
        self.m, self.n_outputs = m, m - 2

    def cases(self, x, outputs=slice(None)):
        return (x[:, :-2] * x[:, 1:-1] * x[:, 2:])[:, outputs].long()


@pytest.mark.parametrize("features", DISTRIBUTIONS, ids=lambda features: features.name)
def test_balanced_for_any_task(form, features):
    layer, task = gaussian(9, 12, 0), Three(9)
    inputs = features.enumerate()
    expected = naive(layer, task, features, inputs, case_weights("case", task.truth, task.case_probabilities(features)))
    assert np.allclose(found(balanced(layer, task, features, inputs)), expected, atol=1e-7)


@pytest.mark.parametrize("values", ["uniform", "symmetric", "constant(value=2)"])
@pytest.mark.parametrize(
    "task", [PairTask(9, "xor"), make_task("maximum", 9), make_task("abs", 9)], ids=lambda t: t.name
)
def test_samples_of_features_with_values(form, task, values):
    features = SparseFeatures.at_most(9, 3, values)
    layer, inputs = gaussian(9, 12, 0, bias=0.2), features.sampled(300, 0)
    shares = task.case_probabilities(features)
    for weights, fit in (
        ((1.0,) * len(shares), lambda: least_squares(layer, task, inputs)),
        (case_weights("case", task.truth, shares), lambda: balanced(layer, task, features, inputs)),
    ):
        assert np.allclose(found(fit()), naive(layer, task, features, inputs, weights), atol=1e-7)


@pytest.mark.parametrize("fit", [least_squares, lambda a, t, i: balanced(a, t, DISTRIBUTIONS[0], i)])
def test_dead_repeated_and_badly_scaled_neurons_do_no_harm(form, fit):
    """The same span of activations gives the same outputs, however the neurons are scaled, repeated or dead."""
    clean = gaussian(9, 12, 0)
    w = clean.weight.detach().double()
    scale = torch.logspace(-6, 6, 12, dtype=torch.float64)[:, None]
    spoilt = torch.cat([w * scale, w[:3], torch.zeros(1, 9), -torch.ones(1, 9)])
    task, inputs = PairTask(9, "and"), DISTRIBUTIONS[0].enumerate()
    x = inputs.dense(dtype=torch.float64)
    outputs = []
    for layer in (clean.double(), FirstLayer(spoilt, torch.zeros(17, dtype=torch.float64))):
        outputs.append(fit(layer, task, inputs)(layer(x)).detach())
    assert torch.allclose(outputs[0], outputs[1], atol=1e-5)


def test_plain_least_squares_almost_ignores_a_rare_and(form):
    """Theory, section 5: unweighted, U-AND is sent to zero; balanced, its ones are seen."""
    features, task = SparseFeatures.at_most(30, 2), PairTask(30, "and")
    layer, inputs = gaussian(30, 20, 0), features.enumerate()
    x = inputs.dense(dtype=torch.float64)
    on = task.targets(x) == 1
    a = layer.double()(x)
    plain, fair = least_squares(layer, task, inputs)(a)[on], balanced(layer, task, features, inputs)(a)[on]
    assert float(plain.detach().mean()) < 0.2 < 0.5 < float(fair.detach().mean())


def test_affine_least_squares_of_the_identity_layer(form):
    features, task = SparseFeatures.exactly(6, 2), PairTask(6, "or")
    readoff = least_squares(IdentityLayer(6), task, features.enumerate())
    assert np.isfinite(found(readoff)).all()


@pytest.mark.parametrize("fit", [least_squares, lambda a, t, i: balanced(a, t, DISTRIBUTIONS[0], i)])
def test_the_layer_itself_stays_as_it_is(form, fit):
    layer = gaussian(9, 12, 0)
    assert found(fit(layer, PairTask(9, "and"), DISTRIBUTIONS[0].enumerate())).dtype == np.float64
    assert layer.weight.dtype == torch.float32
