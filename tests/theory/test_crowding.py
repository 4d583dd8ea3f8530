import math

import numpy as np
import pytest
import torch

from toymodels import Network, PairTask, SparseFeatures, evaluate
from toymodels.core.frames import random_frame
from toymodels.core.layers import embed_before
from toymodels.errors import InputError
from toymodels.layers.iid import bernoulli
from toymodels.readoffs.by_class import mean_readoff
from toymodels.theory.bernoulli import bernoulli_errors
from toymodels.theory.crowding import crowded_square, interference


@pytest.mark.parametrize("on", [0, 1, 2])
def test_interference_has_its_predicted_variances(on):
    m, d, d0, s, p = 12, 40, 6, 3, 0.5
    x = torch.zeros(m)
    x[[0, 1][:on] + [2, 3, 4][: s - on]] = 1
    common, own = [], []
    for seed in range(800):
        crisp = bernoulli(m, d, seed, p)
        layer = embed_before(random_frame(m, d0, 10_000 + seed), crisp)
        weight = crisp.weight.detach()
        seen = (weight[:, 0] * weight[:, 1]) > 0
        noise = layer.layer.weight.detach()[seen] @ (layer.frame @ x) - weight[seen] @ x
        n = len(noise)
        if n > 1:
            product = float(noise.sum() ** 2 - (noise**2).sum()) / (n * (n - 1))  # of two different neurons
            common.append(product)
            own.append(float((noise**2).mean()) - product)
    predicted = interference(m, d0, s, p, on)
    for measured, variance in ((common, predicted.common), (own, predicted.own)):
        error = np.std(measured, ddof=1) / math.sqrt(len(measured))
        assert abs(np.mean(measured) - variance) < 3 * error


def test_errors_follow_the_prediction_of_crowding():
    m, d, s, p, layers = 60, 40, 2, 0.3, 50
    inputs, task = SparseFeatures.exactly(m, s).enumerate(), PairTask(m, "and")
    for d0 in (20, 60):
        squares = []
        for seed in range(layers):
            chosen = task.subset(torch.randperm(task.n_outputs, generator=torch.Generator().manual_seed(seed))[:20])
            crisp = bernoulli(m, d, seed, p)
            readoff = mean_readoff(crisp, chosen, s, p, "affine")
            network = Network(embed_before(random_frame(m, d0, 10_000 + seed), crisp), readoff)
            squares.append([case.rms**2 for case in evaluate(network, chosen, inputs).cases.values()])
        error = np.std(squares, axis=0, ddof=1) / math.sqrt(layers)
        predicted = np.array([crowded_square(m, d, d0, s, p, on) for on in (0, 1, 1, 2)])
        assert (np.abs(np.mean(squares, axis=0) - predicted) < 3 * error).all()


def test_without_interference_the_error_is_the_constructions_own():
    # Noise of variance τ² moves E[(a + τZ)⁺] by at most τ/√(2π), which is 1e-6 here, and squares by a few times that.
    for s, p in ((2, 0.3), (4, 0.2)):
        exact = bernoulli_errors(200, s, p, "affine").rms ** 2
        for on in range(3):
            found = crowded_square(30, 200, 10**13, s, p, on)
            assert found == pytest.approx(exact[on], abs=1e-5)


def test_crowding_depends_on_the_ratio_of_features_to_dimensions():
    # Both variances depend on m and d0 through m/d0 alone, but for terms of the order s/d0.
    for d0 in (64, 256, 1024):
        predicted = interference(4 * d0, d0, 2, 0.25, 0)
        assert predicted.common + predicted.own == pytest.approx(2 * 1.0, abs=4 * 2 / d0)
        assert predicted.common / (predicted.common + predicted.own) == pytest.approx(0.25, abs=2 * 2 / d0)


@pytest.mark.parametrize("change", [{"d0": 0}, {"p": 0.0}, {"on": 3}, {"s": 12}, {"m": 2, "s": 1}])
def test_interference_of_what_there_is_not_is_refused(change):
    with pytest.raises(InputError, match="there must be"):
        interference(**{"m": 12, "d0": 6, "s": 2, "p": 0.5, "on": 0, **change})
