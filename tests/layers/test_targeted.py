import jaxtyping
import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from toymodels.core.evaluation import evaluate
from toymodels.core.features import SparseFeatures
from toymodels.core.frames import random_frame
from toymodels.core.layers import embed_before
from toymodels.core.network import Network
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.layers.random import gaussian
from toymodels.layers.targeted import (
    best_per_gate,
    feasible_gates,
    gate_neurons,
    predicted_worst_error,
    random_graph,
    targeted,
    targeted_readoff,
)
from toymodels.tasks.sets import conjunction

PAIRS = [(0, 1), (2, 1), (0, 3), (4, 5), (1, 0)]


def published(m, d, seed, pairs, n):
    """Layer, task and the readoff over the gates' own neurons."""
    layer, task = targeted(m, d, seed, pairs, n), PairTask(m, "and", pairs)
    return layer, task, targeted_readoff(layer, task, gate_neurons(m, d, seed, pairs, n))


def measured(d, gates, inputs, seed, n=None, own=False, frame=None):
    """The errors on a random graph, its features embedded by a frame if there is one."""
    m, pairs = inputs.m, random_graph(inputs.m, gates, seed)
    layer, task, readoff = published(m, d, seed, pairs, n or best_per_gate(m, d, pairs))
    readoff = readoff if own else targeted_readoff(layer, task)
    return evaluate(Network(layer if frame is None else embed_before(frame, layer), readoff), task, inputs)


def rms_one_on(found):
    """RMS error where one feature of the gate is on."""
    one = [found.cases["01"], found.cases["10"]]
    return (sum(case.share * case.rms**2 for case in one) / sum(case.share for case in one)) ** 0.5


def outputs(layer, readoff, x):
    return readoff(layer.double()(x.double())).detach()


def test_weights_are_the_unions_of_the_gates_neurons():
    layer, neurons = targeted(8, 40, 3, PAIRS, 6), gate_neurons(8, 40, 3, PAIRS, 6)
    assert (layer.width, layer.origin, layer.activation) == (40, "targeted", "relu")
    assert layer.bias.tolist() == [-1.0] * 40
    for k in range(8):
        own = {i for row, pair in zip(neurons.tolist(), PAIRS, strict=True) for i in row if k in pair}
        assert set(torch.nonzero(layer.weight[:, k])[:, 0].tolist()) == own
    assert set(layer.weight.unique().tolist()) == {0.0, 1.0}
    assert all(len(set(row)) == 6 for row in neurons.tolist())
    assert torch.equal(targeted(8, 40, 3, PAIRS, 6).weight, layer.weight)
    assert not torch.equal(targeted(8, 40, 4, PAIRS, 6).weight, layer.weight)


def test_all_gates_read_all_common_neurons_by_default():
    layer, task = targeted(8, 40, 3, PAIRS, 6), PairTask(8, "and", PAIRS)
    readoff = targeted_readoff(layer, task)
    for row, (k, l) in zip(readoff.weight, PAIRS, strict=True):
        common = (layer.weight[:, k] * layer.weight[:, l]).double()
        assert torch.equal(row.detach(), (common / common.sum()).detach())


@pytest.mark.parametrize("own", [True, False])
def test_exact_with_the_pair_alone_and_never_too_small(own):
    """Every listed claim of the construction that needs no probability, on all inputs with at most 3 active."""
    m, d, seed = 12, 60, 1
    pairs = random_graph(m, 20, 0)
    layer, task, readoff = published(m, d, seed, pairs, 5)
    readoff = readoff if own else targeted_readoff(layer, task)
    x = SparseFeatures.at_most(m, 3).enumerate().dense()
    error = outputs(layer, readoff, x) - task.targets(x)
    alone = (x.sum(1)[:, None] <= 1) | ((x.sum(1)[:, None] == 2) & (task.targets(x) == 1))
    assert float(error[alone].abs().max()) < 1e-12
    assert float(error.min()) > -1e-12
    # Planted fault: with the bias left out a single feature answers already.
    layer.bias.data.zero_()
    assert float((outputs(layer, readoff, x) - task.targets(x))[alone].abs().max()) > 0.5


def test_one_other_feature_errs_by_the_share_of_neurons_it_stands_on():
    m, n = 10, 4
    pairs = random_graph(m, 12, 1)
    layer, _, readoff = published(m, 30, 0, pairs, n)
    neurons = gate_neurons(m, 30, 0, pairs, n)
    seen = layer.weight.detach()
    for i, (k, l) in enumerate(pairs.tolist()):
        for a in set(range(m)) - {k, l}:
            x = torch.zeros(2, m)
            x[0, [k, a]], x[1, [l, a]] = 1, 1
            share = float(seen[neurons[i], a].mean())
            assert outputs(layer, readoff, x)[:, i].tolist() == pytest.approx([share, share], abs=1e-12)


def mean_load(layer):
    return float(layer.weight.detach().sum() / len(layer.weight))


def test_the_mean_load_is_as_expected():
    pairs, layers = random_graph(20, 30, 0), 200
    means = np.array([mean_load(targeted(20, 50, seed, pairs, 5)) for seed in range(layers)])
    # Sets of different gates are independent: Σ_k 1 − (1 − n/d)^{g_k} over features of g_k gates.
    expected = float((1 - (1 - 5 / 50) ** torch.bincount(pairs.reshape(-1), minlength=20).double()).sum())
    assert abs(means.mean() - expected) < 3 * means.std(ddof=1) / np.sqrt(layers)
    # Planted fault: gates that share no neuron (the sum of the sizes of a feature's sets).
    assert abs(means.mean() - 2 * 30 * 5 / 50) > 3 * means.std(ddof=1) / np.sqrt(layers)


@pytest.mark.parametrize(("m", "d", "gates", "n"), [(40, 300, 60, 8), (40, 300, 60, 20), (30, 200, 120, 8)])
def test_the_prediction_is_within_two_neurons_of_the_median_worst_error(m, d, gates, n):
    """Neither side of prediction ± 2/n holds significantly more than half of 30 layers (level 1e-3)."""
    inputs, worst = SparseFeatures.at_most(m, 2).enumerate(), []
    pairs = random_graph(m, gates, 0)
    for seed in range(30):
        layer, task, readoff = published(m, d, seed, pairs, n)
        worst.append(evaluate(Network(layer, readoff), task, inputs).worst_error)
    steps = np.array(worst) * n - predicted_worst_error(m, d, pairs, n).worst_error * n
    for beyond in (int((steps > 2.5).sum()), int((steps < -2.5).sum())):
        assert binomtest(beyond, 30, 0.5, alternative="greater").pvalue > 1e-3
    # Planted fault: a prediction 4 neurons off would be seen.
    assert binomtest(int((steps + 4 > 2.5).sum()), 30, 0.5, alternative="greater").pvalue < 1e-3


def test_the_default_size_is_better_than_far_smaller_and_larger_ones():
    m, d, gates = 50, 400, 200
    pairs = random_graph(m, gates, 0)
    best = best_per_gate(m, d, pairs)
    inputs = SparseFeatures.at_most(m, 2).enumerate()
    assert torch.equal(targeted(m, d, 0, pairs).weight, targeted(m, d, 0, pairs, best).weight)
    found = {n: measured(d, gates, inputs, 0, n).worst_error for n in (2, best, 8 * best)}
    assert found[best] < found[2]
    assert found[best] < found[8 * best]


def test_common_neurons_beat_own_ones_in_a_crowded_layer():
    m, d, n = 50, 400, 5
    inputs = SparseFeatures.at_most(m, 2).enumerate()
    for seed in range(3):
        pairs = random_graph(m, 300, seed)
        layer, task, own = published(m, d, seed, pairs, n)
        alone = evaluate(Network(layer, own), task, inputs).output_worst.mean()
        assert evaluate(Network(layer, targeted_readoff(layer, task)), task, inputs).output_worst.mean() < alone


def test_errors_grow_with_gates_and_shrink_with_width():
    inputs, gates = SparseFeatures.at_most(30, 2).enumerate(), (10, 40, 160, 435)
    narrow, wide = ([rms_one_on(measured(d, number, inputs, 0, 6)) for number in gates] for d in (100, 400))
    for errors in (narrow, wide):
        assert errors == sorted(errors)
    assert all(b < a for a, b in zip(narrow, wide, strict=True))
    loads = [mean_load(targeted(30, 100, 0, random_graph(30, number, 0), 6)) for number in gates]
    assert loads == sorted(loads)


@pytest.mark.parametrize("own", [True, False])
def test_the_feasible_number_of_gates_is_where_the_error_crosses_the_limit(own):
    inputs = SparseFeatures.at_most(20, 2).enumerate()
    number = feasible_gates(300, inputs, 0, own=own, ratio=1.0001)
    assert 1 < number < 190
    below, above = (measured(300, gates, inputs, 0, own=own) for gates in (number, number + 1))
    assert below.worst_error < 0.5 <= above.worst_error
    assert measured(300, 1, inputs, 0, own=own).worst_error == 0
    assert feasible_gates(300, inputs, 0, 10.0, own=own) == 190
    # Wider: more gates.
    assert feasible_gates(1200, inputs, 0, own=own) > number


def test_features_in_superposition_disturb_more_the_fewer_dimensions_they_have():
    """An orthonormal frame of d0 = m changes nothing but rounding; random vectors in fewer dimensions interfere."""
    m, d, seed, n = 16, 200, 0, 5
    inputs = SparseFeatures.at_most(m, 2).enumerate()
    layer, task, _ = published(m, d, seed, random_graph(m, 20, seed), n)
    readoff = targeted_readoff(layer, task)
    turned = torch.linalg.qr(torch.randn(m, m, generator=torch.Generator().manual_seed(0))).Q
    plain = evaluate(Network(layer, readoff), task, inputs).worst_error
    # Sums of 16 products in float32, each up to 1.
    same = evaluate(Network(embed_before(turned, layer), readoff), task, inputs).worst_error
    assert same == pytest.approx(plain, abs=16 * m * torch.finfo(torch.float32).eps)
    frames = (*(random_frame(m, d0, seed) for d0 in (4, 8, 16)), None)
    *errors, axes = (rms_one_on(measured(d, 20, inputs, seed, n, frame=frame)) for frame in frames)
    assert errors[0] > errors[1] > errors[2] > axes


def test_random_graphs_have_different_edges():
    pairs = random_graph(9, 36, 0)
    assert sorted(map(tuple, pairs.tolist())) == [(k, l) for k in range(9) for l in range(k + 1, 9)]
    assert not torch.equal(random_graph(9, 10, 0), random_graph(9, 10, 1))


LAYER = targeted(8, 40, 3, PAIRS, 6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: targeted(8, 40, 0, []), "empty"),
        (lambda: targeted(8, 40, 0, [(0, 8)]), "out of range"),
        (lambda: targeted(8, 40, 0, [(2, 2)]), "k = l"),
        (lambda: targeted(8, 40, 0, PAIRS, 0), "per_gate = 0"),
        (lambda: targeted(8, 40, 0, PAIRS, 41), "per_gate = 41: it must be at most 40"),
        (lambda: targeted(8, 0, 0, PAIRS), "at least 1"),
        (lambda: targeted(8, 40, 0, PAIRS, s=1), "s = 1: it must be at least 2"),
        (lambda: targeted(8, 40, 0, PAIRS, 4, "relus"), "unknown activation"),
        (lambda: targeted_readoff(gaussian(8, 40, 0), PairTask(8, "and", PAIRS)), "targeted construction"),
        (
            lambda: targeted_readoff(embed_before(torch.eye(8)[:6] / 2, LAYER).layer, PairTask(8, "and", PAIRS)),
            "before any embedding",
        ),
        (lambda: targeted_readoff(LAYER, PairTask(8, "xor", PAIRS)), "the task is xor"),
        (lambda: targeted_readoff(targeted(8, 40, 3, PAIRS, 6, "gelu"), PairTask(8, "and", PAIRS)), "ReLU"),
        (lambda: targeted_readoff(LAYER, conjunction(8, 3)), r"the task and_of\(k=3\) is not one"),
        (lambda: targeted_readoff(LAYER, PairTask(9, "and", PAIRS)), "must be the same"),
        (lambda: targeted_readoff(LAYER, PairTask(8, "and", [(6, 7)])), "no neuron sees"),
        (lambda: targeted_readoff(LAYER, PairTask(8, "and", PAIRS[:2]), gate_neurons(8, 40, 3, PAIRS, 6)), "one row"),
        (lambda: random_graph(5, 11, 0), "gates = 11: it must be at most 10"),
        (lambda: feasible_gates(10, SparseFeatures.at_most(5, 2).enumerate(), 0, 0), "lies above 0"),
        (lambda: random_graph(5, 0, 0), "gates = 0: it must be at least 1"),
    ],
)
def test_wrong_inputs_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: targeted(8, 40, 0, PAIRS, 2.5), "per_gate = 2.5"),
        (lambda: targeted(8, 40.5, 0, PAIRS), "d = 40.5"),
        (lambda: targeted(8, 40, 0, PAIRS, s=2.5), "s = 2.5"),
        (lambda: random_graph(5, 2.5, 0), "gates = 2.5"),
        (lambda: random_graph(5.5, 2, 0), "m = 5.5"),
    ],
)
def test_numbers_that_are_not_whole_are_refused(call, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in use, where types are not checked
    with pytest.raises(InputError, match=words):
        call()
