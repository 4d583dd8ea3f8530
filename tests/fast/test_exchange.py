import dataclasses

import numpy as np
import pytest
import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.layers import FirstLayer, IdentityLayer
from toymodels.core.minimax import minimax
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.fast import exchange as module
from toymodels.fast import minimax as caller
from toymodels.fast.exchange import exchange
from toymodels.fast.interior_point import ChebyshevSolver
from toymodels.layers.random import gaussian
from toymodels.readoffs.random_labels import RandomLabels

FEATURES = SparseFeatures.at_most(14, 3)
INPUTS = FEATURES.enumerate()
PAIRS = [(0, 1), (3, 12), (5, 6)]


class Look:
    """Rows of two arrays, and what was asked for."""

    def __init__(self, activations, targets):
        self.activations, self.targets, self.asked = activations, targets, []

    def __call__(self, rows):
        self.asked.append(rows)
        return self.activations[rows], self.targets[rows]


def arrays(layer, gate="and"):
    x = INPUTS.dense(dtype=torch.float64)
    with torch.no_grad():
        return layer.double()(x).numpy(), PairTask(14, gate, PAIRS).targets(x).double().numpy()


def rademacher():
    layer = gaussian(14, 20, 0)
    return FirstLayer(layer.weight.detach().sign(), layer.bias.detach())


def repeated():
    layer = gaussian(14, 6, 1)
    # Neurons twice, and one that no input, or one only, makes active.
    weight = torch.cat([layer.weight, layer.weight, torch.full((1, 14), -1.0), torch.eye(14)[:1] + torch.eye(14)[1:2]])
    bias = torch.cat([layer.bias, layer.bias, torch.zeros(1), torch.tensor([-1.0])])
    return FirstLayer(weight.detach(), bias.detach())


@pytest.mark.parametrize("gate", ["and", "xor"])
@pytest.mark.parametrize(
    "layer",
    [gaussian(14, 20, 0), rademacher(), repeated(), IdentityLayer(14)],
    ids=["gaussian", "ties", "repeated", "none"],
)
def test_few_inputs_give_the_optimum_of_all_with_a_proof(layer, gate, monkeypatch):
    monkeypatch.setattr(module, "_START", 2)
    monkeypatch.setattr(module, "_JOIN", 1)
    a, f = arrays(layer, gate)
    found = exchange(Look(a, f), len(a), 100)
    whole = [ChebyshevSolver(a).solve(column) for column in f.T]
    for one, other, target in zip(found, whole, f.T, strict=True):
        assert one.proved
        assert one.worst_error == pytest.approx(other.worst_error, abs=1e-6)
        assert one.half_range == other.half_range
        # The proof, and the error, from the arrays alone.
        assert np.abs(a @ one.coefficients + one.offset - target).max() == pytest.approx(one.worst_error, abs=1e-12)
        if one.worst_error < 1e-9:  # a neuron computes it: nothing is left to prove
            continue
        assert np.abs(one.multipliers).sum() == pytest.approx(1, abs=1e-9)
        assert abs(one.multipliers.sum()) < 1e-9
        assert np.abs(one.multipliers @ a[one.rows]).max() < 1e-9 * max(1, np.abs(a).max())
        assert one.multipliers @ target[one.rows] == pytest.approx(one.worst_error, abs=1e-6)


def test_a_target_that_a_neuron_computes_is_fitted_exactly():
    a, f = arrays(repeated())
    found = exchange(Look(a, f), len(a), 100)
    assert found[0].worst_error < 1e-9 < 0.1 < found[1].worst_error
    assert found[0].proved


def test_activations_are_asked_for_in_blocks():
    look = Look(*arrays(gaussian(14, 20, 0)))
    exchange(look, len(INPUTS), 50)
    blocks = [rows for rows in look.asked if isinstance(rows, slice)]
    assert max(rows.stop - rows.start for rows in blocks) == 50
    assert max(len(rows) for rows in look.asked if not isinstance(rows, slice)) < len(INPUTS) / 2


def test_without_new_inputs_the_bounds_stay_apart_and_hold(monkeypatch):
    """A planted fault: the worst inputs never join. The result says that it is not proved."""
    monkeypatch.setattr(module, "_JOIN", 0)
    monkeypatch.setattr(module, "_START", 3)
    a, f = arrays(gaussian(14, 20, 0))
    for one, target in zip(exchange(Look(a, f), len(a), 100), f.T, strict=True):
        optimum = ChebyshevSolver(a).solve(target).worst_error
        assert not one.proved
        assert one.lower_bound < optimum - 1e-3 < optimum + 1e-3 < one.worst_error


def test_rounds_that_run_out_leave_bounds(monkeypatch):
    monkeypatch.setattr(module, "_ROUNDS", 2)
    a, f = arrays(gaussian(14, 20, 0))
    for one, target in zip(exchange(Look(a, f), len(a), 100), f.T, strict=True):
        optimum = ChebyshevSolver(a).solve(target).worst_error
        assert one.lower_bound - 1e-9 <= optimum <= one.worst_error + 1e-9


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_one_input_that_is_not_finite_is_found(value):
    a, f = arrays(gaussian(14, 20, 0))
    first = np.random.default_rng(0).choice(len(a), module._START * 21, replace=False)
    a[np.setdiff1d(np.arange(len(a)), first)[-1], 3] = value
    with pytest.raises(InputError, match="must be finite"):
        exchange(Look(a, f), len(a), 100)


def test_a_lower_bound_above_a_readoffs_error_is_no_proof():
    """Columns that differ by 2e-10: a measure annihilates both only to rounding, and coefficients undo that."""
    rng = np.random.default_rng(2)
    u, v = rng.standard_normal((2, 400))
    found = exchange(Look(np.column_stack([u, u + 2e-10 * v]), (v > 0.3).astype(float)[:, None]), 400, 100)[0]
    assert not (found.proved and found.lower_bound > found.worst_error + 1e-6)


def certificate(worst, lower, orthogonality=0.0, half_range=0.5):
    a, f = arrays(gaussian(14, 20, 0))
    some = ChebyshevSolver(a).solve(f[:, 0].copy())
    return dataclasses.replace(
        some, worst_error=worst, lower_bound=lower, orthogonality=orthogonality, half_range=half_range
    )


@pytest.mark.parametrize("swapped", [False, True])
def test_the_better_readoff_goes_with_the_better_proof(swapped):
    """A bound above the error of a readoff, or of a measure that leaks, proves nothing: it must not hide one that holds."""
    holds = certificate(0.30, 0.20)
    for other, bound in (
        (certificate(0.25, 0.22), 0.22),  # better in both
        (certificate(0.25, 0.15), 0.20),  # its readoff, the first one's proof
        (certificate(0.25, 0.26), 0.20),  # above its own error
        (certificate(0.40, 0.35), 0.20),  # below its own error, above the best
        (certificate(0.25, 0.22, orthogonality=1e-8), 0.20),
    ):
        pair = (other, holds) if swapped else (holds, other)
        best = module._better(*pair)
        assert best.worst_error == min(0.30, other.worst_error)
        assert best.lower_bound == bound
        assert best.half_range == pair[1].half_range


def test_a_round_ends_with_a_proof_and_measures_its_gap_by_all_targets():
    subset = module._Subset(0, np.arange(10))
    error = np.zeros(400)
    error[[2, 7, 300]] = 0.2, -0.2, 0.2 + 1e-8  # an input a little worse than those of the round
    sizes = np.full(10, 0.2)
    proved = certificate(0.2, 0.2, half_range=0.0)  # all targets of the round are alike
    proved = dataclasses.replace(proved, rows=np.array([2, 7]), multipliers=np.array([0.5, -0.5]))
    after = module._next(subset, (proved, sizes), error, 0.5, 20)
    assert after.best.half_range == 0.5
    assert after.best.proved
    assert not len(after.rows)
    unproved = module._next(subset, (dataclasses.replace(proved, lower_bound=0.1), sizes), error, 0.5, 20)
    assert unproved.rows.tolist() == [*range(10), 300]


@pytest.mark.parametrize("processes", [1, 3])
def test_minimax_readoffs_are_the_same_from_few_inputs(monkeypatch, processes):
    layer, task = gaussian(14, 20, 0), PairTask(14, "and").subset(torch.arange(20))
    whole = minimax(layer, task, INPUTS)
    monkeypatch.setattr(caller, "holds_all", lambda *_: False)
    monkeypatch.setattr(caller, "_solved", lambda *_: pytest.fail("all activations were held"))
    few = minimax(layer, task, INPUTS, processes=processes)
    assert few.proved
    assert {value.dtype for value in layer.state_dict().values()} == {torch.float32}
    assert [c.worst_error for c in few.certificates] == pytest.approx(
        [c.worst_error for c in whole.certificates], abs=1e-6
    )
    # More than a group of outputs, and not a whole number of groups.
    assert task.n_outputs % caller._TOGETHER


def test_threads_change_no_bit(monkeypatch):
    monkeypatch.setattr(caller, "holds_all", lambda *_: False)
    layer, task = gaussian(14, 20, 0), PairTask(14, "xor", PAIRS)
    alone, shared = (minimax(layer, task, INPUTS, processes=count) for count in (1, 3))
    assert torch.equal(alone.readoff.weight, shared.readoff.weight)
    assert torch.equal(alone.readoff.bias, shared.readoff.bias)


def test_layers_of_your_own_and_random_labels(monkeypatch):
    monkeypatch.setattr(caller, "holds_all", lambda *_: False)
    layer = torch.nn.Sequential(torch.nn.Linear(14, 9), torch.nn.Tanh())
    labels = RandomLabels(PairTask(14, "and", PAIRS), INPUTS, 0)
    assert minimax(layer, labels, INPUTS, processes=2).proved
    assert all(parameter.requires_grad for parameter in layer.parameters())


@pytest.mark.parametrize(
    ("m", "s", "width", "held"), [(14, 3, 20, True), (64, 3, 64, False), (64, 2, 64, True), (181, 2, 1024, False)]
)
def test_many_activations_and_many_inputs_for_the_neurons_are_not_held(m, s, width, held):
    assert caller.holds_all(SparseFeatures.at_most(m, s).enumerate(), width) is held
