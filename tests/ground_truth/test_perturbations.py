"""What stands behind a readoff, the exponent of moves, and moves by latents are what their definitions say."""

import math

import pytest
import torch

from toymodels import InputError, Network, PairTask, SparseFeatures, feature_vectors, minimax
from toymodels.circuits.correction import correction_layer
from toymodels.core.seeds import seeded
from toymodels.ground_truth.dictionaries import fit_dictionary
from toymodels.ground_truth.perturbations import exponent, outputs_behind, sensitivities
from toymodels.layers.random import gaussian

M, D = 5, 30
TASK = PairTask(M, "and")
INPUTS = SparseFeatures.at_most(M, 2).enumerate()
LAYER = gaussian(M, D, 0)
NETWORK = Network(LAYER, minimax(LAYER, TASK, INPUTS).readoff).requires_grad_(False)
A = LAYER(INPUTS.dense()).detach().double()
E = torch.eye(4, dtype=torch.float64)
BASES = torch.zeros(6, 4, dtype=torch.float64) + 0.01


def towards(*columns):
    return E[list(columns)].repeat(2, 1)


U, V = towards(0, 1, 2), towards(1, 2, 3)


@pytest.mark.parametrize(
    ("outputs", "p"),
    [
        (lambda a: a - 0.01, 2.0),
        (lambda a: 7 * (a - 0.01), 2.0),
        (lambda a: (a - 0.01) * torch.tensor([1.0, 3, 1, 3]), 2.0),  # r_0 and r_90 differ
        (lambda a: (a - 0.01) ** 2, 4.0),  # the length of the move is √(x⁴ + y⁴)
        (lambda a: (a - 0.01) ** 3, 6.0),
    ],
)
def test_the_exponent_of_a_known_norm_is_found(outputs, p):
    found = exponent(outputs, BASES, U, V, tau=0.01, reach=50)
    # Radii are interpolated on a grid of 400: exact for linear functions, a few parts in a thousand for curved ones.
    assert found.p == pytest.approx(p, rel=0.02)
    assert found.used == 6


def test_bases_that_never_move_far_enough_are_left_out():
    assert exponent(lambda a: 0 * a, BASES, U, V) is None
    outputs = lambda a: a * torch.arange(1, 7)[:, None].gt(2)  # noqa: E731
    assert exponent(outputs, BASES, U, V, tau=0.05, reach=50).used == 4


def test_an_exponent_without_a_minimum_is_nan():
    """The outputs move by the larger of both coordinates, so radii are those of a square, p → ∞."""
    found = exponent(lambda a: (a - 0.01).amax(1, keepdim=True), BASES, U, V, tau=0.01, reach=50)
    assert math.isnan(found.p)
    assert found.used == 6


def test_thresholds_and_correction_stand_behind_the_readoff():
    linear, thresholded, corrected = (outputs_behind(NETWORK, TASK, name, 1, seed=2) for name in
                                      ("linear", "thresholded", "corrected"))  # fmt: skip
    o = NETWORK.readoff(A)
    assert torch.equal(linear(A), o)
    expected = (2 * o - 0.5).clamp(0, 1)
    torch.testing.assert_close(thresholded(A), expected)
    torch.testing.assert_close(corrected(A), correction_layer(10, 400, 1, 2).double()(o))
    truth = TASK.targets(INPUTS.dense())
    assert float((o - truth).abs().max()) < 0.25  # the premise of error correction
    assert float((thresholded(A) - truth).abs().max()) == 0
    with pytest.raises(InputError, match="nope"):
        outputs_behind(NETWORK, TASK, "nope")
    with pytest.raises(InputError, match="active = '1'"):
        outputs_behind(NETWORK, TASK, "corrected", "1")


def test_thresholds_remove_short_moves_and_not_long_ones():
    vectors, fitted = (
        feature_vectors(NETWORK, TASK, SparseFeatures.at_most(M, 2)),
        fit_dictionary("topk(k=2,steps=50)", A, 8),
    )
    margin = 0.25 - float((NETWORK.readoff(A) - TASK.targets(INPUTS.dense())).abs().max())
    behind = outputs_behind(NETWORK, TASK, "thresholded")
    length = (fitted(A.float()) - A).norm(dim=1).max()
    # No output moves by more than |W row|·length: below the margin nothing passes a threshold.
    short = 0.9 * margin / float(NETWORK.readoff.weight.norm(dim=1).max() * length)
    assert set(sensitivities(fitted, NETWORK, vectors, INPUTS, behind=behind, factor=short).values()) == {0.0}
    long = sensitivities(fitted, NETWORK, vectors, INPUTS, behind=behind, factor=10 / float(length))
    # A move along a feature alone makes no AND.
    assert long.pop("sensitivity_features") < min(long.values())
    assert all(value > 0 for value in long.values())
    # Behind a linear readoff the change per length does not depend on the length.
    one, ten = (sensitivities(fitted, NETWORK, vectors, INPUTS, 1, factor=factor) for factor in (1, 10))
    assert one == pytest.approx(ten, rel=1e-6)


def test_moves_by_latents_keep_the_active_latents():
    from toymodels.ground_truth.perturbations import _by_latents

    fitted = fit_dictionary("topk(k=2,steps=50)", A, 8)
    moves = _by_latents(fitted, A.float(), seeded(0))
    z = fitted.encode(A.float())
    for move, active in zip(moves, z > 0, strict=True):
        rows = fitted.decoder[active].double()
        rest = move - move @ torch.linalg.pinv(rows) @ rows if len(rows) else move
        assert float(rest.norm()) <= 1e-5 * max(float(move.norm()), 1.0)


@pytest.mark.parametrize(
    ("wrong", "words"), [({"tau": 0}, "tau = 0"), ({"angles": 0}, "angles = 0"), ({"radii": 1}, "radii = 1")]
)
def test_wrong_numbers_are_refused(wrong, words):
    with pytest.raises(InputError, match=words):
        exponent(lambda a: a, BASES, U, V, **wrong)
