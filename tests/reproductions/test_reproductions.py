"""Reproductions: every one runs at toy size, goes on where it stopped, compares by intervals, and writes before it draws."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from toymodels.cli import main
from toymodels.compressed.measures import feature_errors
from toymodels.compressed.registry import Compressed
from toymodels.compressed.stack import Recipe, Stack, initial_stack, network, train_stack
from toymodels.compressed.weights import two_layer
from toymodels.core.features import SparseFeatures
from toymodels.core.layers import FirstLayer
from toymodels.core.network import Network
from toymodels.core.readoffs import LinearReadoff
from toymodels.diagnosis.known import KNOWN
from toymodels.errors import InputError
from toymodels.reproductions import (
    amplitudes,
    command,
    confusion,
    histogram,
    l4,
    l4_code,
    learned_sigma,
    mixing,
    n_max,
    plane,
    products,
    sparsity,
    structure,
)
from toymodels.reproductions.registry import REPRODUCTIONS, Line
from toymodels.theory.compressed import non_negative, single_alpha
from toymodels.theory.statistics import mean_interval

TOY = {"steps": 2, "batch": 8, "eval": 1500, "swaps": 50, "n": 20, "d": 10, "m": 6, "largest": 10, "points": 100}


@pytest.fixture
def toy(monkeypatch):
    """All problems at 20 features and 10 neurons."""
    for name, value in {"N": 20, "D": 10, "P": 0.1}.items():
        monkeypatch.setattr(mixing, name, value)
    monkeypatch.setattr(mixing, "SIGMAS", {"asymmetric": (0.0, 0.1), "symmetric": (0.1, 0.2)})
    monkeypatch.setattr(confusion, "KNOWN", {name: KNOWN[name] for name in ("naive", "gaussian", "and_naive")})
    monkeypatch.setattr(amplitudes, "NETWORKS", ("naive", "linear_copy"))
    monkeypatch.setattr(confusion, "NULLS", {"and_naive": (6, 8)})
    monkeypatch.setattr(n_max, "WIDTHS", (3, 4))
    monkeypatch.setattr(n_max, "LONGER", {"active": 1, "q": 4, "d": 3, "times": 2})


@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_each_runs_at_toy_size(name, toy, tmp_path, monkeypatch):
    member = REPRODUCTIONS[name]
    monkeypatch.setitem(member.__dict__, "reduced", {key: TOY[key] for key in member.reduced})
    shown = command.run(member, tmp_path / "out", (0, 1))
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content["lines"]
    assert content["seeds"] == [0, 1]
    assert all(line["what"] in shown for line in content["lines"])
    assert (tmp_path / "out" / f"{name}.png").exists() == (member.draw is not None)
    assert member.source
    assert member.minutes > 0
    assert set(member.full) == set(member.reduced)
    # What is measured is not measured again.
    before = (tmp_path / "out" / "rows.jsonl").read_bytes()
    monkeypatch.setattr(type(member), "call", lambda *arguments: pytest.fail("measured again"))
    assert command.run(member, tmp_path / "out", (0, 1), figures=False).split("\n")[0] == shown.split("\n")[0]
    assert (tmp_path / "out" / "rows.jsonl").read_bytes() == before


class StartedError(Exception):
    """The training has begun."""


@pytest.mark.parametrize("name", [name for name in REPRODUCTIONS if name != "null_ratio"])  # which has one size
def test_the_full_size_starts_with_the_sizes_stated(name, tmp_path, monkeypatch):
    member = REPRODUCTIONS[name]

    def begin(first, *arguments):
        raise StartedError(getattr(first, "settings", first))

    monkeypatch.setattr(Recipe, "draw", begin)
    for module in (histogram, products):
        monkeypatch.setattr(module, "train", begin)
    monkeypatch.setattr(confusion, "KNOWN", {"l4_trained": KNOWN["l4_trained"]})
    monkeypatch.setattr(amplitudes, "NETWORKS", ("l4_trained",))
    with pytest.raises(StartedError) as begun:
        command.run(member, tmp_path / "out", member.seeds, full=True)
    (started,) = begun.value.args
    stated = {key: size for key, size in member.full.items() if hasattr(started, key)}
    assert "steps" in stated
    assert {key: getattr(started, key) for key in stated} == stated


def test_a_figure_that_fails_costs_a_sentence(toy, tmp_path, monkeypatch, capsys):
    member = REPRODUCTIONS["q_sweep"]
    monkeypatch.setitem(member.__dict__, "reduced", {key: TOY[key] for key in member.reduced})
    monkeypatch.setitem(member.__dict__, "draw", lambda rows: 1 / 0)
    assert "comparison.json" in command.run(member, tmp_path / "out", (0,))
    assert "no figure was drawn (ZeroDivisionError: division by zero)" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["lines"]


def test_verdicts_follow_from_intervals():
    values = [1.0, 1.1, 0.9, 1.0, 1.0]
    mean, half = mean_interval(values)
    assert Line("a", values, mean + 0.99 * half).verdict == "agree"
    assert Line("a", values, mean + 1.01 * half).verdict == "differ by -0.0887 (-8.1%)"
    assert Line("a", values, mean + 1.5 * half, 0.51 * half).verdict == "agree"
    assert Line("a", values).verdict == "not published"
    assert Line("a", [1.0], 1.2).verdict.startswith("differ by -0.2")
    assert Line("a", [2.0] * 3, 0.0).verdict == "differ by +2"


def test_a_crossing_is_found_between_the_sizes_measured():
    rows = [
        {"sigma": sigma, "x": [mixing.NAIVE + error] * 2} for sigma, error in ((0.0, 1.0), (0.1, -0.02), (0.2, 0.01))
    ]
    assert mixing.below_naive(rows, "x") == pytest.approx(0.1 + 0.1 * 2 / 3)
    assert mixing.below_naive(rows[:2], "x") != mixing.below_naive(rows[:2], "x")  # not a number


@pytest.mark.parametrize(
    ("cvs", "counts", "words"),
    [
        ([1.0, 1.0, 0.0, 0.0], [50, 50, 100, 100], "a jump between neighbours"),
        ([1.0, 0.7, 0.3, 0.0], [50, 60, 90, 100], "a crossover over 2 value"),
    ],
)
def test_a_jump_is_told_from_a_crossover(cvs, counts, words):
    rows = [{"q": q, "cv": [cv], "computed": [n]} for q, cv, n in zip((2, 2.1, 2.2, 2.3), cvs, counts, strict=True)]
    answer = l4._jump_or_crossover(rows)
    assert words in answer
    assert "q = 2.1" in answer


def test_the_list_and_wrong_commands(capsys, tmp_path):
    assert main(["reproduce", "--list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in REPRODUCTIONS)
    for words, expected in (
        (["no_such"], "unknown reproduction"),
        (["q_table", "--seeds", "0", "0"], "twice"),
        (["q_table", "--seeds", "-1"], "at least 0"),
        (["q_table", "--out", str(tmp_path / "file")], "is a file"),
    ):
        (tmp_path / "file").write_text("")
        assert main(["reproduce", *words]) == 2
        assert expected in capsys.readouterr().err


def test_losses_by_sparsity_are_those_of_plain_samples(toy):
    """Beside inputs that may be empty, of another measurement: mean squared error over p."""
    recipe = mixing.recipe({"steps": 1, "batch": 1}, 0.1)
    stack, M = initial_stack(recipe, [3]), mixing.matrices("asymmetric", 0.1, [3])
    (found,) = sparsity.loss_per_p(stack, 0.1, torch.stack(M), [3], 60_000)
    problem = Compressed(20, 10, 0.1, M[0].double().numpy())
    samples = problem.loss_per_p(stack.network(0), 0, 80_000)
    assert found == pytest.approx(np.mean(samples), abs=6 * np.std(samples, ddof=1) / np.sqrt(8))
    dense = SparseFeatures.exactly(20, 20, "symmetric").sampled(30_000, 1)
    (all_active,) = sparsity.loss_per_p(stack, 1.0, torch.stack(M), [3], 30_000)
    assert all_active == pytest.approx(feature_errors(stack.network(0), problem.task, dense).loss, rel=0.03)


def test_slopes_and_cosines_of_known_matrices():
    M = 0.1 * np.random.default_rng(0).standard_normal((30, 30))
    line = structure.slopes(0.7 * np.eye(30) + 1.5 * M + 0.5 * np.diag(np.diag(M)), M)
    assert [line[name] for name in ("off", "on", "intercept")] == pytest.approx([1.5, 2.0, 0.7])
    without = structure.slopes(0.4 * np.eye(30) + 2 * M, M - np.diag(np.diag(M)))
    assert np.isnan(without["on"])
    copy = structure.best_copy(M, 12)
    assert np.linalg.matrix_rank(copy) == 12
    left = np.linalg.svd(np.eye(30) + M - copy, compute_uv=False)
    assert (left**2).sum() == pytest.approx((np.linalg.svd(np.eye(30) + M, compute_uv=False)[12:] ** 2).sum())
    values = structure.cosines(copy, M)
    assert np.allclose(values[:12], 1)
    assert np.allclose(structure.cosines(-copy, M)[:12], -1)


def test_the_border_in_the_plane_is_found_between_exponents():
    def row(p, q, cv):
        return {"p": p, "q": q, "cv": [cv, cv], "computed": [3, 3], "n": 10}

    rows = [row(0.1, 2, 0.9), row(0.1, 2.1, 0.7), row(0.1, 2.3, 0.1)]
    assert plane.crossing(rows) == pytest.approx(2.1 + 0.2 * 0.2 / 0.6)
    assert np.isnan(plane.crossing([row(0.5, 2, 0.3), row(0.5, 3, 0.1)]))
    answer = REPRODUCTIONS["plane"].answer([*rows, row(0.5, 2, 0.3), row(0.5, 3, 0.1)])
    assert "p = 0.1: q = 2.167" in answer
    assert "p = 0.5: no q measured (CV 0.10 at q = 3)" in answer


def test_matrices_are_drawn_for_each_seed():
    first, second = mixing.matrices("asymmetric", 0.1, [0, 1])
    assert not first.equal(second)
    assert first.equal(mixing.matrices("asymmetric", 0.1, [0])[0])
    assert not mixing.matrices("symmetric", 0.0, [0])[0].any()
    with pytest.raises(InputError, match="unknown mixing"):
        mixing.matrices("odd", 0.1, [0])


@pytest.mark.parametrize(("left", "words"), [(0.09, "went with M"), (0.05, "does not say that the gain went with M")])
def test_the_transplant_concludes_from_what_was_measured(left, words):
    row = {"with": [0.07] * 3, "jump": [left] * 3, "after": [left] * 3, "fresh": [0.083] * 3}
    row |= {"later": [10, 30], "early": [[0.02] * 3] * 2}
    assert words in REPRODUCTIONS["transplant"].answer([row])
    names = [line.what for line in REPRODUCTIONS["transplant"].lines([row])]
    assert names[2:4] == ["after 10 steps with M = 0: L/p", "after 30 steps with M = 0: L/p"]


def test_confusion_has_seeds_of_its_own():
    assert REPRODUCTIONS["confusion"].seeds == tuple(range(100, 120))
    (key, *_) = REPRODUCTIONS["confusion"].keys({"n": 10, "d": 5, "steps": 0, "eval": 100}, (0, 1, 2, 3, 4))
    assert key["seeds"] == [0, 1, 2, 3, 4]  # those that are asked for


def test_errors_of_even_functions_count_both_signs(monkeypatch):
    half = Stack(torch.eye(10)[None], torch.eye(10)[None])  # ReLU(x): all of |x| at x > 0, nothing of it at x < 0
    monkeypatch.setattr(l4, "trained", lambda key: half)
    key = {"n": 10, "function": "abs", "q": 2, "eval": 4000, "seeds": [0]}
    row = l4.by_function(key)
    assert row["computed"] == [0]
    assert row["share"][0] == pytest.approx(0.5, abs=0.02)
    assert l4.by_function({**key, "function": "relu"})["share"] == [0]


def test_a_learned_sigma_ends_where_the_loss_is_least():
    """One neuron has no error for ReLU(x) − σ x at σ = 0, and at σ = 1, where that is ReLU(−x); elsewhere it has one."""
    recipe = Recipe(1, 1, p=1.0, q=2, sigma=0.3, steps=600, batch=64, lr=0.02)
    stack = train_stack(recipe, [0, 1], -torch.ones(2, 1, 1))
    assert stack.sigma.shape == (2,)
    assert torch.minimum(stack.sigma.abs(), (stack.sigma - 1).abs()).max() < 0.01
    assert train_stack(replace(recipe, sigma=0.0), [0], torch.zeros(1, 1, 1)).sigma is None
    with pytest.raises(InputError, match="it is the factor of a mixing matrix"):
        train_stack(recipe, [0])


def test_the_best_closed_form_is_the_least(toy):
    M = np.random.default_rng(0).standard_normal((20, 20))
    best, floor = learned_sigma.best_closed(M)
    grid = [non_negative(20, 10, sigma * M) for sigma in np.linspace(0, 0.2, 401)]
    assert floor == pytest.approx(min(grid), rel=1e-4)
    assert best == pytest.approx(0.0005 * np.argmin(grid), abs=0.0006)


def test_n_max_is_found_from_shares(monkeypatch):
    """With the shares of the naive network, 1 − d/n, the largest n is d/0.9; of seed 1, as if it had a neuron more."""
    asked = []

    def shares(key, n):
        asked.append(n)
        return [max(0.0, 1 - width / n) for width in (key["d"], key["d"] + 1)]

    monkeypatch.setattr(n_max, "shares", shares)
    found = n_max.search({"d": 90})
    assert found["n_max"] == pytest.approx([100, 91 / 0.9], rel=1e-3)
    assert len(set(asked)) == len(asked) == len(found["sizes"])
    assert n_max.crossing([4, 5], [0.3, 0.4]) == 4
    rows = [{"d": d, "n_max": [d**2, d**1.5]} for d in (4, 8, 16)]
    assert n_max.exponents(rows) == pytest.approx([2, 1.5])


@pytest.mark.parametrize("d", [4, 24, 1000])
def test_the_closed_form_of_n_max_is_that_of_alpha(d):
    n = n_max.closed_form(d, 4)
    u = [single_alpha(size, d) * d / size for size in (math.floor(n), math.ceil(n))]
    assert (1 - u[0]) ** 2 <= 0.1 <= (1 - u[1]) ** 2
    assert n_max.closed_form(d, 2) == pytest.approx(d / 0.9)


def test_shares_of_products_are_those_of_the_output_0():
    def answer(value):
        layer, output = FirstLayer(torch.zeros(1, 5), torch.zeros(1)), torch.full((10,), value)
        return Network(layer, LinearReadoff(torch.zeros(10, 1), output))

    assert products.shares(answer(0.0), 5, 2000, 0).tolist() == pytest.approx([1] * 10)
    # E (c − xy)²/E (xy)² = 1 + 9 c²; the mean of 10 products with 3,000 inputs each has a standard error of 0.035.
    assert float(products.shares(answer(0.5), 5, 30_000, 0).mean()) == pytest.approx(1 + 9 / 4, abs=0.15)


def test_checks_of_a_network_by_hand():
    """Features 0 to 9 on neurons of their own with weight 0.5, decoded by 2; the other ten are left out."""
    w_in = torch.eye(20)[:10] * 0.5
    made = network(w_in, 4 * w_in.T)
    found = l4_code.checks(made, 0, {"n": 20, "d": 10, "eval": 3000})
    assert found["rank"] == pytest.approx(10)  # what no matrix of rank 10 has less of
    assert [found[name] for name in ("cosine", "scale", "at_1", "at_minus_1", "least_mse")] == pytest.approx(
        [1, 1, 0.5, 0, 0], abs=1e-4
    )
    assert found["most_mse"] == pytest.approx(1 / 3, abs=0.1)
    assert [found[name] for name in ("least_k", "most_k", "least_load", "most_load")] == [0, 1, 1, 1]
    assert (found["on_mean"], found["on_sd"], found["off_mean"]) == (0.5, 0, 0)


def test_a_swap_counts_if_the_largest_output_is_the_other_feature():
    layers = two_layer(network(torch.eye(3), torch.eye(3)), 3, 3)
    assert l4_code.swap_rate(layers, layers.w_in > 0.05) == 1
    turned = two_layer(
        network(torch.eye(3), torch.eye(3)[[1, 0, 2]]), 3, 3
    )  # 0 and 1 answer for each other: 2 of 6 pairs
    assert l4_code.swap_rate(turned, turned.w_in > 0.05) == pytest.approx(1 / 3)
    assert np.isnan(l4_code.swap_rate(layers, np.zeros((3, 3), dtype=bool)))


def test_the_exact_error_lies_between_that_of_the_grid_and_what_it_can_hide(monkeypatch):
    monkeypatch.setattr(amplitudes, "NETWORKS", ("naive", "linear_copy"))
    member = REPRODUCTIONS["amplitudes"]
    rows = [
        {**key, **member.call({"key": key})} for key in member.keys({"n": 8, "d": 4, "steps": 1, "points": 400}, (0, 1))
    ]
    assert "In 8 of 8 cases" in member.answer(rows)
    assert all(exact - grid > 0 for row in rows for exact, grid in zip(row["exact"], row["grid"], strict=True))
    for name, value in (("exact", 0.9), ("grid", 1.1), ("again", 0.9)):  # each fault is noticed in its case
        wrong = [{**rows[0], name: [value * rows[0]["exact"][0], *rows[0][name][1:]]}, *rows[1:]]
        assert "In 7 of 8 cases" in member.answer(wrong)
