import json
import math

import numpy as np
import pytest
import torch

from tests.core.networks import INPUTS, AnyReadoff, network
from toymodels.core import evaluation as plain_module
from toymodels.core.evaluation import HISTOGRAM_EDGES, HUNDREDTHS, SLACK, TOLERANCES, Group, evaluate
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.layers import IdentityLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.errors import InputError
from toymodels.fast import evaluation as module


def check_every_figure(net, task, inputs):
    """Every number of an evaluation, from a table of all errors."""
    result = evaluate(net, task, inputs)
    x = inputs.dense(dtype=torch.float64)
    targets = task.targets(x).numpy()
    outputs = net.double()(x).detach().numpy()
    net.float()
    error = outputs - targets
    weight = np.repeat(inputs.probabilities.numpy()[:, None], task.n_outputs, 1) / task.n_outputs
    assert result.worst_error == pytest.approx(np.abs(error).max(), rel=1e-12)
    assert result.rms == pytest.approx(math.sqrt((weight * error**2).sum()), rel=1e-12)
    assert np.allclose(result.output_worst.numpy(), np.abs(error).max(0), rtol=1e-12)
    assert (result.n_inputs, result.n_outputs, result.inputs) == (len(inputs), task.n_outputs, inputs.description)
    cases = task.cases(x).numpy()
    members = {name: np.isin(cases, list(numbers)) for name, numbers in task.groups.items()}
    groups = [(result.groups[name], on) for name, on in members.items()]
    groups += [(result.cases[name], cases == c) for c, name in enumerate(task.case_labels)]
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
        for tolerance, value in zip(TOLERANCES, group.within.values(), strict=True):
            assert value == pytest.approx((weight * (np.abs(error) <= tolerance * (1 + SLACK)))[on].sum() / share)
    for tolerance, value in zip(TOLERANCES, result.within.values(), strict=True):
        assert value == pytest.approx((weight * (np.abs(error) <= tolerance * (1 + SLACK))).sum())
    for name, on in members.items():
        target = 0 if task.truth is None else {"zeros": 0, "ones": 1}[name]
        drawn = target + error[on] * (1 - SLACK)  # towards the target, as documented
        inside = np.clip(drawn, -1 + 1e-9, 2 - 1e-9)
        expected, _ = np.histogram(inside, HISTOGRAM_EDGES, weights=weight[on])
        assert np.allclose(result.histogram[name], expected / expected.sum(), atol=1e-9)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("gate", ["xor", "nand"])
@pytest.mark.parametrize(("block", "scale"), [(7, 1), (1024, 1e4), (1024, 1e-9)])
def test_every_figure_equals_the_naive_one(form, name, gate, block, scale, monkeypatch):
    monkeypatch.setattr(module, "_ROWS", block)
    monkeypatch.setattr(module, "_COLUMNS", block)
    monkeypatch.setattr(plain_module, "_ENTRIES", 36 * block)
    net = network()
    net.readoff.weight.data.mul_(scale)
    check_every_figure(net, PairTask(9, gate), INPUTS[name])


class Products(Task):
    """x_i x_(i + 1): real targets, active where both features are."""

    name = "products"

    def __init__(self, m):
        self.m, self.n_outputs = m, m - 1

    def cases(self, x, outputs=slice(None)):
        return (self.targets(x, outputs) != 0).long()

    def targets(self, x, outputs=slice(None)):
        return (x[:, :-1] * x[:, 1:])[:, outputs]


@pytest.mark.parametrize("values", ["uniform", "symmetric", "constant(value=0.5)"])
@pytest.mark.parametrize("task", [Products(9), PairTask(9, "xor")], ids=["products", "xor"])
def test_every_figure_of_features_with_values_and_of_real_targets(form, task, values):
    inputs = SparseFeatures.independent(9, 0.3, values).sampled(200, 1)
    check_every_figure(network(outputs=task.n_outputs), task, inputs)


@pytest.mark.parametrize("value", [-0.5, 0.0, 0.25, 0.5, 1.0])
def test_an_output_on_the_edge_of_a_bar_belongs_to_the_side_of_its_target(form, value):
    task = PairTask(6, "xor")
    constant = Network(IdentityLayer(6), LinearReadoff.constant(15, 6, value))
    result = evaluate(constant, task, SparseFeatures.at_most(6, 2).enumerate())
    for group, target in (("zeros", 0), ("ones", 1)):
        bar = round((value + 1) * 100) - (value > target)
        assert result.histogram[group].argmax() == bar
        assert result.histogram[group][bar] == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("error", [1e-16, -1e-16, -0.0])
def test_an_error_of_roundings_size_lies_in_the_bar_of_its_target(form, error):
    assert abs(error) < HUNDREDTHS[1] / 100
    constant = Network(IdentityLayer(6), LinearReadoff.constant(15, 6, error).double())
    result = evaluate(constant, PairTask(6, "and"), SparseFeatures.exactly(6, 1).enumerate())
    assert result.histogram["zeros"][100] == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("tolerance", TOLERANCES)
@pytest.mark.parametrize("name", ["exactly", "weighted", "weighted, ends alike"])
def test_an_error_a_little_above_a_tolerance_meets_it(form, tolerance, name):
    """By up to a share of SLACK: a certified worst error of 1/4 is within 1/4, however it is rounded."""
    for share, met in ((0.5, 1.0), (2.0, 0.0)):
        value = tolerance * (1 + share * SLACK)
        constant = Network(IdentityLayer(9), LinearReadoff.constant(36, 9, value).double())
        constant.readoff.bias.data.fill_(value)
        result = evaluate(constant, PairTask(9, "false"), INPUTS[name])
        assert result.within[f"{tolerance:g}"] == pytest.approx(met, abs=1e-12)


@pytest.mark.parametrize("value", [1e9, -1e9, 1e300])
def test_errors_beyond_the_bins_are_still_measured(form, value):
    net = Network(IdentityLayer(6), LinearReadoff.constant(15, 6).double())
    net.readoff.bias.data.fill_(value)
    result = evaluate(net, PairTask(6, "and"), SparseFeatures.exactly(6, 1).enumerate(), torch.float64)
    assert result.worst_error == abs(value)
    assert set(result.zeros.quantiles.values()) == {abs(value)}
    assert result.histogram["zeros"][-1 if value > 0 else 0] == pytest.approx(1, rel=1e-12)


def test_an_input_without_features_alone_and_an_error_of_zero(form):
    empty = Inputs(6, torch.zeros(1, 0, dtype=torch.int64), torch.ones(1, dtype=torch.float64), True, "the empty input")
    right = Network(IdentityLayer(6), LinearReadoff.constant(15, 6, 1.0))
    result = evaluate(right, PairTask(6, "nand"), empty)
    assert (result.worst_error, result.rms, result.ones.share, result.zeros.share) == (0.0, 0.0, 1.0, 0.0)
    assert set(result.ones.quantiles.values()) == {0.0}
    assert set(result.within.values()) == {1.0}


def test_slices_of_outputs_evaluate_alone(form):
    net, inputs = network(), SparseFeatures.at_most(9, 2).enumerate()
    task = PairTask(9, "and")
    whole = evaluate(net, task, inputs)
    chosen = torch.tensor([3, 17, 30])
    part = Network(net.layer, LinearReadoff(net.readoff.weight[chosen].detach(), net.readoff.bias[chosen].detach()))
    assert torch.equal(evaluate(part, task.subset(chosen), inputs).output_worst, whole.output_worst[chosen])


def test_predicting_one_half_errs_by_one_half_everywhere(form):
    task = PairTask(6, "and")
    half = Network(IdentityLayer(6), LinearReadoff.constant(15, 6, 0.5))
    result = evaluate(half, task, SparseFeatures.at_most(6, 2).enumerate())
    assert result.worst_error == 0.5
    assert (result.within["0.25"], result.within["0.5"]) == (0.0, 1.0)
    found = (result.zeros.rms, result.ones.rms, result.zeros.mean, result.ones.mean)
    assert found == pytest.approx((0.5, 0.5, 0.5, -0.5), rel=1e-15)


def test_a_target_value_that_never_occurs_leaves_an_empty_group(form):
    task = PairTask(6, "and")
    result = evaluate(network(6, 4, 15), task, SparseFeatures.exactly(6, 1).enumerate())
    none = dict.fromkeys(("0.5", "0.9", "0.99", "0.999"), 0.0)
    assert result.ones == Group(0.0, 0.0, 0.0, 0.0, none, dict.fromkeys(("0.05", "0.1", "0.25", "0.5"), 1.0))
    assert not result.histogram["ones"].any()


def constants(biases):
    """A network whose outputs are constant, on one input with nothing on."""
    readoff = LinearReadoff(torch.zeros(len(biases), 4).double(), torch.tensor(biases, dtype=torch.float64))
    return evaluate(Network(IdentityLayer(4), readoff), PairTask(4, "and"), SparseFeatures.exactly(4, 1).enumerate())


def test_a_quantile_beyond_the_bins_is_the_worst_error(form):
    """The bins end at 2^29 hundredths; what lies above is not told apart."""
    assert HUNDREDTHS[-1] == 2.0**29
    beyond = constants((5.4e6, 5.4e6, 5.4e6, 5.4e6, 5.4e6, 6e6)).zeros.quantiles
    assert set(beyond.values()) == {6e6}
    below = constants((5.2e6, 5.2e6, 5.2e6, 5.2e6, 5.2e6, 6e6)).zeros.quantiles
    assert below["0.5"] == pytest.approx(5.2e6, rel=0.005)


def test_quantiles_are_reached_by_half_exceed_no_error_and_are_0_below_all_bins(form):
    median = {biases: constants(biases).zeros.quantiles["0.5"] for biases in (
        (0.125, 0.125, 0.125, 0.4, 0.4, 0.4),  # the share 1/2 is reached exactly
        (0.125, 0.125, -0.4, 0.4, 0.4, 0.4),
        (0.0, 0.0, 0.0, 0.0, 0.0, 0.4),
        (1e-16, 1e-16, -1e-16, 1e-16, 1e-16, 0.4),
    )}  # fmt: skip
    assert list(median.values()) == pytest.approx([0.125, 0.4, 0.0, 0.0], rel=0.005, abs=0)
    # 100 · 0.2601 lies below the middle of the bin that begins at 26.
    assert set(constants((0.2601,) * 6).zeros.quantiles.values()) == {0.2601}


def test_the_network_itself_stays_as_it_is(form):
    net = network().train()
    evaluate(net, PairTask(9, "and"), INPUTS["at most"])
    assert net.training
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}


def test_result_is_plain_json(form):
    result = evaluate(network(), PairTask(9, "and"), SparseFeatures.exactly(9, 2).sampled(50, 1))
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["inputs"] == "50 sampled (seed 1)"
    assert list(content["cases"]) == ["00", "01", "10", "11"]
    assert list(content["groups"]) == list(content["histogram"]) == ["zeros", "ones"]


def test_misfits_and_infinities_are_refused(form):
    inputs = SparseFeatures.at_most(9, 2).enumerate()
    with pytest.raises(InputError, match="another number of outputs"):
        evaluate(network(outputs=3), PairTask(9, "and"), inputs)
    with pytest.raises(InputError, match="must be the same"):
        evaluate(network(), PairTask(8, "and"), inputs)
    general = Network(network().layer, AnyReadoff(network(outputs=3).readoff))
    with pytest.raises(InputError, match="another number of outputs"):
        evaluate(general, PairTask(9, "and"), inputs)
    for place in ((0, 0), (35, 4)):
        bad = network()
        bad.readoff.weight.data[place] = float("nan")
        with pytest.raises(InputError, match="not a finite number"):
            evaluate(bad, PairTask(9, "and"), inputs)
