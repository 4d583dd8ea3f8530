"""Circuits emulated layer by layer: the same as a plain network, errors that grow without correction and not with it."""

import jaxtyping
import pytest
import torch

from toymodels import InputError
from toymodels.circuits.circuit import Circuit
from toymodels.circuits.depth import DepthErrors, errors_by_depth, failing_depth, fold, stages


@pytest.fixture(scope="module")
def deep():
    """Errors over 8 layers without and with correction, on the same circuits and inputs; 3 seeds."""
    found = {False: [], True: []}
    for seed in range(3):
        circuit = Circuit.random(60, 8, seed)
        x = circuit.sample(20, 1, seed)
        for correct, errors in found.items():
            errors.append(errors_by_depth(circuit, stages(circuit, 1200, 1, seed, correct), x))
    return found


def test_without_correction_the_error_grows_until_all_is_wrong(deep):
    for errors in deep[False]:
        assert errors[1].rms < errors[3].rms < errors[5].rms
        assert errors[0].worst < 0.5
        assert failing_depth(errors) is not None
        assert errors[-1].wrong > 0.9


def test_with_correction_it_does_not(deep):
    for errors, without in zip(deep[True], deep[False], strict=True):
        assert failing_depth(errors) is None
        assert max(found.wrong for found in errors) == 0
        assert errors[-1].rms < without[-1].rms


def test_correction_above_its_tolerance_does_not_help():
    """Planted: so many features that a unit's noise passes 1/4 at the error of the first layer."""
    circuit = Circuit.random(400, 4, 0)
    errors = errors_by_depth(circuit, stages(circuit, 200, 3, 0), circuit.sample(10, 3, 0))
    assert failing_depth(errors) == 1
    assert errors[-1].wrong > 0.9


@pytest.mark.parametrize("correct", [False, True])
def test_folded_it_is_a_plain_network_of_width_d(correct):
    """m = 40 values are held by no layer: weights of d × d between the layers, and the same outputs."""
    circuit = Circuit.random(40, 3, 0)
    emulation = list(stages(circuit, 32, 2, 0, correct))
    plain = fold(emulation)
    layers = list(plain)[:-1]
    assert len(layers) == (6 if correct else 3)
    assert [tuple(layer.weight.shape) for layer in layers] == [(32, 40), *[(32, 32)] * (len(layers) - 1)]
    values = x = circuit.sample(10, 2, 0)
    for stage in emulation:
        values = stage.forward(values)
    torch.testing.assert_close(plain(x), values, rtol=1e-4, atol=1e-4)


def test_errors_are_those_of_the_values_read():
    circuit = Circuit.random(20, 2, 0)
    x = circuit.sample(15, 2, 0)
    networks = [stage.computing for stage in stages(circuit, 60, 2, 5, False)]
    errors = errors_by_depth(circuit, stages(circuit, 60, 2, 5, False), x)
    values = x
    for found, network, truth in zip(errors, networks, circuit.run(x), strict=True):
        values = network(values)
        rows = zip(values.tolist(), truth.tolist(), strict=True)
        wrong = [any((v > 0.5) != bool(t) for v, t in zip(*row, strict=True)) for row in rows]
        assert found.worst == pytest.approx(float((values - truth).abs().max()))
        assert found.rms == pytest.approx(float((values - truth).square().mean()) ** 0.5, rel=1e-5)
        assert found.wrong == pytest.approx(sum(wrong) / 15)
        assert found.active == pytest.approx(float(truth.sum(1).mean()))


def test_the_first_failure_is_the_first_above_one_half():
    def at(*worst):
        return [DepthErrors(depth, error, 0.0, 0.0, 1.0) for depth, error in enumerate(worst, 1)]

    assert failing_depth(at(0.1, 0.5, 0.6, 0.2)) == 3
    assert failing_depth(at(0.1, 0.5)) is None
    assert failing_depth(at(0.1, float("nan"))) == 2  # a diverged network has failed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"d": 0}, "d = 0"),
        ({"d": 6}, "at least 8"),
        ({"s": 0}, "s = 0"),
    ],
)
def test_wrong_emulations_are_refused(arguments, words):
    with pytest.raises(InputError, match=words):
        list(stages(Circuit.random(8, 2, 0), **{"d": 40, "s": 1, "seed": 0, **arguments}))


def test_an_emulation_must_be_of_the_whole_circuit():
    circuit, shorter = Circuit.random(8, 2, 0), Circuit.random(8, 1, 0)
    with pytest.raises(InputError, match="1 stages"):
        errors_by_depth(circuit, stages(shorter, 40, 1, 0), circuit.sample(2, 1, 0))
    with pytest.raises(InputError, match="more stages than the circuit's 1 layers"):
        errors_by_depth(shorter, stages(circuit, 40, 1, 0), circuit.sample(2, 1, 0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": -1}, "seed = -1: it must be at least 0"),
        ({"seed": 0.5}, "seed = 0.5"),
        ({"d": 40.5}, "d = 40.5"),
        ({"s": float("nan")}, "s = nan"),
    ],
)
def test_numbers_that_are_not_whole_are_refused(change, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in use, where types are not checked
    with pytest.raises(InputError, match=words):
        list(stages(Circuit.random(8, 2, 0), **{"d": 40, "s": 1, "seed": 0, **change}))
