import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from toymodels.fast.tallies import SLACK

from toymodels.core import evaluation as module
from toymodels.core.evaluation import HISTOGRAM_EDGES, evaluate
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.layers import IdentityLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.layers.random import gaussian
from toymodels.theory.gates import Gate


def network(m=9, d=5, outputs=36, seed=0):
    rng = torch.Generator().manual_seed(seed)
    readoff = LinearReadoff(torch.randn(outputs, d, generator=rng) / 4, torch.randn(outputs, generator=rng) / 4)
    return Network(gaussian(m, d, seed), readoff)


class AnyReadoff(torch.nn.Module):
    """A readoff that evaluation knows nothing of, in a task that it knows nothing of."""

    def __init__(self, readoff):
        super().__init__()
        self.readoff = readoff

    def forward(self, a, outputs):
        return self.readoff(a, outputs)


class AnyTask(Task):
    def __init__(self, task):
        self.m, self.n_outputs, self.truth, self.name, self.task = task.m, task.n_outputs, task.truth, "any", task

    def cases(self, x, outputs=slice(None)):
        return self.task.cases(x, outputs)


LISTED = torch.tensor([[3, 1], [1, 3], [0, 8], [3, 1], [7, 2]])


def every_weight_different(law):
    """Probabilities that fall in no runs: one draw for each input."""
    inputs = law.enumerate()
    weight = torch.rand(len(inputs), dtype=torch.float64, generator=torch.Generator().manual_seed(5)) + 0.1
    return dataclasses.replace(inputs, probabilities=weight / weight.sum())


LAWS = {
    "at most": SparseFeatures.at_most(9, 3).enumerate(),
    "exactly": SparseFeatures.exactly(9, 3).enumerate(),
    "independent": SparseFeatures.independent(9, 0.2).enumerate(),
    "sampled": SparseFeatures.at_most(9, 3).sampled(77, 0),
    "weighted": every_weight_different(SparseFeatures.at_most(9, 3)),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("gate", ["xor", "nand"])
@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.parametrize("scale", [1, 1e4, 1e-9])
def test_every_figure_equals_the_naive_one(law, gate, block, scale, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", block)
    monkeypatch.setattr(module, "_COLUMNS", block)
    net, task, inputs = network(), PairTask(9, gate), LAWS[law]
    net.readoff.weight.data.mul_(scale)
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
            assert value == pytest.approx(
                (weight * (np.abs(error) <= float(tolerance) * (1 + SLACK)))[on].sum() / share
            )
    for value in (0, 1):
        drawn = value + error[targets == value] * (1 - SLACK)  # towards the target, as documented
        inside = np.clip(drawn, -1 + 1e-9, 2 - 1e-9)
        expected, _ = np.histogram(inside, HISTOGRAM_EDGES, weights=weight[targets == value])
        assert np.allclose(result.histogram[value], expected / expected.sum(), atol=1e-9)


def numbers(value):
    """Every number of a result, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [number for part in value for number in numbers(part)]
    return [] if isinstance(value, str) else [float(value)]


# Sums of up to 130 inputs × 36 outputs: each addition errs by half a unit of the last place at most, and so in the
# end by less than 4,680 of them relative to the sum of sizes; products of 5 and 9 terms by as many.
ROUNDING = {torch.float64: 4680 * 2.0**-53, torch.float32: 4680 * 2.0**-24}


@pytest.mark.parametrize("gate", ["".join(bits) for bits in itertools.product("01", repeat=4)])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("pairs", [None, LISTED])
def test_the_fast_path_equals_the_general_one(gate, law, pairs, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 50)
    monkeypatch.setattr(module, "_COLUMNS", 25)
    monkeypatch.setattr(module, "_HELD", 400)
    task = PairTask(9, Gate.parse(gate), pairs)
    net = network(outputs=task.n_outputs)
    general = Network(net.layer, AnyReadoff(net.readoff))
    for dtype in (torch.float64, torch.float32):
        fast = evaluate(net, task, LAWS[law], dtype).to_dict()
        slow = evaluate(general, AnyTask(task), LAWS[law], dtype).to_dict()
        # Quantiles and shares are steps: within float32's rounding of a step they may differ, so only sizes are compared.
        if dtype == torch.float32:
            fast, slow = ({k: r[k] for k in ("worst_error", "rms", "output_worst", "n_inputs")} for r in (fast, slow))
        np.testing.assert_allclose(numbers(fast), numbers(slow), rtol=ROUNDING[dtype], atol=ROUNDING[dtype])


@pytest.mark.parametrize("law", LAWS)
def test_the_number_of_threads_changes_no_figure(law, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", 13)
    net, task = network(), PairTask(9, "xor")
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(evaluate(net, task, LAWS[law]).to_dict())
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)
    assert results[0] == results[1] == results[2]


def test_threads_pass_on_what_is_wrong():
    bad = network()
    bad.readoff.weight.data[0, 0] = float("nan")
    try:
        torch.set_num_threads(2)
        with pytest.raises(InputError, match="not a finite number"):
            evaluate(bad, PairTask(9, "and"), LAWS["at most"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("value", [-0.5, 0.0, 0.25, 0.5, 1.0])
def test_an_output_on_the_edge_of_a_bar_belongs_to_the_side_of_its_target(value):
    task = PairTask(6, "xor")
    constant = Network(IdentityLayer(6), LinearReadoff.constant(15, 6, value))
    result = evaluate(constant, task, SparseFeatures.at_most(6, 2).enumerate())
    bars = [round((value + 1) * 100) - (value > target) for target in (0, 1)]
    assert [row.argmax() for row in result.histogram] == bars
    assert np.allclose(result.histogram.max(1), 1, rtol=1e-12)


@pytest.mark.parametrize("value", [1e9, -1e9, 1e300])
def test_errors_beyond_the_bins_are_still_measured(value):
    net = Network(IdentityLayer(6), LinearReadoff.constant(15, 6).double())
    net.readoff.bias.data.fill_(value)
    result = evaluate(net, PairTask(6, "and"), SparseFeatures.exactly(6, 1).enumerate(), torch.float64)
    assert result.worst_error == abs(value)
    assert set(result.zeros.quantiles.values()) == {abs(value)}
    assert result.histogram[0, -1 if value > 0 else 0] == pytest.approx(1, rel=1e-12)


def test_an_input_without_features_alone_and_an_error_of_zero():
    empty = Inputs(6, torch.zeros(1, 0, dtype=torch.int64), torch.ones(1, dtype=torch.float64), True, "the empty input")
    right = Network(IdentityLayer(6), LinearReadoff.constant(15, 6, 1.0))
    result = evaluate(right, PairTask(6, "nand"), empty)
    assert (result.worst_error, result.rms, result.ones.share, result.zeros.share) == (0.0, 0.0, 1.0, 0.0)
    assert set(result.ones.quantiles.values()) == {0.0}
    assert set(result.within.values()) == {1.0}


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
    with pytest.raises(InputError, match="negative"):
        evaluate(network(), PairTask(9, "and"), inputs, tolerances=(-0.1,))
    general = Network(network().layer, AnyReadoff(network(outputs=3).readoff))
    with pytest.raises(InputError, match="another number of outputs"):
        evaluate(general, PairTask(9, "and"), inputs)
    for place in ((0, 0), (35, 4)):
        bad = network()
        bad.readoff.weight.data[place] = float("nan")
        with pytest.raises(InputError, match="not a finite number"):
            evaluate(bad, PairTask(9, "and"), inputs)
