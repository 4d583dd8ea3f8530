"""Least squares with shared work against the plain form, output by output."""

import itertools

import pytest
import torch

from tests.core.networks import every_weight_different
from toymodels import plain
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import FirstLayer
from toymodels.core.least_squares import extended, solve_all, solve_weighted
from toymodels.core.tasks import PairTask, Task
from toymodels.fast import least_squares as module
from toymodels.fast.least_squares import pair_solve_weighted, shared_solve_all
from toymodels.layers.random import gaussian

pytestmark = pytest.mark.usefixtures("wing")  # these tests are about the faster forms

GATES = ["".join(digits) for digits in itertools.product("01", repeat=4)]
PAIRS = [(0, 3), (3, 0), (2, 5), (0, 3), (4, 1)]
INPUTS = {
    "at most": SparseFeatures.at_most(7, 3).enumerate(),
    "sampled": SparseFeatures.independent(7, 0.3).sampled(80, 0),
    "weighted": every_weight_different(SparseFeatures.at_most(7, 3), ends_alike=True),
}
WEIGHTS = (0.5, 1.0, 2.0, 7.0)


class Products(Task):
    """x_i x_(i + 1): real targets."""

    name = "products"

    def __init__(self, m):
        self.m, self.n_outputs = m, m - 1

    def cases(self, x, outputs=slice(None)):
        return (self.targets(x, outputs) != 0).long()

    def targets(self, x, outputs=slice(None)):
        return (x[:, :-1] * x[:, 1:])[:, outputs]


# Independent activations: the normal equations lose the square of the condition number, here some 1e4 of 1e-16.
CLOSE = {"rtol": 1e-8, "atol": 1e-9}


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["all", "listed"])
@pytest.mark.parametrize("inputs", INPUTS.values(), ids=INPUTS)
def test_pairs(gate, pairs, inputs, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 20)
    monkeypatch.setattr(module, "_COLUMNS", 2)
    layer, task = gaussian(7, 9, 0).double().requires_grad_(False), PairTask(7, gate, pairs)
    torch.testing.assert_close(shared_solve_all(layer, task, inputs), solve_all.plain(layer, task, inputs), **CLOSE)
    torch.testing.assert_close(
        pair_solve_weighted(layer, task, inputs, WEIGHTS), solve_weighted.plain(layer, task, inputs, WEIGHTS), **CLOSE
    )


@pytest.mark.parametrize("values", ["one", "uniform", "symmetric"])
def test_any_task_and_features_with_values(values, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 20)
    layer, task = gaussian(7, 9, 0, bias=-0.2).double().requires_grad_(False), Products(7)
    inputs = SparseFeatures.at_most(7, 3, values).sampled(100, 0)
    torch.testing.assert_close(shared_solve_all(layer, task, inputs), solve_all.plain(layer, task, inputs), **CLOSE)


def test_dependent_activations_give_the_same_outputs():
    """Weights of dependent neurons are a choice, their outputs are not."""
    clean = gaussian(7, 6, 0)
    weight = torch.cat([clean.weight, 3 * clean.weight[:2], torch.zeros(1, 7)]).detach()
    layer = FirstLayer(weight, torch.zeros(9)).double().requires_grad_(False)
    task, inputs = PairTask(7, "xor"), INPUTS["at most"]
    _, a = extended(layer, inputs)
    pairs = [
        (shared_solve_all(layer, task, inputs), solve_all.plain(layer, task, inputs)),
        (pair_solve_weighted(layer, task, inputs, WEIGHTS), solve_weighted.plain(layer, task, inputs, WEIGHTS)),
    ]
    for fast, slow in pairs:
        assert torch.allclose(a @ fast.T, a @ slow.T, atol=1e-6)


def test_shared_moments_are_for_pairs_of_boolean_features(monkeypatch):
    monkeypatch.setattr(module, "_PairMoments", lambda *_: pytest.fail("pairs were solved from shared moments"))
    layer, task, valued = (
        gaussian(7, 9, 0).double().requires_grad_(False),
        PairTask(7, "xor"),
        SparseFeatures.at_most(7, 3, "uniform"),
    )
    solve_weighted(layer, task, valued.sampled(40, 0), WEIGHTS)
    solve_weighted(layer, Products(7), INPUTS["at most"], (1.0, 5.0))
    with plain():
        solve_weighted(layer, task, INPUTS["at most"], WEIGHTS)
    with pytest.raises(pytest.fail.Exception):
        solve_weighted(layer, task, INPUTS["at most"], WEIGHTS)


def test_nearly_dependent_activations_have_weights_of_their_own_size():
    """Two activations that differ by rounding share their weight; to invert the difference would give weights of 10¹²."""
    second = torch.tensor([[1.0, 1 - 1e-13], [1 - 1e-13, 1.0]], dtype=torch.float64)
    quarter = torch.full((2, 2), 0.25, dtype=torch.float64)
    assert torch.allclose(module._inverse(second), quarter, rtol=1e-9)
    assert torch.allclose(module._solve(second, torch.tensor([1.0, 0.0]).double()), quarter[0], rtol=1e-9)


def test_pairs_share_moments_for_inputs_without_values_alone(monkeypatch):
    made, real = [], module._PairMoments
    monkeypatch.setattr(module, "_PairMoments", lambda *given: made.append(1) or real(*given))
    layer, task, weights = gaussian(6, 4, 0).double().requires_grad_(False), PairTask(6, "and"), (1.0, 2.0, 3.0, 4.0)
    solve_weighted(layer, task, SparseFeatures.at_most(6, 2).enumerate(), weights)
    assert len(made) == 1
    solve_weighted(layer, task, SparseFeatures.independent(6, 0.4, "uniform").sampled(60, 0), weights)
    assert len(made) == 1


@pytest.mark.parametrize("gate", ["0001", "0110", "1011"])
@pytest.mark.parametrize("weights", [WEIGHTS, (0.0, 1.0, 2.0, 7.0)], ids=["all", "not 00"])
def test_fewer_inputs_than_unknowns(gate, weights):
    """Every input of positive weight is fitted; of all weights that do, those of least norm once activations are scaled."""
    layer, task = gaussian(7, 40, 0).double().requires_grad_(False), PairTask(7, gate)
    few = SparseFeatures.exactly(7, 2).enumerate()
    found = pair_solve_weighted(layer, task, few, weights)
    torch.testing.assert_close(found, solve_weighted.plain(layer, task, few, weights), **CLOSE)
    x, a = extended(layer, few)
    errors = (a @ found.T - task.targets(x)) * (task.by_case(x, weights) > 0)
    assert float(errors.abs().max()) < 1e-10


@pytest.mark.parametrize("difference", [0.0, 1e-7])
def test_inputs_that_activations_hardly_tell_apart_are_not_fitted_exactly(difference):
    """Features 0 and 1 have nearly the same weights: the AND of 0 and 2 would need coefficients of 1/difference."""
    layer, task = gaussian(7, 40, 0).double().requires_grad_(False), PairTask(7, "and")
    layer.weight[:, 1] = layer.weight[:, 0] * (1 + difference)
    few = SparseFeatures.exactly(7, 2).enumerate()
    found = pair_solve_weighted(layer, task, few, WEIGHTS)
    assert float(found.abs().max()) < 100
    _, a = extended(layer, few)
    torch.testing.assert_close(a @ found.T, a @ solve_weighted.plain(layer, task, few, WEIGHTS).T, **CLOSE)


def test_the_exact_fit_is_used_where_inputs_are_few(monkeypatch):
    def unused(*arguments):
        raise AssertionError("factors of the size of the unknowns are not needed")

    monkeypatch.setattr(module, "_solve", unused)
    layer, task = gaussian(7, 40, 0).double().requires_grad_(False), PairTask(7, "and")
    pair_solve_weighted(layer, task, SparseFeatures.exactly(7, 2).enumerate(), WEIGHTS)
    with pytest.raises(AssertionError, match="not needed"):
        pair_solve_weighted(layer, task, SparseFeatures.at_most(7, 3).enumerate(), WEIGHTS)
