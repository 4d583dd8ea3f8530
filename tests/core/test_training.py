import copy
import math
import time

import jaxtyping
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

import toymodels
from toymodels.core.evaluation import evaluate
from toymodels.core.features import SparseFeatures
from toymodels.core.losses import LOSSES, ApartLoss, ElementwiseLoss, LpLoss
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask, Task
from toymodels.core.training import Trainer, TrainingSettings, adam_steps
from toymodels.errors import InputError
from toymodels.fast.columns import columns_win
from toymodels.fast.pairs import tables_of
from toymodels.layers.random import gaussian
from toymodels.runs.loop import Interrupted, train
from toymodels.runs.storage import load_checkpoint

FEATURES = SparseFeatures.at_most(8, 2)
TASK = PairTask(8, "and")


def network(d=12, frozen=False):
    layer = gaussian(8, d, 0).requires_grad_(not frozen)
    return Network(layer, LinearReadoff.constant(TASK.n_outputs, d))


def trainer(settings, frozen=False, seed=0):
    return Trainer(network(frozen=frozen), TASK, FEATURES, settings, seed)


SETTINGS = [
    TrainingSettings(optimiser="kfac", steps=40, loss="lp_apart"),
    TrainingSettings(optimiser="kfac", steps=43),
    TrainingSettings(optimiser="lbfgs", steps=40, loss="lp_apart"),
    TrainingSettings(optimiser="lbfgs", steps=43),
    TrainingSettings(optimiser="adam", steps=20, p=(2.0, 4.0), batch=32, lr_schedule="cosine"),
    TrainingSettings(optimiser="adamw", steps=20, p=(3.5,), weight_decay=0.1, lr_schedule="linear", loss="lp_apart"),
    TrainingSettings(optimiser="adam", steps=20, p=(2.0, 4.0), batch="all"),
    TrainingSettings(optimiser="adam", steps=20, p=(2.0, 4.0), batch=32, pairs_per_step=5, root=False),
]


def weights(net):
    return {name: value.clone() for name, value in net.state_dict().items()}


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.optimiser)
@pytest.mark.parametrize("stop_after", [1, 3, 5])
def test_a_run_continued_from_a_checkpoint_ends_at_the_same_weights(settings, stop_after, tmp_path):
    whole = trainer(settings)
    train(whole)

    first, reports = trainer(settings), []

    def stop(progress):
        reports.append(progress)
        if len(reports) == stop_after:
            raise KeyboardInterrupt  # as a second Ctrl-C, or a kill: nothing is saved from here on

    with pytest.raises(KeyboardInterrupt):
        train(first, tmp_path / "c.pt", every_seconds=0, report=stop)
    second = trainer(settings)
    train(second, tmp_path / "c.pt", every_seconds=1e9)
    assert second.step == whole.step == settings.steps
    assert equal(weights(second.network), weights(whole.network))


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_batches():
    runs = []
    for seed in (0, 0, 1):
        one = trainer(SETTINGS[4], seed=seed)
        train(one)
        runs.append(weights(one.network))
    assert equal(runs[0], runs[1])
    assert not equal(runs[0], runs[2])


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: s.optimiser)
def test_a_frozen_layer_stays_as_it_is_and_its_readoff_learns(settings):
    one = trainer(settings, frozen=True)
    before = weights(one.network)
    train(one)
    after = weights(one.network)
    assert torch.equal(before["layer.weight"], after["layer.weight"])
    assert torch.equal(before["layer.bias"], after["layer.bias"])
    assert not torch.equal(before["readoff.weight"], after["readoff.weight"])
    other = trainer(settings)
    train(other)
    assert not torch.equal(before["layer.weight"], weights(other.network)["layer.weight"])


def test_the_default_on_continued_exponents_beats_the_affine_floor_and_a_trained_layer_beats_a_frozen_one():
    errors = []
    for frozen in (True, False):
        one = trainer(TrainingSettings(steps=300), frozen)
        assert one.optimiser_name == "kfac"
        train(one)
        errors.append(evaluate(one.network, TASK, FEATURES.enumerate()).worst_error)
    assert errors[1] < errors[0]
    assert errors[1] < 0.25


def test_weights_by_value_leave_xor_unseen_and_by_case_do_not():
    """Theory, section 5: weighted by target value, XOR's rare case 11 is missed and the network answers x_k + x_l."""
    task, features = PairTask(20, "xor"), SparseFeatures.at_most(20, 2)
    worst = {}
    for weight in ("value", "case"):
        net = Network(gaussian(20, 40, 0), LinearReadoff.constant(task.n_outputs, 40))
        one = Trainer(net, task, features, TrainingSettings(optimiser="lbfgs", steps=60, p=(2.0,), weight=weight), 0)
        train(one)
        worst[weight] = evaluate(net, task, features.enumerate()).cases["11"].rms
    assert worst["value"] > 2 * worst["case"]


def test_ctrl_c_stops_between_steps_and_keeps_a_checkpoint(tmp_path):
    import os
    import signal

    one = trainer(SETTINGS[4])
    advance = one.advance_by

    def interrupted(most):
        lines = advance(min(most, 3))
        if one.step == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return lines

    one.advance_by = interrupted
    with pytest.raises(Interrupted, match="after step 7 of 20"):
        train(one, tmp_path / "c.pt")
    assert load_checkpoint(tmp_path / "c.pt")["trainer"]["step"] == 7


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 10), (0.04, 2), (0.11, 1)])
def test_ctrl_c_waits_for_no_more_steps_than_a_moment_takes(seconds, most):
    one, asked = trainer(SETTINGS[4]), []
    advance = one.advance_by

    def slow(steps):
        asked.append(steps)
        time.sleep(seconds * steps)
        return advance(steps)

    one.advance_by = slow
    train(one)
    assert max(asked) == most


def test_a_damaged_checkpoint_is_refused(tmp_path):
    (tmp_path / "c.pt").write_bytes(b"half a checkp")
    with pytest.raises(InputError, match="cannot be read"):
        train(trainer(SETTINGS[4]), tmp_path / "c.pt")


def test_a_diverging_loss_is_said():
    one = trainer(TrainingSettings(optimiser="adam", steps=50, p=(2.0,)))
    one.network.readoff.bias.data[0] = torch.nan
    with pytest.raises(ArithmeticError, match="with adam or adamw also a smaller lr"):
        train(one)


def test_a_line_search_on_a_loss_that_overflows_ends():
    settings = TrainingSettings(optimiser="lbfgs", steps=50, root=False, p=(1000.0,), weight=1e300)
    one = trainer(settings)
    one.network.readoff.bias.data += 1e3
    with pytest.raises(ArithmeticError, match="smaller p or its root"):
        train(one)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", (1.0, 1.0, 1.0)),
        ("linear", (1.0, 0.75, 0.5)),
        ("cosine", (1.0, (1 + math.sqrt(0.5)) / 2, 0.5)),
    ],
)
@pytest.mark.parametrize("sampled", [None, 5])
def test_learning_rate_schedules(schedule, rates, sampled):
    """At 0, 1/4 and 1/2 of the way; both fall to 0 at its end."""
    one = trainer(TrainingSettings(optimiser="adam", steps=40, lr_schedule=schedule, pairs_per_step=sampled))
    for step, rate in zip((0, 10, 20), rates, strict=True):
        one.step = step
        one.advance()
        for optimiser in one._optimisers:
            assert optimiser.param_groups[0]["lr"] == pytest.approx(1e-3 * rate)


def test_each_exponent_of_lbfgs_begins_anew():
    """The curvature of another p is no guide: a course of two exponents is two trainings, one after the other."""
    whole = trainer(TrainingSettings(optimiser="lbfgs", steps=50, p=(2.0, 4.0)))
    train(whole)
    net = network()
    for p in (2.0, 4.0):
        train(Trainer(net, TASK, FEATURES, TrainingSettings(optimiser="lbfgs", steps=25, p=(p,)), 0))
    assert equal(weights(whole.network), weights(net))


def test_adam_goes_on_from_one_exponent_to_the_next():
    whole, halves = (
        trainer(TrainingSettings(optimiser="adam", steps=10, p=p, batch="all")) for p in ((2.0, 4.0), (2.0,))
    )
    train(whole)
    halves.steps = 5
    train(halves)
    first, second = (one._optimisers[0].state[one.network.layer.weight]["step"] for one in (whole, halves))
    assert (int(first), int(second)) == (10, 5)


def test_exponents_share_the_steps():
    one, seen = trainer(TrainingSettings(optimiser="lbfgs", steps=100, p=(2.0, 4.0, 8.0))), []
    train(one, report=lambda progress: seen.append((progress.step, progress.p)))
    assert [p for _, p in seen] == sorted(p for _, p in seen)
    assert {p: max(step for step, q in seen if q == p) for p in (2.0, 4.0, 8.0)} == {2.0: 34, 4.0: 67, 8.0: 100}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimiser": "sgd"}, "unknown optimiser"),
        ({"lr_schedule": "step"}, "unknown lr_schedule"),
        ({"loss": "both"}, "unknown loss"),
        ({"loss": "lp(p=3)"}, "no knob 'p'"),
        ({"p": ()}, "p is empty"),
        ({"p": (2.0, 0.5)}, "exponent"),
        ({"weight": -1.0}, "positive"),
        ({"weight": "nope"}, "must be a number or .case. or .value."),
        ({"steps": 0}, "at least 1"),
        ({"batch": 0}, "at least 1"),
        ({"batch": "some"}, "or 'all'"),
        ({"pairs_per_step": 0, "optimiser": "adam"}, "at least 1"),
        ({"pairs_per_step": 5}, "optimiser adam"),
        ({"pairs_per_step": 5, "optimiser": "adam", "loss": "lp_apart"}, "the loss lp"),
        ({"pairs_per_step": 5, "optimiser": "adam", "weight_decay": 0.1}, "weight decay"),
        ({"lr": 0.0}, "positive"),
        ({"weight_decay": -1.0}, "0 or a positive"),
    ],
)
def test_wrong_settings_are_refused(change, words, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in use, where types are not checked
    with pytest.raises(InputError, match=words):
        TrainingSettings(**change)


def test_lbfgs_needs_inputs_that_can_be_enumerated():
    big = SparseFeatures.exactly(200, 10)
    with pytest.raises(InputError, match="more than the limit"):
        Trainer(network(), PairTask(200, "and", [(0, 1)]), big, TrainingSettings(optimiser="lbfgs"), 0)
    assert TrainingSettings().resolve(big, PairTask(200, "and")) == "adam"
    for needs in (TrainingSettings(optimiser="lbfgs"), TrainingSettings(optimiser="adam", batch="all")):
        with pytest.raises(InputError, match="more than the limit"):
            needs.check_inputs(big, PairTask(200, "and"))
    TrainingSettings().check_inputs(big, PairTask(200, "and"))


def test_a_step_on_a_sample_of_pairs_moves_their_readoffs_and_those_with_both_features_on_only():
    settings = TrainingSettings(optimiser="adam", steps=1, p=(4.0,), batch=2, pairs_per_step=3)
    one = trainer(settings)
    torch.nn.init.normal_(one.network.readoff.weight, generator=torch.Generator().manual_seed(0))
    before = weights(one.network)
    state = one.generator.get_state()
    one.advance()
    moved = (weights(one.network)["readoff.bias"] != before["readoff.bias"]).nonzero()[:, 0].tolist()
    one.generator.set_state(state)
    _, both = tables_of(TASK).both_on(FEATURES.sample(2, one.generator).indices)
    sample = torch.randperm(TASK.n_outputs, generator=one.generator)[:3]
    assert moved == sorted({*both.tolist(), *sample.tolist()})
    assert not torch.equal(weights(one.network)["layer.weight"], before["layer.weight"])


def test_a_sample_of_pairs_needs_pairs_and_a_linear_readoff():
    class First(torch.nn.Module):
        def forward(self, a, outputs=slice(None)):
            return a[:, outputs]

    settings = TrainingSettings(optimiser="adam", pairs_per_step=5)
    with pytest.raises(InputError, match="linear readoff"):
        Trainer(Network(gaussian(8, 30, 0), First()), TASK, FEATURES, settings, 0)


def test_exact_inputs_have_no_noise_and_follow_probabilities():
    features = SparseFeatures.independent(8, 0.3)
    settings = TrainingSettings(optimiser="adam", steps=1, p=(3.0,), batch="all", root=False)
    one = Trainer(network(), TASK, features, settings, 0)
    x = features.enumerate().dense()
    error = (one.network(x) - TASK.targets(x)).abs() ** 3 * TASK.by_case(x, one._weights)
    exact = (features.enumerate().probabilities[:, None] * error).sum().item() / TASK.n_outputs
    assert one.advance().loss == pytest.approx(exact, rel=1e-5)


class Products(Task):
    """x_i x_(i + 1): real targets."""

    name = "products"

    def __init__(self, m):
        self.m, self.n_outputs = m, m - 1

    def cases(self, x, outputs=slice(None)):
        return (self.targets(x, outputs) != 0).long()

    def targets(self, x, outputs=slice(None)):
        return (x[:, :-1] * x[:, 1:])[:, outputs]


@pytest.mark.parametrize("loss", ["lp", "quartic(size=2)"])
def test_any_task_features_and_loss_are_trained(loss, monkeypatch):
    monkeypatch.setattr(LOSSES, "_members", dict(LOSSES._members))

    @LOSSES("quartic", source="this test")
    def quartic(errors, *, size=1.0):
        return (errors / size) ** 4

    features, task = SparseFeatures.at_most(8, 3, "uniform"), Products(8)
    of_p = {"p": (2.0,)} if loss == "lp" else {}
    settings = TrainingSettings(steps=150, lr=0.01, batch=64, loss=loss, **of_p)
    net = Network(gaussian(8, 40, 0), LinearReadoff.constant(7, 40))
    one = Trainer(net, task, features, settings, 0)
    assert one.optimiser_name == "adam"
    assert settings.exponents == ((2.0,) if loss == "lp" else (1.0,))
    inputs = features.sampled(500, 1)
    before = evaluate(net, task, inputs)
    train(one)
    after = evaluate(net, task, inputs)
    assert after.groups["active"].rms < before.groups["active"].rms / 2
    with pytest.raises(InputError, match="no list holds all inputs"):
        Trainer(net, task, features, TrainingSettings(optimiser="lbfgs"), 0)


def test_settings_make_the_loss_that_they_name():
    settings = TrainingSettings(p=(2, 4), root=False, loss="lp_apart", weight=3)
    assert settings.make_loss(1) == ApartLoss(4.0, False, 3.0)
    assert TrainingSettings(p=(2, 4), weight=3).make_loss(0) == LpLoss(2.0)
    assert TrainingSettings(p=(2, 4)) == TrainingSettings(p=(2.0, 4.0))


def test_a_loss_without_an_exponent_takes_none(monkeypatch):
    monkeypatch.setattr(LOSSES, "_members", dict(LOSSES._members))
    LOSSES("absolute", source="this test")(torch.abs)
    settings = TrainingSettings(loss="absolute")
    assert settings.exponents == (1.0,)
    assert isinstance(settings.make_loss(0), ElementwiseLoss)
    for change in ({"p": (3.0,)}, {"root": False}):
        with pytest.raises(InputError, match="have no effect"):
            TrainingSettings(loss="absolute", **change)


def test_networks_can_be_copied_after_training():
    one = trainer(SETTINGS[4])
    train(one)
    assert equal(weights(copy.deepcopy(one.network)), weights(one.network))


def test_lbfgs_on_layers_made_from_columns():
    """64 features, at most 2 active: the first layer is summed from columns, and its gradient comes transposed."""
    features, task = SparseFeatures.at_most(64, 2), PairTask(64, "and", [(0, 1), (5, 9)])
    layer = gaussian(64, 5, 0)
    assert columns_win(layer, features.max_active)
    before = layer.weight.detach().clone()
    net = Network(layer, LinearReadoff.constant(2, 5))
    trained = Trainer(net, task, features, TrainingSettings(optimiser="lbfgs", steps=5, p=(4.0,)), 0)
    train(trained)
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize(
    "features", [SparseFeatures.independent(8, 0.3), SparseFeatures.exactly(8, 2)], ids=["free", "exactly"]
)
@pytest.mark.parametrize("p", [2.0, 4.0])
def test_a_plain_step_reads_no_number(p, features):
    """On a device Python would wait for each one. Fake tensors have no numbers to read."""
    with FakeTensorMode(allow_non_fake_inputs=True), toymodels.plain():
        task = PairTask(8, "and")
        network = Network(gaussian(8, 6, 0).requires_grad_(True), LinearReadoff.constant(task.n_outputs, 6))
        optimiser = torch.optim.Adam(network.parameters(), fused=True)
        weights = (1.0, 1.0, 1.0, 2.0)
        given = network, task, features, 32, torch.Generator(), LpLoss(p), weights, optimiser
        (reached,) = adam_steps(*given, [1e-3])
        with pytest.raises(DataDependentOutputException):
            float(reached.value)
    later = features.sampled(32, 0)  # nothing of that mode is left behind
    assert type(later.probabilities) is type(later.dense()) is torch.Tensor
    assert bool(later.dense().any())


@pytest.mark.parametrize("settings", [SETTINGS[1], SETTINGS[4], SETTINGS[5], SETTINGS[6], SETTINGS[7]])
def test_steps_at_once_are_those_one_by_one(settings):
    """Each has its own learning rate, exponent and line; an exponent ends where it would."""
    one, many = trainer(settings), trainer(settings)
    lines = [line for calls in iter(lambda: [] if many.finished else many.advance_by(4), []) for line in calls]
    for line in lines:
        same = one.advance()
        assert (line.step, line.p, float(line.loss)) == (same.step, same.p, float(same.loss))
    assert one.finished
    assert equal(weights(one.network), weights(many.network))
    times = [line.seconds for line in lines]
    assert times == sorted(set(times))
    assert times[-1] == pytest.approx(many.seconds)
    with pytest.raises(InputError, match="steps are done"):
        many.advance_by(4)
