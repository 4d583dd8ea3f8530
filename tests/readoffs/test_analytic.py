import math

import numpy as np
import pytest
import torch
from scipy import stats

from toymodels.core.evaluation import evaluate
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import LAYERS, IdentityLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import READOFFS, Combination
from toymodels.core.tasks import PairTask, make_task
from toymodels.errors import InputError
from toymodels.layers.random import gaussian, kaiming
from toymodels.readoffs.analytic import analytic
from toymodels.theory.gates import CASES, Gate
from toymodels.theory.quadrants import and_scale, error_std, readoff_coefficients

# One test of each of the 24 (gate, s, case) means and 24 variances below, over independent layers. "Within 3 standard
# errors" for each of 48 figures would fail by chance once in 8 runs of new seeds; with this quantile of Student's t the
# whole file fails by chance once in 1,000. The seeds are fixed, so it either fails or it does not.
SEEDS, WIDTH = 300, 1024
LIMIT = float(stats.t.ppf(1 - 1e-3 / 48 / 2, SEEDS - 1))


def errors(gate: str, s: int, scale: float = 1.0, bend: float = 1.0) -> np.ndarray:
    """Errors, (seeds, 4 cases), of the analytic readoff on one input and pair per case, each on a fresh layer.

    By exchangeability every pair and input of a case has the same law, so one of each is enough; `bend` multiplies
    the readoff (a planted fault).
    """
    m = s + 2
    task = PairTask(m, gate, [(0, 1)])
    x = torch.zeros(4, m)
    for row, (k, l) in zip(x, CASES, strict=True):
        row[0], row[1] = k, l
        row[2 : 2 + s - k - l] = 1
    found = []
    for seed in range(SEEDS):
        layer = gaussian(m, WIDTH, seed, scale=scale).double()
        read = analytic(layer, task, s)(layer(x.double()))[:, 0].detach() * bend
        found.append((read - torch.tensor(task.truth)).numpy())
    return np.array(found)


def z_scores(sample: np.ndarray, gate: str, s: int) -> tuple[np.ndarray, np.ndarray]:
    """Deviations, in standard errors, of the mean from 0 and of the mean square × d from σ², in each case."""
    mean = sample.mean(0) / (sample.std(0, ddof=1) / math.sqrt(SEEDS))
    square = sample**2 * WIDTH
    variance = error_std(Gate.parse(gate), s) ** 2
    return mean, (square.mean(0) - variance) / (square.std(0, ddof=1) / math.sqrt(SEEDS))


@pytest.mark.parametrize("gate", ["and", "xor"])
@pytest.mark.parametrize("s", [2, 3, 8])
def test_unbiased_in_every_case_with_the_predicted_error(gate, s):
    mean, square = z_scores(errors(gate, s), gate, s)
    assert np.abs(mean).max() < LIMIT
    assert np.abs(square).max() < LIMIT


def test_a_wrong_constant_would_be_caught():
    """Planted fault: the constant of s = 3 used at s = 2, and the closed form of another s."""
    mean, _ = z_scores(errors("and", 2, bend=and_scale(3) / and_scale(2)), "and", 2)
    assert abs(mean[3]) > LIMIT
    _, square = z_scores(errors("and", 3), "and", 2)
    assert np.abs(square).max() > LIMIT


def test_and_readoff_is_the_product_of_signs():
    layer = gaussian(5, 40, 0)
    readoff = analytic(layer, PairTask(5, "and"), 3)
    signs = torch.sign(layer.weight.detach().double())
    expected = torch.stack(
        [and_scale(3) * signs[:, k] * signs[:, l] / 40 for k, l in PairTask(5, "and").pairs.tolist()]
    )
    assert torch.allclose(readoff.weight, expected, atol=1e-12)


@pytest.mark.parametrize("gate", ["first_and_not_second", "second", "xor", "first_implies_second"])
def test_each_neuron_is_read_by_the_quadrant_of_its_two_weights(gate):
    """η in the order (−, −), (−, +), (+, −), (+, +) of the weights on the first and the second feature."""
    layer, task = gaussian(5, 40, 0, scale=2.0), PairTask(5, gate, [(0, 1), (3, 1), (1, 3)])
    readoff, eta = analytic(layer, task, 3).requires_grad_(False), readoff_coefficients(task.gate, 3)
    for i, (k, l) in enumerate(task.pairs.tolist()):
        for neuron, weight in enumerate(layer.weight.detach()):
            quadrant = 2 * int(weight[k] > 0) + int(weight[l] > 0)
            assert float(readoff.weight[i, neuron]) == pytest.approx(eta[quadrant] / (40 * 2), abs=1e-12)
    assert not readoff.bias.any()


def test_scale_of_the_weights_cancels():
    features, task = SparseFeatures.exactly(6, 2), PairTask(6, "xor")
    worst = []
    for scale in (1.0, 7.5):
        layer = gaussian(6, 64, 0, scale=scale)
        worst.append(evaluate(Network(layer, analytic(layer, task, 2)), task, features.enumerate()).worst_error)
    assert worst[0] == pytest.approx(worst[1], rel=1e-6)


def test_layers_it_does_not_hold_for_are_refused():
    task = PairTask(5, "and")
    for layer in (kaiming(5, 8, 0), gaussian(5, 8, 0, "tanh"), IdentityLayer(5)):
        with pytest.raises(InputError, match="Gaussian ReLU layer only"):
            analytic(layer, task, 2)
    with pytest.raises(InputError, match="zero bias"):
        analytic(gaussian(5, 8, 0, bias=-1.0), task, 2)


def test_a_note_says_when_it_is_left_out_and_when_biased():
    def note(inputs, *forms, embedded=False):
        return READOFFS["analytic"].note(
            3, inputs, [Combination(LAYERS["gaussian"], PairTask(6, "and"), frozenset(forms), embedded)]
        )

    assert note("exactly", "quadrants") == ""
    assert "made for exactly 3 active features" in note("at_most", "quadrants")
    assert "left out: it holds only for a Gaussian ReLU layer without bias" in note("exactly")
    assert "left out" in note("exactly", "quadrants", embedded=True)


def test_weights_of_float64_and_tasks_of_another_kind():
    readoff = analytic(gaussian(6, 4, 0), PairTask(6, "and"), 2)
    assert readoff.weight.dtype == readoff.bias.dtype == torch.float64
    with pytest.raises(InputError, match="the analytic readoff"):
        analytic(gaussian(6, 4, 0), make_task("relu", 6), 2)
