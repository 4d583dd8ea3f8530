"""The largest error over all amplitudes is that of a fine grid, from above, and within what the network's slopes allow."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from toymodels.compressed.exact import WorstError, error_at, worst_over_amplitudes
from toymodels.compressed.measures import feature_errors
from toymodels.compressed.stack import network
from toymodels.compressed.weights import two_layer
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import Embedded, FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.core.tasks import make_task
from toymodels.errors import InputError

N, D = 5, 7


def drawn(seed, outputs=N, bias=True):
    generator = torch.Generator().manual_seed(seed)
    first = FirstLayer(
        torch.randn(D, N, generator=generator).double(),
        (0.5 * bias) * torch.randn(D, generator=generator).double(),
    )
    second = LinearReadoff(
        torch.randn(outputs, D, generator=generator).double() / D,
        bias * torch.randn(outputs, generator=generator).double(),
    )
    return Network(first, second)


def grid_worst(made, task, s, low, high, points):
    """The largest error on a grid, and how far its steps can hide a larger one."""
    layers = two_layer(made, N, task.n_outputs)
    axis = np.linspace(low, high, points)
    worst = 0.0
    for features in [(i,) for i in range(N)] if s == 1 else [(i, k) for i in range(N) for k in range(i)]:
        x = torch.zeros(points**s, N, dtype=torch.float64)
        x[:, list(features)] = torch.from_numpy(np.stack(np.meshgrid(*[axis] * s), -1).reshape(-1, s))
        worst = max(worst, float(np.abs(layers(x.numpy()) - task.targets(x).numpy()).max()))
    slope = (np.abs(layers.w_out) @ np.abs(layers.w_in)).max() + 2  # by each amplitude; a target's is 2 at most
    return worst, s * slope * (high - low) / (points - 1) / 2


@pytest.mark.parametrize("s", [1, 2])
@pytest.mark.parametrize("seed", range(10))
def test_a_fine_grid_comes_near_from_below(seed, s):
    """Ten networks, every second one without biases, each with another task."""
    name = (
        "relu",
        "abs",
        "copy",
        "square",
        "product",
        "minimum",
        "maximum",
        "distance",
        "relu(mixing=symmetric)",
        "square",
    )[seed]
    task = make_task(name, N, seed=1)
    made = drawn(seed, task.n_outputs, bias=seed % 2 == 1)
    low, high = ((-1.0, 1.0), (-0.5, 2.0), (0.0, 1.0))[seed % 3]
    found = worst_over_amplitudes(made, task, s, (low, high))
    coarse, hidden = grid_worst(made, task, s, low, high, 4001 if s == 1 else 101)
    assert coarse <= found.upper
    assert found.value <= coarse + hidden
    assert found.check(made, task) == pytest.approx(found.value, rel=1e-9)
    assert all(low <= a <= high for a in found.amplitudes)
    # Uphill from the best grid points, by steps that halve, the grid's maximum must rise to the exact one.
    assert climbed(made, task, s, low, high) == pytest.approx(found.value, rel=1e-6)


def climbed(made, task, s, low, high):
    """Search from many points by steps of all sizes, without any knowledge of lines."""
    layers = two_layer(made, N, task.n_outputs)
    best = 0.0
    rng = np.random.default_rng(0)
    steps = np.array([[np.cos(t), np.sin(t)][:s] for t in np.linspace(0, 2 * math.pi, 64, endpoint=False)])
    for features in [(i,) for i in range(N)] if s == 1 else [(i, k) for i in range(N) for k in range(i)]:

        def error(points, features=features):
            x = torch.zeros(len(points), N, dtype=torch.float64)
            x[:, list(features)] = torch.from_numpy(points)
            return np.abs(layers(x.numpy()) - task.targets(x).numpy())

        start = np.concatenate(
            [rng.uniform(low, high, (3000, s)), np.stack(np.meshgrid(*[[low, 0, high]] * s), -1).reshape(-1, s)]
        )
        values = error(start)
        for output in range(task.n_outputs):
            point, value = start[values[:, output].argmax()], values[:, output].max()
            if value < 0.8 * best:
                continue
            size = 0.1 * (high - low)
            while size > 1e-11:
                near = np.clip(point + size * steps, low, high)
                tried = error(near)[:, output]
                if tried.max() > value:
                    point, value = near[tried.argmax()], tried.max()
                else:
                    size /= 2
            best = max(best, float(value))
    return best


def test_one_neuron_by_hand():
    """y_0 = 2 ReLU(x_0 − 1/2) for ReLU(x_0): the error is −1/2 at x_0 = 1/2, and 0 at 1."""
    layer = FirstLayer(torch.tensor([[1.0, 0.0]]), torch.tensor([-0.5]))
    made = Network(layer, LinearReadoff(torch.tensor([[2.0], [0.0]]), torch.zeros(2)))
    task = make_task("relu", 2)
    one = worst_over_amplitudes(made, task, 1, sets=[(0,)])
    assert (one.value, one.features, one.amplitudes, one.output) == (0.5, (0,), (0.5,), 0)
    every = worst_over_amplitudes(made, task, 2)
    assert every.value == 1  # feature 1 is not computed
    assert (every.output, every.amplitudes[1]) == (1, 1.0)
    # x² is missed by 1/4 by its chord, at 1/2 between the breaks: only the vertex of a parabola finds it.
    chord = network(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    squared = worst_over_amplitudes(chord, make_task("square", 2), 1, sets=[(0,)])
    assert squared.value == pytest.approx(0.25)
    assert abs(squared.amplitudes[0]) == pytest.approx(0.5)


def test_embedded_features_and_plain_modules_are_read():
    made = drawn(3)
    frame = torch.linalg.qr(torch.randn(N, N, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    inside = Network(Embedded(frame, FirstLayer(made.layer.weight @ frame.T, made.layer.bias)), made.readoff)
    plain = nn.Sequential(nn.Linear(N, D), nn.ReLU(), nn.Linear(D, N)).double()
    with torch.no_grad():
        for mine, theirs in ((plain[0], made.layer), (plain[2], made.readoff)):
            mine.weight.copy_(theirs.weight)
            mine.bias.copy_(theirs.bias)
    task = make_task("relu", N)
    first, second, third = (worst_over_amplitudes(m, task, 2).value for m in (made, inside, plain))
    assert first == pytest.approx(second, rel=1e-9)
    assert first == pytest.approx(third, rel=1e-12)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: worst_over_amplitudes(drawn(0), make_task("relu", N), 3), "s = 3: it must be at most 2"),
        (lambda: worst_over_amplitudes(drawn(0), make_task("and", N), 1), "not piecewise linear"),
        (lambda: worst_over_amplitudes(drawn(0), make_task("relu", N), 1, (0.5, 1.0)), "low ≤ 0 ≤ high"),
        (lambda: worst_over_amplitudes(drawn(0), make_task("relu", N), 1, (0.0, math.inf)), "two finite numbers"),
        (lambda: worst_over_amplitudes(drawn(0), make_task("relu", N), 2, sets=[(1, 1)]), "different features"),
        (lambda: worst_over_amplitudes(drawn(0), make_task("relu", N), 1, sets=[(0.5,)]), "different features"),
        (lambda: worst_over_amplitudes(drawn(0), make_task("relu", N), 1, sets=[1]), "different features"),
        (lambda: worst_over_amplitudes(drawn(0), make_task("relu", 6), 1), "they must be the same"),
        (lambda: worst_over_amplitudes(nn.Linear(N, N), make_task("relu", N)), "1 nn.Linear"),
        (
            lambda: worst_over_amplitudes(
                nn.Sequential(nn.Linear(N, D), nn.Tanh(), nn.Linear(D, N)), make_task("relu", N)
            ),
            "is not W_out",
        ),
        (
            lambda: worst_over_amplitudes(
                network(torch.full((D, N), math.nan), torch.ones(N, D)), make_task("relu", N)
            ),
            "not a number",
        ),
        (lambda: worst_over_amplitudes(drawn(0), make_task("relu", N), 1, (-1.0,)), "two finite numbers"),
    ],
)
def test_wrong_inputs_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


def test_a_result_says_where_it_is():
    made, task = drawn(1), make_task("relu", N)
    found = worst_over_amplitudes(made, task, 2)
    assert isinstance(found, WorstError)
    assert abs(error_at(made, task, found.features, found.amplitudes, found.output)) == pytest.approx(
        found.value, rel=1e-12
    )
    assert found.sets == 10
    assert found.value < found.upper < found.value + 1e-9


def test_a_module_in_training_mode_is_measured_as_it_is_used():
    """Dropout would make each evaluation another one."""
    plain = nn.Sequential(nn.Linear(N, D), nn.ReLU(), nn.Linear(D, N)).double()
    dropping = nn.Sequential(plain[0], plain[1], nn.Dropout(0.5), plain[2]).train()
    task, features = make_task("relu", N), SparseFeatures.independent(N, 0.4, "symmetric")
    found = worst_over_amplitudes(dropping, task)
    assert found.check(dropping, task) == pytest.approx(found.value, abs=1e-9)
    inputs = features.sampled(500, 0)
    assert feature_errors(dropping, task, inputs).loss == feature_errors(plain, task, inputs).loss
    assert dropping.training
