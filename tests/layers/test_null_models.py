import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from toymodels import FirstLayer, Network, PairTask, SparseFeatures, evaluate, gaussian, minimax
from toymodels.errors import InputError
from toymodels.layers.null_models import CONTROLS, RandomLabels, shuffled, shuffled_within, spectrum_matched


def trained_like(m=40, d=60):
    """Weights unlike Gaussian ones: a few singular values stand out, the entries have heavy tails, biases differ."""
    rng = torch.Generator().manual_seed(0)
    weight = gaussian(m, d, 1).weight.detach() + 6 * torch.rand(d, 1, generator=rng) * torch.rand(1, m, generator=rng)
    return FirstLayer(weight**3, torch.rand(d, generator=rng) - 1, origin="trained")


LAYER = trained_like()


@pytest.mark.parametrize("name", CONTROLS)
def test_a_control_is_another_layer_of_the_same_size_that_a_seed_repeats(name):
    made, again, other = CONTROLS[name](LAYER, 0), CONTROLS[name](LAYER, 0), CONTROLS[name](LAYER, 1)
    assert made.weight.shape == LAYER.weight.shape
    assert made.law == name
    assert not made.weight.requires_grad
    assert torch.equal(made.weight, again.weight)
    assert not torch.equal(made.weight, other.weight)
    change, spread = (made.weight - LAYER.weight).detach(), LAYER.weight.detach().std()
    assert change.abs().mean() > spread / 2
    assert torch.equal(made.bias.sort().values, LAYER.bias.sort().values)


def test_spectrum_matched_keeps_the_singular_values_and_no_direction():
    made = spectrum_matched(LAYER, 0)
    want, have = (torch.linalg.svdvals(layer.weight.double()) for layer in (LAYER, made))
    assert torch.allclose(want, have, rtol=1e-5)  # float32 weights
    # The first right singular vector is uniform on the sphere: its cosine with a fixed direction has variance 1/m.
    fixed = torch.linalg.svd(LAYER.weight.detach().double())[2][0]
    cosines = [
        float(torch.linalg.svd(spectrum_matched(LAYER, seed).weight.double())[2][0] @ fixed) for seed in range(100)
    ]
    squares = np.square(cosines) * len(fixed)
    assert abs(squares.mean() - 1) < 3 * np.sqrt(2 / 100)  # chi-square of one degree of freedom, to 1/m


def test_shuffled_keeps_the_weights_and_shuffled_within_each_neurons():
    mixed, within = shuffled(LAYER, 0), shuffled_within(LAYER, 0)
    assert torch.equal(mixed.weight.flatten().sort().values, LAYER.weight.flatten().sort().values)
    assert torch.equal(within.weight.sort(1).values, LAYER.weight.sort(1).values)
    assert torch.equal(within.bias, LAYER.bias)
    assert not torch.equal(mixed.weight.sort(1).values, LAYER.weight.sort(1).values)


def test_gaussian_like_keeps_mean_and_spread_alone():
    weights = torch.stack([CONTROLS["gaussian_like"](LAYER, seed).weight for seed in range(20)]).flatten().numpy()
    want = LAYER.weight.detach().numpy()
    # Kolmogorov and Smirnov's test at a false-alarm rate of 1 in 1,000.
    assert stats.kstest(weights, "norm", (want.mean(), want.std(ddof=1))).pvalue > 1e-3
    assert stats.kstest(weights, want.flatten()).pvalue < 1e-6


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
    law = stats.hypergeom(220, 10, 10)
    assert abs(overlap.mean() - law.mean()) < 3 * law.std() / np.sqrt(len(overlap))
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
