import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from toymodels.core import features as module
from toymodels.core.features import SparseFeatures, dense
from toymodels.errors import InputError

LAWS = [
    SparseFeatures.exactly(7, 3),
    SparseFeatures.at_most(7, 3),
    SparseFeatures.independent(7, 0.3),
    SparseFeatures(7, (0.5, 0.0, 0.25, 0.25), "two or three or none"),
    SparseFeatures.exactly(7, 7),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_enumeration_holds_every_input_once_with_its_probability(law):
    inputs = law.enumerate()
    x = inputs.dense().int().tolist()
    expected = {
        bits: law.counts[sum(bits)] / math.comb(7, sum(bits))
        for bits in itertools.product((0, 1), repeat=7)
        if sum(bits) < len(law.counts) and law.counts[sum(bits)] > 0
    }
    assert len(inputs) == law.n_inputs == len(expected)
    found = dict(zip(map(tuple, x), inputs.probabilities.tolist(), strict=True))
    assert found.keys() == expected.keys()
    assert all(found[bits] == pytest.approx(expected[bits], rel=1e-12) for bits in expected)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
@pytest.mark.parametrize("choose", [module._floyd, module._by_rank])
def test_samples_follow_the_law(law, choose, monkeypatch):
    """Chi-square over all 2^7 inputs, at a false-alarm rate of 1e-4 for each of the ten tests."""
    monkeypatch.setattr(module, "_floyd", choose)
    monkeypatch.setattr(module, "_by_rank", choose)
    n = 200_000
    x = dense(law.sample(n, generator(1)), 7)
    assert set(x.unique().tolist()) <= {0.0, 1.0}
    code = (x.long() * 2 ** torch.arange(7)).sum(1)
    counts = torch.bincount(code, minlength=128).numpy()
    inputs = law.enumerate()
    expected = np.zeros(128)
    expected[(inputs.dense().long() * 2 ** torch.arange(7)).sum(1).numpy()] = inputs.probabilities.numpy() * n
    assert counts[expected == 0].sum() == 0
    likely = expected > 5  # rarer inputs are pooled into one cell, as the chi-square approximation needs
    pooled = np.append(counts[likely], counts[~likely].sum()), np.append(expected[likely], expected[~likely].sum())
    cells = pooled[1] > 0
    if cells.sum() > 1:
        assert stats.chisquare(pooled[0][cells], pooled[1][cells]).pvalue > 1e-4


def test_a_biased_sampler_would_be_caught():
    """Planted fault: drawing a repeated feature anew as 0 instead of taking j is not uniform."""

    def faulty(m, sizes, widest, rng):
        chosen = module._floyd(m, sizes, widest, rng)
        return torch.where((chosen == m - 1) & (torch.rand(chosen.shape, generator=rng) < 0.1), 0, chosen)

    index = faulty(7, torch.ones(200_000, dtype=torch.int64), 1, generator(1))[:, 0]
    assert stats.chisquare(torch.bincount(index, minlength=7).numpy()).pvalue < 1e-4


def test_samples_are_reproducible_and_hold_no_feature_twice():
    law = SparseFeatures.at_most(1000, 5)
    a, b = law.sample(5000, generator(3)), law.sample(5000, generator(3))
    assert torch.equal(a, b)
    assert not torch.equal(a, law.sample(5000, generator(4)))
    for row in a[:500].tolist():
        active = [feature for feature in row if feature < 1000]
        assert len(set(active)) == len(active) <= 5


def test_the_number_active_has_its_mean_and_variance():
    law = SparseFeatures.independent(400, 4.3 / 400)
    sizes = (law.sample(40_000, generator(5)) < 400).sum(1).double()
    p = 4.3 / 400
    variance = 400 * p * (1 - p)
    assert abs(sizes.mean() - 4.3) < 4 * math.sqrt(variance / 40_000)
    fourth = stats.binom.moment(4, 400, p)  # not central; only its order of magnitude enters the standard error
    assert abs(sizes.var() - variance) < 4 * math.sqrt(float(fourth) / 40_000)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_case_probabilities_agree_with_enumeration(law):
    inputs = law.enumerate()
    x = inputs.dense()
    for k, l in [(0, 1), (2, 6)]:
        code = (2 * x[:, k] + x[:, l]).long()
        found = torch.bincount(code, inputs.probabilities, 4).tolist()
        assert found == pytest.approx(law.case_probabilities(), abs=1e-12)


def test_count_of_inputs_is_known_without_enumerating_and_a_large_one_is_refused():
    law = SparseFeatures.exactly(1000, 20)
    assert law.n_inputs == math.comb(1000, 20) > 10**30
    assert SparseFeatures.exactly(60, 20).n_inputs == math.comb(60, 20)
    with pytest.raises(InputError, match="more than the limit"):
        law.enumerate()
    with pytest.raises(InputError, match="make 1,276 inputs, more than the limit of 1,000"):
        SparseFeatures.at_most(50, 2).enumerate(limit=1000)
    assert len(SparseFeatures.at_most(50, 2).enumerate()) == 1276


def test_a_sample_states_itself():
    inputs = SparseFeatures.exactly(9, 2).sampled(100, seed=7)
    assert (len(inputs), inputs.enumerated, inputs.description) == (100, False, "100 sampled (seed 7)")
    assert float(inputs.probabilities.sum()) == pytest.approx(1)
    assert sum(rows.stop - rows.start for rows in inputs.blocks(33)) == 100


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SparseFeatures.exactly(1, 1), "at least 2"),
        (lambda: SparseFeatures.exactly(5, 6), "from 1 to m = 5"),
        (lambda: SparseFeatures.at_most(5, 0), "from 1 to m = 5"),
        (lambda: SparseFeatures.independent(5, 0.0), "strictly between 0 and 1"),
        (lambda: SparseFeatures.independent(5, 1.0), "strictly between 0 and 1"),
        (lambda: SparseFeatures(5, (0.5, 0.4), "bad"), "add up to 1"),
        (lambda: SparseFeatures.exactly(5, 2).sampled(0, 0), "at least 1 input"),
    ],
)
def test_wrong_input_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
