"""L-BFGS in a Kronecker-factored metric."""

import copy
import math

import pytest
import torch

from toymodels.core import training
from toymodels.core.features import SparseFeatures
from toymodels.core.kfac import HISTORY, Block, PreconditionedLBFGS, curvature, groups_of
from toymodels.core.layers import Embedded, FirstLayer
from toymodels.core.least_squares import least_squares
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.settings import TrainingSettings
from toymodels.core.tasks import PairTask
from toymodels.core.training import ROUNDING, Trainer
from toymodels.layers.random import gaussian
from toymodels.runs.loop import train

FEATURES, TASK = SparseFeatures.at_most(8, 2), PairTask(8, "and")


def network(d=12, seed=0, dtype=torch.float32):
    return Network(gaussian(8, d, seed), LinearReadoff.constant(TASK.n_outputs, d)).to(dtype)


def trainer(net, steps, **settings):
    return Trainer(net, TASK, FEATURES, TrainingSettings(optimiser="kfac", steps=steps, **settings), 0)


def test_the_metric_of_a_squared_loss_of_a_frozen_layer_is_its_curvature():
    """So that the second step, of full length, is Newton's, and few steps reach the least-squares readoff."""
    net = network(dtype=torch.float64)
    net.layer.requires_grad_(False)
    one = trainer(net, 10, p=(2.0,), weight=1.0, root=False)
    train(one)
    best = Network(net.layer, least_squares(net.layer, TASK, FEATURES.enumerate()))
    x, targets = FEATURES.enumerate().dense(dtype=torch.float64), TASK.targets(FEATURES.enumerate().dense())
    reached, least = (float((each(x).detach() - targets).square().mean()) for each in (net, best))
    assert (1 - 1e-12) * least <= reached < 1.001 * least
    plain = Trainer(
        network(dtype=torch.float64), TASK, FEATURES, TrainingSettings("lbfgs", 10, p=(2.0,), weight=1.0), 0
    )
    plain.network.layer.requires_grad_(False)
    train(plain)
    assert float((plain.network(x).detach() - targets).square().mean()) > 1.01 * least


def test_half_the_steps_reach_the_loss_of_lbfgs():
    losses = {}
    for optimiser, steps in (("kfac", 150), ("lbfgs", 300)):
        losses[optimiser] = 0.0
        for seed in range(3):
            net = Network(gaussian(16, 24, seed), LinearReadoff.constant(120, 24))
            settings = TrainingSettings(optimiser=optimiser, steps=steps)
            one = Trainer(net, PairTask(16, "and"), SparseFeatures.at_most(16, 2), settings, seed)
            while not one.finished:
                progress = one.advance()
            losses[optimiser] += float(progress.loss)
    assert losses["kfac"] < losses["lbfgs"]


def test_the_metric_is_what_its_formula_says():
    net, inputs = network(seed=1, dtype=torch.float64), FEATURES.enumerate()
    torch.manual_seed(0)
    with torch.no_grad():
        net.readoff.weight.normal_()
    readoff, layer = curvature(net, inputs)
    x, share = inputs.dense(dtype=torch.float64), inputs.probabilities

    def gram(values):
        joined = torch.cat([values, torch.ones(len(values), 1, dtype=torch.float64)], 1)
        matrix = joined.T @ (share[:, None] * joined)
        return matrix + 1e-3 * matrix.diagonal().mean() * torch.eye(len(matrix), dtype=torch.float64)

    torch.testing.assert_close(
        readoff.right @ gram(net.layer(x).detach()), torch.eye(13, dtype=torch.float64), atol=1e-8, rtol=0
    )
    torch.testing.assert_close(layer.right @ gram(x), torch.eye(9, dtype=torch.float64), atol=1e-8, rtol=0)
    weight = net.readoff.weight.detach()
    outputs = weight.T @ weight
    least = 1e-2 * 28 / float((share[:, None] * net.layer(x).detach().square()).sum() + 1)
    damped = outputs + 0.1 * (outputs.diagonal().mean() + least) * torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(layer.left @ damped, torch.eye(12, dtype=torch.float64), atol=1e-8, rtol=0)
    slopes = torch.randn(12, 9, dtype=torch.float64)
    torch.testing.assert_close(layer.apply(slopes), layer.left @ slopes @ layer.right)


def test_layers_of_every_kind_have_a_metric_or_none():
    inputs = FEATURES.enumerate()
    embedded = Network(Embedded(torch.eye(8), gaussian(8, 6, 0)), LinearReadoff.constant(28, 6))
    assert len(curvature(embedded, inputs)) == 2
    other = Network(torch.nn.Sequential(torch.nn.Linear(8, 6), torch.nn.ReLU()), LinearReadoff.constant(28, 6))
    assert [block.parameters for block in curvature(other, inputs)] == [(other.readoff.weight, other.readoff.bias)]
    assert curvature(Network(gaussian(8, 6, 0), torch.nn.Sequential(torch.nn.Linear(6, 28))), inputs) == []
    # The readoff's offsets stay as they are: they are not part of the metric.
    still = network()
    still.readoff.bias.requires_grad_(False)
    assert curvature(still, inputs)[0].right.shape == (12, 12)
    for each in (embedded, other, still):
        before, seen = copy.deepcopy(each.state_dict()), []
        train(trainer(each, 50), report=seen.append)
        assert seen[-1].loss < 0.47  # that of the best constants is 0.5
        assert any(
            not torch.equal(before[name], value) for name, value in each.layer.state_dict(prefix="layer.").items()
        )
    assert torch.equal(before["readoff.bias"], still.readoff.bias)


def test_neurons_that_are_never_active_do_no_harm():
    dead = FirstLayer(torch.zeros(6, 8), torch.full((6,), -1.0))
    net, seen = Network(dead, LinearReadoff.constant(28, 6)), []
    train(trainer(net, 20), report=seen.append)
    assert seen[-1].loss == pytest.approx(0.5, abs=0.1)
    assert all(bool(parameter.isfinite().all()) for parameter in net.parameters())


def test_a_stage_that_can_go_no_further_ends():
    """A frozen layer's squared loss is at its minimum, to rounding, long before 1,000 steps."""
    net = network()
    net.layer.requires_grad_(False)
    one, calls = trainer(net, 2000, p=(2.0, 4.0)), []
    gradients = one._gradients
    one._gradients = lambda *a, **k: calls.append(1) or gradients(*a, **k)
    seen = []
    train(one, report=seen.append)
    assert one.finished
    assert seen[-1].p == 4.0
    assert len(calls) < 1500
    again = trainer(net, 2000, p=(4.0,))
    reached = float(again._gradients(again._losses[0], again._inputs, precise=True).value)
    assert seen[-1].loss == pytest.approx(reached, rel=1e-6)


def test_an_exact_fit_is_not_searched_for_less_than_rounding(monkeypatch):
    """With more neurons than inputs the error falls to rounding; the line search would go on in it for hundreds of losses."""
    counts, worst = [], []
    for rounding in (0, ROUNDING):
        monkeypatch.setattr(training, "ROUNDING", rounding)
        one = trainer(network(d=60), 300)
        losses = []
        whole = one._gradients
        monkeypatch.setattr(
            one, "_gradients", lambda *a, whole=whole, losses=losses, **k: losses.append(1) or whole(*a, **k)
        )
        train(one)
        x = FEATURES.enumerate().dense()
        counts.append(len(losses))
        worst.append(float((one.network(x).detach() - TASK.targets(x)).abs().max()))
    assert counts[1] < counts[0] * 2 / 3
    assert worst[1] <= 2 * ROUNDING * torch.finfo(torch.float32).eps  # of another order of sums than in training


def test_the_value_that_is_reported_is_that_of_the_weights():
    one = trainer(network(), 40)
    while not one.finished:
        progress = one.advance()
        again = trainer(copy.deepcopy(one.network), 40)
        assert float(again._gradients(one._losses[one._stage], one._inputs, precise=True).value) == progress.loss


def test_a_loss_that_is_not_finite_is_an_error():
    one = trainer(network(), 10)
    with torch.no_grad():
        one.network.readoff.bias.fill_(math.inf)
    with pytest.raises(ArithmeticError, match="no longer finite"):
        one.advance()


def test_steps_too_long_for_the_function_are_shortened():
    """log x − 1 / x is not finite at and below 0, where the first trials are."""
    x = torch.nn.Parameter(torch.tensor([4.0], dtype=torch.float64))

    def value():
        y = torch.where(x > 0, x.log() + 1 / x, torch.nan).sum()
        y.backward()
        return float(y.detach())

    optimiser = PreconditionedLBFGS([(x,)])
    steep = [Block((x,), None, torch.eye(1, dtype=torch.float64) * 1e6)]
    optimiser.minimise(value, steep, 40)
    assert float(x.detach()) == pytest.approx(1.0, abs=1e-6)


def test_a_state_of_other_parameters_is_refused():
    one = trainer(network(), 40)
    one.advance()
    state = one._optimisers[0].state_dict()
    assert 0 < len(state["order"]) <= HISTORY
    other = PreconditionedLBFGS(groups_of(network(d=13)))
    with pytest.raises(ValueError, match="other parameters"):
        other.load_state_dict(state)
    same = PreconditionedLBFGS(groups_of(network()))
    same.load_state_dict(state)
    assert all(torch.equal(same.state_dict()[name], state[name]) for name in ("steps", "changes", "products"))
    with pytest.raises(ValueError, match="another minimisation"):
        same.load_state_dict({**state, "order": [0, 0, *state["order"][2:]]})


def test_the_direction_is_that_of_the_two_loops():
    """Nocedal & Wright, "Numerical optimization", algorithm 7.4, with the metric as the first guess."""
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.Parameter(torch.zeros(6, dtype=torch.float64))
    root = torch.randn(6, 6, dtype=torch.float64, generator=generator)
    # Not symmetric, so that a step with an earlier change is not the change with the step.
    hessian = root @ root.T + torch.eye(6, dtype=torch.float64) + (root - root.T) / 2
    metric = Block((x,), None, torch.full((1, 1), 3.0, dtype=torch.float64))
    optimiser, pairs = PreconditionedLBFGS([(x,)]), []
    for _ in range(HISTORY + 3):
        step = torch.randn(6, dtype=torch.float64, generator=generator)
        pairs.append((step, hessian @ step))
        optimiser.remember(*pairs[-1])
    slope = torch.randn(6, dtype=torch.float64, generator=generator)
    pairs, q, shares = pairs[-HISTORY:], slope.clone(), []
    for step, change in reversed(pairs):
        shares.append(step @ q / (step @ change))
        q -= shares[-1] * change
    step, change = pairs[-1]
    r = 3 * q * (step @ change) / (3 * change @ change)
    for (step, change), share in zip(pairs, reversed(shares), strict=True):
        r += step * (share - change @ r / (step @ change))
    torch.testing.assert_close(optimiser.direction(slope, [metric]), -r)
