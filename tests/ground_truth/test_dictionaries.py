"""Sparse autoencoders: what they compute, and that they find features that were planted."""

import pytest
import torch
from torch import nn

from tests.members import own
from toymodels import InputError
from toymodels.core.seeds import seeded
from toymodels.ground_truth import dictionaries
from toymodels.ground_truth.dictionaries import (
    DICTIONARIES,
    SparseAutoencoder,
    _begin_again,
    check_dictionary,
    fit_autoencoder,
    fit_dictionary,
)

A = torch.randn(200, 5, generator=seeded(0))
X = torch.randn(200, 3, generator=seeded(2))
SAES = [name for name in DICTIONARIES if name != "neurons" and not DICTIONARIES[name].package]


def autoencoder(**about):
    generator = seeded(1)
    decoder = nn.functional.normalize(torch.randn(7, 5, generator=generator), dim=1)
    sae = SparseAutoencoder(decoder, A.mean(0), 2.0, **about)
    with torch.no_grad():
        sae.encoder_bias.copy_(0.1 * torch.randn(7, generator=generator))
        if not sae.tied:
            sae.encoder.copy_(torch.randn(7, 5, generator=generator))
    return sae


@pytest.mark.parametrize("tied", [False, True])
def test_an_autoencoder_is_its_formula(tied):
    sae = autoencoder(tied=tied)
    weight = sae.decoder if tied else sae.encoder
    for row, z, back in zip(A[:20], sae.encode(A[:20]), sae(A[:20]), strict=True):
        expected = torch.stack(
            [(w @ (row / 2 - sae.decoder_bias) + b).clamp(min=0) for w, b in zip(weight, sae.encoder_bias, strict=True)]
        )
        # Sums of 5 products in float32.
        torch.testing.assert_close(z, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            back, 2 * (sum(v * w for v, w in zip(z, sae.decoder, strict=True)) + sae.decoder_bias), rtol=1e-5, atol=1e-5
        )


def test_topk_keeps_the_largest_of_each_input():
    all_ = autoencoder().encode(A)
    kept = autoencoder(k=2).encode(A)
    for z, full in zip(kept.tolist(), all_.tolist(), strict=True):
        largest = sorted(range(7), key=lambda i: -full[i])[:2]
        assert z == [value if i in largest else 0 for i, value in enumerate(full)]


def test_batch_topk_keeps_the_largest_of_a_batch_and_evaluates_by_a_threshold():
    sae = autoencoder(k=2, batch=True)
    full = autoencoder().encode(A).detach()
    z = sae.train().encode(A)
    assert int((z > 0).sum()) == 400
    smallest = full.flatten().sort(descending=True).values[399]
    assert torch.equal(z, torch.where(full >= smallest, full, 0))
    # One step of a running mean from 0.
    assert float(sae.threshold) == pytest.approx(0.01 * float(smallest), rel=1e-5)
    sae.threshold.fill_(0.3)
    assert torch.equal(sae.eval().encode(A), torch.where(full > 0.3, full, 0))
    assert float(sae.threshold) == pytest.approx(0.3)


@pytest.mark.parametrize("name", SAES)
def test_the_same_seed_fits_the_same_dictionary(name):
    knobs = "steps=3,k=2" if "k" in DICTIONARIES[name].knobs else "steps=3"
    first, second, other = (fit_dictionary(f"{name}({knobs})", A, 6, seed, X) for seed in (0, 0, 1))
    read = X if getattr(first, "reads", "") == "inputs" else A
    assert torch.equal(first(read), second(read))
    assert not torch.equal(first(read), other(read))
    assert first(read).shape == A.shape
    assert not any(parameter.requires_grad for parameter in first.parameters())
    torch.testing.assert_close(first.decoder.norm(dim=1), torch.ones(6), rtol=0, atol=1e-6)  # float32


def test_neurons_are_themselves():
    neurons = fit_dictionary("neurons", A, 3)
    assert torch.equal(neurons.encode(A), A)
    assert torch.equal(neurons(A), A)


@pytest.mark.parametrize("about", [{"l1": 0.05}, {"k": 2}, {"k": 2, "batch": True}, {"k": 2, "tied": True}])
def test_planted_directions_are_found(about):
    """Activations are sums of 2 of 8 orthogonal directions: their directions minimise every one of the losses."""
    generator = seeded(0)
    active = torch.rand(2000, 8, generator=generator).argsort(1)[:, :2]
    x = torch.zeros(2000, 8).scatter_(1, active, 0.5 + torch.rand(2000, 2, generator=generator))
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    sae = fit_autoencoder(x @ rotation, 16, 0, steps=400, lr=1e-2, **about)
    cosine = (sae.decoder @ rotation.T).abs().max(0).values
    # P(cos² ≥ 0.81) = I_0.19(7/2, 1/2) = 0.001 for a random direction in 8 dimensions: that one of 16 is as near as this to every
    # one of 8 directions has a probability below (16·0.001)^8.
    assert float(cosine.min()) > 0.9


@pytest.mark.parametrize("about", [{"l1": 0.05}, {"k": 2}])
def test_a_transcoder_is_its_formula_and_finds_planted_functions_of_what_it_reads(about):
    """Activations are sums of 6 functions ReLU(±x_k), in orthogonal directions: they are what an encoder of x can compute."""
    x = torch.randn(2000, 3, generator=seeded(0)) * torch.eye(3)[torch.randint(3, (2000,), generator=seeded(1))]
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=seeded(2))).Q
    truth = torch.cat([x, -x], 1).relu()
    fitted = fit_autoencoder(truth @ rotation, 12, 0, steps=600, lr=1e-2, reads=x, **about)
    z = (x @ fitted.encoder.T + fitted.encoder_bias).relu()
    if "k" in about:
        z = torch.where(z >= z.sort(1, descending=True).values[:, [1]], z, 0)
    torch.testing.assert_close(fitted.encode(x), z)
    torch.testing.assert_close(fitted(x), fitted.scale * (z @ fitted.decoder + fitted.decoder_bias))
    table = torch.corrcoef(torch.cat([z[:, z.std(0) > 0], truth], 1).T)[:-6, -6:]
    assert float(table.max(0).values.min()) > 0.9
    shuffled = fit_autoencoder(truth @ rotation, 12, 0, steps=600, lr=1e-2, reads=x.flip(0), **about)
    assert float((shuffled(x.flip(0)) - truth @ rotation).square().mean()) > 0.5 * float(truth.var())


def test_dead_latents_begin_again_and_others_stay():
    generator = seeded(0)
    sae = autoencoder()
    optimiser = torch.optim.Adam(sae.parameters())
    sae(A).square().sum().backward()
    optimiser.step()
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    dead = torch.tensor([True, False, False, True, False, False, False])
    with torch.no_grad():
        _begin_again(sae, dead, A, A, optimiser, generator)
    for name in ("encoder", "decoder", "encoder_bias"):
        parameter, moments = getattr(sae, name), optimiser.state[getattr(sae, name)]
        assert torch.equal(parameter[~dead], before[name][~dead])
        assert not torch.equal(parameter[dead], before[name][dead])
        assert float(moments["exp_avg_sq"][dead].abs().max()) == 0 < float(moments["exp_avg_sq"][~dead].max())
    sae.requires_grad_(False)
    directions = nn.functional.normalize(A / 2 - sae.decoder_bias, dim=1)
    assert float((sae.decoder[dead] @ directions.T).max(1).values.min()) == pytest.approx(1, abs=1e-5)
    length = 0.2 * sae.encoder[~dead].norm(dim=1).mean()
    torch.testing.assert_close(sae.encoder[dead], length * sae.decoder[dead])
    assert float(sae.encoder_bias[dead].abs().max()) == 0


def test_latents_that_were_not_active_lately_begin_again(monkeypatch):
    live, begun = [], []
    monkeypatch.setattr(dictionaries, "_begin_again", lambda sae, dead, *_: begun.append((len(live), dead.tolist())))
    fit_autoencoder(
        A, 30, 0, l1=1.0, lr=5e-2, steps=80, inputs=2000, resample=20,
        watch=lambda step, sae: live.append((sae.encode(A) > 0).any(0)),
    )  # fmt: skip
    # `live` holds the latents after steps 0, 1, …: what is active in step t is what lives after step t − 1 (a batch
    # holds each row).
    assert begun == [(t, (~torch.stack(live[t - 20 : t]).any(0)).tolist()) for t in (20, 40)]
    assert [sum(dead) > 0 for _, dead in begun] == [False, True]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fit_dictionary("transcoder", A, 4), "transcoder reads what the layer reads: give it as inputs"),
        (lambda: fit_dictionary("transcoder", A, 4, 0, X[:5]), "a row for each of the 200 rows"),
        (lambda: fit_dictionary("transcoder", A, 4, 0, 3), "inputs is of the kind int"),
        (lambda: fit_autoencoder(A, 4, 0, resample=5, tied=True), "leave tied out"),
        (lambda: fit_dictionary("nope", A, 4), "unknown sparse dictionary"),
        (lambda: fit_dictionary("topk(k=5)", A, 4), "k = 5: it must be at most 4"),
        (lambda: fit_dictionary("topk(k=0)", A, 4), "k = 0: it must be at least 1"),
        (lambda: fit_dictionary("l1(l1=-1)", A, 4), "l1 = -1"),
        (lambda: fit_dictionary("l1(steps=0)", A, 4), "steps = 0"),
        (lambda: fit_dictionary("l1(lr=0)", A, 4), "lr = 0"),
        (lambda: fit_dictionary("l1(tied=2)", A, 4), "tied = 2"),
        (lambda: fit_dictionary("l1(tied=0.5)", A, 4), "tied"),
        (lambda: fit_autoencoder(A, 4, 0, tied=0.5), "tied"),
        (lambda: fit_dictionary("l1", A, 0), "latents = 0"),
        (lambda: fit_dictionary("l1", 3, 4), "activations is of the kind int"),
        (lambda: fit_dictionary("l1", A[:0], 4), "must be a table of finite numbers"),
        (lambda: fit_dictionary("l1", A * float("nan"), 4), "must be a table of finite numbers"),
        (lambda: fit_dictionary("l1", torch.ones(9, 4), 4), "all activations are the same"),
        (lambda: check_dictionary(3, 4), "name is of the kind int"),
    ],
)
@pytest.mark.unchecked
def test_wrong_calls_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_a_method_of_ones_own_is_fitted_by_its_name(monkeypatch):
    own(monkeypatch, DICTIONARIES)

    @DICTIONARIES("mine", source="this test")
    def mine(activations, latents, *, gain=2.0):
        """Return a dictionary."""
        return autoencoder() if gain < 3 else "nothing"

    assert fit_dictionary("mine(gain=1)", A, 7).encode(A).shape == (200, 7)
    with pytest.raises(InputError, match="must be a module with encode and decode"):
        fit_dictionary("mine(gain=5)", A, 7)


def test_a_transcoder_does_not_begin_again():
    rows = torch.rand(20, 5, generator=torch.Generator().manual_seed(0))
    with pytest.raises(InputError, match="leave it out"):
        fit_autoencoder(rows, 4, 0, resample=2, reads=rows[:, :3])
