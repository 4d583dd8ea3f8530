import itertools
import math

import jaxtyping
import numpy as np
import pytest
import torch

from toymodels.core.evaluation import evaluate
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import embed_before
from toymodels.core.network import Network
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.layers.fan_in import fan_in, fan_in_readoff, inclusion_exclusion_readoff
from toymodels.layers.random import gaussian
from toymodels.tasks.sets import SymmetricTask, conjunction
from toymodels.theory.bernoulli import activation_moments, debias, formula_p, smallest_probability

LIMIT = 3.0  # standard errors; seeds are fixed
EXACT = 1e-12


def outputs(layer, readoff, x):
    return readoff(layer.double()(x.double())).detach()


def test_the_layer_is_bernoulli_with_the_bias_of_its_fan_in():
    layer = fan_in(30, 400, 0, 3, 0.3)
    assert (layer.width, layer.origin, layer.activation, layer.bias.unique().tolist()) == (
        400,
        "fan-in",
        "relu",
        [-2.0],
    )
    assert set(layer.weight.unique().tolist()) == {0.0, 1.0}
    assert abs(float(layer.weight.detach().mean()) - 0.3) < LIMIT * math.sqrt(0.3 * 0.7 / 12_000)
    assert torch.equal(fan_in(30, 400, 0, 3, 0.3).weight, layer.weight)
    assert not torch.equal(fan_in(30, 400, 1, 3, 0.3).weight, layer.weight)


def test_the_default_probability_has_smaller_errors_than_far_ones():
    """Fan-in 3: the mean worst error of 12 layers, paired by seed, against half and twice the probability."""
    m, d, k = 12, 400, 3
    p, task, inputs = formula_p(m, d, k), conjunction(m, k), SparseFeatures.exactly(m, k).enumerate()
    assert smallest_probability(m, d, k) < p < 0.5
    assert torch.equal(fan_in(m, d, 0, k).weight, fan_in(m, d, 0, k, p).weight)
    near, half, twice = (
        np.array([evaluate(Network(layer, fan_in_readoff(layer, task)), task, inputs).worst_error for layer in layers])
        for layers in ([fan_in(m, d, seed, k, each) for seed in range(12)] for each in (p, p / 2, 2 * p))
    )
    for far in (half, twice):
        gain = far - near
        assert gain.mean() > LIMIT * gain.std(ddof=1) / math.sqrt(12)


def readable(layer, task, exactly=False):
    """Share of the means over neurons that are not empty: of whole sets, or (exactly) of all patterns of two or more."""
    readable = total = 0
    for row in task.sets:
        part = layer.weight.detach()[:, row[row < task.m]]
        if exactly:
            readable += len({tuple(pattern) for pattern in part.tolist() if sum(pattern) >= 2})
            total += 2 ** part.shape[1] - part.shape[1] - 1
        else:
            readable, total = readable + bool(part.all(1).any()), total + 1
    return readable / total


@pytest.mark.parametrize(("m", "d", "k"), [(12, 100, 2), (10, 200, 3), (8, 400, 4)])
def test_the_smallest_probability_leaves_half_a_set_unread(m, d, k):
    p = smallest_probability(m, d, k)
    assert (1 - p**k) ** d * math.comb(m, k) == pytest.approx(0.5)
    assert d ** (-1 / k) < p < 1
    task, layers = conjunction(m, k), 200
    unread = np.array([(1 - readable(fan_in(m, d, seed, k, p), task)) * task.n_outputs for seed in range(layers)])
    assert abs(unread.mean() - 0.5) < LIMIT * unread.std(ddof=1) / math.sqrt(layers)
    assert (unread > 0).mean() < 0.5
    # Planted fault: a probability a tenth larger.
    other = np.array([(1 - readable(fan_in(m, d, s, k, 1.1 * p), task)) * task.n_outputs for s in range(layers)])
    assert abs(other.mean() - 0.5) > LIMIT * other.std(ddof=1) / math.sqrt(layers)


@pytest.mark.parametrize(("k", "s", "p"), [(2, 4, 0.3), (3, 3, 0.4), (3, 6, 0.25), (4, 5, 0.5), (4, 2, 0.5)])
def test_moments_agree_with_sampled_layers(k, s, p):
    """100,000 neurons that see the whole set, for each case: mean and mean square deviation to 3 standard errors."""
    moments, n = activation_moments(s, p, k), 100_000
    for j in range(min(k, s) + 1):
        m = k + s
        x = torch.zeros(1, m)
        x[0, :j], x[0, k : k + s - j] = 1, 1
        layer = fan_in(m, n, 100 * s + j, k, p)
        layer.weight.data[:, :k] = 1
        a = layer(x)[0].detach().double()
        sample = torch.stack([a, (a - moments.mean[j]) ** 2], 1)
        wrong = activation_moments(s, 1.05 * p, k)
        error = LIMIT * sample.std(0) / math.sqrt(n) + EXACT
        assert ((sample.mean(0) - torch.tensor([moments.mean[j], moments.variance[j]])).abs() <= error).all()
        if moments.variance[j] > 0:  # planted fault: another p
            assert (sample.mean(0)[0] - wrong.mean[j]).abs() > error[0]
    assert np.isnan(moments.mean[min(k, s) + 1 :]).all()


def test_exact_on_the_set_alone_and_never_too_small():
    m, d, k = 9, 300, 3
    layer, task = fan_in(m, d, 1, k), conjunction(m, k)
    assert readable(layer, task) == 1
    x = SparseFeatures.at_most(m, 4).enumerate().dense()
    error = outputs(layer, fan_in_readoff(layer, task), x) - task.targets(x)
    inside = task.cases(x) == x.sum(1)[:, None].long()
    assert float(error[inside].abs().max()) < EXACT
    assert float(error[x.sum(1) < k].abs().max()) < EXACT
    assert float(error.min()) > -EXACT
    layer.bias.data += 1  # planted fault: the bias of a smaller fan-in
    readoff = fan_in_readoff(fan_in(m, d, 1, k), task)
    assert float((outputs(layer, readoff, x) - task.targets(x))[inside].abs().max()) > 0.5


def test_the_readoff_is_the_mean_over_the_intersection_and_its_correction():
    layer, task = fan_in(7, 200, 1, 3, 0.4), conjunction(7, 3)
    plain, corrected = fan_in_readoff(layer, task), fan_in_readoff(layer, task, s=4)
    gain, shift = debias(4, float(layer.weight.detach().double().mean()), k=3)
    x = SparseFeatures.exactly(7, 4).enumerate().dense()
    for i, members in enumerate(task.sets.tolist()):
        common = (layer.weight[:, members].sum(1) == 3).double()
        assert torch.allclose(plain.weight[i].detach(), (common / common.sum()).detach(), atol=EXACT)
    expected = gain * outputs(layer, plain, x) - shift
    assert torch.allclose(outputs(layer, corrected, x), expected, atol=1e-9)


def test_the_correction_lowers_the_error():
    m, d, k, s = 12, 800, 3, 3
    inputs, task = SparseFeatures.exactly(m, s).enumerate(), conjunction(m, k)
    for seed in range(3):
        layer = fan_in(m, d, seed, k)
        plain, corrected = (
            evaluate(Network(layer, fan_in_readoff(layer, task, known)), task, inputs) for known in (None, s)
        )
        assert corrected.output_worst.mean() < plain.output_worst.mean()


@pytest.mark.parametrize("size", range(2, 7))
def test_the_identity_of_inclusion_and_exclusion(size):
    """Over all active subsets J of I; the sign (−1)^(|I|−|I'|+1) is right for odd sizes only."""
    for active in itertools.product((0, 1), repeat=size):
        total = quoted = 0
        for number in range(2, size + 1):
            for part in itertools.combinations(range(size), number):
                value = max(0, sum(active[i] for i in part) - 1)
                total += (-1) ** number * value
                quoted += (-1) ** (size - number + 1) * value
        assert total == int(all(active))
        assert quoted == (total if size % 2 else -total)


SETS = [(0, 1), (2, 5), (0, 3, 4), (1, 2, 6), (0, 2, 4, 6), (3, 4, 5, 6)]


def test_inclusion_and_exclusion_is_exact_within_the_set():
    m = 7
    layer, task = fan_in(m, 600, 0, 2, 0.4), conjunction(m, sets=SETS)
    assert readable(layer, task, exactly=True) == 1
    readoff = inclusion_exclusion_readoff(layer, task)
    x = SparseFeatures.at_most(m, m).enumerate().dense()
    found, targets = outputs(layer, readoff, x), task.targets(x)
    for i, members in enumerate(SETS):
        within = x.sum(1) == x[:, list(members)].sum(1)
        assert float((found - targets)[within, i].abs().max()) < 1e-11  # sums of hundreds of terms
        # Planted fault: the quoted sign.
        if len(members) % 2 == 0:
            assert float((-found - targets)[within, i].abs().max()) > 0.9
    # One other feature adds itself to every neuron that sees it: fan-in 2 then errs as Construction 1.2 does.
    one = torch.zeros(1, m)
    one[0, [0, 3]] = 1
    neurons = (layer.weight[:, 0] * layer.weight[:, 1]).bool()
    share = float(layer.weight.detach()[neurons, 3].mean())
    assert float(outputs(layer, readoff, one)[0, 0]) == pytest.approx(share)


def test_inclusion_and_exclusion_of_pairs_is_the_mean_over_the_intersection():
    layer, task = fan_in(8, 100, 0, 2), conjunction(8, 2)
    first, second = inclusion_exclusion_readoff(layer, task), fan_in_readoff(layer, task)
    assert torch.allclose(first.weight, second.weight, atol=EXACT)


LAYER = fan_in(7, 50, 0, 3, 0.5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fan_in(10, 0, 0, 3), "at least 1"),
        (lambda: fan_in(10, 50, 0, 1), "k = 1: it must be at least 2"),
        (lambda: fan_in(10, 50, 0, 11), "k = 11: it must be at most 10"),
        (lambda: fan_in(10, 50, 0, 3, 1), "between 0 and 1"),
        (lambda: fan_in(10, 50, 0, 3, 0.0), "between 0 and 1"),
        (lambda: activation_moments(2, 0.5, 0), "k ≥ 1"),
        (lambda: debias(2, 0.5, k=3), "s ≥ k"),
        (lambda: fan_in_readoff(gaussian(7, 50, 0), conjunction(7, 3)), "fan-in construction"),
        (lambda: fan_in_readoff(LAYER, PairTask(7, "and")), "the task is and"),
        (lambda: fan_in_readoff(LAYER, SymmetricTask(7, (0, 0, 1, 0))), r"symmetric\(truth=0010\)"),
        (lambda: fan_in_readoff(LAYER, conjunction(7, 2)), "ANDs of k = 3"),
        (lambda: fan_in_readoff(LAYER, conjunction(8, 3)), "must be the same"),
        (lambda: fan_in_readoff(LAYER, conjunction(7, 3), 2), "s ≥ k"),
        (
            lambda: fan_in_readoff(embed_before(torch.eye(7) / 2, LAYER).layer, conjunction(7, 3)),
            "before any embedding",
        ),
        (lambda: inclusion_exclusion_readoff(LAYER, conjunction(7, 3)), "bias −1"),
        (lambda: inclusion_exclusion_readoff(fan_in(7, 50, 0, 2), conjunction(7, 1)), "2 to 16"),
    ],
)
def test_wrong_inputs_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fan_in(8, 16, 0, 2.5), "k = 2.5"),
        (lambda: fan_in(8, 16.5, 0, 2), "d = 16.5"),
        (lambda: formula_p(8, 16, float("nan")), "k = nan"),
        (lambda: activation_moments(2.5, 0.5), "s = 2.5"),
        (lambda: debias(float("nan"), 0.5), "s = nan"),
        (lambda: fan_in_readoff(LAYER, conjunction(7, 3), float("nan")), "s = nan"),
        (lambda: fan_in_readoff(LAYER, conjunction(7, 3), 3.5), "s = 3.5"),
        (lambda: fan_in_readoff(LAYER, conjunction(7, 3), 8), "no more than m = 7"),
    ],
)
def test_numbers_that_are_not_whole_and_too_many_active_are_refused(call, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in use, where types are not checked
    with pytest.raises(InputError, match=words):
        call()


def test_all_features_may_be_active():
    assert fan_in_readoff(LAYER, conjunction(7, 3), 7).bias.isfinite().all()
