"""The study of SAE errors at toy size: measured, stored, drawn again; fates of latents are counted right."""

import importlib.util
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from toymodels import InputError, fit_dictionary, gaussian
from toymodels.circuits.correction import correction_layer
from toymodels.core.features import make_features
from toymodels.core.seeds import derive_seed, seeded
from toymodels.ground_truth.dictionaries import fit_autoencoder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("sae_errors", ROOT / "analysis" / "sae_errors.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["sae_errors"] = module
    spec.loader.exec_module(module)
    return module


SMALL = {"m": 4, "s": 2, "layers": ("gaussian",), "d": (10,), "methods": ("topk(k=2,steps=4)",), "factors": (1.0, 2.0),
         "seeds": 2, "steps": 8, "bases": 5}  # fmt: skip


def test_measures_stores_and_draws(script, tmp_path):
    text = script.main(script.SAEErrors(out=tmp_path, **SMALL))
    rows = [json.loads(line) for line in (tmp_path / "sae_errors.jsonl").read_text().splitlines()]
    assert [row["part"] for row in rows] == ["moves"] * 2 + ["rare"] * 6
    for row in rows[:2]:
        assert row["worst"]["linear"] == pytest.approx(row["clean_worst_error"], rel=1e-6)
        one, two = (row["moves"][f"topk(k=2,steps=4) linear {factor}"] for factor in (1, 2))
        assert one == pytest.approx(two, rel=1e-6)  # a linear readoff knows no lengths
    for row in rows[2:]:
        assert row["times"] == list(range(1, 9))
        assert all(
            len(density) == 10 and min(density) >= 0 and max(density) <= 1 + 1e-9 for density in row["densities"]
        )
    assert (tmp_path / "sae_errors.png").stat().st_size > 10_000
    assert script.main(script.SAEErrors(out=tmp_path, plot_only=True, **SMALL)) == text


def test_errors_moves_and_exponents_of_a_line_are_recomputed(script):
    """By NumPy from the weights: what stands behind the readoff, moves along the SAE's error and the principal direction, p."""
    m, s, d, seed, bases = 4, 2, 10, 3, 12  # with seed 3 the exponent is not at the end of its range
    key = {"layer": "gaussian", "d": d, "m": m, "s": s, "seed": seed, "methods": ["topk(k=2,steps=4)"], "factors": [2.0],
           "bases": bases}  # fmt: skip
    row = script.measure_moves(key)
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


def test_densities_of_latents_are_recomputed(script):
    m, d, seed = 4, 10, 1
    row = script.measure_rare({"m": m, "d": d, "s": 2, "method": "l1", "seed": seed, "steps": 8})
    features, layer = make_features("unequal(exponent=1)", m, 1.0), gaussian(m, d, derive_seed(seed, "frozen layer"))
    every = features.enumerate()
    x, p = every.dense().double().numpy(), every.probabilities.double().numpy()
    assert row["rarest"] == pytest.approx(min((x[:, k] * x[:, l]) @ p for k, l in itertools.combinations(range(m), 2)))
    sampled = layer(features.sampled(20_000, derive_seed(seed, "fit")).dense())
    sae = fit_autoencoder(sampled, 10, derive_seed(seed, "dictionary"), l1=0.1, steps=8)
    encoder, b_enc, b_dec = (
        getattr(sae, name).double().numpy() for name in ("encoder", "encoder_bias", "decoder_bias")
    )
    a = np.maximum(x @ layer.weight.double().detach().numpy().T + layer.bias.double().detach().numpy(), 0)
    active = (a / float(sae.scale) - b_dec) @ encoder.T + b_enc > 0
    assert row["densities"][-1] == pytest.approx(list(active.T @ p))
    assert row["densities"][-1] != row["densities"][0]


def test_fates_of_rare_latents_are_counted(script):
    # Latents at half time and at the end: rare then dead, rare then rarer, rare then more often, dead, frequent.
    row = {"rarest": 0.1, "densities": [[0.005, 0.005, 0.005, 0, 0.5], [0, 0.004, 0.3, 0, 0.5]]}
    assert script.rare_row([row]) == ["0.200", "0.400", "0.600", "0.200", "1", "1", "1"]


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"layers": ("nope",)}, {"d": (1, 2)}, {"s": 9}])
def test_settings_without_a_figure_are_refused(script, tmp_path, wrong):
    with pytest.raises(InputError, match=r"must have a width|needs at least"):
        script.main(script.SAEErrors(out=tmp_path, **{**SMALL, **wrong}))


def test_what_the_page_answers_stands_in_the_results():
    page = " ".join((ROOT / "docs/results/sae_errors.md").read_text().partition("U-AND, m = 12")[0].split())
    rows = [json.loads(line) for line in (ROOT / "analysis/results/sae_errors.jsonl").read_text().splitlines()]
    moves = [row for row in rows if row["part"] == "moves"]

    def of(layer, d, method, behind, move, over=None):
        at = [row["moves"][f"{method} {behind} 1"] for row in moves if (row["layer"], row["d"]) == (layer, d)]
        assert len(at) == 3
        return with_interval([one[move] / (one[over] if over else 1) for one in at])

    def with_interval(values):
        # Student's t for three seeds.
        return float(np.mean(values)), 4.3027 * float(np.std(values, ddof=1)) / 3**0.5

    def words(pair, digits):
        return f"{pair[0]:.{digits}f} ± {pair[1]:.{digits}f}"

    wide = ("gaussian", 80, "l1(l1=0.1)", "thresholded")
    assert f"{words(of(*wide, 'functions'), 3)} against {words(of(*wide, 'random'), 3)}" in page
    linear = of("gaussian", 80, "l1(l1=0.1)", "linear", "functions", "random")
    assert linear[0] + linear[1] < 1
    for layer, said in (
        ("gaussian", "of a random move for l1, {} for batch_topk"),
        ("trained", "for l1 and {} for batch_topk"),
    ):
        first, second = (
            words(of(layer, 80, method, "thresholded", "sae_error", "random"), 2)
            for method in ("l1(l1=0.1)", "batch_topk")
        )
        assert f"{first} {said.format(second)}" in page
    for layer, d in (("gaussian", 40), ("gaussian", 80), ("trained", 80)):
        for method in ("l1(l1=0.1)", "batch_topk"):
            assert of(layer, d, method, "linear", "sae_error", "random")[0] < 1
    for method, behind in itertools.product(("l1(l1=0.1)", "batch_topk"), ("linear", "thresholded", "corrected")):
        for d in (40, 80):
            assert sum(of("gaussian", d, method, behind, "sae_error", "random")) < 1  # the upper end of the interval
    for method in ("l1(l1=0.1)", "batch_topk"):  # "three seeds do not say"
        ratio, half = of("trained", 80, method, "thresholded", "sae_error", "random")
        assert abs(ratio - 1) < half
    exponents = {
        (layer, behind, kind): np.mean([row["exponents"][f"{behind} {kind}"]["p"] for row in moves
                                        if (row["layer"], row["d"]) == (layer, 80)])
        for layer in ("gaussian", "trained") for behind in ("linear", "thresholded", "corrected")
        for kind in ("functions", "random")
    }  # fmt: skip
    ands = [p for (_, behind, kind), p in exponents.items() if kind == "functions" and behind != "linear"]
    assert f"{min(ands):.1f} to {max(ands):.1f} with thresholds" in page
    random = [p for (_, _, kind), p in exponents.items() if kind == "random"]
    assert f"{min(random):.1f} to {max(random):.1f} along random" in page
    plain = [p for (_, behind, kind), p in exponents.items() if kind == "functions" and behind == "linear"]
    assert f"{min(plain):.1f} to {max(plain):.1f} along ANDs without" in page
    rare = [row for row in rows if row["part"] == "rare"]
    half = [np.array(row["densities"][3]) for row in rare]
    few = [(x > 0) & (x < 0.1 * row["rarest"]) for x, row in zip(half, rare, strict=True)]
    assert (sum(x.sum() for x in few), sum(map(len, half)), len(rare)) == (4, 702, 9)
    ends = np.concatenate([np.array(row["densities"][-1])[x] for x, row in zip(few, rare, strict=True)])
    before = np.concatenate([x[chosen] for x, chosen in zip(half, few, strict=True)])
    assert ((ends == 0).sum(), ((ends > 0) & (ends < before)).sum(), (ends >= before).sum()) == (3, 0, 1)
