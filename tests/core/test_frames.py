import jaxtyping
import numpy as np
import pytest
import torch

from toymodels import FirstLayer, Network, PairTask, SparseFeatures, evaluate, gaussian, minimax
from toymodels.core.frames import FRAMES, coherence, optimised_frame, random_frame
from toymodels.core.layers import Embedded, embed_before, unwrap
from toymodels.errors import InputError
from toymodels.runs.record import load_network, save_network
from toymodels.theory.floors import welch_bound


@pytest.mark.parametrize("name", FRAMES)
def test_frames_are_unit_vectors_that_a_seed_repeats(name):
    frame = FRAMES[name](20, 12, 0)
    assert frame.shape == (12, 20)
    assert torch.allclose(frame.norm(dim=0), torch.ones(20), atol=1e-6)
    assert torch.equal(frame, FRAMES[name](20, 12, 0))
    assert not torch.equal(frame, FRAMES[name](20, 12, 1))


def test_random_frames_have_cosines_of_variance_one_over_d0():
    frame = random_frame(300, 25, 0).double()
    squares = ((frame.T @ frame)[np.triu_indices(300, 1)] ** 2).numpy() * 25
    # Each is d0 times a Beta(1/2, (d0 − 1)/2): variance 2(d0 − 1)/(d0 + 2). Pairs are uncorrelated.
    assert abs(squares.mean() - 1) < 3 * np.sqrt(2 * 24 / 27 / len(squares))


@pytest.mark.parametrize(("m", "d0"), [(7, 6), (16, 12), (40, 20)])
def test_optimised_frames_lie_between_welch_and_random(m, d0):
    found = coherence(optimised_frame(m, d0, 0))
    assert found >= welch_bound(m, d0) - 1e-6
    assert found < min(coherence(random_frame(m, d0, seed)) for seed in range(20))
    if m == d0 + 1:  # the simplex reaches the bound
        assert found == pytest.approx(welch_bound(m, d0), abs=2e-3)


@pytest.mark.parametrize("d0", [0, 21, -1])
@pytest.mark.parametrize("name", FRAMES)
def test_dimensions_out_of_range_are_refused(name, d0):
    with pytest.raises(InputError, match=f"d0 = {d0}: it must be at (least 1|most 20)"):
        FRAMES[name](20, d0, 0)


FRAME = random_frame(10, 6, 3)


def test_an_embedded_layer_sees_the_sum_of_the_directions():
    layer = Embedded(FRAME, gaussian(6, 15, 0))
    x = SparseFeatures.at_most(10, 3).enumerate().dense()
    assert torch.allclose(layer(x), torch.relu((x @ FRAME.T) @ layer.layer.weight.T), atol=1e-6)
    assert unwrap(layer) is layer.layer
    assert [name for name, _ in layer.named_parameters()] == ["layer.weight", "layer.bias"]  # the frame does not learn


def test_a_construction_behind_a_frame_sees_the_gram_matrix():
    made = FirstLayer((gaussian(10, 15, 0).weight > 0).float().detach(), -torch.ones(15))
    x = SparseFeatures.at_most(10, 3).enumerate().dense(dtype=torch.float64)
    gram = FRAME.double().T @ FRAME.double()
    want = torch.relu(x @ gram @ made.weight.double().T - 1)
    assert torch.allclose(embed_before(FRAME, made).double()(x), want, atol=1e-5)  # W = Ŵ Fᵀ is rounded to float32
    orthonormal = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(0)))[0]
    assert torch.allclose(embed_before(orthonormal, made)(x.float()), made(x.float()), atol=1e-5)


def test_embedded_networks_are_stored_and_measured_as_any_other(tmp_path):
    task, inputs = PairTask(10, "and"), SparseFeatures.at_most(10, 2).enumerate()
    layer = Embedded(FRAME, gaussian(6, 20, 0))
    network = Network(layer, minimax(layer, task, inputs).readoff)
    save_network(tmp_path / "n.safetensors", network, task)
    loaded, _, _ = load_network(tmp_path / "n.safetensors")
    want = evaluate(network, task, inputs)
    assert evaluate(loaded, task, inputs).worst_error == want.worst_error
    # The same layer without an embedding, of the product's weights.
    plain = FirstLayer((layer.layer.weight.double() @ FRAME.double()).detach(), layer.layer.bias.double().detach())
    assert evaluate(Network(plain, network.readoff), task, inputs).worst_error == pytest.approx(
        want.worst_error, abs=1e-9
    )


@pytest.mark.parametrize("name", FRAMES)
@pytest.mark.parametrize(("m", "d0"), [(8, 2.5), (8, 2.0), (8.5, 2), (8, float("nan"))])
def test_sizes_that_are_not_whole_are_refused(name, m, d0, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in use, where types are not checked
    with pytest.raises(InputError, match="whole number"):
        FRAMES[name](m, d0, 0)
