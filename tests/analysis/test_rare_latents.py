"""The study of rare latents at toy size: measured, stored, drawn again; and kinds and fates of latents are counted right."""

import importlib.util
import itertools
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from toymodels import InputError, gaussian
from toymodels.core.features import make_features
from toymodels.core.seeds import derive_seed
from toymodels.ground_truth.dictionaries import fit_autoencoder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("rare_latents", ROOT / "analysis" / "rare_latents.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["rare_latents"] = module
    spec.loader.exec_module(module)
    return module


SMALL = {"m": 4, "d": 10, "s": 1.0, "latents": 12, "steps": 64, "seeds": 2}


def test_measures_stores_and_draws(script, tmp_path):
    text = script.main(script.RareLatents(out=tmp_path, **SMALL))
    rows = [json.loads(line) for line in (tmp_path / "rare_latents.jsonl").read_text().splitlines()]
    assert [(row["method"], row["seed"]) for row in rows] == list(itertools.product(script.METHODS, (0, 1)))
    for row in rows:
        assert [len(density) for density in row["densities"]] == [12] * len(script.TIMES)
        assert [len(row[name]) for name in ("biases", "products")] == [2, 2]
    assert (tmp_path / "rare_latents.png").stat().st_size > 10_000
    assert script.main(script.RareLatents(out=tmp_path, plot_only=True, **SMALL)) == text


def test_densities_biases_and_products_are_recomputed(script):
    row = script.measure(
        {"method": "l1", "seed": 1, **{name: SMALL[name] for name in ("m", "d", "s", "latents", "steps")}}
    )
    features, layer = make_features("unequal(exponent=1)", 4, 1.0), gaussian(4, 10, derive_seed(1, "frozen layer"))
    every = features.enumerate()
    x, p = every.dense().double().numpy(), every.probabilities.double().numpy()
    assert row["rarest"] == pytest.approx(min((x[:, k] * x[:, l]) @ p for k, l in itertools.combinations(range(4), 2)))
    sampled = layer(features.sampled(200_000, derive_seed(1, "fit")).dense())
    sae = fit_autoencoder(sampled, 12, derive_seed(1, "dictionary"), l1=0.3, steps=64, lr=1e-3)
    encoder, decoder, b_enc, b_dec = (
        getattr(sae, name).double().numpy() for name in ("encoder", "decoder", "encoder_bias", "decoder_bias")
    )
    a = np.maximum(x @ layer.weight.double().detach().numpy().T + layer.bias.double().detach().numpy(), 0)
    density = p @ ((a / float(sae.scale) - b_dec) @ encoder.T + b_enc > 0)
    # Stored to two digits behind the point of log10, biases and products to three.
    assert row["densities"][-1] == pytest.approx(list(np.log10(density)), abs=0.006)
    assert row["densities"][-1] != row["densities"][0]
    assert row["biases"][-1] == pytest.approx(list(b_enc), abs=6e-4)
    assert row["products"][-1] == pytest.approx(list((encoder * decoder).sum(1)), abs=6e-4)


def test_kinds_and_fates_are_counted(script):
    """At half time: rare five times (died, rarer, alike, more often, common at the end), common, dead."""
    half = [-3, -3, -3, -3, -3, -1, None]
    end = [None, -4, -3.1, -2.5, -1, -1.5, -3]
    row = {"rarest": 0.1, "densities": [half] * 8 + [end]}
    assert {kind: chosen.tolist() for kind, chosen in script.kinds(row, script.HALF).items()} == {
        "dead": [False] * 6 + [True], "ultra-rare": [True] * 5 + [False] * 2, "common": [False] * 5 + [True, False],
    }  # fmt: skip
    expected = {"number": 5, "died": 1 / 5, "rarer": 1 / 5, "alike": 1 / 5, "more often": 2 / 5}
    assert script.fates(row) == pytest.approx({**expected, "change": np.median([-1, -0.1, 0.5, 2])})
    assert script.fates(row, "common") == {
        "number": 1, "died": 0, "rarer": 1, "alike": 0, "more often": 0, "change": -0.5,
    }  # fmt: skip
    assert math.isnan(script.fates({"rarest": 0.1, "densities": [[-1]] * 9})["change"])
    _, line, _ = script.fates_table([{"method": "l1", **row}])
    assert line == ["ultra-rare", "l1", "5.0", "0.20", "0.20", "0.20", "0.40", "0.20"]


@pytest.mark.parametrize(
    "wrong", [{"seeds": 1}, {"steps": 65}, {"m": 2}, {"s": 4.0}, {"d": 0}, {"m": 21}, {"latents": 5}]
)
def test_settings_without_a_figure_are_refused(script, tmp_path, wrong):
    with pytest.raises(InputError, match=r"the figure needs|it must be at (least|most)"):
        script.main(script.RareLatents(out=tmp_path, **{**SMALL, **wrong}))


def test_what_the_page_answers_stands_in_the_results(script):
    page = " ".join((ROOT / "docs/results/rare_latents.md").read_text().split())
    rows = [json.loads(line) for line in (ROOT / "analysis/results/rare_latents.jsonl").read_text().splitlines()]

    def words(method, name, kind="ultra-rare", digits=0, scale=100):
        values = [scale * script.fates(row, kind)[name] for row in rows if row["method"] == method]
        assert len(values) == 5
        # Student's t for five seeds.
        return f"{np.mean(values):.{digits}f} ± {2.7764 * np.std(values, ddof=1) / 5**0.5:.{digits}f}".replace("-", "−")

    numbers = [words("l1", name) for name in ("died", "rarer", "alike", "more often")]
    said = "{} % died, {} % got rarer by a factor of two or more, {} % stayed alike, and {} % got more often active"
    assert said.format(*numbers) in page
    assert f"Of {words('l1', 'number', scale=1)} such latents" in page
    common = [words("l1", name, "common").split()[0] for name in ("died", "rarer", "more often")]
    assert "{} % died, {} % got rarer and {} % more often".format(*common) in page
    medians = [words("l1", "change", kind, 2, 1) for kind in ("ultra-rare", "common")]
    assert "{} against {}".format(*medians) in page

    def down(row, kind):
        fate = script.fates(row, kind)
        return fate["died"] + fate["rarer"] - fate["more often"]

    for method in ("l1", "l1, begins again"):
        own = [row for row in rows if row["method"] == method]
        # In each seed more go down than up, by a fifth of them at least, and by more than common latents do.
        assert all(down(row, "ultra-rare") > max(0.2, down(row, "common")) for row in own)
    for method in ("topk", "topk, begins again"):
        own = [row for row in rows if row["method"] == method]
        assert np.nansum([script.fates(row)["rarer"] for row in own]) == 0
        assert max(script.kinds(row, script.HALF)["ultra-rare"].sum() for row in own) <= 6
    for time in range(len(script.TIMES)):
        for kind in ("dead", "ultra-rare"):
            for method in ("l1", "topk"):  # "changes neither by more than their intervals"
                pair = [
                    [script.kinds(row, time)[kind].mean() for row in rows if row["method"] == name]
                    for name in (method, f"{method}, begins again")
                ]
                assert abs(np.mean(pair[0]) - np.mean(pair[1])) < 0.02
    for row in rows:
        if row["method"].startswith("l1"):
            kinds = script.kinds(row, -1)
            for column in ("biases", "products"):
                rare, often = (np.median(np.array(row[column][-1])[kinds[kind]]) for kind in ("ultra-rare", "common"))
                assert rare > often
