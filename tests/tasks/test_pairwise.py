import pytest
import torch

from toymodels.core.features import SparseFeatures
from toymodels.core.tasks import PairTask, make_task
from toymodels.errors import InputError

FUNCTIONS = {
    "product": lambda a, b: a * b,
    "minimum": min,
    "maximum": max,
    "distance": lambda a, b: abs(a - b),
}
PAIRS = [(0, 3), (3, 0), (2, 5), (0, 3)]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("pairs", [None, PAIRS], ids=["all", "listed"])
@pytest.mark.parametrize("values", ["uniform", "symmetric"])
def test_targets_and_cases_are_those_of_each_pair(name, pairs, values):
    task = make_task(name, 6, pairs)
    x = SparseFeatures.independent(6, 0.4, values).sampled(60, 0).dense(dtype=torch.float64)
    targets, cases = task.targets(x), task.cases(x)
    for i, (k, l) in enumerate(task.pairs.tolist()):
        for row, target, case in zip(x.tolist(), targets[:, i].tolist(), cases[:, i].tolist(), strict=True):
            assert target == FUNCTIONS[name](row[k], row[l])
            assert case == 2 * (row[k] != 0) + (row[l] != 0)
    assert torch.equal(task.targets(x, slice(1, 3)), targets[:, 1:3])


@pytest.mark.parametrize(
    ("name", "gate"), [("product", "and"), ("minimum", "and"), ("maximum", "or"), ("distance", "xor")]
)
def test_on_boolean_features_it_is_a_gate(name, gate):
    x = SparseFeatures.at_most(6, 3).enumerate().dense()
    assert torch.equal(make_task(name, 6).targets(x), PairTask(6, gate).targets(x))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inactive_are_the_cases_whose_target_is_always_zero(name):
    task, features = make_task(name, 6), SparseFeatures.independent(6, 0.4, "symmetric")
    x = features.sampled(500, 0).dense()
    targets, cases = task.targets(x), task.cases(x)
    zero = {case for case in range(4) if bool((targets[cases == case] == 0).all())}
    assert set(task.groups["inactive"]) == zero
    assert sorted(task.groups["inactive"] + task.groups["active"]) == [0, 1, 2, 3]
    assert task.case_probabilities(features) == features.case_probabilities()


def test_some_pairs_are_a_subset_and_come_back_from_a_record():
    task = make_task("product", 6, PAIRS)
    part = task.subset(torch.tensor([2, 0]))
    assert part.pairs.tolist() == [[2, 5], [0, 3]]
    again = make_task("product", 6, stored=part.stored())
    assert again.pairs.tolist() == part.pairs.tolist()
    with pytest.raises(InputError, match="out of range"):
        make_task("product", 6, [(0, 6)])
