import itertools

import pytest
import torch

from toymodels.core.features import SparseFeatures, dense
from toymodels.core.tasks import PairTask
from toymodels.fast.pairs import tables_of

GATES = ["".join(digits) for digits in itertools.product("01", repeat=4)]
PAIRS = [(0, 3), (3, 0), (2, 5), (0, 3), (4, 1)]  # ordered both ways, and one twice


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_both_on_finds_every_output_with_both_features_on(pairs):
    task = PairTask(6, "and", pairs)
    indices = SparseFeatures.at_most(6, 3).enumerate().indices
    shuffled = indices[:, torch.tensor([2, 0, 1])]  # the padding may stand anywhere
    for inputs in (indices, shuffled):
        rows, outputs = tables_of(task).both_on(inputs)
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
        tables_of(task).rows_by_case(x.T.contiguous(), (0.5, 1.0, -2.0, 3.0))(outputs, out)
        assert torch.equal(out, task.by_case(x, (0.5, 1.0, -2.0, 3.0), outputs).T)


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_readers_are_the_outputs_that_read_a_feature(pairs):
    task = PairTask(6, "xor", pairs)
    outputs, first = tables_of(task).readers
    for k in range(6):
        found = [(o, f) for o, f in zip(outputs[k].tolist(), first[k].tolist(), strict=True) if o < task.n_outputs]
        expected = [(o, side == 0) for o, pair in enumerate(task.pairs.tolist()) for side in (0, 1) if pair[side] == k]
        assert sorted(found) == sorted(expected)


def test_tables_are_made_once_for_a_task():
    task, other = PairTask(6, "and"), PairTask(6, "and")
    assert tables_of(task) is tables_of(task)
    assert tables_of(task) is not tables_of(other)
