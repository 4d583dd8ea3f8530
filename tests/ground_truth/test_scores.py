"""Scores are recomputed by a few independent lines, and are what they must be for dictionaries that know the truth."""

import copy
import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from toymodels import InputError, Network, PairTask, SparseFeatures, evaluate, minimax
from toymodels.core.frames import random_frame
from toymodels.core.layers import embed_before
from toymodels.core.seeds import seeded
from toymodels.ground_truth.dictionaries import fit_dictionary
from toymodels.ground_truth.perturbations import sensitivities
from toymodels.ground_truth.samples import feature_vectors
from toymodels.ground_truth.scores import correlations, found, score, split_and_absorbed
from toymodels.layers.random import gaussian

M, D = 5, 12
TASK = PairTask(M, "and")
FEATURES = SparseFeatures.at_most(M, 2)
INPUTS = FEATURES.enumerate()
X = INPUTS.dense()
LAYER = gaussian(M, D, 0)
NETWORK = Network(LAYER, minimax(LAYER, TASK, INPUTS).readoff)
VECTORS = feature_vectors(NETWORK, TASK, FEATURES)


class Coded(nn.Linear):
    """A linear map, with latents that are the activations."""

    def encode(self, a):
        return a


class Reading(Coded):
    """The same, of what the layer reads."""

    reads = "inputs"


class Oracle(nn.Module):
    """Latents are the true features and the true ANDs, which describe the activations exactly; some latents more."""

    def __init__(self, kept=slice(None), dead=0, rare=0):
        super().__init__()
        self.kept, self.dead, self.rare = kept, dead, rare

    def encode(self, a):
        nearest = torch.cdist(a.float(), LAYER(X)).argmin(1)
        x = X[nearest]
        truth = torch.cat([x, TASK.targets(x)], 1)[:, self.kept]
        return torch.cat(
            [truth, torch.zeros(len(a), self.dead), (nearest == 0).float()[:, None].expand(-1, self.rare)], 1
        )

    def decode(self, z):
        size = z.shape[1] - self.dead - self.rare
        vectors = torch.cat([VECTORS.activations, VECTORS.functions])[self.kept]
        return VECTORS.origin + z[:, :size].double() @ vectors

    def forward(self, a):
        return self.decode(self.encode(a))


def test_a_dictionary_that_knows_the_truth_has_full_scores():
    got = score(Oracle(dead=3), NETWORK, TASK, INPUTS)
    expected = {
        "features_correlation": 1, "features_recall": 1, "features_precision": 5 / 15, "functions_correlation": 1,
        "functions_recall": 1, "functions_precision": 10 / 15, "precision": 1, "explained": 1, "latents": 18, "dead": 3 / 18,
        "ultra_rare": 0,
    }  # fmt: skip
    # Activations are float32, and their directions a least squares fit of these.
    assert {name: got[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    active = [sum(row) + sum(a * b for a, b in itertools.combinations(row, 2)) for row in X.tolist()]
    assert got["l0"] == pytest.approx(sum(active) / len(X))
    clean = evaluate(NETWORK, TASK, INPUTS)
    assert (got["clean_worst_error"], got["clean_rms"]) == (clean.worst_error, clean.rms)
    assert got["worst_error"] == pytest.approx(clean.worst_error, abs=1e-3)


def test_a_dictionary_of_features_finds_no_function():
    got = score(Oracle(kept=slice(0, M)), NETWORK, TASK, INPUTS)
    assert got["features_recall"] == 1
    assert got["functions_recall"] == 0
    # What the ANDs leave out, by hand: the outputs that the features' directions alone give.
    a = LAYER(X).detach().double()
    back = VECTORS.origin + X.double() @ VECTORS.activations
    rest = (a - back).square().sum() / (a - a.mean(0)).square().sum()
    assert got["explained"] == pytest.approx(1 - float(rest), abs=1e-6)
    errors = NETWORK.readoff(back).detach() - TASK.targets(X)
    assert got["worst_error"] == pytest.approx(float(errors.abs().max()), rel=1e-4)
    assert got["worst_error"] > got["clean_worst_error"] + 0.1


def test_ultra_rare_latents_are_told_from_rare_functions():
    rare = SparseFeatures(M, (0.005, 0.5, 0.495), "rare zero").enumerate()
    got = score(Oracle(rare=2), NETWORK, TASK, rare)
    # The empty input has probability 0.005, below a tenth of that of each AND, 0.0495.
    assert got["ultra_rare"] * got["latents"] == pytest.approx(0)
    rarer = SparseFeatures(M, (0.004, 0.5, 0.496), "rarer zero").enumerate()
    got = score(Oracle(rare=2), NETWORK, TASK, rarer)
    assert got["ultra_rare"] * got["latents"] == pytest.approx(2)


def test_correlations_and_assignment_are_those_of_plain_loops():
    generator = seeded(0)
    latents, truths = torch.rand(40, 4, generator=generator), torch.rand(40, 3, generator=generator)
    latents[:, 3] = 0.7
    weight = torch.rand(40, generator=generator, dtype=torch.float64)
    table = correlations(latents, truths, weight)
    w = (weight / weight.sum()).numpy()
    for i, j in itertools.product(range(3), range(3)):
        cov = np.cov(latents[:, i].double().numpy(), truths[:, j].double().numpy(), aweights=w, ddof=0)
        assert table[i, j] == pytest.approx(abs(cov[0, 1]) / np.sqrt(cov[0, 0] * cov[1, 1]), abs=1e-9)
    assert (table[3] == 0).all()
    best = max(sum(table[i, j] for j, i in enumerate(order)) for order in itertools.permutations(range(4), 3))
    got = found(table, live=4, threshold=0.2)
    assert got["correlation"] == pytest.approx(best / 3)
    order = max(itertools.permutations(range(4), 3), key=lambda o: sum(table[i, j] for j, i in enumerate(o)))
    hits = sum(table[i, j] >= 0.2 for j, i in enumerate(order))
    assert got["recall"] == hits / 3
    assert got["precision"] == hits / 4
    assert found(table[:1], 1, 0.0)["correlation"] == pytest.approx(max(table[0]) / 3)
    assert found(table, 0, 0.2)["precision"] == 0


@pytest.fixture(scope="module")
def fitted():
    with torch.no_grad():
        return fit_dictionary("topk(k=2,steps=50)", LAYER(X), 8)


def test_errors_through_the_reconstruction_are_those_of_a_hook(fitted):
    got = score(fitted, NETWORK, TASK, INPUTS)
    outputs = NETWORK.readoff(fitted(LAYER(X))).detach()
    errors = (outputs - TASK.targets(X)).double()
    # Activations in float32 here (7 digits, before the readoff magnifies their rounding), in float64 there.
    assert got["worst_error"] == pytest.approx(float(errors.abs().max()), rel=1e-4)
    assert got["rms"] == pytest.approx(float(errors.square().mean().sqrt()), rel=1e-4)
    a = LAYER(X).detach()
    rest = (a - fitted(a)).square().sum() / (a - a.mean(0)).square().sum()
    assert got["explained"] == pytest.approx(1 - float(rest), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("embedded", [False, True])
def test_a_transcoder_reads_what_the_layer_reads(embedded):
    layer = embed_before(random_frame(M, 4, 0), LAYER) if embedded else LAYER
    read, a = (X @ layer.frame.T if embedded else X), layer(X)
    network = Network(layer, minimax(layer, TASK, INPUTS).readoff)
    transcoder = fit_dictionary("transcoder(steps=50)", a, 8, 0, read)
    got = score(transcoder, network, TASK, INPUTS)
    errors = (network.readoff(transcoder(read)) - TASK.targets(X)).double()
    # Activations in float32 here, in float64 there; the minimax readoff of a few neurons magnifies their rounding.
    assert got["worst_error"] == pytest.approx(float(errors.abs().max()), rel=1e-4)
    assert got["explained"] == pytest.approx(
        1 - float((a - transcoder(read)).square().sum() / (a - a.mean(0)).square().sum()), rel=1e-4
    )
    assert got["l0"] == pytest.approx(float((transcoder.encode(read) > 0).sum(1).double().mean()))
    move = (transcoder(read) - a).double() @ network.readoff.weight.double().T
    by_error = (move.square().mean() / (transcoder(read) - a).double().square().sum(1).mean()).sqrt()
    sensitivity = sensitivities(transcoder, network, feature_vectors(network, TASK, FEATURES), INPUTS)
    assert sensitivity["sensitivity_sae_error"] == pytest.approx(float(by_error), rel=1e-5)
    assert sensitivity["sensitivity_latents"] > 0


@torch.no_grad()
def test_sensitivities_are_those_of_the_linear_readoff(fitted):
    got = sensitivities(fitted, NETWORK, VECTORS, INPUTS, seed=1)
    weight, a = NETWORK.readoff.weight.detach().double(), LAYER(X).detach().double()
    error = fitted(LAYER(X)).double() - a
    by_error = ((error @ weight.T).square().mean() / error.square().sum(1).mean()).sqrt()
    assert got["sensitivity_sae_error"] == pytest.approx(float(by_error), rel=1e-9)
    principal = torch.linalg.eigh((a - a.mean(0)).T @ (a - a.mean(0))).eigenvectors[:, -1]
    assert got["sensitivity_principal"] == pytest.approx(float((weight @ principal).square().mean().sqrt()), rel=1e-6)
    largest = float(torch.linalg.matrix_norm(weight, 2)) / TASK.n_outputs**0.5
    assert all(0 < value <= largest for value in got.values())
    assert got == sensitivities(fitted, NETWORK, VECTORS, INPUTS, seed=1)
    many = [sensitivities(fitted, NETWORK, VECTORS, INPUTS, seed)["sensitivity_random"] ** 2 for seed in range(200)]
    # A random direction of length 1 changes outputs by |W|²/(d·outputs) on average; 200·16 draws, whose mean has a standard
    # error of a few percent (weighted by the lengths of the errors): 5 of them are 20 %.
    assert np.mean(many) == pytest.approx(float(weight.square().sum()) / D / TASK.n_outputs, rel=0.2)


@torch.no_grad()
def test_moves_along_the_only_direction_there_is_are_those_of_the_readoff(fitted):
    """Directions are drawn at random: where there is one alone, the number is known."""
    weight = NETWORK.readoff.weight.double()

    def only(rows, chosen):
        alone = torch.zeros_like(rows)
        alone[chosen] = rows[chosen]
        return alone

    vectors = dataclasses.replace(
        VECTORS, activations=only(VECTORS.activations, 2), functions=only(VECTORS.functions, 4)
    )
    got = sensitivities(fitted, NETWORK, vectors, INPUTS)
    for name, u in (("features", VECTORS.activations[2]), ("functions", VECTORS.functions[4])):
        expected = float((weight @ u).square().mean().sqrt() / u.norm())
        assert got[f"sensitivity_{name}"] == pytest.approx(expected, rel=1e-9)
    single = fit_dictionary("topk(k=1,steps=50)", LAYER(X), 8)
    a, z = LAYER(X), single.encode(LAYER(X))
    length = (single(a).double() - a.double()).square().sum(1) * (z > 0).any(1)  # without a latent nothing moves
    along = single.decoder[z.argmax(1)].double()
    change = (length * (along @ weight.T).square().mean(1) / along.square().sum(1)).sum()
    every = (single(a).double() - a.double()).square().sum()
    got = sensitivities(single, NETWORK, VECTORS, INPUTS)["sensitivity_latents"]
    # The move is a difference of two reconstructions in float32, each some 10 times as long.
    assert got == pytest.approx(float((change / every).sqrt()), rel=1e-3)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dictionary": 3}, "dictionary is of the kind int"),
        ({"network": LAYER}, "network is of the kind FirstLayer"),
        ({"task": "and"}, "task is of the kind str"),
        ({"inputs": X}, "inputs is of the kind Tensor"),
        ({"threshold": 2}, "threshold = 2"),
        ({"task": PairTask(6, "and")}, "the inputs have 5 features and the task 6"),
        ({"dictionary": nn.Linear(D, D)}, "has no method encode"),
        ({"dictionary": Coded(D + 1, D)}, "does not take activations of shape"),
        ({"dictionary": Reading(M + 1, D)}, "does not take inputs of shape"),
        ({"dictionary": Coded(D, D + 1)}, "for activations of shape"),
    ],
)
@pytest.mark.unchecked
def test_wrong_calls_are_refused(wrong, words, fitted):
    arguments = {"dictionary": fitted, "network": NETWORK, "task": TASK, "inputs": INPUTS, **wrong}
    with pytest.raises(InputError, match=words):
        score(**arguments)


def test_a_network_of_float64_and_a_dictionary_in_training_are_measured_as_evaluate_does():
    fitted = fit_dictionary("batch_topk(k=2)", LAYER(X).detach(), 8, 0)
    expected = score(fitted, NETWORK, TASK, INPUTS)
    fitted.train()
    before = {name: value.clone() for name, value in fitted.state_dict().items()}
    got = score(fitted, copy.deepcopy(NETWORK).double(), TASK, INPUTS)
    assert got == pytest.approx(expected, rel=1e-5, abs=1e-6)  # float32 in both but for the readoff
    assert all(torch.equal(value, before[name]) for name, value in fitted.state_dict().items())
    sensitivities(fitted, copy.deepcopy(NETWORK).double(), VECTORS, INPUTS)


def test_what_has_no_direction_has_no_sensitivity(fitted):
    """The functions of a layer without a use for them are rounding alone."""
    nothing = dataclasses.replace(VECTORS, functions=1e-8 * torch.ones_like(VECTORS.functions))
    got = sensitivities(fitted, NETWORK, nothing, INPUTS)
    assert got["sensitivity_functions"] is None
    assert got["sensitivity_features"] > 0


class Strange(nn.Module):
    """Latents and reconstructions as two functions make them."""

    def __init__(self, encode=lambda a: a, decode=lambda z: z):
        super().__init__()
        self.encode, self.decode = encode, decode

    def forward(self, a):
        return self.decode(self.encode(a))


@pytest.mark.parametrize(
    ("dictionary", "words"),
    [
        (Strange(lambda a: (a, a), lambda z: z[0]), "latents is of the kind tuple"),
        (Strange(lambda a: a.to(torch.complex64), lambda z: z.real), "real numbers"),
        (Strange(lambda a: a.to_sparse(), lambda z: z.to_dense()), "dense table"),
        (Strange(lambda a: a[:, :0], lambda z: torch.zeros(len(z), D)), "latents of shape"),
        (Strange(lambda a: a * torch.nan), "not finite"),
        (Strange(lambda a: 1 / 0), "ZeroDivisionError"),
        (Strange(decode=lambda z: None), "reconstruction is of the kind NoneType"),
        (Strange(decode=lambda z: z * torch.nan), "reconstruction with numbers that are not finite"),
    ],
)
@pytest.mark.unchecked
def test_what_is_no_table_is_refused(dictionary, words):
    for call in (
        lambda: score(dictionary, NETWORK, TASK, INPUTS),
        lambda: sensitivities(dictionary, NETWORK, VECTORS, INPUTS),
    ):
        with pytest.raises(InputError, match=words):
            call()


@pytest.mark.unchecked
def test_latents_may_be_whole_numbers_and_reconstructions_float32():
    signs = score(Strange(lambda a: (a > 0).long(), lambda z: z.float()), NETWORK, TASK, INPUTS)
    assert signs["latents"] == D
    assert signs["worst_error"] > signs["clean_worst_error"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"vectors": None}, "vectors is of the kind NoneType"),
        ({"behind": "linear"}, "behind is a str"),
        ({"inputs": FEATURES}, "inputs is of the kind SparseFeatures"),
        ({"dictionary": Coded(D, D)}, "no method decode"),
    ],
)
@pytest.mark.unchecked
def test_wrong_moves_are_refused(wrong, words):
    arguments = {"dictionary": Strange(), "network": NETWORK, "vectors": VECTORS, "inputs": INPUTS, **wrong}
    with pytest.raises(InputError, match=words):
        sensitivities(**arguments)


def test_planted_splitting_and_absorption_are_seen():
    x, weight = X, INPUTS.probabilities.double()
    assert split_and_absorbed(x, x, weight) == {"split": 0, "absorbed": 0}
    first, second = x[:, :1], x[:, 1:2]
    halves = torch.cat([first * second, first * (1 - second), x[:, 1:]], 1)  # two latents share feature 0
    assert split_and_absorbed(halves, x, weight)["split"] == 1 / M
    # The main latent of feature 0 is off where the AND of 0 and 1 is on.
    with_one = float(weight @ (first * second)[:, 0].double()) / float(weight @ first[:, 0].double())
    assert with_one < 0.5
    # Equal up to rounding in float64.
    assert split_and_absorbed(halves, x, weight)["absorbed"] == pytest.approx(with_one / M, abs=1e-12)
    # A feature that is left out, and taken over by nobody, is neither.
    alone = torch.cat([first * (1 - second), x[:, 2:]], 1)
    assert split_and_absorbed(alone, x, weight) == {"split": 0, "absorbed": 0}
    assert split_and_absorbed(torch.zeros(len(x), 2), x, weight) == {"split": 0, "absorbed": 0}
