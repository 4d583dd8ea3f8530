"""Samples come with the truth about them, and directions are those of features and functions."""

import itertools

import numpy as np
import pytest
import torch

from toymodels import InputError, Network, PairTask, SparseFeatures
from toymodels.core.layers import Embedded
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import seeded
from toymodels.ground_truth.samples import feature_vectors, samples
from toymodels.layers.random import gaussian

M, D = 6, 9
TASK = PairTask(M, "and")
FEATURES = SparseFeatures.at_most(M, 2)
NETWORK = Network(gaussian(M, D, 0), LinearReadoff(torch.randn(15, D, generator=seeded(1)), torch.zeros(15)))


def test_batches_hold_what_the_network_makes_and_the_truth():
    batches = list(samples(NETWORK, TASK, FEATURES, seed=3, batch=20, batches=2))
    assert len(batches) == 2
    assert not torch.equal(batches[0].features, batches[1].features)
    for batch in batches:
        assert torch.equal(batch.inputs, batch.features)
        assert torch.equal(batch.activations, NETWORK.layer(batch.features))
        for row, values in zip(batch.features.tolist(), batch.functions.tolist(), strict=True):
            assert values == [row[k] * row[l] for k, l in itertools.combinations(range(M), 2)]
    again = next(samples(NETWORK, TASK, FEATURES, seed=3, batch=20))
    assert all(torch.equal(one, two) for one, two in zip(again, batches[0], strict=True))
    other = next(samples(NETWORK, TASK, FEATURES, seed=4, batch=20))
    assert not torch.equal(other.features, again.features)


def test_without_a_number_of_batches_there_is_no_end():
    stream = samples(NETWORK, TASK, FEATURES, seed=0, batch=5)
    assert len(list(itertools.islice(stream, 30))) == 30


def test_embedded_features_and_their_embedding_are_told_apart():
    frame = torch.nn.functional.normalize(torch.randn(4, M, generator=seeded(2)), dim=0)
    network = Network(Embedded(frame, gaussian(4, D, 0)), NETWORK.readoff)
    batch = next(samples(network, TASK, FEATURES, seed=0, batch=7))
    # Sums of at most 2 products in float32.
    torch.testing.assert_close(batch.inputs, batch.features @ frame.T, rtol=1e-6, atol=1e-6)
    assert torch.equal(feature_vectors(network, TASK, FEATURES).inputs, frame.T)


def test_directions_of_ands_are_second_differences_of_activations():
    vectors = feature_vectors(NETWORK, TASK, FEATURES)
    a = lambda *active: NETWORK.layer(torch.eye(M)[list(active)].sum(0, keepdim=True))[0].double()  # noqa: E731
    none = a()
    singles = torch.stack([a(k) - none for k in range(M)])
    pairs = torch.stack([a(k, l) - a(k) - a(l) + none for k, l in itertools.combinations(range(M), 2)])
    # 22 equations in as many unknowns, whose matrix is well conditioned: rounding of float32 activations is all there is.
    torch.testing.assert_close(vectors.activations, singles.detach(), rtol=0, atol=1e-5)
    torch.testing.assert_close(vectors.functions, pairs.detach(), rtol=0, atol=1e-5)
    assert vectors.explained == pytest.approx(1, abs=1e-9)
    assert torch.equal(vectors.readoffs, NETWORK.readoff.weight)
    assert torch.equal(vectors.inputs, torch.eye(M))


def test_directions_of_samples_are_those_of_all_inputs():
    task = PairTask(M, "and", [[0, 1], [2, 3]])
    network = Network(NETWORK.layer, LinearReadoff(torch.zeros(2, D), torch.zeros(2)))
    every = feature_vectors(network, task, FEATURES)
    assert every.explained < 0.999
    # Fewer samples than inputs: the least squares fit to these samples, solved here in NumPy.
    sampled = feature_vectors(network, task, FEATURES, n=21, seed=0)
    x = FEATURES.sampled(21, 0).dense().double().numpy()
    a = network.layer(FEATURES.sampled(21, 0).dense()).detach().double().numpy()
    table = np.hstack([np.ones((21, 1)), x, x[:, [0]] * x[:, [1]], x[:, [2]] * x[:, [3]]])
    fit = np.linalg.pinv(table) @ a
    np.testing.assert_allclose(sampled.origin, fit[0], atol=1e-6)
    np.testing.assert_allclose(sampled.activations, fit[1 : 1 + M], atol=1e-6)
    np.testing.assert_allclose(sampled.functions, fit[1 + M :], atol=1e-6)
    rest = np.square(a - table @ fit).sum() / np.square(a - a.mean(0)).sum()
    assert sampled.explained == pytest.approx(1 - rest, abs=1e-6)
    more = [
        feature_vectors(network, task, SparseFeatures.at_most(M, 2, "constant(value=0.5)"), n=n) for n in (22, 10**5)
    ]
    assert torch.equal(more[0].functions, more[1].functions)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"task": PairTask(7, "and")}, "the features are 6 and the task reads 7"),
        ({"task": PairTask(M, "and", [[0, 1]])}, "has 15 outputs and the task and 1"),
        ({"task": "and"}, "task is of the kind str"),
        ({"features": 3}, "features is of the kind int"),
        ({"network": 3}, "network is of the kind int"),
        ({"batch": 0}, "batch = 0"),
        ({"batches": 0}, "batches = 0"),
        ({"seed": -1}, "seed = -1"),
    ],
)
@pytest.mark.unchecked
def test_wrong_inputs_are_refused_at_the_call(wrong, words):
    arguments = {"network": NETWORK, "task": TASK, "features": FEATURES, "seed": 0, **wrong}
    with pytest.raises(InputError, match=words):
        samples(**arguments)


def test_a_problem_that_is_too_large_is_refused():
    features, task = SparseFeatures.at_most(200, 2), PairTask(200, "and")
    network = Network(gaussian(200, 4, 0), LinearReadoff(torch.zeros(19900, 4), torch.zeros(19900)))
    with pytest.raises(InputError, match="take a smaller n"):
        feature_vectors(network, task, features)
