"""The fast form of loss and gradients against the plain one: in float64 to rounding, in float32 to what float32 can tell."""

import copy
import itertools

import pytest
import torch

from tests.core.networks import every_weight_different
from toymodels import plain
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.layers import FirstLayer, IdentityLayer
from toymodels.core.least_squares import least_squares
from toymodels.core.losses import LpLoss, case_weights, loss_and_gradients, make_loss
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.settings import TrainingSettings
from toymodels.core.tasks import PairTask
from toymodels.core.training import Trainer, step_threads
from toymodels.fast import gradients as module
from toymodels.fast import gram, pair_lp
from toymodels.fast.gradients import pair_gradients
from toymodels.fast.small import small_gradients
from toymodels.layers.random import gaussian
from toymodels.runs.loop import train

pytestmark = pytest.mark.usefixtures("wing")  # these tests are about the faster forms

GATES = ["".join(digits) for digits in itertools.product("01", repeat=4)]
PAIRS = [(0, 3), (3, 0), (2, 5), (0, 3), (4, 1)]
EPS = 2.0**-24
"""Half a unit of the last place of float32: the largest relative error of one rounding."""


@pytest.fixture
def always(monkeypatch):
    """The form for large losses is taken however small a loss is."""
    monkeypatch.setattr(module, "SMALL", 0)
    monkeypatch.setattr(module, "ALONE", 0)


@pytest.fixture(params=["fast", "as run"])
def forms(request):
    """The fast form however small a loss is, and what is taken for its size."""
    if request.param == "fast":
        request.getfixturevalue("always")


def random_network(task, layer=None, seed=0):
    rng = torch.Generator().manual_seed(seed)
    layer = layer or gaussian(task.m, 4, seed, bias=-0.3)
    width = layer.width
    readoff = LinearReadoff(
        torch.randn(task.n_outputs, width, generator=rng), torch.randn(task.n_outputs, generator=rng)
    )
    return Network(layer, readoff).double()


def both(network, task, inputs, weights, loss, sample=None, precise=False):
    """(plain, fast, small if it holds): the loss, and the gradients of the parameters that have some."""
    results = []
    for function in (loss_and_gradients.plain, pair_gradients, *([] if sample is not None else [small_gradients])):
        network.zero_grad()
        reached = function(network, task, inputs, loss, weights, sample, precise)
        slopes = [parameter.grad for parameter in network.parameters() if parameter.requires_grad]
        results.append((reached, slopes))
    return results


def check(network, task, inputs, weights, loss, sample=None, precise=False):
    (slow, expected), *others = both(network, task, inputs, weights, loss, sample, precise)
    for (fast, found), whole in zip(others, (loss.p != 2 or precise, True), strict=False):
        assert float(fast.value) == pytest.approx(float(slow.value), rel=1e-11)
        for one, other in zip(found, expected, strict=True):
            assert one.is_sparse == other.is_sparse
            one, other = one.to_dense(), other.to_dense()
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-11 * other.abs().max())
        if sample is None and whole:
            assert float(fast.largest) == pytest.approx(float(slow.largest), rel=1e-12)


WAYS = [  # p, root, precise, whether outputs are sampled, whether inputs are
    (2.0, True, False, False, False),
    (2.0, False, False, False, True),
    (2.0, True, True, False, False),
    (3.0, True, False, False, True),
    (3.0, False, False, False, False),
    (1.5, False, False, False, True),
    (2.0, True, False, True, False),
    (3.0, False, False, True, True),
]


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("pairs", "balance"), [(None, "case"), (None, "value"), (PAIRS, "case"), (PAIRS, 7.0)])
def test_value_and_gradients_are_those_of_the_plain_form(gate, pairs, balance):
    features, task = SparseFeatures.independent(6, 0.3), PairTask(6, gate, pairs)
    weights = case_weights(balance, task.truth, task.case_probabilities(features))
    network, sampled, enumerated = random_network(task), features.sampled(33, 1), features.enumerate()
    for p, root, precise, outputs, some in WAYS:
        sample = torch.tensor([3, 0, 1]) if outputs else None
        check(network, task, sampled if some else enumerated, weights, LpLoss(p, root), sample, precise)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 5.0, 8.0, 31.0, 70.5])
@pytest.mark.parametrize("gate", ["and", "xor"])
@pytest.mark.parametrize("threads", [1, 3])
def test_any_block_size_and_number_of_threads(p, gate, threads, monkeypatch):
    monkeypatch.setattr(pair_lp, "_ROWS", 10)
    monkeypatch.setattr(pair_lp, "_ENTRIES", 1)  # the least there is: eight pairs
    monkeypatch.setattr(gram, "_BLOCK", 5)
    monkeypatch.setattr(gram, "_ENTRIES", 50)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        task, features = PairTask(9, gate), SparseFeatures.at_most(9, 3)
        weights = case_weights("case", task.truth, task.case_probabilities(features))
        for inputs in (features.sampled(37, seed=0), features.enumerate()):
            check(random_network(task), task, inputs, weights, LpLoss(p))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("p", [2.0, 3.0])
@pytest.mark.parametrize("gate", ["and", "xor"])
@pytest.mark.parametrize("ends_alike", [False, True])
def test_each_input_counts_by_its_own_probability(p, gate, ends_alike):
    inputs, task = every_weight_different(SparseFeatures.at_most(7, 3), ends_alike), PairTask(7, gate)
    for precise in (False, True):
        check(random_network(task), task, inputs, (1.0, 2.0, 0.5, 3.0), LpLoss(p), precise=precise)
        check(random_network(task), task, inputs, (1.0, 1.0, 1.0, 9.0), LpLoss(p), torch.tensor([2, 20]), precise)


def test_a_frozen_layer_and_no_layer():
    features, task = SparseFeatures.at_most(7, 3), PairTask(7, "xor")
    for layer in (gaussian(7, 5, 0).requires_grad_(False), IdentityLayer(7)):
        for p in (2.0, 4.0):
            check(random_network(task, layer), task, features.enumerate(), (1.0, 2.0, 0.5, 3.0), LpLoss(p))


def test_a_frozen_readoff_gets_no_gradient():
    task, inputs = PairTask(7, "xor"), SparseFeatures.at_most(7, 3).enumerate()
    network = random_network(task)
    network.readoff.requires_grad_(False)
    for p in (2.0, 4.0):
        check(network, task, inputs, (1.0, 2.0, 0.5, 3.0), LpLoss(p))
        assert network.readoff.weight.grad is None


def test_a_case_that_never_occurs_weighs_nothing():
    features, task = SparseFeatures.exactly(6, 6), PairTask(6, "xor")
    weights = case_weights("case", task.truth, task.case_probabilities(features))
    assert weights == (0.0, 0.0, 0.0, 1.0)
    for p in (2.0, 4.0):
        check(random_network(task), task, features.enumerate(), weights, LpLoss(p))


def test_inputs_with_nothing_on():
    task, inputs = PairTask(6, "xor"), SparseFeatures(6, (1.0,), "none").sampled(3, seed=0)
    network = Network(IdentityLayer(6), LinearReadoff(torch.ones(15, 6).double(), torch.full((15,), 2.0).double()))
    check(network, task, inputs, (1.0,) * 4, LpLoss(2.0, root=False))
    reached = pair_gradients(network, task, inputs, LpLoss(2.0, root=False), (1.0,) * 4)
    assert reached.value == pytest.approx(4.0)
    assert reached.largest == 2.0


@pytest.mark.parametrize("p", [2.0, 3.0])
@pytest.mark.parametrize("sample", [None, torch.tensor([1, 4])], ids=["all", "sample"])
def test_gradients_are_added_to_those_that_are_there(p, sample):
    task, inputs = PairTask(6, "xor"), SparseFeatures.at_most(6, 3).enumerate()
    network = random_network(task)
    for function in (loss_and_gradients.plain, pair_gradients, *([] if sample is not None else [small_gradients])):
        network.zero_grad()
        sums = []
        for _ in range(2):
            function(network, task, inputs, LpLoss(p), (1.0, 2.0, 0.5, 3.0), sample)
            sums.append([parameter.grad.to_dense().clone() for parameter in network.parameters()])
        for once, twice in zip(*sums, strict=True):
            assert torch.allclose(twice, 2 * once, rtol=1e-12)
            assert once.any()


def test_gradients_of_a_sample_have_the_shape_of_all_outputs():
    """The last outputs are neither sampled nor on: a sparse tensor does not know of them unless it is told."""
    inputs, task = Inputs(6, torch.tensor([[0]]), torch.ones(1).double(), True, "one input"), PairTask(6, "xor")
    for p in (2.0, 3.0):
        check(random_network(task), task, inputs, (1.0, 2.0, 0.5, 3.0), LpLoss(p), torch.tensor([0]))


@pytest.mark.parametrize(
    ("loss", "inputs", "precise", "threads"),
    [
        (LpLoss(2.0), 400, False, 1),  # small: 400 · 435 outputs are below 2^18
        (LpLoss(2.0), 700, False, 3),  # Gram matrices
        (LpLoss(2.0), 700, True, 1),  # in blocks, which have threads of their own
        (LpLoss(3.0), 700, False, 1),
        (make_loss("lp_apart", 2.0, True), 400, False, 1),  # small
        (make_loss("lp_apart", 2.0, True), 700, False, 3),
    ],
)
def test_a_step_has_one_thread_where_more_are_slower(loss, inputs, precise, threads, monkeypatch):
    task, before = PairTask(30, "and"), torch.get_num_threads()
    network = random_network(task)
    torch.set_num_threads(3)
    try:
        with step_threads(network, task, inputs, loss, precise):
            assert torch.get_num_threads() == threads
        monkeypatch.setattr(module, "_LARGE", sum(p.numel() for p in network.parameters()))
        with step_threads(network, task, inputs, loss, precise):
            assert torch.get_num_threads() == 3  # the optimiser's pass over many parameters is worth them
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("p", [16.0, 40.0])
def test_errors_far_beyond_those_of_the_probe_do_not_overflow_float32(p):
    task, inputs = PairTask(30, "and"), SparseFeatures.exactly(30, 2).enumerate()
    # Errors are 1e-3 (and 1 at ones) but for feature 29, which no input of the probe has on.
    assert not bool((inputs.indices[:: len(inputs) // module._PROBE] == 29).any())
    readoff = LinearReadoff.constant(task.n_outputs, 30, 1e-3)
    with torch.no_grad():
        readoff.weight[:, 29] = 500.0
    network, loss = Network(IdentityLayer(30), readoff), LpLoss(p)
    reached = pair_gradients(network, task, inputs, loss, (1.0,) * 4)
    found = network.readoff.weight.grad.double()
    wide = copy.deepcopy(network).double()
    wide.zero_grad()
    slow = loss_and_gradients.plain(wide, task, inputs, loss, (1.0,) * 4)
    expected = wide.readoff.weight.grad
    assert reached.largest == pytest.approx(500.0, rel=1e-5)
    # Float32 keeps 2^-24 of an error; its power p, p times that.
    assert reached.value == pytest.approx(float(slow.value), rel=p * 2**-23)
    assert torch.allclose(found, expected, rtol=p * 2**-20, atol=p * 2**-20 * expected.abs().max())


@pytest.mark.parametrize("gate", ["and", "xor", "nand"])
@pytest.mark.parametrize("p", [2.0, 3.0])
def test_a_sample_of_pairs_is_unbiased(gate, p):
    """Over all 15 samples of 2 of 6 pairs, loss and gradients are on average those of all pairs: exactly, not by chance."""
    task, inputs, weights = PairTask(4, gate), SparseFeatures.independent(4, 0.4).sampled(20, 3), (0.5, 1.0, 1.5, 2.0)
    network, loss = random_network(task), LpLoss(p, root=False)
    (slow, expected), *_ = both(network, task, inputs, weights, loss)
    expected = [gradient.clone() for gradient in expected]
    total, samples = [torch.zeros_like(g) for g in expected], list(itertools.combinations(range(6), 2))
    value = 0.0
    for sample in samples:
        network.zero_grad()
        value += pair_gradients(network, task, inputs, loss, weights, torch.tensor(sample)).value / len(samples)
        for share, parameter in zip(total, network.parameters(), strict=True):
            share += parameter.grad.to_dense() / len(samples)
        assert network.readoff.weight.grad.is_sparse
    assert value == pytest.approx(float(slow.value), rel=1e-10)
    for share, gradient in zip(total, expected, strict=True):
        assert torch.allclose(share, gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [2.0, 4.0])
@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("gate", ["and", "xor"])
@pytest.mark.parametrize(("batch", "outputs"), [(64, None), ("all", None), (16, 20)])
def test_training_by_it_is_training_by_the_plain_form(p, root, gate, batch, outputs, always, monkeypatch):
    task, features, ends = PairTask(10, gate), SparseFeatures.at_most(10, 3), []
    settings = TrainingSettings(
        optimiser="adam", steps=8, p=(p,), root=root, batch=batch, pairs_per_step=outputs, weight=20.0
    )
    for form in ("fast", "plain"):
        monkeypatch.setenv("TOYMODELS_PLAIN", "1" if form == "plain" else "0")
        network = Network(gaussian(10, 12, 0), LinearReadoff.constant(task.n_outputs, 12)).double()
        train(Trainer(network, task, features, settings, 0))
        ends.append(network.state_dict())
    for name in ends[0]:
        assert torch.allclose(ends[0][name], ends[1][name], rtol=1e-6, atol=1e-8)


def test_it_is_taken_where_it_holds_and_is_faster(monkeypatch):
    """Large losses of linear readoffs of pairs of boolean features; other forms do all others, and the plain one if told to."""
    calls = []
    monkeypatch.setattr(module._Terms, "sum", lambda *_: calls.append(1) or pytest.skip("unreachable"))
    task, inputs = PairTask(60, "and"), SparseFeatures.at_most(60, 2).sampled(200, 0)
    network, weights, squared = random_network(task), (1.0,) * 4, LpLoss(2.0)

    def takes(task=task, inputs=inputs, loss=squared, network=network, sample=None):
        calls.clear()
        try:
            loss_and_gradients(network, task, inputs, loss, weights, sample)
        except pytest.skip.Exception:
            return True
        return False

    valued = SparseFeatures.at_most(60, 2, "uniform").sampled(200, 0)
    assert not takes(loss=LpLoss(7.5, root=False))  # a single thread is faster on tables
    with monkeypatch.context() as two:
        two.setattr(module, "n_threads", lambda: 2)
        assert takes(loss=LpLoss(7.5, root=False))
    assert takes(sample=torch.tensor([1, 2]))
    assert takes()
    assert not takes(inputs=SparseFeatures.at_most(60, 2).sampled(100, 0))
    assert not takes(inputs=valued)
    assert not takes(inputs=SparseFeatures.at_most(60, 2).sampled(200, 0), loss=make_loss("lp_apart", 2.0, True))
    with plain():
        assert not takes(inputs=SparseFeatures.at_most(60, 2).sampled(200, 0))


# Float32 against float64. An output is a sum of products whose sizes add up to S; their roundings leave an error of EPS·S
# or so in it (d of them, but of either sign and most of parts of the sum). On errors of size L that is a share EPS·S/L, of
# the loss and p times that of gradients, in which errors stand to the power p − 1. Twice that is allowed; and the share of
# 1e-4 of a squared loss that the Gram form may lose before blocks take over (see `_LEAST_SHARE`).


def nearly_exact(m, d, gate, twins, residual):
    """A network that errs by `residual`, in float32; `twins` are weights of opposite sign on two neurons nearly the same."""
    task, inputs = PairTask(m, gate), SparseFeatures.at_most(m, 2).enumerate()
    rng = torch.Generator().manual_seed(1)
    layer = gaussian(m, d, 0)
    if twins:
        layer.weight.data[1] = layer.weight.data[0] + 1e-3 * torch.randn(m, generator=rng)
    readoff = least_squares(layer, task, inputs).float()
    readoff.weight.data[:, 0] += twins
    readoff.weight.data[:, 1] -= twins
    readoff.bias.data += residual * torch.randn(task.n_outputs, generator=rng)
    return Network(layer, readoff), task, inputs


def check_precision(m, d, gate, twins, residual, p):
    network, task, inputs = nearly_exact(m, d, gate, twins, residual)
    weights = case_weights("case", task.truth, task.case_probabilities(SparseFeatures.at_most(m, 2)))
    wide = copy.deepcopy(network).double()
    found = pair_gradients(network, task, inputs, LpLoss(p), weights)
    exact = loss_and_gradients.plain(wide, task, inputs, LpLoss(p), weights)
    with torch.no_grad():
        parts = wide.layer(inputs.dense(dtype=torch.float64)).abs() @ wide.readoff.weight.abs().T
    share = EPS * (float(parts.max()) + 1) / float(exact.value)
    assert 2 * p * share < 0.2, "errors too near float32's rounding for a comparison"
    assert found.value == pytest.approx(float(exact.value), rel=2 * share + 1e-4)
    for one, other in zip(network.parameters(), wide.parameters(), strict=True):
        size = float(other.grad.abs().max())
        assert torch.allclose(one.grad.double(), other.grad, rtol=0, atol=(2 * p * share + 1e-4) * size)


GRID = [
    (m, d, gate, twins, residual, p)
    for (m, d), gate in itertools.product([(5, 40), (8, 80), (12, 100)], ["and", "xor"])
    for twins, residuals in ((0.0, (1.0, 1e-2, 1e-3, 1e-4)), (1000.0, (1.0, 1e-2)))
    for residual, p in itertools.product(residuals, (2.0, 4.0, 16.0))
]


@pytest.mark.parametrize(("m", "d", "gate", "twins", "residual", "p"), GRID)
def test_float32_tells_what_it_can(m, d, gate, twins, residual, p):
    check_precision(m, d, gate, twins, residual, p)


@pytest.mark.parametrize("residual", [1e-3, 1e-4])
def test_planted_fault_a_gram_form_that_never_hands_over_is_caught(residual, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_SHARE", dict.fromkeys(module._LEAST_SHARE, 0.0))
    with pytest.raises(AssertionError):
        check_precision(8, 80, "and", 0.0, residual, 2.0)


def test_planted_fault_neurons_that_cancel_are_caught_unless_their_squares_count(monkeypatch):
    real = gram.SquaredTerm._all
    monkeypatch.setattr(gram.SquaredTerm, "_all", lambda *given: (*real(*given)[:2], 0.0))
    with pytest.raises(AssertionError):
        check_precision(8, 80, "and", 1000.0, 1e-2, 2.0)


def test_a_loss_of_zero_has_no_gradient_and_no_root_of_a_negative_number():
    task, inputs = PairTask(3, "second"), SparseFeatures.at_most(3, 2).enumerate()
    weight = torch.nn.functional.one_hot(task.pairs[:, 1], 3).float()
    network = Network(IdentityLayer(3), LinearReadoff(weight, torch.zeros(3)))
    for p in (1.0, 2.0, 3.0):
        network.zero_grad()
        reached = pair_gradients(network, task, inputs, LpLoss(p), (1.0,) * 4)
        assert reached.value == 0
        assert not network.readoff.weight.grad.any()


@pytest.mark.parametrize(("m", "d"), [(6, 20), (8, 80)])
@pytest.mark.parametrize("p", [(2.0,), (4.0,), (2.0, 8.0)])
def test_training_in_float32_is_training_in_float64(m, d, p, always):
    """Rounding perturbs each of 25 steps by some EPS, and a step of Adam magnifies it where gradients are small."""
    task, features, losses = PairTask(m, "and"), SparseFeatures.at_most(m, 2), []
    settings = TrainingSettings(optimiser="adam", steps=25, p=p, batch="all", lr=1e-2)
    for dtype in (torch.float32, torch.float64):
        network = Network(gaussian(m, d, 0), LinearReadoff.constant(task.n_outputs, d)).to(dtype)
        seen = []
        train(Trainer(network, task, features, settings, 0), report=lambda progress, seen=seen: seen.append(progress))
        losses.append([progress.loss for progress in seen])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert losses[0][-1] < losses[0][0] / 2


def test_training_reports_the_true_loss_near_an_exact_fit(forms):
    check_reported_losses(30)


def check_reported_losses(steps):
    network, task, inputs = nearly_exact(8, 80, "and", 0.0, 1e-3)
    settings = TrainingSettings(optimiser="adam", p=(2.0,), batch="all", lr=3e-5, steps=steps)
    trainer = Trainer(network, task, SparseFeatures.at_most(8, 2), settings, 0)
    losses = []
    while not trainer.finished:
        wide = copy.deepcopy(network).double()
        true = loss_and_gradients.plain(wide, task, inputs, LpLoss(2.0), trainer._weights)
        losses.append(float(true.value))
        assert float(trainer.advance().loss) == pytest.approx(losses[-1], rel=2e-3)
    assert 1e-5 < losses[-1] < losses[0] < 2e-3


def test_planted_fault_a_trainer_that_reports_rounding_is_caught(always, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_SHARE", dict.fromkeys(module._LEAST_SHARE, 0.0))
    with pytest.raises(AssertionError):
        check_reported_losses(30)


@pytest.mark.long
def test_training_reaches_an_exact_fit(forms, tmp_path, monkeypatch):
    """Where a layer can fit the gate exactly, Adam on a falling learning rate gets there: no loss is lost in rounding."""
    from toymodels.experiments.train import TrainConfig, run_train
    from toymodels.runs.storage import read_json

    monkeypatch.chdir(tmp_path)
    for seed in (0, 1, 2):  # one at a time: in this process, where the patch is
        config = TrainConfig(
            m=8,
            d=80,
            optimiser="adam",
            p=(2.0,),
            batch="all",
            lr_schedule="cosine",
            steps=4000,
            seeds=(seed,),
            threads=1,
        )
        (row,) = read_json(run_train(config) / "results.json")["rows"]
        assert row["worst_error"] < 1e-5


@pytest.mark.parametrize("p", [2.0, 3.0, 4.0, 8.0])
@pytest.mark.parametrize(
    ("gate", "size"),
    [("false", 1e-39), ("false", 1e-30), ("false", 1e-8), ("true", 1e-4), ("and", 1.5e3), ("and", 1e6), ("and", 1e30)],
)
def test_errors_whose_powers_or_inverse_are_no_numbers(p, gate, size, wing):
    """The inverse of 1e-39 is more than float32 holds, and so is the eighth power of 1e30: errors are divided by the largest."""
    task, inputs = PairTask(6, gate), SparseFeatures.at_most(6, 2).enumerate()
    outputs = (gate == "true") + size * torch.linspace(-1, 0.8, task.n_outputs)
    network = Network(gaussian(6, 4, 0), LinearReadoff(torch.zeros(task.n_outputs, 4), outputs))
    found = []
    for function, one in ((loss_and_gradients.plain, copy.deepcopy(network).double()), (small_gradients, network)):
        reached = function(one, task, inputs, LpLoss(p), (1.0, 2.0, 2.0, 5.0))
        found.append((float(reached.value) / size, float(reached.largest) / size, one.readoff.bias.grad.double()))
    assert found[0][0] > 0.1
    # Steps of 1.4e-45 between the numbers there are shares of 1.4e-6 of the largest, and a power has p times that.
    assert found[1][:2] == pytest.approx(found[0][:2], rel=p * 3e-6)
    assert torch.allclose(found[0][2], found[1][2], rtol=p * 3e-6, atol=3e-6)


def test_a_loss_that_overflows_is_infinite():
    """Powers of errors of a million, without the root, are more than float32 holds: the loss says so, nothing is raised."""
    task, inputs = PairTask(6, "and"), SparseFeatures.at_most(6, 2).enumerate()
    for function in (loss_and_gradients.plain, small_gradients):
        network = Network(gaussian(6, 4, 0), LinearReadoff.constant(task.n_outputs, 4))
        with torch.no_grad():
            network.readoff.bias.fill_(1e6)
        reached = function(network, task, inputs, LpLoss(8.0, root=False), (1.0,) * 4)
        assert not torch.as_tensor(reached.value, dtype=torch.float32).isfinite()
        assert not network.readoff.bias.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_largest_error_is_that_of_the_errors_at_any_size(dtype):
    """Rows long enough for loops over several inputs at once; outputs are much larger than their errors."""
    task, inputs = PairTask(24, "and"), SparseFeatures.exactly(24, 2).enumerate()
    readoff = LinearReadoff(torch.ones(task.n_outputs, 24), -torch.ones(task.n_outputs))
    with torch.no_grad():
        readoff.weight.zero_()[torch.arange(task.n_outputs)[:, None], task.pairs] = 1.0  # relu(x) = x: x_k + x_l − 1
    network = Network(FirstLayer(torch.eye(24), torch.zeros(24)), readoff).to(dtype)
    with torch.no_grad():
        network.readoff.bias += 0.95
        expected = float((network(inputs.dense(dtype=dtype)) - task.targets(inputs.dense(dtype=dtype))).abs().max())
    for function in (pair_gradients, small_gradients):
        for p in (3.0, 4.0):
            network.zero_grad()
            reached = function(network, task, inputs, LpLoss(p), (1.0,) * 4, None, True)
            assert float(reached.largest) == pytest.approx(expected, rel=1e-5)
