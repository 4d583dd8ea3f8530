import itertools

import pytest
import torch

from toymodels.core.evaluation import evaluate
from toymodels.core.features import SparseFeatures
from toymodels.core.frames import coherence, optimised_frame
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.tasks import PairTask
from toymodels.errors import InputError
from toymodels.layers.quadratic import layer_frame, quadratic, quadratic_readoff
from toymodels.layers.random import gaussian
from toymodels.tasks.sets import conjunction
from toymodels.theory.gates import CASES, Gate

GATES = ["".join(digits) for digits in itertools.product("01", repeat=4)]
# Sums of at most r² = 64 terms of size at most 4, in float64.
EXACT = 1e-12


def unit(r, m, seed=0):
    frame = torch.randn(r, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return frame / frame.norm(dim=0)


def optimised(r, m, seed=0):
    frame = optimised_frame(m, r, seed).double()
    return frame / frame.norm(dim=0)  # of length 1 to float64, as the bound supposes


def layer_coherence(layer):
    return coherence(layer_frame(layer).double())


def error_bound(s, epsilon, gate):
    """The bound of |error| in the cases 00, 01, 10, 11, on inputs with at most s ≥ 1 active: of φ_kl, and of φ_kk and φ_ll.

    φ_kl with |a|, |b| ≤ (s − x)ε; the error of φ_kk as x_k is 2 x_k a + a². A case that needs more than s features has bound 0.
    """
    _, beta, gamma, delta = map(abs, gate.coefficients)
    bounds = []
    for x_k, x_l in CASES:
        a, b = (s - x_k) * epsilon, (s - x_l) * epsilon
        total = beta * (2 * x_k * a + a**2) + gamma * (2 * x_l * b + b**2) + delta * (x_k * b + x_l * a + a * b)
        bounds.append(total if x_k + x_l <= s else 0.0)
    return torch.tensor(bounds, dtype=torch.float64)


def excess(layer, task, s, readoff=None):
    """Largest of |error| − bound over all inputs with at most s active and all pairs; positive: the bound is broken."""
    x = SparseFeatures.at_most(task.m, s).enumerate().dense(dtype=torch.float64)
    readoff = readoff or quadratic_readoff(layer, task)
    error = (readoff(layer.double()(x)) - task.targets(x)).abs().detach()
    # The bound holds for the number of active features of each input, not only for the largest.
    bounds = torch.stack([error_bound(max(1, n), layer_coherence(layer), task.gate) for n in range(s + 1)])
    return float((error - bounds[x.sum(1).long()[:, None], task.cases(x)]).max())


def test_the_readoff_is_the_product_of_two_projections():
    m, r = 12, 5
    frame = unit(r, m)
    layer, task = quadratic(m, r * r, 0, frame), PairTask(m, "and")
    x = SparseFeatures.at_most(m, 4).enumerate().dense(dtype=torch.float64)
    projected = x @ (frame.T @ frame)
    k, l = task.pairs.T
    product = projected[:, k] * projected[:, l]
    read = quadratic_readoff(layer, task)(layer(x)).detach()
    assert float((read - product).abs().max()) < EXACT
    # Planted fault: the two kinds of sums in the other order.
    swapped = torch.cat([frame, layer.weight.detach()[15:], layer.weight.detach()[5:15]])
    wrong = FirstLayer(swapped, layer.bias.detach(), "quadratic", "quadratic")
    assert float((quadratic_readoff(wrong, task)(wrong(x)).detach() - product).abs().max()) > 0.1


@pytest.mark.parametrize("gate", GATES)
def test_orthogonal_features_have_no_error_in_any_gate(gate):
    m = 6
    task = PairTask(m, gate, [(0, 1), (4, 2), (3, 5)])
    layer = quadratic(m, m * m, 0, torch.eye(m, dtype=torch.float64))
    inputs = SparseFeatures.at_most(m, m).enumerate()
    assert evaluate(Network(layer, quadratic_readoff(layer, task)), task, inputs).worst_error < EXACT


def test_the_layer_is_r_squared_neurons_that_remember_their_frame():
    layer = quadratic(40, 36, 3)
    assert (layer.width, layer.origin, layer.activation, bool(layer.bias.any())) == (
        36,
        "quadratic",
        "quadratic",
        False,
    )
    frame = layer_frame(layer)
    assert frame.shape == (6, 40)
    assert torch.allclose(frame.norm(dim=0), torch.ones(40), atol=1e-6)
    assert torch.equal(quadratic(40, 36, 3).weight, layer.weight)
    assert not torch.equal(quadratic(40, 36, 4).weight, layer.weight)
    assert quadratic(3, 36, 0).weight.shape == (36, 3)  # more dimensions than features


@pytest.mark.parametrize("gate", ["and", "xor", "first_and_not_second", "or"])
@pytest.mark.parametrize(("s", "seed"), [(1, 0), (2, 0), (2, 1), (4, 2)])
def test_no_error_is_above_its_bound(gate, s, seed):
    m, r = 14, 6
    for frame in (unit(r, m, seed), optimised(r, m, seed)):
        assert excess(quadratic(m, r * r, seed, frame), PairTask(m, gate), s) < EXACT


def test_a_planted_fault_breaks_the_bound():
    """The readoff of one pair used for another, and one of the sums left out."""
    m, r, s = 14, 12, 2
    layer, task = quadratic(m, r * r, 0, optimised(r, m)), PairTask(m, "and")
    assert excess(layer, task, s) < EXACT
    for fault in (lambda w: w.roll(1, 0), lambda w: torch.cat([w[:, :r], 0 * w[:, r : r + 1], w[:, r + 1 :]], 1)):
        readoff = quadratic_readoff(layer, task)
        readoff.weight.data = fault(readoff.weight.data)
        assert excess(layer, task, s, readoff) > 0.01


def test_the_bound_is_reached_by_equiangular_features():
    """Three vectors at cosine −1/2 in the plane: 00 with one other active errs by exactly ε² = 1/4."""
    angles = 2 * torch.pi * torch.arange(3, dtype=torch.float64) / 3
    layer, task = quadratic(3, 4, 0, torch.stack([angles.cos(), angles.sin()])), PairTask(3, "and")
    assert layer_coherence(layer) == pytest.approx(0.5)
    x = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    error = float(quadratic_readoff(layer, task)(layer(x))[0, 0].detach())
    assert error == pytest.approx(float(error_bound(1, 0.5, Gate.parse("and"))[0])) == pytest.approx(0.25)


@pytest.mark.parametrize("s", [1, 2, 3, 8])
def test_the_published_claim_follows_with_constant_one(s):
    """Error O(s² ε) with constants ≤ 2 (Proposition 2): the bound of AND is never above s² ε, that of 00 is s² ε²."""
    for epsilon in torch.linspace(0, 1, 21).tolist():
        bound = error_bound(s, epsilon, Gate.parse("and"))
        assert float(bound.max()) <= s**2 * epsilon + 1e-12
        assert float(bound[0]) == pytest.approx(s**2 * epsilon**2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: quadratic(10, 50, 0), "49 or 64"),
        (lambda: quadratic(10, 0, 0), "at least 1"),
        (lambda: quadratic(1, 4, 0), "at least 2"),
        (lambda: quadratic(10, 25, 0, torch.eye(5)), "need \\(5, 10\\)"),
        (lambda: quadratic(5, 25, 0, 2 * torch.eye(5)), "length 1"),
        (lambda: layer_frame(gaussian(10, 25, 0, "quadratic")), "quadratic construction"),
        (lambda: quadratic_readoff(quadratic(10, 25, 0), conjunction(10, 3)), "pairs"),
        (lambda: quadratic_readoff(quadratic(10, 25, 0), PairTask(9, "and")), "must be the same"),
    ],
)
def test_wrong_inputs_are_refused(call, words):
    with pytest.raises(InputError, match=words):
        call()
