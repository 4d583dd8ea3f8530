import pytest
import torch

from toymodels.core.losses import LossSums, LpLoss, case_weights, signed_power
from toymodels.errors import InputError


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


def test_each_group_has_its_own_unit_when_averaged_apart():
    """The zeros' errors are far below the ones': in one unit they would vanish, or cancel, at high p."""
    outputs, targets, weights = data()
    outputs = torch.where(targets == 1, 1 + outputs, 0.03 * outputs).requires_grad_(True)
    expected = naive(outputs, targets, weights, 32.0, True, True, 1.0)
    gradient = torch.autograd.grad(expected, outputs)[0]
    for kind, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-3)):
        loss, parts = LpLoss(32.0, apart=True), [t.detach().to(kind) for t in (outputs, targets, weights)]
        sums, found = loss.sums_and_gradient(parts[0] - parts[1], *parts[1:])
        assert loss.value(sums) == pytest.approx(expected.item(), rel=tolerance)
        for value in (0, 1):
            on = targets == value
            assert torch.allclose(found[on].double(), gradient[on], rtol=tolerance * 40, atol=1e-7)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, 8.0, 32.0])
@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize(("apart", "ones"), [(False, 1.0), (True, 1.0), (True, 5.0)])
def test_value_and_gradient_equal_autograd_of_the_formula(p, root, apart, ones):
    outputs, targets, weights = data()
    outputs.requires_grad_(True)
    expected = naive(outputs, targets, weights, p, root, apart, ones)
    expected.backward()
    loss = LpLoss(p, root, apart, ones)
    errors = outputs.detach() - targets
    sums = loss.sums(errors, targets, weights)
    assert loss.value(sums) == pytest.approx(expected.item(), rel=1e-12)
    gradient = loss.gradient(errors, targets, weights, sums)
    both = loss.sums_and_gradient(errors, targets, weights)
    assert both[0] == sums
    assert torch.equal(both[1], gradient)
    assert torch.allclose(gradient, outputs.grad, rtol=1e-10, atol=1e-14 * float(outputs.grad.abs().max()))


@pytest.mark.parametrize("exponent", [0, 0.5, 1, 2, 3, 7, 31, 63.0, 64, 65, 12.5])
def test_powers_by_squaring_are_powers(exponent):
    base = torch.linspace(-1.2, 1.2, 51, dtype=torch.float64)
    kept = base.clone()
    power = signed_power(base, exponent, torch.full_like(base, 7.0))
    assert torch.allclose(power, base.sign() * base.abs() ** exponent, rtol=1e-13)
    assert torch.equal(base, kept)


@pytest.mark.parametrize("apart", [False, True])
def test_sums_over_blocks_join_to_the_sums_over_all(apart):
    outputs, targets, weights = data(rows=10)
    loss = LpLoss(5.0, apart=apart)
    errors = outputs - targets
    whole = loss.sums(errors, targets, weights)
    joined: LossSums | None = None
    for rows in (slice(0, 1), slice(1, 4), slice(4, 10)):
        part = loss.sums(errors[rows], targets[rows], weights[rows])
        joined = part if joined is None else joined.join(part, loss.p, apart)
    assert joined is not None
    assert joined.largest == whole.largest
    assert loss.value(joined) == pytest.approx(loss.value(whole), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_high_powers_neither_overflow_nor_vanish_in_float32(scale):
    outputs, targets, weights = (t.float() for t in data())
    errors = (outputs - targets) * scale
    loss = LpLoss(64.0)
    sums = loss.sums(errors, targets, weights)
    reference = loss.value(loss.sums(errors / scale, targets, weights))
    assert loss.value(sums) == pytest.approx(reference * scale, rel=1e-4)
    assert bool(torch.isfinite(loss.gradient(errors, targets, weights, sums)).all())


def test_no_error_no_gradient():
    targets = torch.ones(2, 3)
    loss = LpLoss(2.0)
    sums = loss.sums(torch.zeros(2, 3), targets, torch.ones(2, 3))
    assert loss.value(sums) == 0
    assert not loss.gradient(torch.zeros(2, 3), targets, torch.ones(2, 3), sums).any()


AND, XOR = (0, 0, 0, 1), (0, 1, 1, 0)
LAW = (0.7, 0.125, 0.125, 0.05)


@pytest.mark.parametrize("truth", [AND, XOR])
@pytest.mark.parametrize("weight", [7.0, "value", "case"])
def test_weights_have_mean_one_and_balance_what_they_say(truth, weight):
    weights = case_weights(weight, truth, LAW)
    shares = [p * w for p, w in zip(LAW, weights, strict=True)]
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


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan"), "nope"])
def test_wrong_weights_are_refused(weight):
    with pytest.raises(InputError):
        case_weights(weight, AND, LAW)


@pytest.mark.parametrize("p", [0.5, 0.0, -2.0, 1e8, float("inf"), float("nan")])
def test_wrong_exponents_are_refused(p):
    with pytest.raises(InputError, match="exponent"):
        LpLoss(p)
