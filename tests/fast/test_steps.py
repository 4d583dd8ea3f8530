"""Steps of Adam on tables in the cache: the same steps as the plain form takes, also after something was put in another place."""

import contextlib
import copy
import math

import numpy as np
import pytest
import torch

import toymodels
from toymodels.core.features import SparseFeatures, dense
from toymodels.core.losses import LpLoss
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.settings import TrainingSettings
from toymodels.core.tasks import PairTask
from toymodels.core.training import Trainer, adam_steps
from toymodels.fast import steps
from toymodels.fast.compiled import active_below
from toymodels.layers.random import gaussian

M, D = 7, 6
FEATURES = {
    "independent": SparseFeatures.independent(M, 0.3),
    "exactly": SparseFeatures.exactly(M, 3),
    "at_most": SparseFeatures.at_most(M, 3),
}
SETTINGS = {
    "p = 4": {"p": (4,)},
    "p = 2": {"p": (2,), "weight": "value"},
    "p = 8, root": {"p": (8,), "root": True},
    "p = 2.5": {"p": (2.5,), "weight": 3.0},
    "p = 3, then 4": {"p": (3, 4), "lr_schedule": "cosine"},
    "adamw": {"p": (4,), "optimiser": "adamw", "weight_decay": 0.3},
    "decay": {"p": (4,), "weight_decay": 0.01},
    "all inputs": {"p": (4,), "batch": "all"},
}


def trainer(settings, features="at_most", gate="and", frozen=False, dtype=torch.float64, steps=12):
    task = PairTask(M, gate)
    layer = gaussian(M, D, 0).requires_grad_(not frozen)
    network = Network(layer, LinearReadoff.constant(task.n_outputs, D)).to(dtype)
    words = {"optimiser": "adam", "batch": 16, "lr": 0.01, "steps": steps, **settings}
    return Trainer(network, task, FEATURES[features], TrainingSettings(**words), 5)


def finished(one):
    """Take all steps; return losses and largest errors."""
    reached = []
    while not one.finished:
        progress = one.advance()
        reached.append((float(progress.loss), float(progress.worst_error)))
    return torch.tensor(reached, dtype=torch.float64)


def assert_equal(one, other, tolerance):
    for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
    for a, b in zip(*(list(t.state()["optimisers"][0]["state"].values()) for t in (one, other)), strict=True):
        assert float(a["step"]) == float(b["step"])
        for name in ("exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(a[name], b[name], rtol=100 * tolerance, atol=tolerance)


def plainly(*arguments, **named):
    with toymodels.plain():
        one = trainer(*arguments, **named)
        return one, finished(one)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("settings", SETTINGS)
def test_they_are_those_of_the_plain_form(settings, features, wing):
    if features == "independent" and settings == "all inputs":
        features = "exactly"
    plain, expected = plainly(SETTINGS[settings], features)
    fast = trainer(SETTINGS[settings], features)
    reached = finished(fast)
    assert fast._optimisers[0] in steps._benches  # not by another form
    torch.testing.assert_close(reached[:, 0], expected[:, 0], rtol=1e-9, atol=0)
    if SETTINGS[settings]["p"] != (2,):  # the plain form's is that of the whole batch there, too
        torch.testing.assert_close(reached[:, 1], expected[:, 1], rtol=1e-9, atol=0)
    assert_equal(fast, plain, 1e-9)


@pytest.mark.parametrize("gate", ["xor", "or", "nand", "1101"])
@pytest.mark.parametrize("frozen", [False, True])
def test_any_gate_and_a_frozen_layer(gate, frozen, wing):
    plain, expected = plainly({"p": (4,)}, gate=gate, frozen=frozen)
    fast = trainer({"p": (4,)}, gate=gate, frozen=frozen)
    torch.testing.assert_close(finished(fast), expected, rtol=1e-9, atol=0)
    assert fast._optimisers[0] in steps._benches
    assert_equal(fast, plain, 1e-9)


def test_float32_differs_by_rounding_alone(wing):
    _, expected = plainly({"p": (4,)}, dtype=torch.float32)
    fast = trainer({"p": (4,)}, dtype=torch.float32)
    # Losses and errors alone: Adam divides by the root of the mean square, and a gradient that is nothing but rounding may move a
    # weight by its whole learning rate. Rounding of 6e-8 in an error is four times as much in its power, and 12 steps pass it on:
    # 1e-4 leaves a factor of 30.
    torch.testing.assert_close(finished(fast), expected, rtol=1e-4, atol=0)


def test_what_is_put_in_its_place_is_used(wing):
    """Moments that were restored, weights of another tensor, another exponent: no step is taken on the old ones."""
    expected = trainer({"p": (4,)})
    finished(expected)
    one = trainer({"p": (4,)})
    for number in range(12):
        if number == 4:
            state = copy.deepcopy(one.state())
            one.advance()
            one.restore(state)
        if number == 6:
            for moments in one._optimisers[0].state.values():
                moments["exp_avg"] = moments["exp_avg"].clone()
        if number == 7:
            for moments in one._optimisers[0].state.values():
                moments["exp_avg_sq"] = moments["exp_avg_sq"].clone()
        if number == 8:
            with torch.no_grad():
                one.network.readoff.weight.data = one.network.readoff.weight.clone()
        one.advance()
    assert_equal(one, expected, 0)


def test_weights_that_are_changed_in_their_list_are_used(wing):
    task, source = PairTask(M, "and"), FEATURES["at_most"]
    reached = {}
    for form in ("fast", "plain"):
        network = Network(gaussian(M, D, 0), LinearReadoff.constant(task.n_outputs, D)).double()
        optimiser, weights = torch.optim.Adam(network.parameters(), fused=True), [1.0] * 4
        generator = torch.Generator().manual_seed(3)
        for step in range(4):
            weights[3] = 1.0 if step < 3 else 9.0
            with toymodels.plain() if form == "plain" else contextlib.nullcontext():
                (loss,) = adam_steps(network, task, source, 16, generator, LpLoss(4), weights, optimiser, [1e-3])
        reached[form] = float(loss.value)
    assert reached["fast"] == pytest.approx(reached["plain"], rel=1e-9)


def test_another_frozen_layer_in_its_place_is_used(wing):
    reached = {}
    for form in ("fast", "plain"):
        with toymodels.plain() if form == "plain" else contextlib.nullcontext():
            one = trainer({"p": (4,)}, frozen=True)
            for number in range(6):
                if number == 3:
                    one.network.layer.weight.data = 3 * one.network.layer.weight.data
                loss = float(one.advance().loss)
            reached[form] = loss
    assert reached["fast"] == pytest.approx(reached["plain"], rel=1e-9)


def test_trainers_that_take_turns_do_not_meet(wing):
    """Tables of a size are shared between networks, one after the other."""
    alone = [trainer({"p": (p,)}, features) for p, features in ((4, "exactly"), (2, "independent"), (4, "at_most"))]
    turns = [trainer({"p": (p,)}, features) for p, features in ((4, "exactly"), (2, "independent"), (4, "at_most"))]
    for one in alone:
        finished(one)
    for _ in range(12):
        for one in turns:
            one.advance()
    for one, other in zip(alone, turns, strict=True):
        assert_equal(one, other, 0)


def test_a_network_that_diverges_says_so_and_leaves_the_others_alone(wing):
    alone, beside, wild = trainer({"p": (8,)}), trainer({"p": (8,)}), trainer({"p": (8,)})
    with torch.no_grad():
        wild.network.layer.weight.fill_(math.inf)
    finished(alone)
    lost = []
    while not beside.finished:
        lost.append(float(wild.advance().loss))
        beside.advance()
    assert not math.isfinite(lost[-1])
    assert_equal(beside, alone, 0)


def test_another_number_of_inputs(wing):
    found = []
    for form in (contextlib.nullcontext, toymodels.plain):
        one = trainer({"p": (4,)})
        for _ in range(3):
            one.advance()
        with form():
            (optimiser,) = one._optimisers
            given = one.network, one.task, one.features, 9, one.generator, LpLoss(4.0), one._weights, optimiser
            adam_steps(*given, [1e-3])
        found.append(one)
    assert_equal(*found, 1e-9)


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_a_weight_of_the_layer_that_is_no_number_is_seen_in_the_loss(name, wing):
    one = trainer({"p": (4,)})
    one.advance()
    with torch.no_grad():
        getattr(one.network.layer, name)[0] = math.nan
    assert math.isnan(one.advance().loss)
    assert one._optimisers[0] in steps._benches


def test_a_feature_is_active_below_its_probability():
    numbers, columns = np.array([[0.25, 0.5, 0.75], [0.0, 0.125, 0.5]], np.float32), np.empty((3, 2))
    active_below(numbers, np.float32(0.5), columns)
    assert numbers.tolist() == columns.T.tolist() == [[1, 0, 0], [1, 1, 0]]


SOURCES = [
    SparseFeatures.at_most(M, 1),
    SparseFeatures.at_most(M, 4),
    SparseFeatures.exactly(M, M),
    SparseFeatures(M, (0.3, 0.0, 0.15, 0.55), "none, 2 or 3"),
    SparseFeatures(M, (0.4, 0.3, 0.3), "few often"),  # the largest size is rare: the source's own way
    SparseFeatures.independent(M, 0.2),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
@pytest.mark.parametrize("n", [16, 300])
def test_inputs_are_those_that_the_source_draws(source, n, wing):
    task = PairTask(M, "and")
    network = Network(gaussian(M, D, 0), LinearReadoff.constant(task.n_outputs, D))
    optimiser = torch.optim.Adam(network.parameters(), fused=True)
    one, other = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    given = network, task, source, n, one, LpLoss(4), (1.0,) * 4, optimiser
    for _ in range(2):  # the first step makes the moments
        adam_steps(*given, [1e-3])
        source.sample(n, other)
    bench = steps._benches[optimiser]
    way = {True: bench._drawn_singly, False: bench._sampled}[source.drawn_singly(n)]
    assert bench.draw == (bench._drawn_by_steps if source.drawn_by_steps(n) else way)
    for _ in range(3):
        columns, array, rows, shares = bench.draw(one)
        wanted = source.sample(n, other)
        torch.testing.assert_close(columns.T, dense(wanted.indices, M), rtol=0, atol=0)
        assert (array == columns.numpy()).all()
        assert torch.equal(rows, columns.T)
        assert shares.tolist() == wanted.probabilities.float().tolist()
    assert torch.equal(one.get_state(), other.get_state())


@pytest.mark.parametrize("settings", ["p = 4", "p = 3, then 4", "all inputs"])
def test_many_at_once_end_at_the_same_bits(settings, wing):
    one, many = (trainer(SETTINGS[settings]) for _ in range(2))
    lines = []
    while not many.finished:
        lines += many.advance_by(5)
    for line in lines:
        same = one.advance()
        assert one.step == 1 or all(parameter.grad is None for parameter in one.network.parameters())
        assert (line.step, line.p, line.loss, line.worst_error) == (same.step, same.p, same.loss, same.worst_error)
    assert one.finished
    assert_equal(one, many, 0)
