import itertools

import pytest
import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.tasks import TASKS, PairTask, Subset, Task, make_task, task_name
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


def test_all_pairs_in_order():
    assert PairTask(4, "and").pairs.tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert PairTask(4, "and").subset(torch.tensor([1, 5])).pairs.tolist() == [[0, 2], [2, 3]]


@pytest.mark.parametrize("pairs", [None, PAIRS])
def test_case_probabilities_exact_and_counted_agree(pairs):
    task = PairTask(8, "xor", pairs)
    for features in (SparseFeatures.at_most(8, 3), SparseFeatures.independent(8, 0.1)):
        assert Task.case_probabilities(task, features) == pytest.approx(task.case_probabilities(features), abs=1e-12)


@pytest.mark.parametrize("gate", ["and", "xor", "first_and_not_second"])
@pytest.mark.parametrize("values", ["uniform", "symmetric", "constant(value=-3)"])
def test_cases_and_targets_of_features_with_values_are_those_of_their_activity(gate, values):
    task = PairTask(6, gate, PAIRS)
    boolean, inputs = (SparseFeatures.at_most(6, 3, v).sampled(200, 0) for v in ("one", values))
    x, active = inputs.dense(), boolean.dense()
    assert not torch.equal(x, active)
    assert torch.equal(task.cases(x), task.cases(active))
    assert torch.equal(task.targets(x), task.targets(active))
    assert torch.equal(task.by_case(x, (0.5, 1.0, -2.0, 3.0)), task.by_case(active, (0.5, 1.0, -2.0, 3.0)))


class Sine(Task):
    """sin(x_i) + x_i x_(i + 1): real targets, and two cases of its own."""

    name = "sine"

    def __init__(self, m):
        self.m, self.n_outputs = m, m - 1

    def cases(self, x, outputs=slice(None)):
        return (x[:, :-1] != 0).long()[:, outputs]

    def targets(self, x, outputs=slice(None)):
        return (x[:, :-1].sin() + x[:, :-1] * x[:, 1:])[:, outputs]


def test_a_task_with_real_targets_has_groups_by_activity():
    task, features = Sine(6), SparseFeatures.independent(6, 0.2, "symmetric")
    assert task.case_labels == ("inactive", "active")
    assert task.groups == {"inactive": (0,), "active": (1,)}
    assert PairTask(6, "xor").groups == {"zeros": (0, 3), "ones": (1, 2)}
    # Counted on 20,000 samples × 5 outputs, each active with probability 0.2.
    assert task.case_probabilities(features)[1] == pytest.approx(0.2, abs=4 * (0.16 / 20_000) ** 0.5)
    x = features.sampled(50, 0).dense()
    assert torch.equal(task.by_case(x, (2.0, 7.0)), torch.where(x[:, :-1] != 0, 7.0, 2.0))


def test_neither_truth_nor_targets_is_said():
    class Bare(Task):
        m, n_outputs, name = 3, 1, "bare"

        def cases(self, x, outputs=slice(None)):
            return torch.zeros(len(x), 1, dtype=torch.int64)

    with pytest.raises(NotImplementedError, match="neither truth nor targets"):
        Bare().targets(torch.zeros(2, 3))


@pytest.mark.parametrize("task", [Sine(6), PairTask(6, "xor", PAIRS)], ids=["sine", "xor"])
def test_a_subset_is_some_outputs_of_the_whole(task):
    chosen = torch.tensor([4, 0, 2])
    x = SparseFeatures.at_most(6, 3, "uniform").sampled(40, 0).dense()
    for part in (Subset(task, chosen), task.subset(chosen)):
        assert (part.m, part.n_outputs, part.name) == (task.m, 3, task.name)
        assert (part.case_labels, part.groups, part.truth) == (task.case_labels, task.groups, task.truth)
        assert torch.equal(part.cases(x), task.cases(x)[:, chosen])
        assert torch.equal(part.targets(x), task.targets(x)[:, chosen])
        assert torch.equal(part.targets(x, slice(1, 3)), part.targets(x)[:, 1:3])
        assert torch.equal(part.subset(torch.tensor([2])).targets(x), task.targets(x)[:, 2:3])
    with pytest.raises(InputError, match=r"no output|empty"):
        task.subset(chosen[:0])


def test_a_sample_of_outputs_is_drawn_from_its_seed():
    task = PairTask(9, "and")
    picked = [task.sample(7, seed).pairs.tolist() for seed in (0, 0, 1)]
    assert picked[0] == picked[1] != picked[2]
    assert picked[0] == sorted(picked[0])
    assert task.sample(36, 0) is task


def test_tasks_by_name():
    for gate in ("and", "0001", "U-AND", "And"):
        assert task_name(gate) == "and"
        assert make_task(gate, 5).name == "and"
    made = make_task("xor", 6, [(3, 0)])
    again = make_task(made.name, 6, stored=made.stored())
    assert again.pairs.tolist() == made.pairs.tolist() == [[3, 0]]
    for wrong in ("nope", "and(k=3)"):
        with pytest.raises(InputError, match=r"unknown task|no knob"):
            task_name(wrong)


def test_a_task_of_ones_own_is_found_by_name_and_made_again_from_its_record(monkeypatch):
    monkeypatch.setattr(TASKS, "_members", dict(TASKS._members))

    class Rows(Sine):
        def __init__(self, m, shift, rows):
            super().__init__(m)
            self.name, self.shift, self.rows = f"rows(shift={shift})", shift, rows

        def targets(self, x, outputs=slice(None)):
            return super().targets(x, outputs) + self.shift + self.rows[outputs]

        def stored(self):
            return {"rows": self.rows}

    @TASKS("rows", source="this test")
    def rows(m, seed, rows, *, shift=0.0):
        drawn = torch.rand(m - 1, generator=torch.Generator().manual_seed(seed)) if rows is None else rows
        return Rows(m, shift, drawn)

    assert task_name("rows(2)") == "rows(shift=2)"
    task = make_task("rows(shift=2)", 5, seed=3)
    again = make_task(task.name, 5, seed=8, stored=task.stored())
    part = task.subset(torch.tensor([3, 1]))
    part_again = make_task(part.name, 5, stored=part.stored())
    x = torch.rand(4, 5)
    assert torch.equal(task.targets(x), again.targets(x))
    assert torch.equal(part.targets(x), part_again.targets(x))
    assert not torch.equal(task.targets(x), make_task("rows(shift=2)", 5, seed=4).targets(x))
    with pytest.raises(InputError, match="leave pairs out"):
        make_task("rows", 5, [(0, 1)])


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
