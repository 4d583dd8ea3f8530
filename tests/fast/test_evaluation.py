"""The fast form of the evaluation against the plain one, and against its own path for tasks and readoffs of one's own."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from tests.core.networks import INPUTS, LISTED, AnyReadoff, AnyTask, network
from toymodels import plain
from toymodels.core.evaluation import evaluate
from toymodels.core.features import SparseFeatures
from toymodels.core.network import Network
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.fast import evaluation as module
from toymodels.theory.gates import Gate

pytestmark = pytest.mark.usefixtures("wing")  # these tests are about the faster forms

real = module._BlockEvaluator.part


def numbers(value):
    """Every number of a result, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [number for part in value for number in numbers(part)]
    return [] if isinstance(value, str) else [float(value)]


# Sums of up to 130 inputs × 36 outputs: each addition errs by half a unit of the last place at most, and so in the
# end by less than 4,680 of them relative to the sum of sizes; products of 5 and 9 terms by as many.
ROUNDING = {torch.float64: 4680 * 2.0**-53, torch.float32: 4680 * 2.0**-24}


@pytest.mark.parametrize("gate", ["".join(bits) for bits in itertools.product("01", repeat=4)])
@pytest.mark.parametrize(
    ("name", "pairs"),
    [("at most", LISTED), ("up to 4", None), ("sampled", LISTED), ("weighted, ends alike", None)],
    ids=["at most", "up to 4", "sampled", "weighted"],
)
def test_pairs_of_linear_readoffs_any_task_and_the_plain_form_agree(gate, name, pairs, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 100)
    monkeypatch.setattr(module, "_COLUMNS", 25)
    monkeypatch.setattr(module, "_HELD", 400)
    task = PairTask(9, Gate.parse(gate), pairs)
    net = network(outputs=task.n_outputs)
    general = Network(net.layer, AnyReadoff(net.readoff))
    for dtype in (torch.float64, torch.float32) if pairs is None else (torch.float64,):
        fast = evaluate(net, task, INPUTS[name], dtype).to_dict()
        slow = evaluate(general, AnyTask(task), INPUTS[name], dtype).to_dict()
        with plain():
            simple = evaluate(net, task, INPUTS[name], dtype).to_dict()
        # Quantiles and shares are steps: within float32's rounding of a step they may differ, so only sizes are compared.
        if dtype == torch.float32:
            kept = ("worst_error", "rms", "output_worst", "n_inputs")
            fast, slow, simple = ({name: result[name] for name in kept} for result in (fast, slow, simple))
        for other in (slow, simple):
            np.testing.assert_allclose(numbers(fast), numbers(other), rtol=ROUNDING[dtype], atol=ROUNDING[dtype])


@pytest.mark.parametrize("name", INPUTS)
def test_the_number_of_threads_changes_no_figure(name, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 13)
    net, task = network(), PairTask(9, "xor")
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(evaluate(net, task, INPUTS[name]).to_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    assert results[0] == results[1] == results[2]


def test_only_layers_readoffs_and_tasks_of_this_package_are_called_on_several_threads():
    """Modules and tasks of one's own are called from the caller's thread alone, as `evaluate` promises."""
    net, task, inputs = network(), PairTask(9, "and"), INPUTS["at most"]
    own_layer = Network(torch.nn.Linear(9, 5), net.readoff)
    alone = [(Network(net.layer, AnyReadoff(net.readoff)), task), (net, AnyTask(task)), (own_layer, task)]
    try:
        torch.set_num_threads(2)
        threads = [module._BlockEvaluator(*pair, inputs, torch.float64, ()).threads for pair in [(net, task), *alone]]
    finally:
        torch.set_num_threads(1)
    assert threads == [2, 1, 1, 1]


def test_rare_cases_are_added_whenever_enough_are_held(monkeypatch):
    """Blocks of outputs that begin above 0, and several of them before the cases are added."""
    net, task, inputs = network(), PairTask(9, "and"), INPUTS["weighted, ends alike"]
    whole = numbers(evaluate(net, task, inputs).to_dict())
    for columns, held in ((7, 10**6), (7, 1), (7, 300)):
        monkeypatch.setattr(module, "_COLUMNS", columns)
        monkeypatch.setattr(module, "_HELD", held)
        np.testing.assert_allclose(numbers(evaluate(net, task, inputs).to_dict()), whole, rtol=ROUNDING[torch.float64])


def test_rare_cases_are_added_if_the_last_outputs_have_none(monkeypatch):
    monkeypatch.setattr(module, "_COLUMNS", 7)
    inputs = dataclasses.replace(SparseFeatures.exactly(4, 2).enumerate(), m=9)  # features 4 to 8 are never active
    net, task = network(), PairTask(9, "and")
    fast = numbers(evaluate(net, task, inputs).to_dict())
    with plain():
        np.testing.assert_allclose(fast, numbers(evaluate(net, task, inputs).to_dict()), rtol=ROUNDING[torch.float64])


def test_threads_pass_on_what_is_wrong():
    bad = network()
    bad.readoff.weight.data[0, 0] = float("nan")
    try:
        torch.set_num_threads(2)
        with pytest.raises(InputError, match="not a finite number"):
            evaluate(bad, PairTask(9, "and"), INPUTS["at most"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_the_wing_measures_gates_of_boolean_inputs_and_the_switch_turns_it_off(monkeypatch):
    calls, task = [], PairTask(9, "and")
    monkeypatch.setattr(module._BlockEvaluator, "part", lambda self, blocks: calls.append(1) or real(self, blocks))
    evaluate(network(), task, INPUTS["at most"])
    assert len(calls) == 1
    with plain():
        evaluate(network(), task, INPUTS["at most"])
    evaluate(network(), task, SparseFeatures.at_most(9, 3, "uniform").sampled(20, 0))
    assert len(calls) == 1


def test_blocks_are_cut_where_probabilities_change_rarely():
    """A count with one weight for all is the fast one; the inputs of a size share their probability."""
    for name in ("at most", "exactly", "up to 4", "sampled"):
        p = INPUTS[name].probabilities
        for rows in module._row_blocks(INPUTS[name]):
            assert bool((p[rows] == p[rows][0]).all())
    for name in INPUTS:
        blocks = module._row_blocks(INPUTS[name])
        assert [i for rows in blocks for i in range(rows.start, rows.stop)] == list(range(len(INPUTS[name])))
