import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from toymodels.core import features as module
from toymodels.core.features import INPUTS, VALUES, Features, Inputs, SparseFeatures, dense, make_features
from toymodels.errors import InputError

DISTRIBUTIONS = [
    SparseFeatures.exactly(7, 3),
    SparseFeatures.at_most(7, 3),
    SparseFeatures.independent(7, 0.3),
    SparseFeatures(7, (0.5, 0.0, 0.25, 0.25), "two or three or none"),
    SparseFeatures.exactly(7, 7),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("features", DISTRIBUTIONS, ids=lambda features: features.name)
def test_enumeration_holds_every_input_once_with_its_probability(features):
    inputs = features.enumerate()
    x = inputs.dense().int().tolist()
    expected = {
        bits: features.counts[sum(bits)] / math.comb(7, sum(bits))
        for bits in itertools.product((0, 1), repeat=7)
        if sum(bits) < len(features.counts) and features.counts[sum(bits)] > 0
    }
    assert len(inputs) == features.n_inputs == len(expected)
    found = dict(zip(map(tuple, x), inputs.probabilities.tolist(), strict=True))
    assert found.keys() == expected.keys()
    assert all(found[bits] == pytest.approx(expected[bits], rel=1e-12) for bits in expected)


@pytest.mark.parametrize("features", DISTRIBUTIONS, ids=lambda features: features.name)
@pytest.mark.parametrize("choose", [module._floyd, module._by_rank])
def test_samples_follow_the_distribution(features, choose, monkeypatch):
    """Chi-square over all 2^7 inputs, at a false-alarm rate of 1e-4 for each of the ten tests."""
    monkeypatch.setattr(module, "_floyd", choose)
    monkeypatch.setattr(module, "_by_rank", choose)
    n = 200_000
    x = features.sample(n, generator(1)).dense()
    assert set(x.unique().tolist()) <= {0.0, 1.0}
    code = (x.long() * 2 ** torch.arange(7)).sum(1)
    counts = torch.bincount(code, minlength=128).numpy()
    inputs = features.enumerate()
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
    features = SparseFeatures.at_most(1000, 5)
    a, b, other = (features.sample(5000, generator(seed)).indices for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)
    for row in a[:500].tolist():
        active = [feature for feature in row if feature < 1000]
        assert len(set(active)) == len(active) <= 5


def test_the_number_active_has_its_mean_and_variance():
    features = SparseFeatures.independent(400, 4.3 / 400)
    sizes = (features.sample(40_000, generator(5)).indices < 400).sum(1).double()
    p = 4.3 / 400
    variance = 400 * p * (1 - p)
    assert abs(sizes.mean() - 4.3) < 4 * math.sqrt(variance / 40_000)
    fourth = stats.binom.moment(4, 400, p)  # not central; only its order of magnitude enters the standard error
    assert abs(sizes.var() - variance) < 4 * math.sqrt(float(fourth) / 40_000)


@pytest.mark.parametrize("features", DISTRIBUTIONS, ids=lambda features: features.name)
def test_case_probabilities_agree_with_enumeration(features):
    inputs = features.enumerate()
    x = inputs.dense()
    for k, l in [(0, 1), (2, 6)]:
        code = (2 * x[:, k] + x[:, l]).long()
        found = torch.bincount(code, inputs.probabilities, 4).tolist()
        assert found == pytest.approx(features.case_probabilities(), abs=1e-12)


def test_count_of_inputs_is_known_without_enumerating_and_a_large_one_is_refused():
    features = SparseFeatures.exactly(1000, 20)
    assert features.n_inputs == math.comb(1000, 20) > 10**30
    assert SparseFeatures.exactly(60, 20).n_inputs == math.comb(60, 20)
    with pytest.raises(InputError, match="more than the limit"):
        features.enumerate()
    with pytest.raises(InputError, match="make 1,276 inputs, more than the limit of 1,000"):
        SparseFeatures.at_most(50, 2).enumerate(limit=1000)
    assert len(SparseFeatures.at_most(50, 2).enumerate()) == 1276


def test_a_sample_states_itself():
    inputs = SparseFeatures.exactly(9, 2).sampled(100, seed=7)
    assert (len(inputs), inputs.enumerated, inputs.description) == (100, False, "100 sampled (seed 7)")
    assert inputs.values is None
    assert float(inputs.probabilities.sum()) == pytest.approx(1)
    assert sum(rows.stop - rows.start for rows in inputs.blocks(33)) == 100


def test_dense_vectors_have_each_value_at_its_feature_and_ignore_the_padding():
    indices = torch.tensor([[2, 0, 4], [4, 4, 4], [4, 1, 3]])
    values = torch.tensor([[0.5, -2.0, 9.0], [9.0, 9.0, 9.0], [9.0, 0.25, 3.0]])
    expected = [[-2.0, 0.0, 0.5, 0.0], [0.0] * 4, [0.0, 0.25, 0.0, 3.0]]
    assert dense(indices, 4, values=values).tolist() == expected
    assert dense(indices, 4).tolist() == [[1.0, 0.0, 1.0, 0.0], [0.0] * 4, [0.0, 1.0, 0.0, 1.0]]
    inputs = Inputs(4, indices, torch.full((3,), 1 / 3, dtype=torch.float64), False, "three", values)
    assert inputs.dense(slice(1, 3), torch.float64).tolist() == expected[1:]
    assert inputs.dense(torch.tensor([2])).tolist() == expected[2:]
    assert inputs.dense(dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize(
    ("values", "distribution"),
    [("uniform", stats.uniform(0, 1)), ("symmetric", stats.uniform(-1, 2))],
)
@pytest.mark.parametrize("choose", [module._floyd, module._by_rank])
def test_values_follow_their_distribution_whichever_features_are_active(values, distribution, choose, monkeypatch):
    """Kolmogorov-Smirnov tests at a false-alarm rate of 1e-4 each, of all values and of those of one feature."""
    monkeypatch.setattr(module, "_floyd", choose)
    monkeypatch.setattr(module, "_by_rank", choose)
    boolean, inputs = (SparseFeatures.at_most(7, 3, v).sample(20_000, generator(2)) for v in ("one", values))
    assert torch.equal(boolean.indices, inputs.indices)  # the same features are active as without values
    x = inputs.dense()
    assert torch.equal(x != 0, boolean.dense() == 1)
    for drawn in (x[x != 0], x[:, 4][x[:, 4] != 0]):
        assert stats.kstest(drawn.numpy(), distribution.cdf).pvalue > 1e-4
    assert stats.kstest((x[x != 0] * 0.97).numpy(), distribution.cdf).pvalue < 1e-4  # a planted fault
    both = x[(x[:, 1] != 0) & (x[:, 5] != 0)]
    correlation = np.corrcoef(both[:, 1], both[:, 5])[0, 1]
    assert abs(correlation) < 4 / math.sqrt(len(both))  # each has a value of its own


@pytest.mark.parametrize("values", ["uniform", "symmetric", "constant(value=-2)"])
def test_a_seed_repeats_features_and_values(values):
    features = SparseFeatures.independent(30, 0.1, values)
    a, b, other = (features.sampled(500, seed) for seed in (3, 3, 4))
    assert torch.equal(a.indices, b.indices)
    assert torch.equal(a.values, b.values)
    assert not torch.equal(a.dense(), other.dense())
    assert a.description == "500 sampled (seed 3)"


def test_inputs_of_one_value_are_enumerated_with_it():
    boolean, inputs = (SparseFeatures.at_most(7, 3, v).enumerate() for v in ("one", "constant(value=-2)"))
    assert inputs.enumerated
    assert torch.equal(inputs.dense(), -2 * boolean.dense())
    assert torch.equal(inputs.probabilities, boolean.probabilities)
    assert SparseFeatures.at_most(7, 3, "constant(0.5)") == SparseFeatures.at_most(7, 3, "constant")


@pytest.mark.parametrize("values", ["uniform", "symmetric"])
def test_inputs_of_real_values_have_no_list(values):
    features = SparseFeatures.at_most(7, 3, values)
    assert features.n_inputs == math.inf
    assert "uniform on" in features.name
    with pytest.raises(InputError, match="no list holds all inputs"):
        features.enumerate()
    assert features.case_probabilities() == SparseFeatures.at_most(7, 3).case_probabilities()


def test_values_of_ones_own_are_drawn_by_name(monkeypatch):
    monkeypatch.setattr(VALUES, "_members", dict(VALUES._members))

    @VALUES("signs", description="of random sign", source="this test")
    def signs(shape, generator):
        return torch.randint(2, shape, generator=generator) * 2.0 - 1

    @VALUES("misfit", source="this test")
    def misfit(shape, generator):
        return torch.ones(shape[0] + 1)

    @VALUES("infinite", source="this test")
    def infinite(shape, generator):
        return torch.full(shape, math.inf)

    x = SparseFeatures.exactly(9, 3, "signs").sampled(400, 0).dense()
    assert sorted(x.unique().tolist()) == [-1.0, 0.0, 1.0]
    assert bool((x.abs().sum(1) == 3).all())
    for wrong in ("misfit", "infinite"):
        with pytest.raises(InputError, match="finite numbers of that shape"):
            SparseFeatures.exactly(9, 3, wrong)


def test_sources_of_inputs_by_name(monkeypatch):
    assert make_features("at_most", 9, 2.0) == SparseFeatures.at_most(9, 2)
    assert make_features("exactly", 9, 2, "uniform") == SparseFeatures.exactly(9, 2, "uniform")
    assert make_features("independent", 9, 1.8) == SparseFeatures.independent(9, 0.2)
    monkeypatch.setattr(INPUTS, "_members", dict(INPUTS._members))

    class Last(Features):
        def __init__(self, m):
            self.m, self.name = m, "the last feature"

        def sample(self, n, generator):
            indices = torch.full((n, 1), self.m - 1)
            return Inputs(self.m, indices, torch.full((n,), 1 / n, dtype=torch.float64), False, f"{n} sampled")

    @INPUTS("last", source="this test")
    def last(m):
        return Last(m)

    features = make_features("last", 5, 1)
    assert features.sampled(3, 0).dense().tolist() == [[0.0] * 4 + [1.0]] * 3
    with pytest.raises(InputError, match="no list of all inputs"):
        features.enumerate()
    with pytest.raises(InputError, match="values of their own"):
        make_features("last", 5, 1, "uniform")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SparseFeatures.exactly(1, 1), "at least 2"),
        (lambda: SparseFeatures.exactly(5, 6), "from 1 to m = 5"),
        (lambda: SparseFeatures.at_most(5, 0), "from 1 to m = 5"),
        (lambda: SparseFeatures.independent(5, 0.0), "strictly between 0 and 1"),
        (lambda: SparseFeatures.independent(5, 1.0), "strictly between 0 and 1"),
        (lambda: SparseFeatures(5, (0.5, 0.4), "bad"), "add up to 1"),
        (lambda: SparseFeatures.exactly(5, 2).sampled(0, 0), "at least 1"),
        (lambda: SparseFeatures.exactly(5, 2, "nope"), "unknown distribution of values"),
        (lambda: SparseFeatures.exactly(5, 2, "uniform(top=2)"), "no knob 'top'"),
        (lambda: SparseFeatures.exactly(5, 2, "constant(value=0)"), "other than 0"),
        (lambda: SparseFeatures.exactly(5, 2, "constant(value=some)"), "must be a finite number"),
        (lambda: make_features("nope", 5, 2), "unknown kind of inputs"),
        (lambda: make_features("exactly", 5, 2.5), "whole number"),
        (lambda: make_features("independent", 5, 5), "strictly between 0 and m = 5"),
    ],
)
def test_wrong_input_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
