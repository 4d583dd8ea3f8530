"""Our stand-ins for the synthetic data of SAELens hold the truth, and SAELens itself trains and scores with them."""

import itertools

import pytest
import torch
from torch import nn

from tests.ground_truth.optional import installed
from toymodels import InputError, Network, PairTask, SparseFeatures, score
from toymodels.core.layers import Embedded
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.seeds import seeded
from toymodels.ground_truth.dictionaries import check_dictionary, fit_dictionary
from toymodels.ground_truth.saelens import for_saelens
from toymodels.layers.random import gaussian

M, D = 6, 12
TASK = PairTask(M, "and")
FEATURES = SparseFeatures.at_most(M, 2)
NETWORK = Network(gaussian(M, D, 0), LinearReadoff(torch.zeros(15, D), torch.zeros(15)))


def test_values_are_features_and_functions_and_activations_are_those_of_the_layer():
    activations, truths = for_saelens(NETWORK, TASK, FEATURES, seed=3)
    values = truths(50)
    assert values.shape == (50, M + 15)
    assert activations.feature_vectors.shape == (M + 15, D)
    for row in values.tolist():
        assert row[M:] == [row[k] * row[l] for k, l in itertools.combinations(range(M), 2)]
    assert torch.equal(activations(values), NETWORK.layer(values[:, :M]).detach())
    # At most 2 active: features and ANDs describe the activations exactly, in float32.
    linear = values @ activations.feature_vectors + activations.bias
    torch.testing.assert_close(activations(values), linear, rtol=0, atol=1e-5)
    assert not torch.equal(truths.sample(50), values)
    assert torch.equal(for_saelens(NETWORK, TASK, FEATURES, seed=3)[1].sample(50), values)


def test_embedded_networks_of_float64_give_activations_of_float32():
    frame = nn.functional.normalize(torch.randn(4, M, generator=seeded(1)), dim=0)
    network = Network(Embedded(frame, gaussian(4, D, 0)), NETWORK.readoff).double()
    activations, truths = for_saelens(network, TASK, FEATURES)
    values = truths(20)
    assert activations(values).dtype == torch.float32
    torch.testing.assert_close(
        activations(values).double(), network.layer(values[:, :M].double()).detach(), rtol=1e-6, atol=1e-6
    )


@pytest.mark.unchecked
def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="the features are 7 and the task reads 6"):
        for_saelens(NETWORK, TASK, SparseFeatures.at_most(7, 2))


def test_a_method_without_its_package_is_refused_before_any_work(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package sae_lens: pip install 'toymodels\[interp\]'"):
        check_dictionary("saelens", 8)


class TestWithSAELens:
    @pytest.fixture(autouse=True)
    def _installed(self):
        self.sae_lens = installed("sae_lens")
        self.synthetic = installed("sae_lens.synthetic")

    def autoencoder(self, latents, coefficient=0.1):
        torch.manual_seed(0)
        config = self.sae_lens.StandardTrainingSAEConfig(d_in=D, d_sae=latents, l1_coefficient=coefficient)
        return self.sae_lens.StandardTrainingSAE(config)

    def test_its_trainer_and_its_scores_take_our_objects(self):
        activations, truths = for_saelens(NETWORK, TASK, FEATURES)
        sae = self.autoencoder(M + 15)
        every = FEATURES.enumerate()
        before = score(sae, NETWORK, TASK, every)
        self.synthetic.train_toy_sae(sae, activations, truths, training_samples=40_000, batch_size=256, lr=1e-2)
        after = score(sae, NETWORK, TASK, every)
        assert after["explained"] > 0.9 > before["explained"]
        theirs = self.synthetic.eval_sae_on_synthetic_data(sae, activations, truths, num_samples=20_000)
        active = [sum(row) + sum(a * b for a, b in itertools.combinations(row, 2)) for row in every.dense().tolist()]
        mean = sum(active) / len(active)
        # 20,000 samples of numbers from 0 to 3: five standard errors of their means are below 0.035.
        assert theirs.true_l0 == pytest.approx(mean, abs=0.04)
        assert theirs.sae_l0 == pytest.approx(after["l0"], abs=0.1)
        assert theirs.explained_variance == pytest.approx(after["explained"], abs=0.01)

    def test_a_decoder_that_is_the_truth_has_a_full_score(self):
        activations, truths = for_saelens(NETWORK, TASK, FEATURES)
        sae = self.autoencoder(M + 15)
        sae.W_dec.data = nn.functional.normalize(activations.feature_vectors, dim=1)
        theirs = self.synthetic.eval_sae_on_synthetic_data(sae, activations, truths, num_samples=100)
        assert theirs.mcc == pytest.approx(1, abs=1e-5)

    @pytest.mark.parametrize("architecture", ["standard", "topk", "batchtopk", "gated", "jumprelu"])
    def test_its_architectures_are_methods_of_the_bench(self, architecture):
        a = NETWORK.layer(FEATURES.sampled(400, 0).dense()).detach()
        name = f"saelens(architecture={architecture},sparsity={2 if architecture.endswith('topk') else 0.01},steps=150)"
        state = torch.random.get_rng_state()
        first, again, other = (fit_dictionary(name, a, 21, seed) for seed in (0, 0, 1))
        assert torch.equal(state, torch.random.get_rng_state())
        z = first.encode(a)
        assert z.shape == (400, 21)
        assert torch.equal(first(a), first.decode(z))
        assert torch.equal(first(a), again(a))
        assert not torch.equal(first(a), other(a))
        assert float((first(a) - a).square().sum() / (a - a.mean(0)).square().sum()) < 0.5
        if architecture == "topk":
            assert int((z != 0).sum(1).max()) <= 2

    def test_wrong_knobs_are_refused(self):
        for knobs, words in (("architecture=nope", "nope"), ("architecture=topk,sparsity=2.5", "a whole number"),
                             ("architecture=topk,sparsity=9", "at most 8"), ("sparsity=-1", "-1")):  # fmt: skip
            with pytest.raises(InputError, match=words):
                check_dictionary(f"saelens({knobs})", 8)
