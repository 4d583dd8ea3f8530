"""Minimax readoffs: known optima, certificates recomputed here, and what is no proof."""

import dataclasses

import jaxtyping
import numpy as np
import pytest
import torch

from toymodels.core.evaluation import evaluate
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import IdentityLayer
from toymodels.core.least_squares import balanced
from toymodels.core.minimax import GAP, check_minimax, linear_program, measured, minimax
from toymodels.core.network import Network
from toymodels.core.readoffs import fit_readoff
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.layers.random import gaussian

FEATURES = SparseFeatures.at_most(14, 2)


@pytest.mark.parametrize(("gate", "floor"), [("and", 0.25), ("xor", 0.5), ("or", 0.25), ("first", 0.0)])
def test_the_affine_baseline_is_minimax_on_the_identity_layer(form, gate, floor):
    task, inputs = PairTask(14, gate, [(0, 1), (3, 12)]), FEATURES.enumerate()
    fitted = minimax(IdentityLayer(14), task, inputs)
    assert fitted.proved
    # The optimum is tied many times over; the certificate still names no more inputs than a vertex has.
    assert all(len(certificate.rows) <= 14 + 2 for certificate in fitted.certificates)
    assert evaluate(Network(IdentityLayer(14), fitted.readoff), task, inputs).worst_error == pytest.approx(
        floor, abs=1e-7
    )


@pytest.mark.parametrize("gate", ["and", "xor"])
def test_no_other_readoff_beats_it_and_its_errors_are_those_the_evaluation_finds(form, gate):
    layer, task, inputs = gaussian(14, 20, 0), PairTask(14, gate), FEATURES.enumerate()
    best = minimax(layer, task, inputs)
    assert best.proved
    measured = evaluate(Network(layer, best.readoff), task, inputs).output_worst.numpy()
    assert np.allclose(measured, [c.worst_error for c in best.certificates], atol=1e-9)
    rival = evaluate(Network(layer, balanced(layer, task, FEATURES, inputs)), task, inputs).output_worst.numpy()
    assert (measured <= rival + 1e-9).all()
    assert (measured < rival - 1e-3).any()


def test_a_sample_of_inputs_bounds_the_worst_error_from_below(form):
    layer, task = gaussian(14, 20, 0), PairTask(14, "and", [(0, 1), (2, 3)])
    some, every = minimax(layer, task, FEATURES.sampled(60, 0)), minimax(layer, task, FEATURES.enumerate())
    for lower, upper in zip(some.certificates, every.certificates, strict=True):
        assert lower.lower_bound <= upper.worst_error + 1e-9


def test_activations_that_are_not_finite_are_refused(form):
    layer = gaussian(14, 20, 0)
    layer.weight.data[0, 0] = torch.inf
    with pytest.raises(InputError):
        minimax(layer, PairTask(14, "and", [(0, 1)]), FEATURES.enumerate())


def test_too_many_inputs_are_refused_with_the_count():
    with pytest.raises(InputError, match="make 10,586,800, more than 3,000,000"):
        check_minimax(SparseFeatures.exactly(400, 3))
    check_minimax(FEATURES)
    check_minimax(SparseFeatures.exactly(400, 3, "uniform"))  # of real values, it holds for a stated sample


def test_fewer_than_one_process_is_refused(form):
    with pytest.raises(InputError, match="processes = 0"):
        minimax(gaussian(14, 20, 0), PairTask(14, "and"), FEATURES.enumerate(), processes=0)


def test_the_proof_can_be_rechecked_from_what_a_record_stores(form):
    """In three lines of NumPy, for each output: a measure that annihilates activations and has the error for its value."""
    layer, task, inputs = gaussian(14, 20, 0), PairTask(14, "and", [(0, 1), (2, 3), (7, 13)]), FEATURES.enumerate()
    fitted = fit_readoff("minimax", layer, task, inputs)
    assert fitted.facts["proved"]
    x = inputs.dense(dtype=torch.float64)
    with torch.no_grad():
        a = np.column_stack([layer.double()(x).numpy(), np.ones(len(x))])
        worst = (fitted.readoff(layer(x)) - task.targets(x)).abs().amax(0)
    assert torch.allclose(fitted.output_worst, worst, atol=1e-12)
    stored = {name: tensor.numpy() for name, tensor in fitted.tensors.items()}
    for output, target in enumerate(task.targets(x).numpy().T):
        part = slice(*stored["certificate_offsets"][output : output + 2])
        rows, mu = stored["certificate_rows"][part], stored["certificate_multipliers"][part]
        assert np.abs(mu).sum() == pytest.approx(1, abs=1e-12)
        assert np.abs(mu @ a[rows]).max() < 1e-9 * np.abs(a).max()
        assert mu @ target[rows] == pytest.approx(stored["lower_bounds"][output], abs=1e-12)
        assert mu @ target[rows] == pytest.approx(float(worst[output]), abs=1e-6)
    assert fitted.facts["lower_bound"] == stored["lower_bounds"].max()


def test_on_a_sample_the_row_claims_no_worst_error_over_all_inputs(form):
    layer, task = gaussian(14, 20, 0), PairTask(14, "and", [(0, 1)])
    assert fit_readoff("minimax", layer, task, FEATURES.sampled(60, 0)).output_worst is None
    assert fit_readoff("minimax", layer, task, FEATURES.enumerate()).output_worst is not None


def problem(n=40, d=5):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, d)), rng.standard_normal(n)


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_plain_program_is_optimal_whatever_the_scale(scale):
    a, f = problem()
    found, whole = linear_program(a, f), linear_program(a * scale, f * scale)
    assert found.proved
    assert whole.proved
    assert whole.worst_error == pytest.approx(scale * found.worst_error, rel=1e-7)
    assert np.abs(a @ found.coefficients + found.offset - f).max() == pytest.approx(found.worst_error, abs=1e-12)
    rng = np.random.default_rng(1)
    for size in (1e-3, 1e-1, 1.0):
        r, c = found.coefficients + size * rng.standard_normal(5), found.offset + size * rng.standard_normal()
        assert np.abs(a @ r + c - f).max() > found.lower_bound


def test_dead_and_constant_neurons_and_exact_fits_of_the_plain_program():
    a, f = problem()
    more = linear_program(np.column_stack([a, np.zeros(len(a)), np.full(len(a), 3.0)]), f)
    assert more.proved
    assert more.worst_error == pytest.approx(linear_program(a, f).worst_error, abs=1e-9)
    exact = linear_program(a, a @ np.arange(5.0) - 2)
    assert exact.proved
    assert exact.worst_error < 1e-9
    assert (exact.lower_bound, len(exact.rows)) == (0.0, 0)
    for value in (0.0, 1.0, -1e-9, 1e9):
        constant = linear_program(a, np.full(len(a), value))
        assert constant.proved
        assert constant.worst_error == 0


def test_a_measure_that_does_not_annihilate_the_constant_is_no_proof():
    """All of it on one input, where every neuron is silent: it says nothing, because the offset can make up for it."""
    activations, target = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, -1.0]]), np.array([1.0, 0.0, 0.0])
    wrong = measured(activations, target, np.zeros(2), 0.0, np.array([0]), np.array([1.0]))
    assert (wrong.worst_error, wrong.lower_bound) == (1.0, 1.0)
    assert wrong.orthogonality == 1.0
    assert not wrong.proved


def test_bounds_that_cross_are_no_proof():
    found = linear_program(*problem())
    for change, proved in ((0.5, True), (-0.5, True), (2.0, False), (-2.0, False)):
        bound = found.worst_error + change * GAP * found.half_range
        assert dataclasses.replace(found, lower_bound=bound).proved == proved


@pytest.mark.parametrize(
    ("activations", "target", "words"),
    [
        (np.zeros((0, 2)), np.zeros(0), "at least one input"),
        (np.zeros((3, 2), np.float32), np.zeros(3), "float64"),
        (np.full((3, 2), np.nan), np.zeros(3), "activations must be finite"),
        (np.eye(3), np.zeros(4), "one value for each of the 3 inputs"),
        (np.eye(3), np.array([0.0, np.inf, 1.0]), "target must be finite"),
    ],
)
def test_wrong_arrays_are_refused(activations, target, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in use, where types are not checked
    with pytest.raises(InputError, match=words):
        linear_program(activations, target)
