import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from toymodels.core.evaluation import evaluate
from toymodels.core.features import SparseFeatures
from toymodels.core.minimax import minimax
from toymodels.core.network import Network
from toymodels.core.readoffs import fit_readoff
from toymodels.core.seeds import seeded
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.layers.random import gaussian
from toymodels.readoffs.random_labels import RandomLabels


def test_random_labels_are_as_sparse_as_the_gate_and_independent_of_it():
    task, inputs = PairTask(12, "and"), SparseFeatures.at_most(12, 3).enumerate()
    labels = RandomLabels(task, inputs, 0)
    x = inputs.dense()
    found, want = labels.targets(x), task.targets(x)
    size = x.sum(1)
    for k in range(4):
        assert torch.equal(found[size == k].sum(0), want[size == k].sum(0))  # as many ones among inputs of every size
    # Of C(12, 3) = 220 inputs of size 3, 10 are ones of each pair: overlaps are hypergeometric, of mean 10·10/220.
    overlap = (found * want)[size == 3].sum(0).numpy()
    distribution = stats.hypergeom(220, 10, 10)
    assert abs(overlap.mean() - distribution.mean()) < 3 * distribution.std() / np.sqrt(len(overlap))
    # Any order of the inputs, and any slice of outputs, gives the same labels.
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert torch.equal(labels.targets(x[order], slice(3, 9)), found[order, 3:9])
    assert torch.equal(RandomLabels(task, inputs, 0).targets(x), found)
    assert not torch.equal(RandomLabels(task, inputs, 1).targets(x), found)


def test_a_minimax_readoff_of_random_labels_is_one_of_the_stored_labels():
    task, inputs = PairTask(10, "and", [(0, 1), (2, 3)]), SparseFeatures.at_most(10, 2).enumerate()
    layer, labels = gaussian(10, 20, 0), RandomLabels(task, inputs, 0)
    fitted = minimax(layer, labels, inputs)
    found = evaluate(Network(layer, fitted.readoff), labels, inputs)
    assert fitted.proved
    assert found.worst_error == pytest.approx(max(c.worst_error for c in fitted.certificates), abs=1e-9)


def test_random_labels_of_other_inputs_are_refused():
    task, features = PairTask(8, "and"), SparseFeatures.at_most(8, 2)
    with pytest.raises(InputError, match="all inputs"):
        RandomLabels(task, features.sampled(10, 0), 0)
    labels = RandomLabels(task, features.enumerate(), 0)
    with pytest.raises(InputError, match="no random label"):
        labels.targets(torch.ones(1, 8))


def test_keys_that_give_two_inputs_one_code_are_drawn_again(monkeypatch):
    task, inputs, real, draws = PairTask(8, "and"), SparseFeatures.at_most(8, 2).enumerate(), torch.randint, []

    def equal_at_first(*arguments, **more):
        draws.append(real(*arguments, **more))
        return torch.ones_like(draws[-1]) if len(draws) < 3 else draws[-1]

    monkeypatch.setattr(torch, "randint", equal_at_first)
    labels, x = RandomLabels(task, inputs, 0), inputs.dense()
    assert len(draws) == 3
    assert torch.equal(labels.targets(x).sum(0), task.targets(x).sum(0))


def test_the_same_input_twice_is_refused():
    features = SparseFeatures.at_most(6, 2).enumerate()
    twice = torch.cat([features.indices, features.indices[:1]])
    inputs = dataclasses.replace(
        features, indices=twice, probabilities=torch.full((len(twice),), 1 / len(twice)).double()
    )
    with pytest.raises(InputError, match="the same"):
        RandomLabels(PairTask(6, "and"), inputs, 0)


def test_inputs_of_another_value_have_the_labels_of_their_features():
    task = PairTask(8, "and")
    boolean, inputs = (SparseFeatures.at_most(8, 3, values).enumerate() for values in ("one", "constant(value=0.5)"))
    labels = RandomLabels(task, inputs, 0)
    assert torch.equal(labels.targets(inputs.dense()), RandomLabels(task, boolean, 0).targets(boolean.dense()))


def test_the_row_is_measured_against_its_labels():
    task, inputs = PairTask(10, "and", [(0, 1), (2, 3)]), SparseFeatures.at_most(10, 3).enumerate()
    layer = gaussian(10, 20, 0)
    fitted, again, other = (fit_readoff("random_labels", layer, task, inputs, seed=seed) for seed in (0, 0, 1))
    assert fitted.facts["proved"]
    found = evaluate(Network(layer, fitted.readoff), fitted.task, inputs)
    assert torch.allclose(found.output_worst, fitted.output_worst, atol=1e-9)
    assert torch.equal(fitted.readoff.weight, again.readoff.weight)
    assert not torch.equal(fitted.readoff.weight, other.readoff.weight)


def test_real_targets_have_no_labels():
    class Sine(Task):
        m, n_outputs, name = 4, 4, "sine"

        def cases(self, x, outputs=slice(None)):
            return (x != 0).long()[:, outputs]

        def targets(self, x, outputs=slice(None)):
            return x.sin()[:, outputs]

    with pytest.raises(InputError, match="zeros and ones"):
        RandomLabels(Sine(), SparseFeatures.at_most(4, 2).enumerate(), 0)


def test_labels_follow_from_the_seed_alone():
    """Keys first, then the orders of 64 outputs at a time, size by size: a record's errors can be measured again."""
    task, every = PairTask(12, "and"), SparseFeatures.at_most(12, 3).enumerate()
    labels = RandomLabels(task, every, 5).targets(every.dense())
    generator = seeded(5)
    torch.randint(2**44, (12,), generator=generator)
    x, expected = every.dense(), torch.zeros(len(every), 66)
    for outputs in (slice(0, 64), slice(64, 66)):
        for size in range(4):
            group = x.sum(1) == size
            target = task.targets(x[group])[:, outputs]
            order = torch.rand(target.shape, generator=generator).argsort(0)
            expected[group, outputs] = target.gather(0, order).float()
    assert torch.equal(labels.float(), expected)
