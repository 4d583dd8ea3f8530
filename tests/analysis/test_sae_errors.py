"""The study of SAE errors at toy size: measured, stored, drawn again; and its committed numbers bear out the page."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from toymodels import InputError, fit_dictionary
from toymodels.circuits.correction import correction_layer
from toymodels.core.seeds import derive_seed, seeded
from toymodels.ground_truth.perturbations import Exponent

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("sae_errors", ROOT / "analysis" / "sae_errors.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["sae_errors"] = module
    spec.loader.exec_module(module)
    return module


SMALL = {"m": 4, "s": 2, "layers": ("gaussian",), "d": (10,), "methods": ("topk(k=2,steps=4)",), "factors": (1.0, 2.0),
         "seeds": 2, "bases": 5}  # fmt: skip


def test_measures_stores_and_draws(script, tmp_path):
    text = script.main(script.SAEErrors(out=tmp_path, **SMALL))
    rows = [json.loads(line) for line in (tmp_path / "sae_errors.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        one, two = (row["moves"][f"topk(k=2,steps=4) linear {factor}"] for factor in (1, 2))
        assert one == pytest.approx(two, rel=1e-6)  # a linear readoff knows no lengths
    assert (tmp_path / "sae_errors.png").stat().st_size > 10_000
    assert script.main(script.SAEErrors(out=tmp_path, plot_only=True, **SMALL)) == text


def test_errors_moves_and_exponents_of_a_line_are_recomputed(script):
    """By NumPy from the weights: what stands behind the readoff, moves along the SAE's error and the principal direction, p."""
    m, s, d, seed, bases = 4, 2, 10, 3, 12  # with seed 3 the exponent is not at the end of its range
    key = {"layer": "gaussian", "d": d, "m": m, "s": s, "seed": seed, "methods": ["topk(k=2,steps=4)"], "factors": [2.0],
           "bases": bases}  # fmt: skip
    row = script.measure_layer(key)
    network, _, features = script.make_network("gaussian", m, d, s, seed)
    (w, b), (r, c) = ([part.double().detach().numpy() for part in (one.weight, one.bias)]
                      for one in (network.layer, network.readoff))  # fmt: skip
    x = np.array([one for one in itertools.product((0.0, 1.0), repeat=m) if sum(one) <= s])
    truth = np.array([[one[k] * one[l] for k, l in itertools.combinations(range(m), 2)] for one in x])
    a = np.maximum(x @ w.T + b, 0)
    correction = correction_layer(6, 240, 1, seed).double()
    behind = {
        "linear": lambda a: a @ r.T + c,
        "thresholded": lambda a: np.clip(2 * (a @ r.T + c) - 0.5, 0, 1),
        "corrected": lambda a: correction(torch.from_numpy(a @ r.T + c)).detach().numpy(),
    }
    sae = fit_dictionary("topk(k=2,steps=4)", network.layer(features.sampled(20_000, derive_seed(seed, "fit")).dense()), 10,
                         derive_seed(seed, "dictionary"))  # fmt: skip
    error = sae(torch.from_numpy(a).float()).double().numpy() - a
    length = 2 * np.linalg.norm(error, axis=1, keepdims=True)
    first = np.linalg.svd(a - a.mean(0), full_matrices=False)[2][0]
    for name, function in behind.items():
        # Activations are float32 there, and thresholds double what they lose.
        assert row["worst"][name] == pytest.approx(np.abs(function(a) - truth).max(), abs=1e-4)
        got = row["moves"][f"topk(k=2,steps=4) {name} 2"]
        moved = {sign: function(a + sign * length * first) for sign in (1, -1)}

        def per_length(outputs, function=function):
            return (((outputs - function(a)) ** 2).mean() / (length**2).sum(1).mean()) ** 0.5

        assert got["sae_error"] == pytest.approx(per_length(function(a + 2 * error)), rel=1e-3)
        # The sign of a principal direction is open.
        assert min(abs(got["principal"] / per_length(outputs) - 1) for outputs in moved.values()) < 1e-3
    generator = seeded(derive_seed(seed, "evaluation"))
    torch.randint(len(a), (bases,), generator=generator)
    u, v = (one / np.linalg.norm(one, axis=1, keepdims=True)
            for one in torch.randn(2, bases, d, generator=generator).double().numpy())  # fmt: skip
    phi = np.linspace(0, np.pi / 2, 7)[:, None, None]
    # Behind a linear readoff the radius is known: the outputs move by 1/2.
    radius = 0.5 / np.linalg.norm((np.cos(phi) * u + np.sin(phi) * v) @ r.T, axis=2)
    px, py = radius * np.cos(phi[..., 0]) / radius[0], radius * np.sin(phi[..., 0]) / radius[-1]
    grid = np.arange(0.5, 10, 0.001)
    misfit = [(np.log(px[1:-1] ** p + py[1:-1] ** p) ** 2).sum() / p**2 for p in grid]
    found = row["exponents"]["linear random"]
    assert found["used"] == bases
    assert found["p"] == pytest.approx(grid[np.argmin(misfit)], abs=2e-3)


def test_pairs_of_directions_are_two_that_are_off(script):
    values = torch.tensor([[0, 1.0, 0, 0], [1.0, 0, 0, 1.0]])
    u, v = script._two_off(torch.diag(torch.tensor([1.0, 2, 3, 4])), values.repeat(50, 1), seeded(0))
    for first, second, row in zip(u, v, values.repeat(50, 1), strict=True):
        assert float((first @ second).abs() + row.double() @ (first + second)) == 0
        assert (float(first.sum()), float(second.sum())) == (1, 1)


@pytest.mark.parametrize("wrong", [
    {"seeds": 1}, {"layers": ("nope",)}, {"d": (1, 2)}, {"s": 9}, {"methods": ()}, {"methods": ("nope",)}, {"bases": 0},
    {"factors": (0.5,)}, {"factors": (1.0, -1.0)}, {"d": (0, 40, 80)}])  # fmt: skip
def test_settings_without_a_figure_are_refused(script, tmp_path, wrong):
    with pytest.raises(
        InputError, match=r"must have|needs at least|is empty|unknown sparse|at least 1|positive number"
    ):
        script.main(script.SAEErrors(out=tmp_path, **{**SMALL, **wrong}))


def test_an_exponent_without_a_minimum_is_none_and_counted(script, monkeypatch):
    key = {"layer": "gaussian", "d": 10, "m": 4, "s": 2, "seed": 3, "methods": [], "factors": [], "bases": 5}
    monkeypatch.setattr(script, "exponent", lambda *_, **__: Exponent(float("nan"), 5))
    row = {**key, **script.measure_layer(key)}
    assert set(map(str, row["exponents"].values())) == {"{'p': None, 'used': 5}"}
    _, line, *_ = script.exponents_table([row])
    assert line == ["gaussian, d = 10", "linear", "–", "–", "–", "3"]


def test_what_the_page_answers_stands_in_the_results():
    page = " ".join((ROOT / "docs/results/sae_errors.md").read_text().split())
    rows = [json.loads(line) for line in (ROOT / "analysis/results/sae_errors.jsonl").read_text().splitlines()]
    methods, behinds = ("l1(l1=0.1)", "batch_topk"), ("linear", "thresholded", "corrected")

    def of(layer, d, method, behind, move, over=None, factor=1, seeds=24):
        at = [row["moves"][f"{method} {behind} {factor}"] for row in rows
              if (row["layer"], row["d"]) == (layer, d) and row["seed"] < seeds]  # fmt: skip
        assert len(at) == seeds
        return with_interval([one[move] / (one[over] if over else 1) for one in at])

    def with_interval(values):
        # Student's t for as many seeds.
        return float(np.mean(values)), {8: 2.3646, 23: 2.0739, 24: 2.0687}[len(values)] * float(
            np.std(values, ddof=1)
        ) / len(values) ** 0.5

    def words(pair, digits=2):
        return f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"

    def ratios(layer, **about):
        return [of(layer, 80, method, "thresholded", "sae_error", "random", **about) for method in methods]

    trained = ("trained", 80, "l1(l1=0.1)", "thresholded")
    assert f"{words(of(*trained, 'functions'), 3)} against {words(of(*trained, 'random'), 3)} per length" in page
    assert sum(of("trained", 80, "l1(l1=0.1)", "linear", "functions", "random")) < 1
    for layer in ("gaussian", "trained"):
        assert "{} for l1 and {} for batch_topk".format(*map(words, ratios(layer))) in page
    assert "{} and {}, so 16 were added".format(*map(words, ratios("trained", seeds=8))) in page
    assert all(abs(mean - 1) < half for mean, half in ratios("trained", seeds=8))  # "undecided"
    assert all(sum(pair) < 1 for pair in ratios("gaussian"))
    assert sum(ratios("trained")[0]) < 1
    assert abs(ratios("trained")[1][0] - 1) < ratios("trained")[1][1]  # "not told from 1"
    longer = [ratios("trained", factor=factor)[1] for factor in (2, 4)]
    assert "{} and {}.".format(*map(words, longer)) in page
    assert all(sum(pair) < 1 for pair in longer)
    for method, (layer, d), behind in itertools.product(
        methods, (("gaussian", 40), ("gaussian", 80), ("trained", 80)), behinds
    ):
        if (layer, behind) != ("trained", "thresholded"):
            assert sum(of(layer, d, method, behind, "sae_error", "random")) < 1
    found: dict = {}
    for row in rows:
        for name, fit in row["exponents"].items():
            found.setdefault((row["layer"], row["d"], *name.split()), {})[row["seed"]] = fit["p"]
    missing = {(about[3], seed) for about, fits in found.items() for seed, p in fits.items() if p is None}
    count = sum(p is None for fits in found.values() for p in fits.values())
    assert missing == {("random", 11)}
    assert f"{count} in {sum(map(len, found.values()))}" in page
    odd = found["gaussian", 80, "corrected", "random"]
    assert f"is {odd[11]:.1f}" in page
    assert (
        f"{words(with_interval(list(odd.values())))} is {words(with_interval([p for s, p in odd.items() if s != 11]))}"
        in page
    )
    means = {
        about: np.mean([p for seed, p in fits.items() if seed != 11]) for about, fits in found.items() if about[1] == 80
    }
    ands = [p for (*_, behind, kind), p in means.items() if kind == "functions" and behind != "linear"]
    assert f"{min(ands):.1f} to {max(ands):.1f} with thresholds" in page
    random = [p for (*_, kind), p in means.items() if kind == "random"]
    assert f"{min(random):.1f} to {max(random):.1f} along random" in page
    plain = [p for (*_, behind, kind), p in means.items() if kind == "functions" and behind == "linear"]
    assert f"{min(plain):.1f} to {max(plain):.1f} along ANDs without" in page


def test_the_layer_of_seed_11_has_a_neuron_that_decides(script):
    """The page says so; the readoff is the minimax one of a layer that the page names."""
    network, _, features = script.make_network("gaussian", 12, 80, 3, 11)
    columns = network.readoff.weight.detach().norm(dim=0)
    most = int(columns.argmax())
    active = network.layer(features.enumerate().dense())[:, most]
    assert int((active > 0).sum()) == 1
    assert round(float(active.max()), 2) == 0.02
    assert float(columns[most] / columns.median()) > 80
