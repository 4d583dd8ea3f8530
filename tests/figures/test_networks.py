"""Weights are those stored, and readoff weights are grouped by the signs of the neuron's weights on the pair."""

from pathlib import Path

import numpy as np
import pytest

from toymodels.figures.networks import Weights, _draw

PAIRS = np.array([[0, 1], [0, 2], [1, 2]])


def test_readoff_weights_fall_into_their_class():
    weight = np.array([[1.0, 2.0, -1.0], [-1.0, 0.0, 3.0]])  # neurons × features; 0 counts as negative
    readoff = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # outputs × neurons
    both, first, second, none = Weights(weight, readoff, PAIRS).by_class()
    rms = np.sqrt(np.mean(readoff**2))
    assert both * rms == pytest.approx([1])
    assert first * rms == pytest.approx([3, 5])
    assert second * rms == pytest.approx([4, 6])
    assert none * rms == pytest.approx([2])


def test_gaussian_layers_have_the_shape_and_the_variance():
    network = Weights(3 * np.random.default_rng(1).standard_normal((200, 100)), np.ones((1, 200)))
    values = network.gaussian(20)
    assert values.shape == (20, 100)
    # Σσ² = Σw²: its mean is 20,000·scale², its relative error √(2/20,000) a layer.
    assert np.mean((values**2).sum(axis=1)) == pytest.approx(20_000 * network.scale**2, rel=4 * 0.01 / 20**0.5)


@pytest.mark.parametrize(("pairs", "panels"), [(PAIRS, 3), (None, 2)])
def test_a_task_without_pairs_has_no_classes(pairs, panels):
    rng = np.random.default_rng(0)
    network = Weights(rng.standard_normal((5, 3)), rng.standard_normal((3, 5)), pairs)
    drawing = _draw("relu", network, Path("relu-seed-0/trained-minimax.safetensors"), {"m": 3, "d": 5})
    assert len(drawing.figure.axes) == panels
    assert ("boxes" in drawing.figure.get_suptitle()) == ("class" in drawing.text) == (pairs is not None)
    assert "seed 0, readoff minimax" in drawing.figure.get_suptitle()
