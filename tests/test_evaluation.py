import math

import numpy as np
import pytest
import torch

from toymodels import evaluation as module
from toymodels.errors import InputError
from toymodels.evaluation import HISTOGRAM_EDGES, evaluate
from toymodels.features import SparseFeatures
from toymodels.layers import IdentityLayer, gaussian
from toymodels.network import Network
from toymodels.readoffs.linear import LinearReadoff
from toymodels.tasks import PairTask


def network(m=9, d=5, outputs=36, seed=0):
    rng = torch.Generator().manual_seed(seed)
    readoff = LinearReadoff(torch.randn(outputs, d, generator=rng) / 4, torch.randn(outputs, generator=rng) / 4)
    return Network(gaussian(m, d, seed), readoff)


@pytest.mark.parametrize("law", [SparseFeatures.at_most(9, 3), SparseFeatures.independent(9, 0.2)])
@pytest.mark.parametrize("block", [7, 1024])
def test_every_figure_equals_the_naive_one(law, block, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", block)
    monkeypatch.setattr(module, "_COLUMNS", block)
    net, task, inputs = network(), PairTask(9, "xor"), law.enumerate()
    result = evaluate(net, task, inputs)
    x = inputs.dense(dtype=torch.float64)
    targets = task.targets(x).numpy()
    outputs = net.double()(x).detach().numpy()
    net.float()
    error = outputs - targets
    weight = np.repeat(inputs.probabilities.numpy()[:, None], 36, 1) / 36
    assert result.worst_error == pytest.approx(np.abs(error).max(), rel=1e-12)
    assert result.rms == pytest.approx(math.sqrt((weight * error**2).sum()), rel=1e-12)
    assert np.allclose(result.output_worst.numpy(), np.abs(error).max(0), rtol=1e-12)
    cases = task.cases(x).numpy()
    groups = [(result.zeros, targets == 0), (result.ones, targets == 1)]
    groups += [(group, cases == c) for c, group in enumerate(result.cases)]
    for group, on in groups:
        share = weight[on].sum()
        assert group.share == pytest.approx(share, rel=1e-9)
        assert group.mean == pytest.approx((weight * error)[on].sum() / share, rel=1e-9)
        assert group.rms == pytest.approx(math.sqrt((weight * error**2)[on].sum() / share), rel=1e-9)
        assert group.worst == pytest.approx(np.abs(error[on]).max(), rel=1e-12)
        order = np.argsort(np.abs(error[on]))
        cumulative = weight[on][order].cumsum() / share
        for q, value in group.quantiles.items():
            exact = np.abs(error[on])[order][np.searchsorted(cumulative, float(q) - 1e-12)]
            assert value == pytest.approx(exact, rel=0.005)
        for tolerance, value in group.within.items():
            assert value == pytest.approx((weight * (np.abs(error) <= float(tolerance) + 1e-6))[on].sum() / share)
    for value in (0, 1):
        inside = np.clip(outputs[targets == value], -1 + 1e-9, 2 - 1e-9)
        expected, _ = np.histogram(inside, HISTOGRAM_EDGES, weights=weight[targets == value])
        assert np.allclose(result.histogram[value], expected / expected.sum(), atol=1e-9)


def test_slices_of_outputs_evaluate_alone():
    net, inputs = network(), SparseFeatures.at_most(9, 2).enumerate()
    task = PairTask(9, "and")
    whole = evaluate(net, task, inputs)
    chosen = torch.tensor([3, 17, 30])
    part = Network(net.layer, LinearReadoff(net.readoff.weight[chosen].detach(), net.readoff.bias[chosen].detach()))
    assert torch.equal(evaluate(part, task.subset(chosen), inputs).output_worst, whole.output_worst[chosen])


def test_predicting_one_half_errs_by_one_half_everywhere():
    task = PairTask(6, "and")
    half = Network(IdentityLayer(6), LinearReadoff.constant(15, 6, 0.5))
    result = evaluate(half, task, SparseFeatures.at_most(6, 2).enumerate())
    assert (result.worst_error, result.zeros.rms, result.ones.rms) == (0.5, 0.5, 0.5)
    assert (result.within["0.25"], result.within["0.5"]) == (0.0, 1.0)
    assert (result.zeros.mean, result.ones.mean) == (0.5, -0.5)


def test_a_target_value_that_never_occurs_leaves_an_empty_group():
    task = PairTask(6, "and")
    result = evaluate(network(6, 4, 15), task, SparseFeatures.exactly(6, 1).enumerate())
    assert (result.ones.share, result.ones.rms, result.ones.worst) == (0.0, 0.0, 0.0)


def test_result_is_plain_json():
    import json

    result = evaluate(network(), PairTask(9, "and"), SparseFeatures.exactly(9, 2).sampled(50, 1))
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["inputs"] == "50 sampled (seed 1)"
    assert len(content["cases"]) == 4


def test_misfits_and_infinities_are_refused():
    inputs = SparseFeatures.at_most(9, 2).enumerate()
    with pytest.raises(InputError, match="another number of outputs"):
        evaluate(network(outputs=3), PairTask(9, "and"), inputs)
    with pytest.raises(InputError, match="must be the same"):
        evaluate(network(), PairTask(8, "and"), inputs)
    bad = network()
    bad.readoff.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match="not a finite number"):
        evaluate(bad, PairTask(9, "and"), inputs)
