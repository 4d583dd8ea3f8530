"""Networks trained side by side: each is what it would be alone, follows its recipe, and is measured feature by feature."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from toymodels.compressed import unfinished
from toymodels.compressed.codes import best_scale, biregular, designed_code, pinv_decoder
from toymodels.compressed.measures import feature_errors
from toymodels.compressed.stack import Recipe, Stack, initial_stack, network, slope, train_stack
from toymodels.core.features import SparseFeatures
from toymodels.core.tasks import make_task
from toymodels.errors import InputError

SMALL = Recipe(n=12, d=6, p=0.1, steps=20, batch=32)


@pytest.mark.parametrize("q", [1, 1.5, 2, 2.2, 3, 4, 8])
def test_slopes_are_those_of_finite_differences(q):
    e = torch.tensor([-1.3, -0.2, 0.4, 2.0], dtype=torch.float64)
    step = 1e-6
    expected = ((e + step).abs() ** q - (e - step).abs() ** q) / (2 * step)
    assert torch.allclose(slope(e, q), expected, rtol=1e-6)
    assert not slope(torch.zeros(3), q).any()


@pytest.mark.parametrize("changes", [{}, {"tied": True, "q": 4.0}, {"weight_decay": 0.01}, {"occupied": True}])
def test_a_network_does_not_depend_on_its_neighbours(changes):
    recipe = dataclasses.replace(SMALL, q=changes.pop("q", 2.0), **changes)
    both = train_stack(recipe, [3, 5])
    alone = train_stack(recipe, [5])
    assert torch.allclose(both.w_in[1], alone.w_in[0], atol=1e-5)
    assert torch.allclose(both.w_out[1], alone.w_out[0], atol=1e-5)
    assert not torch.allclose(both.w_in[0], both.w_in[1], atol=1e-2)
    if recipe.tied:
        pinv = torch.linalg.pinv(both.w_in[0].double())
        ratio = both.w_out[0].double() / pinv
        assert torch.allclose(ratio, ratio[0, 0], rtol=1e-3)


def test_the_first_step_is_that_of_adam_on_the_mean_of_the_power():
    recipe = dataclasses.replace(SMALL, steps=1, q=3.0, lr=0.1)
    begin, end = initial_stack(recipe, [4]), train_stack(recipe, [4])
    from toymodels.core.seeds import derive_seed, seeded

    x = recipe.draw(32, [seeded(derive_seed(4, "batches"))])
    w_in, w_out = begin.w_in.clone().requires_grad_(), begin.w_out.clone().requires_grad_()
    loss = ((Stack(w_in, w_out)(x) - x.relu()).abs() ** 3).mean()
    loss.backward()
    moved = end.w_in - begin.w_in
    expected = -0.1 * w_in.grad / (w_in.grad.abs() + 1e-8)
    assert torch.allclose(moved, expected, atol=1e-4)
    assert begin.w_in.abs().max() <= 0.1 < begin.w_out.abs().max() <= 0.15


def test_inputs_have_their_probability_and_values():
    from toymodels.core.seeds import seeded

    recipe = Recipe(n=50, d=5, p=0.1)
    x = recipe.draw(4000, [seeded(0), seeded(1)])
    n = x[0].numel()
    assert not torch.equal(x[0], x[1])
    for rows in x:
        on = rows != 0
        assert float(on.double().mean()) == pytest.approx(0.1, abs=4 * math.sqrt(0.09 / n))
        values = rows[on].double()
        assert abs(float(values.mean())) < 4 / math.sqrt(3 * len(values))
        assert float((values**2).mean()) == pytest.approx(1 / 3, abs=4 * math.sqrt(4 / 45 / len(values)))


@pytest.mark.parametrize("p", [0.02, 0.3, 1.0])
def test_occupied_inputs_are_those_with_an_active_feature(p):
    """Beside rejection: drawing without the condition, and leaving out the inputs without an active feature."""
    from toymodels.core.seeds import seeded

    recipe = Recipe(n=12, d=5, p=p)
    plain = recipe.draw(40_000, [seeded(0)])[0]
    kept = plain[(plain != 0).any(1)]
    drawn = dataclasses.replace(recipe, occupied=True).draw(len(kept), [seeded(1)])[0]
    assert (drawn != 0).any(1).all()
    for statistic in (
        lambda x: (x != 0).double(),
        lambda x: x.double(),
        lambda x: ((x != 0).sum(1, keepdim=True) == 1).double(),
    ):
        first, second = statistic(kept), statistic(drawn)
        error = ((first.var(0) + second.var(0)) / len(kept)).sqrt()
        assert ((first.mean(0) - second.mean(0)).abs() <= 4.5 * error + 1e-12).all()


def test_training_with_a_mixing_matrix_approaches_its_target():
    mixing = 0.3 * torch.randn(2, 6, 6, generator=torch.Generator().manual_seed(0))
    recipe = Recipe(n=6, d=6, p=0.3, q=2, steps=300, batch=64)
    x = recipe.draw(2000, [torch.Generator().manual_seed(7) for _ in range(2)])

    def losses(stack):
        return ((stack(x) - torch.relu(x) - x @ mixing.mT) ** 2).mean((1, 2))

    stack = train_stack(recipe, [0, 1], mixing)
    assert (losses(stack) < 0.7 * losses(initial_stack(recipe, [0, 1]))).all()
    on = train_stack(dataclasses.replace(recipe, steps=1, lr=1e-9), [0, 1], mixing, start=stack)
    assert torch.allclose(on.w_in, stack.w_in, atol=1e-6)


def test_errors_by_feature_of_networks_that_are_known():
    n, d = 20, 10
    inputs = SparseFeatures.independent(n, 0.2, "symmetric").sampled(40_000, 0)
    naive = network(torch.eye(n)[:d], torch.eye(n)[:, :d])
    errors = feature_errors(naive, make_task("relu", n), inputs)
    assert float(errors.mse[:d].max()) < 1e-12
    positive = 0.1 * 40_000  # each feature: E x⁴ − (E x²)² = 1/5 − 1/9
    assert np.allclose(errors.mse[d:], 1 / 3, atol=5 * math.sqrt((1 / 5 - 1 / 9) / positive))
    assert errors.mse[d:].tolist() == errors.power[d:].tolist()
    assert errors.cv == pytest.approx(1, abs=0.02)  # half of them 0, half the same
    assert errors.loss_per_p == pytest.approx(1 / 12, rel=0.03)
    assert errors.fourth == pytest.approx(0.2 / 20, rel=0.05)
    assert errors.largest == pytest.approx(1, abs=1e-3)
    assert errors.share == pytest.approx(0.2, rel=0.02)


def test_codes_are_biregular_and_swaps_lower_their_overlaps():
    def squares(code):
        overlap = code @ code.T
        return int((overlap**2).sum() - (overlap.diagonal() ** 2).sum())

    first, last = (biregular(40, 20, 4, 0, swaps) for swaps in (0, 4000))
    for code in (first, last):
        assert set(np.unique(code)) == {0, 1}
        assert (code.sum(1) == 4).all()
        assert (code.sum(0) == 8).all()
    assert squares(last) < 0.95 * squares(first)
    # A pair of edges whose features or neurons are the same would not be counted right: the sum is recomputed from nothing.
    steps = [squares(biregular(40, 20, 4, 0, swaps)) for swaps in (500, 1000, 2000)]
    assert steps == sorted(steps, reverse=True)


def test_the_best_scale_and_the_code_built_from_it():
    generator = torch.Generator().manual_seed(0)
    y, t = torch.randn(2, 500, 4, generator=generator)
    c, loss = best_scale(y, t)
    grid = [float(((k * y - t) ** 4).mean()) for k in (c - 0.01, c, c + 0.01)]
    assert min(grid) == grid[1] == pytest.approx(loss, rel=1e-5)
    x = SparseFeatures.independent(40, 0.05, "symmetric").sampled(8_000, 0).dense()
    code = designed_code(biregular(40, 20, 4, 0, 4000), x)
    task = make_task("relu", 40)
    errors = feature_errors(code, task, SparseFeatures.independent(40, 0.05, "symmetric").sampled(20_000, 1))
    assert errors.cv < 0.5
    assert errors.mean < 0.15
    plain = pinv_decoder(torch.randn(20, 40, generator=generator), x)
    assert (
        errors.fourth
        < feature_errors(plain, task, SparseFeatures.independent(40, 0.05, "symmetric").sampled(20_000, 1)).fourth
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Recipe(n=10, d=11), "d = 11"),
        (lambda: Recipe(p=0.0), "above 0"),
        (lambda: Recipe(q=0.9), "from 1 to 64"),
        (lambda: Recipe(function="cube"), "unknown function"),
        (lambda: Recipe(steps=0), "steps = 0"),
        (lambda: Recipe(lr=0), "lr = 0"),
        (lambda: Recipe(sigma="0.1"), "sigma = '0.1': it must be 0 or a positive number"),
        (lambda: train_stack(SMALL, [1, 1]), "twice"),
        (lambda: train_stack(SMALL, [-1]), "at least 0"),
        (lambda: train_stack(SMALL, [1], torch.zeros(1, 3, 3)), "mixing matrices of shape"),
        (lambda: train_stack(SMALL, [1], start=initial_stack(Recipe(), [1])), "they must fit"),
        (lambda: biregular(10, 4, 3, 0), "a multiple of d"),
        (lambda: biregular(10, 5, 5, 0), "k = 5"),
        (lambda: designed_code(np.full((4, 2), 2), torch.zeros(1, 4)), "zeros and ones"),
        (lambda: designed_code([[0, 1]], torch.zeros(1, 1)), "a NumPy matrix of zeros and ones"),
        (lambda: designed_code(np.eye(4), torch.zeros(1, 5)), "5 features and the code 4"),
        (
            lambda: feature_errors(
                network(torch.eye(4), torch.eye(4)), make_task("and", 4), SparseFeatures.exactly(4, 1).enumerate()
            ),
            "not pointwise",
        ),
        (
            lambda: feature_errors(
                network(torch.eye(4), torch.eye(4)), make_task("relu", 4), SparseFeatures.exactly(5, 1).enumerate()
            ),
            "must be the same",
        ),
        (
            lambda: feature_errors(
                network(torch.eye(4), torch.eye(4)), make_task("relu", 4), SparseFeatures.exactly(4, 1).sampled(1, 0)
            ),
            "positive in none",
        ),
    ],
)
def test_wrong_settings_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize("changes", [{}, {"tied": True}, {"weight_decay": 0.01, "sigma": 0.1}])
def test_a_stopped_training_goes_on_where_it_was(changes, tmp_path, monkeypatch, capsys):
    recipe = dataclasses.replace(SMALL, steps=20, **changes)
    mixing = torch.eye(SMALL.n).expand(2, -1, -1) if recipe.sigma else None
    whole = train_stack(recipe, [0, 1], mixing)
    monkeypatch.setattr(unfinished, "SECONDS", 0.0)
    saved = []

    def stop_after_seven(self, state, save=unfinished.Unfinished.save):
        save(self, state)
        saved.append(state["step"])
        if state["step"] == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(unfinished.Unfinished, "save", stop_after_seven)
    with unfinished.kept_in(tmp_path / "kept"):
        with pytest.raises(KeyboardInterrupt):
            train_stack(recipe, [0, 1], mixing)
        other = train_stack(dataclasses.replace(recipe, lr=0.02, until=1), [0, 1], mixing)
        resumed = train_stack(recipe, [0, 1], mixing)
        assert "goes on after step 7 of 20" in capsys.readouterr().err
        assert saved == [*range(1, 8), 1, *range(8, 21)]
        again = train_stack(recipe, [0, 1], mixing)  # it has ended: nothing is left to do
        assert len(saved) == 21
    assert not torch.equal(other.w_in, whole.w_in)
    for stack in (resumed, again):
        assert torch.equal(stack.w_in, whole.w_in)
        assert torch.equal(stack.w_out, whole.w_out)
        assert recipe.sigma == 0 or torch.equal(stack.sigma, whole.sigma)


def test_a_short_training_leaves_no_state(tmp_path):
    with unfinished.kept_in(tmp_path / "kept"):
        train_stack(SMALL, [0])
    assert not (tmp_path / "kept").exists()


def test_a_damaged_state_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(unfinished, "SECONDS", 0.0)
    with unfinished.kept_in(tmp_path):
        train_stack(SMALL, [0])
        (state,) = tmp_path.iterdir()
        state.write_bytes(b"no checkpoint")
        with pytest.raises(InputError, match="delete it to start over"):
            train_stack(SMALL, [0])


def test_a_training_may_end_before_its_schedule():
    whole, short = (train_stack(dataclasses.replace(SMALL, steps=10, until=until), [0]) for until in (10, 3))
    assert torch.equal(whole.w_in, train_stack(dataclasses.replace(SMALL, steps=10), [0]).w_in)
    alone = train_stack(dataclasses.replace(SMALL, steps=3), [0])  # its learning rate falls to 0 in 3 steps
    moved, expected = (stack.w_in - initial_stack(SMALL, [0]).w_in for stack in (short, alone))
    assert moved.abs().sum() > 1.2 * expected.abs().sum()
    with pytest.raises(InputError, match="until"):
        dataclasses.replace(SMALL, steps=10, until=11)
