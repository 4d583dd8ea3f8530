"""The plain losses: against the formula of the module's head, written out once more here, and against finite differences."""

import itertools

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

from toymodels.core import losses as module
from toymodels.core.features import Inputs, SparseFeatures
from toymodels.core.losses import (
    LOSSES,
    ApartLoss,
    ElementwiseLoss,
    LpLoss,
    case_weights,
    loss_and_gradients,
    make_loss,
)
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.layers.random import gaussian

HUBER = ElementwiseLoss(lambda e: torch.nn.functional.huber_loss(e, torch.zeros_like(e), reduction="none", delta=0.3))


def loss_name(loss):
    """A name without the address of a function, which differs from process to process."""
    return "huber" if loss is HUBER else str(loss)


def data(seed=0, rows=7, columns=11):
    rng = torch.Generator().manual_seed(seed)
    outputs = torch.randn(rows, columns, generator=rng, dtype=torch.float64)
    targets = (torch.rand(rows, columns, generator=rng) < 0.3).double()
    weights = torch.rand(rows, columns, generator=rng, dtype=torch.float64)
    weights[0] = 0  # a row that weighs nothing
    return outputs, targets, weights


def naive(outputs, targets, weights, p, root, apart, ones):
    """The formula of the module's head, for autograd."""
    power = weights * (outputs - targets).abs() ** p
    if not apart:
        mean = power.sum() / targets.shape[1]
        return mean ** (1 / p) if root else mean
    total = 0
    for value, share in ((0, 1.0), (1, ones)):
        on = targets == value
        mean = power[on].sum() / weights[on].sum()
        total = total + share * (mean ** (1 / p) if root else mean)
    return total


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, 8.0, 32.0])
@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize(("apart", "ones"), [(False, 1.0), (True, 1.0), (True, 5.0)])
def test_value_and_gradient_equal_autograd_of_the_formula(p, root, apart, ones):
    outputs, targets, weights = data()
    outputs.requires_grad_(True)
    expected = naive(outputs, targets, weights, p, root, apart, ones)
    (slope,) = torch.autograd.grad(expected, outputs)
    loss = make_loss("lp_apart" if apart else "lp", p, root, ones)
    value = loss(outputs - targets, targets, weights)
    (gradient,) = torch.autograd.grad(value, outputs)
    assert value.item() == pytest.approx(expected.item(), rel=1e-12)
    assert torch.allclose(gradient, slope, rtol=1e-10, atol=1e-14 * float(slope.abs().max()))


LOSSES_TO_CHECK = [
    *(LpLoss(p, root) for p in (1, 1.5, 2, 32) for root in (True, False)),
    *(ApartLoss(p, root, 3.0) for p in (1.5, 8) for root in (True, False)),
    HUBER,
]


@pytest.mark.parametrize("loss", LOSSES_TO_CHECK, ids=loss_name)
def test_gradients_are_finite_differences(loss):
    outputs, targets, weights = data()
    errors = outputs - targets
    errors = (errors / errors.abs().max()).requires_grad_(
        True
    )  # powers of the size of the differences that rounding leaves
    assert torch.autograd.gradcheck(lambda e: loss(e, targets, weights), errors, rtol=1e-5, atol=1e-8)


def test_each_group_has_its_own_unit_when_averaged_apart():
    """The zeros' errors are far below the ones': in one unit they would vanish, or cancel, at high p."""
    outputs, targets, weights = data()
    outputs = torch.where(targets == 1, 1 + outputs, 0.03 * outputs).requires_grad_(True)
    expected = naive(outputs, targets, weights, 32.0, True, True, 1.0)
    gradient = torch.autograd.grad(expected, outputs)[0]
    for kind, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-3)):
        parts = [t.detach().to(kind) for t in (outputs, targets, weights)]
        parts[0].requires_grad_(True)
        value = ApartLoss(32.0)(parts[0] - parts[1], *parts[1:])
        assert value.item() == pytest.approx(expected.item(), rel=tolerance)
        (found,) = torch.autograd.grad(value, parts[0])
        for group in (0, 1):
            on = targets == group
            assert torch.allclose(found[on].double(), gradient[on], rtol=tolerance * 40, atol=1e-7)


@pytest.mark.parametrize("p", [1, 1.5, 2, 32, 1000])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.parametrize("make", [LpLoss, ApartLoss])
def test_no_exponent_overflows_or_vanishes_in_float32(p, scale, make):
    """The root of the mean power has the size of the errors, which float32 holds, whatever p."""
    outputs, targets, weights = (t.float() for t in data())
    errors, loss = (outputs - targets).requires_grad_(True), make(p)
    value, reference = loss(errors * scale, targets, weights), loss(errors.double(), targets, weights)
    assert value.item() == pytest.approx(reference.item() * scale, rel=1e-4)
    slopes = [torch.autograd.grad(v, errors)[0] for v in (value / scale, reference)]
    assert torch.allclose(*slopes, rtol=1e-4 * p, atol=1e-6)
    assert float(slopes[0].abs().max()) > 1e-3


@pytest.mark.parametrize("loss", [*(LpLoss(p, root) for p in (1, 1.5, 2, 32, 1000) for root in (True, False)), HUBER])
def test_no_error_no_gradient(loss):
    errors = torch.zeros(2, 3, requires_grad=True)
    value = loss(errors, torch.ones(2, 3), torch.ones(2, 3))
    (gradient,) = torch.autograd.grad(value, errors)
    assert value == 0
    assert torch.equal(gradient, torch.zeros(2, 3))


@pytest.mark.parametrize("p", [1, 2, 32])
def test_a_group_without_errors_or_members_adds_nothing(p):
    targets, weights = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2)
    exact_zeros = ApartLoss(p)(torch.tensor([[0.0, 0.5]]), targets, weights)
    no_zeros = ApartLoss(p)(torch.tensor([[0.5, 0.5]]), torch.ones(1, 2), weights)
    for value in (exact_zeros, no_zeros):
        assert value.item() == pytest.approx(0.5)


def test_elementwise_is_the_weighted_mean_of_a_function():
    outputs, targets, weights = data()
    errors = outputs - targets
    huber = torch.where(errors.abs() < 0.3, errors**2 / 2, 0.3 * (errors.abs() - 0.15))
    assert HUBER(errors, targets, weights).item() == pytest.approx((weights * huber).sum().item() / 11, rel=1e-12)


def test_a_loss_of_ones_own_is_found_by_name(monkeypatch):
    monkeypatch.setattr(LOSSES, "_members", dict(LOSSES._members))

    @LOSSES("cut", source="this test")
    def cut(errors, *, top=0.5):
        return errors.abs().clamp(max=top)

    outputs, targets, weights = data()
    errors = outputs - targets
    value = make_loss("cut(top=0.2)", 2.0, True)(errors, targets, weights)
    assert value.item() == pytest.approx((weights * errors.abs().clamp(max=0.2)).sum().item() / 11, rel=1e-12)
    with pytest.raises(InputError, match="unknown loss"):
        make_loss("nope", 2.0, True)


def test_a_loss_of_ones_own_may_follow_p_and_have_knobs(monkeypatch):
    monkeypatch.setattr(LOSSES, "_members", dict(LOSSES._members))

    @LOSSES("scaled", source="this test")
    def scaled(p, root, *, factor=1.0):
        return ElementwiseLoss(lambda errors: (factor * errors.abs()) ** p)

    errors, targets, weights = data()
    for name, factor in (("scaled", 1.0), ("scaled(factor=2.0)", 2.0)):
        value = make_loss(name, 3.0, False)(errors, targets, weights)
        assert value.item() == pytest.approx((weights * (factor * errors.abs()) ** 3).sum().item() / 11, rel=1e-12)


FEATURES = SparseFeatures.independent(5, 0.35)
TASK = PairTask(5, "xor")
WEIGHTS = (0.5, 1.0, 1.5, 2.0)


def network(seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(seed)
    readoff = LinearReadoff(torch.randn(10, 4, generator=rng), torch.randn(10, generator=rng))
    return Network(gaussian(5, 4, seed, bias=-0.3), readoff).to(dtype)


def gradients_of(net, loss, inputs, sample=None):
    net.zero_grad()
    reached = loss_and_gradients.plain(net, TASK, inputs, loss, WEIGHTS, sample)
    return reached, [parameter.grad.to_dense() for parameter in net.parameters()]


@pytest.mark.parametrize("loss", LOSSES_TO_CHECK, ids=loss_name)
@pytest.mark.parametrize("inputs", [FEATURES.enumerate(), FEATURES.sampled(21, 0)], ids=["enumerated", "sampled"])
def test_gradients_of_a_network_are_those_of_the_formula(loss, inputs):
    net = network()
    x = inputs.dense(dtype=torch.float64)
    shares = torch.tensor(WEIGHTS)[TASK.cases(x)] * inputs.probabilities[:, None]
    errors = net(x) - TASK.targets(x)
    if isinstance(loss, ElementwiseLoss):
        expected = (shares * loss.function(errors)).sum() / 10
    else:
        apart = isinstance(loss, ApartLoss)
        expected = naive(net(x), TASK.targets(x), shares, loss.p, loss.root, apart, getattr(loss, "ones", 1.0))
    slopes = torch.autograd.grad(expected, list(net.parameters()))
    reached, found = gradients_of(net, loss, inputs)
    assert float(reached.value) == pytest.approx(expected.item(), rel=1e-11)
    assert float(reached.largest) == pytest.approx(errors.abs().max().item(), rel=1e-12)
    for one, other in zip(found, slopes, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("loss", LOSSES_TO_CHECK, ids=loss_name)
@pytest.mark.parametrize("sample", [None, torch.tensor([3, 8, 1])], ids=["all", "sample"])
def test_gradients_in_blocks_are_those_of_one_block(loss, sample, monkeypatch):
    inputs, net, seen = FEATURES.enumerate(), network(), []
    net.layer.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    whole, expected = gradients_of(net, loss, inputs, sample)
    monkeypatch.setattr(module, "BLOCK", 7 * TASK.n_outputs)
    parts, found = gradients_of(net, loss, inputs, sample)
    assert seen == [32] + 3 * [7, 7, 7, 7, 4]  # for the units, for the sums, and to be differentiated
    assert float(parts.value) == pytest.approx(float(whole.value), rel=1e-12)
    assert float(parts.largest) == float(whole.largest)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss", [LpLoss(3.0, root=False), HUBER], ids=loss_name)
def test_a_sample_of_outputs_is_unbiased(loss):
    """Over all 45 samples of 2 of 10 pairs, loss and gradients are on average those of all pairs: exactly, not by chance."""
    inputs, net = FEATURES.sampled(20, 3), network()
    whole, expected = gradients_of(net, loss, inputs)
    samples = list(itertools.combinations(range(10), 2))
    value, total = 0.0, [torch.zeros_like(gradient) for gradient in expected]
    for sample in samples:
        reached, found = gradients_of(net, loss, inputs, torch.tensor(sample))
        value += float(reached.value) / len(samples)
        for share, gradient in zip(total, found, strict=True):
            share += gradient / len(samples)
    assert net.readoff.weight.grad.is_sparse
    assert net.readoff.bias.grad.is_sparse
    assert value == pytest.approx(float(whole.value), rel=1e-10)
    for share, gradient in zip(total, expected, strict=True):
        assert torch.allclose(share, gradient, rtol=1e-9, atol=1e-12)


def test_a_sample_counts_every_output_in_the_last_case_once():
    """Both features of output 0, the pair (0, 1), are on: it counts though it is not sampled, output 5 for all ten, no other."""
    x = torch.tensor([[0, 1]])
    inputs, net, loss = Inputs(5, x, torch.ones(1).double(), True, "one input"), network(), LpLoss(3.0, root=False)
    whole = [slope.clone() for slope in gradients_of(net, loss, inputs)[1][-2:]]
    sampled = gradients_of(net, loss, inputs, torch.tensor([5]))[1][-2:]
    counts = torch.tensor([1.0, 0, 0, 0, 0, 10, 0, 0, 0, 0]).double()
    assert all(bool(slope.any()) for slope in whole)
    assert torch.allclose(sampled[0], counts[:, None] * whole[0], rtol=1e-12)
    assert torch.allclose(sampled[1], counts * whole[1], rtol=1e-12)


@pytest.mark.parametrize(
    "loss", [LpLoss(2.0), LpLoss(1.5, root=False), LpLoss(32.0), ApartLoss(8.0), HUBER], ids=loss_name
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_of_stacked_networks_are_those_of_a_loop(loss, dtype):
    """One call of vmap for three networks, as an ensemble is trained."""
    networks, inputs = [network(seed, dtype) for seed in range(3)], FEATURES.enumerate()
    x = inputs.dense(dtype=dtype)
    targets, shares = TASK.targets(x), TASK.by_case(x, WEIGHTS) * inputs.probabilities[:, None].to(dtype)

    def value(parameters):
        return loss(functional_call(networks[0], parameters, x) - targets, targets, shares)

    stacked, _ = stack_module_state(networks)
    values, slopes = vmap(value)(stacked), vmap(grad(value))(stacked)
    for i, net in enumerate(networks):
        reached, _ = gradients_of(net, loss, inputs)
        # Batched products may add up in another order: some 40 terms, each rounded.
        close = {"rtol": 40 * torch.finfo(dtype).eps, "atol": 40 * torch.finfo(dtype).eps}
        torch.testing.assert_close(values[i], reached.value, **close)
        for name, parameter in net.named_parameters():
            torch.testing.assert_close(slopes[name][i], parameter.grad, **{**close, "rtol": 40 * close["rtol"]})


AND, XOR = (0, 0, 0, 1), (0, 1, 1, 0)
SHARES = (0.7, 0.125, 0.125, 0.05)


@pytest.mark.parametrize("truth", [AND, XOR])
@pytest.mark.parametrize("weight", [7.0, "value", "case"])
def test_weights_have_mean_one_and_balance_what_they_say(truth, weight):
    weights = case_weights(weight, truth, SHARES)
    shares = [p * w for p, w in zip(SHARES, weights, strict=True)]
    assert sum(shares) == pytest.approx(1)
    ones = sum(share for share, value in zip(shares, truth, strict=True) if value)
    if weight == "case":
        assert shares == pytest.approx([0.25] * 4)
    elif weight == "value":
        assert ones == pytest.approx(0.5)
    else:
        one = next(w for w, value in zip(weights, truth, strict=True) if value)
        assert one == pytest.approx(7 * weights[0])


def test_a_case_that_never_occurs_weighs_nothing():
    assert case_weights("case", AND, (0.0, 0.5, 0.5, 0.0)) == pytest.approx((0.0, 1.0, 1.0, 0.0))
    assert case_weights("value", AND, (0.5, 0.25, 0.25, 0.0))[3] == 0


def test_real_targets_are_weighed_by_case_or_not_at_all():
    assert case_weights("case", None, (0.9, 0.1)) == pytest.approx((1 / 1.8, 5.0))
    assert case_weights(1, None, (0.9, 0.1)) == pytest.approx((1.0, 1.0))
    for weight in ("value", 3.0):
        with pytest.raises(InputError, match="real numbers have no zeros and ones"):
            case_weights(weight, None, (0.9, 0.1))


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan"), "nope"])
def test_wrong_weights_are_refused(weight):
    with pytest.raises(InputError):
        case_weights(weight, AND, SHARES)


@pytest.mark.parametrize("p", [0.5, 0.0, -2.0, 1e8, float("inf"), float("nan")])
@pytest.mark.parametrize("make", [LpLoss, ApartLoss])
def test_wrong_exponents_are_refused(p, make):
    with pytest.raises(InputError, match="exponent"):
        make(p)
