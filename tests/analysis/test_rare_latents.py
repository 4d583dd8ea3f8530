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
    expected = {"number": 5, "died": 1 / 5, "rarer": 1 / 5, "alike": 1 / 5, "more often": 2 / 5, "common": -0.5}
    got = script.fates(row)
    assert got.pop("change") == pytest.approx(np.median([-1, -0.1, 0.5, 2]))
    assert got == pytest.approx(expected)
    nothing = script.fates({"rarest": 0.1, "densities": [[-1]] * 9})
    assert nothing["number"] == 0
    assert math.isnan(nothing["change"])
    _, line = script.fates_table(
        [
            {"method": "l1", **row},
        ]
    )
    assert line == ["l1", "5.0", "0.20", "0.20", "0.20", "0.40", "0.20", "−0.50"]


@pytest.mark.parametrize("wrong", [{"seeds": 1}, {"steps": 65}, {"m": 2}, {"s": 4.0}])
def test_settings_without_a_figure_are_refused(script, tmp_path, wrong):
    with pytest.raises(InputError, match="the figure needs"):
        script.main(script.RareLatents(out=tmp_path, **{**SMALL, **wrong}))
