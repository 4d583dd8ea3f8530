import numpy as np
import pytest
import torch

from toymodels.errors import InputError
from toymodels.evaluation import evaluate
from toymodels.features import SparseFeatures
from toymodels.layers import IdentityLayer, gaussian
from toymodels.network import Network
from toymodels.readoffs.least_squares import balanced
from toymodels.readoffs.minimax import check_minimax, minimax
from toymodels.tasks import PairTask

FEATURES = SparseFeatures.at_most(14, 2)


@pytest.mark.parametrize(("gate", "floor"), [("and", 0.25), ("xor", 0.5), ("or", 0.25), ("first", 0.0)])
def test_the_affine_baseline_is_minimax_on_the_identity_layer(gate, floor):
    task, inputs = PairTask(14, gate, [(0, 1), (3, 12)]), FEATURES.enumerate()
    fitted = minimax(IdentityLayer(14), task, inputs)
    assert fitted.proved
    # The optimum is tied many times over; the certificate still names no more inputs than a vertex has.
    assert all(len(certificate.rows) <= 14 + 2 for certificate in fitted.certificates)
    assert evaluate(Network(IdentityLayer(14), fitted.readoff), task, inputs).worst_error == pytest.approx(
        floor, abs=1e-7
    )


@pytest.mark.parametrize("gate", ["and", "xor"])
def test_no_other_readoff_beats_it_and_its_errors_are_those_the_evaluation_finds(gate):
    layer, task, inputs = gaussian(14, 20, 0), PairTask(14, gate), FEATURES.enumerate()
    best = minimax(layer, task, inputs)
    assert best.proved
    measured = evaluate(Network(layer, best.readoff), task, inputs).output_worst.numpy()
    assert np.allclose(measured, [c.worst_error for c in best.certificates], atol=1e-9)
    rival = evaluate(Network(layer, balanced(layer, task, FEATURES, inputs)), task, inputs).output_worst.numpy()
    assert (measured <= rival + 1e-9).all()
    assert (measured < rival - 1e-3).any()


def test_a_sample_of_inputs_bounds_the_worst_error_from_below():
    layer, task = gaussian(14, 20, 0), PairTask(14, "and", [(0, 1), (2, 3)])
    some, every = minimax(layer, task, FEATURES.sampled(60, 0)), minimax(layer, task, FEATURES.enumerate())
    for lower, upper in zip(some.certificates, every.certificates, strict=True):
        assert lower.lower_bound <= upper.worst_error + 1e-9


def test_activations_that_are_not_finite_are_refused():
    layer = gaussian(14, 20, 0)
    layer.weight.data[0, 0] = torch.inf
    with pytest.raises(InputError):
        minimax(layer, PairTask(14, "and", [(0, 1)]), FEATURES.enumerate())


def test_too_many_inputs_are_refused_with_the_count():
    with pytest.raises(InputError, match="make 1,313,400, more than 200,000"):
        check_minimax(SparseFeatures.exactly(200, 3))
    check_minimax(FEATURES)
