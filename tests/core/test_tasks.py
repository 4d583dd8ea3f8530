import itertools

import pytest
import torch

from toymodels.core.features import SparseFeatures, dense
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.theory.gates import Gate

GATES = ["".join(digits) for digits in itertools.product("01", repeat=4)]
PAIRS = [(0, 3), (3, 0), (2, 5), (0, 3), (4, 1)]  # ordered both ways, and one twice


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_targets_are_the_truth_table(gate, pairs):
    task = PairTask(6, gate, pairs)
    x = SparseFeatures.at_most(6, 3).enumerate().dense()
    targets = task.targets(x)
    truth = Gate.parse(gate).truth
    for i, (k, l) in enumerate(task.pairs.tolist()):
        expected = [truth[2 * int(row[k]) + int(row[l])] for row in x]
        assert targets[:, i].tolist() == expected
    assert torch.equal(task.targets(x, slice(1, 4)), targets[:, 1:4])
    assert torch.equal(Task.by_case(task, x, task.truth), targets)


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_both_on_finds_every_output_with_both_features_on(pairs):
    task = PairTask(6, "and", pairs)
    indices = SparseFeatures.at_most(6, 3).enumerate().indices
    shuffled = indices[:, torch.tensor([2, 0, 1])]  # the padding may stand anywhere
    for inputs in (indices, shuffled):
        rows, outputs = task.both_on(inputs)
        found = torch.zeros(len(inputs), task.n_outputs)
        found.index_put_((rows, outputs), torch.ones(len(rows)), accumulate=True)
        assert torch.equal(found, task.targets(dense(indices, 6)))
        assert bool((rows.diff() >= 0).all())


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_rows_of_values_are_columns_transposed(gate, pairs):
    task = PairTask(6, gate, pairs)
    x = dense(SparseFeatures.at_most(6, 3).enumerate().indices, 6)
    for outputs in (slice(0, task.n_outputs), slice(1, 4), slice(3, 5)):
        out = torch.full((outputs.stop - outputs.start, len(x)), 7.0)
        task.rows_by_case(x.T.contiguous(), (0.5, 1.0, -2.0, 3.0))(outputs, out)
        assert torch.equal(out, task.by_case(x, (0.5, 1.0, -2.0, 3.0), outputs).T)


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_readers_are_the_outputs_that_read_a_feature(pairs):
    task = PairTask(6, "xor", pairs)
    outputs, first = task.readers
    for k in range(6):
        found = [(o, f) for o, f in zip(outputs[k].tolist(), first[k].tolist(), strict=True) if o < task.n_outputs]
        expected = [(o, side == 0) for o, pair in enumerate(task.pairs.tolist()) for side in (0, 1) if pair[side] == k]
        assert sorted(found) == sorted(expected)


def test_all_pairs_in_order():
    assert PairTask(4, "and").pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert PairTask(4, "and").subset(torch.tensor([1, 5])).pairs.tolist() == [[0, 2], [2, 3]]


def test_case_probabilities_exact_and_counted_agree():
    task = PairTask(8, "xor")
    law = SparseFeatures.at_most(8, 3)
    assert Task.case_probabilities(task, law) == pytest.approx(task.case_probabilities(law), abs=1e-12)


@pytest.mark.parametrize(
    ("m", "pairs", "words"),
    [
        (1, None, "at least 2"),
        (5, [(0, 5)], "out of range"),
        (5, [(-1, 2)], "out of range"),
        (5, [(2, 2)], "k = l"),
        (5, [], "empty"),
    ],
)
def test_wrong_pairs_are_refused(m, pairs, words):
    with pytest.raises(InputError, match=words):
        PairTask(m, "and", pairs)
