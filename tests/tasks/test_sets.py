import copy
import itertools
import math

import jaxtyping
import numpy as np
import pytest
import torch

from toymodels.core.evaluation import evaluate
from toymodels.core.features import SparseFeatures
from toymodels.core.least_squares import balanced, least_squares
from toymodels.core.minimax import minimax
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, make_task, task_name
from toymodels.core.training import Trainer, TrainingSettings
from toymodels.errors import InputError
from toymodels.layers.random import gaussian
from toymodels.runs.loop import train
from toymodels.tasks.sets import OUTPUT_LIMIT, SymmetricTask, conjunction, members

SETS = [(0, 3, 5), (4, 1, 2), (0, 3, 5)]
RAGGED = [(0, 3, 5), (1,), (4, 2), (5, 4)]


@pytest.mark.parametrize("truth", list(itertools.product((0, 1), repeat=4)))
@pytest.mark.parametrize("sets", [None, SETS])
def test_targets_are_the_truth_table_of_the_number_active(truth, sets):
    task = SymmetricTask(6, truth, sets)
    listed = list(itertools.combinations(range(6), 3)) if sets is None else sets
    assert members(task) == [list(row) for row in listed]
    x = SparseFeatures.at_most(6, 4).enumerate().dense()
    targets = task.targets(x)
    for i, row in enumerate(listed):
        assert targets[:, i].tolist() == [truth[int(sum(line[list(row)]))] for line in x]
    assert torch.equal(task.targets(x, slice(1, 3)), targets[:, 1:3])


def test_conjunctions_of_several_sizes():
    task = conjunction(6, sets=RAGGED)
    assert (task.k, task.sizes.tolist(), task.is_conjunction) == (3, [3, 1, 2, 2], True)
    x = SparseFeatures.at_most(6, 6).enumerate().dense()
    for i, row in enumerate(RAGGED):
        on = [math.prod(int(line[f]) for f in row) for line in x]
        assert task.targets(x)[:, i].tolist() == on
        assert task.cases(x)[:, i].tolist() == [3 - len(row) + int(sum(line[list(row)])) for line in x]
    part = task.subset(torch.tensor([0, 2]))
    assert members(part) == [[0, 3, 5], [4, 2]]


def test_fan_in_two_is_the_gate_on_pairs():
    x = SparseFeatures.at_most(7, 3).enumerate().dense()
    for truth, gate in (((0, 0, 1), "and"), ((0, 1, 0), "xor"), ((1, 0, 0), "nor")):
        assert torch.equal(SymmetricTask(7, truth).targets(x), PairTask(7, gate).targets(x))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("and_of(k=3)", lambda on, k: on == k),
        ("or_of(k=4)", lambda on, k: on > 0),
        ("xor_of(k=3)", lambda on, k: on % 2 == 1),
        ("majority_of(k=4)", lambda on, k: on > k / 2),
        ("symmetric(truth=01011)", lambda on, k: on in (1, 3, 4)),
        ("symmetric(truth=1000)", lambda on, k: on == 0),
        ("symmetric(truth=0000)", lambda on, k: False),
    ],
)
def test_gates_of_k_inputs_by_name(name, value):
    task = make_task(name, 6)
    x = SparseFeatures.at_most(6, 6).enumerate().dense()
    targets = task.targets(x)
    for i, row in enumerate(itertools.combinations(range(6), task.k)):
        assert targets[:, i].tolist() == [value(int(sum(line[list(row)])), task.k) for line in x]
    again = make_task(task.name, 6, stored=task.subset(torch.tensor([3, 0])).stored())
    assert torch.equal(again.targets(x), targets[:, [3, 0]])
    assert task_name(again.name) == task_name(task.name) == task_name(name)


@pytest.mark.parametrize("values", ["uniform", "symmetric", "constant(value=2)"])
def test_features_with_values_count_as_active_whatever_their_value(values):
    boolean, inputs = (SparseFeatures.at_most(6, 4, v).sampled(200, 0) for v in ("one", values))
    for task in (conjunction(6, 3, RAGGED), SymmetricTask(6, (0, 1, 0, 1))):
        assert torch.equal(task.cases(inputs.dense()), task.cases(boolean.dense()))
        assert torch.equal(task.targets(inputs.dense()), task.targets(boolean.dense()))


@pytest.mark.parametrize("s", [2, 3, 4])
def test_case_probabilities_are_hypergeometric(s):
    found = conjunction(8, 3).case_probabilities(SparseFeatures.exactly(8, s))
    expected = [math.comb(3, j) * math.comb(5, s - j) / math.comb(8, s) if j <= s else 0.0 for j in range(4)]
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("task", [conjunction(6, 3), conjunction(6, sets=RAGGED), SymmetricTask(6, (0, 1, 0, 1))])
def test_every_readoff_and_the_evaluation_take_the_task(task):
    features = SparseFeatures.at_most(6, 3)
    inputs = features.enumerate()  # 42 inputs: a layer of 60 neurons fits any function of them exactly
    layer = gaussian(6, 60, 0)
    x = inputs.dense(dtype=torch.float64)
    for readoff in (
        least_squares(layer, task, inputs),
        balanced(layer, task, features, inputs),
        minimax(layer, task, inputs).readoff,
    ):
        measured = evaluate(Network(layer, readoff), task, inputs)
        error = (readoff(copy.deepcopy(layer).double()(x)) - task.targets(x)).detach()
        assert measured.worst_error == pytest.approx(float(error.abs().max()), abs=1e-9)
        # Exact but for the rounding of normal equations, √(machine epsilon) at worst.
        assert measured.worst_error < 1e-8


def test_the_narrow_layer_has_the_minimax_error_below_that_of_least_squares():
    task, features = conjunction(6, 3), SparseFeatures.at_most(6, 3)
    inputs, layer = features.enumerate(), gaussian(6, 12, 0)
    best = minimax(layer, task, inputs)
    worst = evaluate(Network(layer, best.readoff), task, inputs)
    other = evaluate(Network(layer, least_squares(layer, task, inputs)), task, inputs)
    bounds = [certificate.lower_bound for certificate in best.certificates]
    assert best.proved
    assert worst.output_worst.tolist() == pytest.approx(bounds, abs=1e-6)
    assert worst.worst_error < other.worst_error


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
@pytest.mark.parametrize("sets", [None, RAGGED])
def test_training_takes_the_task(optimiser, sets):
    task, features = conjunction(6, 3, sets), SparseFeatures.at_most(6, 3)
    settings = TrainingSettings(optimiser=optimiser, steps=40, p=(2.0, 4.0), batch="all", lr=0.01)
    network = Network(gaussian(6, 20, 0), LinearReadoff.constant(task.n_outputs, 20))
    before = evaluate(network, task, features.enumerate()).worst_error
    train(Trainer(network, task, features, settings, 0))
    assert before == 1  # the constant 0
    assert evaluate(network, task, features.enumerate()).worst_error < 0.9


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: SymmetricTask(1, (0, 1)), "at least 2"),
        (lambda: SymmetricTask(5, (0,)), "truth table"),
        (lambda: SymmetricTask(5, (0, 2)), "truth table"),
        (lambda: conjunction(5, 6), "as many"),
        (lambda: conjunction(5, 0), "at least 1"),
        (lambda: conjunction(5), "fan-in"),
        (lambda: conjunction(5, sets=[]), "fan-in"),
        (lambda: conjunction(5, 2, []), "empty"),
        (lambda: conjunction(5, sets=[(0, 5)]), "out of range"),
        (lambda: conjunction(5, sets=[(-1, 2)]), "out of range"),
        (lambda: conjunction(5, sets=[(2, 2)]), "each once"),
        (lambda: conjunction(5, sets=[(1, 2), ()]), "from 1"),
        (lambda: conjunction(5, 2, [(0, 1, 2)]), "from 1 to k = 2"),
        (lambda: conjunction(5, 3, [(0, 1)]), "no listed set"),
        (lambda: conjunction(200, 4), f"limit of {OUTPUT_LIMIT:,}"),
    ],
)
def test_wrong_sets_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: conjunction(8, 2.5), "k = 2.5"),
        (lambda: conjunction(8.5, 2), "m = 8.5"),
        (lambda: conjunction(8, sets=[0, 1]), "list of sets"),
        (lambda: conjunction(8, sets=7), "list of sets"),
        (lambda: conjunction(8, sets=["ab"]), "list of sets"),
        (lambda: conjunction(8, sets=[[0.5, 1]]), "whole numbers"),
        (lambda: conjunction(8, 2, [[0.5, 1]]), "whole numbers"),
        (lambda: conjunction(8, sets=torch.tensor([[0.0, 1.0]])), "whole numbers"),
        (lambda: SymmetricTask(8, (0, 0, 1), [[0, float("nan")]]), "whole numbers"),
    ],
)
def test_sets_and_sizes_that_are_not_whole_are_refused(call, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in use, where types are not checked
    with pytest.raises(InputError, match=words):
        call()


def test_sets_may_be_of_numpy(monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in use, where types are not checked
    assert members(conjunction(8, sets=np.array([[0, 3], [4, 1]]))) == [[0, 3], [4, 1]]
    assert conjunction(np.int64(8), np.int64(2)).n_outputs == 28
